"""The model on real data, never trained on: redshifts and masked spectra, beside simulated twins.

Every real galaxy has a twin: a simulated one near it in redshift, flux and signal-to-noise, whose
spectrum is seen with the real one's pixels, resolution and noise. What the twins give is what the same
model does where its assumptions hold, so the distance between the two is the cost of reality;
`real_diagnosis` asks where that cost comes from.

Axes: draw, galaxy, pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from real_set import REACH, boss, desi, sdss, split_by_reach, triples
from report_set import CHUNK, REPORT_SEED, Sample, on_grid, sample, shown
from results_file import Figure, figure, score_figure
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from spectrum_job import EDGES

from probmmae.batch import Batch
from probmmae.calibration.coverage import coverage
from probmmae.calibration.evidence import Evidence, density_evidence, pixel_evidence
from probmmae.calibration.pit import pit_from_draws
from probmmae.calibration.scores import crps_draws, mean_score, ratio_of_means
from probmmae.collate import collate
from probmmae.galaxy import Galaxy
from probmmae.inference.amortized import draw, spectra_at
from probmmae.instrument import covered, observe
from probmmae.masking import Task, observe_part
from probmmae.model import GalaxyModel
from probmmae.redshift import RedshiftDensity
from probmmae.templates import load_templates
from probmmae.tokens import PIECE, galaxy_scale

GRID = np.linspace(0.0, 1.5, 6001)
POOL = 512
"""Simulated galaxies among which twins are sought."""
HOLES = {"random 75 % hidden": "random", "contiguous hole": "chunk"}
PIXEL_DRAWS = 48
"""Draws of hidden pixels, at most: ranks are exact for any number."""
_EVERY = 3
"""Hidden pixels judged: one in so many."""


@dataclass(frozen=True)
class Answer:
    """p(z | what is shown) of every galaxy, and the redshifts that spectroscopy gave."""

    label: str
    pdf: np.ndarray
    """Shape (galaxy, grid)."""
    cdf: np.ndarray
    z: np.ndarray

    def evidence(self) -> Evidence:
        """Scores, PIT and coverage."""
        return density_evidence(
            self.label,
            self.pdf,
            grid=GRID,
            truth=self.z,
            generator=np.random.default_rng(0),
            cdf=self.cdf,
        )


@dataclass(frozen=True)
class Hidden:
    """Hidden pixels, predicted and measured; NaN where a pixel is not judged."""

    pit: np.ndarray
    """Of the measured flux among the draws with the pixel's noise, shape (galaxy, pixel)."""
    crps: np.ndarray
    """In units of the galaxy's mean flux."""
    chi2: np.ndarray
    """(measured - mean of the draws)^2 x ivar."""
    rest: np.ndarray
    """Rest wavelength, Angstrom."""
    residual: np.ndarray
    """Measured less mean of the draws, in units of the galaxy's mean flux."""
    error: np.ndarray
    """Noise of the measurement in the same units."""


@torch.no_grad()
def answer(network: GalaxyModel, batch: Batch, what: str, *, label: str) -> Answer:
    """p(z | c) of a batch."""
    pdf, cdf = [], []
    for start in range(0, len(batch), CHUNK):
        part = shown(batch.take(slice(start, start + CHUNK)), what)
        for table, rows in zip((pdf, cdf), on_grid(_density(network, part), GRID), strict=True):
            table.append(rows)
    return Answer(label, np.concatenate(pdf), np.concatenate(cdf), batch.z.numpy().astype(float))


def _density(network: GalaxyModel, observed: Batch) -> RedshiftDensity:
    return network.redshift(network.encode(observed))


def snr(batch: Batch) -> np.ndarray:
    """Median S/N a pixel of the first spectrum, at least 0.1; 1 where there is none."""
    signal = batch.spectra.flux[:, 0] * batch.spectra.ivar[:, 0].sqrt()
    missing = batch.spectra.ivar[:, 0] <= 0
    median = signal.masked_fill(missing, float("nan")).nanmedian(1).values
    return median.nan_to_num(1.0).clamp(min=0.1).numpy()


def twins(pool: Sample, batch: Batch, what: str) -> Sample:
    """A simulated galaxy for each real one, near in redshift, flux and, for spectra, S/N; none twice."""

    def place(of: Batch) -> np.ndarray:
        seen = shown(of, what)
        columns = [of.z.numpy() / 0.05, torch.log(galaxy_scale(seen)).numpy()]
        if what == "spectrum":
            columns.append(2 * np.log(snr(of)))
        return np.stack(columns, axis=1)

    _, nearest = linear_sum_assignment(cdist(place(batch), place(pool.batch), "sqeuclidean"))
    index = torch.as_tensor(nearest)
    return Sample(pool.batch.take(index), pool.truth.take(index))


def seen_by(near: Sample, batch: Batch, *, seed: int) -> Batch:
    """The twins' light at the real galaxies' level, on their pixels, with their resolution and noise."""
    real = batch.spectra.map(lambda part: part[:, :1])
    rest = near.truth.rest.map(lambda part: part[:, :1])
    z = near.truth.z[:, None]
    flux = observe(load_templates(), rest, z, real.wavelength, real.sigma)
    flux = flux * (_mean_flux(real.flux, real.ivar) / _mean_flux(flux, real.ivar)).clamp(0.05, 20)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(flux.shape, generator=generator) * real.ivar.clamp(min=1e-12).rsqrt()
    flux = torch.where(real.ivar > 0, flux + noise, torch.zeros_like(flux))
    return replace(batch, spectra=replace(real, flux=flux), z=near.truth.z)


def _mean_flux(flux: torch.Tensor, ivar: torch.Tensor) -> torch.Tensor:
    """Mean flux weighted by ivar, last axis kept."""
    return (flux * ivar).sum(-1, keepdim=True) / ivar.sum(-1, keepdim=True).clamp(min=1e-12)


def scores(evidence: Evidence, *, interval: bool = True) -> list[Figure]:
    """CRPS, NMAD, outliers, PIT distance and coverage of 50 and 90 % intervals."""
    name = evidence.name
    found = [
        score_figure(score, name=f"{name}: {score.name}")
        for score in evidence.scores
        if score.name not in ("CDE loss",)
    ]
    limit = f"{name}: PIT KS distance (99 % band {evidence.pit.limit:.3f})"
    found.append(figure(limit, evidence.pit.distance, n=evidence.pit.n))
    found += [
        score_figure(evidence.at(level), name=f"{name}: coverage of {level:.0%} intervals")
        for level in (0.5, 0.9)
    ]
    return found


def simulated_n_of_z(pool: Sample) -> np.ndarray:
    """p(z) of the simulation on `GRID`, a histogram with bins of 0.05."""
    edges = np.arange(0.0, 1.6, 0.05)
    density, _ = np.histogram(pool.truth.z.numpy(), bins=edges, density=True)
    return density[np.searchsorted(edges, GRID, side="right") - 1]


def without_u(galaxy: Galaxy) -> Galaxy:
    """The galaxy without u, a band that the simulated surveys lack."""
    return replace(galaxy, photometry=[p for p in galaxy.photometry if p.band != "sdss-u"])


def redshift_part(
    network: GalaxyModel, galaxies: Sequence[Galaxy], what: str, pool: Sample, *, label: str
) -> list[Figure]:
    """Redshifts of real galaxies within reach beside those of their twins, and of the others."""
    inside, outside = split_by_reach(galaxies)
    batch = collate(inside)
    figures = scores(answer(network, batch, what, label=label).evidence())
    near = twins(pool, batch, what)
    like_batch = seen_by(near, batch, seed=0) if what == "spectrum" else near.batch
    like = answer(network, like_batch, what, label=f"{label}, simulated twins").evidence()
    figures += scores(like)
    same = np.repeat(simulated_n_of_z(pool)[None], len(inside), 0)
    marginal = density_evidence(
        "marginal",
        same,
        grid=GRID,
        truth=batch.z.numpy().astype(float),
        generator=np.random.default_rng(0),
    )
    name = f"{label}: CRPS of the simulation's n(z) as everybody's posterior"
    figures.append(score_figure(marginal.scores[0], name=name))
    if len(outside) > 1:
        far = answer(network, collate(outside), what, label=label).evidence()
        name = f"{label}, beyond the simulator's z = {REACH[0]} to {REACH[1]}"
        figures.append(score_figure(far.at(0.9), name=f"{name}: coverage of 90% intervals"))
        figures.append(score_figure(far.scores[0], name=f"{name}: CRPS"))
    return figures


@torch.no_grad()
def reconstruct(
    network: GalaxyModel, batch: Batch, kind: str, *, draws: int, seed: int
) -> tuple[Hidden, Hidden]:
    """Hide part of each spectrum and predict what was measured there, at the known redshift.

    Returns:
        The model, and a straight line between the means of the visible pieces with their scatter.
    """
    generator = torch.Generator().manual_seed(seed)
    chance = np.random.default_rng(seed)
    ours, lines = [], []
    for start in range(0, len(batch), 8):
        part = batch.take(slice(start, start + 8))
        observed = observe_part(part, generator, (Task(kind, 1.0, "none", "none", kind),))
        spectra, z = part.spectra, part.z
        spike = RedshiftDensity(
            torch.zeros(len(z), 1), torch.log1p(z)[:, None], torch.full((len(z), 1), 1e-5)
        )
        made = draw(network, spike, z, torch.ones_like(z, dtype=torch.bool), draws, generator)
        context = network.encode(observed)
        at = (spectra.aperture[:, :1], spectra.wavelength[:, :1], spectra.sigma[:, :1])
        flux = spectra_at(network, context, observed, made, *at)[:, :, 0].transpose(0, 1)
        judged = (spectra.ivar[:, 0] > 0) & (observed.spectra.ivar[:, 0] == 0)
        judged &= covered(network.templates, z, spectra.wavelength[:, 0])
        line, width = interpolate(observed)
        white = chance.standard_normal((draws, 1, 1)).astype("f4")
        ours.append(_judge(part, flux.numpy(), judged.numpy(), chance))
        lines.append(_judge(part, line + width[:, None] * white, judged.numpy(), chance))
    return _together(ours), _together(lines)


def interpolate(observed: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Visible continuum joined by straight lines, and how well that does on the visible pieces.

    Every visible piece is one ivar-weighted mean; the width is the scatter of the visible pieces about
    the line between their neighbours, two pieces away at least.

    Returns:
        Flux (galaxy, pixel) and width (galaxy,), 1e-17 erg/s/cm2/Angstrom.
    """
    spectra = observed.spectra
    flux, ivar, wavelength = (
        values[:, 0].numpy().astype(float)
        for values in (spectra.flux, spectra.ivar, spectra.wavelength)
    )
    line, width = np.zeros_like(flux), np.zeros(len(flux))
    index = np.arange(flux.shape[1]) // PIECE
    for row in range(len(flux)):
        weight = np.bincount(index, ivar[row])
        use = weight > 0
        if not use.any():
            continue
        safe = np.where(use, weight, 1.0)
        mean = (np.bincount(index, ivar[row] * flux[row]) / safe)[use]
        middle = (np.bincount(index, ivar[row] * wavelength[row]) / safe)[use]
        line[row] = np.interp(wavelength[row], middle, mean)
        others = np.abs(np.subtract.outer(np.arange(len(mean)), np.arange(len(mean)))) > 1
        left = [
            np.interp(middle[i], middle[keep], mean[keep]) - mean[i]
            for i, keep in enumerate(others)
            if keep.any()
        ]
        width[row] = np.std(left) if left else abs(mean).mean()
    return line, width


def _judge(
    batch: Batch, drawn: np.ndarray, judged: np.ndarray, generator: np.random.Generator
) -> Hidden:
    keep = (slice(None), slice(None, None, _EVERY))
    flux, ivar, wavelength = (
        values[:, 0].numpy()[keep].astype(float)
        for values in (batch.spectra.flux, batch.spectra.ivar, batch.spectra.wavelength)
    )
    judged, drawn = judged[keep], drawn[:, :, ::_EVERY]
    unit = batch.spectra.flux[:, 0].numpy(), batch.spectra.ivar[:, 0].numpy() > 0
    level = np.abs((unit[0] * unit[1]).sum(1) / unit[1].sum(1).clip(min=1))[:, None]
    error = np.sqrt(1 / np.where(judged, ivar, 1.0))
    noisy = drawn + generator.standard_normal(drawn.shape) * error
    measured = np.where(judged, flux, np.nan)
    residual = measured - drawn.mean(0)
    return Hidden(
        pit=pit_from_draws(noisy, measured, generator=generator),
        crps=np.where(judged, crps_draws(noisy, np.where(judged, flux, 0.0)), np.nan) / level,
        chi2=(residual / error) ** 2,
        rest=wavelength / (1 + batch.z.numpy()[:, None]),
        residual=residual / level,
        error=np.where(judged, error, np.nan) / level,
    )


def _together(parts: Sequence[Hidden], *, axis: int = 0) -> Hidden:
    """Galaxies after galaxies (axis 0), or further pixels of the same galaxies (axis 1)."""
    return Hidden(
        **{
            name: np.concatenate([getattr(part, name) for part in parts], axis=axis)
            for name in Hidden.__dataclass_fields__
        }
    )


def galaxy_means(values: np.ndarray) -> np.ndarray:
    """Mean over the judged pixels of each galaxy; NaN where none is."""
    count = np.isfinite(values).sum(1)
    return np.where(count > 0, np.nansum(values, axis=1) / np.maximum(count, 1), np.nan)


def hidden_figures(label: str, ours: Hidden, line: Hidden) -> list[Figure]:
    """Coverage and CRPS of measured pixels by rest band, chi2, and the baseline's beside them."""
    figures = []
    every = (("all", (0.0, 2e4)), *(("", pair) for pair in zip(EDGES, EDGES[1:], strict=False)))
    for whole, (low, high) in every:
        name = f"{label}: pixels " + (whole or f"{low:.0f}-{high:.0f} A")
        for said, whose in ((ours, name), (line, f"{name}, straight line between visible pieces")):
            if said is line and not whole:
                continue
            bands = pixel_evidence(
                said.pit, said.crps, rest_wavelength=said.rest, edges=(low, high)
            )
            for band in bands:
                figures.append(score_figure(band.crps, name=f"{whose} CRPS (of the mean flux)"))
                figures += [
                    score_figure(one, name=f"{whose} coverage of {one.level:.0%} intervals")
                    for one in band.coverage
                    if one.level in (0.5, 0.9)
                ]
    for said, whose in ((ours, label), (line, f"{label}, straight line between visible pieces")):
        chi2 = galaxy_means(said.chi2)
        chi2 = chi2[np.isfinite(chi2)]
        name = f"{whose}: chi2 a pixel, median of the galaxies"
        figures.append(figure(name, float(np.median(chi2)), n=len(chi2)))
    pair = galaxy_means(ours.crps), galaxy_means(line.crps)
    use = np.isfinite(pair[0]) & np.isfinite(pair[1])
    if use.sum() > 1:
        ratio = ratio_of_means("ratio", pair[0][use], pair[1][use])
        figures.append(score_figure(ratio, name=f"{label}: CRPS over that of the straight line"))
    # A perfect prediction of the noise-free flux still has the noise's own CRPS, sigma / sqrt(pi).
    floor = mean_score("floor", galaxy_means(ours.error)[use] / np.pi**0.5)
    figures.append(score_figure(floor, name=f"{label}: CRPS of the noise alone (of the mean flux)"))
    return figures


def real_figures(network: GalaxyModel, data: Path, *, draws: int, seed: int) -> list[Figure]:
    """Every figure on real galaxies.

    Args:
        network: The trained network.
        data: Folder with one folder a set.
        draws: Draws a galaxy for the hidden parts of spectra.
        seed: Seed of masks, draws and noise.
    """
    from real_diagnosis import redshift_diagnosis, residual_diagnosis

    pool = sample(POOL, REPORT_SEED)
    found = boss(data)
    parts = (
        ("BOSS spectrum to redshift", found, "spectrum"),
        ("SDSS spectrum to redshift", sdss(data), "spectrum"),
        ("BOSS photometry (griz) to redshift", [without_u(galaxy) for galaxy in found], "photometry"),
        ("HST images to redshift", triples(data), "image"),
    )
    figures: list[Figure] = []
    for label, galaxies, what in parts:
        figures += redshift_part(network, galaxies, what, pool, label=label)
    # The few DESI galaxies are masked several times; a galaxy's masks stay one galaxy of the counts.
    inside = collate(split_by_reach(found)[0])
    surveys = {
        "BOSS spectrum": (inside, 1),
        "simulated twins of BOSS": (seen_by(twins(pool, inside, "spectrum"), inside, seed=seed), 1),
        "DESI spectrum": (collate(split_by_reach(desi(data))[0]), 8),
    }
    said: dict[str, Hidden] = {}
    for survey, (batch, masks) in surveys.items():
        for what, kind in HOLES.items():
            pairs = [
                reconstruct(
                    network, batch, kind, draws=min(draws, PIXEL_DRAWS), seed=seed + mask
                )
                for mask in range(masks)
            ]
            ours, line = (_together(each, axis=1) for each in zip(*pairs, strict=True))
            said[f"{survey}, {what}"] = ours
            figures += hidden_figures(f"{survey}, {what}", ours, line)
    for what in HOLES:
        label = f"BOSS spectrum, {what}"
        twin = said[f"simulated twins of BOSS, {what}"]
        figures += residual_diagnosis(label, said[label], twin)
    return figures + redshift_diagnosis(network, data, pool, seed=seed)
