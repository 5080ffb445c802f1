"""The border for units: from an astropy `Quantity` to a bare array in the units of the batch.

Whatever crosses it is checked: a bare number, a unit of something else, values that nothing has.
`bare` marks numbers that are known to be in the right unit already, such as those just read from a
file whose format fixes the unit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as u

NANOMAGGIE = u.nmgy
FLUX_DENSITY = u.Unit(1e-17 * u.erg / u.s / u.cm**2 / u.AA)

#: Nanomaggies are AB: 3631 Jy at magnitude 0, by definition.
AB = u.zero_point_flux(3631.0 * u.Jy)


@dataclass(frozen=True)
class _Bare:
    value: Any


def bare(value: Any) -> Any:
    """`value`, marked as being in the unit that is asked for; it stands in for a Quantity."""
    return _Bare(value)


def is_bare(value: Any) -> bool:
    """Whether `bare` marked it."""
    return isinstance(value, _Bare)


def number(value: Any, unit: Any, what: str, *, equivalencies: Any = ()) -> Any:
    """The value of a Quantity in `unit`, as a float64 array.

    Args:
        value: a Quantity, or what `bare` gives.
        unit: of the result.
        what: is converted, for the message.
        equivalencies: of astropy.

    Raises:
        TypeError: a number without a unit.
        UnitConversionError: a unit of something else.
    """
    if isinstance(value, _Bare):
        return np.asarray(value.value, dtype=np.float64)
    if not isinstance(value, u.Quantity):
        raise TypeError(
            f"Expected {what} as a Quantity in {unit}; got a bare {type(value).__name__}. "
            f"Multiply it by its astropy unit."
        )
    try:
        converted = value.to_value(unit, equivalencies=list(equivalencies))
    except u.UnitConversionError as error:
        raise u.UnitConversionError(
            f"Expected {what} in a unit convertible to {unit}; got {value.unit}. "
            "Check the unit of the data."
        ) from error
    return np.asarray(converted, dtype=np.float64)


def single(value: Any, unit: Any, what: str, *, positive: bool = False) -> float:
    """One finite number in `unit`.

    Raises:
        ValueError: an array, not finite, or not positive where that is asked for.
        TypeError, UnitConversionError: as `number`.
    """
    found = number(value, unit, what)
    kind = "one positive finite number" if positive else "one finite number"
    if found.shape != () or not np.isfinite(found) or (positive and found <= 0):
        raise ValueError(f"Expected {what} as {kind} in {unit}; got {found}. Correct the value.")
    return float(found)


def measured(
    flux: Any, ivar: Any, unit: Any, *, what: str, equivalencies: Any = ()
) -> tuple[Any, Any]:
    """Flux and inverse variance in `unit`; where either is not finite, both are 0: missing.

    Args:
        flux: a Quantity of any shape.
        ivar: a Quantity of that shape, in the inverse square of a flux unit.
        unit: of the result.
        what: is measured, for the message.
        equivalencies: of astropy, from the unit of the flux.

    Returns:
        (flux, ivar), float64 arrays.

    Raises:
        ValueError: shapes that differ, nothing, negative ivar, or everything missing.
        TypeError, UnitConversionError: as `number`.
    """
    values = number(flux, unit, f"the flux of {what}", equivalencies=equivalencies)
    if not isinstance(ivar, u.Quantity | _Bare):
        raise TypeError(
            f"Expected the ivar of {what} as a Quantity in 1 / ({unit})^2; got a bare "
            f"{type(ivar).__name__}. Multiply it by its astropy unit."
        )
    weights = np.asarray(ivar.value, dtype=np.float64)
    if weights.shape != values.shape:
        raise ValueError(
            f"Expected flux and ivar of {what} of one shape; got {values.shape} and "
            f"{weights.shape}. Give one inverse variance per flux."
        )
    if values.size == 0:
        raise ValueError(
            f"Expected at least one pixel in {what}; got an empty array. Leave it out."
        )
    if isinstance(ivar, u.Quantity):
        sigma = (1.0 * ivar.unit) ** -0.5
        factor = number(
            sigma, unit, f"the square root of 1 / ivar of {what}", equivalencies=equivalencies
        )
        weights = weights / factor**2
    if np.any(weights < 0):
        raise ValueError(
            f"Expected ivar >= 0 in {what}; got {np.nanmin(weights):.3g}. "
            "Set the ivar of bad pixels to 0."
        )
    good = np.isfinite(values) & np.isfinite(weights) & (weights > 0)
    if not good.any():
        raise ValueError(
            f"Expected at least one pixel of {what} with ivar > 0; got none. "
            "Leave out what was not measured."
        )
    return np.where(good, values, 0.0), np.where(good, weights, 0.0)


def frozen(array: Any, dtype: Any) -> Any:
    """A read-only copy."""
    copy = np.array(array, dtype=dtype)
    copy.setflags(write=False)
    return copy


def named(value: Any, what: str) -> str:
    """A non-empty string.

    Raises:
        TypeError: something else.
    """
    if not isinstance(value, str) or not value:
        raise TypeError(f"Expected {what} as a non-empty string; got {value!r}. Name it.")
    return value
