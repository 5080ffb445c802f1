"""The level of the light in an aperture, measured: what images say of u[0] without a network.

A network that must give a number to a hundredth of its range learns it late, and what its weights
still move is counted as scatter. So the level, ln of the mean continuum between 4500 and 6500
Angstrom rest, is measured first: the flux of every band through the aperture, at the aperture's
seeing where the image's is better, drawn through the bands to the level's wavelength.

Axes: galaxy, draw (of z), query (aperture), band, y, x (pixels).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probmmae.batch import NANOMAGGIE_FLAMBDA, Images
from probmmae.tokens import SPECTRAL_UNIT, pixel_positions

LEVEL = 2.0
"""u[0] is ln(continuum level of the aperture / scale of the galaxy) plus this: about standard."""
_MIDDLE = 5500.0
"""Rest Angstrom of the level."""
_REACH = 0.2
"""In ln wavelength: how far from the level's wavelength bands count."""
_STIFF = 0.02
"""Holds the slope of the light over the bands to zero where few bands tell it."""
_QUERIES = 128
"""Apertures at a time: bounds the memory of cubes."""
_COLOUR_ERROR = 0.05
"""Error in ln of a level drawn through bands: lines, breaks, the wings of the seeing."""


@dataclass(frozen=True)
class MeasuredLevel:
    """u[0] as something measures it."""

    mean: Float[Tensor, "galaxy draw query"]
    error: Float[Tensor, "galaxy draw query"]
    """Standard error; infinite where nothing is visible."""

    def combined(self, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of Gaussians times the measurement; a class axis is last."""
        gain = (deviation / self.error[..., None]) ** 2
        shift = gain / (1 + gain) * (self.mean[..., None] - mean)
        return mean + shift, deviation * torch.rsqrt(1 + gain)


def level_of_images(
    images: Images,
    aperture: Float[Tensor, "galaxy query 4"],
    z: Float[Tensor, "galaxy draw"],
    scale: Float[Tensor, " galaxy"],
) -> MeasuredLevel:
    """The level through each aperture at each redshift."""
    flux, error = flux_through(images, aperture)
    seen = torch.isfinite(error)
    error = torch.where(seen, error, 1.0)
    ln_wavelength = torch.log(images.wavelength)
    # A faint flux stands at its error, with an error of that size.
    bright = torch.sqrt(flux.clamp(min=0) ** 2 + error**2)
    value = torch.log(bright / scale[:, None, None]) - 2 * ln_wavelength[:, None]
    away = ln_wavelength[:, None] - math.log(_MIDDLE) - torch.log1p(z)[..., None]
    weight = torch.exp(-0.5 * (away / _REACH) ** 2)[:, :, None] * seen[:, None]
    weight = weight + 1e-4 * seen[:, None]
    away, value = away[:, :, None], value[:, None]
    # A straight line through the bands, read at the level's wavelength.
    total, first, second = (
        (weight * part).sum(-1) for part in (torch.ones_like(away), away, away**2)
    )
    second = second + _STIFF * total
    below = (total * second - first**2).clamp(min=1e-12)
    share = weight * (second[..., None] - first[..., None] * away) / below[..., None]
    noise = (share * (error / bright)[:, None]).square().sum(-1)
    unit = math.log(NANOMAGGIE_FLAMBDA / SPECTRAL_UNIT)
    return MeasuredLevel(
        mean=((share * value).sum(-1) + unit + LEVEL).clamp(-12, 10),
        error=torch.where(
            seen.any(-1)[:, None], (noise + _COLOUR_ERROR**2).sqrt(), torch.inf
        ).clamp(min=_COLOUR_ERROR),
    )


def flux_through(
    images: Images, aperture: Float[Tensor, "galaxy query 4"]
) -> tuple[Float[Tensor, "galaxy query band"], Float[Tensor, "galaxy query band"]]:
    """Flux of every band through a round aperture, nanomaggies, and its error.

    The error is infinite where less than a fifth of the aperture is visible. Apertures are dx, dy,
    diameter and FWHM of the seeing, arcsec; an image of worse seeing is taken as it is.
    """
    parts = [_flux_through(images, some) for some in aperture.split(_QUERIES, dim=1)]
    flux, error = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return flux, error


def _flux_through(images: Images, aperture: Tensor) -> tuple[Tensor, Tensor]:
    seen = (images.ivar > 0).to(images.flux.dtype)
    pixel = images.pixel_scale[:, None, None]
    sigma = (aperture[..., 3:] ** 2 - images.psf_fwhm[:, None] ** 2).clamp(min=0).sqrt() / 2.3548
    sigma = sigma.maximum(0.5 * pixel)[..., None, None]
    x, y = pixel_positions(images)
    right, up = x[:, None] - aperture[..., :1], y[:, None] - aperture[..., 1:2]
    radius = (right[:, :, None] ** 2 + up[..., None] ** 2).sqrt()
    # Pixels on the rim count in part, so that the area is right on average: hence the twelfth.
    rim = ((0.5 * aperture[..., 2:3] / pixel) ** 2 - 1 / 12).clamp(min=0).sqrt()[..., None]
    disc = (rim - radius / pixel[..., None] + 0.5).clamp(0, 1)

    def smoothing(side: int) -> Tensor:
        step = torch.arange(side, device=sigma.device)
        at = step * pixel[..., None] / sigma[..., 0]
        width = pixel[..., None] / (math.sqrt(2 * math.pi) * sigma[..., 0])
        return (torch.exp(-0.5 * at**2) * width)[..., (step[:, None] - step).abs()]

    window = smoothing(y.shape[1]) @ disc[:, :, None] @ smoothing(x.shape[1])
    area = 0.25 * torch.pi * (aperture[..., 2:3] / pixel) ** 2
    visible = (window * seen[:, None]).sum((-2, -1)) / area
    flux = (window * (images.flux * seen)[:, None]).sum((-2, -1))
    variance = (window**2 * (seen / images.ivar.clamp(min=1e-20))[:, None]).sum((-2, -1))
    lost = visible.clamp(min=0.2, max=1.0)
    error = torch.where(visible > 0.2, variance.sqrt() / lost, torch.inf)
    return flux / lost, error.clamp(min=1e-12)
