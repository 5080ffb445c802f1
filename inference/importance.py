r"""Importance weights: from amortised draws to the exact posterior given new evidence.

A network has read O; then evidence T comes in (`evidence`). Redshifts are proposed by the network
that has read O and the spectra of T, q(z | O, T); latents by the prior p(u | z, O) updated, class
by class, with the Gaussian pseudo-measurement that the guide reads off each spectrum. Fluxes of
filters and lines the network never reads: they only weigh. Each draw gets the exact density,

    w  =  p(z | O) p(u | z, O) p(x_T | u, z)  /  ( q(z | O, T) q(u | O, T, z) ).

The mean weight is the evidence p(x_T | O). The weights' largest are smoothed by a generalised
Pareto distribution (PSIS), whose shape k says for which galaxies the answer may be trusted: below
0.7 it may, above it NUTS is worth its cost.

Axes: galaxy, draw, query, latent, joint (query and latent flattened).

References:
    Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling, Journal of
    Machine Learning Research 25, https://jmlr.org/papers/v25/19-556.html
    Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders,
    https://arxiv.org/abs/1509.00519
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from pyro.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch import Tensor

from probmmae.batch import Batch, Spectra
from probmmae.encoder import Context
from probmmae.inference.evidence import Measured, padded
from probmmae.latent import Field, PseudoMeasurement
from probmmae.model import GalaxyModel

TRUSTED = 0.7
"""Pareto k below which importance-weighted answers may be trusted."""

_ROWS = 256
"""Spectra decoded at a time: each takes the templates' blurred curves, half a megabyte."""


@dataclass(frozen=True)
class Proposal:
    """Draws from the network that has read the evidence, and their raw log weights."""

    z: Float[Tensor, "galaxy draw"]
    u: Float[Tensor, "galaxy draw joint"]
    """Latents at the queries of the evidence, (query, latent) flattened."""
    log_ratio: Float[Tensor, "galaxy draw"]
    """ln of the exact density, evidence included, over that of the proposal."""


@dataclass(frozen=True)
class Weights:
    """Pareto-smoothed weights; the leading axes are those of the log ratios."""

    log_weight: Float[np.ndarray, "*galaxy draw"]
    """Normalised: their exponentials sum to 1 over the draws."""
    pareto_k: Float[np.ndarray, "*galaxy"]
    """Shape of the weights' tail."""
    log_evidence: Float[np.ndarray, "*galaxy"]
    """ln of the mean weight."""
    log_evidence_error: Float[np.ndarray, "*galaxy"]
    """Its standard error, by the scatter of the weights; too small where k is over 0.7."""

    @property
    def effective(self) -> Float[np.ndarray, "*galaxy"]:
        """Effective number of draws."""
        return np.asarray(1 / np.exp(2 * self.log_weight).sum(-1))

    @property
    def trusted(self) -> np.ndarray:
        """True where k is below `TRUSTED`."""
        return np.asarray(self.pareto_k < TRUSTED)


def psis(log_ratio: ArrayLike) -> Weights:
    """Smooth importance weights.

    Args:
        log_ratio: ln of target over proposal at draws of the proposal, neither of which need be
            normalised, shape (*galaxy, draw). Minus infinity where the target has no density.

    Raises:
        ValueError: Fewer than 25 draws, a NaN, plus infinity, or a galaxy without one draw where
            the target has any density.
    """
    from arviz import psislw

    ratio = np.asarray(log_ratio, dtype=float)
    if ratio.ndim < 1 or ratio.shape[-1] < 25:
        raise ValueError(
            f"Expected at least 25 draws along the last axis; got shape {ratio.shape}. "
            "Draw more: 1000 are usual."
        )
    if np.isnan(ratio).any() or (ratio.max(-1) == np.inf).any():
        raise ValueError(
            "Expected log ratios below infinity; got NaN or infinity. "
            "Look for draws where the proposal has no density."
        )
    if (ratio.max(-1) == -np.inf).any():
        raise ValueError(
            "Expected a draw with density under the target in every galaxy; got none. "
            "The proposal misses the target: draw from a wider one."
        )
    draws = ratio.shape[-1]
    smooth, tail = psislw(ratio, normalize=False)
    total = np.logaddexp.reduce(smooth, axis=-1)
    log_weight = smooth - total[..., None]
    variance = (np.exp(2 * log_weight).sum(-1) - 1 / draws) * draws / (draws - 1)
    return Weights(
        log_weight,
        np.asarray(tail),
        np.asarray(total - np.log(draws)),
        np.asarray(np.sqrt(np.maximum(variance, 0))),
    )


def propose(
    network: GalaxyModel,
    observed: Batch,
    *,
    evidence: Measured,
    draws: int,
    generator: torch.Generator,
) -> Proposal:
    """Draw (z, u) given all, and weigh each draw by the exact density.

    Args:
        network: The trained network.
        observed: What it has conditioned on. A redshift known there stays known.
        evidence: What is new, of the same galaxies.
        draws: Draws per galaxy.
        generator: Source of randomness.

    Raises:
        ValueError: The network's likelihood has no latent, the evidence is not of as many
            galaxies, or less than one draw is asked for.
    """
    if network.config.likelihood != "field":
        raise ValueError(
            "Expected a network with the likelihood 'field'; got "
            f"{network.config.likelihood!r}, which has no latent to weigh. Load another."
        )
    if len(evidence.aperture) != len(observed):
        raise ValueError(
            f"Expected evidence on {len(observed)} galaxies; got {len(evidence.aperture)}. "
            "Give one row for each."
        )
    if draws < 1:
        raise ValueError(f"Expected at least 1 draw; got {draws}. 1000 are usual.")
    with torch.no_grad():
        context = network.encode(observed)
        before = after = network.redshift(context)
        if evidence.spectra is not None:
            every = _joined(observed.spectra, evidence.spectra)
            after = network.redshift(network.encode(replace(observed, spectra=every)))
        known = observed.z_known
        z = after.draw(torch.Size((draws,)), generator)
        ratio = torch.where(known, 0.0, (before.log_prob(z) - after.log_prob(z)).double()).T
        z = torch.where(known, observed.z, z).T
        rows = []
        for galaxy in range(len(observed)):
            row = slice(galaxy, galaxy + 1)
            own = context.take(row)
            part = (network, own, observed.take(row), evidence.take(row))
            step = max(1, _ROWS // evidence.aperture.shape[1])
            rows.append([_latents(*part, some, generator) for some in z[galaxy].split(step)])
        u = torch.stack([torch.cat([one for one, _ in parts]) for parts in rows])
        more = torch.stack([torch.cat([one for _, one in parts]) for parts in rows])
    return Proposal(z, u, ratio + more)


def _latents(
    network: GalaxyModel,
    context: Context,
    observed: Batch,
    evidence: Measured,
    z: Float[Tensor, " draw"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "draw joint"], Float[Tensor, " draw"]]:
    """u of one galaxy from the guide at each redshift, and ln p(u | z) p(x | u, z) / q(u | z)."""
    count = z.shape[0]
    prior, hidden = network.field(context, observed, evidence.aperture, z[None])
    repeated = evidence.map(lambda part: part.expand(count, *part.shape[1:]))
    scale = context.scale.expand(count)
    guide = conjugate(prior, _told(network, repeated, z, scale))
    u = _drawn(guide, generator)
    ratio = prior.distribution().log_prob(u) - guide.log_prob(u)
    apart = u[0].to(z.dtype).unflatten(-1, (-1, network.config.latent))
    return u[0], ratio[0] + repeated.log_likelihood(network, apart, hidden[0], z, scale)


def _told(
    network: GalaxyModel, evidence: Measured, z: Float[Tensor, " draw"], scale: Tensor
) -> PseudoMeasurement:
    """What the guide reads at every query, leading axes (1, draw): nothing without a spectrum."""
    queries, latent = evidence.aperture.shape[1], network.config.latent
    mean = z.new_zeros(1, len(z), queries, latent)
    root = z.new_zeros(1, len(z), queries, latent, latent)
    if evidence.spectra is not None:
        told = network.recognition(evidence.spectra, z, scale)
        read = told.mean.shape[1]
        mean[0, :, :read], root[0, :, :read] = told.mean, told.root_precision
    return PseudoMeasurement(mean, root)


def conjugate(prior: Field, told: PseudoMeasurement) -> MixtureSameFamily:
    """The exact posterior of u under a field and one Gaussian factor per aperture.

    Args:
        prior: p(u | z, c) at the apertures.
        told: The factors, of the same leading axes.
    """
    mixture = prior.distribution()
    normal = mixture.component_distribution
    root = told.root_precision.double()
    factor = root @ root.mT
    spectra = factor.shape[-3]
    apart = torch.eye(spectra, dtype=factor.dtype, device=factor.device)
    blocks = torch.einsum("...sij,st->...sitj", factor, apart)
    blocks = blocks.flatten(-4, -3).flatten(-2)[..., None, :, :]
    before = torch.cholesky_inverse(normal.scale_tril)
    precision = before + blocks
    pulled = (before @ normal.loc[..., None])[..., 0]
    pull = (factor @ told.mean.double()[..., None])[..., 0].flatten(-2)[..., None, :]
    lower = torch.linalg.cholesky(precision)
    centre = torch.cholesky_solve((pulled + pull)[..., None], lower)[..., 0]
    squares = (centre * (pulled + pull)).sum(-1) - (normal.loc * pulled).sum(-1)
    widths = normal.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    widths = widths + lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    logits = mixture.mixture_distribution.logits + 0.5 * squares - widths
    return MixtureSameFamily(
        Categorical(logits=logits, validate_args=False),
        MultivariateNormal(centre, precision_matrix=precision, validate_args=False),
        validate_args=False,
    )


def _drawn(mixture: MixtureSameFamily, generator: torch.Generator) -> Tensor:
    """One draw for every batch element, by an explicit generator."""
    weight, normal = mixture.mixture_distribution.probs, mixture.component_distribution
    pick = torch.multinomial(weight.flatten(0, -2), 1, generator=generator)
    pick = pick.reshape(*weight.shape[:-1], 1, 1)
    loc = normal.loc.gather(-2, pick.expand(*pick.shape[:-1], normal.loc.shape[-1]))[..., 0, :]
    index = pick[..., None].expand(*pick.shape[:-1], *normal.scale_tril.shape[-2:])
    root = normal.scale_tril.gather(-3, index)[..., 0, :, :]
    noise = torch.randn(loc.shape, generator=generator, dtype=torch.float64).to(loc)
    return loc + (root @ noise[..., None])[..., 0]


def _joined(first: Spectra, second: Spectra) -> Spectra:
    """The spectra of both, padded to the longer grid."""
    pixels = max(first.flux.shape[-1], second.flux.shape[-1])
    grown = [padded(one, pixels) for one in (first, second)]
    names = ("wavelength", "flux", "ivar", "sigma", "aperture")
    return Spectra(*(torch.cat([getattr(one, name) for one in grown], dim=1) for name in names))
