"""Predicted cubes held against MaNGA's: from files to one galaxy's maps, pixels and offsets.

A LOGCUBE is a test by itself: its broadband images (or images handed over) condition the model,
its spaxels are what was observed. Of a MAPS file the DAP's own measurements stand for them. The
prediction is made at the file's spaxels behind the file's point-spread function. What is missing
in the file is missing in the comparison, and the noise that spaxels share is in every draw before
it is compared.

The redshift is the one that is given, that of the MAPS file (for a LOGCUBE: of one beside it), or
for a lone LOGCUBE the model's own from the spectrum nearest the centre; it counts as known.

DAP line fluxes are corrected for Galactic dust; here they are put back behind it, with the law of
O'Donnell (1994) at R_V = 3.1, as the prediction is.

Axes: draw, spaxel, pixel (wavelength), quantity, y, x.

References:
    O'Donnell 1994, R_nu-dependent optical and near-ultraviolet extinction,
        https://doi.org/10.1086/173713
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from jaxtyping import Float
from numpy.typing import NDArray

from probmmae.calibration.map_scores import GalaxyMaps, chi_square_of_draws
from probmmae.calibration.pit import pit_from_draws
from probmmae.correlation import SpaxelCorrelation
from probmmae.footprint import half_light_radius
from probmmae.formats import cutouts, manga, manga_maps, recognise
from probmmae.formats.manga import LogCube
from probmmae.formats.manga_maps import DapMaps
from probmmae.galaxy import FWHM_PER_SIGMA, Galaxy, Scalar
from probmmae.inference.cube import MANGA_WAVELENGTH, Cube, cube
from probmmae.inference.posterior import Model
from probmmae.spaxels import Spaxels, equivalent_aperture
from probmmae.spectral_maps import QUANTITIES, Measure
from probmmae.synthetic import band_weights

_EVERY = 12
"""Pixels kept for the coverage of pixels: one in so many."""
_HELD = 0.8
"""A spaxel needs this share of its pixels."""
_REST = (3660.0, 6900.0)
"""Rest Angstrom that hold every quantity."""
_FLUXES = {
    "h_alpha": ("Ha-6564",), "h_beta": ("Hb-4862",), "o_iii": ("OIII-5008",),
    "n_ii": ("NII-6585",), "o_ii": ("OII-3727", "OII-3729"), "s_ii": ("SII-6718", "SII-6732"),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Pixels:
    """Ranks of observed pixels among the draws with noise."""

    pit: Float[np.ndarray, "spaxel pixel"]
    rest: Float[np.ndarray, " pixel"]
    """Angstrom."""


@dataclass(frozen=True, eq=False)
class ChapterGalaxy:
    """One galaxy, predicted and observed."""

    maps: GalaxyMaps
    """Draws without noise."""
    pixels: Pixels | None
    """None where there are only maps."""
    offset: tuple[float, float, float]
    """Observed over predicted light, 5, 50 and 95 % of the draws: the flux calibration that the
    images and the spectra do not share, and what the draws do not know of the level."""
    shift: tuple[float, float]
    """Centroid of the observed light less that of the predicted one, arcsec east and north."""
    chi_square: dict[str, tuple[float, float, int]]
    """By quantity: about the mean with the noise alone, with the draws' spread in it, and the
    degrees of freedom."""
    place: Float[np.ndarray, "spaxel 2"]
    """dx, dy, arcsec."""
    side: float
    """Between the spaxels that were used, arcsec."""
    said: dict[str, str]
    """What was shown to the model, from where, and what was left out."""
    cube: Cube
    spectra: Float[np.ndarray, "spaxel pixel"] | None
    """Observed flux."""

    def calibrated(self) -> GalaxyMaps:
        """With every drawn flux multiplied by the median offset."""
        flux = np.array(["erg" in unit for unit in QUANTITIES.values()])
        factor = np.where(flux, self.offset[1], 1.0).astype(np.float32)
        return replace(self.maps, drawn=self.maps.drawn * factor[:, None, None])


def chapter_files(paths: Sequence[Path]) -> list[Path]:
    """The LOGCUBE and MAPS files among files and folders.

    Raises:
        ValueError: There is none.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.fits*")) if path.is_dir() else [path]
        found += [one for one in inside if _kind(one) in ("manga", "manga_maps")]
    if not found:
        raise ValueError(
            f"Expected LOGCUBE or MAPS files in {', '.join(map(str, paths))}; found none."
        )
    return found


def _kind(path: Path) -> str | None:
    try:
        return recognise(path)
    except ValueError:
        return None


def judge_file(
    model: Model,
    path: Path,
    *,
    images: Sequence[Path] = (),
    redshift: float | None = None,
    draws: int = 100,
    every: int = 2,
    seed: int = 0,
) -> ChapterGalaxy:
    """Predict what a LOGCUBE or MAPS file holds, and compare.

    Args:
        model: A trained model.
        path: The file. A reference file with the noise correlation (manga-PLATE-IFU-SNRG) beside
            a MAPS file is used.
        images: FITS cutouts to condition on; by default the file's own images.
        redshift: Of the galaxy, where it is known.
        draws: Of the cube.
        every: Takes each n-th spaxel in x and y.
        seed: Of the draws and ranks.

    Raises:
        ValueError: Another kind of file, or not one usable spaxel.
    """
    if _kind(path) == "manga_maps":
        return judge_maps(
            model, manga_maps.read_maps(path), images=images, draws=draws, every=every, seed=seed
        )
    read = manga.read_cube(path)
    galaxy = manga.to_galaxy(read)
    if redshift is None:
        redshift = manga.redshift_beside(path, read.name)
    return judge_cube(
        model, read, _shown(galaxy, images), redshift=redshift, draws=draws, every=every, seed=seed
    )


def _shown(galaxy: Galaxy, images: Sequence[Path]) -> Galaxy:
    """The galaxy's own images, or those of other files at its position."""
    if not images:
        return galaxy
    other = cutouts.read_bands(images, ra=galaxy.ra, dec=galaxy.dec)
    return replace(galaxy, images=other.images)


def judge_cube(
    model: Model,
    read: LogCube,
    galaxy: Galaxy,
    *,
    redshift: float | None = None,
    draws: int = 100,
    every: int = 2,
    seed: int = 0,
) -> ChapterGalaxy:
    """A cube as it was observed against one predicted from what `galaxy` shows.

    Args:
        model: A trained model.
        read: The observed cube.
        galaxy: Its images condition the model; of its spectra the nearest to the centre tells the
            redshift where it is not given, and none is shown.
        redshift: Where it is known.
        draws: Of the cube.
        every: Takes each n-th spaxel in x and y.
        seed: Of draws and ranks.

    Raises:
        ValueError: Not one usable spaxel.
    """
    z = redshift or _measured_redshift(model, galaxy)
    whence = "as given, or in a MAPS file" if redshift else "measured in the central spectrum"
    return compare_cube(
        model, read, replace(galaxy, spectra=(), photometry=(), scalars={"redshift": Scalar(z)}),
        whence=whence, draws=draws, every=every, seed=seed,
    )  # fmt: skip


def compare_cube(
    model: Model,
    read: LogCube,
    shown: Galaxy,
    *,
    whence: str = "given",
    draws: int = 100,
    every: int = 2,
    seed: int = 0,
    use: NDArray[np.bool_] | None = None,
) -> ChapterGalaxy:
    """As `judge_cube`, with everything that `shown` holds shown to the model.

    Args:
        model: A trained model.
        read: The observed cube.
        shown: What the model is conditioned on; its redshift counts as known.
        whence: Where the redshift comes from, in a word.
        draws: Of the cube.
        every: Takes each n-th spaxel in x and y.
        seed: Of draws and ranks.
        use: Spaxels to compare, (y, x); by default all with data.
    """
    z = float(shown.redshift or 0.0)
    good = (read.ivar > 0).mean(0) > _HELD
    chosen = _chosen(good if use is None else good & use, every)
    spaxels = _spaxels(read.offset, read.side, read.psf_fwhm, chosen)
    rows, columns = np.unravel_index(chosen, good.shape)
    flux, ivar = (part[:, rows, columns].T for part in (read.flux, read.ivar))
    sigma = np.median(read.sigma[:, rows, columns], axis=1).astype(np.float64)
    answer = _predicted(model, shown, spaxels, read.wavelength, sigma, draws, seed, keep=draws)
    told = Measure(read.wavelength, sigma, z=z)(flux, ivar=ivar)
    correlation = _among(read.correlation.get("r") or _first(read.correlation), chosen)
    radius, whose = _radii(answer.galaxy, spaxels, None)
    maps = GalaxyMaps(read.name, answer.maps, told.value, told.error, radius, correlation)
    index = list(QUANTITIES).index("continuum")
    light, drawn = told.value[index], answer.maps[index]
    said = {
        "shown": shown.describe(),
        "redshift": f"{z:.5f}, {whence}",
        "half-light radius": whose,
        "spaxels": f"{len(chosen)} of {int(good.sum())} with data, each {every}. in x and y",
        "quality": " ".join(read.quality) or "no flag",
        "noise": _noise_said(correlation),
        "point-spread function": f"{read.psf_fwhm:.2f} arcsec FWHM",
        "pixels left out": f"{float((ivar <= 0).mean()):.1%} masked or without error",
        "positions": answer.jointly,
    }
    rng = np.random.default_rng(seed)
    return _galaxy(
        maps, answer, light, drawn, _ranks(answer, flux, ivar, z, rng), read.side * every, said,
        spectra=np.where(ivar > 0, flux, np.nan),
    )  # fmt: skip


def judge_maps(
    model: Model,
    dap: DapMaps,
    *,
    images: Sequence[Path] = (),
    draws: int = 100,
    every: int = 2,
    seed: int = 0,
) -> ChapterGalaxy:
    """The DAP's maps against those of cubes predicted from the file's g-band map, or from images.

    Arguments as in `judge_file`.

    Raises:
        ValueError: Not one usable spaxel.
    """
    (own,) = manga_maps.read(dap.path)
    shown = _shown(own, images)
    light = dap.map("SPX_MFLUX")
    chosen = _chosen((light.ivar > 0) & (dap.bin_id >= 0), every)
    spaxels = _spaxels(dap.offset, dap.side, dap.psf_fwhm, chosen)
    near = MANGA_WAVELENGTH.value
    near = near[(near > _REST[0] * (1 + dap.redshift)) & (near < _REST[1] * (1 + dap.redshift))]
    sigma = near / 2000.0 / FWHM_PER_SIGMA
    answer = _predicted(model, shown, spaxels, near, sigma, draws, seed, keep=min(draws, 32))
    value, error = _dap_quantities(dap, chosen)
    beside = dap.path.parent / f"{dap.name}-SNRG.fits.gz"
    known = manga_maps.read_correlation(beside, light.value.shape) if beside.is_file() else None
    correlation = _among(known, chosen)
    radius, whose = _radii(shown, spaxels, dap.effective_radius)
    maps = GalaxyMaps(dap.name, answer.maps, value, error, radius, correlation)
    weights = band_weights("sdss2010-g", near)
    assert weights is not None  # at the redshifts of MaNGA the grid holds g
    drawn = answer.draws @ (weights / weights.sum()).astype(np.float32)
    observed = light.value.ravel()[chosen]
    bins = dap.bin_id.ravel()[chosen]
    said = {
        "shown": shown.describe(),
        "redshift": f"{dap.redshift:.5f}, that of the DAP",
        "half-light radius": whose,
        "spaxels": f"{len(chosen)} of {int((dap.bin_id >= 0).sum())} with data, each {every}. in "
        f"x and y; their stars lie in {len(np.unique(bins))} bins",
        "noise": _noise_said(correlation),
        "point-spread function": f"{dap.psf_fwhm:.2f} arcsec FWHM in g",
        "Galactic dust": f"E(B-V) = {dap.ebv:.3f}, taken out of the DAP's correction",
        "positions": answer.jointly,
    }
    return _galaxy(
        maps, answer, observed, drawn, None, dap.side * every, said, spectra=None
    )  # fmt: skip


def _galaxy(
    maps: GalaxyMaps,
    answer: Cube,
    light: NDArray[Any],
    drawn: NDArray[Any],
    pixels: Pixels | None,
    side: float,
    said: dict[str, str],
    *,
    spectra: NDArray[Any] | None,
) -> ChapterGalaxy:
    """Offsets and chi-squares; `light` is observed and `drawn` predicted, by spaxel."""
    place = answer.spaxels.aperture[:, :2]
    use = np.isfinite(light) & np.isfinite(drawn).all(0)
    if not use.any():
        raise ValueError(
            f"Expected spaxels of {maps.name} with light observed and predicted; got none. Check "
            "its redshift."
        )
    ratio = light[use].sum() / drawn[:, use].sum(1)
    low, middle, high = np.quantile(ratio, [0.05, 0.5, 0.95])
    mean = drawn[:, use].mean(0)
    shift = (light[use] @ place[use]) / light[use].sum() - (mean @ place[use]) / mean.sum()
    found = ChapterGalaxy(
        maps, pixels, (float(low), float(middle), float(high)),
        (float(shift[0]), float(shift[1])), {}, place, side, said, answer, spectra,
    )  # fmt: skip
    calibrated = found.calibrated()
    squares = {}
    for name in ("h_alpha", "h_alpha_ew", "velocity", "d4000"):
        if not (np.nan_to_num(maps.error[list(QUANTITIES).index(name)]) > 0).any():
            continue
        if not np.isfinite(maps.quantity(name)[0]).all(0).any():
            continue
        alone, freedom = chi_square_of_draws(calibrated, name, with_draws=False)
        whole, _ = chi_square_of_draws(calibrated, name)
        squares[name] = (alone, whole, freedom)
    return replace(found, chi_square=squares)


def _predicted(
    model: Model,
    shown: Galaxy,
    spaxels: Spaxels,
    wavelength: NDArray[np.float64],
    sigma: NDArray[np.float64],
    draws: int,
    seed: int,
    *,
    keep: int,
) -> Cube:
    posterior = model.condition(shown, draws=draws, seed=seed)
    power = wavelength / sigma / FWHM_PER_SIGMA
    return cube(posterior, spaxels, wavelength * u.AA, resolution=power, keep=keep)


def _measured_redshift(model: Model, galaxy: Galaxy) -> float:
    """Median of p(z) from the spectrum nearest to the centre."""
    if not galaxy.spectra:
        raise ValueError(f"Expected spaxels with data in {galaxy.id}; got none.")
    central = min(galaxy.spectra, key=lambda each: math.hypot(each.aperture.dx, each.aperture.dy))
    alone = replace(galaxy, images=(), photometry=(), spectra=(central,), scalars={})
    return float(model.condition(alone, draws=2).redshift.median)


def _chosen(good: NDArray[np.bool_], every: int) -> NDArray[np.int64]:
    """Each n-th good spaxel, counted from the middle of the frame: places in the flat grid.

    Raises:
        ValueError: There is none, or `every` is below 1.
    """
    if every < 1:
        raise ValueError(f"Expected every >= 1; got {every}. 1 takes all spaxels.")
    height, width = good.shape
    taken = np.zeros_like(good)
    taken[height // 2 % every :: every, width // 2 % every :: every] = True
    found = np.flatnonzero(taken & good)
    if len(found) == 0:
        raise ValueError(f"Expected spaxels with data; got none of {good.size}.")
    return found


def _spaxels(
    offset: NDArray[Any], side: float, psf_fwhm: float, chosen: NDArray[np.int64]
) -> Spaxels:
    diameter, seeing, share = equivalent_aperture(side, psf_fwhm)
    place = offset.reshape(2, -1)[:, chosen]
    one = np.ones(len(chosen))
    return Spaxels(np.stack([*place, diameter * one, seeing * one], axis=1), share * one, None)


def _first(known: dict[str, SpaxelCorrelation]) -> SpaxelCorrelation | None:
    return next(iter(known.values()), None)


def _among(
    known: SpaxelCorrelation | None, chosen: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    return None if known is None else known.between(chosen)


def _noise_said(correlation: NDArray[np.float64] | None) -> str:
    if correlation is None:
        return "taken as independent between spaxels: the file has no correlations"
    count = len(correlation)
    return (
        f"correlated as the file says: {count} spaxels are worth "
        f"{count**2 / float((correlation**2).sum()):.0f}"
    )


def _radii(
    galaxy: Galaxy, spaxels: Spaxels, told: float | None
) -> tuple[NDArray[np.float64], str]:
    """Distances in half-light radii, and whose radius it is."""
    radius, whose = told, "the file's"
    if radius is None or not radius > 0:
        radius, whose = half_light_radius(galaxy), "of the image shown, PSF taken out"
    if radius is None:
        radius, whose = 5.0, "not known, 5 arcsec taken"
    return np.hypot(*spaxels.aperture[:, :2].T) / radius, f"{radius:.2f} arcsec, {whose}"


def _ranks(
    answer: Cube, flux: NDArray[Any], ivar: NDArray[Any], z: float, rng: np.random.Generator
) -> Pixels:
    """Ranks of observed pixels among draws with the pixels' own noise."""
    some = slice(_EVERY // 2, None, _EVERY)
    known = ivar[:, some] > 0
    error = np.where(known, 1 / np.sqrt(np.where(known, ivar[:, some], 1.0)), np.nan)
    drawn = answer.draws[..., some]
    noisy = drawn + error * rng.standard_normal(drawn.shape).astype(np.float32)
    truth = np.where(known, flux[:, some], np.nan)
    return Pixels(pit_from_draws(noisy, truth, generator=rng), answer.wavelength[some] / (1 + z))


def _dap_quantities(
    dap: DapMaps, chosen: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`QUANTITIES` as the DAP measured them, and their errors; NaN where it did not."""
    nothing = np.full(len(chosen), np.nan)
    value: dict[str, NDArray[np.float64]] = {}
    error: dict[str, NDArray[np.float64]] = {}

    def take(name: str, channel: str | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
        told = dap.map(name, channel)
        weight = told.ivar.ravel()[chosen].astype(np.float64)
        known = np.where(weight > 0, weight, np.nan)
        return np.where(weight > 0, told.value.ravel()[chosen], np.nan), known**-0.5

    for name, group in _FLUXES.items():
        for suffix, source in (("", "EMLINE_GFLUX"), ("_ew", "EMLINE_GEW")):
            parts = [take(source, channel) for channel in group]
            dust = 1.0
            if not suffix:
                middle = float(np.mean([float(channel.rsplit("-", 1)[1]) for channel in group]))
                dust = 10 ** (-0.4 * extinction(middle * (1 + dap.redshift), dap.ebv))
            value[name + suffix] = dust * np.sum([part for part, _ in parts], axis=0)
            error[name + suffix] = dust * np.sqrt(np.sum([part**2 for _, part in parts], axis=0))
    value["velocity"], error["velocity"] = take("EMLINE_GVEL", "Ha-6564")
    value["stellar_velocity"], error["stellar_velocity"] = take("STELLAR_VEL")
    value["d4000"], error["d4000"] = take("SPECINDEX", "Dn4000")
    told, doubt = (
        np.stack([part.get(name, nothing) for name in QUANTITIES]) for part in (value, error)
    )
    return told, doubt


def extinction(wavelength: float, reddening: float) -> float:
    """Magnitudes of Galactic dust at a wavelength from 3030 to 9090 Angstrom (O'Donnell 1994).

    Args:
        wavelength: Observed, Angstrom.
        reddening: E(B-V).
    """
    y = 1e4 / wavelength - 1.82
    a = np.polyval([-0.505, 1.647, -0.827, -1.718, 1.137, 0.701, -0.609, 0.104, 1.0], y)
    b = np.polyval([3.347, -10.805, 5.491, 11.102, -7.985, -3.989, 2.908, 1.952, 0.0], y)
    return float(3.1 * reddening * (a + b / 3.1))
