"""Draws from the network: from a context to coherent galaxies.

One draw is one galaxy. Its redshift, its class, its global latents and its random field on the sky
are drawn once (`Draws`); spectra at any aperture and wavelength are then deterministic functions
of the draw, so two calls for two positions give two parts of the same galaxy. The Gaussian process
of the field is drawn as random Fourier features, whose variance is exactly one at every position.

Axes: galaxy, draw, query (aperture), latent, shared, feature, white (number), pixel.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from probmmae.batch import Batch, Rows
from probmmae.encoder import Context
from probmmae.instrument import RestSpectrum, observe
from probmmae.latent import PER_DRAW, Field
from probmmae.model import GalaxyModel
from probmmae.redshift import RedshiftDensity

_FEATURES = 128
_SAME = 5e-4
"""arcsec: positions nearer than this are one."""


@dataclass(frozen=True)
class Pinned(Rows):
    """What of the field is white, at the positions where it is known."""

    position: Float[Tensor, "galaxy draw place 2"]
    """arcsec."""
    white: Float[Tensor, "galaxy draw place white"]


@dataclass(frozen=True)
class Draws(Rows):
    """Everything random about a set of drawn galaxies."""

    z: Float[Tensor, "galaxy draw"]
    pick: Float[Tensor, "galaxy draw"]
    """Uniform numbers that choose the class."""
    shared: Float[Tensor, "galaxy draw shared"]
    weights: Float[Tensor, "galaxy draw latent feature"]
    """Fourier weights of the field."""
    seed: Float[Tensor, "galaxy draw"]
    """Seeds of what is independent from aperture to aperture and from pixel to pixel."""
    pinned: Pinned | None = None
    """Where evidence has told what is otherwise drawn by the seed (`conditioned`)."""


def draw(
    network: GalaxyModel,
    density: RedshiftDensity,
    z: Float[Tensor, " galaxy"],
    z_known: Tensor,
    draws: int,
    generator: torch.Generator,
) -> Draws:
    """Draw galaxies: redshifts from p(z | c) (or the known one), and the numbers behind u.

    Args:
        network: The trained network.
        density: p(z | c) of each galaxy.
        z: Known redshifts (0 where unknown).
        z_known: True where the redshift is known.
        draws: Draws per galaxy.
        generator: Source of randomness.
    """
    galaxies = z.shape[0]
    config = network.config
    drawn = density.draw(torch.Size((draws,)), generator).T
    drawn = torch.where(z_known[:, None], z[:, None], drawn)

    def normal(*shape: int) -> Tensor:
        return torch.randn(galaxies, draws, *shape, generator=generator)

    return Draws(
        z=drawn,
        pick=torch.rand(galaxies, draws, generator=generator),
        shared=normal(config.shared),
        weights=normal(config.latent, 2 * _FEATURES),
        seed=torch.randint(2**31, (galaxies, draws), generator=generator).double(),
    )


def field_values(
    field: Field, draws: Draws, position: Float[Tensor, "galaxy query 2"]
) -> Float[Tensor, "galaxy draw query latent"]:
    """u at the queries for every draw: the same galaxy wherever it is asked.

    Args:
        field: p(u | z, c) at the queries, leading axes (galaxy, draw).
        draws: The draws.
        position: Sky positions of the queries, arcsec.
    """
    cumulative = torch.softmax(field.logits, -1).cumsum(-1)
    chosen = (draws.pick[..., None] > cumulative).sum(-1).clamp(max=cumulative.shape[-1] - 1)
    index = chosen[:, :, None, None, None]

    def of_class(values: Tensor) -> Tensor:
        shape = (*values.shape[:3], 1, values.shape[-1])
        return values.gather(3, index.expand(shape))[..., 0, :]

    latent = field.nugget.shape[0]
    own, apart = own_white(draws, position, 2 * latent).split(latent, dim=-1)
    smooth = torch.einsum("gdlf,glqf->gdql", draws.weights, waves(position, field.length))
    process = (1 - field.white).sqrt() * smooth + field.white.sqrt() * apart
    local = torch.einsum("gdqij,gdqj->gdqi", field.local, process)
    common = torch.einsum("gdqis,gds->gdqi", field.shared, draws.shared)
    return of_class(field.mean) + of_class(field.spread) * (common + local + own * field.nugget)


def waves(
    position: Float[Tensor, "galaxy query 2"], length: Float[Tensor, "galaxy latent"]
) -> Float[Tensor, "galaxy latent query feature"]:
    """Values of the Fourier features of each process; their squares sum to one."""
    fixed = torch.Generator().manual_seed(20261121)
    frequency = torch.randn(_FEATURES, 2, generator=fixed).to(position)
    angle = (position @ frequency.T)[:, None] / length[..., None, None]
    return torch.cat([angle.cos(), angle.sin()], -1) / _FEATURES**0.5


def own_white(
    draws: Draws, position: Float[Tensor, "galaxy query 2"], count: int
) -> Float[Tensor, "galaxy draw query white"]:
    """Standard normals of the white parts of the field: of the nugget, then of the processes."""
    drawn = _white(draws.seed, position, torch.arange(count, device=position.device))
    if draws.pinned is None:
        return drawn
    gap = (position[:, None, :, None] - draws.pinned.position[:, :, None]).abs().amax(-1)
    nearest = gap.argmin(-1)[..., None]
    known = draws.pinned.white.gather(2, nearest.expand(*nearest.shape[:-1], count))
    return torch.where(gap.amin(-1, keepdim=True) < _SAME, known.to(drawn), drawn)


def latent_at(
    network: GalaxyModel,
    context: Context,
    observed: Batch,
    draws: Draws,
    aperture: Float[Tensor, "galaxy query 4"],
) -> Float[Tensor, "galaxy draw query latent"]:
    """u at apertures for every draw."""
    # At a known redshift the field is the same in all draws: it is computed once.
    known = bool((draws.z == draws.z[:, :1]).all())
    field, _ = network.field(context, observed, aperture, draws.z[:, :1] if known else draws.z)
    if known:
        repeated = {
            name: getattr(field, name).expand(-1, draws.z.shape[1], *[-1] * trailing)
            for name in PER_DRAW
            for trailing in [getattr(field, name).ndim - 2]
        }
        field = replace(field, **repeated)
    if network.config.likelihood != "field":
        return field.mean[..., 0, :]
    return field_values(field, draws, aperture[..., :2])


def light_at(
    network: GalaxyModel,
    context: Context,
    observed: Batch,
    draws: Draws,
    aperture: Float[Tensor, "galaxy query 4"],
) -> RestSpectrum:
    """What apertures collect in every draw: rows (galaxy, draw, query)."""
    u = latent_at(network, context, observed, draws, aperture)
    scale = context.scale[:, None, None].expand(u.shape[:-1])
    light: RestSpectrum = network.spectrum_decoder(u, scale)
    return light


def spectra_at(
    network: GalaxyModel,
    context: Context,
    observed: Batch,
    draws: Draws,
    aperture: Float[Tensor, "galaxy query 4"],
    wavelength: Float[Tensor, "galaxy query pixel"],
    sigma: Float[Tensor, "galaxy query pixel"],
) -> Float[Tensor, "galaxy draw query pixel"]:
    """Noise-free spectra of every draw on any grid, the model's intrinsic scatter included.

    Args:
        network: The trained network.
        context: Its context.
        observed: What it was conditioned on.
        draws: The draws.
        aperture: dx, dy, diameter, seeing of each query, arcsec.
        wavelength: Observed pixel centres, Angstrom.
        sigma: Width of the line-spread function, Angstrom.

    Returns:
        Flux in 1e-17 erg/s/cm2/Angstrom.
    """
    shape = (*draws.z.shape, *wavelength.shape[1:])
    wavelength, sigma = wavelength[:, None].expand(shape), sigma[:, None].expand(shape)
    z = draws.z[..., None].expand(shape[:-1])
    if network.config.likelihood == "independent":
        return _independent(network, context, observed, draws, aperture, wavelength, sigma)
    light = light_at(network, context, observed, draws, aperture)
    mean = observe(network.templates, light, z, wavelength, sigma)
    if network.config.likelihood == "mse":
        return mean
    variance, factor = network.spectrum_decoder.uncertainty(mean, z, wavelength)
    mode = torch.arange(factor.shape[-1], device=mean.device)
    modes = _white(draws.seed + 1, aperture[..., :2], mode)
    pixels = _white(draws.seed + 2, aperture[..., :2], _place(wavelength))
    return mean + variance.sqrt() * pixels + (factor * modes[..., None, :]).sum(-1)


def _independent(
    network: GalaxyModel,
    context: Context,
    observed: Batch,
    draws: Draws,
    aperture: Tensor,
    wavelength: Tensor,
    sigma: Tensor,
) -> Tensor:
    assert network.pixel_scale is not None
    field, hidden = network.field(context, observed, aperture, draws.z)
    scale = context.scale[:, None, None].expand(hidden.shape[:-1])
    light = network.spectrum_decoder(field.mean[..., 0, :], scale)
    z = draws.z[..., None].expand(hidden.shape[:-1])
    mean = observe(network.templates, light, z, wavelength, sigma)
    log_scale = network.pixel_scale(hidden, z, wavelength)
    level = mean.abs().mean(-1, keepdim=True)
    white = _white(draws.seed + 2, aperture[..., :2], _place(wavelength))
    return mean + torch.exp(log_scale) * level * white


def _place(wavelength: Float[Tensor, "*rows pixel"]) -> Tensor:
    """A number for every hundredth of an Angstrom: the same pixel has it in every grid."""
    return (wavelength * 100).round().long()


def _white(
    seed: Float[Tensor, "galaxy draw"], position: Float[Tensor, "galaxy query 2"], index: Tensor
) -> Float[Tensor, "galaxy draw query count"]:
    """Standard normals, each a function of its draw, position and index alone.

    Counter-based: a hash of the three gives two uniforms, Box-Muller a normal, so that the answer
    does not depend on what else is asked in the same call.

    Args:
        seed: Seed of each draw.
        position: Sky positions, arcsec.
        index: Integers, last axis count; leading axes broadcast with (galaxy, draw, query).
    """
    place = (position * 1000).round().long()
    start = seed.long()[..., None] * 0x9E3779B1 + (
        place[:, None, :, 0] * 0x85EBCA6B + place[:, None, :, 1] * 0xC2B2AE35
    )
    counter = _mix(start)[..., None] + index * 0x27D4EB2F
    first, second = _uniform(counter), _uniform(counter ^ 0x165667B1)
    return ((-2 * first.log()).sqrt() * torch.cos(2 * torch.pi * second)).float()


def _uniform(counter: Tensor) -> Tensor:
    return (_mix(counter).double() + 0.5) / 2**32


def _mix(counter: Tensor) -> Tensor:
    """A 32-bit hash: every bit of the counter reaches every bit of the answer."""
    mask = 0xFFFFFFFF
    mixed = counter & mask
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed = mixed ^ (mixed >> shift)
        mixed = (mixed * factor) & mask
    return mixed ^ (mixed >> 16)
