"""A simulated galaxy's true cube on MaNGA's wavelengths, for tests of cubes."""

from dataclasses import dataclass

import numpy as np
import torch

from probmmae.instrument import RestSpectrum, observe
from probmmae.simulator.population import draw_population
from probmmae.simulator.rendering import collect_square
from probmmae.simulator.scene import Scene, draw_scene
from probmmae.simulator.spectrographs import KINDS, load_spectrographs
from probmmae.spaxels import Spaxels
from probmmae.templates import load_templates


@dataclass(frozen=True)
class TrueCube:
    z: float
    wavelength: np.ndarray
    sigma: np.ndarray
    flux: np.ndarray
    """(spaxel, wavelength), noise-free."""
    light: RestSpectrum
    """Rows (1, spaxel)."""


def simulated_scene(galaxies: int, seed: int = 5) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    return draw_scene(draw_population(galaxies, generator), generator)


def true_cube(scene: Scene, galaxy: int, spaxels: Spaxels) -> TrueCube:
    """What falls on the spaxels of a grid, behind its PSF."""
    assert spaxels.grid is not None
    one = scene.take(slice(galaxy, galaxy + 1))
    place = torch.tensor(spaxels.aperture[None, :, :2]).float()
    seeing = torch.full(place.shape[:2], spaxels.grid.psf_fwhm)
    light = collect_square(one, place, side=spaxels.grid.side, seeing=seeing)
    stored, kind = load_spectrographs(), KINDS.index("manga")
    real = stored.real[kind]
    wavelength, sigma = stored.wavelength[kind][real], stored.sigma[kind][real]
    rows = (1, len(spaxels), -1)
    flux = observe(
        load_templates(), light, one.z.expand(rows[:2]), wavelength.expand(rows),
        sigma.expand(rows),
    )  # fmt: skip
    return TrueCube(float(one.z), wavelength.numpy(), sigma.numpy(), flux[0].numpy(), light)
