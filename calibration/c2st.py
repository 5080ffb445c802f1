"""Classifier two-sample test: can a classifier tell the truth from a draw?

From draws of vectors, truths and the inputs of the model to the share of galaxies in which a
classifier, shown the truth and one draw, knows which is which: one half when the posterior is
exact. It is shown the inputs too, so it is a local test: posteriors that are wrong in opposite
senses for different inputs do not average out.

Axes: draw, galaxy, quantity, component (of the quantities), feature, flip.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probmmae.calibration.coverage import jeffreys_interval
from probmmae.calibration.random_features import cross_fitted, random_features, standardised
from probmmae.calibration.samples import vector_samples
from probmmae.calibration.scores import Score

if TYPE_CHECKING:
    import matplotlib.axes

FloatArray = NDArray[np.float64]

#: Principal components of the quantities that the classifier sees.
_COMPONENTS = 8


@dataclass(frozen=True)
class ClassifierTest:
    """Whether a truth can be told from a draw of its posterior."""

    accuracy: Score
    """Share of galaxies whose truth was recognised; the area under the ROC curve. 1/2 if exact."""
    statistic: float
    """Mean margin by which truths were recognised, galaxies judged by others."""
    null: FloatArray
    """The statistic with truth and draw exchanged at random, shape (flip,)."""
    margins: FloatArray
    """Margin of each galaxy, shape (galaxy,), to be looked at by bins: mean 0 if exact."""
    confidence: float
    """Probability with which exact posteriors pass."""

    @property
    def p_value(self) -> float:
        """Probability of a statistic at least this large when the posteriors are exact."""
        return float((1 + np.sum(self.null >= self.statistic)) / (1 + self.null.size))

    @property
    def passed(self) -> bool:
        """True when truths look like draws."""
        return self.p_value > 1 - self.confidence

    def to_dict(self) -> dict[str, Any]:
        """Accuracy, statistic and verdict, ready for JSON; not the per-galaxy values."""
        return {
            "accuracy": self.accuracy.to_dict(),
            "statistic": self.statistic,
            "p_value": self.p_value,
            "flips": self.null.size,
            "confidence": self.confidence,
            "passed": self.passed,
        }

    def plot(self, axes: "matplotlib.axes.Axes") -> None:
        """Draw the statistic against its null distribution."""
        axes.hist(self.null, bins=30, color="0.7", label="truth and draw exchanged")
        axes.axvline(self.statistic, color="C3", label="observed")
        axes.set(xlabel="mean margin", ylabel="flips")


def classifier_test(
    draws: ArrayLike,
    truth: ArrayLike,
    *,
    generator: np.random.Generator,
    inputs: ArrayLike | None = None,
    flips: int = 299,
    confidence: float = 0.99,
) -> ClassifierTest:
    """Train a classifier to tell the truth from the first draw, cross-fitted over galaxies.

    Both are standardised by the mean and spread of the other draws, and projected on the leading
    principal components of the two together; then come their squares and products and smooth
    random features of components and inputs, and a least-squares discriminant on the difference of
    truth and draw. Exchanging truth and draw in some galaxies changes signs only, so the null
    distribution is that of the whole procedure, exact for any classifier, for one matrix product.

    Args:
        draws: Independent posterior draws, shape (draw, galaxy, quantity) or (draw, galaxy).
        truth: True values in the same unit, shape (galaxy, quantity) or (galaxy,).
        generator: Source of features, folds and flips.
        inputs: What the model saw of each galaxy, shape (galaxy, input), any units; NaN is a value
            that was not observed. Without them the test is global.
        flips: Of the null distribution; p-values are multiples of 1 / (flips + 1).
        confidence: Probability with which exact posteriors pass, and of the interval.

    Raises:
        ValueError: The shapes disagree, a value is NaN, draws do not vary, there are fewer than
            ten draws or 100 galaxies, or too few flips for the confidence.

    References:
        Lopez-Paz & Oquab 2017, "Revisiting classifier two-sample tests",
        https://arxiv.org/abs/1610.06545
        Linhart, Gramfort & Rodrigues 2023, "L-C2ST: local diagnostics for posterior approximations
        in simulation-based inference", https://arxiv.org/abs/2306.03580
    """
    values, true = vector_samples(draws, truth, fewest_draws=10, fewest_galaxies=100)
    n = len(true)
    if (flips + 1) * (1 - confidence) < 1 - 1e-9:
        raise ValueError(
            f"Expected flips for a p-value of {1 - confidence:.3g}; got {flips}. Raise `flips`."
        )
    context = np.zeros((n, 0)) if inputs is None else standardised(inputs)
    if len(context) != n:
        raise ValueError(
            f"Expected inputs of {n} galaxies; got {len(context)}. Give one row a galaxy."
        )
    pair = _components(*_standardise(values, true))
    # Both members of a galaxy see the same random features.
    both = np.concatenate([pair, np.concatenate([context, context])], axis=1)
    first, second = np.triu_indices(pair.shape[1])
    squares = pair[:, first] * pair[:, second]
    waves = random_features(both, generator=generator)
    features = np.concatenate([squares / np.sqrt(first.size), waves], axis=1)
    difference = features[:n] - features[n:]
    signs = np.where(generator.uniform(size=(n, flips + 1)) < 0.5, -1.0, 1.0)
    signs[:, 0] = 1.0
    margins = signs * cross_fitted(difference, signs, generator=generator)
    known = int(np.sum(margins[:, 0] > 0))
    low, high = jeffreys_interval(known, n, confidence=confidence)
    return ClassifierTest(
        accuracy=Score("truths recognised", known / n, low, high, n, confidence),
        statistic=float(margins[:, 0].mean()),
        null=margins[:, 1:].mean(axis=0),
        margins=margins[:, 0],
        confidence=confidence,
    )


def _standardise(draws: NDArray[Any], truth: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Truth and first draw in units of the other draws' spread, each (galaxy, quantity)."""
    total, square = np.zeros_like(truth), np.zeros_like(truth)
    origin = np.asarray(draws[1], dtype=np.float64)
    for draw in draws[1:]:
        step = draw - origin
        total += step
        square += step**2
    number = len(draws) - 1
    mean = total / number
    spread = np.sqrt(np.maximum(square / number - mean**2, 0.0))
    if np.isnan(truth).any() or np.isnan(draws[0]).any() or not np.all(spread > 0):
        raise ValueError(
            "Expected draws and truths without NaN, and draws that vary in every quantity; got "
            f"{np.sum(~(spread > 0))} quantities without spread and {np.isnan(truth).sum()} "
            "missing truths. Leave these galaxies or quantities out."
        )
    return (truth - origin - mean) / spread, (draws[0] - origin - mean) / spread


def _components(truth: FloatArray, draw: FloatArray) -> FloatArray:
    """Leading components of truths, then of draws, scaled to variance 1, (2 galaxy, component)."""
    both = np.concatenate([truth, draw])
    # Outliers must not choose the directions.
    both = np.clip(both, -10, 10)
    values, vectors = np.linalg.eigh(both.T @ both / len(both))
    first = max(len(values) - _COMPONENTS, int(np.sum(values < 1e-9 * values[-1])))
    return np.asarray(both @ vectors[:, first:] / np.sqrt(values[first:]))
