"""Where the spectra of a cube are taken: grids of spaxels, hexagonal bundles, lists of apertures.

The model knows light that falls through a round aperture behind a seeing. A square spaxel behind a
point-spread function is therefore asked of it as the aperture that blurs as much, scaled to the
spaxel's area: with the width (standard deviation) s along one axis of spaxel and PSF together,

    s^2 = side^2 / 12 + (FWHM / 2.3548)^2 = diameter^2 / 16 + (seeing / 2.3548)^2,

and diameter / seeing = 5/3, as of the smallest and the largest apertures of training (1.5 behind
0.9 and 3 behind 1.8 arcsec). MaNGA's spaxels of 0.5 arcsec behind 2.5 arcsec become apertures of 3
arcsec behind 1.8. In simulated galaxies, whose seeing is a Moffat profile, the fluxes of a spaxel
and of its aperture agree to 6 % (root mean square, where they exceed a tenth of the peak).

Axes: spaxel, y (row of the grid), x (column).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as u
from jaxtyping import Bool, Float, Int

from probmmae.measurements import FWHM_PER_SIGMA, Aperture
from probmmae.quantities import single

_DIAMETER_OVER_SEEING = 5.0 / 3.0
#: Fibres of a bundle: MaNGA's, of 2.5 arcsec from middle to middle.
BUNDLES = (19, 37, 61, 91, 127)
_MOST = 1_000_000
"""Spaxels of a grid."""
_PITCH = 2.5


@dataclass(frozen=True, eq=False)
class Grid:
    """A square grid of spaxels on the sky: rows towards north, columns towards west, as FITS."""

    shape: tuple[int, int]
    """(y, x)."""
    side: float
    """Of a spaxel, arcsec."""
    psf_fwhm: float
    """Of the point-spread function, arcsec."""
    index: Int[np.ndarray, " spaxel"]
    """Place of every spaxel in the flattened grid."""

    def image(self, values: Float[np.ndarray, "*rows spaxel"]) -> Float[np.ndarray, "*rows y x"]:
        """Values of spaxels on the grid, NaN where there is none."""
        full = np.full((*values.shape[:-1], math.prod(self.shape)), np.nan, values.dtype)
        full[..., self.index] = values
        return full.reshape(*values.shape[:-1], *self.shape)

    @property
    def covered(self) -> Bool[np.ndarray, "y x"]:
        """True where there is a spaxel."""
        flat = np.zeros(math.prod(self.shape), bool)
        flat[self.index] = True
        return flat.reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Spaxels:
    """Apertures of one galaxy, and how much of each one's light a spaxel holds."""

    aperture: Float[np.ndarray, "spaxel 4"]
    """dx (east), dy (north), diameter, seeing: arcsec."""
    share: Float[np.ndarray, " spaxel"]
    """Flux of the spaxel over that of its aperture: the ratio of their areas."""
    grid: Grid | None
    """None for a list of apertures."""

    def __len__(self) -> int:
        """Number of spaxels."""
        return len(self.share)

    def at(self, spaxel: int) -> Aperture:
        """The aperture that stands for a spaxel."""
        dx, dy, diameter, seeing = self.aperture[spaxel]
        return Aperture.in_batch_units(dx, dy, diameter=diameter, seeing=seeing)


def equivalent_aperture(side: float, psf_fwhm: float) -> tuple[float, float, float]:
    """Diameter, seeing (arcsec) and share of the aperture that stands for a square spaxel.

    Example:
        >>> diameter, seeing, share = equivalent_aperture(0.5, 2.5)
        >>> round(diameter, 2), round(seeing, 2), round(share, 4)
        (3.0, 1.8, 0.0353)
    """
    variance = side**2 / 12 + (psf_fwhm / FWHM_PER_SIGMA) ** 2
    seeing = math.sqrt(variance / (_DIAMETER_OVER_SEEING**2 / 16 + FWHM_PER_SIGMA**-2))
    diameter = _DIAMETER_OVER_SEEING * seeing
    return diameter, seeing, side**2 / (math.pi * diameter**2 / 4)


def square(size: Any, *, side: Any = None, psf_fwhm: Any = None) -> Spaxels:
    """A square grid around the galaxy, whose centre is that of spaxel (y // 2, x // 2).

    Args:
        size: Spaxels a side, or (y, x).
        side: Of a spaxel, a Quantity; by default 0.5 arcsec.
        psf_fwhm: Of the point-spread function, a Quantity; by default 2.5 arcsec.

    Raises:
        ValueError: Not one spaxel, or more than a million, or a side or width that is not
            positive.
        TypeError, UnitConversionError: A side or width without unit, or not of an angle.
    """
    sides = np.broadcast_to(size, 2) if np.ndim(size) == 0 else np.asarray(size)
    if sides.shape != (2,) or sides.dtype.kind not in "iu" or sides.min() < 1:
        raise ValueError(f"Expected the size of a grid as (y, x), 1 or more; got {size!r}.")
    shape = (int(sides[0]), int(sides[1]))
    _countable(math.prod(shape))
    step, fwhm = _angles(side, psf_fwhm)
    return on_grid(Grid(shape, step, fwhm, np.arange(math.prod(shape))))


def hexagon(fibres: int = 127, *, side: Any = None, psf_fwhm: Any = None) -> Spaxels:
    """The spaxels that a MaNGA bundle covers: a hexagon, its corners to the west and east.

    Args:
        fibres: 19, 37, 61, 91 or 127: 12.5 to 32.5 arcsec from corner to corner.
        side: Of a spaxel, a Quantity; by default 0.5 arcsec.
        psf_fwhm: Of the point-spread function, a Quantity; by default 2.5 arcsec.

    Raises:
        ValueError: Another number of fibres, or a side or width that is not positive.
        TypeError, UnitConversionError: A side or width without unit, or not of an angle.
    """
    if fibres not in BUNDLES:
        known = ", ".join(map(str, BUNDLES))
        raise ValueError(f"Expected a bundle of {known} fibres; got {fibres}. Choose one.")
    step, fwhm = _angles(side, psf_fwhm)
    reach = _PITCH * (2 * BUNDLES.index(fibres) + 5) / 2
    # As MaNGA's frames: a margin of some arcsec around the hexagon, and even.
    size = 2 * math.ceil((reach + 2) / step)
    _countable(size * size)
    whole = on_grid(Grid((size, size), step, fwhm, np.arange(size * size)))
    x, y = np.abs(whole.aperture[:, :2]).T
    inside = (y <= reach * math.sqrt(0.75)) & (x + y / math.sqrt(3) <= reach)
    return on_grid(Grid((size, size), step, fwhm, np.flatnonzero(inside)))


def of_apertures(apertures: Iterable[Any]) -> Spaxels:
    """Any list of apertures, each with all its light.

    Raises:
        ValueError: The list is empty.
        TypeError: Something else than an `Aperture` in it.
    """
    apertures = list(apertures)
    if not apertures:
        raise ValueError("Expected at least one aperture; got none. Give a list of Aperture.")
    for one in apertures:
        if not isinstance(one, Aperture):
            raise TypeError(f"Expected apertures as Aperture objects; got {type(one).__name__}.")
    rows = [(one.dx, one.dy, one.diameter, one.seeing) for one in apertures]
    return Spaxels(np.array(rows), np.ones(len(rows)), None)


def _countable(spaxels: int) -> None:
    if spaxels > _MOST:
        raise ValueError(
            f"Expected a grid of at most {_MOST:,} spaxels; got {spaxels:,}. Ask for larger ones, "
            "or for fewer."
        )


def on_grid(grid: Grid) -> Spaxels:
    """The spaxels of a grid as apertures."""
    row, column = np.unravel_index(grid.index, grid.shape)
    diameter, seeing, share = equivalent_aperture(grid.side, grid.psf_fwhm)
    place = np.stack(
        [-(column - grid.shape[1] // 2) * grid.side, (row - grid.shape[0] // 2) * grid.side]
    )
    same = np.ones(len(grid.index))
    aperture = np.stack([*place, diameter * same, seeing * same], axis=-1)
    return Spaxels(aperture, share * same, grid)


def _angles(side: Any, psf_fwhm: Any) -> tuple[float, float]:
    side = 0.5 * u.arcsec if side is None else side
    psf_fwhm = 2.5 * u.arcsec if psf_fwhm is None else psf_fwhm
    return (
        single(side, u.arcsec, "the side of a spaxel", positive=True),
        single(psf_fwhm, u.arcsec, "the PSF FWHM of a cube", positive=True),
    )
