"""Conformal bands for whole spectra and intervals for their line fluxes.

From draws of spectra, or of what is measured in them, and the truths of held-out galaxies to sets
with the guarantee of `conformal.py`: a band that holds every pixel of a galaxy's spectrum at once,
and an interval for each line.

Axes: draw, galaxy, pixel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probmmae.calibration.conformal import Threshold, fit_threshold
from probmmae.calibration.conformal_intervals import Interval, cqr_interval, cqr_scores

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LineIntervals:
    """A threshold for each line, on the quantiles of its draws."""

    level: float
    """Guaranteed probability of each interval."""
    thresholds: Mapping[str, Threshold]
    """By line, in units of the width of the draws' interval."""

    def apply(self, draws: Mapping[str, ArrayLike]) -> dict[str, Interval]:
        """Intervals of lines.

        Args:
            draws: By line, any unit of flux, shape (draw, galaxy). A galaxy with NaN in a draw has
                a NaN interval.

        Raises:
            ValueError: A line that the fit had not, or draws without two axes.
        """
        intervals = {}
        for line, values in draws.items():
            if line not in self.thresholds:
                raise ValueError(
                    f"Expected lines among {sorted(self.thresholds)}; got {line!r}. Fit it first."
                )
            low, high = _quantiles(line, values, self.level)
            known = np.isfinite(low) & (high > low)
            lower, upper = low.copy(), high.copy()
            found = cqr_interval(
                low[known],
                high[known],
                self.thresholds[line].at(),
                scale=high[known] - low[known],
            )
            lower[known], upper[known] = found.lower, found.upper
            intervals[line] = Interval(lower, upper)
        return intervals

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        lines = {line: threshold.to_dict() for line, threshold in self.thresholds.items()}
        return {"level": self.level, "thresholds": lines}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The thresholds that `to_dict` stored."""
        lines = stored["thresholds"].items()
        return cls(
            float(stored["level"]), {line: Threshold.from_dict(value) for line, value in lines}
        )


def fit_line_intervals(
    draws: Mapping[str, ArrayLike], truth: Mapping[str, ArrayLike], *, level: float
) -> LineIntervals:
    """Conformalise the central intervals of the draws of each line.

    Fluxes span orders of magnitude, so the score is in units of the interval's width.

    Args:
        draws: By line, any unit of flux, shape (draw, galaxy).
        truth: By line, in the same unit, shape (galaxy,). A galaxy with NaN in truth or draws, or
            without spread, is left out.
        level: Probability to guarantee for each line, in (0, 1).

    Raises:
        ValueError: Lines or shapes that disagree, a level outside (0, 1), or fewer than level /
            (1 - level) galaxies with a line.
    """
    if set(draws) != set(truth) or not draws:
        raise ValueError(
            f"Expected the same lines in draws and truth; got {sorted(draws)} and "
            f"{sorted(truth)}. Give both of every line."
        )
    thresholds = {}
    for line, values in draws.items():
        low, high = _quantiles(line, values, level)
        true = np.asarray(truth[line], dtype=np.float64)
        if true.shape != low.shape:
            raise ValueError(
                f"Expected truths of {line!r} of shape {low.shape}; got {true.shape}. Give one a "
                "galaxy."
            )
        known = np.isfinite(low) & np.isfinite(true) & (high > low)
        if not known.any():
            raise ValueError(
                f"Expected galaxies with {line!r}; got none. Leave the line out of the fit."
            )
        low, high = low[known], high[known]
        scores = cqr_scores(low, high, true[known], scale=high - low)
        thresholds[line] = fit_threshold(scores, level=level)
    return LineIntervals(float(level), thresholds)


def band_scores(draws: ArrayLike, truth: ArrayLike) -> FloatArray:
    """The largest |truth - mean| / standard deviation over the pixels of each galaxy.

    `fit_threshold` of these gives the reach of `simultaneous_band`.

    Args:
        draws: Any flux unit, shape (draw, galaxy, pixel), at least two draws.
        truth: In the same unit, shape (galaxy, pixel). Pixels that are NaN in truth or draws, or
            without spread, are left out; every galaxy needs one.

    Returns:
        Shape (galaxy,).

    Raises:
        ValueError: The shapes disagree, or a galaxy has no pixel.

    References:
        Diquigiovanni, Fontana & Vantini 2022, "Conformal prediction bands for multivariate
        functional data" (the score, modulated by the standard deviation),
        https://arxiv.org/abs/2106.01792
    """
    centre, spread = _moments(draws)
    true = np.asarray(truth, dtype=np.float64)
    if true.shape != centre.shape:
        raise ValueError(
            f"Expected a truth of shape (galaxy, pixel) = {centre.shape}; got {true.shape}. Put "
            "the truth on the grid of the draws."
        )
    known = np.isfinite(true) & np.isfinite(centre) & (spread > 0)
    if not known.any(axis=1).all():
        raise ValueError(
            "Expected a finite pixel with some spread in every galaxy; got "
            f"{int((~known.any(axis=1)).sum())} galaxies without. Leave them out."
        )
    ratio = np.abs(true - centre) / np.where(known, spread, 1.0)
    return np.asarray(np.where(known, ratio, -np.inf).max(axis=1))


def simultaneous_band(draws: ArrayLike, threshold: ArrayLike | float) -> Interval:
    """The band mean -+ threshold * standard deviation, which holds all pixels at once.

    Args:
        draws: Any flux unit, shape (draw, galaxy, pixel), at least two draws.
        threshold: For `band_scores`, shape () or (galaxy,).

    Returns:
        Ends of shape (galaxy, pixel) in the unit of the draws; NaN where a draw is.

    Raises:
        ValueError: Draws without three axes, or thresholds of another shape.
    """
    centre, spread = _moments(draws)
    reach = np.asarray(threshold, dtype=np.float64)
    if reach.shape not in ((), centre.shape[:1]) or np.isnan(reach).any():
        raise ValueError(
            f"Expected one threshold, or one a galaxy, shape {centre.shape[:1]}; got "
            f"{reach.shape} with {int(np.isnan(reach).sum())} NaN. Take it from fit_threshold."
        )
    half = reach[..., None] * spread
    return Interval(centre - half, centre + half)


def _moments(draws: ArrayLike) -> tuple[FloatArray, FloatArray]:
    values = np.asarray(draws, dtype=np.float64)
    if values.ndim != 3 or values.shape[0] < 2:
        raise ValueError(
            "Expected draws of shape (draw, galaxy, pixel) with at least two draws; got "
            f"{values.shape}. Move the axis of draws to the front."
        )
    return values.mean(axis=0), values.std(axis=0, ddof=1)


def _quantiles(line: str, draws: ArrayLike, level: float) -> FloatArray:
    """Lower and upper ends of the draws' central interval, shape (2, galaxy)."""
    values = np.asarray(draws, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < 2:
        raise ValueError(
            f"Expected draws of {line!r} of shape (draw, galaxy) with at least two draws; got "
            f"{values.shape}. Move the axis of draws to the front."
        )
    if not 0 < level < 1:
        raise ValueError(
            f"Expected a level between 0 and 1; got {level}. A percentage is divided by 100."
        )
    return np.quantile(values, [0.5 - level / 2, 0.5 + level / 2], axis=0)
