"""Answers: from a trained photometry-only model and any galaxies to densities of redshift.

A density is the average of the members', its CDF mapped by the law of the PIT that training found
out of fold, given how bright the galaxy is and what the density says itself. It depends on the
galaxy and the model alone, not on its neighbours in a batch.

Axes: galaxy, band, point (of a grid).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from probmmae.batch import PhotometryTable
from probmmae.checkpoint import read_folder
from probmmae.dataset import Dataset
from probmmae.formats import stream
from probmmae.formats.opening import checked_path
from probmmae.formats.tables import column_names
from probmmae.galaxy import Galaxy
from probmmae.inference.pit_law import LocalRecalibration
from probmmae.inference.pit_map import PitMap
from probmmae.inference.redshifts import exact, tabulate
from probmmae.photometric.footprint import Footprint
from probmmae.photometric.network import Features, PhotometricNetwork, features_of, mixture
from probmmae.photometric.recipe import PhotometricRecipe, parse_photometric
from probmmae.photometric.sample import Bands
from probmmae.redshift import RedshiftDensity

FloatArray = NDArray[np.float64]

KIND = "photometry"
"""What checkpoint.json calls such a model."""


@dataclass(frozen=True)
class PhotometricModel:
    """A trained model of photometry alone."""

    recipe: PhotometricRecipe
    members: tuple[PhotometricNetwork, ...]
    pit_law: LocalRecalibration | None
    """The law of the PIT out of fold, by which densities are repaired; None where galaxies were
    too few to learn it from."""
    trained_on: int
    """Number of galaxies that it was trained on."""
    typical_errors: tuple[float, ...]
    """Of the training set, by band, nanomaggies."""
    footprint: Footprint
    """Where training galaxies were."""

    @property
    def bands(self) -> Bands:
        """What it reads."""
        config = self.recipe.catalogue
        return Bands(tuple(config.columns.bands), config.wavelengths)

    def galaxies(self, paths: Sequence[Path]) -> Iterator[Galaxy]:
        """The galaxies of datasets, and of tables with the columns that it was trained on.

        The column of the redshift may lack.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A file is damaged, or a column of a band lacks.
        """
        trained = self.recipe.catalogue.columns
        for path in paths:
            if path.is_dir():
                yield from Dataset(path)
                continue
            there = set(column_names(checked_path(path)))
            columns = trained
            if trained.redshift not in there:
                columns = replace(trained, redshift=None, redshift_error=None)
            yield from stream(path, format="tables", columns=columns)

    def features(self, table: PhotometryTable) -> Features:
        """What the members see of fluxes in the model's bands."""
        return features_of(table, torch.tensor(self.typical_errors))

    def density(self, features: Features) -> RedshiftDensity:
        """The members' average, before repair."""
        with torch.no_grad():
            return mixture([member.density(features) for member in self.members])

    def pit_map(self, features: Features, density: RedshiftDensity) -> PitMap:
        """What repairs the densities of galaxies, a row each."""
        if self.pit_law is None:
            return PitMap.identity(len(features.own))
        return self.pit_law.pit_map(covariates(features, density))

    def tabulate(
        self, galaxies: Sequence[Galaxy], grid: Any, *, repair: bool = True, **columns: Any
    ) -> Any:
        """The `qp` ensemble of galaxies, their quantiles and `unlike_training` beside it.

        Args:
            galaxies: At least one; what the model does not know of them is not looked at.
            grid: Redshifts, increasing, shape (point,).
            repair: Whether the CDF is mapped.
            **columns: Further columns, one value a galaxy.

        Raises:
            ValueError: A grid that does not increase from 0 or above.
        """
        features, rows = self.features(self.bands.table(galaxies)), len(galaxies)
        density, pit_map = self.density(features), PitMap.identity(rows)
        if not repair:
            said = "not repaired: it was not asked for"
        elif self.pit_law is None:
            said = f"not repaired: {self.trained_on} galaxies are too few to learn it from"
        else:
            said = f"repaired: recalibrated out of fold on {self.trained_on} galaxies"
            pit_map = self.pit_map(features, density)
        return tabulate(
            density, grid, pit_map=pit_map, repair=[said] * rows,
            unlike_training=self.footprint.unlike(features), **columns,
        )  # fmt: skip


def covariates(features: Features, density: RedshiftDensity) -> dict[str, FloatArray]:
    """What the law of the PIT depends on, known without the truth.

    Args:
        features: Of galaxies.
        density: Of the same, as the members answer.

    Returns:
        Mean asinh magnitude of the bands that are there (natural logarithms of nanomaggies, so
        that it grows with brightness), median and ln of the width (half of 16 to 84 %) of the
        density, each of shape (galaxy,).
    """
    levels = torch.tensor([0.16, 0.5, 0.84], dtype=torch.float64)[:, None]
    low, middle, high = exact(density).icdf(levels).numpy()
    seen = features.visible.double()
    bright = (features.typical[..., 0] * seen).sum(1) / seen.sum(1).clamp(min=1)
    return {
        "brightness": bright.numpy(),
        "posterior median": middle,
        "ln posterior width": np.log(np.maximum(high - low, 1e-7) / 2),
    }


def load_photometric(folder: Path) -> PhotometricModel:
    """The model of a checkpoint folder.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: It is damaged, or one of another kind or version.
    """
    info, tensors = read_folder(folder)
    if info.get("kind") != KIND:
        raise ValueError(
            f"Expected a model of photometry alone in {folder}; got one of whole galaxies. Load "
            "it with probmmae.load."
        )
    try:
        recipe = parse_photometric(info["recipe"], str(folder))
        members = []
        for number in range(recipe.fit.members):
            prefix = f"member.{number}."
            network = PhotometricNetwork(len(recipe.catalogue.columns.bands), recipe.fit)
            network.load_state_dict(
                {
                    name.removeprefix(prefix): part
                    for name, part in tensors.items()
                    if name.startswith(prefix)
                }
            )
            members.append(network.requires_grad_(False).eval())
        return PhotometricModel(
            recipe,
            tuple(members),
            None if info["repair"] is None else LocalRecalibration.from_dict(info["repair"]),
            int(info["galaxies"]),
            tuple(info["typical_errors"]),
            Footprint.from_dict(info["footprint"]),
        )
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"Expected a checkpoint of this version's network in {folder}; got {error!r}. Train "
            "it anew."
        ) from error
