"""A map of calibration over two conditions: where posteriors are wrong.

From PIT values and two conditions, such as redshift and magnitude, to a grid of the cells of
`conditional.py`.

Axes: galaxy, pixel, row and column (cells of the two conditions).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from probmmae.calibration.conditional import ConditionalResult, cells_of, conditional_result

if TYPE_CHECKING:
    import matplotlib.axes


@dataclass(frozen=True)
class CellMap:
    """Calibration in every cell of two conditions crossed."""

    result: ConditionalResult
    """The cells, corrected for their number; a label is "row | column"."""
    rows: tuple[str, ...]
    """Labels of the first condition."""
    columns: tuple[str, ...]
    """Labels of the second condition."""
    names: tuple[str, str]
    """The two conditions."""

    @property
    def passed(self) -> bool:
        """True when no cell fails after correction."""
        return self.result.passed

    def to_dict(self) -> dict[str, Any]:
        """Every cell, the labels and the verdict, ready for JSON."""
        return {
            **self.result.to_dict(),
            "rows": list(self.rows),
            "columns": list(self.columns),
            "names": list(self.names),
        }

    def plot(self, axes: "matplotlib.axes.Axes") -> None:
        """Draw the width error as colour, its size as text, a frame around cells that fail."""
        table = np.full((len(self.rows), len(self.columns)), np.nan)
        for cell in self.result.cells:
            row, column = cell.label.split(" | ")
            y, x = self.rows.index(row), self.columns.index(column)
            table[y, x] = cell.departure.width.value
            failed = cell.adjusted <= 1 - self.result.confidence
            axes.text(
                x,
                y,
                f"{table[y, x]:+.0%}",
                ha="center",
                va="center",
                weight="bold" if failed else "normal",
                bbox={"facecolor": "none", "edgecolor": "black"} if failed else None,
            )
        reach = max(0.1, float(np.nanmax(np.abs(table))))
        axes.imshow(table, cmap="RdBu", vmin=-reach, vmax=reach, aspect="auto")
        axes.set_xticks(range(len(self.columns)), self.columns, rotation=30, ha="right")
        axes.set_yticks(range(len(self.rows)), self.rows)
        axes.set(ylabel=self.names[0], xlabel=self.names[1], title="width error")


def cell_map(
    pit: ArrayLike,
    first: tuple[str, ArrayLike],
    second: tuple[str, ArrayLike],
    *,
    bins: int = 5,
    fewest: int = 50,
    confidence: float = 0.99,
) -> CellMap:
    """Test calibration in the cells of two conditions crossed.

    Args:
        pit: PIT values, shape (galaxy,) or (galaxy, pixel); NaN is left out.
        first: Name and values of the condition down the rows, as in `conditional_result`.
        second: Name and values of the condition along the columns.
        bins: Cells that each condition given as numbers is cut into.
        fewest: Galaxies that a cell needs to be tested.
        confidence: Probability with which all cells of exact posteriors pass.

    Raises:
        ValueError: As `conditional_result`.
    """
    shape = np.asarray(pit).shape
    rows = dict(cells_of(*first, shape, bins=bins))
    columns = dict(cells_of(*second, shape, bins=bins))
    labels = np.full(shape, "", dtype=object)
    for row, across in rows.items():
        for column, down in columns.items():
            labels[across & down] = f"{row} | {column}"
    names = (first[0], second[0])
    result = conditional_result(
        pit,
        {" and ".join(names): labels},
        bins=bins,
        fewest=fewest,
        confidence=confidence,
    )
    return CellMap(result, tuple(rows), tuple(columns), names)
