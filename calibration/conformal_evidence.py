"""What conformal intervals make of a posterior: how often they hold, and how wide they have to be.

From the answers of a job to conformal intervals of every number (`conformal_intervals.py`) and to
bands that hold a whole vector at once (`conformal_bands.py`), each beside what the posterior
claims by itself. Galaxies are halved at random and each half is given the threshold of the other:
no galaxy judges a threshold that it helped to set, and none has to be set aside.

Axes: draw, galaxy, quantity.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probmmae.calibration.answers import FEWEST_GALAXIES, Job, Scalar, Vectors
from probmmae.calibration.conformal import fit_threshold
from probmmae.calibration.conformal_bands import band_scores
from probmmae.calibration.conformal_intervals import cqr_scores
from probmmae.calibration.coverage import Coverage, interval_coverage
from probmmae.calibration.samples import blocks

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ConformalEvidence:
    """One quantity's intervals as the posterior gives them, and made conformal."""

    name: str
    """What was predicted."""
    whole: bool
    """True of bands that hold all quantities of a vector at once."""
    own: Coverage
    """Of the posterior's own intervals; of a vector, how often every single one holds."""
    conformal: Coverage
    """Of the conformal intervals, each galaxy judged by the threshold of others."""
    stretch: float
    """Width of the conformal intervals over that of the posterior's own."""

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        return asdict(self)


def conformal_evidence(
    job: Job, *, generator: np.random.Generator, level: float = 0.9
) -> tuple[ConformalEvidence, ...]:
    """Conformal intervals of every number of a job, and the band of its vectors.

    Args:
        job: The answers. A galaxy with NaN, or whose posterior has no width, is left out, and so
            is a quantity with fewer than 40 galaxies.
        generator: Halves the galaxies.
        level: Probability to guarantee.
    """
    found = [_of_number(one, generator, level) for one in job.scalars]
    if job.vectors is not None:
        found.append(_of_vectors(job.vectors, generator, level))
    return tuple(one for one in found if one is not None)


def _of_number(
    scalar: Scalar, generator: np.random.Generator, level: float
) -> ConformalEvidence | None:
    """The ends of the central interval, both moved by the same share of its width."""
    low, high = scalar.quantile(0.5 - level / 2), scalar.quantile(0.5 + level / 2)
    truth = scalar.truth
    known = np.isfinite(low) & np.isfinite(truth) & (high > low)
    if known.sum() < 2 * FEWEST_GALAXIES:
        return None
    low, high, truth = low[known], high[known], truth[known]
    scores = cqr_scores(low, high, truth, scale=high - low)
    reach = _other_half(scores, generator, level)
    return ConformalEvidence(
        scalar.name, False, _held(scores, np.zeros_like(reach), level),
        _held(scores, reach, level), float(np.mean(1 + 2 * reach)),
    )  # fmt: skip


def _of_vectors(
    vectors: Vectors, generator: np.random.Generator, level: float
) -> ConformalEvidence | None:
    """The mean of the draws with a reach of so many standard deviations, the same everywhere."""
    whole = vectors.whole()
    if whole.sum() < 2 * FEWEST_GALAXIES:
        return None
    chosen = vectors.take(whole)
    draws, truth = chosen.draws, chosen.truth
    scores, outside, own = (np.empty(len(truth)) for _ in range(3))
    for part in blocks(draws):
        some, true = draws[:, part], truth[part]
        scores[part] = band_scores(some, true)
        levels = [0.5 - level / 2, 0.5 + level / 2]
        low, high = np.quantile(some, levels, axis=0, method="weibull")
        outside[part] = ((true < low) | (true > high)).any(axis=1)
        own[part] = (high - low).mean(axis=1) / some.std(axis=0, ddof=1).mean(axis=1) / 2
    reach = _other_half(scores, generator, level)
    return ConformalEvidence(
        vectors.name, True, _held(outside, np.zeros_like(reach), level),
        _held(scores, reach, level), float(np.mean(reach / own)),
    )  # fmt: skip


def _other_half(scores: FloatArray, generator: np.random.Generator, level: float) -> FloatArray:
    """The threshold of each galaxy, from the half that it is not in."""
    first = np.zeros(scores.size, dtype=np.bool_)
    first[generator.permutation(scores.size)[: scores.size // 2]] = True
    of_first, of_second = (
        float(fit_threshold(scores[half], level=level).at()) for half in (first, ~first)
    )
    return np.where(first, of_second, of_first)


def _held(scores: FloatArray, reach: FloatArray, level: float) -> Coverage:
    """How often a score stays within its threshold."""
    return interval_coverage(np.full_like(scores, -np.inf), reach, scores, level=level)
