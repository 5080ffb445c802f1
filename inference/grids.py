"""What is asked for, checked at the border: wavelengths with their unit, and the resolution.

Axes: wavelength.
"""

from typing import Any

import astropy.units as u
import numpy as np
from jaxtyping import Float


def wavelength_grid(wavelength: Any) -> Float[np.ndarray, " wavelength"]:
    """A Quantity of length as increasing positive numbers in Angstrom.

    Raises:
        TypeError: It has no unit.
        astropy.units.UnitConversionError: Its unit is not one of length.
        ValueError: It is empty, not positive or not increasing.
    """
    if not isinstance(wavelength, u.Quantity):
        raise TypeError(
            f"Expected wavelengths as a Quantity; got a bare {type(wavelength).__name__}. "
            "Multiply by the unit: np.arange(3800, 9200) * u.AA."
        )
    if not wavelength.unit.is_equivalent(u.AA):
        raise u.UnitConversionError(
            "Expected wavelengths in a unit of length (Angstrom, nm, micron); "
            f"got {wavelength.unit}. Convert them."
        )
    grid = np.atleast_1d(wavelength.to_value(u.AA)).astype(float)
    rising = grid.ndim == 1 and len(grid) > 1 and bool(np.all(np.diff(grid) > 0))
    if not rising or not np.all(np.isfinite(grid) & (grid > 0)):
        raise ValueError(
            "Expected at least two positive, increasing wavelengths along one axis; "
            f"got shape {grid.shape}, from {grid.flat[0] if grid.size else 'nothing'} Angstrom. "
            "Sort them and drop repeats."
        )
    return grid


def resolving_power(
    resolution: Any, grid: Float[np.ndarray, " wavelength"]
) -> Float[np.ndarray, " wavelength"]:
    """R = wavelength / FWHM at each wavelength of the grid.

    Raises:
        astropy.units.UnitConversionError: It has a unit.
        ValueError: It is not positive, or has another shape than the grid.
    """
    power = u.Quantity(resolution)
    if power.unit != u.dimensionless_unscaled:
        raise u.UnitConversionError(
            f"Expected the resolution as a pure number R = wavelength / FWHM; got {power.unit}. "
            "Divide the wavelength by the FWHM."
        )
    if power.shape not in ((), grid.shape) or not np.all(power.value > 0):
        raise ValueError(
            f"Expected one positive resolution R, or one for each of {len(grid)} pixels; "
            f"got {resolution}. R = wavelength / FWHM."
        )
    return np.broadcast_to(power.value, grid.shape)
