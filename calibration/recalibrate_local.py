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
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, special

from probmmae.calibration.pit_map import PitMap, basis_at, log_partition
from probmmae.calibration.recalibrate import check_kind, fit_global, minimise

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
class LocalRecalibration:
    """A map for each galaxy."""

    names: tuple[str, ...]
    """Covariates, in the order of the tables and the landmarks."""
    tables: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    """Values of each covariate, increasing, and their normal scores."""
    landmarks: tuple[tuple[float, ...], ...]
    """Normal scores, shape (landmark, covariate)."""
    length: float
    """Of the kernel, in normal scores."""
    weights: tuple[tuple[float, ...], ...]
    """w, shape (landmark, term); zero where cross-validation found no dependence."""
    intercept: tuple[float, ...]
    """a, shape (term,)."""
    galaxies: int
    """Number of galaxies it was fitted on."""
    gain: float
    """Cross-validated gain in log density over a global map of as many terms, nats a galaxy."""
    gain_error: float
    """Standard error of the gain."""

    def pit_map(self, covariates: Mapping[str, ArrayLike]) -> PitMap:
        """The maps of galaxies, one row each.

        Args:
            covariates: By name, shape (galaxy,) each, in the units of the fit; others than those
                of the fit are not used.

        Raises:
            ValueError: A covariate lacks, is not finite, or has another shape.
        """
        missing = sorted(set(self.names) - set(covariates))
        if missing:
            raise ValueError(
                f"Expected the covariates {list(self.names)}; got none called {missing}. Compute "
                "them as for the fit."
            )
        values = _stack({name: covariates[name] for name in self.names})
        scores = _normal_scores(values, self.tables)
        kernel = _kernel(scores, np.asarray(self.landmarks), self.length)
        return PitMap.tilted(np.asarray(self.intercept) + kernel @ np.asarray(self.weights))

    def to_dict(self) -> dict[str, Any]:
        """Every field and the kind of map, ready for JSON."""
        return {
            "kind": "local",
            "names": list(self.names),
            "tables": [[list(column) for column in table] for table in self.tables],
            "landmarks": [list(row) for row in self.landmarks],
            "length": self.length,
            "weights": [list(row) for row in self.weights],
            "intercept": list(self.intercept),
            "galaxies": self.galaxies,
            "gain": self.gain,
            "gain_error": self.gain_error,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The maps that `to_dict` stored.

        Raises:
            ValueError: Another kind of map.
        """
        check_kind(stored, "local")
        return cls(
            names=tuple(stored["names"]),
            tables=tuple((tuple(values), tuple(scores)) for values, scores in stored["tables"]),
            landmarks=tuple(tuple(row) for row in stored["landmarks"]),
            length=float(stored["length"]),
            weights=tuple(tuple(row) for row in stored["weights"]),
            intercept=tuple(stored["intercept"]),
            galaxies=int(stored["galaxies"]),
            gain=float(stored["gain"]),
            gain_error=float(stored["gain_error"]),
        )


@dataclass(frozen=True)
class _Choice:
    """A kernel length and prior width; width 0 is no dependence on x."""

    length: float
    width: float


def fit_local(
    pit: ArrayLike, covariates: Mapping[str, ArrayLike], *, generator: np.random.Generator
) -> LocalRecalibration:
    """Learn the law of the PIT given covariates, from galaxies that nothing was trained on.

    Args:
        pit: PIT values of independent galaxies, shape (galaxy,); galaxies of NaN are left out.
        covariates: By name, shape (galaxy,) each, any unit. What they say must be known of every
            galaxy, observed or computed from the posterior; not the truth.
        generator: Source of landmarks and folds.

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
    scores = _normal_scores(values, tables)
    picks = generator.choice(len(true), size=min(_LANDMARKS, len(true) // 4), replace=False)
    landmarks = scores[np.sort(picks)]
    observed = basis_at(true)[:, :LOCAL_TERMS]
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
    galaxies, count = len(features), features.shape[1] if width else 0
    design = np.concatenate([np.ones((galaxies, 1)), features[:, :count]], axis=1)
    ridge = np.concatenate([[1 / level**2], np.full(count, 1 / width**2 if width else 0.0)])
    degree = np.arange(1, LOCAL_TERMS + 1) ** 2
    factor = linalg.cholesky(design.T @ design + np.diag(ridge), lower=True)
    turn = linalg.solve_triangular(factor.T, np.eye(count + 1))
    turned, moments = design @ turn, design.T @ observed

    def loss(flat: FloatArray) -> tuple[float, FloatArray]:
        position = flat.reshape(count + 1, LOCAL_TERMS)
        slopes = turn @ position
        tilted, means = log_partition(turned @ position)
        prior = ridge[:, None] * degree * slopes
        value = tilted.sum() - np.sum(moments * slopes) + 0.5 * np.sum(prior * slopes)
        gradient = turned.T @ means + turn.T @ (prior - moments)
        return float(value), gradient.ravel()

    start = np.zeros((count + 1) * LOCAL_TERMS)
    found = turn @ minimise(loss, start).reshape(count + 1, LOCAL_TERMS)
    slopes = np.zeros((features.shape[1], LOCAL_TERMS))
    slopes[:count] = found[1:]
    return found[0], slopes


def _features(
    scores: FloatArray, landmarks: FloatArray, length: float
) -> tuple[FloatArray, FloatArray]:
    """Features whose inner products are the kernel at the landmarks; the matrix that made them."""
    own = _kernel(landmarks, landmarks, length) + 1e-6 * np.eye(len(landmarks))
    whitening = linalg.solve_triangular(linalg.cholesky(own, lower=True).T, np.eye(len(own)))
    return _kernel(scores, landmarks, length) @ whitening, whitening


def _kernel(scores: FloatArray, landmarks: FloatArray, length: float) -> FloatArray:
    """Half the mean of a Gaussian kernel in each covariate, half one in all of them together."""
    alone = np.zeros((len(scores), len(landmarks)))
    together = np.zeros_like(alone)
    for column, centre in zip(scores.T, landmarks.T, strict=True):
        exponent = -0.5 * ((column[:, None] - centre) / length) ** 2
        alone += np.exp(exponent)
        together += exponent
    count = scores.shape[1]
    return np.asarray(0.5 * (alone / count + np.exp(together / count)))


def _table(column: FloatArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Values of a covariate at even ranks and their normal scores; tied values share a score."""
    levels = (np.arange(_SCORES) + 0.5) / _SCORES
    quantiles = np.quantile(column, levels, method="inverted_cdf")
    values, group = np.unique(quantiles, return_inverse=True)
    mean = np.bincount(group, weights=levels) / np.bincount(group)
    return tuple(values.tolist()), tuple(special.ndtri(mean).tolist())


def _normal_scores(
    values: FloatArray, tables: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
) -> FloatArray:
    columns = zip(values.T, tables, strict=True)
    return np.stack([np.interp(column, *table) for column, table in columns], axis=1)


def _checked(pit: ArrayLike, covariates: Mapping[str, ArrayLike]) -> tuple[FloatArray, FloatArray]:
    """PIT values and covariates (galaxy, covariate) of galaxies that have a PIT."""
    true = np.asarray(pit, dtype=np.float64)
    values = _stack(covariates)
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


def _stack(covariates: Mapping[str, ArrayLike]) -> FloatArray:
    columns = {name: np.asarray(one, dtype=np.float64) for name, one in covariates.items()}
    shapes = {column.shape for column in columns.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(
            "Expected one covariate or more of one shape (galaxy,); got shapes "
            f"{ {name: column.shape for name, column in columns.items()} }. Give each a value a "
            "galaxy."
        )
    for name, column in columns.items():
        if not np.isfinite(column).all():
            raise ValueError(
                f"Expected a finite {name!r} for every galaxy; got "
                f"{int(np.sum(~np.isfinite(column)))} that are not. Fill what is missing with a "
                "constant and add a covariate that says so."
            )
    return np.stack(list(columns.values()), axis=1)
