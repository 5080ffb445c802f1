"""What a posterior said of held-out galaxies, and what was true: the material of a report.

From arrays, of this model or any other, to `Job` objects that `judgement.py` judges. A job is one
thing asked of a model (the redshift; the spectrum): some numbers a galaxy, a vector a galaxy, and
what was observed, by which galaxies are divided.

Axes: draw, galaxy, quantity (pixels or latents), grid.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import special

from probmmae.calibration.evidence import (
    Evidence,
    density_evidence,
    draw_evidence,
    grid_quantile,
)
from probmmae.calibration.recalibrate import recalibrate_density
from probmmae.inference.pit_map import PitMap, cumulate

FloatArray = NDArray[np.float64]

FEWEST_GALAXIES = 20
"""A report on fewer galaxies is refused."""
_GRID_STEPS = 999
"""Draws that would resolve a CDF as finely as it is looked at."""


@dataclass(frozen=True)
class Drawn:
    """Draws of one number a galaxy."""

    name: str
    """What it is, with its unit."""
    draws: NDArray[Any]
    """Shape (draw, galaxy); a galaxy with NaN in a draw or the truth is left out."""
    truth: FloatArray
    """Shape (galaxy,), in the same unit."""

    def __post_init__(self) -> None:
        if self.draws.ndim != 2 or self.draws.shape[1:] != self.truth.shape:
            raise ValueError(
                f"Expected draws of {self.name} of shape (draw, galaxy) and truths (galaxy,); got "
                f"{self.draws.shape} and {self.truth.shape}. Move the axis of draws to the front."
            )
        if len(self.draws) < 10:
            raise ValueError(
                f"Expected at least 10 draws of {self.name}; got {len(self.draws)}. Draw more: "
                "100 resolve a 90 % interval."
            )

    @property
    def steps(self) -> int:
        """Number of ranks that a truth can have, less one."""
        return len(self.draws)

    def take(self, rows: NDArray[Any]) -> Self:
        """Some of the galaxies."""
        return replace(self, draws=self.draws[:, rows], truth=self.truth[rows])

    def evidence(self, generator: np.random.Generator) -> Evidence:
        """PIT, coverage and scores."""
        return draw_evidence(self.name, self.draws, truth=self.truth, generator=generator)

    def quantile(self, level: float) -> FloatArray:
        """Shape (galaxy,); NaN where a draw is. A new draw is below it with that probability."""
        found = np.quantile(self.draws, level, axis=0, method="weibull")
        return np.asarray(found, dtype=np.float64)

    def mean(self) -> FloatArray:
        """Posterior means, shape (galaxy,)."""
        return np.asarray(self.draws.mean(axis=0, dtype=np.float64))

    def below(self, points: FloatArray) -> FloatArray:
        """Probability below each of some points, shape (galaxy, point)."""
        return np.stack([(self.draws < point).mean(axis=0) for point in points], axis=1)

    def mapped(self, pit_map: PitMap) -> Self:
        """The draws of the recalibrated posterior; the identity map leaves them as they are.

        Between draws the posterior's quantiles are linear, beyond them its tails are Gaussian.
        """
        number, galaxies = self.draws.shape
        ordered = np.sort(self.draws, axis=0).T.astype(np.float64)
        levels = np.arange(1, number + 1) / (number + 1)
        below = pit_map.inverse(np.broadcast_to(levels, (galaxies, number)))
        position = np.clip(below * (number + 1) - 1, 0, number - 1)
        left = np.minimum(position.astype(np.int64), number - 2)
        low = np.take_along_axis(ordered, left, axis=1)
        high = np.take_along_axis(ordered, left + 1, axis=1)
        moved = low + (position - left) * (high - low)
        last = special.ndtri(levels[-1])
        half = (ordered[:, [-1]] - ordered[:, [0]]) / 2
        beyond = np.maximum(np.abs(special.ndtri(np.clip(below, 1e-6, 1 - 1e-6))) - last, 0.0)
        moved += np.sign(below - 0.5) * beyond / last * half
        # NaN sorts last; a galaxy that had one has no posterior before or after.
        moved[np.isnan(ordered[:, -1])] = np.nan
        return replace(self, draws=moved.T)


@dataclass(frozen=True)
class Gridded:
    """A density on a grid for each galaxy."""

    name: str
    """What it is, with its unit."""
    pdf: NDArray[Any]
    """Per unit of the grid, shape (galaxy, grid)."""
    grid: FloatArray
    """Increasing, shape (grid,)."""
    cdf: NDArray[Any]
    """Shape (galaxy, grid), rising to 1."""
    truth: FloatArray
    """Shape (galaxy,), in the unit of the grid."""

    def __post_init__(self) -> None:
        shape = (self.truth.size, self.grid.size)
        if self.pdf.shape != shape or self.cdf.shape != shape or self.truth.ndim != 1:
            raise ValueError(
                f"Expected densities of {self.name} of shape (galaxy, grid) = {shape}, as many "
                f"rows as truths; got pdf {self.pdf.shape} and cdf {self.cdf.shape}. Put one "
                "galaxy in a row."
            )
        if not np.all(np.diff(self.grid) > 0):
            raise ValueError(f"Expected an increasing grid of {self.name}; got another. Sort it.")

    @classmethod
    def from_pdf(
        cls, name: str, pdf: NDArray[Any], *, grid: FloatArray, truth: FloatArray
    ) -> Self:
        """The density with the trapezoid sums as its CDF.

        Raises:
            ValueError: The shapes disagree, or a density is negative or zero everywhere.
        """
        if pdf.ndim != 2 or grid.shape != pdf.shape[1:] or grid.size < 2:
            raise ValueError(
                f"Expected a pdf of {name} of shape (galaxy, grid) and a grid (grid,); got "
                f"{pdf.shape} and {grid.shape}. Put one galaxy in a row."
            )
        if pdf.min() < 0 or not pdf.any(axis=1).all():
            raise ValueError(
                f"Expected densities of {name} >= 0 with some probability each; got "
                f"{pdf.min():.3g} at least. Leave out galaxies without a posterior."
            )
        total = np.trapezoid(pdf, grid, axis=1)[:, None]
        return cls(name, pdf / total, grid, cumulate(pdf, grid), truth)

    @property
    def steps(self) -> int:
        """Number of ranks that a truth is given, less one."""
        return _GRID_STEPS

    def take(self, rows: NDArray[Any]) -> Self:
        """Some of the galaxies."""
        return replace(self, pdf=self.pdf[rows], cdf=self.cdf[rows], truth=self.truth[rows])

    def evidence(self, generator: np.random.Generator) -> Evidence:
        """PIT, coverage and scores."""
        return density_evidence(
            self.name,
            self.pdf,
            grid=self.grid,
            truth=self.truth,
            generator=generator,
            cdf=self.cdf,
        )

    def quantile(self, level: float) -> FloatArray:
        """Shape (galaxy,)."""
        return grid_quantile(np.asarray(self.cdf, dtype=np.float64), self.grid, level)

    def mean(self) -> FloatArray:
        """Posterior means, shape (galaxy,): the grid's end less the area under the CDF."""
        area = np.trapezoid(self.cdf, self.grid, axis=1)
        return np.asarray(self.grid[-1] * self.cdf[:, -1] - area, dtype=np.float64)

    def below(self, points: FloatArray) -> FloatArray:
        """Probability below each of some points, shape (galaxy, point)."""
        right = np.clip(np.searchsorted(self.grid, points), 1, self.grid.size - 1)
        left = self.grid[right - 1]
        share = np.clip((points - left) / (self.grid[right] - left), 0.0, 1.0)
        return np.asarray((1 - share) * self.cdf[:, right - 1] + share * self.cdf[:, right])

    def mapped(self, pit_map: PitMap) -> Self:
        """The recalibrated densities."""
        found = recalibrate_density(self.pdf, self.grid, pit_map, cdf=self.cdf)
        return replace(self, pdf=found.pdf, cdf=found.cdf)


@dataclass(frozen=True)
class Vectors:
    """Draws of a vector a galaxy, such as its spectrum."""

    name: str
    """What it is, with its unit."""
    draws: NDArray[Any]
    """Shape (draw, galaxy, quantity), in units that make quantities and galaxies comparable."""
    truth: FloatArray
    """Shape (galaxy, quantity); a galaxy with NaN in it or its draws is left out."""
    rest_wavelength: FloatArray | None
    """Angstrom, shape (galaxy, quantity), where quantities are pixels."""

    def __post_init__(self) -> None:
        if self.draws.ndim != 3 or self.draws.shape[1:] != self.truth.shape:
            raise ValueError(
                f"Expected draws of {self.name} of shape (draw, galaxy, quantity) and truths "
                f"(galaxy, quantity); got {self.draws.shape} and {self.truth.shape}. Move the "
                "axis of draws to the front."
            )
        if len(self.draws) < 12:
            raise ValueError(
                f"Expected at least 12 draws of {self.name}; got {len(self.draws)}. Draw more."
            )
        rest = self.rest_wavelength
        if rest is not None and rest.shape != self.truth.shape:
            raise ValueError(
                f"Expected a rest wavelength for every quantity of {self.name}, shape "
                f"{self.truth.shape}; got {rest.shape}. Give Angstrom, one a pixel."
            )

    def take(self, rows: NDArray[Any]) -> Self:
        """Some of the galaxies."""
        rest = None if self.rest_wavelength is None else self.rest_wavelength[rows]
        return replace(
            self, draws=self.draws[:, rows], truth=self.truth[rows], rest_wavelength=rest
        )

    def whole(self) -> NDArray[np.bool_]:
        """Galaxies without NaN, shape (galaxy,)."""
        good = np.asarray(np.isfinite(self.truth).all(axis=1))
        for draw in self.draws:
            good = good & np.isfinite(draw).all(axis=1)
        return np.asarray(good, dtype=np.bool_)


Scalar = Drawn | Gridded


@dataclass(frozen=True)
class Job:
    """One thing asked of a model, with its answers on the same galaxies."""

    name: str
    """What was asked: "redshift" or "spectra"."""
    scalars: tuple[Scalar, ...]
    """Numbers: the redshift, or features of the spectrum."""
    vectors: Vectors | None
    """The spectrum itself, if it is judged."""
    conditions: Mapping[str, NDArray[Any]]
    """What was observed, numbers or labels, by name, each of shape (galaxy,)."""
    for_repair: NDArray[np.bool_]
    """Galaxies that a repair is fitted on and that are not reported, shape (galaxy,)."""

    def __post_init__(self) -> None:
        if not self.scalars and self.vectors is None:
            raise ValueError(f"Expected answers on {self.name}; got none. Give draws.")
        size = self.for_repair.size
        sizes = {one.name: one.truth.shape[0] for one in (*self.scalars, self.vectors) if one}
        sizes |= {f"condition {name}": values.size for name, values in self.conditions.items()}
        for name, number in sizes.items():
            if number != size:
                raise ValueError(
                    f"Expected {size} galaxies of {name}; got {number}. Give every array the "
                    "same galaxies in the same order."
                )
        reported = int((~self.for_repair).sum())
        if reported < FEWEST_GALAXIES:
            raise ValueError(
                f"Expected at least {FEWEST_GALAXIES} galaxies to report {self.name} on; got "
                f"{reported}. Hold out more galaxies."
            )

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """Some of the galaxies, all of them counted as reported."""
        return replace(
            self,
            scalars=tuple(one.take(rows) for one in self.scalars),
            vectors=None if self.vectors is None else self.vectors.take(rows),
            conditions={name: values[rows] for name, values in self.conditions.items()},
            for_repair=np.zeros(int(rows.sum()), dtype=np.bool_),
        )
