"""The tables of README.md on exact inference, from inference.json.

The twin with a known answer, the mean redshifts of surveys by size, everything else that was
measured, then what was missed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from goals_told import goals_told

Figure = Mapping[str, Any]

_TWIN = {
    "amortised, trained": None,
    "importance-weighted": "importance weights",
    "NUTS": "bridge sampling of NUTS",
}
"""Method, and what gives its evidence."""
_SIZE = re.compile(
    r"n\(z\), ([\d,]+) galaxies in \d+ bins: largest "
    r"(posterior standard deviation|error) of a bin's mean redshift over 1 \+ z"
)


def inference_table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    figures: Sequence[Figure] = results["figures"]
    rest = [
        one
        for one in figures
        if not one["name"].startswith("linear-Gaussian twin") and not _SIZE.match(one["name"])
    ]
    lines = [
        *_twin({one["name"]: one for one in figures}),
        "",
        "| measured with the shipped model, and on simulated surveys | value | n | goal |",
        "|---|---|---|---|",
        *(f"| {_name(one)} | {_number(one)} | {_count(one)} | {one['goal'] or ''} |"
          for one in rest),
        "",
        *_sizes(figures),
        "",
        *goals_told(figures, _number, _name),
        "",
        f"From `benchmarks/results/inference.json`: `{results['command']}`.",
    ]  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _twin(named: Mapping[str, Figure]) -> list[str]:
    lines = [
        "| mean error against the closed form | mean (in sd) | width | ln evidence (nats) |",
        "|---|---|---|---|",
    ]
    for method, evidence in _TWIN.items():
        names = [
            f"{method}: mean, mean absolute error (posterior standard deviations)",
            f"{method}: width, mean absolute error (relative)",
            f"{evidence}: ln evidence, mean absolute error (nats)",
        ]
        cells = [_number(named.get(f"linear-Gaussian twin, {name}")) for name in names]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _sizes(figures: Sequence[Figure]) -> list[str]:
    rows: dict[str, dict[str, Figure]] = {}
    for one in figures:
        if found := _SIZE.match(one["name"]):
            rows.setdefault(found[1], {})[found[2]] = one
    if not rows:
        return []
    return [
        "| galaxies | mean redshift of a bin over 1 + z: noise, worst bin | error, worst bin |",
        "|---|---|---|",
        *(f"| {size} | {_number(row.get('posterior standard deviation'))} | "
          f"{_number(row.get('error'))} |" for size, row in rows.items()),
    ]  # fmt: skip


def _name(one: Figure) -> str:
    return str(one["name"]).replace("|", "\\|")


def _count(one: Figure) -> str:
    return "" if one["n"] is None else f"{one['n']:,}"


def _number(one: Figure | None) -> str:
    if one is None or one["value"] is None:
        return "-"
    value = one["value"]
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
