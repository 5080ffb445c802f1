"""Ranks of truths among draws (SBC), against simultaneous bands of their ECDF.

From draws to ranks, uniform on 0, ..., draws when the posterior is exact, and to a verdict on all
ranks at once: the band that the whole ECDF of exact posteriors stays in with a stated probability.
It sees the ends of the distribution, where posteriors of a wrong width show, better than the
Kolmogorov-Smirnov distance of `pit.py`.

Axes: draw (first axis of draws), galaxy, point (where the ECDF is looked at).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

if TYPE_CHECKING:
    import matplotlib.axes

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Points at which an ECDF is held against its band, or fewer with fewer draws.
_POINTS = 100

#: Numbers that are compared at a time: about what processors keep close at hand.
IN_CACHE = 50_000

#: In ln of its pointwise level, how far a band may be from the narrowest one.
_STEP = 1e-3

#: Where the sum over points is below this it is the p-value: 1 - P(inside) has no digits left.
_SMALL = 1e-10


@dataclass(frozen=True)
class RankResult:
    """Verdict on the uniformity of ranks."""

    name: str
    """Of what the ranks are."""
    points: FloatArray
    """Normalised ranks at which the ECDF is looked at, shape (point,)."""
    ecdf: FloatArray
    """Fraction of ranks below each point, shape (point,); the mean of exact ones is `points`."""
    lower: FloatArray
    """Lower edge of the simultaneous band, shape (point,)."""
    upper: FloatArray
    """Upper edge of the simultaneous band, shape (point,)."""
    p_value: float
    """Probability that exact posteriors leave their band as far; below 1e-10 an upper bound."""
    worst: float
    """The point where the ECDF is least likely."""
    n: int
    """Number of galaxies."""
    draws: int
    """Number of draws a galaxy."""
    confidence: float
    """Probability that the whole ECDF of exact posteriors lies in the band."""

    @property
    def passed(self) -> bool:
        """True when the whole ECDF is inside the band."""
        return self.p_value > 1 - self.confidence

    def to_dict(self) -> dict[str, Any]:
        """Every field and the verdict, ready for JSON."""
        fields = dict(vars(self))
        curves = {key: fields[key].tolist() for key in ("points", "ecdf", "lower", "upper")}
        return {**fields, **curves, "passed": self.passed}

    def plot(self, axes: "matplotlib.axes.Axes") -> None:
        """Draw the ECDF less the uniform law, and the band of exact posteriors."""
        axes.fill_between(
            self.points,
            self.lower - self.points,
            self.upper - self.points,
            color="0.85",
            label=f"exact, {self.confidence:.0%}",
        )
        axes.plot(self.points, self.ecdf - self.points, label=self.name)
        axes.set(xlabel="rank / (draws + 1)", ylabel="ECDF - uniform", xlim=(0, 1))


def sbc_ranks(draws: ArrayLike, truth: ArrayLike, *, generator: np.random.Generator) -> IntArray:
    """Number of draws below the truth; ties are broken at random.

    Args:
        draws: Posterior draws, shape (draw, *rest), any unit.
        truth: True values in the same unit, shape (*rest).
        generator: Breaks ties.

    Returns:
        Ranks from 0 to draws, shape (*rest).

    Raises:
        ValueError: The shapes disagree, there is no draw, or a value is NaN.

    References:
        Talts et al. 2018, "Validating Bayesian inference algorithms with simulation-based
        calibration", https://arxiv.org/abs/1804.06788, algorithm 1
    """
    values, true = np.asarray(draws), np.asarray(truth)
    if values.ndim != true.ndim + 1 or values.shape[1:] != true.shape or values.shape[0] == 0:
        raise ValueError(
            "Expected draws of shape (draw, *truth.shape) with at least one draw; got draws "
            f"{values.shape} and truth {true.shape}. Move the axis of draws to the front."
        )
    rows, flat = values.reshape(len(values), -1), true.reshape(-1)
    below, equal = np.empty((2, flat.size), dtype=np.int64)
    for start in range(0, flat.size, IN_CACHE):
        part = slice(start, start + IN_CACHE)
        below[part], equal[part] = counts_below(rows[:, part], *_beside(flat[part], rows.dtype))
    if missing := np.count_nonzero(below < 0):
        raise ValueError(
            f"Expected draws and truths without NaN; got {missing} truths with NaN in them or "
            "their draws. Leave these galaxies out."
        )
    ranks = below + generator.integers(0, equal, endpoint=True)
    return np.asarray(ranks.reshape(true.shape))


def counts_below(
    draws: Iterable[NDArray[Any]], least: NDArray[Any], most: NDArray[Any]
) -> tuple[IntArray, IntArray]:
    """Number of draws below `least`, and of those from there to `most`; -1 where one is NaN.

    Args:
        draws: One draw after the other, each of shape (galaxy,).
        least: Smallest number of the draws' type that is not below the truth, shape (galaxy,).
        most: Largest such number that is not above it, shape (galaxy,).
    """
    below, not_above = (np.zeros(least.shape, dtype=np.int64) for _ in range(2))
    missing = np.isnan(least)
    # Bytes are added several times faster than they are turned into integers: 255 at a time.
    bytes_below, bytes_not_above = (np.zeros(least.shape, dtype=np.uint8) for _ in range(2))
    flag = np.empty(least.shape, dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        for number, draw in enumerate(draws, 1):
            bytes_below += np.less(draw, least, out=flag).view(np.uint8)
            bytes_not_above += np.less_equal(draw, most, out=flag).view(np.uint8)
            if np.isnan(draw.sum()):  # one is NaN, or both infinities are there
                missing |= np.isnan(draw)
            if number % 255 == 0:
                _empty_into(below, bytes_below)
                _empty_into(not_above, bytes_not_above)
    _empty_into(below, bytes_below)
    _empty_into(not_above, bytes_not_above)
    equal = np.where(missing, 0, not_above - below)
    return np.where(missing, -1, below), equal


def _beside(truth: NDArray[Any], kind: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Smallest number of a floating type that is not below the truth, largest not above it.

    To compare numbers of one type is several times faster, and gives the same answer.
    """
    if kind.kind != "f" or kind == truth.dtype:
        return truth, truth
    with np.errstate(over="ignore"):
        near = truth.astype(kind)
    step = np.asarray(np.inf, dtype=kind)
    least = np.where(near < truth, np.nextafter(near, step), near)
    return least, np.where(near > truth, np.nextafter(near, -step), near)


def _empty_into(total: IntArray, counted: NDArray[np.uint8]) -> None:
    total += counted
    counted[:] = 0


def rank_result(
    ranks: ArrayLike, *, draws: int, name: str = "rank", confidence: float = 0.99
) -> RankResult:
    """Hold the ECDF of ranks against its simultaneous band under exact posteriors.

    At a point z = j / (draws + 1) the number of ranks below j is binomial. The band joins the
    central binomial intervals of one pointwise level, chosen so that the whole ECDF stays inside
    with probability `confidence`. That probability is exact, not simulated: increments of the
    ECDF are those of a Poisson process that is known to end at n.

    Args:
        ranks: One rank a galaxy from 0 to `draws`, shape (galaxy,); galaxies independent. For
            several quantities make one result each and correct for their number.
        draws: Number of draws a galaxy.
        name: Of what the ranks are.
        confidence: Probability of the band.

    Raises:
        ValueError: Not one-dimensional, fewer than two galaxies, or ranks outside 0, ..., draws.

    References:
        Säilynoja, Bürkner & Vehtari 2022, "Graphical test for discrete uniformity and its
        applications in goodness-of-fit evaluation and multiple sample comparison",
        https://arxiv.org/abs/2103.10522, equations 8 to 14
        Moscovich & Nadler 2017, "Fast calculation of boundary crossing probabilities for Poisson
        processes", https://arxiv.org/abs/1503.04363

    Example:
        >>> result = rank_result(np.arange(1000) % 100, draws=99)
        >>> result.passed, float(np.abs(result.ecdf - result.points).max())
        (True, 0.0)
    """
    counts = np.asarray(ranks)
    if counts.ndim != 1 or counts.size < 2 or not np.issubdtype(counts.dtype, np.integer):
        raise ValueError(
            "Expected integer ranks of at least two galaxies, shape (galaxy,); got "
            f"{counts.dtype} of shape {counts.shape}. Compute them with sbc_ranks."
        )
    if counts.min() < 0 or counts.max() > draws:
        raise ValueError(
            f"Expected ranks from 0 to {draws}; got {counts.min()} to {counts.max()}. Give the "
            "number of draws that the ranks were made with."
        )
    ends, n = _ends(draws), counts.size
    points = ends / (draws + 1)
    below = np.searchsorted(np.sort(counts), ends)
    tails = np.minimum(stats.binom.cdf(below, n, points), stats.binom.sf(below - 1, n, points))
    level = 2 * float(tails.min())
    p_value = points.size * level
    if p_value > _SMALL:
        p_value = 1 - _probability_inside(n, points, *_interval(n, points, level))
    lower, upper = _band(n, draws, confidence)
    return RankResult(
        name=name,
        points=points,
        ecdf=below / n,
        lower=lower / n,
        upper=upper / n,
        p_value=p_value,
        worst=float(points[tails.argmin()]),
        n=n,
        draws=draws,
        confidence=confidence,
    )


def _ends(draws: int) -> IntArray:
    """Ranks below which the ECDF is looked at, the lowest and the highest among them."""
    return np.unique(np.linspace(1, draws, min(draws, _POINTS)).round().astype(np.int64))


@lru_cache(maxsize=64)
def _band(n: int, draws: int, confidence: float) -> tuple[IntArray, IntArray]:
    """Counts between which the whole ECDF stays with probability `confidence` or a bit more."""
    points, aim = _ends(draws) / (draws + 1), float(np.log(1 - confidence))

    def outside(log_level: float) -> float:
        """ln of the probability to leave the band of a pointwise level; nearly linear."""
        edges = _interval(n, points, float(np.exp(log_level)))
        return float(np.log(max(1 - _probability_inside(n, points, *edges), 1e-300)))

    # Bonferroni's pointwise level is safe; that of a single point is too wide.
    low, high = aim - float(np.log(points.size)), aim
    at_low, at_high = outside(low), outside(high)
    while high - low > _STEP and at_high > at_low:
        share = float(np.clip((aim - at_low) / (at_high - at_low), 0.03, 0.97))
        middle = low + share * (high - low)
        at_middle = outside(middle)
        if at_middle <= aim:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle
    return _interval(n, points, float(np.exp(low)))


def _interval(n: int, points: FloatArray, level: float) -> tuple[IntArray, IntArray]:
    """Smallest and largest count whose two-sided binomial tail probability exceeds `level`."""
    # A count exactly at the level is outside, whatever the rounding.
    tail = level / 2 * (1 + 1e-9)
    lower = stats.binom.ppf(tail, n, points)
    upper = n - stats.binom.ppf(tail, n, 1 - points)
    return lower.astype(np.int64), upper.astype(np.int64)


def _probability_inside(n: int, points: FloatArray, lower: IntArray, upper: IntArray) -> float:
    """Probability that the counts below all points lie between the edges, both included."""
    if np.any(lower > upper):
        return 0.0
    log_factorial = special.gammaln(np.arange(n + 1) + 1.0)
    means = n * np.diff(points, prepend=0.0, append=1.0)
    # The last count is n, after which nothing is left.
    edges = zip([*lower.tolist(), n], [*upper.tolist(), n], means.tolist(), strict=True)
    chance, low, high = np.ones(1), 0, 0
    for least, most, mean in edges:
        # chance[c] is over counts low..high; an increment runs from least - high to most - low.
        steps = np.arange(least - high, most - low + 1)
        log_chance = steps * np.log(mean) - mean - log_factorial[np.maximum(steps, 0)]
        step_chance = np.where(steps < 0, 0.0, np.exp(np.minimum(log_chance, 0.0)))
        chance = np.convolve(chance, step_chance, "valid")
        low, high = least, most
    total = n * np.log(n) - n - log_factorial[n]
    return float(chance[0] / np.exp(total))
