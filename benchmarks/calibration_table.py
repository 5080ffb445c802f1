"""The table of README.md on calibration before and after repair, from calibration.json.

One row an answer: coverage of its 90 % intervals and how many bins of galaxies are outside their
band, before and after, and what repair does to its CRPS; then what was missed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from goals_told import ending, number_told

Figure = Mapping[str, Any]

_WHENS = ("before repair", "after repair")
_COVERAGE = "coverage of 90% intervals"
_BINS = "bins of 200 galaxies or more whose 90 % coverage is outside its band"


def calibration_table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    figures: Sequence[Figure] = results["figures"]
    named = {one["name"]: one for one in figures}
    labels = [
        name.removesuffix(f" {_WHENS[1]}: {_COVERAGE}")
        for name in named
        if name.endswith(f" {_WHENS[1]}: {_COVERAGE}")
    ]
    lines = [
        "| answer | 90 % intervals cover | bins outside their band, of how many "
        "| CRPS after over before |",
        "|---|---|---|---|",
    ]
    for label in labels:
        bins = named.get(f"{label} {_WHENS[1]}: {_BINS}")
        cells = (
            label,
            _both(named, label, _COVERAGE, ".3f"),
            "-" if bins is None else f"{_both(named, label, _BINS, '.0f')} of {bins['n']}",
            number_told(named.get(f"{label}: CRPS after repair over before"), ".3f"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Before and after repair; one number where it is the same.",
        *ending("calibration", results),
    ]
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def _both(named: Mapping[str, Figure], label: str, what: str, kind: str) -> str:
    said = [number_told(named.get(f"{label} {when}: {what}"), kind) for when in _WHENS]
    return said[0] if said[0] == said[1] else ", ".join(said)
