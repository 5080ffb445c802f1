"""Galaxies without end: from a seed to blocks of `Batch` and `Truth`, in one process or several.

A block depends on the seed and its own number alone, never on the number of processes. The blocks
of a stream are numbered from 0; `simulate` is their beginning.
"""

import multiprocessing
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from probmmae.batch import Batch, PhotometryTable, Rows
from probmmae.simulator.population import draw_population, population_photometry
from probmmae.simulator.scene import draw_scene
from probmmae.simulator.survey import (
    SurveySettings,
    Truth,
    noisy_photometry,
    observe_galaxies,
)

BLOCK = 64
"""Galaxies a block."""
_CATALOGUE_STREAM = 1 << 40
"""Block numbers of catalogue galaxies start here, far from those of the scenes."""


def block_generator(seed: int, block: int) -> Generator:
    """The source of randomness of one block.

    Args:
        seed: Of the stream, not negative.
        block: Number of the block, not negative.
    """
    state = np.random.SeedSequence([seed, block]).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state) >> 1)


def simulate_block(
    seed: int, block: int, *, size: int = BLOCK, settings: SurveySettings | None = None
) -> tuple[Batch, Truth]:
    """One block of galaxies.

    Args:
        seed: Of the stream.
        block: Number of the block.
        size: Galaxies in it.
        settings: What is recorded.
    """
    generator = block_generator(seed, block)
    population = draw_population(size, generator)
    scene = draw_scene(population, generator)
    return observe_galaxies(population, scene, generator, settings)


def simulate_catalogue(seed: int, block: int, size: int) -> tuple[PhotometryTable, Tensor]:
    """Photometry and redshifts of galaxies of which nothing else is made; they cost little.

    Args:
        seed: Of the stream.
        block: Number of the block; its galaxies are not those of `simulate_block`.
        size: Galaxies in it.
    """
    generator = block_generator(seed, _CATALOGUE_STREAM + block)
    population = draw_population(size, generator)
    total = population_photometry(population)
    return noisy_photometry(total, generator, SurveySettings()), population.z


def simulate(n: int, seed: int, *, settings: SurveySettings | None = None) -> tuple[Batch, Truth]:
    """Simulate `n` galaxies and what is true of them.

    Args:
        n: Number of galaxies.
        seed: The same seed gives the same galaxies; a longer run begins with a shorter one.
        settings: What is recorded.

    Raises:
        ValueError: `n` or `seed` is out of range.

    Example:
        >>> batch, truth = simulate(2, seed=1)
        >>> batch.images.flux.shape
        torch.Size([2, 5, 48, 48])
    """
    if n < 1 or seed < 0:
        raise ValueError(f"Expected n >= 1 and seed >= 0; got n = {n}, seed = {seed}. Change it.")
    blocks = [
        simulate_block(seed, block, settings=settings) for block in range((n + BLOCK - 1) // BLOCK)
    ]
    batch, truth = (_join(list(rows)) for rows in zip(*blocks, strict=True))
    return batch.take(slice(0, n)), truth.take(slice(0, n))


def stream(
    seed: int,
    *,
    block_size: int = BLOCK,
    start_block: int = 0,
    processes: int = 0,
    settings: SurveySettings | None = None,
) -> Iterator[tuple[Batch, Truth]]:
    """Blocks without end, in the order of their numbers.

    Args:
        seed: Of the stream.
        block_size: Galaxies a block.
        start_block: Number of the first block.
        processes: Worker processes; 0 simulates in this one. The blocks are the same.
        settings: What is recorded.
    """
    if processes > 0:
        yield from _parallel(seed, block_size, start_block, processes, settings)
        return
    block = start_block
    while True:
        yield simulate_block(seed, block, size=block_size, settings=settings)
        block += 1


def _parallel(
    seed: int, size: int, start: int, processes: int, settings: SurveySettings | None
) -> Iterator[tuple[Batch, Truth]]:
    """Each worker makes every `processes`-th block into a short queue of its own."""
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(maxsize=2) for _ in range(processes)]
    workers = [
        context.Process(
            target=_work,
            args=(queue, seed, size, start + rank, processes, settings),
            daemon=True,
        )
        for rank, queue in enumerate(queues)
    ]
    for worker in workers:
        worker.start()
    try:
        turn = 0
        while True:
            queue, worker = queues[turn % processes], workers[turn % processes]
            yield _unpack(_next(queue, worker))
            turn += 1
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def _next(queue: Any, worker: Any) -> Any:
    """The next item of a queue; an error if its worker has died."""
    from queue import Empty

    while True:
        try:
            return queue.get(timeout=5)
        except Empty:
            if not worker.is_alive():
                raise RuntimeError(
                    f"Expected a running worker; got exit code {worker.exitcode}. "
                    "Use processes=0 to see its error."
                ) from None


def _work(
    queue: Any, seed: int, size: int, start: int, step: int, settings: SurveySettings | None
) -> None:
    torch.set_num_threads(1)
    block = start
    while True:
        queue.put(_pack(simulate_block(seed, block, size=size, settings=settings)))
        block += step


def _pack(table: Any) -> Any:
    """Tables with NumPy arrays for tensors, which pass between processes by value."""
    if isinstance(table, tuple):
        return tuple(_pack(part) for part in table)
    if isinstance(table, Rows):
        names = [field.name for field in fields(table)]  # type: ignore[arg-type]
        contents = {name: _pack(getattr(table, name)) for name in names}
        return (type(table).__name__, type(table), contents)
    return table.contiguous().numpy() if isinstance(table, Tensor) else table


def _unpack(packed: Any) -> Any:
    if isinstance(packed, tuple) and len(packed) == 3 and isinstance(packed[1], type):
        return packed[1](**{name: _unpack(value) for name, value in packed[2].items()})
    if isinstance(packed, tuple):
        return tuple(_unpack(part) for part in packed)
    return torch.from_numpy(packed) if isinstance(packed, np.ndarray) else packed


def _join(rows: list[Any]) -> Any:
    """Concatenate tables of the same kind."""
    first = rows[0]
    if isinstance(first, Tensor):
        return torch.cat(rows)
    return type(first)(
        **{
            field.name: _join([getattr(row, field.name) for row in rows])
            for field in fields(first)
        }
    )
