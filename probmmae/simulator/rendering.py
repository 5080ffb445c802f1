"""What telescopes would see without noise: from a `Scene` to images, apertures and cubes.

The point-spread function is a Moffat profile as a mixture of round Gaussians (`profiles.PSF`), so
a blob stays a sum of Gaussians. A pixel adds the variance of a square to an image; an aperture is
integrated by quadrature, at whose points the rotation of the disk is evaluated too.

Axes: galaxy, part, blob, band, y, x, spectrum (aperture), point (of the quadrature), basis, line.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probmmae.instrument import RestSpectrum
from probmmae.simulator.bandpasses import HSC, load_bandpasses
from probmmae.simulator.population import PARTS
from probmmae.simulator.profiles import PSF
from probmmae.simulator.scene import BLOBS, PART_OF_BLOB, Scene, rotation
from probmmae.templates import load_templates

_RINGS, _SPOKES = 6, 16
_SQUARE_SIDE = 6


def render_images(
    scene: Scene,
    bands: tuple[str, ...] = HSC,
    *,
    pixel_scale: Float[Tensor, " galaxy"],
    psf_fwhm: Float[Tensor, "galaxy band"],
    size: int,
) -> Float[Tensor, "galaxy band size size"]:
    """Noise-free images centred on the galaxies, nanomaggies per pixel.

    Args:
        scene: The galaxies.
        bands: speclite names.
        pixel_scale: Side of a pixel, arcsec.
        psf_fwhm: FWHM of the point-spread function, arcsec.
        size: Pixels a side.
    """
    light = load_bandpasses(bands).flux(scene.z, scene.continuum, scene.lines)
    light = light[:, PART_OF_BLOB].mT * scene.share[:, None]
    scale = pixel_scale[:, None, None]
    offset = torch.arange(size, dtype=scale.dtype) - (size - 1) / 2
    x = scale * offset - scene.position[..., :1]
    y = scale * offset - scene.position[..., 1:]
    area = (pixel_scale**2)[:, None, None]
    image = torch.zeros(len(scene), len(bands), size, size)
    for width, weight in PSF:
        added = (width * psf_fwhm) ** 2 + (pixel_scale**2)[:, None] / 12
        xx = scene.covariance[:, None, :, 0] + added[..., None]
        yy = scene.covariance[:, None, :, 2] + added[..., None]
        xy = scene.covariance[:, None, :, 1]
        determinant = xx * yy - xy**2
        height = weight * light * area / (2 * math.pi * torch.sqrt(determinant))
        # With the square completed in x: a Gaussian along x for every y, summed over the blobs.
        steep, lean = -0.5 * yy / determinant, xy / yy
        along = height[..., None] * torch.exp(-0.5 * y[:, None] ** 2 / yy[..., None])
        middle = (lean[..., None] * y[:, None]).mT
        along, steep = along.mT[..., None, :], steep[:, :, None, :, None]
        for galaxy in range(len(scene)):  # one at a time stays in the processor's cache
            across = x[galaxy, None, None] - middle[galaxy][..., None]
            across = across.square_().mul_(steep[galaxy]).clamp_(min=-60.0).exp_()
            image[galaxy] += torch.matmul(along[galaxy], across)[..., 0, :]
    return image


@lru_cache(maxsize=4)
def _disc() -> tuple[Tensor, Tensor]:
    """Points (point, 2) and weights of a quadrature over the unit disc, weights summing to pi."""
    node, weight = np.polynomial.legendre.leggauss(_RINGS)
    radius = np.sqrt(0.5 * (node + 1))
    # Rings are turned against each other so that no spoke is favoured.
    turn = np.arange(_RINGS)[:, None] * 0.5
    angle = (np.arange(_SPOKES) + turn) * 2 * np.pi / _SPOKES
    points = np.stack([radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle)], axis=-1)
    weights = np.repeat(weight / 2 * np.pi / _SPOKES, _SPOKES)
    return torch.from_numpy(points.reshape(-1, 2)).float(), torch.from_numpy(weights).float()


@lru_cache(maxsize=4)
def _square() -> tuple[Tensor, Tensor]:
    """The same over the square of unit side, weights summing to 1."""
    middle = (torch.arange(_SQUARE_SIDE) + 0.5) / _SQUARE_SIDE - 0.5
    points = torch.cartesian_prod(middle, middle)
    return points, torch.full((len(points),), 1 / len(points))


def collect(scene: Scene, aperture: Float[Tensor, "galaxy spectrum 4"]) -> RestSpectrum:
    """The light that falls through round apertures behind the seeing.

    Args:
        scene: The galaxies.
        aperture: dx, dy, diameter, FWHM of the seeing, arcsec.
    """
    points, weights = _disc()
    radius = aperture[..., 2, None] / 2
    x = aperture[..., 0, None] + radius * points[:, 0]
    y = aperture[..., 1, None] + radius * points[:, 1]
    return _gather(scene, x, y, weights * radius**2, aperture[..., 3])


def collect_square(
    scene: Scene,
    centre: Float[Tensor, "galaxy spectrum 2"],
    *,
    side: float,
    seeing: Float[Tensor, "galaxy spectrum"],
) -> RestSpectrum:
    """The light that falls on square spaxels behind the seeing.

    Args:
        scene: The galaxies.
        centre: dx, dy, arcsec.
        side: Of a spaxel, arcsec.
        seeing: FWHM, arcsec.
    """
    points, weights = _square()
    x = centre[..., 0, None] + side * points[:, 0]
    y = centre[..., 1, None] + side * points[:, 1]
    return _gather(scene, x, y, weights * side**2, seeing)


def cube(
    scene: Scene, *, side: float, size: int, seeing: float
) -> tuple[RestSpectrum, Float[Tensor, "galaxy spectrum 2"]]:
    """The light of every spaxel of a square field, and where the spaxels are (dx, dy, arcsec).

    Args:
        scene: The galaxies.
        side: Of a spaxel, arcsec.
        size: Spaxels a side; the rows are y-major, from the south-west corner.
        seeing: FWHM, arcsec.
    """
    offset = (torch.arange(size) - (size - 1) / 2) * side
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    centre = torch.stack([x.flatten(), y.flatten()], dim=-1).expand(len(scene), -1, -1)
    fwhm = torch.full(centre.shape[:2], seeing)
    return collect_square(scene, centre, side=side, seeing=fwhm), centre


def _gather(
    scene: Scene,
    x: Float[Tensor, "galaxy spectrum point"],
    y: Float[Tensor, "galaxy spectrum point"],
    weights: Float[Tensor, "*any point"],
    seeing: Float[Tensor, "galaxy spectrum"],
) -> RestSpectrum:
    """Sum the blobs over quadrature points; weights are areas in arcsec^2."""
    dx = x[:, :, None] - scene.position[:, None, :, :1]
    dy = y[:, :, None] - scene.position[:, None, :, 1:]
    density = torch.zeros_like(dx)
    for width, weight in PSF:
        added = ((width * seeing) ** 2)[:, :, None]
        xx, yy = scene.covariance[:, None, :, 0] + added, scene.covariance[:, None, :, 2] + added
        xy = scene.covariance[:, None, :, 1].expand_as(xx)
        determinant = xx * yy - xy**2
        square = yy[..., None] * dx**2 - 2 * xy[..., None] * dx * dy + xx[..., None] * dy**2
        height = weight / (2 * math.pi * determinant.sqrt())
        density += height[..., None] * torch.exp(-0.5 * square / determinant[..., None])
    density = density * scene.share[:, None, :, None]
    # To parts before anything else: (galaxy, spectrum, part, point), light a point.
    belongs = torch.zeros(PARTS, BLOBS)
    belongs[PART_OF_BLOB, torch.arange(BLOBS)] = 1.0
    inside = torch.matmul(belongs, density) * weights[..., None, :]
    amount = inside.sum(-1)
    field = rotation(scene, x, y)
    first = torch.einsum("gspq,gsq->gsp", inside, field) * scene.spin[:, None]
    second = torch.einsum("gspq,gsq->gsp", inside, field**2) * scene.spin[:, None] ** 2
    templates = load_templates()
    visible = (templates.wavelength > 4500) & (templates.wavelength < 6500)
    star = scene.continuum @ templates.continuum[:, visible].mean(1)
    gas = scene.lines[..., templates.line("H-alpha")]
    velocity, sigma_star = _moments(amount, first, second, star, scene.sigma_star)
    _, sigma_gas = _moments(amount, first, second, gas, scene.sigma_gas)
    return RestSpectrum(
        continuum=torch.bmm(amount, scene.continuum),
        lines=torch.bmm(amount, scene.lines),
        velocity=velocity,
        sigma_star=sigma_star,
        sigma_gas=sigma_gas,
    )


def _moments(
    amount: Tensor, first: Tensor, second: Tensor, light: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Light-weighted mean velocity and dispersion, both (galaxy, spectrum), km/s."""
    light = light[:, None].clamp(min=0)
    total = (amount * light).sum(-1) + 1e-30
    mean = (first * light).sum(-1) / total
    within = ((second + amount * sigma[:, None] ** 2) * light).sum(-1) / total
    return mean, torch.sqrt((within - mean**2).clamp(min=25.0))
