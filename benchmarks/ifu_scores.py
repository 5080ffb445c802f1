"""From drawn and true maps of simulated galaxies to the figures of a results file."""

from collections.abc import Sequence

import numpy as np
from results_file import Figure, at_most, figure, score_figure, within

from probmmae.calibration.map_scores import (
    GalaxyMaps,
    IntegralScore,
    ZoneScore,
    integral_scores,
    map_correlation,
    zone_scores,
)
from probmmae.calibration.scores import crps_draws, ratio_of_means

_MAPS = ("h_alpha", "h_alpha_ew", "d4000", "continuum", "velocity")
_BAND = (0.88, 0.92)


def simulated_figures(
    ours: Sequence[GalaxyMaps], rival: Sequence[GalaxyMaps], *, seed: int
) -> list[Figure]:
    """Everything that is said of the model's cubes of simulated galaxies, and of the rival's.

    Args:
        ours: The model's maps, with the truth.
        rival: Those of the interpolation in colours.
        seed: Of the randomised ranks.
    """
    figures = method_figures("cube from images", ours, seed=seed, goals=True)
    figures += method_figures("interpolation in colours", rival, seed=seed, goals=False)
    pair = [np.array([relative_crps(one) for one in method]) for method in (ours, rival)]
    use = np.isfinite(pair[0]) & np.isfinite(pair[1])
    name = "cube from images: CRPS of the H-alpha map over that of the interpolation in colours"
    ratio = ratio_of_means(name, pair[0][use], pair[1][use])
    figures.append(score_figure(ratio, goal="below 1", met=at_most(ratio.value, 1.0)))
    return figures


def relative_crps(one: GalaxyMaps) -> float:
    """Of the H-alpha map inside 2 R_e, over the mean H-alpha of the galaxy."""
    drawn, known = one.quantity("h_alpha")
    use = np.isfinite(known) & np.isfinite(drawn).all(0)
    if not use.any() or not known[use].mean() > 0:
        return np.nan
    return float(crps_draws(drawn[:, use], known[use]).mean() / known[use].mean())


def method_figures(
    label: str, galaxies: Sequence[GalaxyMaps], *, seed: int, goals: bool
) -> list[Figure]:
    """Maps, zones and integrals of one method."""
    figures = []
    for name in ("h_alpha", "h_alpha_ew", "d4000", "velocity"):
        told = map_correlation(galaxies, name)
        told = told[np.isfinite(told)]
        if len(told):
            figures.append(
                figure(f"{label}: correlation of the {name} map with the truth, median galaxy",
                       float(np.median(told)), n=len(told))
            )  # fmt: skip
    for score in zone_scores(galaxies, _MAPS, seed=seed):
        figures += _zone(label, score, goals=goals)
    for integral in integral_scores(galaxies, seed=seed):
        figures += _integral(label, integral, goals=goals)
    return figures


def _zone(label: str, score: ZoneScore, *, goals: bool) -> list[Figure]:
    ring = f"{score.zone[0]:g} to {score.zone[1]:g} R_e"
    name = f"{label}: {score.quantity}, {ring}"
    unit = "dex" if score.quantity in ("h_alpha", "continuum") else "its unit"
    figures = []
    for one in score.coverage:
        goal = goals and one.level == 0.9
        figures.append(
            score_figure(
                one, name=f"{name}: coverage of {one.level:.0%} intervals of spaxels",
                goal="0.88 to 0.92" if goal else None,
                met=within(one.value, *_BAND) if goal else None,
            )
        )  # fmt: skip
    figures.append(figure(f"{name}: bias ({unit})", score.bias, n=score.spaxels))
    figures.append(figure(f"{name}: scatter ({unit})", score.scatter, n=score.spaxels))
    return figures


def _integral(label: str, score: IntegralScore, *, goals: bool) -> list[Figure]:
    figures = []
    for one in score.coverage:
        goal = goals and one.level == 0.9
        figures.append(
            score_figure(
                one, name=f"{label}: {score.name}: coverage of {one.level:.0%} intervals",
                goal="0.88 to 0.92" if goal else None,
                met=within(one.value, *_BAND) if goal else None,
            )
        )  # fmt: skip
    return figures
