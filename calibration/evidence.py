"""Everything that is reported of one predicted quantity, in one result.

From draws, or densities, and truths to the evidence that a reader needs to trust them: PIT
verdict, coverage overall and by group, and scores. A report is a list of these.

Axes: draw, galaxy, pixel, grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probmmae.calibration.coverage import LEVELS, Coverage, clustered_coverage, coverage
from probmmae.calibration.pit import (
    PitResult,
    pit_from_draws,
    pit_from_grid,
    pit_result,
)
from probmmae.calibration.point_redshifts import point_scores
from probmmae.calibration.scores import (
    Score,
    cde_loss,
    crps_draws,
    crps_grid,
    log_score_grid,
    mean_score,
)
from probmmae.inference.pit_map import cumulate

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """How good the posteriors of one quantity are."""

    name: str
    """What was predicted."""
    pit: PitResult
    """Verdict on the PIT values."""
    coverage: tuple[Coverage, ...]
    """Coverage of central intervals: each level overall, then by group."""
    scores: tuple[Score, ...]
    """Scores, the CRPS first; lower is better."""
    pit_values: FloatArray
    """PIT of every galaxy, shape (galaxy,); NaN where the quantity is not defined."""
    crps_values: FloatArray
    """CRPS of every galaxy, shape (galaxy,), for paired comparisons."""

    def to_dict(self) -> dict[str, Any]:
        """Name, verdict, coverage and scores, ready for JSON; not the per-galaxy values."""
        return {
            "name": self.name,
            "pit": self.pit.to_dict(),
            "coverage": [result.to_dict() for result in self.coverage],
            "scores": [score.to_dict() for score in self.scores],
        }

    def at(self, level: float, *, group: str = "all") -> Coverage:
        """The coverage of one level in one group.

        Raises:
            KeyError: It was not computed.
        """
        for result in self.coverage:
            if result.level == level and result.group == group:
                return result
        known = sorted({result.group for result in self.coverage})
        raise KeyError(
            f"Expected a computed level and a group among {known}; got {level}, {group!r}. "
            "Ask for the level and group when making the evidence."
        )


def draw_evidence(
    name: str,
    draws: ArrayLike,
    *,
    truth: ArrayLike,
    generator: np.random.Generator,
    groups: Mapping[str, ArrayLike] | None = None,
    levels: Sequence[float] = LEVELS,
) -> Evidence:
    """Evidence on a scalar from draws.

    Args:
        name: What was predicted, with its unit.
        draws: Shape (draw, galaxy).
        truth: Shape (galaxy,), in the same unit. A galaxy with NaN in its truth or a draw is left
            out.
        generator: Source of the randomised ranks.
        groups: Partitions by name, each a label a galaxy, shape (galaxy,).
        levels: Levels of the intervals.

    Raises:
        ValueError: The shapes disagree or fewer than two galaxies remain.
    """
    values, true = np.asarray(draws), np.asarray(truth, dtype=np.float64)
    pit = pit_from_draws(values, true, generator=generator)
    crps = np.where(np.isnan(pit), np.nan, crps_draws(values, true))
    return Evidence(
        name=name,
        pit=pit_result(pit),
        coverage=_coverage(pit, groups, levels),
        scores=(mean_score("CRPS", crps),),
        pit_values=pit,
        crps_values=crps,
    )


def density_evidence(
    name: str,
    pdf: ArrayLike,
    *,
    grid: ArrayLike,
    truth: ArrayLike,
    generator: np.random.Generator,
    cdf: ArrayLike | None = None,
    groups: Mapping[str, ArrayLike] | None = None,
    levels: Sequence[float] = LEVELS,
) -> Evidence:
    """Evidence on a redshift from densities: CRPS, log score, CDE loss and point statistics.

    The point redshift is the median of the density.

    Args:
        name: What was predicted.
        pdf: Densities per unit of the grid, shape (galaxy, grid).
        grid: Increasing, shape (grid,).
        truth: True redshifts, shape (galaxy,).
        generator: Source of the bootstrap.
        cdf: Exact CDF on the grid, shape (galaxy, grid); the trapezoid sum of `pdf` by default.
        groups: Partitions by name, each a label a galaxy, shape (galaxy,).
        levels: Levels of the intervals.

    Raises:
        ValueError: The shapes disagree.
    """
    density, points = np.asarray(pdf, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    true = np.asarray(truth, dtype=np.float64)
    table = cumulate(density, points) if cdf is None else np.asarray(cdf, dtype=np.float64)
    pit = pit_from_grid(table, points, true)
    crps = crps_grid(table, points, true)
    return Evidence(
        name=name,
        pit=pit_result(pit),
        coverage=_coverage(pit, groups, levels),
        scores=(
            mean_score("CRPS", crps),
            mean_score("NLL", log_score_grid(density, points, true)),
            mean_score("CDE loss", cde_loss(density, points, true)),
            *point_scores(grid_quantile(table, points, 0.5), true, generator=generator),
        ),
        pit_values=pit,
        crps_values=crps,
    )


def quantile_evidence(
    name: str,
    quantiles: ArrayLike,
    *,
    density: ArrayLike,
    pit: ArrayLike,
    log_density: ArrayLike,
    truth: ArrayLike,
    generator: np.random.Generator,
    groups: Mapping[str, ArrayLike] | None = None,
    levels: Sequence[float] = LEVELS,
) -> Evidence:
    """Evidence on a redshift from exact densities, however narrow: no grid has to resolve them.

    With quantiles q_i at the levels (i + 1/2) / k the CRPS is the mean of twice their pinball
    losses, and the mean density at the q_i is the integral of the squared density (both to 1/k).

    Args:
        name: What was predicted.
        quantiles: At k equally spaced levels (i + 1/2) / k, shape (k, galaxy).
        density: Density at the quantiles, shape (k, galaxy).
        pit: CDF at the truths, shape (galaxy,).
        log_density: ln of the density at the truths, shape (galaxy,).
        truth: True redshifts, shape (galaxy,).
        generator: Source of the bootstrap.
        groups: Partitions by name, each a label a galaxy, shape (galaxy,).
        levels: Levels of the intervals.

    Raises:
        ValueError: The shapes disagree.

    References:
        Gneiting & Raftery 2007, JASA 102, 359 (CRPS as an integral of pinball losses).
    """
    points, height = np.asarray(quantiles, np.float64), np.asarray(density, np.float64)
    true, values = np.asarray(truth, np.float64), np.asarray(pit, np.float64)
    told = np.asarray(log_density, np.float64)
    shapes = {
        "density": height.shape,
        "pit": (len(points), *values.shape),
        "log_density": (len(points), *told.shape),
        "truth": (len(points), *true.shape),
    }
    for field, shape in shapes.items():
        if shape != points.shape:
            raise ValueError(
                f"Expected {field} to fit quantiles of shape {points.shape}; got {shape}. "
                "Galaxies are the last axis."
            )
    level = ((np.arange(len(points)) + 0.5) / len(points))[:, None]
    crps = 2 * ((true < points) - level) * (points - true)
    crps = crps.mean(axis=0)
    return Evidence(
        name=name,
        pit=pit_result(values),
        coverage=_coverage(values, groups, levels),
        scores=(
            mean_score("CRPS", crps),
            mean_score("NLL", -told),
            mean_score("CDE loss", height.mean(axis=0) - 2 * np.exp(told)),
            *point_scores(np.median(points, axis=0), true, generator=generator),
        ),
        pit_values=values,
        crps_values=crps,
    )


def grid_quantile(cdf: FloatArray, grid: FloatArray, level: float) -> FloatArray:
    """Quantiles of CDFs that are linear between grid points, shape (galaxy,)."""
    right = np.clip((cdf < level).sum(axis=1), 1, grid.size - 1)
    rows = np.arange(len(cdf))
    low, high = cdf[rows, right - 1], cdf[rows, right]
    share = np.clip((level - low) / np.maximum(high - low, 1e-300), 0.0, 1.0)
    return np.asarray(grid[right - 1] + share * (grid[right] - grid[right - 1]))


@dataclass(frozen=True)
class BandEvidence:
    """Pixels of one band of rest wavelength."""

    low: float
    """Blue end, rest-frame Angstrom."""
    high: float
    """Red end, rest-frame Angstrom."""
    coverage: tuple[Coverage, ...]
    """Coverage a level; the intervals count galaxies, not pixels."""
    crps: Score
    """Mean over galaxies of the mean CRPS of their pixels in the band."""

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        return {
            "low": self.low,
            "high": self.high,
            "coverage": [result.to_dict() for result in self.coverage],
            "crps": self.crps.to_dict(),
        }


def pixel_evidence(
    pit: ArrayLike,
    crps: ArrayLike,
    *,
    rest_wavelength: ArrayLike,
    edges: ArrayLike,
    levels: Sequence[float] = LEVELS,
) -> tuple[BandEvidence, ...]:
    """Coverage and CRPS of pixels in bands of rest wavelength.

    Args:
        pit: PIT value of every pixel (`pit_from_draws`), shape (galaxy, pixel); NaN is left out.
        crps: CRPS of every pixel (`crps_draws`), in the unit to report, shape (galaxy, pixel).
        rest_wavelength: Angstrom, shape (galaxy, pixel).
        edges: Increasing edges of the bands, rest-frame Angstrom, shape (band + 1,).
        levels: Levels of the intervals.

    Returns:
        One result for each band that at least two galaxies reach.
    """
    values, score = np.asarray(pit, dtype=np.float64), np.asarray(crps, dtype=np.float64)
    rest = np.asarray(rest_wavelength, dtype=np.float64)
    results = []
    for low, high in pairwise(np.asarray(edges, dtype=np.float64).tolist()):
        inside = (rest >= low) & (rest < high) & ~np.isnan(values)
        reached = inside.any(axis=1)
        if reached.sum() < 2:
            continue
        group = f"{low:.0f}-{high:.0f} Angstrom"
        chosen = np.where(inside, values, np.nan)[reached]
        means = np.where(inside, score, 0.0).sum(axis=1)[reached] / inside.sum(axis=1)[reached]
        results.append(
            BandEvidence(
                low=float(low),
                high=float(high),
                coverage=clustered_coverage(chosen, levels=levels, group=group),
                crps=mean_score(f"CRPS {group}", means),
            )
        )
    return tuple(results)


def _coverage(
    pit: FloatArray, groups: Mapping[str, ArrayLike] | None, levels: Sequence[float]
) -> tuple[Coverage, ...]:
    results = coverage(pit, levels=levels)
    for labels in (groups or {}).values():
        by_group = coverage(pit, levels=levels, groups=labels)
        results += by_group[len(levels) :]
    return results
