"""Distances and ages for H0 = 70 km/s/Mpc and 30 % matter, flat: from z to Mpc and years."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_H0 = 70.0
_MATTER = 0.3
_HUBBLE_DISTANCE = 299792.458 / _H0
"""Mpc."""
_HUBBLE_TIME = 977.792e9 / _H0
"""Years."""
_Z_MAX = 1.0
_NODES = 2001


@lru_cache(maxsize=1)
def _tables() -> tuple[Tensor, Tensor]:
    """Comoving distance (Mpc) and age of the universe (years) on a uniform grid of redshift."""
    z = np.linspace(0.0, _Z_MAX, _NODES)
    rate = 1 / np.sqrt(_MATTER * (1 + z) ** 3 + 1 - _MATTER)
    steps = 0.5 * (rate[1:] + rate[:-1]) * (z[1] - z[0])
    distance = _HUBBLE_DISTANCE * np.concatenate([[0.0], np.cumsum(steps)])
    dark = np.sqrt(1 - _MATTER)
    growth = np.sqrt((1 - _MATTER) / _MATTER) * (1 + z) ** -1.5
    age = _HUBBLE_TIME * 2 / (3 * dark) * np.arcsinh(growth)
    return torch.from_numpy(distance), torch.from_numpy(age)


def _interpolate(table: Tensor, z: Tensor) -> Tensor:
    position = (z.double() / _Z_MAX * (_NODES - 1)).clamp(0, _NODES - 1.001)
    left = position.long()
    return torch.lerp(table[left], table[left + 1], position - left)


def luminosity_distance(z: Float[Tensor, " galaxy"]) -> Float[Tensor, " galaxy"]:
    """Mpc, in double precision; z from 0 to 1."""
    return _interpolate(_tables()[0], z) * (1 + z.double())


def age_of_universe(z: Float[Tensor, " galaxy"]) -> Float[Tensor, " galaxy"]:
    """Years, in double precision; z from 0 to 1."""
    return _interpolate(_tables()[1], z)


def kpc_per_arcsec(z: Float[Tensor, " galaxy"]) -> Float[Tensor, " galaxy"]:
    """Proper length of one arcsec at z, kpc."""
    return luminosity_distance(z) / (1 + z.double()) ** 2 * (1e3 * np.pi / 648000)
