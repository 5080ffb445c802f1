"""The decoders: modules that, given a latent, return the distribution of one modality.

`SpectrumDecoder` turns u into what an aperture collects (`RestSpectrum`: weights of the templates'
continuum curves, line fluxes, kinematics), to which the instrument is applied exactly, and adds
the model's own uncertainty: an intrinsic scale per rest wavelength and smooth flux-calibration
modes. `ImageDecoder` turns the context into the joint distribution of hidden patches in every
band.

Axes: row (any leading axes), basis, line, pixel, knot, mode; galaxy, band, cell, factor.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probmmae.continuum import continuum_level
from probmmae.encoder import Block, Context, fourier
from probmmae.instrument import RestSpectrum
from probmmae.level import LEVEL
from probmmae.templates import Templates
from probmmae.tokens import PATCH, SPECTRAL_UNIT

KNOTS = 64
KNOT_RANGE = (2000.0, 10900.0)
"""Angstrom, rest frame: between which the intrinsic uncertainty has its knots."""
MODES = 3
"""Of an error of flux calibration."""
LINE_FLOOR = 0.02
"""Angstrom: line strengths are logarithmic above this equivalent width, linear below."""


def to_physical(
    templates: Templates, rest: RestSpectrum, scale: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows physical"]:
    """ln level, continuum shape, ln equivalent widths, velocity, ln dispersions of an aperture."""
    level = (rest.continuum @ continuum_level(templates)).clamp(min=1e-6)
    return torch.cat(
        [
            torch.log(level / (scale * SPECTRAL_UNIT))[..., None],
            rest.continuum / level[..., None],
            torch.log(rest.lines.clamp(min=0) / level[..., None] + LINE_FLOOR),
            rest.velocity[..., None] / 100,
            torch.log(rest.sigma_star / 100)[..., None],
            torch.log(rest.sigma_gas / 100)[..., None],
        ],
        dim=-1,
    )


def from_physical(
    templates: Templates, physical: Float[Tensor, "*rows physical"], scale: Float[Tensor, "*rows"]
) -> RestSpectrum:
    """The inverse of `to_physical`."""
    basis, line = templates.continuum.shape[0], templates.line_wavelength.shape[0]
    log_level, shape, strength, velocity, star, gas = physical.split(
        [1, basis, line, 1, 1, 1], dim=-1
    )
    level = torch.exp(log_level.clamp(-12, 8)) * scale[..., None] * SPECTRAL_UNIT
    return RestSpectrum(
        continuum=shape * level,
        lines=(torch.exp(strength.clamp(-8, 9)) - LINE_FLOOR).clamp(min=0) * level,
        velocity=velocity[..., 0] * 100,
        sigma_star=100 * torch.exp(star[..., 0].clamp(-3, 2)),
        sigma_gas=100 * torch.exp(gas[..., 0].clamp(-3, 2)),
    )


def calibration_modes(
    wavelength: Float[Tensor, "*rows pixel"],
) -> Float[Tensor, "*rows pixel mode"]:
    """Smooth shapes that an error of flux calibration takes: constant, slope and bend."""
    low, high = math.log(3600.0), math.log(10400.0)
    x = ((torch.log(wavelength) - low) / (high - low) * 2 - 1).clamp(-1.5, 1.5)
    return torch.stack([torch.ones_like(x), x, 2 * x**2 - 1], dim=-1)


def knot_place(z: Float[Tensor, "*rows"], wavelength: Float[Tensor, "*rows pixel"]) -> Tensor:
    """Where observed pixels lie among the rest-frame knots, 0 the first; shape of `wavelength`."""
    low, high = math.log(KNOT_RANGE[0]), math.log(KNOT_RANGE[1])
    rest = torch.log(wavelength) - torch.log1p(z)[..., None]
    return (rest - low) / (high - low) * (KNOTS - 1)


class SpectrumDecoder(nn.Module):
    """u to the light an aperture collects, and the model's own uncertainty of it.

    u[0] is the level (ln of the continuum over the galaxy's scale, plus `LEVEL`); the rest of u
    is the code of everything relative to that level (`start` makes it).
    """

    def __init__(self, templates: Templates, latent: int, hidden: int) -> None:
        super().__init__()
        relative = templates.continuum.shape[0] + templates.line_wavelength.shape[0] + 3
        self.templates, self.hidden = templates, hidden
        self.register_buffer("mean", torch.zeros(relative))
        self.register_buffer("deviation", torch.ones(relative))
        self.straight = nn.Linear(latent - 1, relative, bias=False)
        self.bend = nn.Sequential(
            nn.Linear(latent - 1, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(),
            nn.Linear(hidden, relative),
        )  # fmt: skip
        self.log_intrinsic = nn.Parameter(torch.full((KNOTS,), math.log(0.01)))
        self.log_calibration = nn.Parameter(torch.full((MODES,), math.log(0.005)))

    def standard(self, code: Float[Tensor, "*rows code"]) -> Float[Tensor, "*rows relative"]:
        """Standardised numbers relative to the level, from u without its level."""
        return self.straight(code) + self.bend(code)

    def forward(
        self, u: Float[Tensor, "*rows latent"], scale: Float[Tensor, "*rows"]
    ) -> RestSpectrum:
        """The mean light of an aperture with latent u; `scale` is the galaxy's, nanomaggies."""
        relative = self.get_buffer("mean") + self.get_buffer("deviation") * self.standard(
            u[..., 1:]
        )
        physical = torch.cat([u[..., :1] - LEVEL, relative], dim=-1)
        return from_physical(self.templates, physical, scale)

    def uncertainty(
        self, mean: Float[Tensor, "*rows pixel"], z: Float[Tensor, "*rows"], wavelength: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Intrinsic variance per pixel, and the flux-calibration factors (last axis mode)."""
        own = self.at_rest(self.log_intrinsic.expand(*z.shape, KNOTS), z, wavelength)
        variance = (torch.exp(own).clamp(min=1e-3) * mean) ** 2
        modes = calibration_modes(wavelength)
        return variance, mean[..., None] * modes * torch.exp(self.log_calibration)

    @staticmethod
    def at_rest(
        knots: Float[Tensor, "*rows knot"], z: Float[Tensor, "*rows"], wavelength: Tensor
    ) -> Tensor:
        """Values at rest-frame knots interpolated to observed pixels, shape of `wavelength`."""
        place = knot_place(z, wavelength).clamp(0, KNOTS - 1.001)
        left = place.floor()
        index = left.long()
        return torch.lerp(knots.gather(-1, index), knots.gather(-1, index + 1), place - left)


class PixelScale(nn.Module):
    """Intrinsic fractional scale per rest wavelength from a query's features, pixel by pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, KNOTS)
        nn.init.zeros_(self.layer.weight)
        nn.init.constant_(self.layer.bias, math.log(0.3))

    def forward(self, hidden: Tensor, z: Tensor, wavelength: Tensor) -> Tensor:
        """ln of the fractional scale at each pixel."""
        return SpectrumDecoder.at_rest(self.layer(hidden).clamp(-7, 4), z, wavelength)


class ImageDecoder(nn.Module):
    """Context and redshift to the joint distribution of image patches in any band."""

    def __init__(self, width: int, heads: int, factors: int = 6) -> None:
        super().__init__()
        self.factors = factors
        self.position = nn.Linear(2 + 2 * 2 * 6, width)
        self.block = Block(width, heads)
        self.modulate = nn.Sequential(nn.Linear(3 + 8, 64), nn.GELU(), nn.Linear(64, 4 * width))
        self.widen = nn.Linear(width, 2 * width)
        self.out = nn.Linear(2 * width, PATCH**2 * (2 + factors))
        nn.init.normal_(self.out.weight, std=0.01)

    def forward(
        self,
        context: Context,
        redshift: Float[Tensor, "galaxy width"],
        position: Float[Tensor, "galaxy cell 2"],
        band: Float[Tensor, "galaxy band 3"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance (galaxy, band, cell, pixel) and factors (..., factor), nanomaggies."""
        query = self.position(torch.cat([position / 5, fourier(position, 40.0, 1.5, 6)], dim=-1))
        hidden = self.block(query + redshift[:, None], context.tokens, context.visible)
        coordinates = torch.cat([band, fourier(band[..., :1], 4.0, 0.25, 4)], dim=-1)
        gain, offset = self.modulate(coordinates)[:, :, None].chunk(2, dim=-1)
        wide = nn.functional.gelu(self.widen(hidden)[:, None] * (1 + gain) + offset)
        raw = self.out(wide).unflatten(-1, (PATCH**2, 2 + self.factors))
        unit = context.scale[:, None, None, None] / 50
        mean = unit * torch.sinh(raw[..., 0].clamp(-9, 9))
        scale = unit * torch.exp(raw[..., 1].clamp(-7, 6) - 1)
        return mean, scale**2, scale[..., None] * raw[..., 2:]
