"""Training terms for TensorBoard, where it is installed.

`metrics.jsonl` is written in any case.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def event_writer(folder: Path) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A function that records (step, terms) in an event file, or nothing without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda step, terms: None
        return
    writer = SummaryWriter(str(folder))

    def record(step: int, terms: dict[str, float]) -> None:
        for name, value in terms.items():
            writer.add_scalar(name, value, step)

    try:
        yield record
    finally:
        writer.close()
