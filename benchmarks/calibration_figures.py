"""Figures of the calibration job: CRPS, coverage overall and in bins, what repair costs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report_set import GRID
from results_file import Figure, at_most, figure, score_figure, within
from spectrum_job import EVERY, Answers

from probmmae.calibration.conditional import conditional_result
from probmmae.calibration.coverage import clustered_coverage, coverage
from probmmae.calibration.evidence import Evidence
from probmmae.calibration.scores import ratio_of_means

LOW, HIGH = 0.885, 0.915
"""Goal of every coverage of 90 % intervals."""
LOSS = 1.02
"""Goal of the CRPS after repair over that before."""
FEWEST = 200
"""Galaxies of a bin that is judged."""

Conditions = Mapping[str, NDArray[Any]]


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
    return ratio(label, after.crps_values, before.crps_values)


def ratio(label: str, after: NDArray[Any], before: NDArray[Any]) -> Figure:
    """The same of two arrays of scores."""
    found = ratio_of_means("ratio", after, before)
    name = f"{label}: CRPS after repair over before"
    return score_figure(found, name=name, goal=f"at most {LOSS}", met=at_most(found.value, LOSS))
