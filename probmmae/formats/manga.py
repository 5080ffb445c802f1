"""MaNGA LOGCUBE files (DR15 to DR17), and cubes laid out like them.

Traps: wavelengths are those of HDU WAVE, since its header's logarithmic axis is read as metres by
some; columns grow to the west; IVAR and MASK carry no unit, and a pixel with any of the bits of
`BAD` is missing; fluxes are not corrected for Galactic dust. Noise is correlated between spaxels
(GCORREL and its like). The redshift is not in the file; that of a MAPS file of the same galaxy in
the same folder is taken.

A spaxel is a spectrum through the aperture that blurs as much (`spaxels.equivalent_aperture`),
with all of that aperture's light. Spaxels of 0.5 arcsec behind 2.5 arcsec repeat each other:
`read` takes every fourth in x and in y, 2 arcsec apart, about as many as MaNGA has fibres times
dithers.

References:
    Law et al. 2016, The Data Reduction Pipeline for the SDSS-IV MaNGA IFU Galaxy Survey,
        https://arxiv.org/abs/1607.08619
    SDSS data model of LOGCUBE files, https://data.sdss.org/datamodel/

Axes: wavelength (pixel), y, x, spaxel.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.wcs import WCS, FITSFixedWarning
from jaxtyping import Float, Int

from probmmae.correlation import SpaxelCorrelation, from_pairs
from probmmae.formats.opening import column, fits_file, hdu, is_fits, names_of, native
from probmmae.galaxy import Aperture, BandImage, Galaxy, Scalar, Spectrum
from probmmae.spaxels import equivalent_aperture
from probmmae.synthetic import band_weights

DESCRIPTION = "MaNGA cube (manga-*-LOGCUBE.fits)"

#: Bits of DRP3PIXMASK by name; every one of them makes a pixel missing.
DRP3PIXMASK = {"NOCOV": 0, "LOWCOV": 1, "DEADFIBER": 2, "FORESTAR": 3, "DONOTUSE": 10}
BAD = sum(1 << bit for bit in DRP3PIXMASK.values())
#: Bits of DRP3QUAL.
DRP3QUAL = {
    "BADDEPTH": 1, "SKYSUBBAD": 2, "HIGHSCAT": 3, "BADASTROM": 4, "VARIABLELSF": 5, "BADOMEGA": 6,
    "BADSET": 7, "BADFLUX": 8, "BADPSF": 9, "MANYDEAD": 10, "BLOWTORCH": 12, "SEVEREBT": 13,
    "UNUSUAL": 14, "CRITICAL": 30,
}  # fmt: skip
_BANDS = "griz"
_LIGHT = 299792.458
"""km/s."""
_FIBRE_SPACING = 2.0
"""arcsec."""
_HELD = 0.8
"""A pixel of an image needs this share of its filter in valid pixels of the cube."""


@dataclass(frozen=True, eq=False)
class LogCube:
    """One cube as the file has it, with missing pixels at ivar 0."""

    name: str
    flux: Float[np.ndarray, "wavelength y x"]
    """1e-17 erg/s/cm2/Angstrom/spaxel."""
    ivar: Float[np.ndarray, "wavelength y x"]
    mask: Int[np.ndarray, "wavelength y x"]
    """`DRP3PIXMASK`, as the file has it."""
    wavelength: Float[np.ndarray, " wavelength"]
    """Vacuum, Angstrom."""
    sigma: Float[np.ndarray, "wavelength y x"]
    """Gaussian width of the line-spread function with the pixel's in it, Angstrom."""
    offset: Float[np.ndarray, "2 y x"]
    """dx (east) and dy (north) of the spaxels from the galaxy, arcsec."""
    side: float
    """Of a spaxel, arcsec."""
    psf_fwhm: float
    """In r, arcsec."""
    ra: float | None
    dec: float | None
    """Of the galaxy, degrees."""
    images: dict[str, Float[np.ndarray, "y x"]]
    """Nanomaggies per spaxel by band (g, r, i, z), rows to the north and columns to the west."""
    image_psf: dict[str, float]
    """FWHM by band, arcsec."""
    correlation: dict[str, SpaxelCorrelation]
    """By band; empty where the file has none."""
    quality: tuple[str, ...]
    """Names of the bits that are set in DRP3QUAL."""


def recognise(path: Path) -> bool:
    """Whether this is a FITS file with three-dimensional FLUX and IVAR, and WAVE."""
    if not is_fits(path):
        return False
    with fits_file(path) as opened:
        there = {each.name.upper(): each for each in opened}
        return {"FLUX", "IVAR", "MASK", "WAVE"} <= set(there) and (
            there["FLUX"].header.get("NAXIS") == 3
        )


def read(
    path: Path, *, redshift: float | None = None, every: int | None = None
) -> Iterator[Galaxy]:
    """The one galaxy of the file: its broadband images and its spaxels as spectra.

    Args:
        path: the file.
        redshift: where it is known; by default that of a MAPS file beside it, if there is one.
        every: take each n-th spaxel in x and in y; None takes them 2 arcsec apart, 1 takes all.

    Raises:
        ValueError: a damaged file, a missing HDU, arrays that do not belong together.
    """
    cube = read_cube(path)
    known = redshift_beside(path, cube.name) if redshift is None else redshift
    yield to_galaxy(cube, redshift=known, every=every)


def redshift_beside(path: Path, name: str) -> float | None:
    """SCINPVEL / c of a MAPS file of the same galaxy in the same folder.

    Args:
        path: of the LOGCUBE.
        name: of the galaxy, manga-PLATE-IFU.
    """
    for other in sorted(path.parent.glob(f"{name}-MAPS*.fits*")):
        with fits_file(other) as opened:
            if "SCINPVEL" in opened[0].header:
                return float(opened[0].header["SCINPVEL"]) / _LIGHT
    return None


def read_cube(path: Path) -> LogCube:
    """The whole cube.

    Raises:
        ValueError: a damaged file, a missing HDU, arrays that do not belong together.
    """
    with fits_file(path) as opened:
        primary, first = opened[0].header, hdu(opened, "FLUX").header
        flux, ivar, mask = (native(hdu(opened, name).data) for name in ("FLUX", "IVAR", "MASK"))
        wavelength = native(hdu(opened, "WAVE").data).astype(np.float64)
        _agree(path, flux, ivar, mask, wavelength)
        there = {each.name.upper() for each in opened}
        sigma = _line_spread(opened, there, wavelength, flux.shape)
        grid = flux.shape[1:]
        ra, dec, offset, side = _places(first, primary, grid, path)
        images = {
            band: native(hdu(opened, f"{band}IMG").data)
            for band in _BANDS
            if f"{band.upper()}IMG" in there
        }
        psf = {band: _psf_fwhm(opened, primary, there, band, side) for band in images}
        correlation = {
            band: correlation_table(hdu(opened, f"{band}CORREL"), grid)
            for band in _BANDS
            if f"{band.upper()}CORREL" in there
        }
    good = (mask & BAD == 0) & np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0)
    bits = int(primary.get("DRP3QUAL", 0))
    quality = tuple(name for name, bit in DRP3QUAL.items() if bits >> bit & 1)
    if "CRITICAL" in quality:
        warnings.warn(
            f"{path.name}: the reduction calls this cube unusable (DRP3QUAL: "
            f"{', '.join(quality)}).",
            stacklevel=2,
        )
    name = str(primary.get("PLATEIFU", path.name.split(".fits")[0])).strip()
    return LogCube(
        name=f"manga-{name}" if "PLATEIFU" in primary else name,
        flux=np.where(good, flux, 0.0).astype(np.float32),
        ivar=np.where(good, ivar, 0.0).astype(np.float32),
        mask=mask,
        wavelength=wavelength,
        sigma=sigma,
        offset=offset,
        side=side,
        psf_fwhm=psf.get("r", float(primary.get("RFWHM", 2.5))),
        ra=ra,
        dec=dec,
        images=images,
        image_psf=psf,
        correlation=correlation,
        quality=quality,
    )


def to_galaxy(cube: LogCube, *, redshift: float | None = None, every: int | None = None) -> Galaxy:
    """The cube as a galaxy; arguments as in `read`.

    Raises:
        ValueError: `every` below 1.
    """
    step = max(1, round(_FIBRE_SPACING / cube.side)) if every is None else every
    if step < 1:
        raise ValueError(f"Expected every >= 1; got {every}. 1 takes all spaxels.")
    labels = {"drp3qual": " ".join(cube.quality)} if cube.quality else {}
    return Galaxy(
        cube.name,
        ra=None if cube.ra is None else cube.ra * u.deg,
        dec=None if cube.dec is None else cube.dec * u.deg,
        images=tuple(image for band in cube.images if (image := _image(cube, band)) is not None),
        spectra=tuple(_spectra(cube, step)),
        scalars={} if redshift is None else {"redshift": Scalar(redshift)},
        labels=labels,
    )


def _spectra(cube: LogCube, step: int) -> Iterator[Spectrum]:
    """Each n-th spaxel that has data, counted from the middle of the frame."""
    height, width = cube.flux.shape[1:]
    diameter, seeing, share = equivalent_aperture(cube.side, cube.psf_fwhm)
    for y in range(height // 2 % step, height, step):
        for x in range(width // 2 % step, width, step):
            if not (cube.ivar[:, y, x] > 0).any():
                continue
            dx, dy = cube.offset[:, y, x]
            yield Spectrum.in_batch_units(
                cube.wavelength,
                cube.flux[:, y, x] / share,
                ivar=cube.ivar[:, y, x] * share**2,
                sigma=cube.sigma[:, y, x],
                aperture=Aperture.in_batch_units(dx, dy, diameter=diameter, seeing=seeing),
                name="manga",
            )


def _image(cube: LogCube, band: str) -> BandImage | None:
    """A broadband image, east along x; its noise is that of the cube through the filter.

    None where the cube does not hold the filter, so that nothing tells the noise.
    """
    flux = cube.images[band]
    weights = band_weights(f"sdss2010-{band}", cube.wavelength)
    if weights is None:
        return None
    known = cube.ivar > 0
    inverse = np.where(known, 1.0 / np.where(known, cube.ivar, 1.0), 0.0)
    variance = np.tensordot(weights**2, inverse, 1)
    held = np.tensordot(weights, known.astype(np.float32), 1) / weights.sum()
    ivar = np.where((held > _HELD) & (variance > 0), 1.0 / np.maximum(variance, 1e-30), 0.0)
    middle = (cube.offset[:, 0, 0] + cube.offset[:, -1, -1]) / 2
    return BandImage.in_batch_units(
        f"sdss-{band}",
        flux[:, ::-1],
        ivar=ivar[:, ::-1],
        pixel_scale=cube.side,
        psf_fwhm=cube.image_psf[band],
        centre=(float(middle[0]), float(middle[1])),
    )


def _agree(
    path: Path, flux: np.ndarray, ivar: np.ndarray, mask: np.ndarray, wavelength: np.ndarray
) -> None:
    if (
        flux.ndim != 3
        or ivar.shape != flux.shape
        or mask.shape != flux.shape
        or wavelength.shape != flux.shape[:1]
        or mask.dtype.kind not in "iu"
    ):
        raise ValueError(
            f"Expected FLUX, IVAR, integer MASK (wavelength, y, x) and WAVE (wavelength,) in "
            f"{path}; got {flux.shape}, {ivar.shape}, {mask.dtype} {mask.shape} and "
            f"{wavelength.shape}. Check the kind of file."
        )


def _line_spread(
    opened: Any, there: set[str], wavelength: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Width with the pixel's in it; from the resolution where it is missing, or not positive."""
    resolution = (
        native(hdu(opened, "SPECRES").data).astype(np.float64)
        if "SPECRES" in there
        else np.full(len(wavelength), 2000.0)
    )
    power = np.where(np.isfinite(resolution) & (resolution > 0), resolution, 2000.0)
    typical = (wavelength / power / 2.3548)[:, None, None].astype(np.float32)
    for name in ("LSFPOST", "LSF"):
        if name in there:
            width = native(hdu(opened, name).data)
            width = width[:, None, None] if width.ndim == 1 else width
            return np.where(np.isfinite(width) & (width > 0), width, typical).astype(np.float32)
    return np.broadcast_to(typical, shape)


def _places(
    header: Any, primary: Any, grid: tuple[int, int], path: Path
) -> tuple[float | None, float | None, np.ndarray, float]:
    """Position of the galaxy, offsets of the spaxels from it, and their side."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(header, naxis=2)
    if not wcs.has_celestial:
        raise ValueError(f"Expected sky coordinates in HDU FLUX of {path}; got none.")
    y, x = np.indices(grid)
    ra, dec = wcs.all_pix2world(x, y, 0)
    known = "OBJRA" in primary and "OBJDEC" in primary
    middle = (float(primary["OBJRA"]), float(primary["OBJDEC"])) if known else tuple(wcs.wcs.crval)
    east = (ra - middle[0] + 180) % 360 - 180
    offset = np.stack([east * np.cos(np.radians(middle[1])), dec - middle[1]]) * 3600
    jacobian = wcs.pixel_scale_matrix
    side = float(np.sqrt(abs(np.linalg.det(jacobian)))) * 3600
    if not (jacobian[0, 0] < 0 < jacobian[1, 1] and abs(jacobian[0, 1]) < 1e-2 * jacobian[1, 1]):
        raise ValueError(
            f"Expected north up and east left in {path}, as in MaNGA's cubes; got "
            f"{jacobian.tolist()}. Turn the cube first."
        )
    return (*(middle if known else (None, None)), offset, side)


def _psf_fwhm(opened: Any, primary: Any, there: set[str], band: str, side: float) -> float:
    """FWHM in arcsec: of the header, or of the image of the PSF."""
    if float(primary.get(f"{band.upper()}FWHM", 0.0)) > 0:
        return float(primary[f"{band.upper()}FWHM"])
    if f"{band.upper()}PSF" not in there:
        return 2.5
    profile = native(hdu(opened, f"{band}PSF").data)
    # The circle of the area above half the maximum.
    return 2 * side * float(np.sqrt((profile > profile.max() / 2).sum() / np.pi))


def correlation_table(table: Any, grid: tuple[int, int]) -> SpaxelCorrelation:
    """C1 is x, C2 is y, both from 0; of a pair and its mirror one is stored."""
    if not names_of(table):
        raise ValueError(f"Expected a table in HDU {table.name}; got none.")
    first, second = (
        np.stack([column(table, f"{name}_C1"), column(table, f"{name}_C2")], 1).astype(int)
        for name in ("INDXI", "INDXJ")
    )
    return from_pairs(first, second, column(table, "RHOIJ").astype(np.float64), grid)
