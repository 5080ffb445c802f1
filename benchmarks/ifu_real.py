"""Cubes of real galaxies, predicted and observed: MaNGA 7815-3702, and Abell 478's central galaxy.

Abell 478: the MUSE cube of `ifu_cubes` (AIR wavelengths, made vacuum here; its line-spread
function is that of Bacon et al. 2017, https://arxiv.org/abs/1710.03002, equation 8; its seeing is
not in the header and is taken as 0.8 arcsec), conditioned on its HST image, on broadband images
made from the cube, and on these with the central spectrum. The redshift counts as known.

Results come as they are, and once more with the level fitted: what is then gone was a matter of
level.

Axes: wavelength, y, x; spaxel, pixel.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from results_file import Figure, figure

from probmmae.calibration.coverage import coverage
from probmmae.calibration.manga_chapter import ChapterGalaxy, compare_cube, judge_file
from probmmae.calibration.manga_figures import chapter_figure
from probmmae.calibration.map_scores import integral_scores, map_correlation, zone_scores
from probmmae.formats.cutouts import read_bands
from probmmae.formats.manga import LogCube, to_galaxy
from probmmae.galaxy import FWHM_PER_SIGMA, Aperture, BandImage, Galaxy, Scalar, Spectrum
from probmmae.inference.figures import save
from probmmae.inference.posterior import Model
from probmmae.spaxels import equivalent_aperture
from probmmae.synthetic import band_weights

ABELL = ("ifu_cubes/a478_muse_minicube_y00-24.fits.gz", "ifu_cubes/a478_hst_wfpc2_cutout.fits.gz")
MAPS = "manga/manga-7815-3702-MAPS-HYB10-GAU-MILESHC.fits.gz"
REDSHIFT, SEEING = 0.0858, 0.8
_EDGES = ((4200.0, 5200.0), (5200.0, 6400.0), (6400.0, 6900.0), (6900.0, 8600.0))


def maps_part(model: Model, data: Path, folder: Path, *, draws: int) -> None:
    """MaNGA 7815-3702 from its g-band map, held against the DAP."""
    _part(folder / "maps.json", "MaNGA 7815-3702 from its g-band map",
          lambda: judge_file(model, data / MAPS, draws=draws, every=3))  # fmt: skip


def abell_part(model: Model, data: Path, folder: Path, *, draws: int) -> None:
    """Abell 478 from three sets of data."""
    read = None
    for name, galaxy in abell_galaxies(data).items():
        path = folder / f"abell-{name.replace(' ', '-')}.json"
        if path.is_file():
            continue
        read = muse_cube(data / ABELL[0]) if read is None else read
        shown = galaxy

        def make(read: LogCube = read, shown: Galaxy = shown) -> ChapterGalaxy:
            return compare_cube(model, read, shown, draws=draws, every=4)

        _part(path, f"Abell 478 from {name}", make)


def real_figures(folder: Path) -> list[Figure]:
    """The figures of the parts that are there."""
    found: list[Figure] = []
    parts = (folder / "maps.json", *sorted(folder.glob("abell-*.json")), folder / "tuned.json")
    for path in parts:
        found += json.loads(path.read_text()) if path.is_file() else []
    return found


def _part(path: Path, label: str, make: Callable[[], ChapterGalaxy]) -> None:
    if path.is_file():
        return
    judged = make()
    save(chapter_figure(judged), path.with_suffix(".png"))
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(chapter_figures(label, judged)))
    partial.rename(path)
    print(path.name, judged.said, flush=True)


def chapter_figures(label: str, judged: ChapterGalaxy) -> list[Figure]:
    """Offsets, maps, zones, pixels, integrals and chi-squares of one galaxy."""
    figures = [
        figure(f"{label}: observed over predicted light, median of the draws", judged.offset[1],
               interval=(judged.offset[0], judged.offset[2]), n=1),
        *(figure(f"{label}: centroid of the observed light less predicted, {axis} (arcsec)", value,
                 n=1) for axis, value in zip(("east", "north"), judged.shift, strict=True)),
    ]  # fmt: skip
    for said, maps in (("", judged.maps), (", level fitted", judged.calibrated())):
        noisy = [maps.noisy(np.random.default_rng(0))]
        for name in ("h_alpha", "h_alpha_ew", "velocity", "stellar_velocity", "d4000"):
            (correlation,) = map_correlation(noisy, name)
            if not said and np.isfinite(correlation):
                figures.append(
                    figure(f"{label}: correlation of the {name} map with the observed one",
                           correlation, n=1)
                )  # fmt: skip
        # The level changes fluxes alone.
        told = ("h_alpha",) if said else ("h_alpha", "h_alpha_ew", "velocity", "d4000")
        for score in zone_scores(noisy, told):
            ring = f"{score.zone[0]:g} to {score.zone[1]:g} R_e"
            name = f"{label}: {score.quantity}, {ring}{said}"
            figures += [
                figure(f"{name}: coverage of {one.level:.0%} intervals of spaxels", one.value,
                       n=score.spaxels)
                for one in score.coverage
            ]  # fmt: skip
            figures.append(figure(f"{name}: bias", score.bias, n=score.spaxels))
        for integral in integral_scores(noisy):
            if np.isfinite(integral.pit[0]) and (not said or "total" in integral.name):
                away = integral.known[0] - integral.middle[0]
                figures.append(
                    figure(f"{label}: {integral.name}{said}: observed less predicted, in half "
                           "widths of the 68 % interval", away / integral.spread[0], n=1)
                )  # fmt: skip
    if judged.pixels is not None:
        for low, high in _EDGES:
            inside = (judged.pixels.rest >= low) & (judged.pixels.rest < high)
            pit = judged.pixels.pit[:, inside].ravel()
            if np.isfinite(pit).sum() < 50:
                continue
            figures += [
                figure(f"{label}: pixels {low:.0f}-{high:.0f} A: coverage of {one.level:.0%} "
                       "intervals", one.value, n=len(judged.pixels.pit))
                for one in coverage(pit, levels=(0.5, 0.9))
            ]  # fmt: skip
    for name, (alone, whole, freedom) in judged.chi_square.items():
        figures.append(
            figure(f"{label}: {name}: chi-square a degree of freedom about the mean, noise alone",
                   alone / freedom, n=freedom)
        )  # fmt: skip
        figures.append(
            figure(f"{label}: {name}: the same with the draws' covariance", whole / freedom,
                   n=freedom)
        )  # fmt: skip
    return figures


def abell_galaxies(data: Path) -> Mapping[str, Galaxy]:
    """What is shown of Abell 478, by name."""
    read = muse_cube(data / ABELL[0])
    assert read.ra is not None
    assert read.dec is not None
    known = {"redshift": Scalar(REDSHIFT)}
    place = {"ra": read.ra * u.deg, "dec": read.dec * u.deg}
    hubble = read_bands([data / ABELL[1]], **place)
    hubble = replace(hubble, images=tuple(map(_without_sky, hubble.images)))
    own = replace(to_galaxy(read), spectra=(), scalars=known)
    return {
        "its HST image": replace(hubble, id="abell-478", spectra=(), scalars=known),
        "images of the cube": own,
        "images and the central spectrum": replace(own, spectra=(_central(read),)),
    }


def _without_sky(image: BandImage) -> BandImage:
    """The drizzled frame still has its sky: the median of what lies further out than 12 arcsec."""
    y, x = np.indices(image.flux.shape)
    height, width = image.flux.shape
    away = image.pixel_scale * np.hypot(x - (width - 1) / 2, y - (height - 1) / 2)
    sky = float(np.median(image.flux[(away > 12) & (image.ivar > 0)]))
    return BandImage.in_batch_units(
        image.band, image.flux - sky, ivar=image.ivar, pixel_scale=image.pixel_scale,
        psf_fwhm=image.psf_fwhm, wavelength=image.wavelength, centre=image.centre,
    )  # fmt: skip


def _central(read: LogCube) -> Spectrum:
    """The spaxel nearest the centre, through the aperture that stands for it."""
    y, x = np.unravel_index(np.hypot(*read.offset).argmin(), read.offset.shape[1:])
    diameter, seeing, share = equivalent_aperture(read.side, read.psf_fwhm)
    dx, dy = read.offset[:, y, x]
    return Spectrum.in_batch_units(
        read.wavelength, read.flux[:, y, x] / share, ivar=read.ivar[:, y, x] * share**2,
        sigma=read.sigma[:, y, x],
        aperture=Aperture.in_batch_units(dx, dy, diameter=diameter, seeing=seeing), name="muse",
    )  # fmt: skip


def muse_cube(path: Path) -> LogCube:
    """A MUSE cube as the package holds MaNGA's."""
    with fits.open(path) as opened:
        header = opened["DATA"].header
        flux, variance, bad = (np.asarray(opened[name].data) for name in ("DATA", "STAT", "DQ"))
    air = header["CRVAL3"] + header["CD3_3"] * np.arange(len(flux))
    wavelength = vacuum(air)
    # Densities an Angstrom of air to an Angstrom of vacuum: a part in 3,000.
    flux = (flux * 1e-3).astype(np.float32)
    good = (bad == 0) & np.isfinite(flux) & (variance > 0)
    ivar = np.where(good, 1e6 / np.where(good, variance, 1.0), 0.0).astype(np.float32)
    sky = WCS(header, naxis=2)
    y, x = np.indices(flux.shape[1:])
    ra, dec = sky.all_pix2world(x, y, 0)
    middle = float(header["CRVAL1"]), float(header["CRVAL2"])
    east = (ra - middle[0]) * np.cos(np.radians(middle[1]))
    sigma = (5.866e-8 * air**2 - 9.187e-4 * air + 6.040) / FWHM_PER_SIGMA
    weights = {band: band_weights(f"sdss2010-{band}", wavelength) for band in "ri"}
    images = {band: np.tensordot(each, np.where(good, flux, 0.0), 1)
              for band, each in weights.items() if each is not None}  # fmt: skip
    return LogCube(
        name="abell-478", flux=np.where(good, flux, 0.0).astype(np.float32), ivar=ivar,
        mask=np.where(good, 0, 1024).astype(np.int32), wavelength=wavelength,
        sigma=np.broadcast_to(sigma[:, None, None].astype(np.float32), flux.shape),
        offset=np.stack([east, dec - middle[1]]) * 3600, side=abs(header["CD2_2"]) * 3600,
        psf_fwhm=SEEING, ra=middle[0], dec=middle[1], images=images,
        image_psf=dict.fromkeys(images, SEEING), correlation={},
        quality=(),
    )  # fmt: skip


def vacuum(air: np.ndarray) -> np.ndarray:
    """Vacuum wavelengths of wavelengths in air (Morton 1991, ApJS 77, 119), Angstrom."""
    square = (1e4 / air) ** 2
    return air * (1 + 6.4328e-5 + 2.94981e-2 / (146 - square) + 2.5540e-4 / (41 - square))
