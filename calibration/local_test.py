"""A learned local test: where, among the inputs, are posteriors wrong?

From PIT values and the inputs of the model to a regression of their location and spread on the
inputs. Exact posteriors leave nothing to learn. It finds failures that no bin of `conditional.py`
shows, such as those that need two inputs together.

Axes: galaxy, input, response (location and spread, of each permutation).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probmmae.calibration.coverage import Coverage, coverage
from probmmae.calibration.departure import legendre
from probmmae.calibration.pit import finite_pit
from probmmae.calibration.random_features import cross_fitted, random_features, standardised

if TYPE_CHECKING:
    import matplotlib.axes

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LocalTest:
    """Whether the PIT values of galaxies can be told from their inputs."""

    statistic: float
    """Mean product of predicted and observed moments, galaxies predicted from others."""
    null: FloatArray
    """The statistic with PIT values permuted over galaxies, shape (permutation,)."""
    narrowest: Coverage
    """Coverage of 90 % intervals of the tenth of galaxies predicted to have the narrowest."""
    widest: Coverage
    """Coverage of 90 % intervals of the tenth of galaxies predicted to have the widest."""
    predicted: FloatArray
    """Predicted normalised location and spread of the PIT, shape (galaxy, 2); 0 when exact."""
    confidence: float
    """Probability with which exact posteriors pass."""

    @property
    def p_value(self) -> float:
        """Probability of a statistic at least this large when nothing depends on the inputs."""
        return float((1 + np.sum(self.null >= self.statistic)) / (1 + self.null.size))

    @property
    def passed(self) -> bool:
        """True when nothing could be learned."""
        return self.p_value > 1 - self.confidence

    def to_dict(self) -> dict[str, Any]:
        """Statistic, verdict and coverages, ready for JSON; not the per-galaxy values."""
        return {
            "statistic": self.statistic,
            "p_value": self.p_value,
            "permutations": self.null.size,
            "narrowest": self.narrowest.to_dict(),
            "widest": self.widest.to_dict(),
            "confidence": self.confidence,
            "passed": self.passed,
        }

    def plot(self, axes: "matplotlib.axes.Axes") -> None:
        """Draw the statistic against its null distribution."""
        axes.hist(self.null, bins=30, color="0.7", label="permuted")
        axes.axvline(self.statistic, color="C3", label="observed")
        axes.set(xlabel="learned from the inputs", ylabel="permutations")


def local_test(
    pit: ArrayLike,
    inputs: ArrayLike,
    *,
    generator: np.random.Generator,
    permutations: int = 299,
    confidence: float = 0.99,
) -> LocalTest:
    """Regress location and spread of PIT values on the inputs, cross-fitted.

    The regression is ridge on random features: a permuted null costs a matrix product instead of
    hundreds of trainings. Permuting compares galaxies with each other, so an error that is the
    same for all is left to the tests of the whole sample.

    Args:
        pit: One PIT value a galaxy, shape (galaxy,), without NaN.
        inputs: What the model saw of each galaxy, shape (galaxy, input), any units; NaN is a
            value that was not observed. Magnitudes rather than fluxes: inputs are standardised.
        generator: Source of features, folds and permutations.
        permutations: Of the null distribution; p-values are multiples of 1 / (permutations + 1).
        confidence: Probability with which exact posteriors pass.

    Raises:
        ValueError: PIT values outside [0, 1] or NaN, inputs of other galaxies or constant, fewer
            than 100 galaxies, or too few permutations for the confidence.

    References:
        Zhao et al. 2021, "Diagnostics for conditional density models and Bayesian inference
        algorithms", https://arxiv.org/abs/2102.10473, algorithm 1
    """
    values, columns = np.asarray(pit, dtype=np.float64), standardised(inputs)
    n = values.size
    if values.shape != columns.shape[:1] or n < 100 or finite_pit(values).size < n:
        raise ValueError(
            "Expected PIT values of at least 100 galaxies, without NaN, and their inputs; got "
            f"shape {values.shape} and {len(columns)} rows of inputs. Leave out what is missing."
        )
    if (permutations + 1) * (1 - confidence) < 1 - 1e-9:
        raise ValueError(
            f"Expected permutations for a p-value of {1 - confidence:.3g}; got {permutations}. "
            "Raise `permutations`."
        )
    moments = legendre(2 * values - 1)[:2].T
    orders = [np.arange(n), *(generator.permutation(n) for _ in range(permutations))]
    responses = np.concatenate([moments[order] for order in orders], axis=1)
    responses -= responses.mean(axis=0)
    features = random_features(columns, generator=generator)
    predictions = cross_fitted(features, responses, generator=generator)
    products = np.mean(predictions * responses, axis=0).reshape(-1, 2).sum(axis=1)
    predicted = predictions[:, :2] + moments.mean(axis=0)
    by_spread = predicted[:, 1].argsort()
    tenth = n // 10
    wide, narrow = values[by_spread[:tenth]], values[by_spread[-tenth:]]
    return LocalTest(
        statistic=float(products[0]),
        null=products[1:],
        narrowest=coverage(narrow, levels=(0.9,))[0],
        widest=coverage(wide, levels=(0.9,))[0],
        predicted=predicted,
        confidence=confidence,
    )
