"""Recipes: one TOML file says what is trained, on what and how."""

import json
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from probmmae.model import ModelConfig
from probmmae.objective import ObjectiveConfig

_Kind = TypeVar("_Kind")
_STRICT = with_config(ConfigDict(extra="forbid"))
"""A table of a recipe with a key that is not a field is refused."""
for _part in (ModelConfig, ObjectiveConfig):
    _STRICT(_part)


@_STRICT
@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where galaxies come from."""

    shards: str | None = None
    """Folder of a dataset on disk; without it galaxies are simulated, never the same one twice."""
    spectra: int = 2
    """Spectra (apertures) simulated per galaxy."""
    central: float = 0.35
    """Chance that the first aperture of a simulated galaxy lies at its centre."""
    several: int = 0
    """Simulated galaxies that come back again and again with `several_spectra` scattered apertures
    each, in `several_share` of every block, as a few observed cubes would; 0 for none."""
    several_share: float = 0.5
    several_spectra: int = 8
    shift: float = 0.0
    """Simulated scenes are moved by up to this many arcsec, images and apertures together."""
    catalogue: int = 0
    """Extra galaxies per step that are only photometry (they cost little)."""
    catalogue_weight: float = 0.3
    """Weight of their log p(z | photometry) beside that of the block's galaxies."""
    workers: int = 1
    """Processes that simulate or read; 0 simulates in the training process."""
    hide_redshift: float = 0.0
    """Share of galaxies whose redshift is withheld (semi-supervised training)."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0.0 <= self.hide_redshift <= 1.0:
            raise ValueError(f"Expected hide_redshift between 0 and 1; got {self.hide_redshift}.")
        if self.spectra < 1 or self.several_spectra < 1 or self.several < 0 or self.shift < 0:
            raise ValueError(
                "Expected at least one spectrum per galaxy, and several and shift not negative; "
                f"got spectra {self.spectra}, several_spectra {self.several_spectra}, several "
                f"{self.several} and shift {self.shift}."
            )
        if not 0.0 < self.several_share <= 1.0:
            raise ValueError(
                f"Expected several_share above 0 and at most 1; got {self.several_share}."
            )
        if not 0.0 <= self.central <= 1.0:
            raise ValueError(f"Expected central between 0 and 1; got {self.central}.")


@_STRICT
@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The optimisation."""

    steps: int
    """Optimiser steps."""
    batch: int = 64
    """Galaxies per step."""
    rate: float = 1e-3
    """Peak learning rate; warmed up, then a cosine to zero."""
    warmup: int = 300
    """Steps of linear warm-up."""
    decay: int | None = None
    """Step at which the cosine reaches zero; `steps` by default, more for a run that is gone on
    from."""
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest gradient norm of each room (encoder and heads; decoder and guide)."""
    ema: float = 0.999
    """Decay of the averaged weights that are saved for use."""
    start_from: str | None = None
    """Folder of an earlier run whose weights this one begins with, where they have the same
    shape, or "shipped"; without it the model is new."""
    frozen: tuple[str, ...] = ()
    """Beginnings of the names of the parameters that stay as they begin."""
    seed: int = 0
    save_every: int = 500
    """Steps between resumable states."""
    devices: int = 1
    """Processes (CPU) or GPUs."""
    start_blocks: int = 100
    """Simulated blocks that the untrained model's code, guide and reader are fitted to."""
    start_rounds: int = 25
    """Times that the start goes through them."""
    start_catalogue: int = 600_000
    """Simulated galaxies whose photometry p(z | photometry) is fitted to before anything else is
    trained; 0 for none."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.steps < 1 or self.batch < 1 or self.devices < 1:
            raise ValueError(
                "Expected steps, batch and devices of at least 1; "
                f"got {self.steps}, {self.batch} and {self.devices}."
            )
        if self.start_blocks < 1 or self.start_rounds < 0 or self.start_catalogue < 0:
            raise ValueError(
                "Expected start_blocks of at least 1, start_rounds and start_catalogue of at "
                f"least 0; got {self.start_blocks}, {self.start_rounds} and "
                f"{self.start_catalogue}."
            )


@_STRICT
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the weights."""

    training: TrainingConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    data: DataConfig = field(default_factory=DataConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, as saved with a checkpoint."""
        return asdict(self)


def parse_recipe(content: dict[str, Any], origin: str) -> Recipe:
    """A recipe from nested dictionaries; `origin` names it in errors."""
    return checked(Recipe, content, f"the tables training, model, objective and data in {origin}")


def checked(kind: type[_Kind], content: dict[str, Any], expected: str) -> _Kind:
    """A recipe of any kind, field by field.

    Args:
        kind: Dataclass of the recipe.
        content: Nested dictionaries.
        expected: Its tables and where they are, in words.

    Raises:
        ValueError: A key is missing, unknown or out of range.
    """
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        found = json.dumps(
            [{"at": ".".join(map(str, e["loc"])), "problem": e["msg"]} for e in error.errors()]
        )
        raise ValueError(f"Expected a recipe with {expected}; got {found}.") from error


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not TOML, or a key is unknown or out of range.
    """
    return parse_recipe(read_toml(path), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not TOML.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected a recipe (TOML file); found nothing at {path}.")
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"Expected TOML in {path}; got: {error}.") from error
