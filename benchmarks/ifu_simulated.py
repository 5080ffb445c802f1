"""Cubes of simulated galaxies whose true cubes are known, predicted from their images.

Galaxies as MaNGA chose them: half-light radii of 1.5 to 5 arcsec, z below 0.3, in images of
MaNGA's reach. Spaxels of 0.5 arcsec behind 2.5 arcsec lie 0.4 half-light radii apart, out to 2.

The rival is what anyone could do: for every spaxel the 50 fibres of other simulated galaxies that
are nearest in colours, surface brightness and redshift, with their lines in proportion to the
light in r; each spaxel by itself.

Axes: quantity, draw, spaxel, galaxy, band, neighbour.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import astropy.units as u
import numpy as np
import torch
from jaxtyping import Float
from report_set import REPORT_SEED, TUNE_SEED

from probmmae.batch import Batch
from probmmae.calibration.map_scores import GalaxyMaps
from probmmae.galaxy import FWHM_PER_SIGMA, Galaxy
from probmmae.inference.amortized import light_at
from probmmae.inference.cube import MANGA_WAVELENGTH, cube
from probmmae.inference.posterior import Model
from probmmae.instrument import RestSpectrum, observe
from probmmae.simulator.population import draw_population
from probmmae.simulator.rendering import collect, collect_square
from probmmae.simulator.scene import Scene, draw_scene
from probmmae.simulator.stream import block_generator
from probmmae.simulator.survey import SurveySettings, observe_galaxies
from probmmae.spaxels import Spaxels, equivalent_aperture
from probmmae.spectral_maps import D4000_BANDS, LINES, QUANTITIES, Measure
from probmmae.templates import load_templates
from probmmae.unbatch import unbatch

SIDE, PSF = 0.5, 2.5
SETTINGS = SurveySettings(pixel_scale=(0.40, 0.50), n_spectra=1)
FIRST_BLOCK = 5000
"""Blocks of the report's seed that no other benchmark uses."""
RADII, REDSHIFTS = (1.5, 5.0), (0.01, 0.3)
_STEP, _OUT = 0.4, 2.0
"""Between spaxels, and how far out, half-light radii."""
_REST = (3660.0, 6900.0)
RESOLUTION = 2000.0
_LIBRARY_BLOCKS, _POSITIONS, _NEIGHBOURS = 6, 8, 50


@dataclass(frozen=True)
class Known:
    """One galaxy, what is shown of it, and its true cube."""

    galaxy: Galaxy
    """Images and redshift."""
    scene: Scene
    batch: Batch
    radius: float
    """Half-light, arcsec."""


def galaxies(count: int) -> Iterator[Known]:
    """The first galaxies of the report's seed that are large and near enough."""
    found, block = 0, FIRST_BLOCK
    while found < count:
        generator = block_generator(REPORT_SEED, block)
        population = draw_population(64, generator)
        scene = draw_scene(population, generator)
        batch, truth = observe_galaxies(population, scene, generator, SETTINGS)
        use = (truth.r_eff > RADII[0]) & (truth.r_eff < RADII[1])
        use &= (truth.z > REDSHIFTS[0]) & (truth.z < REDSHIFTS[1])
        for row in torch.nonzero(use)[:, 0].tolist()[: count - found]:
            one = slice(row, row + 1)
            (whole,) = unbatch(batch.take(one), [f"simulated-{REPORT_SEED}-{block}-{row}"])
            yield Known(
                replace(whole, spectra=(), photometry=()), scene.take(one), batch.take(one),
                float(truth.r_eff[row]),
            )  # fmt: skip
            found += 1
        block += 1


def places(radius: float) -> Spaxels:
    """Spaxels on a grid of steps that follow the galaxy."""
    line = np.arange(-5, 6) * _STEP
    x, y = (each.ravel() for each in np.meshgrid(line, line))
    inside = np.hypot(x, y) < _OUT
    place = np.stack([x[inside], y[inside]]) * radius
    diameter, seeing, share = equivalent_aperture(SIDE, PSF)
    one = np.ones(place.shape[1])
    return Spaxels(np.stack([*place, diameter * one, seeing * one], 1), share * one, None)


def grid(z: float) -> tuple[np.ndarray, np.ndarray]:
    """MaNGA's wavelengths that hold every quantity, and the line-spread function."""
    whole = MANGA_WAVELENGTH.value
    near = whole[(whole > _REST[0] * (1 + z)) & (whole < _REST[1] * (1 + z))]
    return near, near / RESOLUTION / FWHM_PER_SIGMA


def predicted(model: Model, known: Known, *, draws: int, seed: int) -> GalaxyMaps:
    """Maps of the model's cubes beside those of the true cube."""
    z, spaxels = float(known.galaxy.redshift or 0.0), places(known.radius)
    wavelength, sigma = grid(z)
    posterior = model.condition(known.galaxy, draws=draws, seed=seed)
    answer = cube(posterior, spaxels, wavelength * u.AA, resolution=RESOLUTION)
    place = torch.tensor(spaxels.aperture[None, :, :2]).float()
    light = collect_square(known.scene, place, side=SIDE, seeing=torch.full(place.shape[:2], PSF))
    rows = (1, len(spaxels), -1)
    flux = observe(
        load_templates(), light, torch.full(rows[:2], z),
        torch.tensor(wavelength).float().expand(rows), torch.tensor(sigma).float().expand(rows),
    )  # fmt: skip
    truth = Measure(wavelength, sigma, z=z)(flux[0].numpy()).value
    radius = np.hypot(*spaxels.aperture[:, :2].T) / known.radius
    return GalaxyMaps(known.galaxy.id, answer.maps, truth, np.zeros_like(truth), radius)


def predicted_light(model: Model, known: Known, *, draws: int, seed: int) -> GalaxyMaps:
    """As `predicted`, without pixels: straight from the light that apertures collect.

    A hundred times cheaper, so that integrals can be told on a thousand galaxies. The decoder's
    own scatter about its curves (`SharedGrid`) is left out.
    """
    z, spaxels = known.batch.z, places(known.radius)
    posterior = model.condition(known.galaxy, draws=draws, seed=seed)
    query = torch.tensor(spaxels.aperture[None]).float()
    with torch.no_grad():
        drawn = light_at(
            posterior.network, posterior.context, posterior.observed, posterior.draws, query
        )  # fmt: skip
    place = query[..., :2]
    light = collect_square(known.scene, place, side=SIDE, seeing=torch.full(place.shape[:2], PSF))
    maps = of_light(drawn, z)[:, 0]
    maps[_fluxes()] *= spaxels.share.astype(np.float32)
    truth = of_light(light, z)[:, 0]
    radius = np.hypot(*spaxels.aperture[:, :2].T) / known.radius
    return GalaxyMaps(known.galaxy.id, maps, truth, np.zeros_like(truth), radius)


def of_light(
    light: RestSpectrum, z: Float[torch.Tensor, " galaxy"]
) -> Float[np.ndarray, "quantity galaxy *rows"]:
    """Quantities that need no pixels, straight from what apertures collect."""
    templates = load_templates()
    names, wave = list(QUANTITIES), templates.wavelength

    def mean(low: float, high: float, *, frequency: bool = False) -> torch.Tensor:
        inside = (wave > low) & (wave < high)
        weight = wave[inside] ** (3 if frequency else 1)  # the grid is uniform in ln
        return light.continuum @ (templates.continuum[:, inside] @ weight / wave[inside].sum())

    value = np.full((len(names), *light.velocity.shape), np.nan, np.float32)
    for name, (group, blue, red) in LINES.items():
        flux = sum(light.lines[..., templates.line(one)] for one in group)
        under = 0.5 * (mean(*blue) + mean(*red))
        value[names.index(name)] = flux
        # Observed flux over observed density, in the rest frame.
        stretched = under.clamp(min=1e-9) * (1 + z.reshape(-1, *[1] * (under.ndim - 1)))
        value[names.index(f"{name}_ew")] = flux / stretched
    blue, red = (mean(*band, frequency=True) for band in D4000_BANDS)
    value[names.index("d4000")] = red / blue
    value[names.index("continuum")] = mean(5450.0, 5550.0)
    value[names.index("velocity")] = light.velocity
    return value


@lru_cache(maxsize=1)
def library() -> tuple[np.ndarray, np.ndarray]:
    """What a neighbour compares, and the quantities over the light in r, of other galaxies."""
    rows, lent = [], []
    diameter, seeing, _ = equivalent_aperture(SIDE, PSF)
    for block in range(_LIBRARY_BLOCKS):
        generator = block_generator(TUNE_SEED, FIRST_BLOCK + block)
        population = draw_population(64, generator)
        scene = draw_scene(population, generator)
        batch, truth = observe_galaxies(population, scene, generator, SETTINGS)
        shape = (64, _POSITIONS)
        away = _OUT * truth.r_eff[:, None].clamp(max=5.0) * torch.rand(shape, generator=generator)
        angle = 2 * np.pi * torch.rand(shape, generator=generator)
        place = torch.stack([away * angle.cos(), away * angle.sin()], -1)
        same = torch.ones(*shape, 1)
        light = collect(scene, torch.cat([place, diameter * same, seeing * same], -1))
        value = of_light(light, truth.z)
        # How another galaxy turns says nothing of this one.
        value[list(QUANTITIES).index("velocity")] = np.nan
        for galaxy in range(64):
            told, red = _looked(batch, galaxy, place[galaxy].numpy(), diameter)
            rows.append(told)
            own = value[:, galaxy].copy()
            own[_fluxes()] /= red
            lent.append(own)
    return np.concatenate(rows), np.concatenate(lent, axis=1)


def interpolated(known: Known, like: GalaxyMaps, *, draws: int, seed: int) -> GalaxyMaps:
    """The rival's draws of the same maps: one neighbour each, spaxel by spaxel.

    Args:
        known: The galaxy.
        like: The model's maps of it, for the truth.
        draws: As many as of the model.
        seed: Of the choice among neighbours.
    """
    rows, lent = library()
    spaxels = places(known.radius)
    told, red = _looked(known.batch, 0, spaxels.aperture[:, :2], spaxels.aperture[0, 2])
    scale = rows.std(0)
    apart = (((told[:, None] - rows) / scale) ** 2).sum(-1)
    near = np.argsort(apart, axis=1)[:, :_NEIGHBOURS]
    pick = np.random.default_rng(seed).integers(_NEIGHBOURS, size=(draws, len(near)))
    chosen = near[np.arange(len(near)), pick]
    drawn = lent[:, chosen].astype(np.float32)
    drawn[_fluxes()] *= (red * spaxels.share).astype(np.float32)
    return replace(like, drawn=drawn)


def _fluxes() -> list[int]:
    return [index for index, unit in enumerate(QUANTITIES.values()) if "erg" in unit]


def _looked(
    batch: Batch, row: int, place: np.ndarray, diameter: float
) -> tuple[np.ndarray, np.ndarray]:
    """Colours, surface brightness and redshift at places of an image; the light in r there."""
    images = batch.images
    scale = float(images.pixel_scale[row])
    flux = images.flux[row].numpy()
    at = (np.arange(flux.shape[-1]) - (flux.shape[-1] - 1) / 2) * scale
    away = (at[None, :] - place[:, 0, None]) ** 2
    away = away[:, None, :] + ((at[None, :] - place[:, 1, None]) ** 2)[:, :, None]
    inside = (away < (diameter / 2) ** 2).astype(np.float32)
    light = np.einsum("byx,pyx->pb", flux, inside)
    area = inside.sum((1, 2)) * scale**2
    # What the frame cuts off of a circle is as bright as what it shows.
    light *= np.pi / 4 * diameter**2 / np.maximum(area, scale**2)[:, None]
    soft = np.arcsinh(light / 0.05)
    z = np.full((len(place), 1), float(batch.z[row]))
    told = np.concatenate([np.diff(soft, axis=1), soft[:, 1:2], 3 * z], axis=1)
    return told, np.maximum(light[:, 1], 1e-3)
