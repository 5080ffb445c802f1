"""What a sample could have shown: the smallest miscalibration that its size detects.

From the number of galaxies to the coverage, the width error and the shift that the tests of
`coverage.py` and `departure.py` find with a stated probability. A pass means that nothing larger
than this is likely to be there, and no more.

Axes: size (numbers of galaxies), moment.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from probmmae.calibration.departure import MOMENTS, legendre

if TYPE_CHECKING:
    import matplotlib.axes

FloatArray = NDArray[np.float64]

#: Normal errors by their quantiles, over which moments are averaged.
_ERRORS = special.ndtri((np.arange(4000) + 0.5) / 4000)


@dataclass(frozen=True)
class Detectable:
    """The smallest miscalibrations that a sample finds; NaN where it finds none of any size."""

    n: int
    """Number of galaxies."""
    level: float
    """Nominal probability of the interval whose coverage is counted."""
    coverage_below: float
    """Highest coverage below `level` that the binomial test finds."""
    coverage_above: float
    """Lowest coverage above `level` that the binomial test finds."""
    narrow: float
    """Smallest width error of too narrow posteriors that the smooth test finds; negative."""
    wide: float
    """Smallest width error of too wide posteriors that the smooth test finds."""
    shift: float
    """Smallest shift that the smooth test finds, in posterior standard deviations."""
    power: float
    """Probability with which each is found."""
    confidence: float
    """Probability with which exact posteriors pass."""

    def to_dict(self) -> dict[str, float | int]:
        """Every field, ready for JSON."""
        return asdict(self)

    def plot(self, axes: "matplotlib.axes.Axes") -> None:
        """Draw the chance that the smooth test finds a width error, by its size."""
        widths = np.linspace(-0.4, 0.4, 81)
        chances = [smooth_power(self.n, width=w, confidence=self.confidence) for w in widths]
        axes.plot(widths, chances, color="C0", label=f"{self.n:,} galaxies")
        axes.axhline(self.power, color="0.5", linewidth=0.8)
        axes.set(xlabel="width error", ylabel="probability of detection", ylim=(0, 1))


def smooth_power(
    n: int, *, shift: float = 0.0, width: float = 0.0, confidence: float = 0.99
) -> float:
    """Probability that the smooth test of `departure.py` finds Gaussian posteriors wrong.

    Args:
        n: Number of galaxies.
        shift: Truth less posterior mean, in posterior standard deviations.
        width: Posterior standard deviation over the right one, less 1; above -1.
        confidence: Probability with which exact posteriors pass.

    Raises:
        ValueError: Fewer than 20 galaxies, or a width error of -1 or less.
    """
    if n < 20 or width <= -1:
        raise ValueError(
            f"Expected at least 20 galaxies and a width error above -1; got {n} and {width}. "
            "-0.1 means 10 % too narrow."
        )
    moments = legendre(2 * special.ndtr(_ERRORS / (1 + width) + shift) - 1)
    mean = moments.mean(axis=1)
    limit = stats.chi2.ppf(confidence, MOMENTS)
    # A quadratic form in normal moments: a chi-squared with its mean, variance and skewness.
    weights, axes = np.linalg.eigh(np.cov(moments))
    offset = n * (axes.T @ mean) ** 2
    first = float(np.sum(weights + offset))
    second = float(2 * np.sum(weights**2 + 2 * weights * offset))
    if second == 0:
        return float(first > limit)
    third = float(8 * np.sum(weights**3 + 3 * weights**2 * offset))
    degrees = 8 * second**3 / third**2
    standard = (limit - first) / np.sqrt(second)
    return float(stats.chi2.sf(degrees + standard * np.sqrt(2 * degrees), degrees))


def detectable(
    n: int, *, level: float = 0.9, power: float = 0.9, confidence: float = 0.99
) -> Detectable:
    """The smallest coverage error, width error and shift that a sample finds.

    Coverage is by the exact binomial test, two-sided with equal tails; width and shift are of
    Gaussian posteriors, by the smooth test with the three-moment law of its quadratic form.

    Args:
        n: Number of galaxies, at least 20.
        level: Nominal probability of the interval whose coverage is counted.
        power: Probability with which the miscalibration is to be found.
        confidence: Probability with which exact posteriors pass.

    Raises:
        ValueError: Fewer than 20 galaxies, or a probability outside (0, 1).

    References:
        Imhof 1961, "Computing the distribution of quadratic forms in normal variables",
        https://doi.org/10.1093/biomet/48.3-4.419, section 5 (Pearson's three-moment law)

    Example:
        >>> found = detectable(2000)
        >>> round(found.coverage_below, 3), round(found.narrow, 3), round(found.shift, 3)
        (0.873, -0.072, 0.102)
    """
    if n < 20 or not all(0 < chance < 1 for chance in (level, power, confidence)):
        raise ValueError(
            "Expected at least 20 galaxies and probabilities in (0, 1); got "
            f"{n}, level {level}, power {power}, confidence {confidence}. Take more galaxies."
        )
    tail = (1 - confidence) / 2
    # Counts outside [fewest, most] are alarms.
    fewest = int(stats.binom.ppf(tail, n, level))
    most = int(n - stats.binom.ppf(tail, n, 1 - level))
    # P(count < fewest) = power and P(count > most) = power, solved for the coverage.
    below = float(stats.beta.ppf(1 - power, fewest, n - fewest + 1)) if fewest > 0 else np.nan
    above = float(stats.beta.ppf(power, most + 1, n - most)) if most < n else np.nan
    return Detectable(
        n=n,
        level=level,
        coverage_below=below,
        coverage_above=above,
        narrow=-_smallest(lambda size: smooth_power(n, width=-size, confidence=confidence), power),
        wide=_smallest(lambda size: smooth_power(n, width=size, confidence=confidence), power),
        shift=_smallest(lambda size: smooth_power(n, shift=size, confidence=confidence), power),
        power=power,
        confidence=confidence,
    )


def _smallest(chance: Callable[[float], float], power: float) -> float:
    """The smallest size found with probability `power`; NaN if even 0.9 is not."""
    if chance(0.9) < power:
        return float("nan")
    return float(optimize.brentq(lambda size: chance(size) - power, 0.0, 0.9))
