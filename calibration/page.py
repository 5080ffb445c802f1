"""The parts that a page is made of: tables that sort, figures in a grid.

From text and numbers to HTML in one file that asks the network for nothing, in the style of
`page_style.py`. `report_html.py` says what stands on the page.

Axes: row, column.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from probmmae.calibration.page_style import SCRIPT, STYLE

_LONG = 50
"""Text of more characters than this is broken into lines."""


@dataclass(frozen=True)
class Cell:
    """What stands in a table."""

    text: str
    key: float | None = None
    """What it is sorted by, if it is a number."""
    kind: str = ""
    """"bad", "good" or nothing."""
    note: str = ""
    """Said behind it in small print."""


def number(value: float | int, form: str = ".3g", *, kind: str = "") -> Cell:
    """A number, or a dash for what is not one."""
    if value != value:
        return Cell("\u2013", None, kind)
    return Cell(f"{value:{form}}", float(value), kind)


def percent(value: float, *, kind: str = "") -> Cell:
    """A signed percentage."""
    return number(100 * value, "+.1f", kind=kind)


def interval(value: float, low: float, high: float, form: str = ".3g", *, kind: str = "") -> Cell:
    """A number with its interval, sorted by the number."""
    return Cell(f"{value:{form}}", value, kind, f"{low:{form}} to {high:{form}}")


def verdict_cell(*, passed: bool) -> Cell:
    """Whether a test was passed."""
    return Cell("passes", 1.0, "good") if passed else Cell("fails", 0.0, "bad")


def p_value(value: float, *, kind: str = "") -> Cell:
    """A p-value; what is below 1e-4 is only said to be."""
    small = value < 1e-4
    return Cell("< 0.0001" if small else f"{value:.2g}", float(value), kind)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell | str]], *, spare: Sequence[str] = ()
) -> str:
    """A table that sorts by any column; columns whose cells have keys are numbers.

    Args:
        columns: What stands above each.
        rows: A cell a column.
        spare: Columns that are left out if they say the same in every row.
    """
    cells = [[Cell(one) if isinstance(one, str) else one for one in row] for row in rows]
    shown = [
        place
        for place, name in enumerate(columns)
        if name not in spare or len({row[place].text for row in cells}) > 1
    ]
    numeric = {place: any(row[place].key is not None for row in cells) for place in shown}
    heads = "".join(
        f'<th scope="col"{" class=number" if numeric[place] else ""}>'
        f'<button type="button">{escape(columns[place])}</button></th>'
        for place in shown
    )
    body = "".join(
        "<tr>"
        + "".join(_cell(row[place], is_number=numeric[place]) for place in shown)
        + "</tr>\n"
        for row in cells
    )
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def _cell(cell: Cell, *, is_number: bool) -> str:
    shape = "number" if is_number else "long" if len(cell.text) > _LONG else ""
    kinds = " ".join(word for word in (shape, cell.kind) if word)
    key = "" if cell.key is None else f"{cell.key:.10g}"
    sort = f' data-sort="{key}"' if is_number else ""
    named = f' class="{kinds}"' if kinds else ""
    note = f"<small>{escape(cell.note)}</small>" if cell.note else ""
    return f"<td{named}{sort}>{escape(cell.text)}{note}</td>"


def figure(panels: Sequence[str], caption: str, *, wide: bool = False) -> str:
    """Panels with one caption; two panels are before and after repair."""
    whens = ("before repair", "after repair") if len(panels) > 1 else ("",)
    kinds = ("when", "when after")
    parts = "".join(
        f'<div>{f"""<div class="{kind}">{when}</div>""" if when else ""}{panel}</div>'
        for panel, when, kind in zip(panels, whens, kinds, strict=False)
    )
    kind = ' class="wide"' if wide else ""
    return (
        f'<figure{kind}><div class="panels">{parts}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def figures(parts: Iterable[str], *, pairs: bool = False) -> str:
    """Figures beside each other where there is room."""
    kind = "figures pairs" if pairs else "figures"
    return f'<div class="{kind}">{"".join(parts)}</div>\n'


@dataclass(frozen=True)
class Shade:
    """What stands in a map."""

    text: str
    value: float
    """Decides the colour: red below 0, blue above, full at 0.3."""
    framed: bool
    """Whether it is pointed out."""
    title: str
    """What it says when it is pointed at."""


def heat_map(
    groups: Sequence[tuple[str, Sequence[str]]],
    rows: Iterable[tuple[str, Sequence[Sequence[Shade | None]]]],
) -> str:
    """Numbers on colours, in groups of columns.

    Args:
        groups: Name of each group and of its columns.
        rows: Name of each row and, by group, what stands in it; None where there is nothing.
    """
    above = "".join(
        f'<th scope="colgroup" colspan="{len(columns)}"{_start(place)}>{escape(name)}</th>'
        for place, (name, columns) in enumerate(groups)
    )
    heads = "".join(
        f'<th scope="col"{_start(place, number)}>{escape(name)}</th>'
        for place, (_, columns) in enumerate(groups)
        for number, name in enumerate(columns)
    )
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            _shade(one, _start(place, number))
            for place, group in enumerate(parts)
            for number, one in enumerate(group)
        )
        + "</tr>\n"
        for name, parts in rows
    )
    return (
        f'<div class="scroll"><table class="map"><thead><tr><td></td>{above}</tr>'
        f"<tr><td></td>{heads}</tr></thead><tbody>\n{body}</tbody></table></div>\n"
    )


def _start(group: int, column: int = 0) -> str:
    """A gap stands before each group but the first."""
    return ' class="start"' if group and not column else ""


def _shade(shade: Shade | None, start: str) -> str:
    if shade is None:
        return f"<td{start}></td>"
    kinds = " ".join(
        word for word, there in (("bad", shade.framed), ("start", bool(start))) if there
    )
    colour = "--bad" if shade.value < 0 else "--before"
    depth = min(60, round(200 * abs(shade.value)))
    named = f' class="{kinds}"' if kinds else ""
    return (
        f'<td{named} title="{escape(shade.title)}" style="background: color-mix(in srgb, '
        f'var({colour}) {depth}%, var(--paper))">{escape(shade.text)}</td>'
    )


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>\n"


def page(title: str, body: str) -> str:
    """The whole file."""
    # A number and its per cent sign stay on one line.
    body = body.replace(" %", "\u00a0%")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{body}<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
