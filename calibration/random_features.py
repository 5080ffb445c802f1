"""Regression on random features, cross-fitted, for many responses at the cost of one.

What the learned tests share: a smooth function of any inputs, linear in its coefficients, so that
refitting it to a thousand permuted responses is one matrix product.

Axes: galaxy, input, feature, response.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

#: Cosines beside the linear terms.
_COSINES = 200

_FOLDS = 5

#: Ridge penalty per galaxy: what is looked for explains a per cent of the variance.
_PENALTY = 0.5


def standardised(inputs: ArrayLike) -> FloatArray:
    """Inputs of mean 0 and variance 1; each with NaN is filled and gets a column that says so.

    Args:
        inputs: Shape (galaxy, input), any units.

    Returns:
        Shape (galaxy, column); columns without variation are dropped.

    Raises:
        ValueError: Not two-dimensional, or nothing varies.
    """
    values = np.asarray(inputs, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(
            f"Expected inputs of shape (galaxy, input); got {values.shape}. Stack them as columns."
        )
    missing = np.isnan(values)
    number = np.maximum((~missing).sum(axis=0), 1)
    centre = np.where(missing, 0.0, values).sum(axis=0) / number
    filled = np.where(missing, centre, values)
    columns = np.concatenate([filled, missing], axis=1)
    columns = columns - columns.mean(axis=0)
    spread = columns.std(axis=0)
    varies = spread > 1e-12 * np.abs(np.concatenate([centre, np.ones_like(centre)]))
    if not varies.any():
        raise ValueError("Expected inputs that vary; got constants. Give other inputs.")
    return np.asarray(columns[:, varies] / spread[varies])


def random_features(columns: FloatArray, *, generator: np.random.Generator) -> FloatArray:
    """A constant, the columns, and cosines of random frequencies and phases.

    Args:
        columns: Standardised inputs, shape (galaxy, column).
        generator: Source of frequencies and phases.

    Returns:
        Shape (galaxy, feature).

    References:
        Rahimi & Recht 2007, "Random features for large-scale kernel machines"
    """
    width = columns.shape[1]
    frequencies = generator.normal(size=(width, _COSINES)) / np.sqrt(width)
    # Heavy tails: some cosines see fine structure, some coarse.
    frequencies *= np.sqrt(3 / generator.chisquare(3, size=_COSINES))
    phases = generator.uniform(0, 2 * np.pi, size=_COSINES)
    waves = np.cos(columns @ frequencies + phases) * np.sqrt(2 / _COSINES)
    return np.concatenate([np.ones((len(columns), 1)), columns / np.sqrt(width), waves], axis=1)


def cross_fitted(
    features: FloatArray, responses: FloatArray, *, generator: np.random.Generator
) -> FloatArray:
    """Ridge predictions of each galaxy from the other folds.

    Args:
        features: Shape (galaxy, feature).
        responses: Shape (galaxy, response).
        generator: Chooses the folds.

    Returns:
        Predictions, shape (galaxy, response).
    """
    fold = generator.permutation(len(features)) % _FOLDS
    predictions = np.empty_like(responses)
    for held in range(_FOLDS):
        rest, out = fold != held, fold == held
        known = features[rest]
        gram = known.T @ known + _PENALTY * len(known) / known.shape[1] * np.eye(known.shape[1])
        predictions[out] = features[out] @ np.linalg.solve(gram, known.T @ responses[rest])
    return predictions
