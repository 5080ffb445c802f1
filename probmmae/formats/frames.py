"""Astronomical frames brought to the package's convention: east along x, north along y.

What a cutout leaves unsaid is found here: where its middle lies on the sky, how it is turned, and,
where no map of the noise comes with it, how noisy it is.
"""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from astropy.wcs import WCS, FITSFixedWarning

#: Beyond this, pixels at the edge of an ordinary frame are off by half a pixel, degrees.
_ALIGNED = 1.0
#: Sides of a pixel that differ by more than this are not square.
_SQUARE = 0.02
#: MAD of a Gaussian to its standard deviation.
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Frame:
    """Pixels in any flux unit with x east and y north; ivar in the inverse square of that unit."""

    flux: np.ndarray
    ivar: np.ndarray
    pixel_scale: float
    """arcsec."""
    ra: float
    """Of the middle of the frame, degrees."""
    dec: float


def celestial(header: Any) -> WCS | None:
    """The sky coordinates of a header; None where there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(header, naxis=2)
    return wcs if wcs.has_celestial else None


def oriented(flux: np.ndarray, ivar: np.ndarray, wcs: WCS, *, name: str) -> Frame:
    """Flip, transpose or, where the frame is turned, resample to the nearest pixel.

    The nearest pixel keeps the noise of the pixels as it is, at up to half a pixel in position.

    Args:
        flux: (y, x).
        ivar: (y, x).
        wcs: of these pixels.
        name: of the frame, for messages.

    Raises:
        ValueError: pixels that are not square.
    """
    height, width = flux.shape
    middle = ((width - 1) / 2.0, (height - 1) / 2.0)
    steps = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) + middle
    ra, dec = wcs.all_pix2world(steps, 0).T
    turn = (ra - ra[0] + 180.0) % 360.0 - 180.0
    east = turn * math.cos(math.radians(dec[0])) * 3600.0
    north = (dec - dec[0]) * 3600.0
    # Sky offset (rows: east, north) of one step along (columns: x, y).
    jacobian = np.array([[east[1], east[2]], [north[1], north[2]]])
    sides = np.hypot(*jacobian)
    if abs(sides[0] / sides[1] - 1.0) > _SQUARE:
        raise ValueError(
            f"Expected square pixels in {name}; got {sides[0]:.4g} x {sides[1]:.4g} arcsec. "
            "Resample the image first."
        )
    scale = math.sqrt(abs(float(np.linalg.det(jacobian))))
    jacobian = jacobian / scale
    if abs(jacobian[0, 1]) > abs(jacobian[0, 0]):
        flux, ivar, jacobian = flux.T, ivar.T, jacobian[:, ::-1]
    if jacobian[0, 0] < 0:
        flux, ivar, jacobian = flux[:, ::-1], ivar[:, ::-1], jacobian * [[-1.0, 1.0]]
    if jacobian[1, 1] < 0:
        flux, ivar, jacobian = flux[::-1], ivar[::-1], jacobian * [[1.0, -1.0]]
    frame = Frame(flux, ivar, scale, float(ra[0]), float(dec[0]))
    angle = math.degrees(math.atan2(jacobian[1, 0], jacobian[0, 0]))
    return frame if abs(angle) < _ALIGNED else _turned(frame, jacobian)


def _turned(frame: Frame, jacobian: np.ndarray) -> Frame:
    """The frame on a grid along east and north about its middle; beyond its edge is missing."""
    height, width = frame.flux.shape
    reach = [abs(jacobian[i, 0]) * width + abs(jacobian[i, 1]) * height for i in (0, 1)]
    new_width, new_height = (math.ceil(length) for length in reach)
    y, x = np.mgrid[:new_height, :new_width]
    sky = np.stack([x - (new_width - 1) / 2.0, y - (new_height - 1) / 2.0])
    column, row = np.einsum("ij,jyx->iyx", np.linalg.inv(jacobian), sky)
    column = np.rint(column + (width - 1) / 2.0).astype(int)
    row = np.rint(row + (height - 1) / 2.0).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    row, column = np.where(inside, row, 0), np.where(inside, column, 0)
    return replace(
        frame,
        flux=np.where(inside, frame.flux[row, column], 0.0),
        ivar=np.where(inside, frame.ivar[row, column], 0.0),
    )


def edge_noise(flux: np.ndarray) -> float:
    """Standard deviation of the pixels at the edge of a frame, where there is mostly sky.

    Three rounds of clipping at 3 sigma about the median, with sigma from the median absolute
    deviation. Where pixels are correlated (resampled images), sums are noisier than this says.

    Returns:
        In the unit of `flux`; 0 where the edge is constant or missing.
    """
    border = max(2, min(flux.shape) // 8)
    inner = np.zeros(flux.shape, bool)
    inner[border:-border, border:-border] = True
    sky = flux[~inner & np.isfinite(flux) & (flux != 0)]
    sigma = 0.0
    for _ in range(3):
        if sky.size == 0:
            return 0.0
        away = np.abs(sky - np.median(sky))
        sigma = _MAD_TO_SIGMA * float(np.median(away))
        sky = sky[away <= 3.0 * sigma]
    return sigma
