"""Redshifts from catalogue photometry, beside every peer, on the same rows of nine tables.

    python benchmarks/photoz_job.py --data ../shared/data --rail .peers/bin/python

A third of each table, by the hash of its galaxies' identities, is held out from us and from the
peers; the DC2 set of pz-rail-base, found in the peers' environment, comes with a test set. Answers
are densities on one grid, judged by the same code. A table that is done is kept under
`runs/photoz` and not done again; benchmarks/results/photoz.json holds all that are.
"""

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

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


def ours(split: Split) -> tuple[Evidence, NDArray[np.float64], float]:
    """Evidence on our answers, their modes, and seconds of CPU."""
    began = time.process_time()
    path = ROOT / "probmmae" / "recipes" / f"photoz_{split.name}.toml"
    recipe = parse_photometric(read_toml(path), str(path))
    share = recipe.catalogue.held_out if split.name == "dc2" else HELD_OUT
    recipe = replace(recipe, catalogue=replace(recipe.catalogue, held_out=share))
    pdf, cdf = answers(fit(recipe, split.train), split.test, split.grid)
    spent = time.process_time() - began
    return judged(OURS, pdf, split, cdf), split.grid[pdf.argmax(axis=1)], spent


def answers(
    model: PhotometricModel, sample: Sample, grid: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Densities and CDFs on the grid after repair, each of shape (galaxy, grid)."""
    points, pit_map = torch.from_numpy(grid)[:, None], model.pit_law.pit_map()
    pdf, cdf = (np.empty((len(sample), len(grid))) for _ in range(2))
    for start in range(0, len(sample), 500):
        rows = slice(start, start + 500)
        density = exact(model.density(model.features(sample.table.take(rows))))
        below = density.cdf(points).numpy().T
        pdf[rows] = density.log_prob(points).exp().numpy().T * pit_map.density(below)
        cdf[rows] = pit_map.cdf(below)
    return pdf, cdf


def judged(
    name: str,
    pdf: NDArray[np.float64],
    split: Split,
    cdf: NDArray[np.float64] | None = None,
) -> Evidence:
    """Evidence on densities of the test set."""
    return density_evidence(
        name, pdf, grid=split.grid, truth=split.test.z.double().numpy(),
        generator=np.random.default_rng(0), cdf=cdf, levels=(0.5, 0.9),
    )  # fmt: skip


def peers(split: Split, rail: str, names: list[str] | None) -> dict[str, NDArray]:
    """What the peers' environment writes of a table."""
    script = ROOT / "benchmarks" / "peers_catalogues.py"
    with tempfile.TemporaryDirectory() as folder:
        order = np.argsort(split.train.bands.wavelength)
        for part, sample in (("train", split.train), ("test", split.test)):
            flux, ivar = (one.double().numpy()[:, order] for one in (
                sample.table.flux, sample.table.ivar))  # fmt: skip
            error = np.maximum(ivar, 1e-20) ** -0.5
            bright = np.where(flux > 0.2 * error, flux, 0.2 * error)
            seen = ivar > 0
            np.savez(
                Path(folder) / f"{part}.npz",
                mag=np.where(seen, 22.5 - 2.5 * np.log10(bright), np.nan),
                mag_err=np.where(seen, np.minimum(1.0857 * error / bright, 5.0), np.nan),
                z=sample.z.double().numpy(),
                bands="ABCDEFGHIJKLMNOPQ"[: len(order)],
            )
        out = Path(folder) / "out.npz"
        command = [rail, str(script), "--train", f"{folder}/train.npz", "--test",
                   f"{folder}/test.npz", "-o", str(out), "--zmax", repr(float(split.grid[-1])),
                   "--points", str(len(split.grid))]  # fmt: skip
        subprocess.run([*command, *(["--peers", *names] if names else [])], check=True)
        with np.load(out) as file:
            return {name: file[name] for name in file.files}


def figures_of(
    evidence: Evidence,
    mode: NDArray[np.float64],
    split: Split,
    cpu: float,
    rivals: dict[str, tuple[Evidence, NDArray[np.float64], float]],
) -> list[Figure]:
    """The figures of one method on one table; goals where there are rivals to have goals of."""
    label = f"{split.name}, {evidence.name}"
    goals = evidence.name == OURS
    points = _points(mode, split)
    scores = {score.name: score for score in evidence.scores}
    best = min((_points(one[1], split)[0].value for one in rivals.values()), default=np.inf)
    found = [
        score_figure(points[0], name=f"{label}: NMAD of the mode",
                     **_goal(rivals, f"below every peer's, {best:.4f}", points[0].value < best)),
        score_figure(points[2], name=f"{label}: outliers beyond 0.15"),
        score_figure(scores["CRPS"], name=f"{label}: CRPS"),
        score_figure(scores["CDE loss"], name=f"{label}: CDE loss", **_cde_goal(
            scores["CDE loss"], split.name, rivals)),
    ]  # fmt: skip
    for name, (other, _, _) in rivals.items():
        ratio = ratio_of_means("ratio", evidence.crps_values, other.crps_values)
        told = {"goal": "below 1", "met": ratio.value < 1}
        found.append(score_figure(ratio, name=f"{label}: CRPS over that of {name}", **told))
    flux = split.test.table.flux[:, split.reference].numpy()
    third = np.digitize(flux, np.quantile(flux, [1 / 3, 2 / 3]))
    groups = {"": third >= 0}
    for at, word in enumerate(("faint", "middle", "bright")):
        groups[f", {word} third"] = third == at
    for part, rows in groups.items():
        pit = pit_result(evidence.pit_values[rows])
        told = {"goal": f"at most {pit.limit:.4f} (99 % band)", "met": pit.passed}
        found.append(
            figure(f"{label}: PIT KS distance{part}", pit.distance, n=pit.n,
                   **(told if goals else {}))
        )  # fmt: skip
    covered = evidence.at(0.9)
    told = {"goal": "0.885 to 0.915", "met": within(covered.value, 0.885, 0.915)}
    found.append(score_figure(covered, name=f"{label}: coverage of 90 % intervals",
                              **(told if goals else {})))  # fmt: skip
    boosted = rivals["FlexZBoost"][2] if "FlexZBoost" in rivals else np.inf
    found.append(
        figure(f"{label}: CPU seconds of training and answering", cpu, n=len(split.train),
               **_goal(boosted < np.inf, f"at most FlexZBoost's, {boosted:.0f}",
                       at_most(cpu, boosted)))
    )  # fmt: skip
    return found


def _points(mode: NDArray[np.float64], split: Split) -> tuple[Score, ...]:
    return point_scores(mode, split.test.z.double().numpy(), generator=np.random.default_rng(0))


def _goal(there: object, goal: str, met: object) -> dict[str, str | bool]:
    return {"goal": goal, "met": bool(met)} if there else {}


def _cde_goal(
    score: Score, table: str, rivals: dict[str, tuple[Evidence, NDArray[np.float64], float]]
) -> dict[str, str | bool]:
    if "FlexZBoost" not in rivals:
        return {}
    (theirs,) = (one for one in rivals["FlexZBoost"][0].scores if one.name == "CDE loss")
    limit, said = theirs.value - 2, "2 below FlexZBoost's"
    if table in SMALL_NETWORK:
        limit, said = min(limit, SMALL_NETWORK[table]), f"{said}, and that of a small network"
    return _goal(True, f"at most {limit:.2f}: {said}", score.value <= limit)


def table_figures(split: Split, rail: str | None, names: list[str] | None) -> list[Figure]:
    """Every figure of a table, ours first."""
    evidence, mode, cpu = ours(split)
    rivals: dict[str, tuple[Evidence, NDArray[np.float64], float]] = {}
    if rail is not None:
        said = peers(split, rail, names)
        for key, pdf in said.items():
            if key.startswith("pdf_"):
                name = key.removeprefix("pdf_")
                modes = split.grid[pdf.argmax(axis=1)]
                rivals[name] = (judged(name, pdf, split), modes, float(said[f"cpu_{name}"]))
    found = figures_of(evidence, mode, split, cpu, rivals)
    for other, modes, spent in rivals.values():
        found += figures_of(other, modes, split, spent, {})
    return found


def dc2_folder(rail: str) -> Path | None:
    """Where the peers' environment keeps the DC2 set; None where it does not."""
    code = (
        "from rail.utils.path_utils import find_rail_file as f; "
        "print(f('examples_data/testdata/test_dc2_training_9816.hdf5'))"
    )
    done = subprocess.run([rail, "-c", code], capture_output=True, text=True, check=False)
    return Path(done.stdout.split()[-1]).parent if done.returncode == 0 else None


def main() -> None:
    """Run table by table; each that is done is kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--rail", help="Python of the peers' environment; without it ours alone.")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--peers", nargs="+", help="Some of those of peers_catalogues.py.")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "photoz")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    dc2 = None if options.rail is None else dc2_folder(options.rail)
    for name in options.tables:
        kept = options.runs / f"{name}.json"
        if kept.is_file():
            continue
        split = split_of(name, options.data, dc2)
        if split is None:
            print(f"{name}: its file is not there; left out", flush=True)
            continue
        print(f"{name}: {len(split.train)} to learn from, {len(split.test)} held out", flush=True)
        kept.write_text(json.dumps(table_figures(split, options.rail, options.peers), indent=1))
    every = [options.runs / f"{name}.json" for name in TABLES]
    figures = [one for path in every if path.is_file() for one in json.loads(path.read_text())]
    path = write_results("photoz", "make photoz", seed=0, figures=figures)
    print(f"{path}: {sum(one['met'] is True for one in figures)} goals met, "
          f"{sum(one['met'] is False for one in figures)} missed")  # fmt: skip


if __name__ == "__main__":
    main()
