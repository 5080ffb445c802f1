"""Bias of the mean redshift in tomographic bins, as cosmology needs it.

From posterior mean redshifts, truths and the bins that galaxies were put in to
(<z_predicted> - <z_true>) / (1 + <z_true>) a bin, against the requirement of a survey and against
what exact posteriors show. Bins must be made from predictions, never from truths.

Axes: galaxy, bin.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from probmmae.calibration.multiple_tests import holm
from probmmae.calibration.scores import Score, mean_score

if TYPE_CHECKING:
    import matplotlib.axes

#: Requirement on sources of weak lensing after one year of LSST (ten years: 0.001).
DESC_YEAR_1 = 0.002


@dataclass(frozen=True)
class TomographicBin:
    """Mean redshift of one bin."""

    low: float
    """Lower edge of the bin, in point redshift."""
    high: float
    """Upper edge of the bin, in point redshift."""
    mean_true: float
    """Mean true redshift."""
    bias: Score
    """Mean of predicted less true redshift, over 1 + mean true redshift."""
    p_value: float
    """Probability of such a bias when the posteriors are exact (Student's t)."""
    adjusted: float
    """The p-value that holds for all bins together (Holm)."""

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        return {**vars(self), "bias": self.bias.to_dict()}


@dataclass(frozen=True)
class Tomography:
    """Mean redshifts of all bins."""

    bins: tuple[TomographicBin, ...]
    """In order of redshift; empty bins are missing."""
    requirement: float
    """Largest absolute bias allowed."""
    confidence: float
    """Probability with which all bins of exact posteriors pass, and of the intervals."""

    @property
    def passed(self) -> bool:
        """True when every bias is compatible with zero, all bins taken together."""
        return min(part.adjusted for part in self.bins) > 1 - self.confidence

    @property
    def met(self) -> bool:
        """True when the interval of every bin lies within the requirement."""
        return all(
            -self.requirement <= part.bias.low and part.bias.high <= self.requirement
            for part in self.bins
        )

    def to_dict(self) -> dict[str, Any]:
        """Every bin and both verdicts, ready for JSON."""
        return {
            "bins": [part.to_dict() for part in self.bins],
            "requirement": self.requirement,
            "confidence": self.confidence,
            "passed": self.passed,
            "met": self.met,
        }

    def plot(self, axes: "matplotlib.axes.Axes") -> None:
        """Draw the bias of each bin with its interval, and the requirement as a band."""
        axes.axhspan(-self.requirement, self.requirement, color="0.85", label="requirement")
        for part in self.bins:
            ends = [part.bias.low, part.bias.high]
            axes.plot([part.mean_true] * 2, ends, color="C0")
            axes.plot(part.mean_true, part.bias.value, "o", color="C0", markersize=4)
        axes.axhline(0.0, color="0.5", linewidth=0.8)
        axes.set(xlabel="mean true redshift", ylabel="bias of the mean / (1 + z)")


def tomography(
    mean: ArrayLike,
    truth: ArrayLike,
    *,
    point: ArrayLike,
    edges: ArrayLike,
    requirement: float = DESC_YEAR_1,
    confidence: float = 0.99,
) -> Tomography:
    """Bias of the mean redshift of each tomographic bin.

    The mean of posterior means is the mean of the summed densities. Under exact posteriors truth
    less posterior mean averages zero in any bin made from predictions, so the bias has a null.

    Args:
        mean: Posterior mean redshifts, shape (galaxy,).
        truth: True redshifts, shape (galaxy,).
        point: Point redshifts that choose the bin, shape (galaxy,): mode, median or mean.
        edges: Increasing edges of the bins, shape (bin + 1,); the highest edge is in no bin.
        requirement: Largest absolute bias allowed; DESC's for sources in the first year by
            default.
        confidence: Probability with which all bins of exact posteriors pass, and of the intervals.

    Raises:
        ValueError: The shapes disagree, a value is NaN, the edges do not increase, a bin has 1 to
            19 galaxies, or no bin has any.

    References:
        LSST Dark Energy Science Collaboration 2018, "Science requirements document",
        https://arxiv.org/abs/1809.01669, section 5.2
    """
    predicted, true, chosen, ends = (
        np.asarray(array, dtype=np.float64) for array in (mean, truth, point, edges)
    )
    if not predicted.shape == true.shape == chosen.shape or true.ndim != 1:
        raise ValueError(
            "Expected mean, truth and point of shape (galaxy,); got "
            f"{predicted.shape}, {true.shape} and {chosen.shape}. Give one redshift a galaxy."
        )
    if np.isnan([predicted, true, chosen]).any():
        raise ValueError("Expected redshifts without NaN; got NaN. Leave these galaxies out.")
    if ends.ndim != 1 or ends.size < 2 or np.any(np.diff(ends) <= 0):
        raise ValueError(f"Expected at least two increasing edges; got {ends}. Sort them.")
    index = np.searchsorted(ends, chosen, side="right") - 1
    found = []
    for number in range(ends.size - 1):
        inside = index == number
        if not inside.any():
            continue
        if inside.sum() < 20:
            raise ValueError(
                f"Expected at least 20 galaxies in a bin; got {inside.sum()} from "
                f"{ends[number]:g} to {ends[number + 1]:g}. Widen the bin."
            )
        centre = float(true[inside].mean())
        error = (predicted - true)[inside] / (1 + centre)
        p_value = float(stats.ttest_1samp(error, 0.0).pvalue)
        found.append((number, centre, error, p_value))
    if not found:
        raise ValueError("Expected galaxies in a bin; got none. Check edges and point redshifts.")
    adjusted = holm([p_value for *_, p_value in found]).tolist()
    bins = tuple(
        TomographicBin(
            low=float(ends[number]),
            high=float(ends[number + 1]),
            mean_true=centre,
            bias=mean_score("bias of the mean", error, confidence=confidence),
            p_value=p_value,
            adjusted=together,
        )
        for (number, centre, error, p_value), together in zip(found, adjusted, strict=True)
    )
    return Tomography(bins, requirement, confidence)
