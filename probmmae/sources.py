"""Where training blocks come from: the simulator without end, or shards on disk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from probmmae.collate import collate
from probmmae.config import Recipe
from probmmae.dataset import Dataset
from probmmae.feed import Block
from probmmae.footprint import Footprint, measured
from probmmae.galaxy import Galaxy
from probmmae.simulator.stream import simulate_block, simulate_catalogue
from probmmae.simulator.survey import EXTENT, SurveySettings

_LOOKED_AT = 1024
"""Galaxies of a dataset whose apertures stand for all."""


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
        catalogue = None
        if self.catalogue > 0:
            catalogue = simulate_catalogue(self.seed, number, self.catalogue)
        return Block(batch, truth.deep, catalogue)


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
        reader = _reader(self.folder, self.seed, self.galaxies)
        return Block(collate(reader.batch(index * self.world + self.rank)), None, None)


class _Reader:
    """Numbered batches of a dataset, read forwards in bounded memory; a jump back starts anew."""

    def __init__(self, folder: Path, seed: int, galaxies: int) -> None:
        self.dataset, self.seed, self.galaxies = Dataset(folder), seed, galaxies
        self.per_epoch = self.dataset.count("train") // galaxies
        if self.per_epoch == 0:
            raise ValueError(
                f"Expected at least {galaxies} galaxies (a batch) of the training split in "
                f"{folder}; found {self.dataset.count('train')}."
            )
        self.next, self.rows = 0, self._epoch(0)

    def _epoch(self, epoch: int) -> Iterator[Galaxy]:
        seed = int(np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0])
        return self.dataset.galaxies("train", seed=seed)

    def batch(self, number: int) -> list[Galaxy]:
        """Batch `number` of the endless sequence of shuffled passes."""
        epoch, place = divmod(number, self.per_epoch)
        if number < self.next or epoch > self.next // self.per_epoch:
            self.next, self.rows = epoch * self.per_epoch, self._epoch(epoch)
        for _ in range((number - self.next) * self.galaxies):
            next(self.rows)
        found = list(islice(self.rows, self.galaxies))
        self.next = number + 1
        if place + 1 == self.per_epoch:
            self.rows = self._epoch(epoch + 1)
        return found


@lru_cache(maxsize=1)
def _reader(folder: Path, seed: int, galaxies: int) -> _Reader:
    return _Reader(folder, seed, galaxies)


def block_maker(recipe: Recipe, rank: int = 0, world: int = 1) -> Callable[[int], Block]:
    """The maker of training blocks that a recipe asks for, for one of several processes."""
    training, data = recipe.training, recipe.data
    if data.shards is not None:
        return Stored(Path(data.shards), training.seed, training.batch, rank, world)
    return Simulated(training.seed, training.batch, data.spectra, data.catalogue, rank, world)


def footprint(recipe: Recipe) -> Footprint | None:
    """Where on galaxies the apertures lie that a recipe trains on; None where it has none.

    Of the simulator it is the law that scatters them; of a dataset the first galaxies tell.
    """
    if recipe.data.shards is not None:
        galaxies = Dataset(Path(recipe.data.shards)).galaxies("train", seed=0)
        return measured(islice(galaxies, _LOOKED_AT))
    reach = SurveySettings().reach
    return Footprint(reach * EXTENT[1], reach, recipe.data.spectra)
