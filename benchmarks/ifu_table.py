"""The tables of README.md on cubes, from ifu.json: training sets, real galaxies, misses."""

from collections.abc import Mapping, Sequence
from typing import Any

from goals_told import ending, number_told
from ifu_models import JUDGED

from probmmae.calibration.map_scores import INTEGRALS, ZONES

Figure = Mapping[str, Any]

_REAL = {
    "MaNGA 7815-3702 from its g-band map": "MaNGA 7815-3702, its g-band map",
    "Abell 478 from its HST image": "Abell 478, its HST image",
    "Abell 478 from images of the cube": "Abell 478, images made from the cube",
    "Abell 478 from images and the central spectrum": "Abell 478, these and the central spectrum",
    "Abell 478, western half from images of the cube, before a fine-tune on the other": (
        "Abell 478, western half, before a fine-tune on the eastern"
    ),
    "Abell 478, western half from images of the cube, after a fine-tune on the other": (
        "Abell 478, western half, after it"
    ),
}


def ifu_table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    figures: Sequence[Figure] = results["figures"]
    named = {one["name"]: one for one in figures}
    lines = [
        "| simulated galaxies | CRPS of H-alpha over cube-trained | spaxels covered: H-alpha "
        "| D4000 | integrals covered |",
        "|---|---|---|---|---|",
    ]
    for label in JUDGED.values():
        over = f"{label}: CRPS of the H-alpha map over that of the model trained on cubes"
        integrals = [_covered(named, f"{label}: {one}", "") for one in INTEGRALS]
        cells = [
            label, number_told(named.get(over), ".2f") if over in named else "1",
            _rings(named, label, "h_alpha"), _rings(named, label, "d4000"), " / ".join(integrals),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Shares of the truth inside 90 % intervals. Spaxels: within 0.5, 0.5 to 1 and 1 to 2 "
        f"half-light radii. Integrals: {', '.join(INTEGRALS)}.",
        "",
        "| real galaxy, from | correlation of H-alpha, of velocity | spaxels covered: H-alpha "
        "| velocity |",
        "|---|---|---|---|",
    ]
    for label, said in _REAL.items():
        alike = [
            number_told(
                named.get(f"{label}: correlation of the {one} map with the observed one"), ".2f"
            )
            for one in ("h_alpha", "velocity")
        ]
        cells = [
            said,
            " / ".join(alike),
            *(_rings(named, label, q) for q in ("h_alpha", "velocity")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        *ending("ifu", results),
    ]
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def _rings(named: Mapping[str, Figure], label: str, quantity: str) -> str:
    return " / ".join(
        _covered(named, f"{label}: {quantity}, {low:g} to {high:g} R_e", " of spaxels")
        for low, high in ZONES
    )


def _covered(named: Mapping[str, Figure], of: str, what: str) -> str:
    return number_told(named.get(f"{of}: coverage of 90% intervals{what}"), ".2f")
