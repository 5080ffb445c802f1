"""Coverage of central intervals, with the uncertainty of every figure.

From PIT values (see `pit.py`) to the fraction of truths inside the central intervals of each
level, overall and by group. A truth lies inside the central interval of level L exactly when its
PIT value is within L / 2 of one half, so one array of PIT values answers for all levels; with
randomised ranks the nominal coverage is exact for any number of draws.

Axes: galaxy, pixel.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from probmmae.calibration.pit import finite_pit

LEVELS = (0.5, 0.68, 0.9, 0.95)


@dataclass(frozen=True)
class Coverage:
    """How often the truth fell inside the intervals of one level."""

    level: float
    """Nominal probability of the interval."""
    value: float
    """Fraction of truths inside."""
    low: float
    """Lower end of the credible interval of the true coverage."""
    high: float
    """Upper end of the credible interval of the true coverage."""
    n: int
    """Number of galaxies."""
    p_value: float
    """Two-sided probability of a departure at least this large when posteriors are exact."""
    group: str
    """Which galaxies; "all" for everything."""
    confidence: float
    """Probability of the interval (low, high)."""

    def to_dict(self) -> dict[str, float | int | str]:
        """Every field, ready for JSON."""
        return asdict(self)


def jeffreys_interval(inside: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Central credible interval of a proportion under the Jeffreys prior Beta(1/2, 1/2).

    References:
        Brown, Cai & DasGupta 2001, "Interval estimation for a binomial proportion",
        https://doi.org/10.1214/ss/1009213286
    """
    tail = (1 - confidence) / 2
    posterior = stats.beta(inside + 0.5, n - inside + 0.5)
    low = 0.0 if inside == 0 else float(posterior.ppf(tail))
    high = 1.0 if inside == n else float(posterior.ppf(1 - tail))
    return low, high


def coverage(
    pit: ArrayLike,
    *,
    levels: Sequence[float] = LEVELS,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
) -> tuple[Coverage, ...]:
    """Coverage of central intervals of independent posteriors.

    Args:
        pit: One PIT value a galaxy, shape (galaxy,); NaN values are left out.
        levels: Nominal probabilities.
        groups: A label a galaxy, shape (galaxy,), or None. Galaxies labelled "" or NaN are in no
            group.
        confidence: Probability of the credible interval around each figure.

    Returns:
        One result for each level over all galaxies, then one for each group and level.

    Raises:
        ValueError: PIT values outside [0, 1], or groups of another shape.

    Example:
        >>> exact = (np.arange(1000) + 0.5) / 1000
        >>> [round(result.value, 2) for result in coverage(exact, levels=(0.5, 0.9))]
        [0.5, 0.9]
    """
    values = np.asarray(pit, dtype=np.float64)
    results = [_count("all", finite_pit(values), level, confidence) for level in levels]
    if groups is not None:
        labels = _labels(groups, values.shape)
        for name in sorted(set(labels) - {"", "nan"}):
            chosen = values[labels == name]
            chosen = chosen[~np.isnan(chosen)]
            if chosen.size:
                results += [_count(name, chosen, level, confidence) for level in levels]
    return tuple(results)


def _labels(groups: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    labels = np.asarray(groups).astype(str)
    if labels.shape != shape:
        raise ValueError(
            f"Expected one group label a PIT value, shape {shape}; got {labels.shape}. Give every "
            "galaxy a label, '' for none."
        )
    return labels


def _count(group: str, pit: NDArray[np.float64], level: float, confidence: float) -> Coverage:
    inside = int(np.sum(np.abs(pit - 0.5) <= level / 2))
    low, high = jeffreys_interval(inside, pit.size, confidence=confidence)
    return Coverage(
        level=level,
        value=inside / pit.size,
        low=low,
        high=high,
        n=int(pit.size),
        p_value=float(stats.binomtest(inside, pit.size, level).pvalue),
        group=group,
        confidence=confidence,
    )


def clustered_coverage(
    pit: ArrayLike,
    *,
    levels: Sequence[float] = LEVELS,
    group: str = "all",
    confidence: float = 0.95,
) -> tuple[Coverage, ...]:
    """Coverage of many dependent values a galaxy, such as the pixels of its spectrum.

    The figure is the mean over all values; its interval counts galaxies, not pixels: the galaxy is
    the cluster of a sandwich variance, v = sum_g (inside_g - c m_g)^2 / (sum_g m_g)^2 with m_g
    values in galaxy g, and the interval is the Jeffreys interval at the effective number c (1 - c)
    / v.

    Args:
        pit: PIT values, shape (galaxy, pixel); NaN is left out.
        levels: Nominal probabilities.
        group: What the values are, for the result.
        confidence: Probability of the interval.

    Returns:
        One result a level; `n` is the number of galaxies that have any value.

    Raises:
        ValueError: PIT values outside [0, 1] or not two-dimensional.
    """
    values = np.asarray(pit, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(
            f"Expected PIT values of shape (galaxy, pixel); got {values.shape}. Put a galaxy in "
            "each row."
        )
    finite_pit(values)
    known = ~np.isnan(values)
    per_galaxy = known.sum(axis=1)
    galaxies = int((per_galaxy > 0).sum())
    results = []
    for level in levels:
        inside = (np.abs(np.where(known, values, 2.0) - 0.5) <= level / 2).sum(axis=1)
        total = per_galaxy.sum()
        value = float(inside.sum() / total)
        variance = float(np.sum((inside - value * per_galaxy) ** 2) / total**2)
        if galaxies > 1:
            variance *= galaxies / (galaxies - 1)
        # A degenerate sample (all in, all out) has no spread: count its galaxies.
        effective = value * (1 - value) / variance if variance > 0 else float(galaxies)
        tail = (1 - confidence) / 2
        beta = stats.beta(effective * value + 0.5, effective * (1 - value) + 0.5)
        null_error = np.sqrt(level * (1 - level) / effective)
        results.append(
            Coverage(
                level=level,
                value=value,
                low=float(beta.ppf(tail)),
                high=float(beta.ppf(1 - tail)),
                n=galaxies,
                p_value=float(2 * stats.norm.sf(abs(value - level) / null_error)),
                group=group,
                confidence=confidence,
            )
        )
    return tuple(results)


def interval_coverage(
    lower: ArrayLike,
    upper: ArrayLike,
    truth: ArrayLike,
    *,
    level: float,
    group: str = "all",
    confidence: float = 0.95,
) -> Coverage:
    """Coverage of intervals given by their ends (quantiles, conformal or any other).

    Args:
        lower: Lower ends, shape (galaxy,).
        upper: Upper ends, shape (galaxy,), in the same unit.
        truth: True values, shape (galaxy,), in the same unit; NaN is left out.
        level: Nominal probability of the intervals.
        group: Which galaxies, for the result.
        confidence: Probability of the credible interval around the figure.

    Raises:
        ValueError: The shapes disagree, or nothing is finite.
    """
    low, high, true = (np.asarray(a, dtype=np.float64) for a in (lower, upper, truth))
    if not low.shape == high.shape == true.shape:
        raise ValueError(
            f"Expected lower, upper and truth of one shape; got {low.shape}, {high.shape} and "
            f"{true.shape}. Give one interval a truth."
        )
    known = ~(np.isnan(low) | np.isnan(high) | np.isnan(true))
    if not known.any():
        raise ValueError("Expected at least one finite interval; got none. Check for NaN inputs.")
    inside = (true >= low) & (true <= high)
    # 0.5 lies inside every central interval and 0 outside: reuse the counting of PIT values.
    return _count(group, np.where(inside[known], 0.5, 0.0), level, confidence)


def thirds(values: ArrayLike, *, name: str) -> NDArray[Any]:
    """Labels "NAME low", "NAME middle", "NAME high" by terciles; "" where the value is NaN.

    Args:
        values: What to divide by, shape (galaxy,), any unit.
        name: First word of the labels.
    """
    numbers = np.asarray(values, dtype=np.float64)
    edges = np.nanquantile(numbers, [1 / 3, 2 / 3])
    third = np.searchsorted(edges, numbers)
    labels = np.array([f"{name} {word}" for word in ("low", "middle", "high", "")])[third]
    return np.where(np.isnan(numbers), "", labels)
