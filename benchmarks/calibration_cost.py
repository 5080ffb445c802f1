"""What diagnostics and repair cost, and do, beside their peers: parts of the calibration job.

The full report's time and memory; ranks and TARP against sbi.diagnostics on the same arrays; the
local law of the PIT against Cal-PIT on the same rows. None of it depends on the trained model
but the last, which repairs its densities, broken on purpose.
"""

import resource
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from results_file import Figure, at_least, at_most, figure, pit_figure, score_figure

from probmmae.calibration.answers import Drawn, Job, Vectors
from probmmae.calibration.evidence import Evidence, density_evidence
from probmmae.calibration.ranks import sbc_ranks
from probmmae.calibration.recalibrate import recalibrate_density
from probmmae.calibration.recalibrate_local import fit_local
from probmmae.calibration.report import make_report
from probmmae.calibration.scores import ratio_of_means
from probmmae.calibration.tarp import tarp_result
from probmmae.inference.redshifts import exact
from probmmae.inference.shown import covariates
from probmmae.masking import only_photometry
from probmmae.model import GalaxyModel
from probmmae.redshift import RedshiftDensity
from probmmae.simulator.stream import simulate_catalogue

REPEATS = 5
"""Of each timing, ours and theirs in turn; the median counts."""
ROWS = 4000
"""Galaxies that fit a repair of broken densities, and as many that judge it."""
_GRID = np.linspace(0.0, 0.9, 901)
FloatArray = NDArray[np.float64]


def report_cost(galaxies: int, draws: int, *, seed: int) -> list[Figure]:
    """The full report on exact answers: redshifts, five features and vectors of twenty numbers."""
    rng = np.random.default_rng(seed)
    normal = partial(rng.standard_normal, dtype=np.float32)
    centre = normal((galaxies, 26))
    truth = (centre + normal((galaxies, 26))).astype(np.float64)
    made = normal((draws, galaxies, 26)) + centre
    told = {"magnitude": rng.uniform(18, 24, galaxies)}
    nothing = np.zeros(galaxies, dtype=bool)
    features = tuple(Drawn(f"feature {k}", made[..., k], truth[:, k]) for k in range(1, 6))
    rest = np.broadcast_to(np.linspace(3500.0, 7000.0, 20), (galaxies, 20))
    jobs = [
        Job("redshift", (Drawn("redshift", made[..., 0], truth[:, 0]),), None, told, nothing),
        Job("spectra", features, Vectors("spectrum", made[..., 6:], truth[:, 6:], rest), told,
            nothing),
    ]  # fmt: skip
    began, cpu = time.perf_counter(), time.process_time()
    make_report(jobs, {})
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    size = made.nbytes / 1024**3
    name = f"full report, {galaxies:,} galaxies x {draws:,} draws"
    return [
        figure(f"{name}: seconds", seconds, n=1, goal="at most 600", met=at_most(seconds, 600)),
        figure(f"{name}: seconds of CPU", cpu, n=1),
        figure(f"{name}: peak memory over that of the draws ({size:.2f} GiB)", peak / size, n=1,
               goal="at most 4", met=at_most(peak / size, 4)),
    ]  # fmt: skip


def sbi_cost(galaxies: int, draws: int, *, seed: int, python: str | None) -> list[Figure]:
    """CPU of sbi.diagnostics over ours on the same arrays, on one core; the same answer."""
    name = f"{galaxies:,} galaxies x {draws:,} draws x 5 quantities"
    if why := cannot(python, "sbi.diagnostics"):
        print(f"sbi.diagnostics: not measured, {why}")
        return [figure(f"{name}: CPU of sbi.diagnostics over ours (not measured: {why})",
                       float("nan"))]  # fmt: skip
    rng = np.random.default_rng(seed)
    centre = 2 * rng.standard_normal((galaxies, 5))
    truth = centre + rng.standard_normal(centre.shape)
    made = centre + rng.standard_normal((draws, galaxies, 5))
    points = rng.uniform(truth.min(axis=0), truth.max(axis=0), size=truth.shape)
    # Ours divides by the spread of the references: the same arrays for both.
    made, truth, points = (one / points.std(axis=0) for one in (made, truth, points))
    mine, theirs = np.empty((2, REPEATS, 2))
    with tempfile.TemporaryDirectory() as folder:
        arrays, out = f"{folder}/arrays.npz", f"{folder}/out.npz"
        np.savez(arrays, draws=made, truth=truth, references=points)
        script = Path(__file__).parent / "peers_sbi.py"
        for turn in range(REPEATS):
            subprocess.run([str(python), str(script), "--arrays", arrays, "-o", out], check=True)
            with np.load(out) as stored:
                said = dict(stored)
            theirs[turn] = said["seconds"]
            began = time.process_time()
            ranks = sbc_ranks(made, truth, generator=rng)
            middle = time.process_time()
            ours = tarp_result(made, truth, generator=rng, references=points)
            mine[turn] = np.diff([began, middle, time.process_time()])
    same = np.interp(ours.levels, said["level"], said["coverage"])
    apart = {
        "SBC": float(np.mean(ranks != said["ranks"])),
        "TARP": float(np.abs(ours.coverage - same).max()),
    }
    ratios = np.median(theirs, axis=0) / np.median(mine, axis=0)
    spread = np.sort(theirs / mine, axis=0)
    figures = []
    for column, what in enumerate(apart):
        ratio, limit = float(ratios[column]), 0.0 if what == "SBC" else 0.01
        figures += [
            figure(f"{what}, {name}: CPU of sbi.diagnostics over ours (medians of {REPEATS})",
                   ratio, interval=(spread[0, column], spread[-1, column]), n=REPEATS,
                   goal="at least 10", met=at_least(ratio, 10)),
            figure(f"{what}, {name}: "
                   + ("share of ranks that differ" if what == "SBC" else "largest difference"),
                   apart[what], n=galaxies, goal=f"at most {limit:g}",
                   met=at_most(apart[what], limit)),
        ]  # fmt: skip
    return figures


@torch.no_grad()
def calpit_figures(
    network: GalaxyModel, *, seeds: tuple[int, int], python: str | None
) -> list[Figure]:
    """Densities from photometry, broken on purpose, repaired by Cal-PIT and by ours.

    Bright galaxies get densities too narrow by 30 %, faint ones too wide by as much.

    Args:
        network: What gives the densities.
        seeds: Of the galaxies that fit and of those that judge.
        python: Of an environment with Cal-PIT.
    """
    label = "photometry to redshift, widths wrong by 30 % in opposite senses"
    if why := cannot(python, "calpit.nn"):
        print(f"Cal-PIT: not measured, {why}")
        return [figure(f"{label}: not measured: {why}", float("nan"))]
    fit, test = (_broken(network, seed) for seed in seeds)
    with tempfile.TemporaryDirectory() as folder:
        arrays, out = f"{folder}/arrays.npz", f"{folder}/out.npz"
        told = {f"{part}_{name}": values
                for part, rows in (("fit", fit), ("test", test))
                for name, values in rows.items()}  # fmt: skip
        np.savez(arrays, grid=_GRID, **told)
        script = Path(__file__).parent / "peers_calpit.py"
        subprocess.run([str(python), str(script), "--arrays", arrays, "-o", out], check=True)
        with np.load(out) as stored:
            theirs, their_seconds = stored["pdf"], float(stored["seconds"])
    began = time.process_time()
    law = fit_local(fit["pit"], _columns(fit["x"]), generator=np.random.default_rng(0))
    ours = recalibrate_density(test["pdf"], _GRID, law.pit_map(_columns(test["x"])))
    seconds = time.process_time() - began
    judged = {
        "broken": _judge(f"{label}", test["pdf"], test["z"]),
        "ours": _judge(f"{label}, repaired", ours.pdf, test["z"]),
        "Cal-PIT": _judge(f"{label}, repaired by Cal-PIT", theirs, test["z"]),
    }
    figures = []
    for one in judged.values():
        figures += [
            score_figure(score, name=f"{one.name}: {score.name}") for score in one.scores[:3]
        ]
        figures.append(score_figure(one.at(0.9), name=f"{one.name}: coverage of 90% intervals"))
        figures.append(pit_figure(one.name, one.pit, goals=False))
    ratio = ratio_of_means("ratio", judged["ours"].crps_values, judged["Cal-PIT"].crps_values)
    losses = [next(s.value for s in judged[who].scores if s.name == "CDE loss")
              for who in ("ours", "Cal-PIT")]  # fmt: skip
    return [
        *figures,
        score_figure(ratio, name=f"{label}: CRPS repaired over that by Cal-PIT",
                     goal="below 1", met=at_most(ratio.value, 1.0)),
        figure(f"{label}: CDE loss repaired less that by Cal-PIT", losses[0] - losses[1],
               n=ROWS, goal="below 0", met=at_most(losses[0] - losses[1], 0.0)),
        figure(f"{label}: CPU of Cal-PIT over ours", their_seconds / seconds, n=1),
    ]  # fmt: skip


def _broken(network: GalaxyModel, seed: int) -> dict[str, FloatArray]:
    """Features, densities on the grid, truths and PIT of catalogue galaxies of a seed."""
    table, z = simulate_catalogue(seed, 0, ROWS)
    batch = only_photometry(table, torch.zeros(ROWS))
    density = network.redshift(network.encode(batch))
    told = covariates(batch, density)
    factor = torch.tensor(np.where(told["ln S/N"] > np.median(told["ln S/N"]), 0.7, 1.3))[:, None]
    weight = density.log_weight.exp()
    centre = (weight * density.loc).sum(-1, keepdim=True)
    wrong = RedshiftDensity(
        density.logits,
        (centre + factor * (density.loc - centre)).float(),
        (factor * density.scale).float(),
    )
    known, true = exact(wrong), z.double()
    return {
        "x": np.stack(list(covariates(batch, wrong).values()), axis=1),
        "pdf": known.log_prob(torch.as_tensor(_GRID)[:, None]).exp().T.numpy(),
        "pit": known.cdf(true).numpy(),
        "z": true.numpy(),
    }


def _columns(features: FloatArray) -> dict[str, FloatArray]:
    return {str(number): column for number, column in enumerate(features.T)}


def _judge(label: str, pdf: FloatArray, truth: FloatArray) -> Evidence:
    generator = np.random.default_rng(0)
    return density_evidence(label, pdf, grid=_GRID, truth=truth, generator=generator)


def cannot(python: str | None, module: str) -> str:
    """Why `python` cannot import a module; "" where it can."""
    if python is None:
        return f"no environment with {module.partition('.')[0]} was given"
    try:
        done = subprocess.run(
            [python, "-c", f"import {module}"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
