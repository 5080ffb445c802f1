"""Highest-density regions: where the truth falls when a posterior has several modes.

From densities on a grid to the probability of everything denser than the truth, uniform on [0, 1]
when the posterior is exact: small values mean that truths sit on the mode. `pit.py` judges these
values as it does PIT values, and `hpd_coverage` counts the regions of each level.

Axes: galaxy, grid.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probmmae.calibration.coverage import LEVELS, Coverage, coverage
from probmmae.calibration.pit import finite_pit

FloatArray = NDArray[np.float64]


def hpd_from_grid(pdf: ArrayLike, grid: ArrayLike, truth: ArrayLike) -> FloatArray:
    """Probability of all redshifts that are denser than the truth, linear between grid points.

    Args:
        pdf: Densities, not negative, of any normalisation, shape (galaxy, grid).
        grid: Increasing grid shared by the galaxies, shape (grid,).
        truth: True values in the unit of the grid, shape (galaxy,).

    Returns:
        Values in [0, 1], shape (galaxy,); 1 for a truth outside the grid, NaN for a NaN truth.

    Raises:
        ValueError: The shapes disagree, the grid does not increase, or a density is negative, NaN
            or zero everywhere.

    References:
        Hyndman 1996, "Computing and graphing highest density regions",
        https://doi.org/10.1080/00031305.1996.10474359

    Example:
        >>> grid = np.linspace(-1, 1, 3)
        >>> hpd_from_grid([[0.0, 1.0, 0.0]], grid, [0.5]).tolist()
        [0.75]
    """
    density, points, true = (np.asarray(a, dtype=np.float64) for a in (pdf, grid, truth))
    if density.shape != (true.size, points.size) or true.ndim != 1 or np.any(np.diff(points) <= 0):
        raise ValueError(
            "Expected a pdf of shape (galaxy, grid) on an increasing grid; got pdf "
            f"{density.shape}, grid {points.shape}, truth {true.shape}. Sort the grid and put one "
            "galaxy in a row."
        )
    if not (np.all(density >= 0) and np.all(density.max(axis=1) > 0)):
        raise ValueError(
            "Expected densities that are not negative and not all zero; got "
            f"{density.min(initial=np.inf)} at least. Leave out galaxies without a density."
        )
    outside = (true < points[0]) | (true > points[-1])
    right = np.clip(np.searchsorted(points, true), 1, points.size - 1)
    rows = np.arange(true.size)
    share = (true - points[right - 1]) / (points[right] - points[right - 1])
    at_truth = (1 - share) * density[rows, right - 1] + share * density[rows, right]
    at_truth = np.where(outside, 0.0, at_truth)[:, None]
    low = np.minimum(density[:, :-1], density[:, 1:])
    high = np.maximum(density[:, :-1], density[:, 1:])
    # The part of a step above the density at the truth is a trapezoid from it, or from `low`.
    floor = np.clip(at_truth, low, high)
    part = np.where(high > low, (high - floor) / np.where(high > low, high - low, 1.0), 0.0)
    part = np.where((high == low) & (low > at_truth), 1.0, part)
    width = np.diff(points)
    denser = np.sum(width * part * (high + floor) / 2, axis=1)
    return np.asarray(denser / np.sum(width * (low + high) / 2, axis=1))


def hpd_coverage(
    hpd: ArrayLike,
    *,
    levels: Sequence[float] = LEVELS,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
) -> tuple[Coverage, ...]:
    """Coverage of highest-density regions of independent posteriors.

    Args:
        hpd: One value a galaxy of `hpd_from_grid`, shape (galaxy,); NaN is left out.
        levels: Nominal probabilities.
        groups: A label a galaxy, shape (galaxy,), or None.
        confidence: Probability of the credible interval around each figure.

    Returns:
        As `coverage.coverage`: each level over all galaxies, then each group and level.

    Raises:
        ValueError: Values outside [0, 1], or groups of another shape.
    """
    values = np.asarray(hpd, dtype=np.float64)
    finite_pit(values)
    # A value is below a level exactly when this one is within half of it from one half.
    return coverage(0.5 + values / 2, levels=levels, groups=groups, confidence=confidence)
