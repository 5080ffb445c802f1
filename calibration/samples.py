"""Draws of vectors and their truths: checked once, and taken in blocks of bounded memory.

What every diagnostic of vectors starts from.

Axes: draw, galaxy, quantity (pixels, latents or features of one galaxy).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

#: Numbers that a block of draws holds at most, unless one galaxy holds more: 32 MB.
BLOCK = 4_000_000


def vector_samples(
    draws: ArrayLike, truth: ArrayLike, *, fewest_draws: int, fewest_galaxies: int
) -> tuple[NDArray[Any], FloatArray]:
    """Draws and truths of shape (draw, galaxy, quantity) and (galaxy, quantity).

    Args:
        draws: Posterior draws, shape (draw, galaxy) or (draw, galaxy, quantity), any unit. An
            array is neither copied nor converted, so it may be mapped from a file.
        truth: True values in the same unit, shape (galaxy,) or (galaxy, quantity).
        fewest_draws: Draws that the caller needs.
        fewest_galaxies: Galaxies that the caller needs.

    Raises:
        ValueError: The shapes disagree, or there are too few draws or galaxies.
    """
    values, true = np.asarray(draws), np.asarray(truth, dtype=np.float64)
    if true.ndim not in (1, 2) or values.ndim < 1 or values.shape[1:] != true.shape:
        raise ValueError(
            "Expected draws of shape (draw, galaxy, quantity) and truth (galaxy, quantity); got "
            f"draws {values.shape} and truth {true.shape}. Move the axis of draws to the front."
        )
    if values.shape[0] < fewest_draws or true.shape[0] < fewest_galaxies or true.size == 0:
        raise ValueError(
            f"Expected at least {fewest_draws} draws of {fewest_galaxies} galaxies; got "
            f"{values.shape[0]} draws of shape {true.shape}. Take more of what is missing."
        )
    if true.ndim == 1:
        return values[:, :, None], true[:, None]
    return values, true


def blocks(draws: NDArray[Any]) -> Iterator[slice]:
    """Slices of galaxies whose draws, of shape (draw, galaxy, quantity), fit in one block."""
    galaxies = draws.shape[1]
    step = max(1, BLOCK // (draws.shape[0] * draws.shape[2]))
    for start in range(0, galaxies, step):
        yield slice(start, min(start + step, galaxies))
