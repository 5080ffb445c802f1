"""The parts that a page is made of: tables that sort, figures in a grid, style for any screen.

From text and numbers to HTML in one file that asks the network for nothing. `report_html.py` says
what stands on the page.

Axes: row, column.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --text: #1a202c; --muted: #6b7280;
  --line: #d9dde3; --band: #e2e6ec; --soft: #f4f6f9; --before: #2b6cb0; --after: #c05621;
  --bad: #c53030; --good: #2f855a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181f; --text: #e5e7eb;
  --muted: #9aa3af; --line: #333b47; --band: #343c49; --soft: #1d232c; --before: #7db4ec;
  --after: #f0a46b; --bad: #f58585; --good: #6fcf97; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.2rem 3rem; max-width: 70rem; background: var(--paper);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; } h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem;
  padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .4rem; } p { max-width: 46rem; margin: .4rem 0 .8rem; }
.verdict { border-left: .3rem solid var(--good); background: var(--soft); padding: .7rem 1rem;
  margin: .7rem 0; border-radius: 0 .4rem .4rem 0; max-width: none; }
.verdict.bad { border-color: var(--bad); }
.verdict strong { color: var(--good); } .verdict.bad strong { color: var(--bad); }
nav a { color: var(--before); margin-right: 1rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr));
  gap: 1rem 1.5rem; margin: .8rem 0; align-items: end; }
figure { margin: 0; break-inside: avoid; } figure svg { display: block; width: 100%;
  height: auto; stroke-linejoin: round; stroke-linecap: butt; }
figure svg text { fill: currentColor; }
.pairs { max-width: 48rem; }
figure.wide { grid-column: 1 / -1; max-width: 46rem; overflow-x: auto; }
figure.wide svg { min-width: 32rem; }
figcaption { font-size: .88rem; color: var(--muted); }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
td.number, th.number { text-align: right; }
td.long { white-space: normal; min-width: 18rem; overflow-wrap: anywhere; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--before); outline-offset: 2px; }
th button::after { content: " \\2195"; color: var(--muted); font-weight: 400; }
th[aria-sort=ascending] button::after { content: " \\2191"; color: var(--text); }
th[aria-sort=descending] button::after { content: " \\2193"; color: var(--text); }
td.bad { color: var(--bad); font-weight: 600; } td.good { color: var(--good); }
.map td { text-align: right; padding: .35rem .6rem; } .map td.bad { outline: 2px solid var(--bad);
  outline-offset: -2px; } .map thead th { text-align: right; }
@media print { :root { color-scheme: light; --paper: #fff; --text: #000; --muted: #555;
  --line: #ccc; --band: #e2e6ec; --soft: #fff; --before: #2b6cb0; --after: #c05621;
  --bad: #c53030; --good: #2f855a; } body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll, figure.wide { overflow: visible; } figure.wide svg { min-width: 0; }
  th, td { white-space: normal; } th button::after { content: ""; } nav { display: none; }
  tr, .verdict { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .figures { grid-template-columns: 1fr 1fr; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const order = (one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") return (a === "") - (b === "");
      const difference = Number(a) - Number(b);
      return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(order));
  }));
}
"""

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
    return Cell(f"{value:{form}} ({low:{form}} to {high:{form}})", value, kind)


def verdict_cell(*, passed: bool) -> Cell:
    """Whether a test was passed."""
    return Cell("passes", 1.0, "good") if passed else Cell("fails", 0.0, "bad")


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell | str]]) -> str:
    """A table that sorts by any column; columns whose cells have keys are numbers."""
    cells = [[Cell(one) if isinstance(one, str) else one for one in row] for row in rows]
    numeric = [
        any(row[place].key is not None for row in cells) for place in range(len(columns))
    ]  # fmt: skip
    heads = "".join(
        f'<th scope="col"{" class=number" if is_number else ""}>'
        f'<button type="button">{escape(name)}</button></th>'
        for name, is_number in zip(columns, numeric, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(_cell(one, is_number=it) for one, it in zip(row, numeric, strict=True))
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
    return f"<td{named}{sort}>{escape(cell.text)}</td>"


def figure(svg: str, caption: str, *, wide: bool = False) -> str:
    """A figure with its caption."""
    kind = ' class="wide"' if wide else ""
    return f"<figure{kind}>{svg}<figcaption>{escape(caption)}</figcaption></figure>\n"


def figures(parts: Iterable[str], *, pairs: bool = False) -> str:
    """Figures beside each other where there is room; two by two for pairs."""
    kind = "figures pairs" if pairs else "figures"
    return f'<div class="{kind}">{"".join(parts)}</div>\n'


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
