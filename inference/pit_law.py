"""The law of the PIT given what was observed, as it is kept and applied.

From covariates of any galaxy (magnitude, S/N, the posterior's own median and width, ...) to its
map G(u | x), the tilt of `pit_map.py` with coefficients that depend on the covariates,

    theta_k(x) = a_k + sum_m w_mk kernel(x, landmark_m).

`calibration/recalibrate_local.py` fits it and says why it has this form.

Axes: galaxy, covariate, landmark, term (k).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probmmae.inference.pit_map import PitMap
from probmmae.inference.stored import check_kind

FloatArray = NDArray[np.float64]


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
    worth: float
    """Cross-validated gain in log density over no map at all, nats a galaxy."""
    worth_error: float
    """Standard error of the worth."""

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
        values = columns_of({name: covariates[name] for name in self.names})
        scores = normal_scores(values, self.tables)
        kernel = kernel_of(scores, np.asarray(self.landmarks), self.length)
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
            "worth": self.worth,
            "worth_error": self.worth_error,
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
            worth=float(stored["worth"]),
            worth_error=float(stored["worth_error"]),
        )


def kernel_of(scores: FloatArray, landmarks: FloatArray, length: float) -> FloatArray:
    """Half the mean of a Gaussian kernel in each covariate, half one in all of them together."""
    alone = np.zeros((len(scores), len(landmarks)))
    together = np.zeros_like(alone)
    for column, centre in zip(scores.T, landmarks.T, strict=True):
        exponent = -0.5 * ((column[:, None] - centre) / length) ** 2
        alone += np.exp(exponent)
        together += exponent
    count = scores.shape[1]
    return np.asarray(0.5 * (alone / count + np.exp(together / count)))


def normal_scores(
    values: FloatArray, tables: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
) -> FloatArray:
    """Normal scores of covariates by their tables, shape (galaxy, covariate)."""
    columns = zip(values.T, tables, strict=True)
    return np.stack([np.interp(column, *table) for column, table in columns], axis=1)


def columns_of(covariates: Mapping[str, ArrayLike]) -> FloatArray:
    """Covariates side by side, shape (galaxy, covariate).

    Raises:
        ValueError: None at all, shapes that differ, or a value that is not finite.
    """
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
