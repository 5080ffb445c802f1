"""Proper scores of posteriors against truths.

Every per-galaxy score is an array, so that means, errors and paired comparisons are made by the
caller's choice of galaxies; `mean_score` and `ratio_of_means` give them their uncertainty. Lower
is better for every score here.

Axes: draw (first axis of draws), galaxy, component, grid.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

FloatArray = NDArray[np.float64]

#: Truths sorted at a time: a block stays in the cache.
_BLOCK = 4096


@dataclass(frozen=True)
class Score:
    """A statistic of a sample with its interval."""

    name: str
    """What it is."""
    value: float
    """The statistic."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """Number of galaxies."""
    confidence: float
    """Probability of the interval."""

    def to_dict(self) -> dict[str, float | int | str]:
        """Every field, ready for JSON."""
        return asdict(self)


def crps_draws(draws: ArrayLike, truth: ArrayLike) -> FloatArray:
    """Fair (unbiased) CRPS of draws, in the unit of the truth.

    CRPS = mean |x_i - y| - sum_(i<j) |x_i - x_j| / (S (S - 1)), the second term from the sorted
    draws in O(S log S); equal to the probability-weighted-moment estimator.

    Args:
        draws: Posterior draws, shape (draw, *rest), at least two.
        truth: True values, shape (*rest).

    Returns:
        CRPS, shape (*rest).

    Raises:
        ValueError: The shapes disagree or there are fewer than two draws.

    References:
        Zamo & Naveau 2018, "Estimation of the continuous ranked probability score with limited
        information", https://doi.org/10.1007/s11004-017-9709-7
    """
    values, true = np.asarray(draws), np.asarray(truth, dtype=np.float64)
    if values.ndim != true.ndim + 1 or values.shape[1:] != true.shape or values.shape[0] < 2:
        raise ValueError(
            "Expected draws of shape (draw, *truth.shape) with at least two draws; got draws "
            f"{values.shape} and truth {true.shape}. Move the axis of draws to the front."
        )
    number = values.shape[0]
    # sum_(i<j) (x_j - x_i) = sum_i (2 i - S - 1) x_(i); centred on the truth to keep digits.
    weights = (2.0 * np.arange(1, number + 1) - number - 1) / (number * (number - 1))
    columns, flat = values.reshape(number, -1), true.reshape(-1)
    crps = np.empty(flat.size)
    for start in range(0, flat.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        ordered = np.sort(np.ascontiguousarray(columns[:, part].T), axis=1)
        distance = ordered - flat[part, None]
        crps[part] = np.abs(distance).mean(axis=1) - distance @ weights
    return crps.reshape(true.shape)


def crps_gaussian_mixture(
    weights: ArrayLike, means: ArrayLike, scales: ArrayLike, truth: ArrayLike
) -> FloatArray:
    """CRPS of a Gaussian mixture in closed form.

    Args:
        weights: Shape (galaxy, component), summing to 1.
        means: Shape (galaxy, component), in the unit of the truth.
        scales: Standard deviations, shape (galaxy, component), positive.
        truth: Shape (galaxy,).

    Returns:
        CRPS in the unit of the truth, shape (galaxy,).

    Raises:
        ValueError: The shapes disagree.

    References:
        Grimit et al. 2006, "The continuous ranked probability score for circular variables and its
        application to mesoscale forecast ensemble verification", https://doi.org/10.1256/qj.05.235
    """
    w, m, s, y = (np.asarray(a, dtype=np.float64) for a in (weights, means, scales, truth))
    if not w.shape == m.shape == s.shape or w.shape[:1] != y.shape or w.ndim != 2:
        raise ValueError(
            "Expected weights, means and scales of shape (galaxy, component) and truth (galaxy,); "
            f"got {w.shape}, {m.shape}, {s.shape} and {y.shape}. Broadcast them first."
        )
    to_truth = np.sum(w * _mean_absolute(y[:, None] - m, s), axis=1)
    spread = np.hypot(s[:, :, None], s[:, None, :])
    between = _mean_absolute(m[:, :, None] - m[:, None, :], spread)
    return np.asarray(to_truth - 0.5 * np.einsum("gi,gj,gij->g", w, w, between))


def _mean_absolute(centre: FloatArray, scale: FloatArray) -> FloatArray:
    """E |centre + scale * standard normal|."""
    ratio = centre / scale
    density = np.exp(-0.5 * ratio**2) / np.sqrt(2 * np.pi)
    return np.asarray(centre * (2 * special.ndtr(ratio) - 1) + 2 * scale * density)


def crps_grid(cdf: ArrayLike, grid: ArrayLike, truth: ArrayLike) -> FloatArray:
    """CRPS of a CDF that is linear between grid points: the exact integral of (F - 1{x >= y})^2.

    Args:
        cdf: Shape (galaxy, grid), rising to 1 at the last point.
        grid: Increasing, shape (grid,).
        truth: Shape (galaxy,), in the unit of the grid.

    Returns:
        CRPS in the unit of the grid, shape (galaxy,).

    Raises:
        ValueError: The shapes disagree.
    """
    table, points, true = _gridded("cdf", cdf, grid, truth)
    low, high = table[:, :-1], table[:, 1:]
    width = np.diff(points)
    share = np.clip((true[:, None] - points[:-1]) / width, 0.0, 1.0)
    middle = low + share * (high - low)
    below = share * (low**2 + low * middle + middle**2)
    above = (1 - share) * ((1 - middle) ** 2 + (1 - middle) * (1 - high) + (1 - high) ** 2)
    inside = np.sum((below + above) * width, axis=1) / 3
    outside = np.maximum(points[0] - true, 0.0) + np.maximum(true - points[-1], 0.0)
    return np.asarray(inside + outside)


def log_score(log_density: ArrayLike) -> FloatArray:
    """Negative log density at the truth, nats; lower is better."""
    return -np.asarray(log_density, dtype=np.float64)


def log_score_grid(
    pdf: ArrayLike, grid: ArrayLike, truth: ArrayLike, *, floor: float = 1e-12
) -> FloatArray:
    """Negative log of a gridded density at the truth, linear between points, nats.

    Args:
        pdf: Densities per unit of the grid, shape (galaxy, grid).
        grid: Increasing, shape (grid,).
        truth: Shape (galaxy,), in the unit of the grid.
        floor: Smallest density counted, also outside the grid: a density of exactly 0 at a truth
            would cost infinitely much.
    """
    return -np.log(np.maximum(_density_at(pdf, grid, truth), floor))


def cde_loss(pdf: ArrayLike, grid: ArrayLike, truth: ArrayLike) -> FloatArray:
    """CDE loss of each galaxy, integral of p^2 - 2 p(truth); its mean is the loss.

    Args:
        pdf: Densities per unit of the grid, shape (galaxy, grid).
        grid: Increasing, shape (grid,).
        truth: Shape (galaxy,), in the unit of the grid.

    Returns:
        Loss per galaxy in one over the unit of the grid, shape (galaxy,).

    References:
        Izbicki & Lee 2017, "Converting high-dimensional regression to high-dimensional conditional
        density estimation", https://arxiv.org/abs/1704.08095
    """
    density = np.asarray(pdf, dtype=np.float64)
    at_truth = _density_at(pdf, grid, truth)
    square = np.trapezoid(density**2, np.asarray(grid, dtype=np.float64), axis=1)
    return np.asarray(square - 2 * at_truth)


def brier_score(probability: ArrayLike, outcome: ArrayLike) -> FloatArray:
    """Brier score of each galaxy, the sum over bins of (probability - 1{truth in bin})^2.

    Args:
        probability: Of each bin (of redshift, or class), shape (galaxy, bin), summing to 1.
        outcome: Index of the bin that holds the truth, integers, shape (galaxy,).

    Returns:
        Score from 0 to 2, shape (galaxy,).

    Raises:
        ValueError: The shapes disagree, a row does not sum to 1, or an index names no bin.

    References:
        Brier 1950, "Verification of forecasts expressed in terms of probability",
        https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    chance, index = np.asarray(probability, dtype=np.float64), np.asarray(outcome)
    if chance.ndim != 2 or chance.shape[:1] != index.shape or index.dtype.kind not in "iu":
        raise ValueError(
            "Expected probabilities of shape (galaxy, bin) and integer outcomes (galaxy,); got "
            f"{chance.shape} and {index.dtype} {index.shape}. Give the index of the true bin."
        )
    sums = chance.sum(axis=1)
    if not np.allclose(sums, 1.0, atol=1e-6):
        raise ValueError(
            f"Expected probabilities that sum to 1; got {sums.min()} to {sums.max()}. Normalise "
            "each galaxy."
        )
    if index.size and (index.min() < 0 or index.max() >= chance.shape[1]):
        raise ValueError(
            f"Expected outcomes from 0 to {chance.shape[1] - 1}; got {index.min()} to "
            f"{index.max()}. Leave out truths that no bin holds."
        )
    # (p - 1)^2 instead of p^2 in the true bin: 1 - 2 p more.
    at_truth = chance[np.arange(index.size), index]
    return np.asarray(np.sum(chance**2, axis=1) + 1 - 2 * at_truth)


def _density_at(pdf: ArrayLike, grid: ArrayLike, truth: ArrayLike) -> FloatArray:
    density, points, true = _gridded("pdf", pdf, grid, truth)
    right = np.clip(np.searchsorted(points, true), 1, points.size - 1)
    share = (true - points[right - 1]) / (points[right] - points[right - 1])
    rows = np.arange(true.size)
    value = (1 - share) * density[rows, right - 1] + share * density[rows, right]
    return np.where((share >= 0) & (share <= 1), value, 0.0)


def _gridded(
    name: str, values: ArrayLike, grid: ArrayLike, truth: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The arrays, checked to be (galaxy, grid), (grid,) and (galaxy,)."""
    table, points, true = (np.asarray(a, dtype=np.float64) for a in (values, grid, truth))
    if table.shape != (true.size, points.size) or true.ndim != 1:
        raise ValueError(
            f"Expected a {name} of shape (galaxy, grid); got {name} {table.shape}, grid "
            f"{points.shape}, truth {true.shape}. Put one galaxy in a row."
        )
    return table, points, true


def mean_score(name: str, values: ArrayLike, *, confidence: float = 0.95) -> Score:
    """Mean of a per-galaxy score with its normal interval; NaN values are left out.

    Raises:
        ValueError: Fewer than two finite values.
    """
    scores = np.asarray(values, dtype=np.float64).ravel()
    scores = scores[~np.isnan(scores)]
    if scores.size < 2:
        raise ValueError(f"Expected at least two finite scores; got {scores.size}.")
    reach = special.ndtri(0.5 + confidence / 2) * scores.std(ddof=1) / np.sqrt(scores.size)
    mean = float(scores.mean())
    return Score(name, mean, mean - float(reach), mean + float(reach), scores.size, confidence)


def ratio_of_means(
    name: str, values: ArrayLike, reference: ArrayLike, *, confidence: float = 0.95
) -> Score:
    """Mean score over the mean score of a reference on the same galaxies, by the delta method.

    Args:
        name: What is compared.
        values: Per-galaxy scores, shape (galaxy,).
        reference: Scores of the same galaxies, shape (galaxy,), with a positive mean.
        confidence: Probability of the interval.

    Returns:
        The ratio; its error uses the differences galaxy by galaxy, so what is hard for both
        cancels.

    Raises:
        ValueError: The shapes disagree or fewer than two galaxies have both scores.
    """
    ours, theirs = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if ours.shape != theirs.shape:
        raise ValueError(
            f"Expected scores of the same galaxies; got {ours.shape} and {theirs.shape}."
        )
    both = ~(np.isnan(ours) | np.isnan(theirs))
    ours, theirs = ours[both], theirs[both]
    if ours.size < 2:
        raise ValueError(f"Expected at least two galaxies with both scores; got {ours.size}.")
    ratio = float(ours.mean() / theirs.mean())
    residual = (ours - ratio * theirs) / theirs.mean()
    reach = float(special.ndtri(0.5 + confidence / 2) * residual.std(ddof=1) / np.sqrt(ours.size))
    return Score(name, ratio, ratio - reach, ratio + reach, ours.size, confidence)
