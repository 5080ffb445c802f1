"""Calibration before and after the repair that the checkpoint keeps: results/calibration.json.

Galaxies of the report's seed, which neither training nor the repair saw, are judged twice: as the
network answers and after repair, overall and in bins of what is known without the truth. `make
calibration` fits the repair first. What the diagnostics cost is measured beside: the full report,
and ranks and TARP against sbi.diagnostics on the same arrays.
"""

import argparse
import resource
import subprocess
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from report_set import GRID, REPORT_SEED, Sample, aperture_snr, sample, shown
from results_file import (
    Figure,
    at_least,
    at_most,
    figure,
    pit_figure,
    score_figure,
    within,
    write_results,
)
from spectrum_job import EVERY, Answers, collect, network_draws, true_features

from probmmae.batch import Batch
from probmmae.calibration.answers import FEWEST_GALAXIES, Drawn, Job, Vectors
from probmmae.calibration.conditional import conditional_result
from probmmae.calibration.coverage import clustered_coverage, coverage
from probmmae.calibration.evidence import Evidence, draw_evidence, quantile_evidence
from probmmae.calibration.features import FEATURES
from probmmae.calibration.fit_repair import SHOWN
from probmmae.calibration.ranks import sbc_ranks
from probmmae.calibration.report import make_report
from probmmae.calibration.scores import ratio_of_means
from probmmae.calibration.tarp import tarp_result
from probmmae.inference.pit_map import PitMap
from probmmae.inference.posterior import Model, load
from probmmae.inference.redshifts import exact
from probmmae.inference.repair import REFERENCE, joined, kinds, signal_to_noise
from probmmae.masking import observe_part
from probmmae.tokens import galaxy_scale

LOW, HIGH = 0.885, 0.915
"""Goal of every coverage of 90 % intervals."""
LOSS = 1.02
"""Goal of the CRPS after repair over that before."""
FEWEST = 200
"""Galaxies of a bin that is judged."""
REDSHIFTS = ("image", "photometry", "spectrum", "pieces", "mixture")
LABELS = {"pieces": "masked spectrum (75 %)"}
WHENS = ("before repair", "after repair")
_CHUNK = 16
"""Galaxies whose spectra are in memory."""
_LEVELS = (np.arange(400) + 0.5) / 400
"""Quantiles of a redshift that its scores are made of."""

Conditions = Mapping[str, NDArray[Any]]


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=None, help="default: the shipped one")
    parser.add_argument("--galaxies", type=int, default=2048)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument(
        "--cost", type=int, nargs=2, default=(10_000, 1000), help="galaxies and draws to time"
    )
    parser.add_argument("--sbi", default=None, help="python of an environment with sbi")
    parser.add_argument("--seed", type=int, default=REPORT_SEED)
    parser.add_argument("--out", type=Path, default=None, help="folder of the results file")
    options = parser.parse_args()
    # First: the peak of the memory is then that of the report.
    figures = report_cost(*options.cost, seed=options.seed)
    figures += peer_cost(*options.cost, seed=options.seed, python=options.sbi)
    model = load(options.checkpoint)
    if model.repair is None:
        parser.error("Expected a checkpoint with a repair; got none. Run probmmae repair first.")
    report = sample(options.galaxies, options.seed)
    for what in REDSHIFTS:
        figures += redshift_figures(model, report, what)
    for what in ("image", "pieces"):
        figures += spectrum_figures(model, report, what, draws=options.draws, seed=options.seed)
    command = f"make calibration  # {options.galaxies} galaxies, {options.draws} draws"
    folder = {} if options.out is None else {"folder": options.out}
    path = write_results("calibration", command, seed=options.seed, figures=figures, **folder)
    missed = [one for one in figures if one["met"] is False]
    print(f"{path}: {len(figures)} figures, {len(missed)} miss their goal")
    for one in missed:
        print(f"  {one['name']} = {one['value']} (goal {one['goal']})")


def shown_as(batch: Batch, what: str) -> Batch:
    """The batch with only what is asked from, its redshift hidden."""
    if what == "mixture":
        part = observe_part(batch, torch.Generator().manual_seed(7), SHOWN[what])
    else:
        part = shown(batch, what)
    return Batch(
        part.images, part.photometry, part.spectra, part.z, torch.zeros_like(part.z_known)
    )


@torch.no_grad()
def redshift_figures(model: Model, report: Sample, what: str) -> list[Figure]:
    """p(z | what is shown), before and after."""
    rows: dict[str, list[NDArray[Any]]] = {}
    for part in report.chunks():
        seen = shown_as(part.batch, what)
        density = model.network.redshift(model.network.encode(seen))
        known, z = exact(density), part.truth.z.double()
        repaired = joined(model.applied(seen, density, draws=0, repair=True))
        for when, pit_map in zip(WHENS, (PitMap.identity(len(z)), repaired), strict=True):
            below = pit_map.inverse(np.tile(_LEVELS, (len(z), 1)))
            points = known.icdf(torch.as_tensor(below.T))
            at_truth = known.cdf(z).numpy()[:, None]
            tilt = pit_map.density(at_truth)[:, 0]
            found = {
                "quantiles": points.numpy(),
                "density": known.log_prob(points).exp().numpy() * pit_map.density(below).T,
                "pit": pit_map.cdf(at_truth)[:, 0],
                "log_density": known.log_prob(z).numpy() + np.log(tilt),
            }
            for name, values in found.items():
                rows.setdefault(f"{when} {name}", []).append(values)
        # Bins by what is known, the same before and after.
        middle = known.icdf(torch.tensor([0.16, 0.5, 0.84], dtype=torch.float64)[:, None]).numpy()
        for name, values in {
            **conditions_of(seen), "posterior median": middle[1],
            "posterior width": middle[2] - middle[0],
        }.items():  # fmt: skip
            rows.setdefault(f"condition {name}", []).append(values)
    whole = {name: np.concatenate(parts, axis=-1) for name, parts in rows.items()}
    told = {
        name.removeprefix("condition "): values
        for name, values in whole.items()
        if name.startswith("condition ")
    }
    label = f"{LABELS.get(what, what)} to redshift"
    judged = [
        quantile_evidence(
            f"{label} {when}",
            whole[f"{when} quantiles"],
            density=whole[f"{when} density"],
            pit=whole[f"{when} pit"],
            log_density=whole[f"{when} log_density"],
            truth=report.truth.z.numpy(),
            generator=np.random.default_rng(0),
        )
        for when in WHENS
    ]
    figures = []
    for when, evidence in zip(WHENS, judged, strict=True):
        goals = when == WHENS[1]
        figures += scalar_figures(evidence, told, goals=goals)
        figures.append(pit_figure(evidence.name, evidence.pit, goals=goals))
    return [*figures, lost(label, *judged)]


def conditions_of(batch: Batch) -> dict[str, NDArray[Any]]:
    """What is known of each galaxy."""
    return {
        "magnitude": 22.5 - 2.5 * np.log10(galaxy_scale(batch).double().numpy()),
        "S/N": signal_to_noise(batch),
    }


def spectrum_figures(
    model: Model, report: Sample, what: str, *, draws: int, seed: int
) -> list[Figure]:
    """Features and pixels of spectra at the true redshift, before and after."""
    label = f"{LABELS.get(what, what)} to spectrum"
    plain = network_draws(model.network, what, draws, seed)
    parts: tuple[list[Answers], list[Answers]] = ([], [])
    for number, part in enumerate(report.chunks(_CHUNK)):
        flux = plain(part, number * _CHUNK)
        for rows, drawn in zip(parts, (flux, stretched(model, part, what, flux)), strict=True):
            rows.append(collect(part, lambda *_, drawn=drawn: drawn, seed=seed + number))
    said = [side_by_side(rows) for rows in parts]
    truth = true_features(report)
    where = report.batch.spectra.aperture[:, 0]
    told = {
        "redshift": report.truth.z.numpy(),
        "S/N of the spectrum": aperture_snr(report),
        "distance from the centre": torch.linalg.vector_norm(where[:, :2], dim=1).numpy(),
    }
    figures: list[Figure] = []
    for name in FEATURES:
        whole = [np.isfinite(one.features[name]).all(axis=0) for one in said]
        if (np.all(whole, axis=0) & np.isfinite(truth[name])).sum() < FEWEST_GALAXIES:
            continue
        judged = [
            draw_evidence(
                f"{label}: {name} {when}", one.features[name], truth=truth[name],
                generator=np.random.default_rng(1),
            )
            for when, one in zip(WHENS, said, strict=True)
        ]  # fmt: skip
        for when, evidence in zip(WHENS, judged, strict=True):
            figures += scalar_figures(evidence, told, goals=when == WHENS[1])
        figures.append(lost(f"{label}: {name}", *judged))
    for when, one in zip(WHENS, said, strict=True):
        figures += pixel_figures(f"{label}: pixels {when}", one, told, goals=when == WHENS[1])
    scores = [one.crps.mean(axis=1) for one in said]
    return [*figures, _ratio(f"{label}: pixels", scores[1], scores[0])]


def stretched(model: Model, part: Sample, what: str, flux: NDArray[Any]) -> NDArray[Any]:
    """Draws on `GRID` after repair, shape (draw, galaxy, pixel)."""
    seen, new = shown(part.batch, what), flux.astype(np.float64)
    z, ratio = part.truth.z.double().numpy(), signal_to_noise(seen)
    for row, kind in enumerate(kinds(seen)):
        stretch = model.repair.spectrum.get(kind) if model.repair is not None else None
        if stretch is not None:
            # The reference grid is every sixth pixel of this one.
            new[:, row] = stretch.apply(
                new[:, row],
                new[:, row, ::6][:, : len(REFERENCE)],
                rest_wavelength=GRID.numpy() / (1 + z[row]),
                snr=float(ratio[row]),
            )
    return new


def side_by_side(parts: list[Answers]) -> Answers:
    """The answers on all galaxies."""
    features = {
        name: np.concatenate([one.features[name] for one in parts], axis=1) for name in FEATURES
    }
    arrays = (np.concatenate([getattr(one, name) for one in parts])
              for name in ("pit", "crps", "mean"))  # fmt: skip
    return Answers(features, *arrays)


def scalar_figures(evidence: Evidence, told: Conditions, *, goals: bool) -> list[Figure]:
    """CRPS, coverage, and coverage in bins."""
    figures = [score_figure(evidence.scores[0], name=f"{evidence.name}: CRPS")]
    for level in (0.5, 0.9):
        found = evidence.at(level)
        aim = goals and level == 0.9
        figures.append(
            score_figure(
                found,
                name=f"{evidence.name}: coverage of {level:.0%} intervals",
                goal=f"{LOW} to {HIGH}" if aim else None,
                met=within(found.value, LOW, HIGH) if aim else None,
            )
        )
    return [*figures, *bin_figures(evidence.name, evidence.pit_values, told, goals=goals)]


def pixel_figures(name: str, answers: Answers, told: Conditions, *, goals: bool) -> list[Figure]:
    """The same of pixels, galaxies counted."""
    rest = GRID.numpy()[::EVERY] / (1 + np.asarray(told["redshift"])[:, None])
    figures = []
    for found in clustered_coverage(answers.pit, levels=(0.5, 0.9)):
        aim = goals and found.level == 0.9
        figures.append(
            score_figure(
                found,
                name=f"{name}: coverage of {found.level:.0%} intervals",
                goal=f"{LOW} to {HIGH}" if aim else None,
                met=within(found.value, LOW, HIGH) if aim else None,
            )
        )
    wide = {**told, "rest wavelength": rest}
    return [*figures, *bin_figures(name, answers.pit, wide, goals=goals)]


def bin_figures(name: str, pit: NDArray[Any], told: Conditions, *, goals: bool) -> list[Figure]:
    """Bins whose 90 % coverage is outside its corrected 99 % band, and the worst of them."""

    def test(values: NDArray[Any]) -> float:
        count = coverage if values.ndim == 1 else clustered_coverage
        return float(count(values, levels=(0.9,))[0].p_value)

    if np.isfinite(pit.reshape(len(pit), -1)).any(axis=1).sum() < 5 * FEWEST:
        return []
    found = conditional_result(pit, told, bins=5, fewest=FEWEST, test=test)
    outside = sum(cell.adjusted <= 1 - found.confidence for cell in found.cells)
    worst = found.worst[0]
    return [
        figure(
            f"{name}: bins of {FEWEST} galaxies or more whose 90 % coverage is outside its band",
            outside,
            n=len(found.cells),
            goal="0" if goals else None,
            met=outside == 0 if goals else None,
        ),
        score_figure(
            worst.coverage, name=f"{name}: 90 % coverage of its worst bin, {worst.condition} "
            f"{worst.label}"
        ),
    ]  # fmt: skip


def lost(label: str, before: Evidence, after: Evidence) -> Figure:
    """CRPS after repair over that before, galaxy by galaxy."""
    return _ratio(label, after.crps_values, before.crps_values)


def _ratio(label: str, after: NDArray[Any], before: NDArray[Any]) -> Figure:
    ratio = ratio_of_means("ratio", after, before)
    name = f"{label}: CRPS after repair over before"
    return score_figure(ratio, name=name, goal=f"at most {LOSS}", met=at_most(ratio.value, LOSS))


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
    began = time.perf_counter()
    make_report(jobs, {})
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    size = made.nbytes / 1024**3
    name = f"full report, {galaxies:,} galaxies x {draws:,} draws"
    return [
        figure(f"{name}: seconds", seconds, n=1, goal="at most 600", met=at_most(seconds, 600)),
        figure(f"{name}: peak memory over that of the draws ({size:.2f} GiB)", peak / size, n=1,
               goal="at most 4", met=at_most(peak / size, 4)),
    ]  # fmt: skip


def peer_cost(galaxies: int, draws: int, *, seed: int, python: str | None) -> list[Figure]:
    """Seconds of sbi.diagnostics over ours on the same arrays, on one core; the same answer."""
    name = f"{galaxies:,} galaxies x {draws:,} draws x 5 quantities"
    if python is None or (why := _cannot(python)):
        reason = "no environment with sbi was given" if python is None else why
        print(f"sbi.diagnostics: not measured, {reason}")
        return [figure(f"{name}: time of sbi.diagnostics over ours (not measured: {reason})",
                       float("nan"))]  # fmt: skip
    rng = np.random.default_rng(seed)
    centre = 2 * rng.standard_normal((galaxies, 5))
    truth = centre + rng.standard_normal(centre.shape)
    made = centre + rng.standard_normal((draws, galaxies, 5))
    points = rng.uniform(truth.min(axis=0), truth.max(axis=0), size=truth.shape)
    # Ours divides by the spread of the references: the same arrays for both.
    made, truth, points = (one / points.std(axis=0) for one in (made, truth, points))
    with tempfile.TemporaryDirectory() as folder:
        arrays, out = f"{folder}/arrays.npz", f"{folder}/out.npz"
        np.savez(arrays, draws=made, truth=truth, references=points)
        script = Path(__file__).parent / "peers_sbi.py"
        subprocess.run([python, str(script), "--arrays", arrays, "-o", out], check=True)
        with np.load(out) as stored:
            theirs = dict(stored)
    began = time.perf_counter()
    ranks = sbc_ranks(made, truth, generator=rng)
    middle = time.perf_counter()
    ours = tarp_result(made, truth, generator=rng, references=points)
    seconds = np.diff([began, middle, time.perf_counter()])
    same = np.interp(ours.levels, theirs["level"], theirs["coverage"])
    apart = {
        "SBC": float(np.mean(ranks != theirs["ranks"])),
        "TARP": float(np.abs(ours.coverage - same).max()),
    }
    figures = []
    for what, mine, peers in zip(apart, seconds, theirs["seconds"], strict=True):
        ratio = float(peers / mine)
        limit = 0.0 if what == "SBC" else 0.01
        figures += [
            figure(f"{what}, {name}: time of sbi.diagnostics over ours", ratio, n=1,
                   goal="at least 10", met=at_least(ratio, 10)),
            figure(f"{what}, {name}: "
                   + ("share of ranks that differ" if what == "SBC" else "largest difference"),
                   apart[what], n=galaxies, goal=f"at most {limit:g}",
                   met=at_most(apart[what], limit)),
        ]  # fmt: skip
    return figures


def _cannot(python: str) -> str:
    """Why `python` cannot import sbi; "" where it can."""
    try:
        done = subprocess.run(
            [python, "-c", "import sbi.diagnostics"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


if __name__ == "__main__":
    main()
