"""Where training blocks come from: the simulator without end, or shards on disk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from probmmae.batch import Batch, Spectra
from probmmae.collate import collate
from probmmae.config import DataConfig, Recipe
from probmmae.dataset import Dataset
from probmmae.feed import Block
from probmmae.footprint import Footprint, measured
from probmmae.galaxy import Galaxy
from probmmae.simulator.stream import block_generator, simulate_block, simulate_catalogue
from probmmae.simulator.survey import CENTRAL, EXTENT, SurveySettings

_SEVERAL, _SHIFTS = 1 << 41, 1 << 42
"""Block numbers of galaxies that come back, and of the moves of scenes, start here."""
_LOOKED_AT = 1024
"""Galaxies of a dataset whose apertures stand for all."""


@dataclass(frozen=True)
class Simulated:
    """Block i of a seed: galaxies that no other block has, but for those that come back."""

    seed: int
    galaxies: int
    data: DataConfig
    rank: int
    world: int

    def __call__(self, index: int) -> Block:
        """Simulate block `index`.

        Raises:
            ValueError: Those that come back do not fill whole blocks.
        """
        number, data = index * self.world + self.rank, self.data
        settings = SurveySettings(n_spectra=data.spectra, central=data.central)
        again = round(data.several_share * self.galaxies) if data.several else 0
        parts = []
        if again < self.galaxies:
            parts.append(self._simulate(number, self.galaxies - again, settings))
        if again:
            if data.several % again:
                raise ValueError(
                    f"Expected several to be a multiple of its share of a batch, {again}; got "
                    f"{data.several}."
                )
            scattered = SurveySettings(n_spectra=data.several_spectra, central=0.0)
            place = _SEVERAL + number % (data.several // again)
            parts.append(self._simulate(place, again, scattered))
        batch, deep = _together(parts)
        if data.shift > 0:
            generator = block_generator(self.seed, _SHIFTS + number)
            batch, deep = _moved(batch, deep, data.shift, generator)
        catalogue = None
        if data.catalogue > 0:
            catalogue = simulate_catalogue(self.seed, number, data.catalogue)
        return Block(batch, deep, catalogue)

    def _simulate(
        self, number: int, galaxies: int, settings: SurveySettings
    ) -> tuple[Batch, Spectra]:
        batch, truth = simulate_block(self.seed, number, size=galaxies, settings=settings)
        return batch, truth.deep


def _together(parts: list[tuple[Batch, Spectra]]) -> tuple[Batch, Spectra]:
    """Galaxies of all parts, with as many rows for spectra as the richest has."""
    most = max(deep.flux.shape[1] for _, deep in parts)
    batches = [replace(batch, spectra=_widened(batch.spectra, most)) for batch, _ in parts]
    deeps = [_widened(deep, most) for _, deep in parts]
    return batches[0].join(batches[1:]), deeps[0].join(deeps[1:])


def _widened(spectra: Spectra, count: int) -> Spectra:
    """With rows in which nothing is measured until there are `count`."""
    have = spectra.flux.shape[1]
    row = torch.arange(count)
    wide = spectra.map(lambda part: part[:, row.clamp(max=have - 1)])
    known = (row < have)[:, None]
    return replace(wide, flux=wide.flux * known, ivar=wide.ivar * known)


def _moved(
    batch: Batch, deep: Spectra, reach: float, generator: torch.Generator
) -> tuple[Batch, Spectra]:
    """Every galaxy, its image and its apertures somewhere else in the field of view."""
    by = reach * (2 * torch.rand(len(batch), 2, generator=generator) - 1)
    across = torch.cat([by, torch.zeros_like(by)], dim=1)[:, None]

    def move(spectra: Spectra) -> Spectra:
        return replace(spectra, aperture=spectra.aperture + across)

    images = replace(batch.images, centre=batch.images.centre + by)
    return replace(batch, images=images, spectra=move(batch.spectra)), move(deep)


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
    return Simulated(training.seed, training.batch, data, rank, world)


def footprint(recipe: Recipe) -> Footprint | None:
    """Where on galaxies the apertures lie that a recipe trains on; None where it has none.

    Of the simulator it is the law that scatters them; of a dataset the first galaxies tell.
    """
    if recipe.data.shards is not None:
        galaxies = Dataset(Path(recipe.data.shards)).galaxies("train", seed=0)
        return measured(islice(galaxies, _LOOKED_AT))
    data, reach = recipe.data, SurveySettings().reach
    if data.central == 1.0 and data.spectra == 1 and not data.several:
        return Footprint(CENTRAL, None, 1)
    most = max(data.spectra, data.several_spectra if data.several else 1)
    return Footprint(reach * EXTENT[1], reach, most)
