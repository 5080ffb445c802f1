r"""Importance weights: from amortised draws to the exact posterior given new evidence.

A network has read O; then evidence T comes in (`evidence`). Redshifts and latents are proposed by
the network that has read the spectra of T as well: they are its own answer. (The guide would not
do: it was taught on spectra that have hardly any noise.) Fluxes of filters and lines the network
never reads: they only weigh. Each draw gets the exact density,

    w  =  p(z | O) p(u | z, O) p(x_T | u, z)  /  ( p(z | O, T) p(u | z, O, T) ).

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
from pyro.distributions import MixtureSameFamily
from torch import Tensor

from probmmae.batch import Batch, Spectra
from probmmae.encoder import Context
from probmmae.inference.evidence import Measured, padded
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
        context = read = network.encode(observed)
        every = observed
        if evidence.spectra is not None:
            every = replace(observed, spectra=_joined(observed.spectra, evidence.spectra))
            read = network.encode(every)
        before, after, known = network.redshift(context), network.redshift(read), observed.z_known
        z = after.draw(torch.Size((draws,)), generator)
        ratio = torch.where(known, 0.0, (before.log_prob(z) - after.log_prob(z)).double()).T
        z = torch.where(known, observed.z, z).T
        rows = []
        for galaxy in range(len(observed)):
            row = slice(galaxy, galaxy + 1)
            contexts = (context.take(row), read.take(row))
            batches = (observed.take(row), every.take(row))
            part = (network, contexts, batches, evidence.take(row))
            step = max(1, _ROWS // evidence.aperture.shape[1])
            rows.append([_latents(*part, some, generator) for some in z[galaxy].split(step)])
        u = torch.stack([torch.cat([one for one, _ in parts]) for parts in rows])
        more = torch.stack([torch.cat([one for _, one in parts]) for parts in rows])
    return Proposal(z, u, ratio + more)


def _latents(
    network: GalaxyModel,
    contexts: tuple[Context, Context],
    batches: tuple[Batch, Batch],
    evidence: Measured,
    z: Float[Tensor, " draw"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "draw joint"], Float[Tensor, " draw"]]:
    """u of one galaxy at each redshift, and ln p(u | z, O) p(x_T | u, z) / p(u | z, O, T)."""
    (before, hidden), (after, _) = (
        network.field(context, batch, evidence.aperture, z[None])
        for context, batch in zip(contexts, batches, strict=True)
    )
    proposal = after.distribution()
    u = _drawn(proposal, generator)
    ratio = before.distribution().log_prob(u) - proposal.log_prob(u)
    count = z.shape[0]
    repeated = evidence.map(lambda part: part.expand(count, *part.shape[1:]))
    apart = u[0].to(z.dtype).unflatten(-1, (-1, network.config.latent))
    scale = contexts[0].scale.expand(count)
    return u[0], ratio[0] + repeated.log_likelihood(network, apart, hidden[0], z, scale)


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
