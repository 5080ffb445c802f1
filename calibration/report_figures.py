"""The figures of one job on the page of a report, before and after repair in the same frame.

From a `JobReport` to the parts of `page.py`, drawn by the results' own `plot` and by `plots.py`.
"""

from collections.abc import Sequence
from itertools import groupby

from probmmae.calibration.cell_map import CellMap
from probmmae.calibration.conditional import Cell
from probmmae.calibration.judgement import CONFIDENCE, Judgement, ScalarEvidence, VectorEvidence
from probmmae.calibration.page import Shade, figure, figures, heat_map, paragraph
from probmmae.calibration.plots import (
    Draw,
    coverage_curve,
    coverage_rows,
    pit_histogram,
    svg,
    svgs,
    width_rows,
)
from probmmae.calibration.report import JobReport

_WIDEST = 20
"""Bins that a map has side by side."""


def scalar_figures(job: JobReport) -> str:
    """PIT, ECDF, coverage and tomographic bins of the one number of a job."""
    both = [one.scalars[0] for one in judged(job)]
    name = both[0].name
    parts = [
        _panels(
            [pit_histogram(one.evidence.pit_values) for one in both], f"{name}, PIT",
            "Where truths fall in their posteriors (PIT). Grey: 99 % of the bins of exact ones. "
            "A bowl says too narrow, a hump too wide, a slope shifted.",
        ),
        _panels(
            [one.ranks.plot for one in both], f"{name}, ECDF",
            "The same as a distribution function, less the uniform one. That of exact posteriors "
            "stays in the grey band as a whole, with a probability of 99 %.",
        ),
        _panels(
            [
                coverage_curve([one for one in each.evidence.coverage if one.group == "all"])
                for each in both
            ], f"{name}, coverage",
            "Truths in central intervals, less what was claimed, with 95 % intervals.",
        ),
    ]  # fmt: skip
    tomography = [one.tomography for one in both if one.tomography is not None]
    if tomography:
        parts.append(
            _panels(
                [one.plot for one in tomography], f"{name}, tomographic bins",
                "Bias of the mean redshift in five bins of the median, with 99 % intervals. Grey: "
                f"{tomography[0].requirement:g} (1 + z), DESC's requirement on weak lensing with "
                "LSST's first year.",
            )
        )  # fmt: skip
    return figures(parts, pairs=job.after is not None)


def feature_figures(job: JobReport) -> str:
    """Coverage of every feature in one figure, then the ECDF of each."""
    sides = [one.scalars for one in judged(job)]
    before, after = sides[0], sides[1] if len(sides) > 1 else ()
    drawn = svg(
        coverage_rows(
            [one.name for one in before],
            [one.evidence.at(0.9) for one in before],
            [one.evidence.at(0.9) for one in after],
        ),
        name="coverage of features",
        size=(6.2, 1.0 + 0.3 * len(before)),
    )
    said = "Truths in 90 % intervals of every feature, with 95 % intervals."
    parts = [
        _panels(
            [one.ranks.plot for one in each], f"{each[0].name}, ECDF",
            f"{each[0].name}: distribution of the PIT less the uniform one.",
        )
        for each in zip(*sides, strict=True)
    ]  # fmt: skip
    return figure([drawn], said, wide=True) + figures(parts, pairs=bool(after))


def vector_figures(job: JobReport) -> str:
    """What the quantities of vectors do together, and their coverage by rest wavelength."""
    both = [one.vectors for one in judged(job) if one.vectors is not None]
    name = both[0].name
    parts = [
        _panels(
            [one.tarp.plot for one in both], f"{name}, TARP",
            "TARP: truths in balls around random points, by what the posterior gives the ball. "
            "On the diagonal if exact; grey: 99 %; coloured: bootstrap.",
        )
    ]  # fmt: skip
    tests = [one.classifier for one in both if one.classifier is not None]
    if tests:
        shares = " and ".join(f"{100 * one.accuracy.value:.0f} %" for one in tests)
        parts.append(
            _panels(
                [one.plot for one in tests], f"{name}, classifier",
                "A classifier that tells truths from draws (local C2ST): its margin, and in grey "
                f"that of truths and draws exchanged at random. It knows {shares} of the truths"
                f"{', before and after' if len(tests) > 1 else ''}; exact: 50 %.",
            )
        )  # fmt: skip
    return figures(parts, pairs=len(both) > 1) + _bands(both)


def _bands(both: Sequence[VectorEvidence]) -> str:
    bands = [one.bands for one in both]
    if not bands[0]:
        return ""
    sides = [
        [next(one for one in band.coverage if one.level == 0.9) for band in side] for side in bands
    ]
    names = [f"{band.low:.0f} to {band.high:.0f} \u00c5" for band in bands[0]]
    rows = coverage_rows(names, sides[0], sides[1] if len(sides) > 1 else [])
    drawn = svg(rows, name="coverage of pixels", size=(6.2, 1.0 + 0.3 * len(names)))
    said = (
        "Truths in 90 % intervals of pixels, by rest wavelength. The error bars of 95 % count "
        "galaxies, not pixels."
    )
    return figure([drawn], said, wide=True)


def bin_figures(job: JobReport) -> str:
    """Maps of every bin of what was observed; of a single number its bins with intervals, too."""
    sides = judged(job)
    scalars = [one.scalars[0] for one in sides if len(one.scalars) == 1 and one.vectors is None]
    said = _map_of_bins(sides)
    return said + _maps_of_two(scalars) + _rows_of_bins(scalars) if scalars else said


def judged(job: JobReport) -> list[Judgement]:
    """Before repair and, where there is one, after."""
    return [one for one in (job.before, job.after) if one is not None]


def whens(sides: Sequence[object]) -> tuple[str, ...]:
    """What the sides are called; "" where there is one."""
    return ("",) if len(sides) == 1 else ("before repair", "after repair")


def _panels(draws: Sequence[Draw], name: str, caption: str) -> str:
    """The same figure before and after repair, or alone."""
    names = [f"{name} {when}".strip() for when in whens(draws)]
    return figure(svgs(draws, names=names), caption)


def _map_of_bins(sides: Sequence[Judgement]) -> str:
    """Width error by condition and bin: a row a quantity, before and after."""
    tables = [_by_condition(side) for side in sides]
    if not tables[0]:
        return ""
    groups: dict[str, tuple[Cell, ...]] = {}
    for of in tables[0].values():
        for name, cells in of.items():
            groups.setdefault(name, cells)
    said = paragraph(
        "Width error in per cent, red too narrow and blue too wide, in bins of what was observed. "
        "Bins of numbers run from low to high with as many galaxies each; point at a cell for its "
        "range. Framed: fails, all bins of the quantity taken together."
    )
    return said + "".join(_map_of_some(tables, some) for some in _lines(groups))


def _lines(groups: dict[str, tuple[Cell, ...]]) -> list[dict[str, tuple[Cell, ...]]]:
    """As many conditions as fit side by side, then the next."""
    lines: list[dict[str, tuple[Cell, ...]]] = [{}]
    for name, cells in groups.items():
        if lines[-1] and sum(map(len, lines[-1].values())) + len(cells) > _WIDEST:
            lines.append({})
        lines[-1][name] = cells
    return lines


def _map_of_some(
    tables: Sequence[dict[str, dict[str, tuple[Cell, ...]]]], groups: dict[str, tuple[Cell, ...]]
) -> str:
    """The map of some of the conditions, of the quantities that have them."""
    quantities = [name for name, of in tables[0].items() if groups.keys() & of.keys()]
    rows = []
    for quantity in quantities:
        for table, when in zip(tables, whens(tables), strict=True):
            of = table[quantity]
            parts = [
                [_shade(cell) for cell in of[name]] if name in of else [None] * len(cells)
                for name, cells in groups.items()
            ]
            alone = when if len(quantities) == 1 else f"{quantity}, {when}"
            rows.append((alone if when else quantity, parts))
    heads = [
        (name, [_head(*pair) for pair in enumerate(cells, 1)]) for name, cells in groups.items()
    ]
    return heat_map(heads, rows)


def _by_condition(judgement: Judgement) -> dict[str, dict[str, tuple[Cell, ...]]]:
    """Bins by quantity and condition."""
    parts = {one.name: one.conditional for one in judgement.scalars}
    if judgement.vectors is not None:
        parts[judgement.vectors.name] = judgement.vectors.conditional
    return {
        name: {of: tuple(group) for of, group in groupby(part.cells, lambda one: one.condition)}
        for name, part in parts.items()
        if part is not None
    }


def _head(number: int, cell: Cell) -> str:
    """A bin of numbers is counted, one of labels is named."""
    return str(number) if " to " in cell.label else cell.label


def _shade(cell: Cell) -> Shade:
    width = cell.departure.width.value
    return Shade(
        f"{round(100 * width):+d}", width, cell.adjusted <= 1 - CONFIDENCE,
        f"{cell.condition} {cell.label}: width error {100 * width:+.0f} %, 90 % intervals hold "
        f"{100 * cell.coverage.value:.0f} %, {cell.departure.n:,} galaxies",
    )  # fmt: skip


def _maps_of_two(scalars: Sequence[ScalarEvidence]) -> str:
    """Two conditions crossed, the map before repair beside that after it."""
    maps = [one.cells for one in scalars if one.cells is not None]
    if not maps:
        return ""
    first, second = maps[0].names
    said = paragraph(f"The same by {first} (down) and {second} (across).")
    drawn = [_map_of_two(*pair) for pair in zip(maps, whens(maps), strict=True)]
    return f'{said}<div class="maps">{"".join(drawn)}</div>\n'


def _map_of_two(one: CellMap, when: str) -> str:
    by_label = {cell.label: _shade(cell) for cell in one.result.cells}
    rows = [
        (row, [[by_label.get(f"{row} | {column}") for column in one.columns]])
        for row in one.rows
    ]  # fmt: skip
    return heat_map([(when or one.names[1], one.columns)], rows)


def _rows_of_bins(scalars: Sequence[ScalarEvidence]) -> str:
    """The bins with their intervals."""
    sides = [one.conditional.cells for one in scalars if one.conditional is not None]
    if not sides:
        return ""
    drawn = svg(
        width_rows(sides[0], sides[1] if len(sides) > 1 else (), failing=1 - CONFIDENCE),
        name=f"{scalars[0].name}, bins",
        size=(6.2, 1.0 + 0.27 * len(sides[0])),
    )
    return figure([drawn], "The bins with their 99 % intervals; ringed where one fails.",
                  wide=True)  # fmt: skip
