"""Probability integral transforms: where the truth falls in its posterior.

From draws, or CDF values, to PIT values in [0, 1] (uniform and independent when the posterior is
exact) and to the Kolmogorov-Smirnov verdict on them, with the Cramér-von Mises and the
Anderson-Darling one beside it. `coverage.py` counts intervals from the same values.

Axes: draw (first axis of every array of draws), galaxy, and any axes after it.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import integrate, special, stats

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


@dataclass(frozen=True)
class PitDistance:
    """A distance of PIT values from the uniform law, other than the Kolmogorov-Smirnov one."""

    name: str
    """Which distance."""
    value: float
    """The distance."""
    p_value: float
    """Probability of a distance at least this large when the posteriors are exact."""
    n: int
    """Number of truths."""
    confidence: float
    """Probability with which exact posteriors pass."""

    @property
    def passed(self) -> bool:
        """True when the distance is compatible with exact posteriors."""
        return self.p_value > 1 - self.confidence

    def to_dict(self) -> dict[str, str | float | int | bool]:
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


def cvm_distance(pit: ArrayLike, *, confidence: float = 0.99) -> PitDistance:
    """Cramér-von Mises distance, n times the mean squared departure of the ECDF.

    Args:
        pit: One PIT value a galaxy, any shape, galaxies independent; NaN values are left out.
        confidence: Probability with which exact posteriors pass.

    Raises:
        ValueError: Fewer than two finite values, or a value outside [0, 1].

    References:
        Csörgő & Faraway 1996, "The exact and asymptotic distributions of Cramér-von Mises
        statistics", https://doi.org/10.1111/j.2517-6161.1996.tb02077.x
    """
    values = _several(pit)
    test = stats.cramervonmises(values, "uniform")
    name, size = "Cramér-von Mises", int(values.size)
    return PitDistance(name, float(test.statistic), float(test.pvalue), size, confidence)


def ad_distance(pit: ArrayLike, *, confidence: float = 0.99) -> PitDistance:
    """Anderson-Darling distance, which weighs the ends of [0, 1] up.

    The p-value is that of many galaxies; at ten it is off by less than 0.002. Values of exactly 0
    or 1 have an infinite distance; they count as 1e-300 from the end, with a p-value of 0.

    Args:
        pit: One PIT value a galaxy, any shape, galaxies independent; NaN values are left out.
        confidence: Probability with which exact posteriors pass.

    Raises:
        ValueError: Fewer than two finite values, or a value outside [0, 1].

    References:
        Anderson & Darling 1954, "A test of goodness of fit",
        https://doi.org/10.1080/01621459.1954.10501232
    """
    values = np.sort(_several(pit))
    odd = 2.0 * np.arange(1, values.size + 1) - 1
    below = np.log(np.maximum(values, 1e-300))
    above = np.log(np.maximum(1 - values[::-1], 1e-300))
    distance = float(-values.size - np.mean(odd * (below + above)))
    outside = values[0] == 0 or values[-1] == 1
    p_value = 0.0 if outside else _anderson_darling_tail(distance)
    return PitDistance("Anderson-Darling", distance, p_value, int(values.size), confidence)


def _anderson_darling_tail(distance: float) -> float:
    """Probability that the limiting distance exceeds `distance` (Anderson & Darling 1952)."""
    if distance > 50:
        return 0.0
    total = 0.0
    for j in range(20):
        step = (4 * j + 1) ** 2 * np.pi**2 / (8 * distance)
        area, _ = integrate.quad(
            lambda w, step=step: np.exp(distance / (8 * (w * w + 1)) - step * (1 + w * w)),
            0,
            np.inf,
        )
        total += special.binom(-0.5, j) * (4 * j + 1) * area
    return float(np.clip(1 - np.sqrt(2 * np.pi) / distance * total, 0.0, 1.0))


def _several(pit: ArrayLike) -> FloatArray:
    values = finite_pit(pit)
    if values.size < 2:
        raise ValueError("Expected at least two PIT values; got one. Use more galaxies.")
    return values


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
