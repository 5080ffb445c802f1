"""From drawn and true maps of simulated galaxies to the figures of a results file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from results_file import Figure, at_most, figure, score_figure, within

from probmmae.calibration.coverage import Coverage
from probmmae.calibration.map_scores import (
    ZONES,
    GalaxyMaps,
    integral_scores,
    map_correlation,
    zone_scores,
)
from probmmae.calibration.scores import crps_draws, ratio_of_means

MAPS = ("h_alpha", "h_alpha_ew", "d4000", "continuum", "velocity")


@dataclass(frozen=True)
class Goals:
    """What coverage of 90 % intervals is asked for; None asks nothing."""

    spaxels: tuple[float, float] | None = None
    integrals: tuple[float, float] | None = None


EVERY = Goals(spaxels=(0.88, 0.92), integrals=(0.88, 0.92))


def simulated_figures(
    ours: Sequence[GalaxyMaps], rival: Sequence[GalaxyMaps], *, seed: int
) -> list[Figure]:
    """Everything that is said of the model's cubes of simulated galaxies, and of the rival's.

    Args:
        ours: The model's maps, with the truth.
        rival: Those of the interpolation in colours.
        seed: Of the randomised ranks.
    """
    figures = method_figures("cube from images", ours, MAPS, seed=seed, goals=EVERY)
    pair = [np.array([relative_crps(one) for one in method]) for method in (ours, rival)]
    use = np.isfinite(pair[0]) & np.isfinite(pair[1])
    name = "cube from images: CRPS of the H-alpha map over that of the interpolation in colours"
    ratio = ratio_of_means(name, pair[0][use], pair[1][use])
    figures.append(score_figure(ratio, goal="below 1", met=at_most(ratio.value, 1.0)))
    return figures


def relative_crps(one: GalaxyMaps) -> float:
    """Of the H-alpha map inside 2 R_e, over the mean continuum there: Angstrom of width.

    Over the mean H-alpha, galaxies that have none would decide the mean.
    """
    drawn, known = one.quantity("h_alpha")
    under = one.quantity("continuum")[1]
    use = np.isfinite(known) & np.isfinite(drawn).all(0) & (one.radius < ZONES[-1][1])
    if not use.any() or not under[use].mean() > 0:
        return np.nan
    return float(crps_draws(drawn[:, use], known[use]).mean() / under[use].mean())


def method_figures(
    label: str,
    galaxies: Sequence[GalaxyMaps],
    quantities: Sequence[str],
    *,
    seed: int,
    goals: Goals,
) -> list[Figure]:
    """Maps, zones and integrals of one method."""
    figures = []
    for name in quantities:
        told = map_correlation(galaxies, name)
        told = told[np.isfinite(told)]
        if len(told):
            figures.append(
                figure(f"{label}: correlation of the {name} map with the truth, median galaxy",
                       float(np.median(told)), n=len(told))
            )  # fmt: skip
    for score in zone_scores(galaxies, quantities, seed=seed):
        ring = f"{score.zone[0]:g} to {score.zone[1]:g} R_e"
        name = f"{label}: {score.quantity}, {ring}"
        unit = "dex" if score.quantity in ("h_alpha", "continuum") else "its unit"
        figures += [
            _covered(
                f"{name}: coverage of {one.level:.0%} intervals of spaxels", one, goals.spaxels
            )
            for one in score.coverage
        ]
        figures.append(figure(f"{name}: bias ({unit})", score.bias, n=score.spaxels))
        figures.append(figure(f"{name}: scatter ({unit})", score.scatter, n=score.spaxels))
    for integral in integral_scores(galaxies, seed=seed):
        name = f"{label}: {integral.name}: coverage of"
        figures += [
            _covered(f"{name} {one.level:.0%} intervals", one, goals.integrals)
            for one in integral.coverage
        ]
    return figures


def _covered(name: str, one: Coverage, band: tuple[float, float] | None) -> Figure:
    if band is None or one.level != 0.9:
        return score_figure(one, name=name)
    return score_figure(
        one, name=name, goal=f"{band[0]:.2f} to {band[1]:.2f}", met=within(one.value, *band)
    )
