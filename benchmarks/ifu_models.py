"""benchmarks/results/ifu_models.json: what a model must have seen of galaxies to predict cubes.

The same network, trained by `make ifu-models` on single central fibres, on scattered ones, on
central ones and some galaxies with several apertures, and on cubes; judged on the galaxies of
`ifu_job`. Models that are not there yet are left out, and said so.
"""

import argparse
from pathlib import Path

import numpy as np
from ifu_job import SEED, simulate, stored
from ifu_scores import method_figures, relative_crps
from results_file import Figure, at_most, figure, score_figure, write_results

from probmmae.calibration.map_scores import GalaxyMaps
from probmmae.calibration.scores import ratio_of_means
from probmmae.inference.posterior import load

MODELS = (
    "cubes", "cubes_few", "scattered", "central_3000", "central_300", "central_30", "central",
)  # fmt: skip
_GOALS = {"scattered": 1.05, "central_3000": 1.10}
"""CRPS of the H-alpha map over that of `cubes`, at most."""


def main() -> None:
    """Judge the models that are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, default=Path("runs/ifu_models"))
    parser.add_argument("--galaxies", type=int, default=48)
    parser.add_argument("--draws", type=int, default=32)
    options = parser.parse_args()
    told: dict[str, list[GalaxyMaps]] = {}
    for name in MODELS:
        folder = options.models / name
        if not (folder / "checkpoint.json").is_file():
            print(f"{name} is not there: make ifu-models trains it")
            continue
        kept = folder / "maps"
        kept.mkdir(exist_ok=True)
        simulate(load(folder), kept, count=options.galaxies, draws=options.draws)
        told[name] = [ours for ours, _ in stored(kept)]
    figures: list[Figure] = []
    for name, maps in told.items():
        goals = name in ("scattered", "central_3000")
        figures += method_figures(f"trained on {name}", maps, seed=SEED, goals=goals)
        if "cubes" in told and name != "cubes":
            figures.append(_over(name, maps, told["cubes"]))
    figures += [
        figure(f"trained on {name}", np.nan, goal="not trained yet")
        for name in MODELS
        if name not in told
    ]
    print(write_results("ifu_models", "make ifu-models", seed=SEED, figures=figures))


def _over(name: str, ours: list[GalaxyMaps], cubes: list[GalaxyMaps]) -> Figure:
    pair = [np.array([relative_crps(one) for one in maps]) for maps in (ours, cubes)]
    use = np.isfinite(pair[0]) & np.isfinite(pair[1])
    said = f"trained on {name}: CRPS of the H-alpha map over that of the model trained on cubes"
    ratio = ratio_of_means(said, pair[0][use], pair[1][use])
    goal = _GOALS.get(name)
    if goal is None:
        return score_figure(ratio)
    return score_figure(ratio, goal=f"at most {goal:.2f}", met=at_most(ratio.value, goal))


if __name__ == "__main__":
    main()
