"""Conformal scores and the intervals they make: around a point, quantiles or a whole CDF.

From a prediction and its truth to a score, how far out the truth lies; `conformal.py` turns the
scores of held-out galaxies into a threshold; and from a prediction and the threshold to the
interval of all values whose score stays within it.

Axes: galaxy, grid.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An interval a galaxy."""

    lower: FloatArray
    """Lower ends, shape (galaxy, *rest), in the unit of the truth; may be -inf."""
    upper: FloatArray
    """Upper ends, shape (galaxy, *rest), in the unit of the truth; may be inf."""


def absolute_scores(
    estimate: ArrayLike, truth: ArrayLike, *, scale: ArrayLike | None = None
) -> FloatArray:
    """|truth - estimate| / scale, shape (galaxy,).

    Args:
        estimate: Point predictions, shape (galaxy,).
        truth: True values in the same unit, shape (galaxy,).
        scale: Expected size of the error, such as the posterior's standard deviation, positive,
            in the same unit, shape (galaxy,); 1 by default.

    Raises:
        ValueError: The shapes disagree, a value is not finite, or a scale is not positive.
    """
    centre, true, size = _matched(estimate=estimate, truth=truth, scale=_ones(scale, estimate))
    return np.asarray(np.abs(true - centre) / _positive(size))


def absolute_interval(
    estimate: ArrayLike, threshold: ArrayLike | float, *, scale: ArrayLike | None = None
) -> Interval:
    """The interval estimate -+ threshold * scale; arguments and errors as `absolute_scores`.

    Args:
        estimate: Point predictions, shape (galaxy,).
        threshold: For `absolute_scores`, shape () or (galaxy,).
        scale: The same that the scores had.

    Raises:
        ValueError: The shapes disagree, a value is not finite, or a scale is not positive.
    """
    centre, size = _matched(estimate=estimate, scale=_ones(scale, estimate))
    reach = _thresholds(threshold, centre) * _positive(size)
    return Interval(centre - reach, centre + reach)


def cqr_scores(
    lower: ArrayLike, upper: ArrayLike, truth: ArrayLike, *, scale: ArrayLike | None = None
) -> FloatArray:
    """max(lower - truth, truth - upper) / scale, shape (galaxy,): negative inside the interval.

    Args:
        lower: Lower quantiles, such as those of a posterior at 5 %, shape (galaxy,).
        upper: Upper quantiles, shape (galaxy,), in the same unit.
        truth: True values, shape (galaxy,), in the same unit.
        scale: Divides the score, positive, in the same unit, shape (galaxy,); 1 by default. The
            width of the interval makes a correction in proportion to it.

    Raises:
        ValueError: The shapes disagree, a value is not finite, or a scale is not positive.

    References:
        Romano, Patterson & Candès 2019, "Conformalized quantile regression", equation 6,
        https://arxiv.org/abs/1905.03222; Sesia & Candès 2020, "A comparison of some conformal
        quantile regression methods" (the scaled score, CQR-r), https://arxiv.org/abs/1909.05433
    """
    low, high, true, size = _matched(
        lower=lower, upper=upper, truth=truth, scale=_ones(scale, lower)
    )
    return np.asarray(np.maximum(low - true, true - high) / _positive(size))


def cqr_interval(
    lower: ArrayLike,
    upper: ArrayLike,
    threshold: ArrayLike | float,
    *,
    scale: ArrayLike | None = None,
) -> Interval:
    """The interval from lower - threshold * scale to upper + threshold * scale.

    Where a negative threshold makes the ends cross, both are the middle between them.

    Args:
        lower: Lower quantiles, shape (galaxy,).
        upper: Upper quantiles, shape (galaxy,), in the same unit.
        threshold: For `cqr_scores`, shape () or (galaxy,).
        scale: The same that the scores had.

    Raises:
        ValueError: The shapes disagree, a value is not finite, or a scale is not positive.
    """
    low, high, size = _matched(lower=lower, upper=upper, scale=_ones(scale, lower))
    reach = np.maximum(_thresholds(threshold, low) * _positive(size), (low - high) / 2)
    return Interval(low - reach, high + reach)


def cdf_scores(pit: ArrayLike) -> FloatArray:
    """|F(truth) - 1/2| from PIT values, shape (galaxy,): how far out the truth lies.

    Args:
        pit: CDF of each posterior at its truth, in [0, 1], shape (galaxy,).

    Raises:
        ValueError: A value outside [0, 1] or not finite.

    References:
        Chernozhukov, Wüthrich & Zhu 2021, "Distributional conformal prediction", equation 3 ff.,
        https://arxiv.org/abs/1909.07889
    """
    values = np.asarray(pit, dtype=np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(
            f"Expected PIT values in [0, 1], shape (galaxy,); got {_span(values)}, shape "
            f"{values.shape}. Leave out galaxies without a truth."
        )
    return np.abs(values - 0.5)


def cdf_interval(cdf: ArrayLike, grid: ArrayLike, threshold: ArrayLike | float) -> Interval:
    """All values y with |F(y) - 1/2| <= threshold, for CDFs linear between grid points.

    Args:
        cdf: Shape (galaxy, grid), rising from 0 to 1.
        grid: Increasing, shape (grid,).
        threshold: For `cdf_scores`, shape () or (galaxy,).

    Returns:
        Intervals in the unit of the grid. A threshold of 1/2 or more reaches truths outside the
        grid, so the interval is infinite.

    Raises:
        ValueError: The shapes disagree, the grid does not increase, or a CDF falls.
    """
    table, points = np.asarray(cdf, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    if table.ndim != 2 or points.shape != table.shape[1:] or not np.all(np.diff(points) > 0):
        raise ValueError(
            "Expected a cdf of shape (galaxy, grid) on an increasing grid; got cdf "
            f"{table.shape}, grid {points.shape}. Sort the grid and put one galaxy in a row."
        )
    if not np.all(np.diff(table, axis=1) >= 0):
        raise ValueError(
            "Expected CDFs that never fall; got one that does, or NaN. Accumulate a density >= 0."
        )
    reach = np.broadcast_to(_thresholds(threshold, table[:, 0]), len(table))
    lower = [np.interp(0.5 - r, row, points) for r, row in zip(reach, table, strict=True)]
    upper = [np.interp(0.5 + r, row, points) for r, row in zip(reach, table, strict=True)]
    outside = reach >= 0.5
    return Interval(np.where(outside, -np.inf, lower), np.where(outside, np.inf, upper))


def _ones(scale: ArrayLike | None, like: ArrayLike) -> ArrayLike:
    return np.ones(np.shape(like)) if scale is None else scale


def _matched(**arrays: ArrayLike) -> tuple[FloatArray, ...]:
    """The arrays as floats, checked to be finite and of one shape (galaxy,)."""
    values = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
    shapes = {name: value.shape for name, value in values.items()}
    if len(set(shapes.values())) > 1 or next(iter(values.values())).ndim != 1:
        raise ValueError(
            f"Expected {', '.join(shapes)} of one shape (galaxy,); got "
            f"{', '.join(map(str, shapes.values()))}. Give one of each a galaxy."
        )
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ValueError(
                f"Expected finite {name}; got {int(np.sum(~np.isfinite(value)))} values that are "
                "not. Leave those galaxies out."
            )
    return tuple(values.values())


def _positive(scale: FloatArray) -> FloatArray:
    if scale.size and not scale.min() > 0:
        raise ValueError(
            f"Expected a positive scale; got {scale.min()}. Leave out posteriors without width."
        )
    return scale


def _thresholds(threshold: ArrayLike | float, like: FloatArray) -> FloatArray:
    values = np.asarray(threshold, dtype=np.float64)
    if values.shape not in ((), like.shape) or np.isnan(values).any():
        raise ValueError(
            f"Expected one threshold, or one a galaxy, shape {like.shape}; got {values.shape} "
            f"with {int(np.isnan(values).sum())} NaN. Take it from fit_threshold or "
            "weighted_thresholds."
        )
    return values


def _span(values: FloatArray) -> str:
    return f"{values.min()} to {values.max()}" if values.size else "nothing"
