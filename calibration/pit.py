"""Probability integral transforms: where the truth falls in its posterior.

From draws, or CDF values, to PIT values in [0, 1] (uniform and independent when the posterior is
exact) and to the Kolmogorov-Smirnov verdict on them. `coverage.py` counts intervals from the same
values.

Axes: draw (first axis of every array of draws), galaxy, and any axes after it.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PitResult:
    """Verdict on the uniformity of PIT values."""

    distance: float
    """Kolmogorov-Smirnov distance between the PIT values and the uniform law."""
    limit: float
    """The distance that exact posteriors stay below with probability `confidence`."""
    p_value: float
    """Probability of a distance at least this large when the posteriors are exact."""
    n: int
    """Number of truths."""
    confidence: float
    """Probability to which `limit` refers."""
    edge_fraction: float
    """Fraction of PIT values that are exactly 0 or 1: truths outside the posterior's support."""

    @property
    def passed(self) -> bool:
        """True when the distance is inside the band of exact posteriors."""
        return self.distance <= self.limit

    def to_dict(self) -> dict[str, float | int | bool]:
        """Every field and the verdict, ready for JSON."""
        return {**asdict(self), "passed": self.passed}


def pit_from_draws(
    draws: ArrayLike, truth: ArrayLike, *, generator: np.random.Generator
) -> FloatArray:
    """Randomised rank of the truth among draws: (below + v (equal + 1)) / (draws + 1).

    With v uniform in [0, 1] the values are exactly uniform when truth and draws are exchangeable,
    for any number of draws and with ties, so that no correction for the number of draws is needed.

    Args:
        draws: Posterior draws, shape (draw, *rest), any unit.
        truth: True values in the same unit, shape (*rest).
        generator: Source of v.

    Returns:
        PIT values, shape (*rest); NaN where the truth or any of its draws is NaN.

    Raises:
        ValueError: The shapes disagree, or there is no draw.

    References:
        Talts et al. 2018, "Validating Bayesian inference algorithms with simulation-based
        calibration", https://arxiv.org/abs/1804.06788
    """
    values, true = np.asarray(draws), np.asarray(truth)
    if values.ndim != true.ndim + 1 or values.shape[1:] != true.shape or values.shape[0] == 0:
        raise ValueError(
            "Expected draws of shape (draw, *truth.shape) with at least one draw; got draws "
            f"{values.shape} and truth {true.shape}. Move the axis of draws to the front."
        )
    below = (values < true).sum(axis=0)
    equal = (values == true).sum(axis=0)
    rank = below + generator.uniform(size=true.shape) * (equal + 1)
    missing = np.isnan(true) | np.isnan(values).any(axis=0)
    return np.where(missing, np.nan, rank / (values.shape[0] + 1))


def pit_from_grid(cdf: ArrayLike, grid: ArrayLike, truth: ArrayLike) -> FloatArray:
    """CDF at the truth, linear between grid points, 0 and 1 outside the grid.

    Args:
        cdf: CDF values, shape (galaxy, grid).
        grid: Increasing grid shared by the galaxies, shape (grid,).
        truth: True values in the unit of the grid, shape (galaxy,).

    Returns:
        PIT values, shape (galaxy,); NaN where the truth is NaN.

    Raises:
        ValueError: The shapes disagree or the grid does not increase.
    """
    table, points, true = (np.asarray(a, dtype=np.float64) for a in (cdf, grid, truth))
    if table.shape != (true.size, points.size) or true.ndim != 1 or np.any(np.diff(points) <= 0):
        raise ValueError(
            "Expected a cdf of shape (galaxy, grid) on an increasing grid; got cdf "
            f"{table.shape}, grid {points.shape}, truth {true.shape}. Sort the grid and put one "
            "galaxy in a row."
        )
    right = np.clip(np.searchsorted(points, true), 1, points.size - 1)
    rows = np.arange(true.size)
    share = (true - points[right - 1]) / (points[right] - points[right - 1])
    low, high = table[rows, right - 1], table[rows, right]
    pit = np.asarray(low + np.clip(share, 0.0, 1.0) * (high - low))
    pit = np.where(true < points[0], 0.0, np.where(true > points[-1], 1.0, pit))
    return np.where(np.isnan(true), np.nan, pit)


def ks_limit(n: int, *, confidence: float = 0.99) -> float:
    """Exact quantile of the KS distance of `n` independent uniform values."""
    return float(stats.kstwo.ppf(confidence, n))


def pit_result(pit: ArrayLike, *, confidence: float = 0.99) -> PitResult:
    """KS distance of independent PIT values from the uniform law, with its exact null quantile.

    Args:
        pit: One PIT value a galaxy, any shape; NaN values are left out. Values must be
            independent: several pixels of one galaxy are not.
        confidence: Probability of the band of exact posteriors.

    Raises:
        ValueError: No finite value, or a value outside [0, 1].

    Example:
        >>> result = pit_result((np.arange(100) + 0.5) / 100)
        >>> round(result.distance, 3), result.passed
        (0.005, True)
    """
    values = finite_pit(pit)
    test = stats.kstest(values, "uniform")
    return PitResult(
        distance=float(test.statistic),
        limit=ks_limit(values.size, confidence=confidence),
        p_value=float(test.pvalue),
        n=int(values.size),
        confidence=confidence,
        edge_fraction=float(np.mean((values == 0) | (values == 1))),
    )


def finite_pit(pit: ArrayLike) -> FloatArray:
    """The PIT values that are not NaN, flattened, checked to lie in [0, 1].

    Raises:
        ValueError: No finite value, or a value outside [0, 1].
    """
    values = np.asarray(pit, dtype=np.float64).ravel()
    values = values[~np.isnan(values)]
    if values.size == 0 or values.min() < 0 or values.max() > 1:
        found = f"{values.min()} to {values.max()}" if values.size else "no finite value"
        raise ValueError(
            f"Expected PIT values in [0, 1]; got {found}. Compute them with pit_from_draws or "
            "pit_from_grid."
        )
    return values
