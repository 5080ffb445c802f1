"""Galaxies as random numbers: from a seed to redshift, mass, history, light, structure and motion.

A galaxy is the sum of seven parts, each one stellar population with its own dust and gas: a bulge,
four zones of a disk from the centre outwards, and two families of star-forming clumps.

The redshift distribution is that of a survey limited at r about 20.5: p(z) is proportional to
z^1.5 exp(-(z / 0.26)^1.6) on 0.01-0.65, with one galaxy in eight uniform in z. Masses follow a
Schechter function above the mass that such a survey sees at that redshift.

Axes: galaxy, part (bulge, 4 zones, 2 clump families), smooth (bulge and zones), age, basis, line,
band.

References:
    Schechter 1976; Shen et al. 2003 (MNRAS 343, 978; sizes); Tremonti et al. 2004 (ApJ 613, 898;
    metals); Speagle et al. 2014 (ApJS 214, 15; star formation); Tully & Fisher 1977; Faber &
    Jackson 1976.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from probmmae.batch import Rows
from probmmae.simulator.bandpasses import HSC, load_bandpasses
from probmmae.simulator.cosmology import age_of_universe, kpc_per_arcsec, luminosity_distance
from probmmae.simulator.profiles import DISK
from probmmae.simulator.stars import delayed_tau, light
from probmmae.simulator.weak_lines import species, weak_lines
from probmmae.templates import Templates, load_templates

ZONES = 4
CLUMP_FAMILIES = 2
PARTS = 1 + ZONES + CLUMP_FAMILIES
Z_MIN, Z_MAX = 0.01, 0.65

_SOLAR_LUMINOSITY = 3.828e33
_MPC = 3.0856775814913673e24
_RECENT = 1e8
"""Years: star formation is a rate over this time."""
_RECENT_BINS = 4


@dataclass(frozen=True)
class Population(Rows):
    """Galaxies before they have a place on the sky."""

    z: Float[Tensor, " galaxy"]
    """Redshift."""
    log_mass: Float[Tensor, " galaxy"]
    """Decimal logarithm of the stellar mass ever formed, solar masses."""
    log_ssfr: Float[Tensor, " galaxy"]
    """Decimal logarithm of the star formation rate over 100 Myr a mass formed, 1/year."""
    bulge_fraction: Float[Tensor, " galaxy"]
    """Share of the bulge in the smooth mass."""
    continuum: Float[Tensor, "galaxy part basis"]
    """Weights of the templates' curves of a whole part, 1e-17 erg/s/cm2/Angstrom observed."""
    lines: Float[Tensor, "galaxy part line"]
    """Line fluxes of a whole part, 1e-17 erg/s/cm2."""
    bulge_radius: Float[Tensor, " galaxy"]
    """Half-light radius of the bulge (of the circle of equal area), arcsec."""
    disk_radius: Float[Tensor, " galaxy"]
    """Exponential scale length, arcsec."""
    r_eff: Float[Tensor, " galaxy"]
    """Nominal half-mass radius of the whole galaxy, arcsec."""
    sersic: Float[Tensor, " galaxy"]
    """Sersic index of the bulge, 1 to 4."""
    bulge_axis_ratio: Float[Tensor, " galaxy"]
    """Minor over major axis of the bulge on the sky."""
    cos_inclination: Float[Tensor, " galaxy"]
    """1 is face-on."""
    position_angle: Float[Tensor, " galaxy"]
    """Of the major axis, radians from east towards north."""
    v_rot: Float[Tensor, " galaxy"]
    """Rotation speed of the disk, km/s, positive where the major axis recedes."""
    sigma_bulge: Float[Tensor, " galaxy"]
    """Velocity dispersion of the bulge, km/s."""
    sigma_disk: Float[Tensor, " galaxy"]
    """Velocity dispersion of the disk's stars, km/s."""
    sigma_gas: Float[Tensor, " galaxy"]
    """Velocity dispersion of the disk's gas, km/s."""

    def __len__(self) -> int:
        """Number of galaxies."""
        return self.z.shape[0]


@dataclass(frozen=True)
class _Draws:
    """Random numbers of one shape a row, from one generator."""

    rows: int
    generator: Generator

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.rows, *shape, generator=self.generator)

    def uniform(self, low: float = 0.0, high: float = 1.0, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(self.rows, *shape, generator=self.generator)


def draw_population(n: int, generator: Generator) -> Population:
    """Draw `n` galaxies.

    Args:
        n: Number of galaxies, at least 1.
        generator: Source of randomness (on the CPU).

    Raises:
        ValueError: `n` is not positive.
    """
    if n < 1:
        raise ValueError(f"Expected a positive number of galaxies; got {n}. Ask for at least one.")
    chunk = 20_000
    parts = [_draw(min(chunk, n - start), generator) for start in range(0, n, chunk)]
    if len(parts) == 1:
        return parts[0]
    return Population(
        **{
            name: torch.cat([getattr(part, name) for part in parts])
            for name in Population.__dataclass_fields__
        }
    )


def population_photometry(
    population: Population, bands: tuple[str, ...] = HSC
) -> Float[Tensor, "galaxy band"]:
    """Noise-free total fluxes in nanomaggies, without rendering anything."""
    tables = load_bandpasses(bands)
    flux = tables.flux(
        population.z,
        population.continuum.sum(1, keepdim=True),
        population.lines.sum(1, keepdim=True),
    )
    return flux[:, 0]


def _draw(n: int, generator: Generator) -> Population:
    templates = load_templates()
    draws = _Draws(n, generator)
    z = _redshifts(draws)
    log_mass = _masses(draws, z)
    log_ssfr, quiescent = _star_formation(draws, log_mass, z)
    bulge = _bulge_fractions(draws, log_mass, quiescent)
    cos_inclination = draws.uniform(0.02, 1.0)
    shares, clump_share = _mass_shares(draws, bulge, log_ssfr)
    history, mass = _histories(templates, draws, z, log_ssfr, shares, clump_share, quiescent)
    continuum, lines = _light(
        templates, draws, history, log_mass, quiescent, log_ssfr, cos_inclination
    )
    # Lsun per solar mass to observed flux of this mass at this distance.
    area = 4 * math.pi * (luminosity_distance(z) * _MPC) ** 2
    observed = 10 ** log_mass.double() * _SOLAR_LUMINOSITY / area * 1e17
    weight = (mass * observed[:, None].float())[..., None]
    recent = (mass[..., None] * history)[..., :_RECENT_BINS].sum((1, 2)) / mass.sum(1)
    return Population(
        z=z,
        log_mass=log_mass,
        log_ssfr=torch.log10(recent / _RECENT),
        bulge_fraction=bulge,
        continuum=continuum * weight / (1 + z)[:, None, None],
        lines=lines * weight,
        cos_inclination=cos_inclination,
        **_structure(draws, z, log_mass, bulge, quiescent),
    )


def _redshifts(draws: _Draws) -> Tensor:
    grid = torch.linspace(Z_MIN, Z_MAX, 1025, dtype=torch.float64)
    density = grid**1.5 * torch.exp(-((grid / 0.26) ** 1.6))
    density = 0.875 * density / density.mean() + 0.125
    cdf = torch.cat([torch.zeros(1, dtype=torch.float64), density[1:].cumsum(0)])
    cdf = cdf / cdf[-1]
    u = draws.uniform().double()
    right = torch.searchsorted(cdf, u).clamp(1, 1024)
    part = (u - cdf[right - 1]) / (cdf[right] - cdf[right - 1])
    return torch.lerp(grid[right - 1], grid[right], part).float()


def _masses(draws: _Draws, z: Tensor) -> Tensor:
    """Schechter function above what r = 20.5 shows at this redshift, by its inverse on a grid."""
    modulus = 5 * torch.log10(luminosity_distance(z).float()) + 25
    faintest = 0.4 * (4.65 - (20.5 - modulus - 0.9 * z)) + 0.35
    grid = torch.linspace(7.0, 12.3, 1061)
    x = 10 ** (grid - 11.05)
    density = (x**-0.15 * torch.exp(-x)).double()
    cdf = density.cumsum(0) / density.sum()
    low = cdf[torch.searchsorted(grid, faintest.clamp(7.0, 11.6)).clamp(max=1060)]
    u = low + (1 - low) * draws.uniform().double()
    return grid[torch.searchsorted(cdf, u).clamp(max=1060)] + 0.005 * draws.normal()


def _star_formation(draws: _Draws, log_mass: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Decimal logarithm of the specific rate (1/year), and how quiescent a galaxy is (0 to 1)."""
    chance = torch.sigmoid((log_mass - 10.45 - 0.3 * z) / 0.25) * 0.92 + 0.03
    sequence = -10.6 - 0.25 * (log_mass - 10.5) + 2.2 * torch.log10(1 + z) + 0.3 * draws.normal()
    passive = -12.1 + 0.45 * draws.normal()
    red = (draws.uniform() < chance).float()
    valley = (draws.uniform() < 0.12).float()
    mix = valley * draws.uniform() + (1 - valley) * red
    log_ssfr = (1 - mix) * sequence + mix * passive
    return log_ssfr.clamp(-13.5, -8.6), ((sequence - log_ssfr) / 1.8).clamp(0, 1)


def _bulge_fractions(draws: _Draws, log_mass: Tensor, quiescent: Tensor) -> Tensor:
    logit = -2.2 + 0.9 * (log_mass - 10.5) + 3.0 * quiescent + 1.1 * draws.normal()
    return torch.sigmoid(logit).clamp(0.005, 0.98)


def _mass_shares(draws: _Draws, bulge: Tensor, log_ssfr: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the smooth mass, shape (galaxy, smooth); share of the clumps in star formation."""
    ring = torch.tensor([weight for _, weight in DISK])
    shares = torch.cat([bulge[:, None], (1 - bulge)[:, None] * ring / ring.sum()], dim=1)
    active = torch.sigmoid((log_ssfr + 11.2) / 0.25)
    return shares, active * draws.uniform(0.1, 0.75)


def _histories(
    templates: Templates,
    draws: _Draws,
    z: Tensor,
    log_ssfr: Tensor,
    shares: Tensor,
    clump_share: Tensor,
    quiescent: Tensor,
) -> tuple[Tensor, Tensor]:
    """Mass in each age bin of a unit mass, shape (galaxy, part, age); mass of each part."""
    smooth = 1 + ZONES
    universe = age_of_universe(z).float()
    # Older and faster towards the centre and in quiescent galaxies.
    rank = torch.linspace(-0.5, 0.5, ZONES)
    gradient = 0.25 + 0.3 * draws.normal()
    inside = torch.cat([-0.7 + 0.3 * draws.normal(1), gradient[:, None] * rank], dim=1)
    log_tau = 9.45 - 0.65 * quiescent[:, None] + 0.25 * inside
    log_tau = log_tau + 0.15 * draws.normal(1) + 0.06 * draws.normal(smooth)
    start = torch.sigmoid(1.6 - 0.8 * inside + 0.8 * draws.normal(1) + 0.5 * quiescent[:, None])
    old = delayed_tau(
        templates, (start * universe[:, None]).reshape(-1), 10 ** log_tau.reshape(-1)
    ).reshape(len(z), smooth, -1)
    # A burst one to eight hundred million years ago in some galaxies.
    burst = torch.where(draws.uniform() < 0.15, 10 ** draws.uniform(-2.5, -0.9), torch.zeros(1))
    bins = slice(_RECENT_BINS, _RECENT_BINS + 3)
    old[..., :_RECENT_BINS] = 0
    old = old / old.sum(-1, keepdim=True)
    old[..., bins] += burst[:, None, None] * torch.softmax(draws.normal(1, 3), dim=-1)
    rate = log_ssfr[:, None] + torch.log10(1 - clump_share)[:, None]
    rate = rate + torch.cat([2.0 * inside[:, :1], 1.5 * inside[:, 1:]], dim=1)
    rate = rate + 0.08 * draws.normal(smooth)
    recent = (10**rate * _RECENT).clamp(max=0.3)
    widths = templates.age_edges.diff()[:_RECENT_BINS]
    flicker = widths * torch.exp(0.5 * draws.normal(1, _RECENT_BINS))
    flicker = flicker / flicker.sum(-1, keepdim=True)
    old = (1 - recent)[..., None] * old / old.sum(-1, keepdim=True)
    old[..., :_RECENT_BINS] = recent[..., None] * flicker

    # Clumps: one family of the last 10-30 Myr, one of the last 100-200 Myr.
    decay = 10 ** torch.stack([draws.uniform(6.9, 7.5), draws.uniform(7.6, 8.3)], dim=1)
    clump = torch.exp(-templates.age / decay[..., None]) * templates.age_edges.diff()
    clump = clump / clump.sum(-1, keepdim=True)
    first = draws.uniform(0.15, 0.85)
    family = torch.stack([first, 1 - first], dim=1)
    clump_mass = (10**log_ssfr * _RECENT * clump_share)[:, None] * family
    return torch.cat([old, clump], dim=1), torch.cat([shares, clump_mass], dim=1)


def _light(
    templates: Templates,
    draws: _Draws,
    history: Tensor,
    log_mass: Tensor,
    quiescent: Tensor,
    log_ssfr: Tensor,
    cos_inclination: Tensor,
) -> tuple[Tensor, Tensor]:
    """Lsun/Angstrom (basis weights) and Lsun (lines) a solar mass of every part."""
    rows = len(log_mass) * PARTS
    # Bulge, zones outwards, clumps: distance from the centre in zones.
    place = torch.tensor([-1.0, 0.0, 1.0, 2.0, 3.0, 1.5, 2.0])
    dex = log_mass - 10.5
    metal = (
        -0.02 + 0.28 * dex - 0.12 * dex**2 * (dex < 0) + 0.10 * quiescent + 0.10 * draws.normal()
    )
    slope = -0.06 + 0.05 * draws.normal()
    metals = metal[:, None] + slope[:, None] * place + 0.03 * draws.normal(PARTS)
    metals = metals.clamp(-1.6, 0.38)
    tilt = cos_inclination.clamp(min=0.15) ** -0.5
    dusty = 10 ** (-0.27 + 0.28 * dex.clamp(-2, 0.6) + 0.18 * draws.normal()) * tilt
    clean = 0.06 * torch.exp(0.6 * draws.normal())
    dust = torch.lerp(dusty, clean, quiescent)[:, None] * torch.exp(
        -(0.13 + 0.10 * draws.normal(1)) * place + 0.12 * draws.normal(PARTS)
    )
    dust[:, 0] = dust[:, 0] * draws.uniform(0.3, 1.0)
    dust = dust.clamp(0.0, 2.4)
    ionisation = -2.95 - 0.45 * metals + 0.25 * (log_ssfr + 10)[:, None].clamp(-1, 1)
    ionisation = ionisation + 0.2 * draws.normal(1) + 0.08 * draws.normal(PARTS)
    made = light(
        templates,
        history.reshape(rows, -1),
        log_metallicity=metals.reshape(rows),
        dust_av=dust.reshape(rows),
        log_u=ionisation.reshape(rows),
    )
    width = 10 ** (-0.15 + 0.28 * draws.normal(1) + 0.1 * draws.normal(PARTS))
    nucleus = draws.uniform() < torch.sigmoid((log_mass - 11.4) / 0.4) * 0.4
    width[:, 0] = torch.where(nucleus, 10 ** draws.uniform(0.4, 1.5), width[:, 0])
    hardness = (0.12 * draws.normal(1)).expand(-1, PARTS).clone()
    hardness[:, 0] = torch.where(nucleus, draws.uniform(-0.1, 1.1), hardness[:, 0])
    weak = weak_lines(
        templates,
        made.continuum,
        width=width.reshape(rows),
        hardness=hardness.reshape(rows),
        dust_av=dust.reshape(rows),
    )
    scatter = torch.tensor([0.0, 0.08, 0.05, 0.09, 0.06]) * math.log(10)
    abundance = torch.exp(scatter * draws.normal(5))[:, species(templates)]
    shape = (len(log_mass), PARTS, -1)
    # Dust inside and holes in the clouds keep part of the ionising light from the gas.
    ionising = (10 ** (-0.18 + 0.1 * draws.normal(1, 1))).clamp(max=1.0)
    lines = made.lines.reshape(shape) * ionising + weak.reshape(shape)
    lines = lines * abundance[:, None]
    return made.continuum.reshape(shape), lines


def _structure(
    draws: _Draws, z: Tensor, log_mass: Tensor, bulge: Tensor, quiescent: Tensor
) -> dict[str, Tensor]:
    """Sizes, shapes and motions."""
    dex = log_mass - 10.5
    blue = 0.62 + 0.20 * dex + 0.15 * draws.normal()
    red = 0.45 + 0.20 * dex + 0.36 * dex * (dex > 0) + 0.12 * draws.normal()
    log_size = torch.lerp(blue, red, quiescent) - 0.7 * torch.log10(1 + z)
    r_eff = 10**log_size / kpc_per_arcsec(z).float()
    shrink = 10 ** (-0.5 + 0.15 * draws.normal())
    round_ = draws.uniform(0.45, 1.0)
    turn = torch.where(draws.uniform() < 0.5, -1.0, 1.0)
    return {
        "bulge_radius": r_eff * torch.lerp(shrink, torch.ones(1), bulge.clamp(max=0.9) / 0.9),
        # A disk around a heavy bulge is the outer part of the galaxy.
        "disk_radius": r_eff * (1 + 0.6 * bulge) / 1.678,
        "r_eff": r_eff,
        "sersic": (1.4 + 2.4 * bulge + 0.5 * draws.normal()).clamp(1.0, 4.0),
        "bulge_axis_ratio": round_,
        "position_angle": draws.uniform(0.0, 2 * math.pi),
        "v_rot": turn * 10 ** (2.22 + 0.27 * dex + 0.07 * draws.normal()).clamp(max=2.62),
        "sigma_bulge": 10 ** (2.16 + 0.27 * dex + 0.07 * draws.normal()).clamp(1.5, 2.6),
        "sigma_disk": 10 ** (1.70 + 0.12 * dex + 0.08 * draws.normal()),
        "sigma_gas": 10 ** (1.45 + 0.08 * dex + 0.10 * draws.normal()),
    }
