"""The decoders: modules that, given a latent, return the distribution of one modality.

`SpectrumDecoder` turns u into what an aperture collects (`RestSpectrum`: weights of the templates'
continuum curves, line fluxes, kinematics), to which the instrument is applied exactly, and adds
the model's own uncertainty: an intrinsic scale per rest wavelength and smooth flux-calibration
modes. `ImageDecoder` turns the context into the joint distribution of hidden patches in every
band.

Axes: row (any leading axes), basis, line, pixel, knot, mode; galaxy, band, cell, factor.
"""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probmmae.encoder import Block, Context, fourier
from probmmae.instrument import RestSpectrum
from probmmae.templates import Templates
from probmmae.tokens import PATCH, SPECTRAL_UNIT

_KNOTS = 64
_KNOT_RANGE = (2000.0, 10900.0)
_MODES = 3
_LINE_FLOOR = 0.02
"""Angstrom: line strengths are logarithmic above this equivalent width, linear below."""


@dataclass(frozen=True)
class Summary:
    """An aperture's physical numbers as one vector, standardised, and their principal axes."""

    mean: Float[Tensor, " physical"]
    deviation: Float[Tensor, " physical"]
    axes: Float[Tensor, "physical latent"]
    """Columns: principal axes of the standardised numbers times the root of their variance."""


def continuum_level(templates: Templates) -> Float[Tensor, " basis"]:
    """Mean of each continuum curve between 4500 and 6500 Angstrom rest."""
    wavelength = templates.wavelength
    inside = (wavelength > 4500) & (wavelength < 6500)
    return templates.continuum[:, inside].mean(1)


def to_physical(
    templates: Templates, rest: RestSpectrum, scale: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows physical"]:
    """ln level, continuum shape, ln equivalent widths, velocity, ln dispersions of an aperture."""
    level = (rest.continuum @ continuum_level(templates)).clamp(min=1e-6)
    return torch.cat(
        [
            torch.log(level / (scale * SPECTRAL_UNIT))[..., None],
            rest.continuum / level[..., None],
            torch.log(rest.lines.clamp(min=0) / level[..., None] + _LINE_FLOOR),
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
        lines=(torch.exp(strength.clamp(-8, 9)) - _LINE_FLOOR).clamp(min=0) * level,
        velocity=velocity[..., 0] * 100,
        sigma_star=100 * torch.exp(star[..., 0].clamp(-3, 2)),
        sigma_gas=100 * torch.exp(gas[..., 0].clamp(-3, 2)),
    )


def summarise(templates: Templates, rest: RestSpectrum, scale: Tensor, latent: int) -> Summary:
    """Principal axes of many apertures' physical numbers: where the decoder starts from."""
    numbers = to_physical(templates, rest, scale).double()
    basis, line = templates.continuum.shape[0], templates.line_wavelength.shape[0]
    mean, deviation = numbers.mean(0), numbers.std(0).clamp(min=1e-4)
    # Weights of curves count by the flux they move, lines by the root of the flux they carry, and
    # each of the three motions, which few spectra resolve, a quarter of what the level counts.
    moved = templates.continuum.double().square().mean(1).sqrt() * deviation[1 : 1 + basis]
    carried = rest.lines.double().mean(0).clamp(min=0)
    carried = (carried / carried.max()).sqrt().clamp(min=0.1)
    count = torch.ones_like(deviation)
    count[1 : 1 + basis] = moved * math.sqrt(8) / moved.square().sum().sqrt()
    count[1 + basis : 1 + basis + line] = carried * math.sqrt(8) / carried.square().sum().sqrt()
    count[-3:] = 0.5
    deviation = deviation / count
    standard = (numbers - mean) / deviation
    _, size, axes = torch.linalg.svd(standard, full_matrices=False)
    root = size[:latent] / math.sqrt(len(numbers))
    return Summary(mean.float(), deviation.float(), (axes[:latent].T * root).float())


class SpectrumDecoder(nn.Module):
    """u to the light an aperture collects, and the model's own uncertainty of it."""

    def __init__(self, templates: Templates, latent: int, hidden: int) -> None:
        super().__init__()
        physical = templates.continuum.shape[0] + templates.line_wavelength.shape[0] + 4
        self.templates = templates
        for field in fields(Summary):
            shape = (physical, latent) if field.name == "axes" else (physical,)
            self.register_buffer(field.name, torch.zeros(shape))
        self.bend = nn.Sequential(
            nn.Linear(latent, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(),
            nn.Linear(hidden, physical),
        )  # fmt: skip
        last = self.bend[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.log_intrinsic = nn.Parameter(torch.full((_KNOTS,), math.log(0.05)))
        self.log_calibration = nn.Parameter(torch.full((_MODES,), math.log(0.01)))

    def set_summary(self, summary: Summary) -> None:
        """Start from the principal axes of many apertures."""
        for field in fields(Summary):
            self.get_buffer(field.name).copy_(getattr(summary, field.name))

    def forward(
        self, u: Float[Tensor, "*rows latent"], scale: Float[Tensor, "*rows"]
    ) -> RestSpectrum:
        """The mean light of an aperture with latent u; `scale` is the galaxy's, nanomaggies."""
        standard = u @ self.get_buffer("axes").T + self.bend(u)
        physical = self.get_buffer("mean") + self.get_buffer("deviation") * standard
        return from_physical(self.templates, physical, scale)

    def uncertainty(
        self, mean: Float[Tensor, "*rows pixel"], z: Float[Tensor, "*rows"], wavelength: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Intrinsic variance per pixel, and the flux-calibration factors (last axis mode)."""
        own = self.at_rest(self.log_intrinsic.expand(*z.shape, _KNOTS), z, wavelength)
        variance = (torch.exp(own).clamp(min=1e-3) * mean) ** 2
        low, high = math.log(3600.0), math.log(10400.0)
        x = ((torch.log(wavelength) - low) / (high - low) * 2 - 1).clamp(-1.5, 1.5)
        modes = torch.stack([torch.ones_like(x), x, 2 * x**2 - 1], dim=-1)
        return variance, mean[..., None] * modes * torch.exp(self.log_calibration)

    @staticmethod
    def at_rest(
        knots: Float[Tensor, "*rows knot"], z: Float[Tensor, "*rows"], wavelength: Tensor
    ) -> Tensor:
        """Values at rest-frame knots interpolated to observed pixels, shape of `wavelength`."""
        low, high = math.log(_KNOT_RANGE[0]), math.log(_KNOT_RANGE[1])
        rest = torch.log(wavelength) - torch.log1p(z)[..., None]
        place = ((rest - low) / (high - low) * (_KNOTS - 1)).clamp(0, _KNOTS - 1.001)
        left = place.floor()
        index = left.long()
        return torch.lerp(knots.gather(-1, index), knots.gather(-1, index + 1), place - left)


class PixelScale(nn.Module):
    """Intrinsic fractional scale per rest wavelength from a query's features, pixel by pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, _KNOTS)
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
