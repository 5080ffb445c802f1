"""The tables of README.md on redshifts from real catalogues, from photoz.json.

One row a table: every method on the same galaxies, then what has a goal of its own, then what was
missed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from goals_told import ending, number_told

Figure = Mapping[str, Any]

OURS = "probmmae"
PEERS = ("FlexZBoost", "FlexZBoost tuned", "PZFlow", "GPz", "neighbours", "Cal-PIT")
TABLES = {
    "sdss_boss": "SDSS BOSS",
    "sdss_mgs": "SDSS main",
    "deep2_3dhst": "DEEP2, 3D-HST",
    "zcosmos": "zCOSMOS",
    "jwst_hst": "JWST, HST",
    "vvds_deep": "VVDS deep",
    "vvds_wide": "VVDS wide",
    "hdfn": "HDF-N",
    "dc2": "DC2 (simulated)",
}
_CELL = {
    "NMAD of the mode": ".4f",
    "CRPS": ".4f",
    "CDE loss": ".2f",
    "PIT KS distance": ".3f",
}
_COVERAGE = "coverage of 90 % intervals"
_CPU = "CPU seconds of training and answering"


def photoz_table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    figures: Sequence[Figure] = results["figures"]
    named = {one["name"]: one for one in figures}
    measured = [table for table in TABLES if f"{table}, {OURS}: CRPS" in named]
    lines = [
        "NMAD of the mode / CRPS / CDE loss / PIT KS distance; the best of each row in bold.",
        "",
        f"| table | galaxies | {' | '.join([OURS, *PEERS])} |",
        "|---" * (len(PEERS) + 3) + "|",
        *(_row(table, named) for table in measured),
        "",
        "| table | 90 % intervals cover: ours, FlexZBoost's | CPU seconds: ours, FlexZBoost's |",
        "|---|---|---|",
    ]
    for table in measured:
        cells = [
            ", ".join(number_told(named.get(f"{table}, {method}: {what}"), kind)
                      for method in (OURS, "FlexZBoost"))
            for what, kind in ((_COVERAGE, ".3f"), (_CPU, ".0f"))
        ]  # fmt: skip
        lines.append(f"| {TABLES[table]} | {' | '.join(cells)} |")
    lines += [
        *ending("photoz", results),
    ]
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def _row(table: str, named: Mapping[str, Figure]) -> str:
    methods = (OURS, *PEERS)
    values = {
        what: [named.get(f"{table}, {method}: {what}") for method in methods] for what in _CELL
    }
    best = {
        what: min(one["value"] for one in found if one is not None)
        for what, found in values.items()
    }
    cells = []
    for place in range(len(methods)):
        parts = []
        for what, kind in _CELL.items():
            one = values[what][place]
            said = number_told(one, kind)
            parts.append(f"**{said}**" if one is not None and one["value"] == best[what] else said)
        cells.append(" / ".join(parts) if values["CRPS"][place] is not None else "-")
    count = f"{named[f'{table}, {OURS}: CRPS']['n']:,}"
    return f"| {TABLES[table]} | {count} | {' | '.join(cells)} |"
