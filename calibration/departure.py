"""By how much posteriors are wrong: shifted by so many sigma, so many per cent too wide.

From PIT values of one quantity a galaxy, or of many dependent pixels, to the shift and the width
error that would explain them, each with its interval, and to one test of both. `conditional.py`
makes it bin by bin; `power.py` says what it could have seen.

Axes: galaxy, pixel, moment.
"""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from probmmae.calibration.pit import finite_pit
from probmmae.calibration.scores import Score

if TYPE_CHECKING:
    import matplotlib.axes

FloatArray = NDArray[np.float64]

#: Moments in the test: location, spread, skew and tails.
MOMENTS = 4

#: With PIT = Phi(t + d), d E[PIT - 1/2] / dd at 0 is the integral of phi^2, 1 / (2 sqrt(pi)).
_SHIFT = 2 * np.sqrt(np.pi)

#: With PIT = Phi(t / r), d E[(PIT - 1/2)^2] / d ln r at r = 1 is -1 / (2 pi sqrt(3)).
_WIDTH = -2 * np.pi * np.sqrt(3)


@dataclass(frozen=True)
class Departure:
    """By how much posteriors are off, as if they were Gaussian and off by little."""

    shift: Score
    """Truth less posterior mean, in posterior standard deviations."""
    width: Score
    """Posterior standard deviation over the right one, less 1: -0.1 is 10 % too narrow."""
    p_value: float
    """Probability of moments at least as far from uniform when the posteriors are exact."""
    n: int
    """Number of galaxies."""
    confidence: float
    """Probability with which exact posteriors pass, and of the intervals."""

    @property
    def passed(self) -> bool:
        """True when the moments are compatible with exact posteriors."""
        return self.p_value > 1 - self.confidence

    def to_dict(self) -> dict[str, Any]:
        """Every field and the verdict, ready for JSON."""
        return {**asdict(self), "passed": self.passed}

    def plot(self, axes: "matplotlib.axes.Axes") -> None:
        """Draw the shift and the width error with their intervals."""
        scores = (self.shift, self.width)
        values = np.array([score.value for score in scores])
        reach = np.array([[s.value - s.low, s.high - s.value] for s in scores]).T
        axes.errorbar(values, [1, 0], xerr=reach, fmt="o", color="C0", capsize=3)
        axes.axvline(0.0, color="0.5", linewidth=0.8)
        axes.set_yticks([1, 0], [score.name for score in scores])
        axes.set(xlabel=f"departure, {self.confidence:.0%} interval", ylim=(-0.5, 1.5))


def departure(pit: ArrayLike, *, confidence: float = 0.99) -> Departure:
    """Shift and width error of posteriors, with Neyman's smooth test of order four.

    The moments of the test are the means of the first four normalised Legendre polynomials of
    2 PIT - 1: location, spread, skew and tails. With one PIT value a galaxy their covariance is
    known, and n times their sum of squares has four degrees of freedom. Pixels of one galaxy
    depend on each other; there the sum over the pixels of a galaxy is one observation, and
    location and spread have a t-test each, the smaller p-value doubled. (With an estimated
    covariance of all four, 50 galaxies would raise five times as many alarms as stated.)

    Args:
        pit: PIT values, shape (galaxy,) or (galaxy, pixel); NaN is left out. Galaxies are
            independent, pixels need not be.
        confidence: Probability with which exact posteriors pass, and of the intervals.

    Raises:
        ValueError: Values outside [0, 1], of another shape, or of fewer than 20 galaxies.

    References:
        Neyman 1937, "'Smooth test' for goodness of fit",
        https://doi.org/10.1080/03461238.1937.10404821
    """
    values = np.asarray(pit, dtype=np.float64)
    if values.ndim not in (1, 2):
        raise ValueError(
            f"Expected PIT values of shape (galaxy,) or (galaxy, pixel); got {values.shape}. Put "
            "a galaxy in each row."
        )
    finite_pit(values)
    many = values.ndim == 2
    table = values if many else values[:, None]
    table = table[~np.isnan(table).all(axis=1)]
    n = len(table)
    if n < 20:
        raise ValueError(f"Expected PIT values of at least 20 galaxies; got {n}. Widen the bin.")
    known = ~np.isnan(table)
    offset = np.where(known, table - 0.5, 0.0)
    spread = np.where(known, offset**2 - 1 / 12, 0.0)
    number = known.sum(axis=1)
    log_width = _mean("width error", _WIDTH * spread, number, confidence)
    return Departure(
        shift=_mean("shift, sigma", _SHIFT * offset, number, confidence),
        width=replace(
            log_width,
            value=float(np.expm1(log_width.value)),
            low=float(np.expm1(log_width.low)),
            high=float(np.expm1(log_width.high)),
        ),
        p_value=_clustered_test(offset, spread) if many else _smooth_test(offset[:, 0]),
        n=n,
        confidence=confidence,
    )


def _mean(name: str, terms: FloatArray, number: NDArray[np.int64], confidence: float) -> Score:
    """Mean of terms, shape (galaxy, pixel), with an interval that counts galaxies."""
    n, total = len(terms), number.sum()
    mean = float(terms.sum() / total)
    residual = terms.sum(axis=1) - mean * number
    error = float(np.sqrt(np.sum(residual**2) * n / (n - 1)) / total)
    reach = float(special.ndtri(0.5 + confidence / 2)) * error
    return Score(name, mean, mean - reach, mean + reach, n, confidence)


def _smooth_test(offset: FloatArray) -> float:
    """P-value of four moments of PIT - 1/2, shape (galaxy,)."""
    moments = legendre(2 * offset).mean(axis=1)
    return float(stats.chi2.sf(offset.size * np.sum(moments**2), MOMENTS))


def _clustered_test(offset: FloatArray, spread: FloatArray) -> float:
    """P-value of the mean offset and spread of dependent pixels, shape (galaxy, pixel)."""
    sums = np.stack([offset.sum(axis=1), spread.sum(axis=1)])
    return float(min(1.0, 2 * stats.ttest_1samp(sums, 0.0, axis=1).pvalue.min()))


def legendre(argument: FloatArray) -> FloatArray:
    """Legendre polynomials of orders 1 to 4, of mean 0 and variance 1 for a uniform PIT.

    Args:
        argument: 2 PIT - 1, any shape.

    Returns:
        Shape (moment, *argument.shape).
    """
    order = np.arange(1, MOMENTS + 1).reshape(-1, *[1] * argument.ndim)
    return np.asarray(np.sqrt(2 * order + 1) * special.eval_legendre(order, argument))
