"""Blocks of galaxies for training, in order, made by worker processes.

Block number i depends on the seed and on i alone, whatever the number of workers, so that a run
that is resumed at step i goes on exactly as if it had never stopped.
"""

import queue
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import multiprocessing

from probmmae.batch import Batch, PhotometryTable, Spectra


@dataclass(frozen=True)
class Block:
    """What one training step learns from."""

    whole: Batch
    deep: Spectra | None
    """Low-noise spectra of the same apertures, where a simulator has them."""
    catalogue: tuple[PhotometryTable, torch.Tensor] | None
    """Galaxies that are only photometry, and their redshifts."""


def feed(
    make: Callable[[int], Block], first: int, last: int, workers: int, ahead: int = 4
) -> Generator[Block, None, None]:
    """Blocks `first` to `last` - 1 in order.

    Args:
        make: Makes block i; must be picklable when there are workers.
        first: First block.
        last: One after the last block.
        workers: Processes; 0 makes blocks in this one.
        ahead: Blocks that each worker may be ahead.

    Raises:
        RuntimeError: A worker failed or died; its message is included.
    """
    if workers == 0:
        yield from map(make, range(first, last))
        return
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(ahead) for _ in range(workers)]
    processes = [
        context.Process(
            target=_work,
            args=(make, range(first + k, last, workers), queues[k]),
            daemon=True,
        )
        for k in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        for index in range(first, last):
            yield _next(queues[(index - first) % workers], processes[(index - first) % workers])
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _next(source: Any, process: Any) -> Block:
    while True:
        try:
            item = source.get(timeout=5)
        except queue.Empty:
            if not process.is_alive():
                raise RuntimeError(
                    "Expected a block from a worker; "
                    f"the worker ended with code {process.exitcode}."
                ) from None
            continue
        if isinstance(item, str):
            raise RuntimeError(f"A worker that makes training blocks failed: {item}")
        block: Block = item
        return block


def _work(make: Callable[[int], Block], indices: range, out: Any) -> None:
    torch.set_num_threads(1)
    try:
        for index in indices:
            _offer(out, make(index))
        # What is in the queue lives in this process: stay until the trainer has taken it.
        while _trainer_lives():
            time.sleep(1)
    except KeyboardInterrupt:
        return
    except Exception as error:  # the trainer must hear of it, whatever it is
        out.put(f"{type(error).__name__}: {error}")
        out.close()
        out.join_thread()


def _offer(out: Any, block: Block) -> None:
    """Put a block in the queue; end the process if the trainer was killed meanwhile."""
    while True:
        try:
            out.put(block, timeout=5)
        except queue.Full:
            if _trainer_lives():
                continue
            out.cancel_join_thread()
            raise SystemExit(1) from None
        return


def _trainer_lives() -> bool:
    parent = multiprocessing.parent_process()
    return parent is not None and parent.is_alive()
