"""Recipes of photometry-only models: which columns of a table, and how the networks are fitted."""

from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ConfigDict, with_config

from probmmae.bands import effective_wavelength
from probmmae.config import checked
from probmmae.formats.tables import ColumnMap

_STRICT = with_config(ConfigDict(extra="forbid"))
_STRICT(ColumnMap)


@_STRICT
@dataclass(frozen=True, kw_only=True)
class CatalogueConfig:
    """The table that is learned from."""

    columns: ColumnMap
    """Which column is what. Colours are taken between bands that stand side by side: those of one
    survey stand together, from blue to red."""
    redshift_above: float = 0.001
    """Galaxies at this redshift or below it are stars, and left out."""
    held_out: float = 0.2
    """Share of galaxies, chosen by a hash of their identity, that training never sees."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.columns.redshift is None:
            raise ValueError("Expected the column of the redshift; got none. Name it.")
        if not 0.0 <= self.held_out < 1.0:
            raise ValueError(f"Expected held_out from 0 to below 1; got {self.held_out}.")

    @property
    def wavelengths(self) -> tuple[float, ...]:
        """Effective wavelengths of the bands, Angstrom."""
        known = self.columns.wavelength
        return tuple(known.get(band) or effective_wavelength(band) for band in self.columns.bands)


@_STRICT
@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Networks and their optimisation."""

    hidden: int = 128
    """Width of the layers."""
    components: int = 8
    """Gaussians of a network's density of ln(1 + z)."""
    members: int = 3
    """Networks whose densities are averaged."""
    folds: int = 4
    """Parts of the training set, each answered by members that never saw it, whose PIT values
    make the map of the CDF."""
    epochs: int = 80
    """Times that a network goes through its galaxies."""
    batch: int = 512
    """Galaxies a step."""
    rate: float = 3e-3
    """Peak learning rate; warmed up, then a cosine to zero."""
    weight_decay: float = 0.01
    dropout: float = 0.05
    """Share of hidden units left out at every step: more for fewer or noisier galaxies."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        counts = (self.hidden, self.components, self.members, self.epochs, self.batch)
        if min(counts) < 1 or self.folds < 2:
            raise ValueError(
                "Expected hidden, components, members, epochs and batch of at least 1 and folds "
                f"of at least 2; got {counts} and {self.folds}."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"Expected dropout from 0 to below 1; got {self.dropout}.")


@_STRICT
@dataclass(frozen=True, kw_only=True)
class PhotometricRecipe:
    """Everything that, with the table, decides a photometry-only model."""

    catalogue: CatalogueConfig
    fit: FitConfig = field(default_factory=FitConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, as saved with a checkpoint."""
        return asdict(self)


def is_photometric(content: dict[str, Any]) -> bool:
    """Whether the content of a recipe is one of this kind: it has a table `catalogue`."""
    return "catalogue" in content


def parse_photometric(content: dict[str, Any], origin: str) -> PhotometricRecipe:
    """A recipe from nested dictionaries; `origin` names it in errors.

    Raises:
        ValueError: A key is missing, unknown or out of range.
    """
    return checked(PhotometricRecipe, content, f"the tables catalogue and fit in {origin}")
