r"""Drawn galaxies that are held to known latents: from (z, u) at some apertures to `Draws`.

A sampler answers with u at the apertures of the evidence. A galaxy at every other position follows
from it: given the class k the field is linear in standard normals n = (g, W, e),

    t  =  (u - mu_k) / sigma_k  =  A n ,

so n is drawn and then moved by A^T (A A^T)^-1 (t - A n): an exact draw of n given t. The class is
drawn from p(k | u, z).

Axes: draw, query, latent, joint (query and latent flattened), shared, feature.

Reference:
    Hoffman and Ribak (1991), Constrained realizations of Gaussian fields, ApJ 380, L5
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from probmmae.batch import Batch
from probmmae.encoder import Context
from probmmae.inference.amortized import Draws, Pinned, draw, own_white, waves
from probmmae.model import GalaxyModel


@torch.no_grad()
def held_to(
    network: GalaxyModel,
    context: Context,
    observed: Batch,
    *,
    aperture: Float[Tensor, "1 query 4"],
    z: Float[Tensor, " draw"],
    u: Float[Tensor, "draw joint"],
    generator: torch.Generator,
) -> Draws:
    """Draws of one galaxy whose latents at `aperture` are `u`.

    Args:
        network: The trained network.
        context: Its context of one galaxy.
        observed: What it has conditioned on.
        aperture: Where u is known.
        z: Redshift of every draw.
        u: Latents of every draw.
        generator: Source of randomness, for what u leaves open.
    """
    count, position = len(z), aperture[..., :2]
    free = draw(
        network, network.redshift(context), observed.z, observed.z_known, count, generator
    )  # fmt: skip
    field, _ = network.field(context, observed, aperture, z[None])
    mixture = field.distribution()
    weight = mixture.mixture_distribution.probs[0]
    # p(k | u, z), the class drawn from it, and the number in `pick` that stands for this class.
    chance = torch.log(weight) + mixture.component_distribution.log_prob(
        u.double()[None, :, None]
    )[0]  # fmt: skip
    pick = torch.multinomial(torch.softmax(chance, -1), 1, generator=generator)
    ends = weight.cumsum(-1)
    middle = (ends.gather(-1, pick) - 0.5 * weight.gather(-1, pick))[:, 0]

    def of_class(values: Tensor) -> Tensor:
        """(draw, query, class, latent) to (draw, query, latent)."""
        index = pick[:, None, :, None].expand(*values.shape[:2], 1, values.shape[-1])
        return values.gather(2, index)[:, :, 0].double()

    queries, latent = field.mean.shape[2], field.mean.shape[-1]
    known = u.double().unflatten(-1, (queries, latent))
    wanted = (known - of_class(field.mean[0])) / of_class(field.spread[0])
    shared, local = field.shared[0].double(), field.local[0].double()
    nugget, wave = field.nugget.double(), waves(position, field.length)[0].double()
    apart, alike = field.white.double().sqrt(), (1 - field.white.double()).sqrt()
    white = own_white(free, position, 2 * latent)[0].double()
    own, other = white.split(latent, dim=-1)
    process = alike * torch.einsum("dlf,lqf->dql", free.weights[0].double(), wave) + apart * other
    have = torch.einsum("dqis,ds->dqi", shared, free.shared[0].double())
    have = have + torch.einsum("dqij,dqj->dqi", local, process) + own * nugget
    outer = torch.einsum("dqis,dpjs->dqipj", shared, shared)
    kernel = alike[:, None, None] ** 2 * torch.einsum("lqf,lpf->lqp", wave, wave)
    kernel = kernel + apart[:, None, None] ** 2 * torch.eye(queries).to(kernel)
    outer = outer + torch.einsum("lqp,dqil,dpjl->dqipj", kernel, local, local)
    joint = queries * latent
    covariance = outer.reshape(count, joint, joint) + torch.diag(nugget.repeat(queries) ** 2)
    away = (wanted - have).flatten(1)[..., None]
    pull = torch.cholesky_solve(away, torch.linalg.cholesky(covariance))[..., 0]
    pull = pull.unflatten(-1, (queries, latent))
    along = torch.einsum("dqil,dqi->dql", local, pull)
    moved = {
        "shared": torch.einsum("dqis,dqi->ds", shared, pull),
        "weights": torch.einsum("dql,lqf->dlf", alike * along, wave),
    }
    white = white + torch.cat([nugget * pull, apart * along], dim=-1)
    return replace(
        free,
        z=z[None],
        pick=middle[None].float(),
        pinned=Pinned(position[:, None].expand(1, count, -1, -1), white[None].float()),
        **{name: getattr(free, name) + part[None].float() for name, part in moved.items()},
    )
