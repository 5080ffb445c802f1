"""What a posterior is compared with: simple and near-optimal posteriors of the same galaxies.

From a training set, or a bank of simulated galaxies, to draws or exact weighted posteriors of a
scalar for test galaxies:

- the marginal law of the training truths, the same for every galaxy;
- the truths of the nearest neighbours in standardised features;
- a deterministic prediction plus the residuals of held-out galaxies;
- the posterior by importance weighting of a bank under the exact noise model, near-optimal
  wherever its effective sample size is large.

Axes: draw, galaxy (tested), bank (simulated), band, feature, level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from scipy import spatial
from torch import Tensor

FloatArray = NDArray[np.float64]


def marginal_draws(
    train_truth: ArrayLike, galaxies: int, *, draws: int, generator: np.random.Generator
) -> FloatArray:
    """Draws from the marginal law of the training truths, the same law for every galaxy.

    Args:
        train_truth: Shape (train, *quantity).
        galaxies: Number of galaxies to answer for.
        draws: Draws a galaxy.
        generator: Source of the draws.

    Returns:
        Draws of shape (draw, galaxy, *quantity).
    """
    truths = np.asarray(train_truth, dtype=np.float64)
    return np.asarray(truths[generator.integers(truths.shape[0], size=(draws, galaxies))])


def neighbour_draws(
    train_features: ArrayLike,
    train_truth: ArrayLike,
    test_features: ArrayLike,
    *,
    neighbours: int = 100,
) -> NDArray[np.floating[Any]]:
    """The truths of the nearest training galaxies, as draws.

    Features are standardised by the mean and standard deviation of the training set; a feature
    that is missing (NaN) takes the training mean.

    Args:
        train_features: Shape (train, feature).
        train_truth: Shape (train, *quantity): scalars, or whole spectra (draws then stay whole).
        test_features: Shape (galaxy, feature).
        neighbours: Number of neighbours, which is the number of draws.

    Returns:
        Draws of shape (draw, galaxy, *quantity), nearest first.

    Raises:
        ValueError: The features disagree, or there are fewer training galaxies than neighbours.
    """
    train, test = (np.asarray(a, dtype=np.float64) for a in (train_features, test_features))
    truths = np.asarray(train_truth)
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise ValueError(
            "Expected train (train, feature) and test (galaxy, feature) with the same features; "
            f"got {train.shape} and {test.shape}. Stack features along the last axis."
        )
    if train.shape[0] < neighbours or truths.shape[0] != train.shape[0]:
        raise ValueError(
            f"Expected at least {neighbours} training galaxies with a truth each; got "
            f"{train.shape[0]} with {truths.shape[0]} truths. Lower `neighbours`."
        )
    mean, scale = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    tree = spatial.cKDTree(np.nan_to_num((train - mean) / scale))
    _, index = tree.query(np.nan_to_num((test - mean) / scale), k=neighbours)
    return np.asarray(truths[np.asarray(index).reshape(test.shape[0], neighbours).T])


def residual_draws(
    prediction: ArrayLike,
    residuals: ArrayLike,
    *,
    draws: int,
    generator: np.random.Generator,
) -> NDArray[np.floating[Any]]:
    """A deterministic prediction plus whole residuals of held-out galaxies.

    A residual is taken whole, all pixels of one galaxy together, so the draws are as coherent as
    the residuals are; what they lack is a scatter that depends on the galaxy.

    Args:
        prediction: Point predictions, shape (galaxy, *quantity).
        residuals: Truth less prediction of other galaxies, shape (held_out, *quantity).
        draws: Draws a galaxy.
        generator: Source of the choice of residuals.

    Returns:
        Draws of shape (draw, galaxy, *quantity).

    Raises:
        ValueError: Predictions and residuals are not of the same quantity.
    """
    centre, errors = np.asarray(prediction), np.asarray(residuals)
    if centre.shape[1:] != errors.shape[1:] or errors.shape[0] == 0:
        raise ValueError(
            "Expected prediction (galaxy, *quantity) and residuals (held_out, *quantity) of one "
            f"quantity; got {centre.shape} and {errors.shape}. Use the same grid for both."
        )
    picks = generator.integers(errors.shape[0], size=(draws, centre.shape[0]))
    return np.asarray(centre + errors[picks])


@dataclass(frozen=True)
class WeightedPosterior:
    """Posterior of a scalar by importance weighting of a bank, one a galaxy."""

    effective_size: FloatArray
    """(sum w)^2 / sum w^2, shape (galaxy,)."""
    mean: FloatArray
    """Posterior mean, shape (galaxy,)."""
    quantiles: FloatArray
    """Quantiles at the asked levels, shape (galaxy, level)."""
    crps: FloatArray
    """Fair CRPS at the truth, shape (galaxy,): without the inflation by 1 / effective_size that a
    small sample brings; NaN without truths."""
    pit: FloatArray
    """CDF at the truth, half of a tie counted, shape (galaxy,); NaN without truths."""

    def usable(self, least: float = 100.0) -> NDArray[np.bool_]:
        """True where the effective sample size exceeds `least`."""
        return self.effective_size > least


def importance_posterior(
    bank_flux: ArrayLike,
    bank_truth: ArrayLike,
    flux: ArrayLike,
    ivar: ArrayLike,
    *,
    truth: ArrayLike | None = None,
    levels: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
    fractional_error: float = 0.0,
) -> WeightedPosterior:
    """Posterior of a scalar given noisy photometry, by weighting prior draws by their likelihood.

    The bank holds draws from the prior, so with log w_b = -1/2 sum_band ivar (flux -
    bank_flux_b)^2 every posterior expectation is a weighted mean over the bank; nothing is
    learned. Where the noise depends on the true flux through a calibration floor,
    `fractional_error` keeps the likelihood
    exact: the variance is then 1 / ivar + (fractional_error * bank_flux)^2, normalisation
        included.

    Args:
        bank_flux: Noise-free fluxes of the bank, nanomaggies, shape (bank, band).
        bank_truth: The scalar of each bank galaxy, shape (bank,).
        flux: Measured fluxes, nanomaggies, shape (galaxy, band).
        ivar: Inverse variances, nanomaggies^-2, shape (galaxy, band); 0 is missing.
        truth: True scalars, shape (galaxy,), for CRPS and PIT.
        levels: Levels of the quantiles.
        fractional_error: Floor of the noise as a fraction of the true flux, not contained in
            `ivar`.

    Returns:
        The weighted posteriors.

    Raises:
        ValueError: The shapes disagree.
    """
    known, measured, inverse = (
        torch.as_tensor(np.asarray(a, dtype=np.float32)) for a in (bank_flux, flux, ivar)
    )
    scalar = np.asarray(bank_truth, dtype=np.float64)
    if (
        known.ndim != 2
        or scalar.shape != (known.shape[0],)
        or measured.shape != inverse.shape
        or measured.shape[1:] != known.shape[1:]
    ):
        raise ValueError(
            "Expected bank_flux (bank, band), bank_truth (bank,), flux and ivar (galaxy, band); "
            f"got {tuple(known.shape)}, {scalar.shape}, {tuple(measured.shape)}, "
            f"{tuple(inverse.shape)}. Use the same bands in the same order."
        )
    galaxies = measured.shape[0]
    true = np.full(galaxies, np.nan) if truth is None else np.asarray(truth, dtype=np.float64)
    # In order of the scalar, cumulative weights are the CDF.
    order = np.argsort(scalar, kind="stable")
    scalar, known = scalar[order], known[torch.from_numpy(order)].T.contiguous()
    ordered = torch.from_numpy(scalar)
    parts = []
    for row, row_ivar, at in zip(measured, inverse, torch.from_numpy(true), strict=True):
        logw = _log_weights(known, row, row_ivar, fractional_error)
        # What weighs less than exp(-40) of the heaviest moves nothing, even 10^6 of it.
        heavy = torch.nonzero(logw > logw.max() - 40)[:, 0]
        weight = torch.softmax(logw[heavy].double(), dim=0)
        parts.append(_summaries(weight, ordered[heavy], at, levels))
    size, mean, crps, pit, *quantiles = torch.stack(parts, dim=1).numpy()
    return WeightedPosterior(size, mean, np.stack(quantiles, axis=1), crps, pit)


def _log_weights(
    bank: Float[Tensor, "band bank"],
    flux: Float[Tensor, " band"],
    ivar: Float[Tensor, " band"],
    fractional_error: float,
) -> Float[Tensor, " bank"]:
    total = torch.zeros(bank.shape[1])
    for band in torch.nonzero(ivar > 0)[:, 0].tolist():
        square = (bank[band] - flux[band]).square_()
        if fractional_error > 0:
            variance = bank[band].square().mul_(fractional_error**2).add_(1 / ivar[band])
            total.addcdiv_(square, variance, value=-0.5)
            total.sub_(variance.log_(), alpha=0.5)
        else:
            total.sub_(square, alpha=0.5 * float(ivar[band]))
    return total


def _summaries(
    weight: Float[Tensor, " bank"],
    scalar: Float[Tensor, " bank"],
    truth: Float[Tensor, ""],
    levels: Sequence[float],
) -> Float[Tensor, " summary"]:
    cdf = weight.cumsum(dim=0)
    at = torch.searchsorted(cdf, torch.tensor(levels, dtype=cdf.dtype))
    quantiles = scalar[at.clamp(max=scalar.numel() - 1)]
    below = torch.searchsorted(scalar, truth)
    through = torch.searchsorted(scalar, truth, right=True)
    padded = torch.cat([cdf.new_zeros(1), cdf])
    pit = 0.5 * (padded[below] + padded[through])
    # CRPS = E|x - y| - E|x - x'| / 2, the second term the integral of F (1 - F), made fair: a
    # galaxy of the bank is not its own pair.
    concentration = weight @ weight
    spread = (cdf[:-1] * (1 - cdf[:-1])) @ scalar.diff() / (1 - concentration).clamp(min=1e-9)
    crps = weight @ (scalar - truth).abs() - spread
    unknown = torch.isnan(truth)
    ends = torch.stack([crps, pit]).masked_fill(unknown, torch.nan)
    return torch.cat([(1 / concentration)[None], (weight @ scalar)[None], ends, quantiles])
