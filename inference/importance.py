r"""Importance weights: from amortised draws to the exact posterior given new evidence.

A network has read O; then a spectrum T comes in. Redshifts are proposed by the network that has
read both, q(z | O, T); latents by the prior p(u | z, O) updated, class by class, with the Gaussian
pseudo-measurement that the guide reads off T. Each draw is weighed by the exact density,

    w  =  p(z | O) p(u | z, O) p(x_T | u, z)  /  ( q(z | O, T) q(u | O, T, z) ).

The mean weight is the evidence p(x_T | O). The weights' largest are smoothed by a generalised
Pareto distribution (PSIS), whose shape k says for which galaxies the answer may be trusted: below
0.7 it may, above it NUTS is worth its cost.

Axes: galaxy, draw, spectrum, pixel, joint (spectrum and latent flattened).

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
    """Latents at the apertures of the evidence."""
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
    evidence: Spectra,
    draws: int,
    generator: torch.Generator,
) -> Proposal:
    """Draw (z, u) given all, and weigh each draw by the exact density.

    Args:
        network: The trained network.
        observed: What it has conditioned on. A redshift known there stays known.
        evidence: New spectra, at least one a galaxy (ivar 0 where a galaxy has fewer).
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
    if evidence.flux.shape[0] != len(observed):
        raise ValueError(
            f"Expected evidence on {len(observed)} galaxies; got {evidence.flux.shape[0]}. "
            "Give one row of spectra for each."
        )
    if draws < 1:
        raise ValueError(f"Expected at least 1 draw; got {draws}. 1000 are usual.")
    with torch.no_grad():
        context = network.encode(observed)
        whole = network.encode(replace(observed, spectra=_joined(observed.spectra, evidence)))
        before, after = network.redshift(context), network.redshift(whole)
        known = observed.z_known
        z = after.draw(torch.Size((draws,)), generator)
        ratio = torch.where(known, 0.0, (before.log_prob(z) - after.log_prob(z)).double()).T
        z = torch.where(known, observed.z, z).T
        rows = []
        for galaxy in range(len(observed)):
            row = slice(galaxy, galaxy + 1)
            own = context.take(row)
            part = (network, own, observed.take(row), evidence.take(row))
            step = max(1, _ROWS // evidence.flux.shape[1])
            rows.append([_latents(*part, some, generator) for some in z[galaxy].split(step)])
        u = torch.stack([torch.cat([one for one, _ in parts]) for parts in rows])
        more = torch.stack([torch.cat([one for _, one in parts]) for parts in rows])
    return Proposal(z, u, ratio + more)


def _latents(
    network: GalaxyModel,
    context: Context,
    observed: Batch,
    evidence: Spectra,
    z: Float[Tensor, " draw"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "draw joint"], Float[Tensor, " draw"]]:
    """u of one galaxy from the guide at each redshift, and ln p(u | z) p(x | u, z) / q(u | z)."""
    count = z.shape[0]
    prior, hidden = network.field(context, observed, evidence.aperture, z[None])
    repeated = evidence.map(lambda part: part.expand(count, *part.shape[1:]))
    scale = context.scale.expand(count)
    told = network.recognition(repeated, z, scale)
    guide = conjugate(prior, PseudoMeasurement(told.mean[None], told.root_precision[None]))
    u = _drawn(guide, generator)
    ratio = prior.distribution().log_prob(u) - guide.log_prob(u)
    apart = u[0].to(z.dtype).unflatten(-1, (-1, network.config.latent))
    spectrum = network.spectrum(apart, hidden[0], z, scale, repeated)
    return u[0], ratio[0] + spectrum.log_prob(repeated.flux).sum(-1)


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
    grown = [_padded(one, pixels) for one in (first, second)]
    names = ("wavelength", "flux", "ivar", "sigma", "aperture")
    return Spectra(*(torch.cat([getattr(one, name) for one in grown], dim=1) for name in names))


def _padded(spectra: Spectra, pixels: int) -> Spectra:
    """Padding as a batch has it: the last wavelength repeated, ivar and flux 0."""
    short = pixels - spectra.flux.shape[-1]

    def repeat(part: Tensor) -> Tensor:
        return torch.cat([part, part[..., -1:].expand(*part.shape[:-1], short)], dim=-1)

    def zero(part: Tensor) -> Tensor:
        return torch.nn.functional.pad(part, (0, short))

    return Spectra(
        repeat(spectra.wavelength),
        zero(spectra.flux),
        zero(spectra.ivar),
        repeat(spectra.sigma),
        spectra.aperture,
    )
