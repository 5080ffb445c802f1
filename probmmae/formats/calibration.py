"""What the pixels of an image file mean: nanomaggies of one count, and the noise.

Flux scales that are understood: BUNIT in nanomaggies or any unit of flux density or surface
brightness; FLUXMAG0 (HSC, Pan-STARRS); PHOTFLAM with PHOTPLAM (HST, AB); MAGZERO, MAGZPT, ZEROPT,
ZP (AB); the HSC layout IMAGE, MASK, VARIANCE without FLUXMAG0 (27 mag).

An HSC mask marks the galaxy itself (DETECTED), so that only planes of pixels without a measurement
count as missing.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits

from probmmae.formats.frames import celestial, edge_noise
from probmmae.formats.opening import native

#: Magnitude of one nanomaggie.
_NANOMAGGIE_MAG = 22.5
_HSC_ZERO_POINT = 27.0
_HSC_LAYOUT = {"IMAGE", "MASK", "VARIANCE"}
#: HSC mask planes of pixels that hold no measurement.
_BAD_PLANES = ("BAD", "SAT", "NO_DATA", "UNMASKEDNAN")
_ZERO_POINT_KEYS = ("MAGZERO", "MAGZPT", "ZEROPT", "ZP", "MAG_ZP")


def inverse_variance(
    opened: fits.HDUList, image: Any, shape: tuple[int, ...]
) -> np.ndarray | None:
    """Inverse variance from the HDU that tells it; None where none does.

    Args:
        opened: the file.
        image: the HDU of the image.
        shape: (band, y, x) of it.

    Returns:
        (band, y, x), in the flux unit of the file to the power -2; 0 is missing.
    """
    extensions = {each.name.upper(): each for each in opened if each is not image}

    def pixels(*names: str) -> np.ndarray | None:
        for name in names:
            if name in extensions and extensions[name].data is not None:
                found = native(extensions[name].data)
                if found.size == math.prod(shape):
                    return found.reshape(shape)
        return None

    ivar = pixels("INVVAR", "IVAR", "INVERSE_VARIANCE")
    if ivar is None:
        variance = pixels("VARIANCE", "VAR")
        if variance is None and (error := pixels("ERR", "ERROR", "SIGMA")) is not None:
            variance = error.astype(np.float64) ** 2
        if variance is not None:
            with np.errstate(divide="ignore"):
                ivar = np.where(variance > 0, 1.0 / variance.astype(np.float64), 0.0)
    if ivar is None and (weight := pixels("WHT", "WEIGHT")) is not None:
        return _weighted(native(image.data).reshape(shape), weight)
    mask = extensions.get("MASK")
    if ivar is not None and mask is not None and mask.data is not None:
        planes = [mask.header.get(f"MP_{name}") for name in _BAD_PLANES]
        bits = sum(1 << int(plane) for plane in planes if plane is not None)
        ivar = np.where(native(mask.data).reshape(shape) & bits, 0.0, ivar)
    return ivar


def _weighted(flux: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Relative weights (exposure times) scaled so that the edge of each frame has its noise."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = flux * np.sqrt(weight)
    ivar = np.zeros(flux.shape)
    for i in range(len(flux)):
        sigma = edge_noise(scaled[i])
        if sigma > 0:
            ivar[i] = np.where(np.isfinite(flux[i]) & (weight[i] > 0), weight[i] / sigma**2, 0.0)
    return ivar


def nanomaggies_per_count(
    header: Any, opened: fits.HDUList, given: float | None, path: Path
) -> float:
    """Nanomaggies of one count.

    Args:
        header: of the image, with that of the file.
        opened: the file.
        given: AB magnitude of one count; None reads the header.
        path: for the message.

    Raises:
        ValueError: neither says it.
    """
    unit = str(header.get("BUNIT", "")).strip().lower()
    zero_point = given
    if zero_point is None:
        if unit in ("nanomaggy", "nanomaggies", "nmgy") or (
            not unit and str(header.get("SURVEY", "")).lower() == "legacysurvey"
        ):
            return 1.0
        if (density := _flux_density(header)) is not None:
            return density
        keys = [key for key in _ZERO_POINT_KEYS if key in header]
        if "FLUXMAG0" in header:
            zero_point = 2.5 * math.log10(float(header["FLUXMAG0"]))
        elif float(header.get("PHOTFLAM", 0.0)) > 0 and float(header.get("PHOTPLAM", 0.0)) > 0:
            zero_point = (
                -2.5 * math.log10(float(header["PHOTFLAM"]))
                - 5.0 * math.log10(float(header["PHOTPLAM"]))
                - 2.408
            )
            if unit and not re.search(r"/\s*s|s-1|s\*\*-1", unit):
                zero_point += 2.5 * math.log10(float(header["EXPTIME"]))
        elif keys:
            zero_point = float(header[keys[0]])
        elif {each.name.upper() for each in opened} >= _HSC_LAYOUT:
            zero_point = _HSC_ZERO_POINT
    if zero_point is None:
        raise ValueError(
            f"Expected the flux scale of {path} in its header (BUNIT, FLUXMAG0, PHOTFLAM and "
            f"PHOTPLAM, {', '.join(_ZERO_POINT_KEYS)}); got BUNIT {header.get('BUNIT')!r} alone. "
            "Give zero_point, the AB magnitude of one count."
        )
    return 10.0 ** (-0.4 * (float(zero_point) - _NANOMAGGIE_MAG))


def _flux_density(header: Any) -> float | None:
    """Nanomaggies of one count where BUNIT is a flux density, or that per solid angle."""
    try:
        unit = u.Unit(str(header.get("BUNIT", "")), parse_strict="raise")
    except ValueError:
        return None
    if unit.is_equivalent(u.Jy):
        return float(unit.to(u.Jy) / 3631e-9)
    if unit.is_equivalent(u.Jy / u.sr) and (wcs := celestial(header)) is not None:
        area = abs(float(np.linalg.det(wcs.pixel_scale_matrix))) * u.deg**2
        return float((1.0 * unit * area).to_value(u.Jy) / 3631e-9)
    return None
