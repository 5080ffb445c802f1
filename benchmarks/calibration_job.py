"""Calibration before and after the repair that the checkpoint keeps: results/calibration.json.

Galaxies of the report's seed, which neither training nor the repair saw, are judged twice: as the
network answers and after repair, overall and in bins of what is known without the truth. `make
calibration` fits the repair first. A part of it that loses by a proper score here is taken out of
the checkpoint's repair, and its figures after repair are those before. What the diagnostics cost
is measured beside (`calibration_cost.py`). Parts can be run apart: their figures are kept in a
folder and joined at the end.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calibration_cost import calpit_figures, report_cost, sbi_cost
from calibration_figures import Conditions, lost, pixel_figures, ratio, scalar_figures
from main_job import keep
from numpy.typing import NDArray
from report_set import GRID, RECALIBRATE_SEED, REPORT_SEED, Sample, aperture_snr, sample, shown
from results_file import (
    Figure,
    figure,
    pit_figure,
    write_results,
)
from spectrum_job import Answers, collect, network_draws, true_features

from probmmae.batch import Batch
from probmmae.calibration.answers import FEWEST_GALAXIES
from probmmae.calibration.evidence import Evidence, draw_evidence, quantile_evidence
from probmmae.calibration.features import FEATURES
from probmmae.checkpoint import SHIPPED
from probmmae.inference.pit_map import PitMap
from probmmae.inference.posterior import Model, load
from probmmae.inference.redshifts import exact
from probmmae.inference.repair import (
    REFERENCE,
    Repair,
    joined,
    redshift_from,
    spectra_from,
    write_repair,
)
from probmmae.inference.shown import kinds, signal_to_noise
from probmmae.tokens import galaxy_scale

PARTS = ("cost", "sbi", "calpit", "redshift", "spectrum")
REDSHIFTS = {
    "image": ("image",), "photometry": ("photometry",), "spectrum": ("spectrum", "pieces"),
    "mixture": ("mixture",),
}  # fmt: skip
"""Kinds of evidence, and what of each kind is shown."""
SPECTRA = {"image": "image", "spectrum": "pieces", "mixture": "mixture"}
LABELS = {"pieces": "masked spectrum (75 %)"}
WHENS = ("before repair", "after repair")
GONE = "it did not help on the galaxies of the report"
"""Why a part is taken out of the repair."""
_CHUNK = 16
"""Galaxies whose spectra are in memory."""
_LEVELS = (np.arange(400) + 0.5) / 400
"""Quantiles of a redshift that its scores are made of."""


def main() -> None:
    """Measure the parts that are asked for, then join all that are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--checkpoint", type=Path, default=SHIPPED, help="default: the shipped one"
    )
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--galaxies", type=int, default=2048)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument(
        "--cost", type=int, nargs=2, default=(10_000, 1000), help="galaxies and draws to time"
    )
    parser.add_argument("--sbi", default=None, help="python of an environment with sbi")
    parser.add_argument("--calpit", default=None, help="python of an environment with Cal-PIT")
    parser.add_argument("--seed", type=int, default=REPORT_SEED)
    parser.add_argument("--work", type=Path, default=Path("runs/calibration"))
    parser.add_argument("--out", type=Path, default=None, help="folder of the results file")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    model = load(options.checkpoint)
    if model.repair is None:
        parser.error("Expected a checkpoint with a repair; got none. Run probmmae repair first.")
    galaxies: list[Sample] = []

    def report() -> Sample:
        if not galaxies:
            galaxies.append(sample(options.galaxies, options.seed))
        return galaxies[0]

    def redshift() -> list[Figure]:
        return judged_redshifts(model, report(), options.checkpoint)

    def spectrum() -> list[Figure]:
        return judged_spectra(
            model, report(), options.checkpoint, draws=options.draws, seed=options.seed
        )

    # The cost first: the peak of the memory is then that of the report.
    jobs: dict[str, Callable[[], list[Figure]]] = {
        "cost": lambda: report_cost(*options.cost, seed=options.seed),
        "sbi": lambda: sbi_cost(*options.cost, seed=options.seed, python=options.sbi),
        "calpit": lambda: calpit_figures(
            model.network, seeds=(RECALIBRATE_SEED, options.seed), python=options.calpit
        ),
        "redshift": redshift,
        "spectrum": spectrum,
    }
    for name in options.parts:
        keep(options.work / f"{name}.json", jobs[name]())
    paths = [options.work / f"{name}.json" for name in PARTS]
    figures = [one for path in paths if path.is_file() for one in json.loads(path.read_text())]
    apart = "" if options.parts == list(PARTS) else ", parts run apart"
    command = f"make calibration  # {options.galaxies} galaxies, {options.draws} draws{apart}"
    folder = {} if options.out is None else {"folder": options.out}
    path = write_results("calibration", command, seed=options.seed, figures=figures, **folder)
    missed = [one for one in figures if one["met"] is False]
    print(f"{path}: {len(figures)} figures, {len(missed)} miss their goal")
    for one in missed:
        print(f"  {one['name']} = {one['value']} (goal {one['goal']})")


def settle(model: Model, folder: Path, name: str, gain: NDArray[Any] | None) -> Figure:
    """Take a part out of the repair if it loses by a proper score, and write what is left.

    Args:
        model: Its repair is replaced.
        folder: Of the checkpoint.
        name: Of the part.
        gain: Of each galaxy by a proper score, positive where repair is better; None where the
            repair holds no such part.
    """
    kept: Repair | None = model.repair
    assert kept is not None
    if gain is None:
        why = kept.left_out.get(name, "none was fitted")
        return figure(f"{name}: on by default (left as it is: {why})", 0.0)
    if (mean := float(np.nanmean(gain))) <= 0:
        model.repair = kept.without(name, GONE)
        write_repair(folder, model.repair)
        print(f"{name}: taken out, {GONE}")
    error = 1.96 * float(np.nanstd(gain)) / len(gain) ** 0.5
    return figure(
        f"{name}: gain by repair (a proper score), on by default if positive",
        mean, interval=(mean - error, mean + error), n=len(gain),
    )  # fmt: skip


def shown_as(batch: Batch, what: str) -> Batch:
    """The batch with only what is asked from, its redshift hidden."""
    part = shown(batch, what)
    return Batch(
        part.images, part.photometry, part.spectra, part.z, torch.zeros_like(part.z_known)
    )


def judged_redshifts(model: Model, report: Sample, folder: Path) -> list[Figure]:
    """Redshifts from every kind of evidence; a kind that does not help is taken out."""
    figures = []
    for kind, whats in REDSHIFTS.items():
        said = {what: redshift_answers(model, report, what) for what in whats}
        repaired = model.repair is not None and kind in model.repair.redshift
        gain = np.concatenate([one.gain for one in said.values()])
        figures.append(settle(model, folder, redshift_from(kind), gain if repaired else None))
        if repaired and model.repair is not None and kind not in model.repair.redshift:
            said = {what: redshift_answers(model, report, what) for what in whats}
        for what, one in said.items():
            figures += redshift_figures(f"{LABELS.get(what, what)} to redshift", one)
    return figures


@dataclass(frozen=True)
class Redshifts:
    """What is said of every galaxy's redshift, before and after repair."""

    judged: tuple[Evidence, Evidence]
    told: Conditions
    """What is known of the galaxies without the truth."""

    @property
    def gain(self) -> NDArray[Any]:
        """Of each galaxy by repair: its CRPS falls by this share of the mean."""
        before, after = (one.crps_values for one in self.judged)
        return np.asarray((before - after) / before.mean())


@torch.no_grad()
def redshift_answers(model: Model, report: Sample, what: str) -> Redshifts:
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
    before, after = (
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
    )
    return Redshifts((before, after), told)


def redshift_figures(label: str, said: Redshifts) -> list[Figure]:
    """Scores, PIT, coverage overall and in bins, before and after; goals are those after."""
    figures = []
    for when, evidence in zip(WHENS, said.judged, strict=True):
        goals = when == WHENS[1]
        figures += scalar_figures(evidence, said.told, goals=goals)
        figures.append(pit_figure(evidence.name, evidence.pit, goals=goals))
    return [*figures, lost(label, *said.judged)]


def conditions_of(batch: Batch) -> dict[str, NDArray[Any]]:
    """What is known of each galaxy."""
    return {
        "magnitude": 22.5 - 2.5 * np.log10(galaxy_scale(batch).double().numpy()),
        "S/N": signal_to_noise(batch),
    }


def judged_spectra(
    model: Model, report: Sample, folder: Path, *, draws: int, seed: int
) -> list[Figure]:
    """Spectra at the true redshift from each kind; a kind that does not help is taken out."""
    figures = []
    for kind, what in SPECTRA.items():
        before, after = spectrum_answers(model, report, what, draws=draws, seed=seed)
        repaired = model.repair is not None and kind in model.repair.spectrum
        scores = [np.nanmean(one.crps, axis=1) for one in (before, after)]
        gain = (scores[0] - scores[1]) / scores[0].mean() if repaired else None
        figures.append(settle(model, folder, spectra_from(kind), gain))
        if repaired and model.repair is not None and kind not in model.repair.spectrum:
            after = before
        label = f"{LABELS.get(what, what)} to spectrum"
        figures += spectrum_figures(label, (before, after), report)
    return figures


def spectrum_answers(
    model: Model, report: Sample, what: str, *, draws: int, seed: int
) -> tuple[Answers, Answers]:
    """Draws reduced to features and pixels, before and after."""
    plain = network_draws(model.network, what, draws, seed)
    parts: tuple[list[Answers], list[Answers]] = ([], [])
    for number, part in enumerate(report.chunks(_CHUNK)):
        flux = plain(part, number * _CHUNK)
        for rows, drawn in zip(parts, (flux, stretched(model, part, what, flux)), strict=True):
            rows.append(collect(part, lambda *_, drawn=drawn: drawn, seed=seed + number))
    before, after = (side_by_side(rows) for rows in parts)
    return before, after


def spectrum_figures(label: str, said: tuple[Answers, Answers], report: Sample) -> list[Figure]:
    """Features and pixels, before and after; goals are those after."""
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
    scores = [np.nanmean(one.crps, axis=1) for one in said]
    return [*figures, ratio(f"{label}: pixels", scores[1], scores[0])]


def stretched(model: Model, part: Sample, what: str, flux: NDArray[Any]) -> NDArray[Any]:
    """Draws on `GRID` after repair, shape (draw, galaxy, pixel)."""
    seen, new = shown(part.batch, what), flux.astype(np.float64)
    z = part.truth.z.double().numpy()
    for row, kind in enumerate(kinds(seen)):
        fitted = model.repair.spectrum.get(kind) if model.repair is not None else None
        if fitted is not None:
            # The reference grid is every sixth pixel of this one.
            new[:, row] = fitted.of(seen.take(slice(row, row + 1))).apply(
                new[:, row],
                new[:, row, ::6][:, : len(REFERENCE)],
                rest_wavelength=GRID.numpy() / (1 + z[row]),
            )
    return new


def side_by_side(parts: Sequence[Answers]) -> Answers:
    """The answers on all galaxies."""
    features = {
        name: np.concatenate([one.features[name] for one in parts], axis=1) for name in FEATURES
    }
    arrays = (np.concatenate([getattr(one, name) for one in parts])
              for name in ("pit", "crps", "mean"))  # fmt: skip
    return Answers(features, *arrays)


if __name__ == "__main__":
    main()
