"""Redshifts from catalogue photometry, beside every peer, on the same rows of nine tables.

    python benchmarks/photoz_job.py --data ../shared/data --rail .peers/bin/python

A third of each table, by the hash of its galaxies' identities, is held out from us and from the
peers; the DC2 set of pz-rail-base, found in the peers' environment, comes with a test set. Answers
are densities on one grid, judged by the same code. They are made method by method, the quick ones
first, each on one core; an answer is kept under `runs/photoz` and not made again.
benchmarks/results/photoz.json holds everything that has been answered.
"""

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from results_file import Figure, at_most, figure, score_figure, within, write_results

from probmmae.calibration.evidence import Evidence, density_evidence
from probmmae.calibration.pit import pit_result
from probmmae.calibration.point_redshifts import point_scores
from probmmae.calibration.scores import Score, ratio_of_means
from probmmae.config import read_toml
from probmmae.inference.redshifts import exact
from probmmae.photometric.answers import PhotometricModel
from probmmae.photometric.recipe import parse_photometric
from probmmae.photometric.sample import Sample, read_sample
from probmmae.photometric.training import fit

ROOT = Path(__file__).parents[1]
TABLES = {
    "sdss_boss": "sdss_boss_dr10_annz.csv.gz",
    "sdss_mgs": "sdss_mgs_mlz.csv.gz",
    "deep2_3dhst": "deep2_3dhst_ugrizy.csv.gz",
    "zcosmos": "zcosmos_bright_subaru.csv.gz",
    "jwst_hst": "jwst_hst_primer_jades.csv.gz",
    "vvds_deep": "vvds_deep.csv.gz",
    "vvds_wide": "vvds_wide.csv.gz",
    "hdfn": "hdfn_fs99.csv.gz",
    "dc2": "test_dc2_{}_9816.hdf5",
}
"""Recipe and file."""
SMALL_NETWORK = {
    "sdss_boss": -11.4,
    "deep2_3dhst": -10.3,
    "zcosmos": -16.1,
    "jwst_hst": -7.9,
    "vvds_deep": -9.3,
    "sdss_mgs": -22.2,
}
"""CDE loss that a small ensemble with a map of its CDF reached on other rows of these tables."""
HELD_OUT = 1 / 3
OURS = "probmmae"
METHODS = (
    OURS, "FlexZBoost", "neighbours", "GPz", "PZFlow", "FlexZBoost tuned", "Cal-PIT"
)  # fmt: skip
"""Ours, and those of peers_catalogues.py; quick ones first, Cal-PIT after what it stands on."""


@dataclass(frozen=True)
class Split:
    """One table, told apart."""

    name: str
    train: Sample
    test: Sample

    @property
    def grid(self) -> NDArray[np.float64]:
        """Redshifts that hold every galaxy: steps of 0.002, or 0.005 beyond 1.1."""
        top = 1.05 * max(float(self.train.z.max()), float(self.test.z.max()))
        return np.linspace(0.0, top, round(top / (0.002 if top < 1.1 else 0.005)) + 1)

    @property
    def reference(self) -> int:
        """The band that most galaxies have; of several the one closest to 7700 Angstrom."""
        missing = np.round((self.train.table.ivar <= 0).float().mean(0).numpy(), 2)
        apart = np.abs(np.log(np.asarray(self.train.bands.wavelength) / 7700))
        return int(np.lexsort((apart, missing))[0])


def split_of(name: str, data: Path, dc2: Path | None) -> Split | None:
    """The training and the test set of a table; None where its file is not there."""
    path = ROOT / "probmmae" / "recipes" / f"photoz_{name}.toml"
    catalogue = parse_photometric(read_toml(path), str(path)).catalogue
    if name == "dc2":
        if dc2 is None:
            return None
        first, second = (dc2 / TABLES[name].format(part) for part in ("training", "validation"))
        return Split(name, read_sample(catalogue, first), read_sample(catalogue, second))
    file = data / "photoz_catalogues" / TABLES[name]
    if not file.is_file():
        return None
    sample = read_sample(catalogue, file)
    held = sample.held_out(HELD_OUT)
    return Split(name, sample.take(~held), sample.take(held))


@dataclass(frozen=True)
class Answer:
    """What a method said of the test set of a table."""

    method: str
    evidence: Evidence
    mode: NDArray[np.float64]
    """Highest point of each density."""
    cpu: float
    """Seconds of training and answering."""


def ours(split: Split, file: Path) -> None:
    """Train, answer, and keep the answers."""
    began = time.process_time()
    path = ROOT / "probmmae" / "recipes" / f"photoz_{split.name}.toml"
    recipe = parse_photometric(read_toml(path), str(path))
    share = recipe.catalogue.held_out if split.name == "dc2" else HELD_OUT
    recipe = replace(recipe, catalogue=replace(recipe.catalogue, held_out=share))
    pdf, cdf = answers(fit(recipe, split.train), split.test, split.grid)
    spent = time.process_time() - began
    partial = file.with_suffix(".partial.npz")
    np.savez_compressed(partial, pdf=pdf, cdf=cdf, cpu=spent)
    partial.replace(file)


def answers(
    model: PhotometricModel, sample: Sample, grid: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Densities and CDFs on the grid after repair, each of shape (galaxy, grid).

    A density is the slope of its CDF, so that what happens between two points of the grid counts
    for what it holds.
    """
    points = torch.from_numpy(grid)[:, None]
    cdf = np.empty((len(sample), len(grid)))
    for start in range(0, len(sample), 500):
        rows = slice(start, start + 500)
        features = model.features(sample.table.take(rows))
        density = model.density(features)
        below = exact(density).cdf(points).numpy().T
        cdf[rows] = model.pit_map(features, density).cdf(below)
    return normalised_slope(cdf, grid), cdf


def normalised_slope(cdf: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Densities of integral one by the trapezoid rule, as the peers' are, from CDFs."""
    pdf = np.maximum(np.gradient(cdf, grid, axis=1), 0.0)
    return np.asarray(pdf / np.trapezoid(pdf, grid, axis=1)[:, None])


def theirs(split: Split, method: str, file: Path, rail: str) -> None:
    """Have a peer train and answer, and keep the answers."""
    script = ROOT / "benchmarks" / "peers_catalogues.py"
    with tempfile.TemporaryDirectory() as folder:
        tables = {part: Path(folder) / f"{part}.npz" for part in ("train", "test")}
        for part, sample in (("train", split.train), ("test", split.test)):
            np.savez(tables[part], **magnitudes(sample))
        command = [rail, str(script), method, "--train", str(tables["train"]), "--test",
                   str(tables["test"]), "--zmax", repr(float(split.grid[-1])), "--points",
                   str(len(split.grid)), "-o", str(file)]  # fmt: skip
        if method == "Cal-PIT":
            under = lowest_loss(split, file.parent)
            command += ["--under", under, "--answered", str(file.with_name(f"{under}.npz"))]
        subprocess.run(command, check=True)


def magnitudes(sample: Sample) -> dict[str, Any]:
    """A sample as the peers read it: AB magnitudes in the recipe's order, NaN where missing."""
    flux, ivar = sample.table.flux.double().numpy(), sample.table.ivar.double().numpy()
    error, seen = np.maximum(ivar, 1e-20) ** -0.5, ivar > 0
    bright = np.where(flux > 0.2 * error, flux, 0.2 * error)
    return {
        "mag": np.where(seen, 22.5 - 2.5 * np.log10(bright), np.nan),
        "mag_err": np.where(seen, np.minimum(1.0857 * error / bright, 5.0), np.nan),
        "z": sample.z.double().numpy(),
        "bands": "ABCDEFGHIJKLMNOPQ"[: flux.shape[1]],
    }


def lowest_loss(split: Split, folder: Path) -> str:
    """The peer with the lowest CDE loss on the test set, a choice in favour of Cal-PIT.

    Raises:
        ValueError: No peer has answered.
    """
    losses = {
        answer.method: _score(answer, "CDE loss").value
        for answer in answers_of(split, folder)
        if answer.method not in (OURS, "Cal-PIT")
    }
    if not losses:
        raise ValueError(f"Expected answers of a peer in {folder}; got none. Run another first.")
    return min(losses, key=lambda method: losses[method])


def answers_of(split: Split, folder: Path) -> list[Answer]:
    """What every method that is done said of a table."""
    found = []
    for method in METHODS:
        file = folder / f"{method}.npz"
        if not file.is_file():
            continue
        with np.load(file) as kept:
            if "failed" in kept:
                continue
            pdf = kept["pdf"].astype(np.float64)
            evidence = density_evidence(
                method, pdf, grid=split.grid, truth=split.test.z.double().numpy(),
                generator=np.random.default_rng(0), levels=(0.5, 0.9),
                cdf=kept["cdf"] if "cdf" in kept else None,
            )  # fmt: skip
            found.append(
                Answer(method, evidence, split.grid[pdf.argmax(axis=1)], float(kept["cpu"]))
            )
    return found


def figures_of(split: Split, folder: Path) -> list[Figure]:
    """Every figure of a table; goals for ours where the peers have answered."""
    every = {one.method: one for one in answers_of(split, folder)}
    rivals = {method: one for method, one in every.items() if method != OURS}
    found = [
        one for method, answer in every.items()
        for one in _figures(answer, split, rivals if method == OURS else {})
    ]  # fmt: skip
    for method in METHODS:
        file = folder / f"{method}.npz"
        reason = "not asked"
        if method in every:
            continue
        if file.is_file():
            with np.load(file) as kept:
                reason = str(kept["failed"])
        found.append(figure(f"{split.name}, {method}: no answer ({reason})", float("nan")))
    return found


def _figures(answer: Answer, split: Split, rivals: dict[str, Answer]) -> list[Figure]:
    label, evidence = f"{split.name}, {answer.method}", answer.evidence
    nmad, _, outliers, *_ = _points(answer, split)
    cde = _score(answer, "CDE loss")
    best = min((_points(one, split)[0].value for one in rivals.values()), default=np.inf)
    found = [
        score_figure(nmad, name=f"{label}: NMAD of the mode",
                     **_goal(rivals, f"below every peer's, {best:.4f}", nmad.value < best)),
        score_figure(outliers, name=f"{label}: outliers beyond 0.15"),
        score_figure(_score(answer, "CRPS"), name=f"{label}: CRPS"),
        score_figure(cde, name=f"{label}: CDE loss", **_cde_goal(cde, split.name, rivals)),
    ]  # fmt: skip
    for name, other in rivals.items():
        ratio = ratio_of_means("ratio", evidence.crps_values, other.evidence.crps_values)
        told = _goal(True, "below 1", ratio.value < 1)
        found.append(score_figure(ratio, name=f"{label}: CRPS over that of {name}", **told))
    for part, rows in _groups(split).items():
        pit = pit_result(evidence.pit_values[rows])
        told = _goal(answer.method == OURS, f"at most {pit.limit:.4f} (99 % band)", pit.passed)
        found.append(
            figure(f"{label}: PIT KS distance{part}", pit.distance, n=pit.n, **told)
        )  # fmt: skip
    covered = evidence.at(0.9)
    told = _goal(answer.method == OURS, "0.885 to 0.915", within(covered.value, 0.885, 0.915))
    found.append(score_figure(covered, name=f"{label}: coverage of 90 % intervals", **told))
    told = {}
    if "FlexZBoost" in rivals:
        limit = rivals["FlexZBoost"].cpu
        told = _goal(True, f"at most FlexZBoost's, {limit:.0f}", at_most(answer.cpu, limit))
    found.append(
        figure(f"{label}: CPU seconds of training and answering", answer.cpu,
               n=len(split.train), **told)
    )  # fmt: skip
    return found


def _groups(split: Split) -> dict[str, NDArray[np.bool_]]:
    """The test set, and its thirds in brightness."""
    flux = split.test.table.flux[:, split.reference].numpy()
    third = np.digitize(flux, np.quantile(flux, [1 / 3, 2 / 3]))
    groups = {"": third >= 0}
    for at, word in enumerate(("faint", "middle", "bright")):
        groups[f", {word} third"] = third == at
    return groups


def _score(answer: Answer, name: str) -> Score:
    return next(one for one in answer.evidence.scores if one.name == name)


def _points(answer: Answer, split: Split) -> tuple[Score, ...]:
    truth = split.test.z.double().numpy()
    return point_scores(answer.mode, truth, generator=np.random.default_rng(0))


def _goal(there: object, goal: str, met: object) -> dict[str, Any]:
    return {"goal": goal, "met": bool(met)} if there else {}


def _cde_goal(score: Score, table: str, rivals: dict[str, Answer]) -> dict[str, Any]:
    if "FlexZBoost" not in rivals:
        return {}
    limit, said = _score(rivals["FlexZBoost"], "CDE loss").value - 2, "2 below FlexZBoost's"
    if table in SMALL_NETWORK:
        limit, said = min(limit, SMALL_NETWORK[table]), f"{said}, and that of a small network"
    return _goal(True, f"at most {limit:.2f}: {said}", score.value <= limit)


def dc2_folder(rail: str) -> Path | None:
    """Where the peers' environment keeps the DC2 set; None where it does not."""
    code = (
        "from rail.utils.path_utils import find_rail_file as f; "
        "print(f('examples_data/testdata/test_dc2_training_9816.hdf5'))"
    )
    done = subprocess.run([rail, "-c", code], capture_output=True, text=True, check=False)
    return Path(done.stdout.split()[-1]).parent if done.returncode == 0 else None


def main() -> None:
    """Run method by method and table by table; each answer is kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--rail", help="Python of the peers' environment; without it ours alone.")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "photoz")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dc2 = None if options.rail is None else dc2_folder(options.rail)
    splits = {}
    for name in options.tables:
        split = split_of(name, options.data, dc2)
        if split is None:
            print(f"{name}: its file is not there; left out", flush=True)
            continue
        print(f"{name}: {len(split.train)} to learn from, {len(split.test)} held out", flush=True)
        splits[name] = split
        (options.runs / name).mkdir(parents=True, exist_ok=True)
    for method in options.methods:
        for name, split in splits.items():
            file = options.runs / name / f"{method}.npz"
            if file.is_file() or (method != OURS and options.rail is None):
                continue
            if method == OURS:
                ours(split, file)
            else:
                theirs(split, method, file, options.rail)
            print(f"{name}, {method}: done", flush=True)
    for name, split in splits.items():
        figures = figures_of(split, options.runs / name)
        (options.runs / f"{name}.json").write_text(json.dumps(figures, indent=1))
    every = [options.runs / f"{name}.json" for name in TABLES]
    figures = [one for path in every if path.is_file() for one in json.loads(path.read_text())]
    path = write_results("photoz", "make photoz", seed=0, figures=figures)
    print(f"{path}: {sum(one['met'] is True for one in figures)} goals met, "
          f"{sum(one['met'] is False for one in figures)} missed")  # fmt: skip


if __name__ == "__main__":
    main()
