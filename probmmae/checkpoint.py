"""Checkpoints: weights in safetensors, everything else in JSON, never a pickle.

A checkpoint is a folder. `checkpoint.json` names the weights file, its SHA-256 and the recipe, and
is replaced in one step after the weights are on disk, so a crash leaves the old checkpoint or the
new one.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from probmmae.config import Recipe, parse_recipe
from probmmae.footprint import Footprint
from probmmae.model import GalaxyModel

TEMPLATES = Path(__file__).parent / "data" / "templates.npz"
"""The basis that the decoder's numbers mean: another basis would be silently wrong."""
SHIPPED = Path(__file__).parent / "data" / "shipped"
"""The trained model that the package carries."""
REPAIR = "repair.json"
"""What recalibrates the posteriors of one file of weights; see `inference/repair.py`."""


@dataclass(frozen=True)
class Stored:
    """What a checkpoint folder holds."""

    recipe: Recipe
    step: int
    tensors: dict[str, Tensor]
    info: dict[str, Any]
    """The whole of checkpoint.json."""
    footprint: Footprint | None
    """Where on galaxies the apertures of training lay, where it is recorded."""


def versions() -> dict[str, str]:
    """Versions of the packages that decide numbers."""
    found = {}
    for name in ("probmmae", "torch", "pyro-ppl", "numpy", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write(
    folder: Path, tensors: dict[str, Tensor], recipe: Recipe, step: int, extra: dict[str, Any]
) -> None:
    """Write a checkpoint atomically; an older one in the same folder is replaced.

    A repair of the older weights is taken away with them.
    """
    content = {"step": step, "templates": _digest(TEMPLATES), "recipe": recipe.to_dict(), **extra}
    write_folder(folder, tensors, f"weights-{step:08d}", content)


def write_folder(
    folder: Path, tensors: dict[str, Tensor], name: str, content: dict[str, Any]
) -> None:
    """Weights of any model and the JSON beside them, as `write` does.

    Args:
        folder: Made where it is not there.
        tensors: The weights, by name.
        name: What the file of weights begins with, "weights-" and more.
        content: What checkpoint.json says besides the weights' file and the versions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{name}.partial"
    save_file({name: part.detach().contiguous() for name, part in tensors.items()}, temporary)
    digest = _digest(temporary)
    # Named by content: another run's weights of the same step must outlive a crash, too.
    weights = folder / f"{name}-{digest[:12]}.safetensors"
    temporary.chmod(0o644)
    os.replace(temporary, weights)
    whole = {
        "format": 1,
        "weights": weights.name,
        "sha256": digest,
        "versions": versions(),
        **content,
    }
    partial = folder / "checkpoint.json.partial"
    partial.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(partial, folder / "checkpoint.json")
    for old in folder.glob("weights-*"):
        if old.name != weights.name:
            (folder / REPAIR).unlink(missing_ok=True)
            old.unlink()


def read(folder: Path) -> Stored:
    """Read a checkpoint folder.

    Raises:
        FileNotFoundError: The folder holds no checkpoint.
        ValueError: The weights are truncated, changed, or of an unknown format; or another kind
            of model.
    """
    info, tensors = read_folder(folder)
    if "kind" in info:
        raise ValueError(
            f"Expected a model of images, photometry and spectra; {folder} holds a model of "
            f"{info['kind']} alone. It answers probmmae photoz."
        )
    try:
        recipe, step = parse_recipe(info["recipe"], str(folder)), int(info["step"])
    except (KeyError, TypeError) as error:
        raise _damaged(folder, error) from error
    basis = _digest(TEMPLATES)
    if info.get("templates", basis) != basis:
        raise ValueError(
            f"Expected the template basis that {folder} was trained with (SHA-256 "
            f"{info['templates']}); this package carries {basis}. Use the version that trained it."
        )
    seen = Footprint.from_dict(info.get("footprint"))
    return Stored(recipe=recipe, step=step, tensors=tensors, info=info, footprint=seen)


def read_footprint(folder: Path) -> Footprint | None:
    """Where on galaxies the apertures lay that a model was trained on; None where not recorded.

    Raises:
        FileNotFoundError: The folder holds no checkpoint.
        ValueError: Its JSON is damaged.
    """
    index = folder / "checkpoint.json"
    try:
        return Footprint.from_dict(json.loads(index.read_text()).get("footprint"))
    except (json.JSONDecodeError, AttributeError) as error:
        raise _damaged(folder, error) from error


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The whole of checkpoint.json, and the weights that it names, of any model.

    Models of something else than galaxies as a whole say so under "kind".

    Raises:
        FileNotFoundError: The folder holds no checkpoint.
        ValueError: The weights are truncated or changed, or the JSON is none of a checkpoint.
    """
    index = folder / "checkpoint.json"
    if not index.is_file():
        raise FileNotFoundError(
            f"Expected a checkpoint folder with a checkpoint.json; found none at {folder}. "
            "probmmae.load() without a path gives the model that the package carries."
        )
    try:
        info = json.loads(index.read_text())
        weights, expected = folder / info["weights"], info["sha256"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from error
    if not weights.is_file():
        raise FileNotFoundError(f"Expected the weights {weights.name} beside {index}; found none.")
    digest = _digest(weights)
    if digest != expected:
        raise ValueError(
            f"Expected weights with SHA-256 {expected}; {weights} has {digest}. "
            "The file is damaged or was changed."
        )
    try:
        return info, load_file(weights)
    except SafetensorError as error:
        raise ValueError(f"Expected safetensors in {weights}; got: {error}.") from error


def _damaged(folder: Path, error: Exception) -> ValueError:
    return ValueError(
        f"Expected the JSON of a checkpoint in {folder / 'checkpoint.json'}; got: {error!r}."
    )


def load_model(path: str | Path | None = None) -> GalaxyModel:
    """The trained network of a checkpoint folder, on the CPU, ready for inference."""
    stored = read(SHIPPED if path is None else Path(path))
    model = GalaxyModel(stored.recipe.model)
    weights = {
        name.removeprefix("model."): part.float() if part.is_floating_point() else part
        for name, part in stored.tensors.items()
        if name.startswith("model.")
    }
    length = weights.get("prior.log_length")
    if length is not None and length.ndim == 0:
        weights |= _of_one_length(length, model)
    model.load_state_dict(weights)
    model.requires_grad_(False)
    return model.eval()


def _of_one_length(log_length: Tensor, model: GalaxyModel) -> dict[str, Tensor]:
    """Laws of the field in weights of before each process had its own: one length, none white."""
    laws = {
        "log_length": log_length.expand_as(model.prior.log_length),
        "white": torch.full_like(model.prior.white, -30.0),
        "stretch.weight": torch.zeros_like(model.prior.stretch.weight),
        "stretch.bias": torch.zeros_like(model.prior.stretch.bias),
    }
    return {f"prior.{name}": part for name, part in laws.items()}


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in half precision, for a checkpoint that travels."""
    return {
        name: part.to(torch.float16) if part.is_floating_point() else part
        for name, part in tensors.items()
    }
