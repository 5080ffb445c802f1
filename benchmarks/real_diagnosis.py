"""Why the model does worse on real galaxies: one thing changed at a time.

An experiment changes the data (or the prior) and the same model answers again; the change of the
CRPS, paired galaxy by galaxy, says how much that thing costs. The chain

    twin -> twin seen by BOSS -> at the real level -> pipeline's fit and pure noise -> real

separates the instrument's format, how bright such galaxies are at their redshift, the galaxies
themselves, and what is in the data beyond galaxy and noise (sky residuals, calibration).

Axes: galaxy, pixel.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch
from real_answers import GRID, Answer, answer, seen_by, simulated_n_of_z, twins, without_u
from real_hidden import Hidden, galaxy_means
from real_set import SKY_LINES, boss, split_by_reach, triples
from report_set import Sample, on_grid
from results_file import Figure, figure, score_figure
from scipy.stats import gaussian_kde

from probmmae.bands import effective_wavelength
from probmmae.batch import Batch
from probmmae.calibration.evidence import Evidence, density_evidence
from probmmae.calibration.scores import ratio_of_means
from probmmae.collate import collate
from probmmae.galaxy import Galaxy
from probmmae.model import GalaxyModel

_LINES = (
    *(3728.5, 3869.9, 4102.9, 4341.7, 4862.7, 4960.3, 5008.2),
    *(6302.0, 6549.9, 6564.6, 6585.3, 6718.3, 6732.7),
)
"""Strong lines, vacuum Angstrom at rest."""


def reweighted(one: Answer, pool: Sample) -> Evidence:
    """The posteriors with the n(z) of the other real galaxies in place of the simulation's."""
    simulated = np.maximum(simulated_n_of_z(pool), 1e-3)
    _, cdf = on_grid(one.density, GRID)
    for row in range(len(one.z)):
        others = np.delete(one.z, row)
        weight = (gaussian_kde(others)(GRID) + 0.05) / simulated
        steps = np.diff(cdf[row]) * 0.5 * (weight[1:] + weight[:-1])
        total = np.concatenate([[0.0], steps.cumsum()])
        if total[-1] > 0:
            cdf[row] = total / total[-1]
    return density_evidence(
        one.label,
        np.gradient(cdf, GRID, axis=1),
        grid=GRID,
        truth=one.z,
        generator=np.random.default_rng(0),
        cdf=cdf,
    )


def compared(label: str, before: Answer, changes: Mapping[str, Evidence]) -> list[Figure]:
    """CRPS ratio of every change, and before and after of the one that lowers it most."""
    base = before.evidence()
    figures, ratios = [], {}
    for name, said in changes.items():
        ratio = ratio_of_means("ratio", said.crps_values, base.crps_values)
        ratios[name] = (ratio.value, said)
        title = f"{label} diagnosis: {name}"
        figures.append(
            score_figure(ratio, name=f"{title}: CRPS over that of the data as they are")
        )
    own = {name: value for name, value in ratios.items() if not name.startswith("chain")}
    best = min(own, key=lambda name: own[name][0])
    title = f"{label} diagnosis: the change that helps most is: {best}"
    for when, said in (("before", base), ("after", own[best][1])):
        figures.append(score_figure(said.scores[0], name=f"{title}: CRPS {when}"))
        figures.append(
            score_figure(said.at(0.9), name=f"{title}: coverage of 90% intervals {when}")
        )
    return figures


def with_spectra(batch: Batch, **changed: torch.Tensor) -> Batch:
    """The batch with some tensors of its spectra replaced."""
    return replace(batch, spectra=replace(batch.spectra, **changed))


def without_pixels(batch: Batch, lost: Callable[[np.ndarray], np.ndarray]) -> Batch:
    """The batch without the pixels at the observed wavelengths for which `lost` is true."""
    keep = torch.as_tensor(~lost(batch.spectra.wavelength.numpy()))
    return with_spectra(batch, flux=batch.spectra.flux * keep, ivar=batch.spectra.ivar * keep)


def _airglow(wavelength: np.ndarray) -> np.ndarray:
    """Bright lines, and the red end where OH lines crowd."""
    lost = wavelength > 9300
    for low, high in SKY_LINES:
        lost |= (wavelength > low) & (wavelength < high)
    return lost


def pipeline_fits(data: Path, galaxies: list[Galaxy], batch: Batch, *, seed: int) -> Batch:
    """The pipeline's fit of every BOSS galaxy with pure noise of its ivar in place of the data."""
    with h5py.File(data / "boss_xxl_spectra" / "boss_xxl.h5") as file:
        names = zip(*(file[f"cat/{key}"][:] for key in ("plate", "mjd", "fiberid")), strict=True)
        row_of = {f"boss-{p}-{m}-{f}": row for row, (p, m, f) in enumerate(names)}
        rows = [row_of[galaxy.id] for galaxy in galaxies]
        model, flux = (file[name][:][rows] for name in ("model", "flux"))
    ivar = batch.spectra.ivar[:, 0].numpy()
    # The reader's scale to what the fibre caught is the same for every pixel.
    measured = batch.spectra.flux[:, 0].numpy()
    scale = (measured * flux).sum(1) / np.maximum((flux**2 * (ivar > 0)).sum(1), 1e-12)
    noise = np.random.default_rng(seed).standard_normal(ivar.shape)
    made = model * scale[:, None] + noise / np.sqrt(np.maximum(ivar, 1e-12))
    return with_spectra(
        batch, flux=torch.as_tensor(np.where(ivar > 0, made, 0.0)[:, None], dtype=torch.float32)
    )


def redshift_diagnosis(
    network: GalaxyModel, data: Path, pool: Sample, *, seed: int
) -> list[Figure]:
    """Experiments on redshifts from BOSS spectra and photometry and from HST images."""
    galaxies, _ = split_by_reach(boss(data))
    batch = collate(galaxies)

    def shows(changed: Batch, what: str) -> Answer:
        return answer(network, changed, what, label="")

    def of(changed: Batch, what: str = "spectrum") -> Evidence:
        return shows(changed, what).evidence()

    near = twins(pool, batch, "spectrum")
    spectra = batch.spectra
    changes = {
        "flux calibrated to a point source, as in the file": of(
            collate(split_by_reach(boss(data, fibre_flux=False))[0])
        ),
        "Galactic extinction corrected": of(collate(split_by_reach(boss(data, dust=True))[0])),
        "airglow lines and the red beyond 9300 A masked": of(without_pixels(batch, _airglow)),
        "cut to the simulated 3650-10350 A": of(
            without_pixels(batch, lambda wave: (wave < 3650) | (wave > 10350))
        ),
        "line spread 15 % narrower": of(with_spectra(batch, sigma=spectra.sigma * 0.85)),
        "line spread 15 % broader": of(with_spectra(batch, sigma=spectra.sigma * 1.15)),
        "flux and errors halved": of(
            with_spectra(batch, flux=spectra.flux / 2, ivar=spectra.ivar * 4)
        ),
        "errors 30 % larger": of(with_spectra(batch, ivar=spectra.ivar / 1.69)),
        "chain: pipeline's fit and pure noise": of(
            pipeline_fits(data, galaxies, batch, seed=seed)
        ),
        "chain: simulated twins seen by BOSS": of(seen_by(near, batch, seed=seed)),
        "chain: simulated twins seen by BOSS, at the real level": of(
            seen_by(near, batch, seed=seed, same_level=True)
        ),
        "chain: simulated twins as simulated": of(near.batch),
    }
    figures = compared("BOSS spectrum to redshift", shows(batch, "spectrum"), changes)

    griz = collate([without_u(galaxy) for galaxy in galaxies])
    before = shows(griz, "photometry")
    figures += compared(
        "BOSS photometry (griz) to redshift",
        before,
        {
            "u as well": of(batch, "photometry"),
            "labelled with HSC's wavelengths": of(_as_hsc(griz), "photometry"),
            "the real n(z) for the simulated one": reweighted(before, pool),
        },
    )
    sharp, _ = split_by_reach(triples(data))
    before = shows(collate(sharp), "image")
    soft, _ = split_by_reach(triples(data, psf_fwhm=0.7))
    small = collate(soft, image_size=40)
    brighter = replace(
        small,
        images=replace(small.images, flux=small.images.flux * 1.3, ivar=small.images.ivar / 1.69),
    )
    figures += compared(
        "HST images to redshift",
        before,
        {
            "no empty frame around 6 arcsec": of(collate(sharp, image_size=40), "image"),
            "blurred to 0.7 arcsec": of(collate(soft), "image"),
            "blurred, no empty frame": of(small, "image"),
            "blurred, no empty frame, 30 % brighter": of(brighter, "image"),
            "the real n(z) for the simulated one": reweighted(before, pool),
        },
    )
    return figures


def _as_hsc(batch: Batch) -> Batch:
    bands = torch.tensor([effective_wavelength(f"hsc-{band}") for band in "griz"])
    table = batch.photometry
    return replace(batch, photometry=replace(table, wavelength=bands.expand_as(table.wavelength)))


def residual_diagnosis(label: str, ours: Hidden, twin: Hidden) -> list[Figure]:
    """Where the misfit of hidden pixels is: their chi2 before and after setting parts aside."""
    lines = np.zeros(ours.rest.shape, dtype=bool)
    for line in _LINES:
        lines |= np.abs(ours.rest / line - 1) < 1000 / 299792.458
    observed = np.abs(ours.residual / ours.error)
    edge = np.nanquantile(observed, 0.99)
    cases = {
        "as they are": ours.chi2,
        "without pixels within 1000 km/s of emission lines": np.where(lines, np.nan, ours.chi2),
        "without the worst 1 % of pixels": np.where(observed > edge, np.nan, ours.chi2),
        "after a free level per galaxy": smoothed_chi2(ours, degree=0),
        "after a free cubic per galaxy": smoothed_chi2(ours, degree=3),
        "simulated twins, as they are": twin.chi2,
        "simulated twins, after a free cubic per galaxy": smoothed_chi2(twin, degree=3),
    }
    figures = []
    for name, chi2 in cases.items():
        means = galaxy_means(chi2)
        means = means[np.isfinite(means)]
        title = f"{label} diagnosis: chi2 a hidden pixel, median of the galaxies, {name}"
        figures.append(figure(title, float(np.median(means)), n=len(means)))
    return figures


def smoothed_chi2(hidden: Hidden, *, degree: int) -> np.ndarray:
    """chi2 of the residuals less their best polynomial in wavelength, galaxy by galaxy."""
    chi2 = np.full_like(hidden.chi2, np.nan)
    for row in range(len(chi2)):
        good = np.isfinite(hidden.residual[row]) & np.isfinite(hidden.error[row])
        if good.sum() < 20:
            continue
        x = np.log(hidden.rest[row][good])
        x = (x - x.mean()) / max(x.std(), 1e-6)
        value, error = hidden.residual[row][good], hidden.error[row][good]
        smooth = np.polynomial.polynomial.polyfit(x, value, degree, w=1 / error)
        left = value - np.polynomial.polynomial.polyval(x, smooth)
        chi2[row, good] = (left / error) ** 2
    return chi2
