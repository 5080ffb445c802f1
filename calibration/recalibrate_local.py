"""Local repair of densities: the law of the PIT given what was observed.

From PIT values and covariates of held-out galaxies (magnitude, S/N, the posterior's own median and
width, ...) to a map G(u | x) for any galaxy, applied as in `recalibrate.py`. It repairs what is
right on average and wrong for each kind of galaxy, which no global map can.

The law is the tilt of `pit_map.py` with coefficients that depend on the covariates,

    theta_k(x) = a_k + sum_m w_mk kernel(x, landmark_m),

so G is monotone and g a density whatever the weights; Cal-PIT regresses 1{PIT <= u} on (x, u) with
a network instead and must be told to be monotone. The penalised fit is convex: no network to seed,
stop early or average, and seconds for thousands of galaxies. The kernel acts on the normal scores
of the covariates, so their units do not matter and values outside the calibration sample count as
its extremes. The penalty and the length of the kernel are chosen by cross-validation, with "no
dependence on x" among the choices.

Axes: galaxy, covariate, landmark, term (k), knot.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, special

from probmmae.calibration.recalibrate import fit_global, minimise
from probmmae.inference.pit_law import (
    LocalRecalibration,
    columns_of,
    kernel_of,
    normal_scores,
)
from probmmae.inference.pit_map import basis_at, log_partition

FloatArray = NDArray[np.float64]

LOCAL_TERMS = 4
"""Shift, width, skewness and tails vary with the covariates."""
LEAST_GALAXIES = 300
"""Fewer galaxies than this are refused."""
_LANDMARKS = 80
_LENGTHS = (0.4, 1.5)
"""Candidate lengths of the kernel, in normal scores."""
_WIDTHS = (0.1, 0.3, 1.0)
"""Candidate prior widths of theta_k(x) - a_k."""
_FOLDS = 3
_SCORES = 65
"""Points of the table from a covariate to its normal score."""


@dataclass(frozen=True)
class _Choice:
    """A kernel length and prior width; width 0 is no dependence on x."""

    length: float
    width: float


def fit_local(
    pit: ArrayLike,
    covariates: Mapping[str, ArrayLike],
    *,
    generator: np.random.Generator,
    terms: int = LOCAL_TERMS,
) -> LocalRecalibration:
    """Learn the law of the PIT given covariates, from galaxies that nothing was trained on.

    Args:
        pit: PIT values of independent galaxies, shape (galaxy,); galaxies of NaN are left out.
        covariates: By name, shape (galaxy,) each, any unit. What they say must be known of every
            galaxy, observed or computed from the posterior; not the truth.
        generator: Source of landmarks and folds.
        terms: Of the tilt, six at most; many galaxies can tell finer shapes.

    Raises:
        ValueError: PIT values outside [0, 1], covariates that are not finite or of another shape,
            none at all, or fewer than 300 galaxies.

    References:
        Dey et al. 2022, "Calibrated predictive distributions via diagnostics for conditional
        coverage" (Cal-PIT; equations 4 and 5 recalibrate), https://arxiv.org/abs/2205.14568;
        Williams & Seeger 2001, "Using the Nyström method to speed up kernel machines" (landmarks),
        https://proceedings.neurips.cc/paper/2000/hash/19de10adbaa1b2ee13f77f679fa1483a
    """
    true, values = _checked(pit, covariates)
    tables = tuple(_table(column) for column in values.T)
    scores = normal_scores(values, tables)
    picks = generator.choice(len(true), size=min(_LANDMARKS, len(true) // 4), replace=False)
    landmarks = scores[np.sort(picks)]
    observed = basis_at(true)[:, :terms]
    folds = generator.permutation(len(true)) % _FOLDS
    level = max(fit_global(true).width, 1e-3)
    losses = _cross_validate(scores, observed, landmarks, folds, level)
    none = next(choice for choice in losses if choice.width == 0)
    best = min(losses, key=lambda choice: float(losses[choice].mean()))
    gains = losses[none] - losses[best]
    features, whitening = _features(scores, landmarks, best.length)
    intercept, slopes = _fit(features, observed, best.width, level)
    return LocalRecalibration(
        names=tuple(covariates),
        tables=tables,
        landmarks=tuple(tuple(row) for row in landmarks.tolist()),
        length=best.length,
        weights=tuple(tuple(row) for row in (whitening @ slopes).tolist()),
        intercept=tuple(intercept.tolist()),
        galaxies=len(true),
        gain=float(gains.mean()),
        gain_error=float(gains.std(ddof=1) / np.sqrt(len(true))),
        worth=-float(losses[best].mean()),  # no map has the density 1 everywhere
        worth_error=float(losses[best].std(ddof=1) / np.sqrt(len(true))),
    )


def _cross_validate(
    scores: FloatArray,
    observed: FloatArray,
    landmarks: FloatArray,
    folds: NDArray[np.int_],
    level: float,
) -> dict[_Choice, FloatArray]:
    """Held-out negative log density of each galaxy for each choice, nats, shape (galaxy,)."""
    choices = [_Choice(_LENGTHS[-1], 0.0)]
    choices += [_Choice(length, width) for length in _LENGTHS for width in _WIDTHS]
    losses = {}
    for choice in choices:
        features, _ = _features(scores, landmarks, choice.length)
        loss = np.empty(len(scores))
        for fold in range(_FOLDS):
            held = folds == fold
            intercept, slopes = _fit(features[~held], observed[~held], choice.width, level)
            theta = intercept + features[held] @ slopes
            loss[held] = log_partition(theta)[0] - np.sum(theta * observed[held], axis=1)
        losses[choice] = loss
    return losses


def _fit(
    features: FloatArray, observed: FloatArray, width: float, level: float
) -> tuple[FloatArray, FloatArray]:
    """Intercept (term,) and slopes (feature, term) of least penalised negative log-likelihood.

    Slopes of term k are normal of width `width` / k, the intercept of `level` / k. The fit works
    in coordinates where the Hessian at the identity map is nearly the unit matrix: h_k are
    orthonormal there, so it is the same for every term.
    """
    (galaxies, terms), count = observed.shape, features.shape[1] if width else 0
    design = np.concatenate([np.ones((galaxies, 1)), features[:, :count]], axis=1)
    ridge = np.concatenate([[1 / level**2], np.full(count, 1 / width**2 if width else 0.0)])
    degree = np.arange(1, terms + 1) ** 2
    factor = linalg.cholesky(design.T @ design + np.diag(ridge), lower=True)
    turn = linalg.solve_triangular(factor.T, np.eye(count + 1))
    turned, moments = design @ turn, design.T @ observed

    def loss(flat: FloatArray) -> tuple[float, FloatArray]:
        position = flat.reshape(count + 1, terms)
        slopes = turn @ position
        tilted, means = log_partition(turned @ position)
        prior = ridge[:, None] * degree * slopes
        value = tilted.sum() - np.sum(moments * slopes) + 0.5 * np.sum(prior * slopes)
        gradient = turned.T @ means + turn.T @ (prior - moments)
        return float(value), gradient.ravel()

    start = np.zeros((count + 1) * terms)
    found = turn @ minimise(loss, start).reshape(count + 1, terms)
    slopes = np.zeros((features.shape[1], terms))
    slopes[:count] = found[1:]
    return found[0], slopes


def _features(
    scores: FloatArray, landmarks: FloatArray, length: float
) -> tuple[FloatArray, FloatArray]:
    """Features whose inner products are the kernel at the landmarks; the matrix that made them."""
    own = kernel_of(landmarks, landmarks, length) + 1e-6 * np.eye(len(landmarks))
    whitening = linalg.solve_triangular(linalg.cholesky(own, lower=True).T, np.eye(len(own)))
    return kernel_of(scores, landmarks, length) @ whitening, whitening


def _table(column: FloatArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Values of a covariate at even ranks and their normal scores; tied values share a score."""
    levels = (np.arange(_SCORES) + 0.5) / _SCORES
    quantiles = np.quantile(column, levels, method="inverted_cdf")
    values, group = np.unique(quantiles, return_inverse=True)
    mean = np.bincount(group, weights=levels) / np.bincount(group)
    return tuple(values.tolist()), tuple(special.ndtri(mean).tolist())


def _checked(pit: ArrayLike, covariates: Mapping[str, ArrayLike]) -> tuple[FloatArray, FloatArray]:
    """PIT values and covariates (galaxy, covariate) of galaxies that have a PIT."""
    true = np.asarray(pit, dtype=np.float64)
    values = columns_of(covariates)
    if true.shape != values.shape[:1]:
        raise ValueError(
            f"Expected one PIT value a galaxy, shape {values.shape[:1]}; got {true.shape}. Give "
            "the covariates of the same galaxies."
        )
    known = ~np.isnan(true)
    true, values = true[known], values[known]
    if np.any((true < 0) | (true > 1)):
        raise ValueError(
            f"Expected PIT values in [0, 1]; got {true.min()} to {true.max()}. Compute them with "
            "pit_from_draws or pit_from_grid."
        )
    if len(true) < LEAST_GALAXIES:
        raise ValueError(
            f"Expected at least {LEAST_GALAXIES} galaxies with a PIT value; got {len(true)}. Hold "
            "out more, or use fit_global."
        )
    return true, values
