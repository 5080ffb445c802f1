"""From galaxies to tables of fluxes: bands by name, and the training set of a recipe.

A galaxy's identity decides whether it is held out and in which fold it is. It is the catalogue's
name or position and, where the catalogue gives neither, a hash of the measured fluxes: the order
of rows does not matter, and a galaxy that is in a table twice stays on one side.

Axes: galaxy, band.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from probmmae.batch import PhotometryTable
from probmmae.dataset import hash_fraction
from probmmae.formats import stream
from probmmae.galaxy import Galaxy
from probmmae.photometric.recipe import CatalogueConfig

_CHUNK = 4096
"""Galaxies held as objects at a time."""


@dataclass(frozen=True)
class Bands:
    """The bands that a model knows, in its order."""

    names: tuple[str, ...]
    wavelength: tuple[float, ...]
    """Effective, Angstrom."""

    def table(self, galaxies: Sequence[Galaxy]) -> PhotometryTable:
        """Fluxes and inverse variances, nanomaggies; what a galaxy lacks has ivar 0.

        Bands that the model does not know are not looked at.
        """
        place = {name: index for index, name in enumerate(self.names)}
        flux = torch.zeros(len(galaxies), len(place))
        ivar = torch.zeros_like(flux)
        for row, galaxy in enumerate(galaxies):
            for measured in galaxy.photometry:
                column = place.get(measured.band)
                if column is not None:
                    flux[row, column], ivar[row, column] = measured.flux, measured.ivar
        return PhotometryTable(flux, ivar, torch.tensor(self.wavelength).expand_as(flux))


@dataclass(frozen=True)
class Sample:
    """Galaxies with redshifts."""

    bands: Bands
    table: PhotometryTable
    z: Float[Tensor, " galaxy"]
    fraction: NDArray[np.float64]
    """Hash of each galaxy's identity, 0 to 1, shape (galaxy,)."""

    def __len__(self) -> int:
        return len(self.z)

    def take(self, rows: NDArray[np.bool_]) -> "Sample":
        """The galaxies where `rows`, shape (galaxy,), is True."""
        index = torch.from_numpy(rows)
        return Sample(self.bands, self.table.take(index), self.z[index], self.fraction[rows])

    def held_out(self, share: float) -> NDArray[np.bool_]:
        """Which galaxies training never sees, shape (galaxy,)."""
        return np.asarray(self.fraction >= 1.0 - share)

    def fold(self, share: float, folds: int) -> NDArray[np.int64]:
        """The fold of each galaxy that training sees, 0 to folds - 1, shape (galaxy,)."""
        return np.floor(self.fraction / (1.0 - share) * folds).astype(np.int64)


def read_sample(config: CatalogueConfig, path: Path) -> Sample:
    """The galaxies of a table that have a flux and the redshift of a galaxy.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, a column lacks, or no row has both.
    """
    bands = Bands(tuple(config.columns.bands), config.wavelengths)
    galaxies = stream(path, format="tables", columns=config.columns)
    rows = known = measured = 0
    parts: list[tuple[PhotometryTable, list[float], list[float]]] = []
    while chunk := list(islice(galaxies, _CHUNK)):
        kept, z = [], []
        for galaxy in chunk:
            rows += 1
            known += galaxy.redshift is not None
            measured += bool(galaxy.photometry)
            if galaxy.photometry and (galaxy.redshift or 0.0) > config.redshift_above:
                kept.append(galaxy)
                z.append(float(galaxy.redshift or 0.0))
        table = bands.table(kept)
        parts.append((table, z, _fractions(kept, table, config)))
    if not any(z for _, z, _ in parts):
        raise ValueError(
            f"Expected galaxies with photometry and a redshift above {config.redshift_above:g} in "
            f"{path}; got none: of {rows} rows {known} have a redshift and {measured} a flux. "
            "Check the columns and their units."
        )
    first, *others = (table for table, _, _ in parts)
    return Sample(
        bands,
        first.join(others),
        torch.tensor([value for _, z, _ in parts for value in z], dtype=torch.float32),
        np.array([value for *_, fractions in parts for value in fractions]),
    )


def _fractions(
    galaxies: Iterable[Galaxy], table: PhotometryTable, config: CatalogueConfig
) -> list[float]:
    named = config.columns.id is not None or config.columns.ra is not None
    return [
        hash_fraction(galaxy.id if named else sha256(row.tobytes()).hexdigest())
        for galaxy, row in zip(galaxies, table.flux.numpy(), strict=True)
    ]
