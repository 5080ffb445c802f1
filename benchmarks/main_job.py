"""The main job, measured: benchmarks/results/main_job.json.

Baselines (the deterministic masked autoencoder and the independent-pixel model) are trained by
`make baselines` with the same code and stream; FlexZBoost runs in its own environment (`make
peers`). Parts can be run apart: their figures are kept in a folder and joined at the end.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from cost_job import cost_figures
from latent_job import latent_figures
from redshift_job import redshift_figures
from report_set import REPORT_SEED, TRAIN_SEED, TUNE_SEED, Sample, sample
from results_file import Figure, write_results
from spectrum_job import image_to_spectrum, spectrum_to_spectrum

from probmmae import checkpoint
from probmmae.config import read_recipe

PARTS = ("redshift", "spectrum", "masked", "latent", "cost", "real")


def main() -> None:
    """Measure the parts that are asked for, then join all that are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=None, help="default: the shipped one")
    parser.add_argument("--baselines", type=Path, nargs="*", default=[], help="run folders")
    parser.add_argument("--rail", default=None, help="python of the peers' environment")
    parser.add_argument("--data", type=Path, default=None, help="folder of the real data")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--galaxies", type=int, default=2048)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--bank", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, default=Path("runs/main_job"))
    parser.add_argument("--seed", type=int, default=REPORT_SEED)
    options = parser.parse_args()
    network = checkpoint.load_model(options.checkpoint)
    recipe = read_recipe(Path("probmmae/recipes/shipped_first.toml"))
    rivals = {f.name: checkpoint.load_model(f) for f in options.baselines}
    report = sample(options.galaxies, options.seed)
    options.work.mkdir(parents=True, exist_ok=True)

    def tune() -> Sample:
        return sample(1024, TUNE_SEED, spectra=False)

    def bank() -> Sample:
        return sample(8192, TRAIN_SEED, spectra=False)

    def redshift() -> list[Figure]:
        return redshift_figures(
            network, rivals, report, tune(), bank(),
            rail=options.rail, bank_size=options.bank, seed=options.seed,
        )  # fmt: skip

    def spectrum() -> list[Figure]:
        return image_to_spectrum(
            network, rivals, report, tune(), bank(), draws=options.draws, seed=options.seed
        )

    def masked() -> list[Figure]:
        return spectrum_to_spectrum(network, report, draws=options.draws, seed=options.seed)

    def latent() -> list[Figure]:
        part = next(report.chunks(512))
        return latent_figures(network, part, samples=32, seed=options.seed)

    def cost() -> list[Figure]:
        return cost_figures(network, recipe, repeats=10)

    def real() -> list[Figure]:
        if options.data is None:
            return []
        from real_job import real_figures

        return real_figures(network, options.data, draws=options.draws, seed=options.seed)

    jobs: dict[str, Callable[[], list[Figure]]] = {
        "redshift": redshift, "spectrum": spectrum, "masked": masked,
        "latent": latent, "cost": cost, "real": real,
    }  # fmt: skip
    for name in options.parts:
        began = time.perf_counter()
        keep(options.work / f"{name}.json", jobs[name]())
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    figures: list[Figure] = []
    for name in PARTS:
        path = options.work / f"{name}.json"
        if path.is_file():
            figures += json.loads(path.read_text())
    apart = "" if options.parts == list(PARTS) else ", parts run apart"
    command = (
        f"make main-job  # {options.galaxies} galaxies, {options.draws} draws, "
        f"a bank of {options.bank}{apart}"
    )
    path = write_results("main_job", command, seed=options.seed, figures=figures)
    missed = [one for one in figures if one["met"] is False]
    print(f"{path}: {len(figures)} figures, {len(missed)} miss their goal")
    for one in missed:
        print(f"  {one['name']} = {one['value']} (goal {one['goal']})")


def keep(path: Path, figures: list[Figure]) -> None:
    """Write the figures of a part, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(figures, indent=1))
    os.replace(partial, path)


if __name__ == "__main__":
    main()
