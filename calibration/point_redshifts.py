"""Statistics of point redshifts: sigma_NMAD, bias and outliers, in units of 1 + z.

From a point estimate a galaxy to the numbers that photometric-redshift papers quote. They say
nothing about uncertainty: the proper scores in `scores.py` do.

Axes: galaxy.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probmmae.calibration.scores import Score

FloatArray = NDArray[np.float64]


def scaled_errors(estimate: ArrayLike, truth: ArrayLike) -> FloatArray:
    """(z_estimate - z) / (1 + z), shape (galaxy,)."""
    true = np.asarray(truth, dtype=np.float64)
    return np.asarray((np.asarray(estimate, dtype=np.float64) - true) / (1 + true))


def sigma_nmad(errors: ArrayLike) -> float:
    """1.4826 times the median absolute deviation of scaled errors from their median.

    References:
        Brammer, van Dokkum & Coppi 2008, "EAZY", https://arxiv.org/abs/0807.1533
    """
    values = np.asarray(errors, dtype=np.float64)
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def outlier_fraction(errors: ArrayLike, *, beyond: float = 0.15) -> float:
    """Fraction of scaled errors whose absolute value exceeds `beyond`."""
    return float(np.mean(np.abs(np.asarray(errors, dtype=np.float64)) > beyond))


def bias(errors: ArrayLike) -> float:
    """Median scaled error."""
    return float(np.median(np.asarray(errors, dtype=np.float64)))


def point_scores(
    estimate: ArrayLike,
    truth: ArrayLike,
    *,
    generator: np.random.Generator,
    resamples: int = 500,
    confidence: float = 0.95,
) -> tuple[Score, ...]:
    """sigma_NMAD, bias, and outlier fractions (0.15 and 0.05), with bootstrap intervals.

    Args:
        estimate: Point redshifts, shape (galaxy,).
        truth: True redshifts, shape (galaxy,).
        generator: Source of the bootstrap.
        resamples: Bootstrap samples.
        confidence: Probability of the intervals.
    """
    errors = scaled_errors(estimate, truth)
    statistics: dict[str, Callable[[FloatArray], float]] = {
        "sigma_NMAD": sigma_nmad,
        "bias": bias,
        "outliers beyond 0.15": outlier_fraction,
        "outliers beyond 0.05": partial(outlier_fraction, beyond=0.05),
    }
    picks = generator.integers(errors.size, size=(resamples, errors.size))
    tail = (1 - confidence) / 2
    scores = []
    for name, statistic in statistics.items():
        low, high = np.quantile([statistic(errors[pick]) for pick in picks], [tail, 1 - tail])
        scores.append(
            Score(name, statistic(errors), float(low), float(high), errors.size, confidence)
        )
    return tuple(scores)
