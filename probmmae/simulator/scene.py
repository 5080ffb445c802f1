"""Galaxies on the sky: from a `Population` to a sum of Gaussian blobs that shine and move.

Every part of the population owns blobs: the bulge a ladder of concentric ones (a Sersic profile),
each zone of the disk one (together an exponential), each clump family several, on spiral arms or
scattered.

Sky axes are x (east) and y (north), arcsec, from the galaxy's centre.

Axes: galaxy, part, blob, basis, line; covariances are stored as (xx, xy, yy).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from probmmae.batch import Rows
from probmmae.simulator.population import PARTS, ZONES, Population
from probmmae.simulator.profiles import BULGE, BULGE_WIDTHS, DISK

CLUMPS = 12
"""Blobs of the clump families together; they alternate between the two."""

_BULGE = len(BULGE_WIDTHS)
BLOBS = _BULGE + ZONES + CLUMPS
#: Part that each blob belongs to.
PART_OF_BLOB = torch.tensor(
    [0] * _BULGE
    + [1 + zone for zone in range(ZONES)]
    + [1 + ZONES + clump % 2 for clump in range(CLUMPS)]
)


@dataclass(frozen=True)
class Scene(Rows):
    """Light and motion as blobs, before atmosphere and instrument."""

    z: Float[Tensor, " galaxy"]
    """Redshift."""
    position: Float[Tensor, "galaxy blob 2"]
    """Centres, arcsec."""
    covariance: Float[Tensor, "galaxy blob 3"]
    """xx, xy, yy, arcsec^2."""
    share: Float[Tensor, "galaxy blob"]
    """Part of its population's light that a blob carries."""
    continuum: Float[Tensor, "galaxy part basis"]
    """Of whole parts, 1e-17 erg/s/cm2/Angstrom observed."""
    lines: Float[Tensor, "galaxy part line"]
    """Of whole parts, 1e-17 erg/s/cm2."""
    sigma_star: Float[Tensor, "galaxy part"]
    """Velocity dispersion of the stars at a point, km/s."""
    sigma_gas: Float[Tensor, "galaxy part"]
    """Velocity dispersion of the gas at a point, km/s."""
    spin: Float[Tensor, "galaxy part"]
    """How much of the disk's rotation a part takes part in, 0 to 1."""
    v_max: Float[Tensor, " galaxy"]
    """Rotation speed times the sine of the inclination, km/s."""
    turnover: Float[Tensor, " galaxy"]
    """Radius where the rotation curve turns flat, arcsec."""
    position_angle: Float[Tensor, " galaxy"]
    """Of the major axis, radians from east towards north."""
    cos_inclination: Float[Tensor, " galaxy"]
    """1 is face-on."""

    def __len__(self) -> int:
        """Number of galaxies."""
        return self.z.shape[0]


def draw_scene(population: Population, generator: Generator) -> Scene:
    """Place a population on the sky; clumps are random, all else is the population's own.

    Args:
        population: The galaxies.
        generator: Source of randomness (on the CPU).
    """
    angle, cos_i = population.position_angle, population.cos_inclination
    thin = torch.sqrt(cos_i**2 + 0.15**2 * (1 - cos_i**2))
    bulge_covariance, bulge_share = _bulge(population)
    zone_width = population.disk_radius[:, None] * torch.tensor([width for width, _ in DISK])
    zones = _ellipse(zone_width, thin[:, None], angle[:, None])
    clump_position, clump_covariance, clump_share = _clumps(population, thin, generator)
    n = len(population)
    still = torch.zeros(n, _BULGE + ZONES, 2)
    gas = population.sigma_gas[:, None].expand(-1, PARTS - 1)
    stars = population.sigma_disk[:, None].expand(-1, PARTS - 1)
    # Stars of the inner disk move faster than those outside; gas in the bulge feels its depth.
    fall = torch.tensor([1.3, 1.1, 0.9, 0.75, 0.7, 0.7])
    return Scene(
        z=population.z,
        position=torch.cat([still, clump_position], dim=1),
        covariance=torch.cat([bulge_covariance, zones, clump_covariance], dim=1),
        share=torch.cat([bulge_share, torch.ones(n, ZONES), clump_share], dim=1),
        continuum=population.continuum,
        lines=population.lines,
        sigma_star=torch.cat([population.sigma_bulge[:, None], stars * fall], dim=1),
        sigma_gas=torch.cat([0.8 * population.sigma_bulge[:, None], gas], dim=1),
        spin=torch.tensor([0.3, 0.8, 0.9, 0.95, 0.95, 1.0, 1.0]).expand(n, -1),
        v_max=population.v_rot * torch.sqrt(1 - cos_i**2),
        turnover=0.45 * population.disk_radius,
        position_angle=angle,
        cos_inclination=cos_i,
    )


def rotation(
    scene: Scene, x: Float[Tensor, "galaxy *point"], y: Float[Tensor, "galaxy *point"]
) -> Float[Tensor, "galaxy *point"]:
    """Line-of-sight velocity of the disk's plane at sky positions, km/s."""

    def fit(value: Tensor) -> Tensor:
        return value.reshape(-1, *[1] * (x.dim() - 1))

    cos_a, sin_a = fit(torch.cos(scene.position_angle)), fit(torch.sin(scene.position_angle))
    major = cos_a * x + sin_a * y
    minor = (cos_a * y - sin_a * x) / fit(scene.cos_inclination.clamp(min=0.25))
    radius = torch.sqrt(major**2 + minor**2) + 1e-6
    speed = fit(scene.v_max) * (2 / math.pi) * torch.atan(2 * radius / fit(scene.turnover))
    return speed * major / radius


def _ellipse(width: Tensor, ratio: Tensor, angle: Tensor) -> Tensor:
    """Covariance (xx, xy, yy) of Gaussians with major width `width` and axis ratio `ratio`."""
    major, minor = width**2, (width * ratio) ** 2
    cos_a, sin_a = torch.cos(angle), torch.sin(angle)
    return torch.stack(
        [
            major * cos_a**2 + minor * sin_a**2,
            (major - minor) * cos_a * sin_a,
            major * sin_a**2 + minor * cos_a**2,
        ],
        dim=-1,
    )


def _bulge(population: Population) -> tuple[Tensor, Tensor]:
    width = population.bulge_radius[:, None] * torch.tensor(BULGE_WIDTHS)
    # Widths are along the major axis; the half-light radius is that of the circle of equal area.
    width = width / population.bulge_axis_ratio[:, None].sqrt()
    covariance = _ellipse(
        width, population.bulge_axis_ratio[:, None], population.position_angle[:, None]
    )
    table = torch.tensor(BULGE)
    table = table / table.sum(1, keepdim=True)
    place = (population.sersic - 1).clamp(0, 2.999)
    left = place.long()
    share = torch.lerp(table[left], table[left + 1], (place - left)[:, None])
    return covariance, share


def _clumps(
    population: Population, thin: Tensor, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, covariances, shares of the clumps: spirals in half the galaxies."""
    n = len(population)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(n, *shape, generator=generator)

    # Radii of an exponential disk (a gamma law of shape 2), in scale lengths.
    radius = -(torch.log(uniform(1e-6, 1.0, CLUMPS)) + torch.log(uniform(1e-6, 1.0, CLUMPS)))
    radius = (0.2 + uniform(0.7, 1.1, 1) * radius).clamp(max=4.5)
    arm = torch.arange(CLUMPS) // 2 % 2 * math.pi
    winding = uniform(1.2, 3.5, 1) * torch.where(uniform(0.0, 1.0, 1) < 0.5, -1.0, 1.0)
    spiral = arm + winding * torch.log(radius + 0.3) + uniform(0.0, 2 * math.pi, 1)
    spiral = spiral + 0.25 * normal(CLUMPS)
    anywhere = uniform(0.0, 2 * math.pi, CLUMPS)
    angle = torch.where(uniform(0.0, 1.0, 1) < 0.55, spiral, anywhere)
    scale = population.disk_radius[:, None]
    major, minor = radius * torch.cos(angle) * scale, radius * torch.sin(angle) * scale
    minor = minor * thin[:, None]
    cos_a = torch.cos(population.position_angle)[:, None]
    sin_a = torch.sin(population.position_angle)[:, None]
    position = torch.stack([cos_a * major - sin_a * minor, sin_a * major + cos_a * minor], dim=-1)
    width = scale * 10 ** (-0.75 + 0.22 * normal(CLUMPS)) * (0.6 + 0.4 * radius)
    covariance = _ellipse(width, thin[:, None], population.position_angle[:, None])
    brightness = torch.exp(0.8 * normal(CLUMPS)).reshape(n, CLUMPS // 2, 2)
    share = (brightness / brightness.sum(1, keepdim=True)).reshape(n, CLUMPS)
    return position, covariance, share
