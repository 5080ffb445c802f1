"""benchmarks/results/ifu.json: cubes predicted from images, held against true and real ones.

`python benchmarks/ifu_job.py --data ../shared/data` runs part by part; every part is kept in
`runs/ifu` and, where it is there already, not run again, so that a run that was stopped goes on.
`--parts` chooses some; whatever is there goes into the results.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ifu_cost import cost_figures
from ifu_models import models_figures, models_part
from ifu_real import abell_part, maps_part, real_figures
from ifu_scores import simulated_figures
from ifu_simulated import galaxies, interpolated, predicted
from ifu_tuned import tuned_part
from results_file import Figure, figure, write_results

from probmmae.calibration.map_scores import GalaxyMaps
from probmmae.checkpoint import SHIPPED, read
from probmmae.inference.posterior import Model, load

SEED = 4
DRAWS = 32
PIXELS = 96
"""Simulated galaxies whose cubes are drawn and measured pixel by pixel."""
LIGHT = 1000
"""Those on which models are compared, as the light that spaxels collect."""
PARTS = ("cost", "simulated", "models", "maps", "abell", "tuned")

OF_PARTS = {
    "cost": (("spectra per second of a cube over one position at a time", "at least 50"),
             ("peak memory of 200 draws of 74 x 74 x 4563 (GiB)", "below 2")),
    "simulated": (("cube from images: coverage of 90 % intervals of spaxels in every ring, and of "
                   "integrals", "0.88 to 0.92"),),
    "abell": (("Abell 478: coverage, from three sets of data", "reported"),),
    "tuned": (("Abell 478: coverage before and after a fine-tune on half of its spaxels",
               "reported"),),
}  # fmt: skip
"""What a part measures, named where it has not run yet."""


def main() -> None:
    """Run what is missing and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--galaxies", type=int, default=PIXELS)
    parser.add_argument("--light", type=int, default=LIGHT)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--runs", type=Path, default=Path("runs/ifu"))
    parser.add_argument("--parts", nargs="*", default=PARTS)
    options = parser.parse_args()
    model = load()
    folder = options.runs / read(SHIPPED).info["sha256"][:12]
    folder.mkdir(parents=True, exist_ok=True)
    whole: list[Figure] = []
    if "cost" in options.parts:
        _once(folder / "cost.json", lambda: cost_figures(model))
    if "simulated" in options.parts:
        simulate(model, folder, count=options.galaxies, draws=options.draws)
    if "models" in options.parts:
        models_part(folder, count=options.light, seed=SEED)
    if options.data is not None:
        for name, part in (("maps", maps_part), ("abell", abell_part), ("tuned", tuned_part)):
            if name in options.parts:
                part(model, options.data, folder, draws=options.draws)
    whole += _kept(folder / "cost.json")
    pairs = stored(folder)
    if len(pairs) > 1:
        whole += simulated_figures(*zip(*pairs, strict=True), seed=SEED)
    whole += models_figures(folder)
    whole += real_figures(folder)
    missing = [
        goal
        for part, goals in OF_PARTS.items()
        if not any(folder.glob(f"{part}*"))
        for goal in goals
    ]
    whole += [figure(name, np.nan, goal=goal) for name, goal in missing]
    command = f"make ifu  # {len(pairs)} simulated galaxies, {options.draws} draws"
    print(write_results("ifu", command, seed=SEED, figures=whole))


def simulate(model: Model, folder: Path, *, count: int, draws: int) -> None:
    """The model's and the rival's maps of every galaxy that is not there yet."""
    for index, known in enumerate(galaxies(count)):
        path = folder / f"simulated-{index:03d}.npz"
        if path.is_file():
            continue
        began = time.monotonic()
        ours = predicted(model, known, draws=draws, seed=SEED)
        rival = interpolated(known, ours, draws=draws, seed=SEED)
        _save(path, drawn=ours.drawn, rival=rival.drawn, known=ours.known, radius=ours.radius)
        print(f"{path.name}: {time.monotonic() - began:.0f} s", flush=True)


def stored(folder: Path) -> list[tuple[GalaxyMaps, GalaxyMaps]]:
    """Ours and the rival's of every simulated galaxy that is there."""
    found = []
    for path in sorted(folder.glob("simulated-*.npz")):
        with np.load(path) as told:
            known, radius = told["known"], told["radius"]
            found.append(tuple(
                GalaxyMaps(path.stem, told[name], known, np.zeros_like(known), radius)
                for name in ("drawn", "rival")
            ))  # fmt: skip
    return found


def _save(path: Path, **arrays: Any) -> None:
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.rename(path)


def _once(path: Path, make: Callable[[], Sequence[Figure]]) -> None:
    if path.is_file():
        return
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(make()))
    partial.rename(path)


def _kept(path: Path) -> list[Figure]:
    return json.loads(path.read_text()) if path.is_file() else []


if __name__ == "__main__":
    main()
