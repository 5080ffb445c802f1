"""TARP: coverage of vectors by balls around random points.

From draws of vectors to expected coverage without densities: the share of draws nearer to a random
reference point than the truth is uniform when the posterior is exact, whatever the references.
All directions are tested together; `ranks.py` gives the verdict.

Axes: draw, galaxy, quantity (pixels, latents or features), level.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probmmae.calibration.ranks import IN_CACHE, RankResult, counts_below, rank_result
from probmmae.calibration.samples import vector_samples

if TYPE_CHECKING:
    import matplotlib.axes

FloatArray = NDArray[np.float64]

#: Steps of the curve of coverage.
_LEVELS = 50


@dataclass(frozen=True)
class TarpResult:
    """Expected coverage of credible regions of vectors."""

    levels: FloatArray
    """Credibility levels, shape (level,)."""
    coverage: FloatArray
    """Expected coverage at each level, shape (level,); equal to `levels` when exact."""
    low: FloatArray
    """Lower edge of the bootstrap band around `coverage`, shape (level,)."""
    high: FloatArray
    """Upper edge of the bootstrap band around `coverage`, shape (level,)."""
    area: float
    """Mean of coverage less level above one half: negative when posteriors are too narrow."""
    area_error: float
    """Standard error of `area`, from the bootstrap."""
    ranks: RankResult
    """Verdict on the ranks of the truths' distances, with the exact band of their ECDF."""

    @property
    def passed(self) -> bool:
        """True when the coverage at all levels is that of exact posteriors."""
        return self.ranks.passed

    def to_dict(self) -> dict[str, Any]:
        """Every field and the verdict, ready for JSON."""
        fields = dict(vars(self))
        curves = {key: fields[key].tolist() for key in ("levels", "coverage", "low", "high")}
        return {**fields, **curves, "ranks": self.ranks.to_dict(), "passed": self.passed}

    def plot(self, axes: "matplotlib.axes.Axes") -> None:
        """Draw expected coverage against credibility with both bands."""
        exact = self.ranks
        axes.fill_between(exact.points, exact.lower, exact.upper, color="0.85", label="exact")
        axes.fill_between(self.levels, self.low, self.high, alpha=0.3, color="C0")
        axes.plot(self.levels, self.coverage, color="C0", label=exact.name)
        axes.plot([0, 1], [0, 1], color="0.5", linewidth=0.8)
        axes.set(xlabel="credibility level", ylabel="expected coverage", xlim=(0, 1), ylim=(0, 1))


def tarp_result(
    draws: ArrayLike,
    truth: ArrayLike,
    *,
    generator: np.random.Generator,
    references: ArrayLike | None = None,
    name: str = "TARP",
    resamples: int = 200,
    confidence: float = 0.99,
) -> TarpResult:
    """Expected coverage of vectors, with a bootstrap band and an exact verdict.

    Distances are Euclidean after each quantity is divided by its spread among the references.
    Where no references are given, that of a galaxy is a draw of another galaxy, which is then
    dropped from that galaxy's draws: the test stays exact. Memory beyond the arguments does not
    grow with the number of galaxies.

    A posterior that ignores the data passes when the references ignore them too; these references
    do. Shifts cancel, as references lie to all sides. Ranks by quantity see what is missed here.

    Args:
        draws: Posterior draws, shape (draw, galaxy, quantity) or (draw, galaxy), without NaN.
        truth: True values in the same unit, shape (galaxy, quantity) or (galaxy,).
        generator: Source of references, ties and the bootstrap.
        references: A point a galaxy in the same unit, shape of `truth`, chosen without the truth
            of that galaxy; draws of other galaxies by default.
        name: What was predicted.
        resamples: Bootstrap samples of galaxies.
        confidence: Probability of both bands: pointwise for the bootstrap, simultaneous for exact
            posteriors.

    Raises:
        ValueError: The shapes disagree, a value is NaN, or there are fewer than 20 galaxies or 10
            draws.

    References:
        Lemos et al. 2023, "Sampling-based accuracy testing of posterior estimators for general
        inference", https://arxiv.org/abs/2302.03026, algorithm 2
    """
    values, true = vector_samples(draws, truth, fewest_draws=10, fewest_galaxies=20)
    if references is None:
        circle = generator.permutation(true.shape[0])
        other = np.empty_like(circle)
        other[circle] = np.roll(circle, 1)
        points, values = np.asarray(values[0][other], dtype=np.float64), values[1:]
    else:
        points = np.asarray(references, dtype=np.float64).reshape(len(true), -1)
        if points.shape != true.shape:
            raise ValueError(
                f"Expected a reference for each truth, shape {true.shape}; got {points.shape}. "
                "Give one point a galaxy."
            )
    ranks = _distance_ranks(values, true, points, generator)
    number, n = values.shape[0], ranks.size
    levels = np.linspace(0, 1, _LEVELS + 1)
    # A bootstrap sample of galaxies is a multinomial sample of the steps of the curve.
    steps = np.histogram((ranks + 0.5) / (number + 1), levels)[0] / n
    curves = _cumulate(generator.multinomial(n, steps, size=resamples) / n)
    coverage = _cumulate(steps[None])[0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(curves, [tail, 1 - tail], axis=0)
    upper = levels > 0.5
    return TarpResult(
        levels=levels,
        coverage=coverage,
        low=low,
        high=high,
        area=float(np.mean((coverage - levels)[upper])),
        area_error=float(np.std(curves[:, upper].mean(axis=1), ddof=1)),
        ranks=rank_result(ranks, draws=number, name=name, confidence=confidence),
    )


def _cumulate(steps: FloatArray) -> FloatArray:
    """Curves that begin at 0, shape (sample, level), from their steps."""
    return np.pad(steps.cumsum(axis=1), ((0, 0), (1, 0)))


def _distance_ranks(
    draws: NDArray[Any], truth: FloatArray, points: FloatArray, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Number of draws nearer to the galaxy's point than the truth, shape (galaxy,)."""
    spread = points.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    # As exact as the draws: single precision is faster, where squares do not vanish or overflow.
    single = draws.dtype == np.float32 and spread.min() > 1e-12 and spread.max() < 1e12
    kind = np.float32 if single else np.float64
    places, truths, weights = (one.astype(kind) for one in (points, truth, 1 / spread**2))
    below, equal = np.empty((2, len(truth)), dtype=np.int64)
    step = max(1, IN_CACHE // points.shape[1])
    for start in range(0, len(truth), step):
        part = slice(start, start + step)
        to_truth = next(_distances(truths[None, part], places[part], weights))
        distances = _distances(draws[:, part], places[part], weights)
        below[part], equal[part] = counts_below(distances, to_truth, to_truth)
    if missing := np.count_nonzero(below < 0):
        raise ValueError(
            f"Expected draws, truths and references without NaN; got {missing} galaxies with "
            "NaN. Leave these galaxies out."
        )
    return np.asarray(below + generator.integers(0, equal, endpoint=True))


def _distances(
    draws: NDArray[Any], points: NDArray[Any], weights: NDArray[Any]
) -> Iterator[NDArray[Any]]:
    """Squared distance of each draw from the points, shape (galaxy,), in one piece of memory."""
    apart, distance = np.empty_like(points), np.empty_like(points[:, 0])
    for draw in draws:
        np.subtract(draw, points, out=apart)
        np.multiply(apart, apart, out=apart)
        yield np.dot(apart, weights, out=distance)
