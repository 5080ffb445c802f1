"""Exact inference, measured: benchmarks/results/inference.json.

    python benchmarks/inference_job.py

Parts are run one after the other and kept under `runs/inference` with the commit that made them; a
part that is there is not run again (delete it to run it anew), and every galaxy is kept by itself.
The file holds the parts that are there; `--parts` runs no more than those named.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import torch
from inference_galaxies import GALAXIES, galaxy_figures
from inference_pyro import pyro_figures
from inference_surveys import SURVEYS, coverage_figures, size_figures
from inference_twin import twin_figures
from results_file import Figure, commit, write_results

from probmmae.checkpoint import SHIPPED, read
from probmmae.inference.posterior import load

ROOT = Path(__file__).parents[1]
SEED = 20
PARTS = ("twin", "cost", "coverage", "sizes", "galaxies")


def main() -> None:
    """Run what is missing, and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=None, help="default: the shipped one")
    parser.add_argument("--galaxies", type=int, default=GALAXIES)
    parser.add_argument("--surveys", type=int, default=SURVEYS)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "inference")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = load(options.checkpoint).network
    weights = str(read(options.checkpoint or SHIPPED).info["sha256"])[:8]
    work, of_weights = options.work, options.work / weights
    picture = ROOT / "docs" / "figures" / "mean_redshift.png"
    surveys, galaxies = options.surveys, options.galaxies
    parts: dict[str, tuple[Path, Callable[[], list[Figure]]]] = {
        "twin": (work / "twin.json", lambda: twin_figures(SEED)),
        "cost": (of_weights / "cost.json", lambda: pyro_figures(network, galaxies=3)),
        "coverage": (work / f"coverage-{surveys}.json", lambda: coverage_figures(surveys)),
        "sizes": (work / "sizes.json", lambda: size_figures(picture)),
        "galaxies": (
            of_weights / f"galaxies-{galaxies}.json",
            lambda: galaxy_figures(network, of_weights, galaxies),
        ),
    }
    figures: list[Figure] = []
    made: dict[str, str] = {}
    for name, (path, run) in parts.items():
        if name not in options.parts and not path.exists():
            continue
        stored = _part(path, run)
        figures += stored["figures"]
        made[name] = stored["commit"][:10]
        said = ", ".join(f"{part} {at}" for part, at in made.items())
        print(f"{name} done", flush=True)
    path = write_results(
        "inference", f"make inference  # weights {weights}; parts made at {said}", seed=SEED,
        figures=figures,
    )  # fmt: skip
    missed = [one for one in figures if one["met"] is False]
    print(f"{path}: {len(figures)} figures, {len(missed)} miss their goal")
    for one in missed:
        print(f"  {one['name']} = {one['value']} (goal {one['goal']})")


def _part(path: Path, run: Callable[[], list[Figure]]) -> dict[str, Any]:
    if not path.exists():
        began = commit()
        figures = run()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps({"commit": began, "figures": figures}))
        os.replace(partial, path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


if __name__ == "__main__":
    main()
