"""Any trained model from its folder, whatever kind it is of."""

import json
from pathlib import Path

from probmmae.inference.posterior import Model
from probmmae.inference.posterior import load as load_whole
from probmmae.photometric.answers import PhotometricModel, load_photometric


def load(path: str | Path | None = None) -> Model | PhotometricModel:
    """The shipped model, or that of a checkpoint folder, with the repair that is kept there.

    Raises:
        FileNotFoundError: There is no checkpoint at `path`.
        ValueError: It or its repair is damaged, of another version of the network, or the repair
            of other weights.
    """
    if path is not None and _kind(Path(path)) is not None:
        return load_photometric(Path(path))
    return load_whole(path)


def _kind(folder: Path) -> str | None:
    """What a checkpoint says it is; None where it says nothing, or is not to be read."""
    try:
        content = json.loads((folder / "checkpoint.json").read_text())
    except (OSError, ValueError):
        return None
    return content.get("kind") if isinstance(content, dict) else None
