"""Conformal thresholds: coverage that is guaranteed for any sample size and any posterior.

From a score of each calibration galaxy (how far its truth lies from what was predicted, see
`conformal_intervals.py`) to a threshold that the score of a new galaxy stays below with at least
the stated probability, from which an interval is made.

The guarantee needs only that calibration and new galaxies are exchangeable: overall, within each
group (Mondrian), or after weighting by the ratio of their densities (covariate shift, see
`covariate_shift.py`). It is marginal: it says nothing of galaxies of one kind unless that kind is
a group.

Axes: galaxy.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """What the score of a new galaxy stays below with probability `level` or more."""

    level: float
    """Guaranteed probability."""
    groups: tuple[str, ...]
    """Names of the groups; ("all",) without groups."""
    values: tuple[float, ...]
    """Threshold of each group, in the unit of the scores."""
    galaxies: tuple[int, ...]
    """Number of calibration galaxies of each group."""

    def at(self, groups: ArrayLike | None = None) -> FloatArray:
        """The threshold of each galaxy.

        Args:
            groups: A label a galaxy, shape (galaxy,); None if none were used in the fit.

        Returns:
            Shape (galaxy,), or () without groups.

        Raises:
            ValueError: Labels given or lacking against the fit, or a group it has not seen.
        """
        if (groups is None) != (self.groups == ("all",)):
            raise ValueError(
                f"Expected labels among the groups of the fit, {list(self.groups)}; got "
                f"{'none' if groups is None else 'labels'}. Give labels exactly if the fit had "
                "them."
            )
        if groups is None:
            return np.asarray(self.values[0])
        labels = np.asarray(groups).astype(str)
        unknown = sorted(set(labels.ravel()) - set(self.groups))
        if unknown:
            raise ValueError(
                f"Expected labels among the groups of the fit, {list(self.groups)}; got "
                f"{unknown}. Without calibration galaxies a group has no guarantee."
            )
        return np.asarray(self.values)[np.searchsorted(self.groups, labels)]

    def coverage_range(self, confidence: float = 0.95) -> tuple[tuple[float, float], ...]:
        """Where the coverage of new galaxies lies, given this calibration sample, by group.

        Over calibration samples of n galaxies with distinct scores the coverage that a threshold
        reaches is distributed as Beta(k, n + 1 - k), k = ceil(level (n + 1)).

        Args:
            confidence: Probability of the range.

        References:
            Vovk 2012, "Conditional validity of inductive conformal predictors", proposition 2a,
            https://arxiv.org/abs/1209.2673
        """
        tail = (1 - confidence) / 2
        ranges = []
        for n in self.galaxies:
            rank = _rank(self.level, n)
            low, high = stats.beta.ppf([tail, 1 - tail], rank, n + 1 - rank)
            ranges.append((float(low), float(high)))
        return tuple(ranges)

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        return {
            "level": self.level,
            "groups": list(self.groups),
            "values": list(self.values),
            "galaxies": list(self.galaxies),
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The threshold that `to_dict` stored."""
        return cls(
            float(stored["level"]),
            tuple(stored["groups"]),
            tuple(stored["values"]),
            tuple(stored["galaxies"]),
        )


def fit_threshold(
    scores: ArrayLike, *, level: float, groups: ArrayLike | None = None
) -> Threshold:
    """The ceil(level (n + 1))-th smallest score, overall or of each group.

    A new galaxy's score is at most this with probability between `level` and, if scores have no
    ties, `level` + 1 / (n + 1).

    Args:
        scores: Scores of calibration galaxies that nothing was trained on, shape (galaxy,).
        level: Probability to guarantee, in (0, 1).
        groups: A label a galaxy, shape (galaxy,), for a guarantee within each group, or None. The
            label may depend on what was observed, not on the truth.

    Raises:
        ValueError: Scores that are not finite, labels of another shape, a level outside (0, 1), or
            a group of fewer than level / (1 - level) galaxies, for which no finite threshold has
            the guarantee.

    References:
        Lei et al. 2018, "Distribution-free predictive inference for regression", theorem 2.2,
        https://arxiv.org/abs/1604.04173; Vovk et al. 2005, "Algorithmic learning in a random
        world", section 4.5 (Mondrian), https://doi.org/10.1007/b106715

    Example:
        >>> fit_threshold(np.arange(1, 100), level=0.9).values
        (90.0,)
    """
    values = _finite_scores(scores)
    _check_level(level)
    labels = np.full(values.shape, "all") if groups is None else np.asarray(groups).astype(str)
    if labels.shape != values.shape:
        raise ValueError(
            f"Expected one group label a score, shape {values.shape}; got {labels.shape}. Give "
            "every galaxy a label."
        )
    names = sorted(set(labels.tolist()))
    thresholds, numbers = [], []
    for name in names:
        chosen = np.sort(values[labels == name])
        rank = _rank(level, chosen.size)
        if rank > chosen.size:
            raise ValueError(
                f"Expected at least {_least(level)} calibration galaxies in each group for level "
                f"{level}; got {chosen.size} in {name!r}. Merge small groups or lower the level."
            )
        thresholds.append(float(chosen[rank - 1]))
        numbers.append(int(chosen.size))
    return Threshold(float(level), tuple(names), tuple(thresholds), tuple(numbers))


def weighted_thresholds(
    scores: ArrayLike, weights: ArrayLike, target_weights: ArrayLike, *, level: float
) -> FloatArray:
    """A threshold for each target galaxy when its covariates follow another law.

    With w the ratio of target to calibration density (`covariate_shift.py`), the threshold of a
    target galaxy is the `level` quantile of the law that puts probability w_i / (sum_j w_j + w) on
    score i and the rest at infinity. Where w is too large for the calibration sample to answer,
    the threshold is infinite: no finite interval has the guarantee there.

    Args:
        scores: Scores of calibration galaxies, shape (calibration,).
        weights: Their density ratios, up to a common factor, shape (calibration,).
        target_weights: Ratios of the target galaxies, with the same factor, shape (galaxy,).
        level: Probability to guarantee over target galaxies, in (0, 1).

    Returns:
        Thresholds, shape (galaxy,), in the unit of the scores; may be inf.

    Raises:
        ValueError: Scores or weights that are not finite, negative weights, no positive
            calibration weight, shapes that disagree, or a level outside (0, 1).

    References:
        Tibshirani et al. 2019, "Conformal prediction under covariate shift", equation 7 and
        corollary 1, https://arxiv.org/abs/1904.06019
    """
    values = _finite_scores(scores)
    _check_level(level)
    own, target = np.asarray(weights, np.float64), np.asarray(target_weights, np.float64)
    if own.shape != values.shape or target.ndim != 1:
        raise ValueError(
            f"Expected a weight a score, shape {values.shape}, and target weights (galaxy,); got "
            f"{own.shape} and {target.shape}. Give every galaxy a weight."
        )
    both = np.concatenate([own, target])
    if not np.isfinite(both).all() or both.min() < 0 or own.sum() == 0:
        raise ValueError(
            f"Expected finite weights >= 0, some of them positive; got {_span(both)} with "
            f"calibration sum {own.sum()}. Restrict targets to where calibration galaxies lie."
        )
    order = np.argsort(values, kind="stable")
    cumulative = own[order].cumsum()
    needed = level * (cumulative[-1] + target) * (1 - 1e-12)
    return np.append(values[order], np.inf)[np.searchsorted(cumulative, needed)]


def _rank(level: float, n: int) -> int:
    # 0.7 * 10 must not become 8 by rounding.
    return int(np.ceil(level * (n + 1) - 1e-9))


def _least(level: float) -> int:
    return int(np.ceil(level / (1 - level) - 1e-9))


def _span(values: FloatArray) -> str:
    return f"{values.min()} to {values.max()}" if values.size else "nothing"


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(
            f"Expected a level between 0 and 1; got {level}. A percentage is divided by 100."
        )


def _finite_scores(scores: ArrayLike) -> FloatArray:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            f"Expected finite scores of shape (galaxy,); got shape {values.shape} with "
            f"{int(np.sum(~np.isfinite(values)))} not finite. Leave out galaxies without a truth."
        )
    return values
