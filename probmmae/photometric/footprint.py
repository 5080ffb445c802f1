"""Where a model has seen galaxies: a galaxy elsewhere is said to be unlike its training set.

The rule has three parts, each a bit of one number:

- 1: the set of measured bands is one that no training galaxy had;
- 2: a magnitude lies outside the middle 99.8 % of the training set's in that band;
- 4: a colour of two neighbouring measured bands does.

A value lies outside only if it does by more than its own error. Magnitudes are asinh magnitudes
softened at twice the error: what is not detected counts as faint as its error, so photometry much
shallower than any of the training set is unlike it, too. 0 is a galaxy like those it was trained
on.

Axes: galaxy, band.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from torch import Tensor

from probmmae.photometric.network import Features

UNSEEN_BANDS, UNSEEN_MAGNITUDE, UNSEEN_COLOUR = 1, 2, 4
"""What each bit says."""
_TAIL = 0.001
"""Share of the training set beyond each end of a range."""


@dataclass(frozen=True)
class Footprint:
    """The region of photometry that training galaxies fill."""

    patterns: tuple[str, ...]
    """Sets of measured bands, a 1 or 0 a band."""
    low: tuple[tuple[float, ...], ...]
    """Lower ends, shape (2, band): magnitudes and colours as natural logarithms of flux."""
    high: tuple[tuple[float, ...], ...]
    """Upper ends, likewise."""

    @classmethod
    def of(cls, features: Features) -> Self:
        """The region that these galaxies fill."""
        value, _, there = _measured(features)
        ends = [
            [_ends(value[:, kind, band][there[:, kind, band]]) for band in range(value.shape[2])]
            for kind in (0, 1)
        ]
        low, high = (tuple(tuple(pair[end] for pair in row) for row in ends) for end in (0, 1))
        return cls(tuple(sorted(set(_patterns(features)))), low, high)

    def unlike(self, features: Features) -> NDArray[np.int8]:
        """In what way each galaxy is unlike the training set, the sum of the bits; (galaxy,)."""
        value, error, there = _measured(features)
        below, above = value + error < np.asarray(self.low), value - error > np.asarray(self.high)
        strange = np.asarray(there & (below | above)).any(axis=2)
        unseen = ~np.isin(_patterns(features), self.patterns)
        return np.asarray(
            UNSEEN_BANDS * unseen + strange @ np.array([UNSEEN_MAGNITUDE, UNSEEN_COLOUR]),
            dtype=np.int8,
        )

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The region that `dataclasses.asdict` stored as JSON."""
        low, high = (tuple(map(tuple, stored[end])) for end in ("low", "high"))
        return cls(tuple(stored["patterns"]), low, high)


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    """The range of all but the tails; one that holds nothing where there are no values."""
    if values.size == 0:
        return np.finfo(float).max, np.finfo(float).min
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    return float(low), float(high)


def _patterns(features: Features) -> list[str]:
    return ["".join(row) for row in features.visible.numpy().astype(int).astype(str)]


def _measured(
    features: Features,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Magnitudes and colours, their errors and whether they are there, (galaxy, 2, band) each."""
    bright, ratio, colour, doubt, step = features.own.double().unbind(-1)
    # The scalings of `tokens.tokenize` and `tokens.contrasts`, undone.
    error = (torch.sinh(3 * ratio) ** 2 + 4).rsqrt()
    value = _pair(1.5 * bright, 0.25 * colour)
    there = _pair(features.visible, features.visible & (step > 0))
    return value.numpy(), _pair(error, torch.exp(2 * doubt)).numpy(), there.numpy()


def _pair(first: Tensor, second: Tensor) -> Shaped[Tensor, "galaxy 2 band"]:
    return torch.stack([first, second], dim=1)
