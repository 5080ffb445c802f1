"""Truths compared with draws left out of their own posterior's mean and spread.

A draw left out stands for a truth under an exact posterior, so the ratio of a quantile of the
truth's standardised deviations to that of the left-out draws' is 1 there, whatever the shape of
the posterior and the number of draws. From deviations, galaxy by galaxy, to that ratio at knots
(`recalibrate_spectra.py` says of what) in bounded memory.

Axes: draw, pixel, knot, value (pixel or rank), bin.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from probmmae.inference.stretch import positive_spread

FloatArray = NDArray[np.float64]

LEVEL = 0.9
"""The factors are right for central intervals of this level."""
LEFT_OUT = 6
"""Draws that stand for the truth."""
_EDGES = np.linspace(-12.0, 8.0, 2001)
"""Of the histogram of ln |deviation|."""
_PRIOR_WIDTH = 0.2
"""Of the log factor of a knot around that of all pixels."""
_KNOT_VARIANCE = 0.78
"""Variance of the log 90 % quantile of one |normal| value; over n galaxies it falls as 1 / n."""


@dataclass(frozen=True)
class Tally:
    """Histograms of ln |deviation| at each knot, the last of all values: truth, left-out draws."""

    counts: FloatArray
    """Shape (2, knot + 1, bin)."""
    galaxies: FloatArray
    """Effective number of galaxies at each knot, shape (knot + 1,)."""

    @classmethod
    def empty(cls, knots: int) -> Self:
        """Nothing counted yet."""
        return cls(np.zeros((2, knots + 1, len(_EDGES) + 1)), np.zeros(knots + 1))

    def add(
        self, deviations: FloatArray, corners: list[tuple[NDArray[np.int_], FloatArray]]
    ) -> None:
        """Add a galaxy: deviations (1 + left out, value), the truth's first; knots and shares."""
        values = deviations.shape[1]
        last = np.full(values, len(self.galaxies) - 1)
        where = np.stack([*(np.broadcast_to(knot, values) for knot, _ in corners), last])
        share = np.stack([*(np.broadcast_to(one, values) for _, one in corners), np.ones(values)])
        reached = np.zeros_like(self.galaxies)
        np.maximum.at(reached, where, share)
        self.galaxies[:] += reached
        bins = np.searchsorted(_EDGES, np.log(np.maximum(np.abs(deviations), 1e-300)))
        np.add.at(self.counts[0], (where, bins[0]), share)
        for one in bins[1:]:
            np.add.at(self.counts[1], (where, one), share)

    def log_scale(self) -> FloatArray:
        """ln of the ratio of quantiles at each knot, pulled to that of all values."""
        cumulative = self.counts.cumsum(axis=2)
        quantiles = [
            np.interp(LEVEL * row[-1], row[:-1], _EDGES)
            for row in cumulative.reshape(-1, cumulative.shape[2])
        ]
        truth, left_out = np.reshape(quantiles, cumulative.shape[:2])
        raw = truth - left_out
        galaxies = self.galaxies[:-1]
        trust = _PRIOR_WIDTH**2 / (_PRIOR_WIDTH**2 + _KNOT_VARIANCE / np.maximum(galaxies, 1e-9))
        return np.asarray(raw[-1] + trust * (raw[:-1] - raw[-1]))


def against_kept(draws: FloatArray, truth: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Truth and left-out draws, shape (1 + left out, pixel), and the kept draws.

    All of them less the mean of the kept draws and in units of their standard deviation.
    """
    kept = draws[LEFT_OUT:]
    centre = kept.mean(axis=0)
    spread = positive_spread(kept - centre)
    tested = np.concatenate([truth[None], draws[:LEFT_OUT]])
    return (tested - centre) / spread, (kept - centre) / spread


def usable(draws: FloatArray, truth: FloatArray) -> NDArray[np.bool_]:
    """Pixels that the truth and all draws have and where draws differ."""
    whole = np.isfinite(truth) & np.isfinite(draws).all(axis=0)
    return whole & (draws[LEFT_OUT:] != draws[-1]).any(axis=0)
