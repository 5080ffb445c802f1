"""Monotone maps of [0, 1] onto itself: what a recalibration does to a posterior's CDF.

A map G is the law of the PIT. Its density g is uniform, tilted: g(u) = exp(sum_k theta_k h_k(u)) /
Z. The h_k are polynomials of the normal quantile of u, orthonormal under the uniform law, so
theta_1 is a shift, theta_2 a width, theta_3 skewness, theta_4 tails; for a Gaussian posterior of
wrong centre or width the family holds the truth. Zero is the identity, and the log-likelihood is
concave in theta. From coefficients, which `probmmae.calibration` fits, to maps.

Axes: galaxy, knot (of u), term (k).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

FloatArray = NDArray[np.float64]

_REACH = 4.5
"""Normal quantile beyond which a tilt is constant: 3e-6 on either side."""
_NORMAL = np.linspace(-_REACH, _REACH, 61)
#: Where maps are tabulated: densities are linear in u between these.
KNOTS: FloatArray = np.concatenate([[0.0], special.ndtr(_NORMAL), [1.0]])
_STEPS = np.diff(KNOTS)
KNOT_WEIGHTS = 0.5 * (np.append(_STEPS, 0.0) + np.append(0.0, _STEPS))
"""Of the trapezoid rule on the knots."""
TERMS = 6
"""Number of h_k."""


def _orthonormal() -> FloatArray:
    normal = np.concatenate([[-_REACH], _NORMAL, [_REACH]])
    powers = normal[:, None] ** np.arange(TERMS + 1)
    root = np.sqrt(KNOT_WEIGHTS)[:, None]
    factor, upper = np.linalg.qr(root * powers)
    return np.asarray((factor * np.sign(np.diag(upper)) / root)[:, 1:])


BASIS: FloatArray = _orthonormal()
"""h_k at the knots, shape (knot, term)."""


@dataclass(frozen=True)
class PitMap:
    """A monotone map of [0, 1] onto itself for all galaxies, or one each."""

    knot_density: FloatArray
    """g at the knots, linear between them, shape (galaxy, knot); one row serves any galaxy."""

    @classmethod
    def identity(cls, galaxies: int = 1) -> Self:
        """Maps that change nothing."""
        return cls.tilted(np.zeros((galaxies, 1)))

    @classmethod
    def joined(cls, maps: Sequence["PitMap"]) -> Self:
        """The maps of several sets of galaxies, one set after the other."""
        return cls(np.concatenate([one.knot_density for one in maps]))

    @classmethod
    def tilted(cls, coefficients: FloatArray) -> Self:
        """The maps of coefficients theta, shape (galaxy, term)."""
        exponent = coefficients @ BASIS.T[: coefficients.shape[1]]
        tilt = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        return cls(tilt / (tilt @ KNOT_WEIGHTS)[:, None])

    def cdf(self, u: ArrayLike | float) -> FloatArray:
        """G(u), strictly increasing from 0 to 1.

        Args:
            u: CDF values in [0, 1], shape (galaxy, *rest), or any shape for a map of one row.

        Returns:
            Shape of `u`.

        Raises:
            ValueError: A value outside [0, 1], or another number of galaxies.
        """
        values, rows = self._rows(u)
        left, share = _locate(values)
        low, high = self.knot_density[rows, left], self.knot_density[rows, left + 1]
        area = _STEPS[left] * share * (low + 0.5 * (high - low) * share)
        return np.asarray(np.clip(self._knot_cdf()[rows, left] + area, 0.0, 1.0))

    def density(self, u: ArrayLike | float) -> FloatArray:
        """g(u) = dG/du, positive; arguments, shape and errors as in `cdf`."""
        values, rows = self._rows(u)
        left, share = _locate(values)
        low, high = self.knot_density[rows, left], self.knot_density[rows, left + 1]
        return np.asarray(low + (high - low) * share)

    def inverse(self, levels: ArrayLike | float) -> FloatArray:
        """The u with G(u) = level.

        A posterior's quantile at this u is the recalibrated quantile at the level. Arguments,
        shape and errors as in `cdf`.
        """
        values, rows = self._rows(levels)
        # Rows end to end, each one higher than the last, are one increasing table.
        table = self._knot_cdf() + np.arange(len(self.knot_density))[:, None]
        found = np.searchsorted(table.ravel(), values + rows, side="right") - 1
        left = np.clip(found - rows * len(KNOTS), 0, len(_STEPS) - 1)
        low, high = self.knot_density[rows, left], self.knot_density[rows, left + 1]
        area = (values - self._knot_cdf()[rows, left]) / _STEPS[left]
        root = np.sqrt(np.maximum(low**2 + 2 * (high - low) * area, 0.0))
        share = np.clip(2 * area / (low + root), 0.0, 1.0)
        return np.asarray(np.clip(KNOTS[left] + share * _STEPS[left], 0.0, 1.0))

    def _knot_cdf(self) -> FloatArray:
        return cumulate(self.knot_density, KNOTS)

    def _rows(self, values: ArrayLike | float) -> tuple[FloatArray, NDArray[np.int_]]:
        """The values, checked, and the row of the map that serves each."""
        u, count = np.asarray(values, dtype=np.float64), len(self.knot_density)
        if not np.all((u >= 0) & (u <= 1)):
            raise ValueError(
                f"Expected probabilities in [0, 1]; got {_range(u)}. Evaluate the posterior's CDF "
                "first and leave out NaN."
            )
        if count == 1:
            return u, np.zeros(u.shape, dtype=int)
        if u.shape[:1] != (count,):
            raise ValueError(
                f"Expected values of shape (galaxy, *rest) with {count} galaxies, one a map; got "
                f"{u.shape}. Make the map from the same galaxies."
            )
        index = np.arange(count).reshape(-1, *[1] * (u.ndim - 1))
        return u, np.broadcast_to(index, u.shape)


def cumulate(pdf: FloatArray, grid: FloatArray) -> FloatArray:
    """CDF on the grid by the trapezoid rule, normalised to end at 1, shape (galaxy, grid)."""
    steps = 0.5 * (pdf[:, 1:] + pdf[:, :-1]) * np.diff(grid)
    cdf = np.concatenate([np.zeros((len(pdf), 1)), steps.cumsum(axis=1)], axis=1)
    return np.asarray(cdf / cdf[:, -1:])


def basis_at(pit: FloatArray) -> FloatArray:
    """h_k at PIT values of shape (galaxy,), shape (galaxy, term)."""
    return np.stack([np.interp(pit, KNOTS, column) for column in BASIS.T], axis=1)


def log_partition(coefficients: FloatArray) -> tuple[FloatArray, FloatArray]:
    """ln Z and its gradient, the mean of h_k under each tilt.

    Args:
        coefficients: theta, shape (galaxy, term), at most TERMS of them.

    Returns:
        Shapes (galaxy,) and (galaxy, term).
    """
    basis = BASIS[:, : coefficients.shape[1]]
    exponent = coefficients @ basis.T
    top = exponent.max(axis=1, keepdims=True)
    tilt = np.exp(exponent - top) * KNOT_WEIGHTS
    total = tilt.sum(axis=1, keepdims=True)
    return (np.log(total) + top)[:, 0], (tilt @ basis) / total


def _locate(u: FloatArray) -> tuple[NDArray[np.int_], FloatArray]:
    """The piece between two knots that holds u, and how far along it."""
    left = np.clip(np.searchsorted(KNOTS, u, side="right") - 1, 0, len(_STEPS) - 1)
    return np.asarray(left), np.asarray((u - KNOTS[left]) / _STEPS[left])


def _range(values: FloatArray) -> str:
    return f"{values.min()} to {values.max()}" if values.size else "nothing"
