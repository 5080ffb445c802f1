"""FITS image cutouts with a WCS: one file a band, or bands stacked as Legacy Survey cutouts are.

What a count is worth and how noisy it is, `calibration` reads from the headers. Without a map of
the noise the edge of the frame tells it, and a warning says so, as it does of a PSF that is only
typical of the survey.
"""

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits

from probmmae.bands import EFFECTIVE_WAVELENGTH, band_name
from probmmae.formats.calibration import inverse_variance, nanomaggies_per_count
from probmmae.formats.frames import Frame, celestial, edge_noise, oriented
from probmmae.formats.opening import fits_file, is_fits, native
from probmmae.galaxy import BandImage, Galaxy, Scalar

DESCRIPTION = (
    "FITS image cutout with a WCS (Legacy Survey, HSC, HST; one file a band or bands stacked)"
)

_PSF_KEYS = ("PSF_FWHM", "PSFFWHM", "SEEING")
#: FWHM in arcsec, typical of the survey, where the header does not say.
_TYPICAL_PSF = {
    "hsc": 0.7,
    "decam": 1.2,
    "bass": 1.6,
    "mzls": 1.1,
    "sdss": 1.3,
    "kids": 0.7,
    "cfht": 0.8,
    "lsst": 0.8,
    "panstarrs": 1.2,
    "hst": 0.1,
    "jwst": 0.1,
    "euclid": 0.2,
}


@dataclass(frozen=True)
class _Plane:
    """One band of a file, as stored: pixels, their scale to nanomaggies and the header."""

    band: str
    flux: np.ndarray
    ivar: np.ndarray | None
    nanomaggies: float
    header: Any


def recognise(path: Path) -> bool:
    """Whether the first image of this FITS file is a sky frame, or a stack of named bands."""
    if not is_fits(path):
        return False
    with fits_file(path) as opened:
        image = _first_image(opened)
        if image is None or celestial(image.header) is None:
            return False
        return image.header["NAXIS"] == 2 or "BANDS" in image.header


def read(path: Path, **options: Any) -> Iterator[Galaxy]:
    """The one galaxy of the file; takes the options of `read_bands`."""
    yield read_bands([path], **options)


def read_bands(
    paths: Sequence[Path],
    *,
    band: str | Sequence[str] | None = None,
    zero_point: float | Sequence[float] | None = None,
    psf_fwhm: Any = None,
    ra: Any = None,
    dec: Any = None,
    redshift: float | None = None,
    id: str | None = None,
) -> Galaxy:
    """One galaxy from its cutouts.

    Args:
        paths: FITS files of the same piece of sky.
        band: name of the band, or of each image in the order of the files; None reads the headers.
        zero_point: AB magnitude of one count, or one an image; None reads the headers.
        psf_fwhm: FWHM of the point-spread function, one Quantity or an array of them, an image
            each; None reads the headers, or takes what is typical of the survey and says so.
        ra: right ascension of the galaxy, a Quantity; None is the middle of the first frame.
        dec: declination, likewise.
        redshift: where it is known.
        id: what to call it; None takes the name of the first file.

    Raises:
        ValueError: damaged files, no WCS, an unknown band or zero point.
    """
    planes: list[_Plane] = []
    frames: list[Frame] = []
    for path in paths:
        with fits_file(Path(path)) as opened:
            for plane in _planes(opened, path, band, zero_point, len(planes)):
                planes.append(plane)
                frames.append(_frame(plane, path))
    if ra is None or dec is None:
        ra, dec = frames[0].ra * u.deg, frames[0].dec * u.deg
    images = []
    guessed: list[str] = []
    for index, (plane, frame) in enumerate(zip(planes, frames, strict=True)):
        images.append(
            BandImage.in_batch_units(
                plane.band,
                frame.flux * plane.nanomaggies,
                ivar=frame.ivar / plane.nanomaggies**2,
                pixel_scale=frame.pixel_scale,
                psf_fwhm=_psf_fwhm(plane, _nth(psf_fwhm, index), guessed),
                centre=_offset(frame, ra.to_value(u.deg), dec.to_value(u.deg)),
            )
        )
    noise = [plane.band for plane in planes if plane.ivar is None]
    said = [f"image noise is estimated from the edge of the frame ({', '.join(noise)})"] * bool(
        noise
    )
    said += [f"the PSF FWHM is taken as typical of the survey ({', '.join(guessed)})"] * bool(
        guessed
    )
    if said:
        warnings.warn(f"{Path(paths[0]).name}: {'; '.join(said)}.", stacklevel=2)
    return Galaxy(
        id or re.sub(r"\.fits?(\.gz|\.fz)?$", "", Path(paths[0]).name),
        ra=ra,
        dec=dec,
        images=tuple(images),
        scalars={} if redshift is None else {"redshift": Scalar(redshift)},
    )


def _first_image(opened: fits.HDUList) -> Any:
    for each in opened:
        if each.is_image and each.header.get("NAXIS", 0) in (2, 3):
            return each
    return None


def _nth(values: Any, index: int) -> Any:
    """The value of an image: the one given for all, or its own."""
    single = values is None or isinstance(values, str) or np.ndim(values) == 0
    if single:
        return values
    if index >= len(values):
        raise ValueError(
            f"Expected one value for all images or one for each; got {len(values)} for image "
            f"{index + 1}. Give as many as there are images."
        )
    return values[index]


def _planes(
    opened: fits.HDUList, path: Path, band: Any, zero_point: Any, before: int
) -> Iterator[_Plane]:
    image = _first_image(opened)
    if image is None:
        raise ValueError(f"Expected an image in {path}; got none. Check the kind of file.")
    header = opened[0].header.copy()
    header.extend(image.header, update=True, strip=False)
    stack = native(image.data)
    if stack.ndim == 2:
        names = [_band(header, path, _nth(band, before))]
        stack = stack[None]
    else:
        letters = list(str(header.get("BANDS", "")).replace(",", ""))
        if len(letters) != len(stack):
            raise ValueError(
                f"Expected the header BANDS of {path} to name {len(stack)} bands; got "
                f"{header.get('BANDS')!r}. Write the letters of the bands into it."
            )
        names = [
            _nth(band, before + i) or band_name(str(header.get("SURVEY", "decam")), letter)
            for i, letter in enumerate(letters)
        ]
    noise = inverse_variance(opened, image, stack.shape)
    for i, name in enumerate(names):
        given = _nth(zero_point, before + i)
        yield _Plane(
            band=name,
            flux=stack[i].astype(np.float64),
            ivar=None if noise is None else noise[i],
            nanomaggies=nanomaggies_per_count(header, opened, given, path),
            header=header,
        )


def _frame(plane: _Plane, path: Path) -> Frame:
    wcs = celestial(plane.header)
    if wcs is None:
        raise ValueError(
            f"Expected sky coordinates (a celestial WCS) in {path}; got none. "
            "Add them to the header."
        )
    ivar = plane.ivar
    if ivar is None:
        sigma = edge_noise(plane.flux)
        if sigma == 0.0:
            raise ValueError(
                f"Expected sky noise at the edge of {path} ({plane.band}); got a constant. "
                "Give a map of the inverse variance in an HDU INVVAR."
            )
        ivar = np.where(np.isfinite(plane.flux), sigma**-2, 0.0)
    return oriented(plane.flux, ivar, wcs, name=f"{Path(path).name} ({plane.band})")


def _band(header: Any, path: Path, given: str | None) -> str:
    """The name of the band, in the words of the table where it can be found there."""
    if given is not None:
        return given
    surveys = [
        str(header[key]) for key in ("SURVEY", "INSTRUME", "TELESCOP", "DETECTOR") if key in header
    ]
    filters = [
        str(header[key])
        for key in ("FILTER", "FILTER1", "FILTER2", "FILTNAM1", "FILTNAM2", "BAND", "FILTERS")
        if key in header
    ]
    for name in [*filters, Path(path).name]:
        whole = re.sub(r"^hsc-([grizy])2?$", r"hsc-\1", name.strip().lower())
        if whole in EFFECTIVE_WAVELENGTH:
            return whole
        for survey in surveys:
            # DECam writes "g DECam SDSS c0001 4720.0 1520.0"; others the letter alone.
            words = re.split(r"[\s_.\-]+", name.strip().lower())
            for word in [words[0], words[-1]]:
                if (found := band_name(survey, word)) in EFFECTIVE_WAVELENGTH:
                    return found
    raise ValueError(
        f"Expected the header of {path} to tell the band (FILTER and INSTRUME or SURVEY); got "
        f"{filters or 'no filter'} of {surveys or 'no survey'}. Give band, such as 'hsc-g'."
    )


def _psf_fwhm(plane: _Plane, given: Any, guessed: list[str]) -> float:
    """FWHM in arcsec; `guessed` gathers the bands that nothing is said of."""
    if given is not None:
        if not isinstance(given, u.Quantity):
            raise TypeError(
                f"Expected psf_fwhm as a Quantity in arcsec; got {given!r}. "
                "Multiply it by u.arcsec."
            )
        return float(given.to_value(u.arcsec))
    for key in _PSF_KEYS:
        if isinstance(value := plane.header.get(key), int | float) and 0.0 < value < 10.0:
            return float(value)
    survey = plane.band.partition("-")[0]
    if survey not in _TYPICAL_PSF:
        raise ValueError(
            f"Expected the PSF of {plane.band} in the header ({', '.join(_PSF_KEYS)}); got none. "
            "Give psf_fwhm, a Quantity in arcsec."
        )
    guessed.append(f"{plane.band} {_TYPICAL_PSF[survey]} arcsec")
    return _TYPICAL_PSF[survey]


def _offset(frame: Frame, ra: float, dec: float) -> tuple[float, float]:
    """Sky position (dx east, dy north) of the frame's middle from the galaxy, arcsec."""
    turn = (frame.ra - ra + 180.0) % 360.0 - 180.0
    return turn * math.cos(math.radians(dec)) * 3600.0, (frame.dec - dec) * 3600.0
