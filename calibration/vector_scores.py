"""Energy and variogram scores of vectors: proper scores that see what pixels do together.

From draws of vectors to scores a galaxy, lower better, and to a verdict: a posterior says itself
what it expects to score, so the mean excess of the score over that expectation is zero when it is
exact, positive when it is too narrow or too rough, negative when it is too wide.

The energy score sees the location and the spread of the whole vector. The variogram score compares
differences between pairs of pixels: it sees wrong correlations, and neither a common shift nor
marginal scores that are right.

Axes: draw, galaxy, quantity (pixels, latents or features), pair (of quantities).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from probmmae.calibration.samples import BLOCK, blocks, vector_samples
from probmmae.calibration.scores import Score, mean_score

if TYPE_CHECKING:
    import matplotlib.axes

FloatArray = NDArray[np.float64]

#: Pairs a draw takes part in, as the first of two, when distances between draws are averaged.
_PARTNERS = 8


@dataclass(frozen=True)
class VectorScore:
    """A mean score of vectors, and whether it is what the posteriors themselves expect."""

    score: Score
    """Mean over galaxies."""
    excess: Score
    """Mean over galaxies of the score less what the posterior expects it to be."""
    p_value: float
    """Two-sided probability of such an excess when the posteriors are exact (Student's t)."""
    confidence: float
    """Probability with which exact posteriors pass."""
    scores: FloatArray
    """Score of every galaxy, shape (galaxy,), for paired comparisons."""
    excesses: FloatArray
    """Excess of every galaxy, shape (galaxy,)."""

    @property
    def passed(self) -> bool:
        """True when the mean excess is compatible with zero."""
        return self.p_value > 1 - self.confidence

    def to_dict(self) -> dict[str, Any]:
        """Means, intervals and the verdict, ready for JSON; not the per-galaxy values."""
        return {
            "score": self.score.to_dict(),
            "excess": self.excess.to_dict(),
            "p_value": self.p_value,
            "confidence": self.confidence,
            "passed": self.passed,
        }

    def plot(self, axes: "matplotlib.axes.Axes") -> None:
        """Draw the law of the excesses over galaxies, with the interval of their mean."""
        axes.hist(self.excesses, bins=50, histtype="step", color="C0", density=True)
        axes.axvspan(self.excess.low, self.excess.high, color="C0", alpha=0.3)
        axes.axvline(0.0, color="0.5", linewidth=0.8)
        axes.set(xlabel=f"{self.excess.name}, a galaxy", ylabel="density")


def energy_score(
    draws: ArrayLike, truth: ArrayLike, *, name: str = "energy score", confidence: float = 0.99
) -> VectorScore:
    """Energy score E|X - y| - E|X - X'| / 2, unbiased for any number of draws.

    Distances between draws are averaged over all pairs up to nine draws and over eight pairs a
    draw beyond, which stays unbiased and linear in the number of draws; draws that follow each
    other must be independent. The posterior expects E|X - X'| / 2, so the excess is
    E|X - y| - E|X - X'|.

    Args:
        draws: Posterior draws, shape (draw, galaxy, quantity) or (draw, galaxy), in units that
            make quantities comparable.
        truth: True values in the same units, shape (galaxy, quantity) or (galaxy,).
        name: What was predicted, with its unit.
        confidence: Probability with which exact posteriors pass.

    Raises:
        ValueError: The shapes disagree, a value is NaN, or there are fewer than two draws or 20
            galaxies.

    References:
        Gneiting & Raftery 2007, "Strictly proper scoring rules, prediction, and estimation",
        https://doi.org/10.1198/016214506000001437, equation 22
    """
    values, true = vector_samples(draws, truth, fewest_draws=2, fewest_galaxies=20)
    number = values.shape[0]
    if number <= _PARTNERS + 1:
        lags = np.arange(1, number)
    else:
        lags = np.unique(np.linspace(1, number // 2, _PARTNERS).round().astype(np.int64))
    to_truth, between = np.empty(len(true)), np.zeros(len(true))
    for part in blocks(values):
        block = np.asarray(values[:, part], dtype=np.float64)
        to_truth[part] = _lengths(block - true[part]).mean(axis=0)
        for lag in lags.tolist():
            # Draw i with draw i + lag, round the corner at the end.
            lengths = _lengths(block[lag:] - block[:-lag]).sum(axis=0)
            lengths += _lengths(block[:lag] - block[-lag:]).sum(axis=0)
            between[part] += lengths / (number * lags.size)
    return _result(name, to_truth - between / 2, to_truth - between, confidence)


def _lengths(vectors: FloatArray) -> FloatArray:
    """Euclidean lengths over the last axis."""
    return np.sqrt(np.einsum("sgq,sgq->sg", vectors, vectors))


def variogram_score(
    draws: ArrayLike,
    truth: ArrayLike,
    *,
    pairs: ArrayLike | None = None,
    name: str = "variogram score",
    confidence: float = 0.99,
) -> VectorScore:
    """Variogram score of order 1/2, mean over pairs of (|y_i - y_j|^p - E|X_i - X_j|^p)^2.

    The variance of the mean over draws is taken off, so the score is unbiased for any number of
    draws. The posterior expects Var|X_i - X_j|^p.

    Args:
        draws: Posterior draws, shape (draw, galaxy, quantity), in units that make quantities
            comparable.
        truth: True values in the same units, shape (galaxy, quantity).
        pairs: Indices of the quantities to compare, shape (pair, 2); by default those that are 1,
            2, 4, 8 ... steps apart along the axis of quantities.
        name: What was predicted, with its unit.
        confidence: Probability with which exact posteriors pass.

    Raises:
        ValueError: The shapes disagree, a value is NaN, a pair names a quantity that does not
            exist, or there are fewer than two draws, two quantities or 20 galaxies.

    References:
        Scheuerer & Hamill 2015, "Variogram-based proper scoring rules for probabilistic forecasts
        of multivariate quantities", https://doi.org/10.1175/MWR-D-14-00269.1, equation 5
    """
    values, true = vector_samples(draws, truth, fewest_draws=2, fewest_galaxies=20)
    number, _, quantities = values.shape
    chosen = _near_pairs(quantities) if pairs is None else _pairs(pairs, quantities)
    # One galaxy and so many pairs at a time that its draws of all of them fit in a block.
    parts = np.array_split(chosen.T, -(-number * len(chosen) // BLOCK), axis=1)
    score, excess = np.zeros(len(true)), np.zeros(len(true))
    for galaxy in range(len(true)):
        block = np.asarray(values[:, galaxy], dtype=np.float64)
        for first, second in parts:
            apart = np.sqrt(np.abs(block[:, first] - block[:, second]))
            seen = np.sqrt(np.abs(true[galaxy, first] - true[galaxy, second]))
            error = np.sum((seen - apart.mean(axis=0)) ** 2)
            variance = np.sum(apart.var(axis=0, ddof=1))
            score[galaxy] += (error - variance / number) / len(chosen)
            excess[galaxy] += (error - variance * (1 + 1 / number)) / len(chosen)
    return _result(name, score, excess, confidence)


def _near_pairs(quantities: int) -> NDArray[np.int64]:
    """Pairs of quantities 1, 2, 4, 8 ... steps apart, shape (pair, 2)."""
    steps = [2**power for power in range(quantities.bit_length()) if 2**power < quantities]
    first = [np.arange(quantities - step) for step in steps]
    if not first:
        raise ValueError(
            f"Expected at least two quantities; got {quantities}. Use the energy score."
        )
    second = [start + step for start, step in zip(first, steps, strict=True)]
    return np.stack([np.concatenate(first), np.concatenate(second)], axis=1)


def _pairs(pairs: ArrayLike, quantities: int) -> NDArray[np.int64]:
    index = np.asarray(pairs)
    good = index.ndim == 2 and index.shape[1] == 2 and np.issubdtype(index.dtype, np.integer)
    if not good or index.size == 0 or index.min() < 0 or index.max() >= quantities:
        raise ValueError(
            f"Expected pairs of indices below {quantities}, shape (pair, 2); got shape "
            f"{index.shape}, {index.dtype}. Number the quantities from 0."
        )
    return index.astype(np.int64)


def _result(name: str, scores: FloatArray, excesses: FloatArray, confidence: float) -> VectorScore:
    missing = np.isnan(scores)
    if missing.any():
        raise ValueError(
            f"Expected draws and truths without NaN; got {missing.sum()} galaxies with NaN. "
            "Leave these galaxies, or these quantities of all galaxies, out."
        )
    return VectorScore(
        score=mean_score(name, scores),
        excess=mean_score(f"{name} - expected", excesses),
        p_value=float(stats.ttest_1samp(excesses, 0.0).pvalue),
        confidence=confidence,
        scores=scores,
        excesses=excesses,
    )
