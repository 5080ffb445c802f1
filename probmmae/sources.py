"""Where training blocks come from: the simulator without end, or shards on disk."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor

from probmmae.batch import PhotometryTable
from probmmae.collate import collate
from probmmae.config import Recipe
from probmmae.dataset import Dataset
from probmmae.feed import Block
from probmmae.galaxy import Galaxy
from probmmae.simulator.population import draw_population, population_photometry
from probmmae.simulator.stream import block_generator, simulate_block
from probmmae.simulator.survey import SurveySettings, noisy_photometry

_CATALOGUE_STREAM = 1 << 40
"""Block numbers of the catalogue galaxies start here, far from those of the scenes."""


@dataclass(frozen=True)
class Simulated:
    """Block i of a seed: galaxies that no other block has."""

    seed: int
    galaxies: int
    spectra: int
    catalogue: int
    rank: int
    world: int

    def __call__(self, index: int) -> Block:
        """Simulate block `index`."""
        number = index * self.world + self.rank
        settings = SurveySettings(n_spectra=self.spectra)
        batch, truth = simulate_block(self.seed, number, size=self.galaxies, settings=settings)
        return Block(batch, truth.deep, self._catalogue(number))

    def _catalogue(self, number: int) -> tuple[PhotometryTable, Tensor] | None:
        if self.catalogue == 0:
            return None
        generator = block_generator(self.seed, _CATALOGUE_STREAM + number)
        population = draw_population(self.catalogue, generator)
        total = population_photometry(population)
        return noisy_photometry(total, generator, SurveySettings()), population.z


@dataclass(frozen=True)
class Stored:
    """Batches of the training split of a dataset on disk, in an order that the seed decides."""

    folder: Path
    seed: int
    galaxies: int
    rank: int
    world: int

    def __call__(self, index: int) -> Block:
        """Batch `index`, however many times the data must be gone through for it."""
        rows = _train_rows(self.folder)
        number = index * self.world + self.rank
        per_epoch = max(1, len(rows) // self.galaxies)
        epoch, place = divmod(number, per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(rows))
        chosen = order[place * self.galaxies : (place + 1) * self.galaxies]
        return Block(collate([rows[int(row)] for row in chosen]), None, None)


@lru_cache(maxsize=1)
def _train_rows(folder: Path) -> list[Galaxy]:
    rows = list(Dataset(folder).galaxies("train"))
    if not rows:
        raise ValueError(f"Expected galaxies of the training split in {folder}; found none.")
    return rows


def block_maker(recipe: Recipe, rank: int = 0, world: int = 1) -> Callable[[int], Block]:
    """The maker of training blocks that a recipe asks for, for one of several processes."""
    training, data = recipe.training, recipe.data
    if data.shards is not None:
        return Stored(Path(data.shards), training.seed, training.batch, rank, world)
    return Simulated(training.seed, training.batch, data.spectra, data.catalogue, rank, world)
