"""Calibration by bins of whatever may matter, corrected for the number of bins.

From PIT values and any conditions (redshift, magnitude, S/N, type; for pixels also rest wavelength
or distance from the centre) to one row a cell: shift, width error and coverage with intervals, and
a p-value that holds for all cells together. Posteriors that are right on average fail here.

Axes: galaxy, pixel, cell.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probmmae.calibration.coverage import Coverage, clustered_coverage, coverage
from probmmae.calibration.departure import Departure, departure
from probmmae.calibration.multiple_tests import holm
from probmmae.calibration.pit import finite_pit

if TYPE_CHECKING:
    import matplotlib.axes

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """Calibration of the galaxies, or pixels, that fall in one cell."""

    condition: str
    """What was divided into cells."""
    label: str
    """Which cell."""
    departure: Departure
    """Shift and width error of its posteriors."""
    coverage: Coverage
    """Coverage of the 90 % interval."""
    p_value: float
    """Of the test, in this cell alone."""
    adjusted: float
    """The p-value that holds for all cells of the result together (Holm)."""

    def to_dict(self) -> dict[str, Any]:
        """Every field, ready for JSON."""
        return {
            **vars(self),
            "departure": self.departure.to_dict(),
            "coverage": self.coverage.to_dict(),
        }


@dataclass(frozen=True)
class ConditionalResult:
    """Calibration in every cell, and a verdict on all of them."""

    cells: tuple[Cell, ...]
    """By condition, then in the order of their labels."""
    left_out: tuple[str, ...]
    """Cells with too few galaxies to be tested."""
    confidence: float
    """Probability with which all cells of exact posteriors pass."""

    @property
    def p_value(self) -> float:
        """Probability of a cell as bad as the worst when the posteriors are exact."""
        return min(cell.adjusted for cell in self.cells)

    @property
    def passed(self) -> bool:
        """True when no cell fails after correction."""
        return self.p_value > 1 - self.confidence

    @property
    def worst(self) -> tuple[Cell, ...]:
        """Every cell, the least likely one first."""
        return tuple(sorted(self.cells, key=lambda cell: cell.p_value))

    def to_dict(self) -> dict[str, Any]:
        """Every cell and the verdict, ready for JSON."""
        return {
            "cells": [cell.to_dict() for cell in self.cells],
            "left_out": list(self.left_out),
            "confidence": self.confidence,
            "p_value": self.p_value,
            "passed": self.passed,
        }

    def plot(self, axes: "matplotlib.axes.Axes") -> None:
        """Draw the width error of each cell with its interval, the cells that fail in red."""
        for row, cell in enumerate(self.cells):
            score = cell.departure.width
            colour = "C3" if cell.adjusted <= 1 - self.confidence else "C0"
            axes.plot([score.low, score.high], [row, row], color=colour)
            axes.plot(score.value, row, "o", color=colour, markersize=4)
        axes.axvline(0.0, color="0.5", linewidth=0.8)
        labels = [f"{cell.condition} {cell.label}" for cell in self.cells]
        axes.set_yticks(range(len(labels)), labels)
        axes.set(xlabel="width error", ylim=(len(labels) - 0.5, -0.5))


def departure_test(pit: ArrayLike) -> float:
    """P-value of the smooth test of `departure.py`, the default test of a cell."""
    return departure(pit).p_value


def conditional_result(
    pit: ArrayLike,
    conditions: Mapping[str, ArrayLike],
    *,
    bins: int = 5,
    fewest: int = 50,
    test: Callable[[FloatArray], float] = departure_test,
    confidence: float = 0.99,
) -> ConditionalResult:
    """Test calibration in bins of each condition, with Holm's correction over all cells.

    Args:
        pit: PIT values, shape (galaxy,) or (galaxy, pixel); NaN is left out. Galaxies are
            independent, pixels need not be.
        conditions: What to divide by, each of shape (galaxy,) or the shape of `pit`: numbers are
            cut at quantiles, labels taken as they are. NaN and "" are in no cell. Conditions must
            not be made from the truth of the quantity under test, or exact posteriors fail.
        bins: Cells that a condition given as numbers is cut into.
        fewest: Galaxies that a cell needs to be tested, at least 20.
        test: From the PIT values of a cell, shape (galaxy,) or (galaxy, pixel) with NaN for pixels
            of other cells, to a p-value.
        confidence: Probability with which all cells of exact posteriors pass.

    Raises:
        ValueError: PIT values outside [0, 1], a condition of another shape, fewer than two bins
            or 20 galaxies a cell, or no cell with enough galaxies.

    References:
        Zhao et al. 2021, "Diagnostics for conditional density models and Bayesian inference
        algorithms", https://arxiv.org/abs/2102.10473, on why averages over all galaxies hide
        failures
    """
    values = np.asarray(pit, dtype=np.float64)
    finite_pit(values)
    if bins < 2 or fewest < 20 or not conditions:
        raise ValueError(
            "Expected a condition, two bins and 20 galaxies a cell at least; got "
            f"{len(conditions)} conditions, {bins} bins, {fewest} galaxies. Raise what is too low."
        )
    found, left_out = [], []
    for name, condition in conditions.items():
        for label, inside in cells_of(name, condition, values.shape, bins=bins):
            chosen = members(values, inside)
            if len(chosen) < fewest:
                left_out.append(f"{name} {label}")
            else:
                found.append((name, label, chosen, float(test(chosen))))
    return ConditionalResult(_judge(found, fewest), tuple(left_out), confidence)


def _judge(found: list[tuple[str, str, FloatArray, float]], fewest: int) -> tuple[Cell, ...]:
    """Cells from their name, label, PIT values and p-value."""
    if not found:
        raise ValueError(
            f"Expected a cell of at least {fewest} galaxies; got none. Use fewer bins or lower "
            "`fewest`."
        )
    adjusted = holm([p_value for *_, p_value in found]).tolist()
    return tuple(
        Cell(
            condition=name,
            label=label,
            departure=departure(chosen),
            coverage=_coverage(chosen, f"{name} {label}"),
            p_value=p_value,
            adjusted=together,
        )
        for (name, label, chosen, p_value), together in zip(found, adjusted, strict=True)
    )


def _coverage(pit: FloatArray, group: str) -> Coverage:
    if pit.ndim == 2:
        return clustered_coverage(pit, levels=(0.9,), group=group)[0]
    return replace(coverage(pit, levels=(0.9,))[0], group=group)


def cells_of(
    name: str, condition: ArrayLike, shape: tuple[int, ...], *, bins: int
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Label and members of every cell of a condition.

    Args:
        name: Of the condition, for errors.
        condition: Numbers or labels, of shape `shape` or its first axis.
        shape: Of the PIT values.
        bins: Cells of a condition given as numbers; fewer where values repeat.

    Yields:
        The label, and a boolean array of shape `shape`.

    Raises:
        ValueError: The condition has another shape.
    """
    values = np.asarray(condition)
    if values.shape not in (shape, shape[:1]):
        raise ValueError(
            f"Expected {name} for each galaxy or PIT value, shape {shape[:1]} or {shape}; got "
            f"{values.shape}. Give one value a galaxy."
        )
    if values.ndim < len(shape):
        values = np.broadcast_to(values[:, None], shape)
    if values.dtype.kind not in "fiu":
        labels = values.astype(str)
        for label in sorted(set(labels.ravel().tolist()) - {"", "nan"}):
            yield label, labels == label
        return
    numbers = values.astype(np.float64)
    if np.isnan(numbers).all():
        return
    edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, bins + 1)))
    last = max(edges.size - 2, 0)
    index = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, last)
    for cell in range(last + 1):
        ends = edges[[cell, min(cell + 1, edges.size - 1)]]
        yield f"{ends[0]:.4g} to {ends[1]:.4g}", (index == cell) & ~np.isnan(numbers)


def members(pit: FloatArray, inside: NDArray[np.bool_]) -> FloatArray:
    """PIT values of a cell: its galaxies, and NaN for their pixels elsewhere."""
    chosen = np.where(inside, pit, np.nan)
    if chosen.ndim == 1:
        return chosen[~np.isnan(chosen)]
    return chosen[~np.isnan(chosen).all(axis=1)]
