"""What a model must have seen of galaxies to predict cubes: seven training sets, one network.

Trained by `make ifu-models` from one trunk, at equal cost a step, on single central fibres, on
scattered ones, on central ones and some galaxies with eight apertures, and on cubes; judged, as
are the shipped model and what anyone could do with colours, on galaxies of the report's seed
(`ifu_simulated`), with known redshifts, from images, as the light that spaxels collect. Every one
has its file; models that are not there yet are said to be missing.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ifu_scores import EVERY, MAPS, Goals, method_figures, relative_crps
from ifu_simulated import Known, galaxies, interpolated, predicted_light
from results_file import Figure, at_most, figure, score_figure

from probmmae import checkpoint
from probmmae.calibration.map_scores import GalaxyMaps
from probmmae.calibration.scores import ratio_of_means
from probmmae.inference.posterior import load

TRAINED = Path("runs/ifu_models")
DRAWS = 64
MODELS = {
    "cubes": "cubes alone",
    "cubes_few": "64 cubes alone",
    "scattered": "scattered fibres",
    "central_3000": "central fibres and 3,000 galaxies with cubes",
    "central_300": "central fibres and 300 galaxies with cubes",
    "central_30": "central fibres and 30 galaxies with cubes",
    "central": "central fibres",
}
"""Folders, and what they were trained on; all are held against the first."""
JUDGED = {
    **{name: f"trained on {said}" for name, said in MODELS.items()},
    "shipped": "the shipped model",
    "rival": "interpolation in colours",
}
_QUANTITIES = ("h_alpha", "h_alpha_ew", "d4000", "continuum")
_WIDE = (0.88, 0.92)
_GOALS = {
    "scattered": Goals(spaxels=_WIDE),
    "central_3000": Goals(spaxels=_WIDE, integrals=_WIDE),
    "central_300": Goals(integrals=(0.85, 0.93)),
    "shipped": EVERY,
}
_CRPS = {"scattered": 1.05, "central_3000": 1.10}
"""CRPS of the H-alpha map over that of the model trained on cubes, at most."""


def models_part(folder: Path, *, count: int, seed: int) -> None:
    """Judge the models that are trained and not judged yet.

    Args:
        folder: Receives model-NAME.json.
        count: Galaxies.
        seed: Of draws and randomised ranks.
    """
    wanted = [name for name in JUDGED if not _path(folder, name).is_file()]
    wanted = [name for name in wanted if name not in MODELS or _trained(TRAINED / name)]
    known = list(galaxies(count)) if wanted else []
    for name in wanted:
        maps = _maps(name, known, seed)
        quantities = MAPS if name == "shipped" else _QUANTITIES
        told = {
            "figures": method_figures(
                JUDGED[name], maps, quantities, seed=seed, goals=_GOALS.get(name, Goals())
            ),
            "crps": [relative_crps(one) for one in maps],
        }
        partial = _path(folder, name).with_suffix(".partial")
        partial.write_text(json.dumps(told))
        partial.rename(_path(folder, name))
        print(f"{name}: judged on {count} galaxies", flush=True)


def models_figures(folder: Path) -> list[Figure]:
    """Figures of all that is judged, and what is missing."""
    found: list[Figure] = []
    crps: dict[str, list[float]] = {}
    for name, label in JUDGED.items():
        if not _path(folder, name).is_file():
            found.append(figure(label, np.nan, goal="to be judged: make ifu"))
            continue
        told = json.loads(_path(folder, name).read_text())
        found += told["figures"]
        crps[name] = told["crps"]
        if name != "cubes" and "cubes" in crps:
            found.append(_over(name, crps[name], crps["cubes"]))
    return found


def _maps(name: str, known: Sequence[Known], seed: int) -> list[GalaxyMaps]:
    if name != "rival":
        model = load(TRAINED / name) if name in MODELS else load()
        return [predicted_light(model, one, draws=DRAWS, seed=seed) for one in known]
    # Any model says where the spaxels are and what is true.
    model = load()
    return [
        interpolated(
            one, predicted_light(model, one, draws=1, seed=seed), draws=DRAWS, seed=seed
        )
        for one in known
    ]  # fmt: skip


def _trained(folder: Path) -> bool:
    """Whether a run is there and has reached its last step."""
    if not (folder / "checkpoint.json").is_file():
        return False
    stored = checkpoint.read(folder)
    return stored.step == stored.recipe.training.steps


def _over(name: str, ours: list[float], cubes: list[float]) -> Figure:
    one, other = np.array(ours, np.float64), np.array(cubes, np.float64)
    use = np.isfinite(one) & np.isfinite(other)
    said = f"{JUDGED[name]}: CRPS of the H-alpha map over that of the model trained on cubes"
    ratio = ratio_of_means(said, one[use], other[use])
    most = _CRPS.get(name)
    if most is None:
        return score_figure(ratio)
    return score_figure(ratio, goal=f"at most {most:.2f}", met=at_most(ratio.value, most))


def _path(folder: Path, name: str) -> Path:
    return folder / f"model-{name}.json"
