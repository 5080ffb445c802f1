"""The evidence lower bound, its terms apart: from a batch to numbers to minimise and to watch.

    ELBO = E_q[ log p(z|c) + sum_t log p(x_t | u, z, c) ] - KL( q(u | O, T, z) || p(u | z, c) )

The terms are read off Pyro's traces of the model and the guide, so their sum is Pyro's
`Trace_ELBO`.

Axes: galaxy, sample.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from pyro import poutine
from torch import Tensor

from probmmae.batch import Batch, Spectra
from probmmae.encoder import Context
from probmmae.model import GalaxyModel, KnownField, Targets
from probmmae.tokens import PATCH, tokenize


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Weights of the terms (all 1: the ELBO) and what is decoded in training."""

    redshift: float = 1.0
    """Weight of log p(z | c)."""
    spectrum: float = 1.0
    """Weight of log p(spectrum | u, z)."""
    image: float = 0.02
    """Weight of log p(image | z, c): thousands of pixels must not crowd out one redshift."""
    kl: float = 1.0
    """Weight of the KL divergence."""
    alone: float = 0.0
    """Weight of the density of u at every aperture by itself. Apertures of one galaxy are alike,
    so the joint density is steepest in their differences; this term teaches the mean first."""
    cells: int = 12
    """Image patches decoded per galaxy."""
    decoded: float = 1.0
    """Share of a step's galaxies whose spectra are decoded (the others count through the KL)."""


@dataclass(frozen=True)
class Elbo:
    """Terms of the bound, nats per galaxy."""

    redshift: Float[Tensor, " galaxy"]
    spectrum: Float[Tensor, " galaxy"]
    image: Float[Tensor, " galaxy"]
    kl: Float[Tensor, " galaxy"]
    alone: Float[Tensor, " galaxy"]
    """Not part of the bound: sum over apertures of log p(u at that aperture | z, c)."""

    @property
    def bound(self) -> Float[Tensor, " galaxy"]:
        """The evidence lower bound."""
        return self.redshift + self.spectrum + self.image - self.kl

    def loss(self, config: ObjectiveConfig) -> Tensor:
        """What is minimised: minus the weighted mean of the terms."""
        terms = (
            config.redshift * self.redshift
            + config.spectrum * self.spectrum
            + config.image * self.image
            - config.kl * self.kl
            + config.alone * self.alone
        )
        return -terms.mean()


def make_targets(
    whole: Batch,
    observed: Batch,
    deep: Spectra | None,
    cells: int,
    generator: torch.Generator,
    *,
    decoded: float = 1.0,
) -> Targets:
    """What the observed part of a batch is asked to predict.

    Args:
        whole: Everything that is known of the galaxies.
        observed: What the encoder sees (`masking.observe_part`).
        deep: Low-noise spectra of the same apertures where they exist (a simulator has them):
            they are predicted and read by the guide in place of the noisy ones.
        cells: Image patches to decode, drawn at random.
        generator: Source of randomness.
        decoded: Share of the galaxies whose spectra are decoded.
    """
    hidden_pixel = (observed.images.ivar == 0) & (whole.images.ivar > 0)
    images = replace(whole.images, ivar=whole.images.ivar * hidden_pixel)
    every = (whole.images.flux.shape[-2] // PATCH) * (whole.images.flux.shape[-1] // PATCH)
    chosen = torch.randperm(every, generator=generator)[:cells].to(whole.z.device)
    count = max(1, round(decoded * len(whole)))
    part = torch.randperm(len(whole), generator=generator)[:count].sort().values.to(chosen.device)
    if deep is None:
        hidden = (observed.spectra.ivar == 0) & (whole.spectra.ivar > 0)
        spectra = replace(whole.spectra, ivar=whole.spectra.ivar * hidden)
        recognised = whole.spectra
    else:
        spectra = recognised = deep
    return Targets(
        spectra=spectra,
        recognised=recognised,
        images=images,
        cells=chosen,
        decoded=part,
        z=whole.z,
        z_known=whole.z_known,
        whole=None if bool(whole.z_known.all()) else tokenize(whole),
    )


def elbo(model: GalaxyModel, context: Context, observed: Batch, targets: Targets) -> Elbo:
    """One-sample estimate of the terms of the bound for every galaxy."""
    known = None
    if bool(targets.z_known.all()):
        known = model.known_field(context, observed, targets.spectra.aperture, targets.z)
    q = poutine.trace(model.guide).get_trace(context, observed, targets, known)
    p = poutine.trace(poutine.replay(model.model, trace=q)).get_trace(
        context, observed, targets, known
    )
    p.compute_log_prob()
    q.compute_log_prob()

    def term(trace: poutine.Trace, site: str) -> Tensor:
        if site not in trace.nodes:
            return targets.z.new_zeros(len(observed))
        value: Tensor = trace.nodes[site]["log_prob"]
        return value.to(targets.z.dtype)

    hidden_z = term(p, "z_hidden")
    part = targets.decoded
    spectrum = targets.z.new_zeros(len(observed)).index_add(
        0, part, term(p, "spectrum") * (len(observed) / len(part))
    )
    return Elbo(
        redshift=term(p, "z") + hidden_z,
        spectrum=spectrum,
        image=term(p, "image"),
        kl=term(q, "u") - term(p, "u") + term(q, "z_hidden"),
        alone=_alone(known, q, targets),
    )


def _alone(known: KnownField | None, q: poutine.Trace, targets: Targets) -> Tensor:
    """log p of u at every aperture by itself; zero without a latent or with unknown redshifts."""
    if known is None or "u" not in q.nodes:
        return torch.zeros_like(targets.z)
    drawn: Tensor | None = q.nodes["u"]["value"]
    assert drawn is not None
    u = drawn.unflatten(-1, (-1, known.field.nugget.shape[0]))
    density: Tensor = known.field.alone().log_prob(u)
    return density.sum(-1).to(known.hidden.dtype)


def iwae(
    model: GalaxyModel, context: Context, observed: Batch, targets: Targets, samples: int
) -> tuple[Float[Tensor, " galaxy"], Float[Tensor, " galaxy"]]:
    """The importance-weighted bound of `samples` draws and the mean ELBO of the same draws.

    References:
        Burda, Grosse, Salakhutdinov 2016, Importance Weighted Autoencoders, arXiv:1509.00519.
    """
    bounds = torch.stack(
        [elbo(model, context, observed, targets).bound for _ in range(samples)]
    ).double()
    return torch.logsumexp(bounds, 0) - math.log(samples), bounds.mean(0)
