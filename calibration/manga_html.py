"""The MaNGA chapter as a page: what is covered and what is not, galaxy by galaxy and together.

From `ChapterGalaxy`s to one HTML file and one of JSON beside it.
"""

import json
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from probmmae.calibration.coverage import clustered_coverage
from probmmae.calibration.manga_chapter import ChapterGalaxy
from probmmae.calibration.manga_figures import chapter_figure
from probmmae.calibration.map_scores import (
    INTEGRALS,
    LEVELS,
    GalaxyMaps,
    integral_scores,
    map_correlation,
    zone_scores,
)
from probmmae.calibration.page import Cell, interval, number, page, paragraph, table
from probmmae.calibration.plain_json import plain
from probmmae.inference.growing import whole_file

_MAPS = ("h_alpha", "h_alpha_ew", "o_iii", "velocity", "stellar_velocity", "d4000", "continuum")
_EDGES = (2400.0, 3700.0, 4200.0, 5200.0, 6400.0, 6700.0, 8000.0, 10300.0)
_SHOWN = 12
"""Galaxies that are drawn."""


def write_chapter(
    galaxies: Sequence[ChapterGalaxy], provenance: Mapping[str, str], path: Path, *, seed: int = 0
) -> Path:
    """Write the page and, beside it, the numbers; each whole or not at all.

    Args:
        galaxies: What was judged.
        provenance: What made it, by name.
        path: Of the HTML file.
        seed: Of noise and ranks.

    Returns:
        The path of the JSON file.

    Raises:
        FileNotFoundError: The folder is not there.
        ValueError: The path ends in .json, where the other file goes.
    """
    beside = path.with_suffix(".json")
    if beside == path:
        raise ValueError(f"Expected a path for HTML; got {path}. Name it report.html.")
    numbers = chapter_numbers(galaxies, seed=seed)
    text = chapter_html(galaxies, numbers, provenance)
    with whole_file(beside) as partial:
        content = {"provenance": dict(provenance), **numbers}
        partial.write_text(json.dumps(plain(content), indent=1, allow_nan=False) + "\n")
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return beside


def chapter_numbers(galaxies: Sequence[ChapterGalaxy], *, seed: int = 0) -> dict[str, Any]:
    """Every number of the page: as predicted, and with the level of the flux fitted.

    Args:
        galaxies: What was judged.
        seed: Of noise and ranks.
    """
    content: dict[str, Any] = {"galaxies": [_one(each) for each in galaxies]}
    for name, maps in (
        ("as predicted", [each.maps for each in galaxies]),
        ("level fitted", [each.calibrated() for each in galaxies]),
    ):
        generator = np.random.default_rng(seed)
        noisy = [one.noisy(generator) for one in maps]
        content[name] = {"zones": _zones(noisy, seed), "integrals": _integrals(noisy, seed)}
    content["pixels"] = _pixels(galaxies)
    return content


def _one(judged: ChapterGalaxy) -> dict[str, Any]:
    return {
        "name": judged.maps.name,
        "conditions": judged.said,
        "observed_over_predicted": list(judged.offset),
        "centroid_shift_arcsec": list(judged.shift),
        "chi_square": {
            name: {"noise_alone": alone, "with_draws": whole, "freedom": freedom}
            for name, (alone, whole, freedom) in judged.chi_square.items()
        },
        "correlation": {
            name: float(map_correlation([judged.maps], name)[0])
            for name in ("h_alpha", "velocity", "stellar_velocity", "d4000")
        },
    }


def _zones(noisy: Sequence[GalaxyMaps], seed: int) -> list[dict[str, Any]]:
    return [
        {
            "quantity": score.quantity,
            "zone": list(score.zone),
            "coverage": [one.to_dict() for one in score.coverage],
            "crps": score.crps,
            "bias": score.bias,
            "scatter": score.scatter,
            "spaxels": score.spaxels,
        }
        for score in zone_scores(noisy, _MAPS, seed=seed)
    ]


def _integrals(noisy: Sequence[GalaxyMaps], seed: int) -> list[dict[str, Any]]:
    return [
        {
            "name": score.name,
            "coverage": [one.to_dict() for one in score.coverage],
            "pit": score.pit.tolist(),
            "observed": score.known.tolist(),
            "predicted": score.middle.tolist(),
            "half_width": score.spread.tolist(),
        }
        for score in integral_scores(noisy, seed=seed)
    ]


def _pixels(galaxies: Sequence[ChapterGalaxy]) -> list[dict[str, Any]]:
    """Coverage of pixels by rest wavelength; spaxels of one galaxy are one cluster."""
    told = [each.pixels for each in galaxies if each.pixels is not None]
    found = []
    for low, high in pairwise(_EDGES):
        rows = [one.pit[:, (one.rest >= low) & (one.rest < high)].ravel() for one in told]
        if not any(np.isfinite(row).any() for row in rows):
            continue
        padded = np.full((len(rows), max(map(len, rows))), np.nan)
        for row, values in zip(padded, rows, strict=True):
            row[: len(values)] = values
        found.append(
            {
                "rest": [low, high],
                "coverage": [one.to_dict() for one in clustered_coverage(padded, levels=LEVELS)],
            }
        )
    return found


def chapter_html(
    galaxies: Sequence[ChapterGalaxy], numbers: Mapping[str, Any], provenance: Mapping[str, str]
) -> str:
    """The page as text.

    Args:
        galaxies: What was judged.
        numbers: `chapter_numbers` of them.
        provenance: What made it.
    """
    body = "<h1>Cubes held against MaNGA</h1>\n" + paragraph(_verdict(galaxies, numbers))
    body += "<h2>Galaxies</h2>\n" + _galaxy_table(numbers)
    body += "<h2>Spaxels by ring</h2>\n" + paragraph(
        "Intervals of the draws with the noise of the data in them, correlated between spaxels as "
        "the files say. Exact posteriors cover what the column's head says. Intervals count "
        "galaxies: with a few they are wide. Bias is the median of predicted less observed, for "
        "H-alpha and the continuum in dex."
    )
    body += _zone_table(numbers)
    if numbers["pixels"]:
        body += "<h2>Pixels</h2>\n" + _pixel_table(numbers["pixels"])
    body += "<h2>Over whole galaxies</h2>\n" + paragraph(
        "Totals, gradients and means of each draw's own map test how positions vary together; "
        "spaxels cannot. Half widths are those of the 68 % interval."
    )
    body += _integral_table(galaxies, numbers)
    body += "<h2>Maps</h2>\n"
    body += "".join(_picture(each) for each in galaxies[:_SHOWN])
    body += "<h2>How this was made</h2>\n"
    body += "".join(
        f"<h3>{escape(each.maps.name)}</h3>\n" + table(("what", "value"), list(each.said.items()))
        for each in galaxies
    )
    return page(
        "Cubes held against MaNGA", body + table(("what", "value"), list(provenance.items()))
    )


def _verdict(galaxies: Sequence[ChapterGalaxy], numbers: Mapping[str, Any]) -> str:
    names = ", ".join(each.maps.name for each in galaxies[:5])
    more = f" and {len(galaxies) - 5} more" if len(galaxies) > 5 else ""
    parts = []
    for fit in ("as predicted", "level fitted"):
        told = [
            one["value"]
            for zone in numbers[fit]["zones"]
            if zone["quantity"] == "h_alpha"
            for one in zone["coverage"]
            if one["level"] == 0.9
        ]
        if told:
            parts.append(f"{min(told):.2f} to {max(told):.2f} {fit}")
    said = "; ".join(parts) or "not measured"
    return (
        f"{counted(len(galaxies))} ({names}{more}). 90 % intervals of H-alpha in spaxels cover "
        f"{said}, from ring to ring."
    )


def counted(galaxies: int) -> str:
    """One galaxy, or how many."""
    return "1 galaxy" if galaxies == 1 else f"{galaxies} galaxies"


def _galaxy_table(numbers: Mapping[str, Any]) -> str:
    rows = []
    for one in numbers["galaxies"]:
        low, middle, high = one["observed_over_predicted"]
        alpha = one["chi_square"].get("h_alpha")
        empty: list[Cell | str] = [number(np.nan)] * 2
        squares: list[Cell | str] = (
            empty
            if alpha is None
            else [number(alpha[kind] / alpha["freedom"]) for kind in ("noise_alone", "with_draws")]
        )
        rows.append(
            [
                one["name"], interval(middle, low, high),
                number(math.hypot(*one["centroid_shift_arcsec"]), ".2f"),
                number(one["correlation"]["h_alpha"], ".2f"),
                number(one["correlation"]["velocity"], ".2f"),
                number(one["correlation"]["d4000"], ".2f"), *squares,
            ]
        )  # fmt: skip
    return table(
        ("galaxy", "observed over predicted light (5 to 95 %)", "centroids apart, arcsec",
         "H-alpha maps correlate", "velocity", "D4000", "chi-square a degree of freedom, noise",
         "with the draws"),
        rows,
    )  # fmt: skip


def _covered(coverage: Sequence[Mapping[str, Any]]) -> list[Cell | str]:
    return [interval(one["value"], one["low"], one["high"], ".2f") for one in coverage]


def _zone_table(numbers: Mapping[str, Any]) -> str:
    rows = []
    for before, after in zip(
        numbers["as predicted"]["zones"], numbers["level fitted"]["zones"], strict=True
    ):
        low, high = before["zone"]
        rows.append(
            [
                before["quantity"], f"{low:g} to {high:g} R_e", number(before["spaxels"], "d"),
                *_covered(before["coverage"]), *_covered(after["coverage"]),
                number(before["bias"], "+.3g"), number(before["scatter"]),
            ]
        )  # fmt: skip
    return table(
        ("quantity", "ring", "spaxels", "50 % cover", "90 % cover", "50 %, level fitted",
         "90 %, level fitted", "bias", "scatter"),
        rows,
    )  # fmt: skip


def _pixel_table(pixels: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [f"{one['rest'][0]:.0f} to {one['rest'][1]:.0f}", *_covered(one["coverage"])]
        for one in pixels
    ]
    return table(("rest wavelength, Angstrom", "50 % cover", "90 % cover"), rows)


def _integral_table(galaxies: Sequence[ChapterGalaxy], numbers: Mapping[str, Any]) -> str:
    rows: list[list[Cell | str]] = []
    for fit in ("as predicted", "level fitted"):
        for one in numbers[fit]["integrals"]:
            covered = _covered(one["coverage"]) if one["coverage"] else ["", ""]
            for index, each in enumerate(galaxies[:_SHOWN]):
                away = one["observed"][index] - one["predicted"][index]
                width = one["half_width"][index]
                rows.append(
                    [
                        f"{one['name']} ({INTEGRALS[one['name']]})", fit, each.maps.name,
                        number(one["observed"][index]), number(one["predicted"][index]),
                        number(away / width if width > 0 else np.nan, "+.2f"), *covered,
                    ]
                )  # fmt: skip
    return table(
        ("integral", "", "galaxy", "observed", "predicted", "apart, half widths",
         "50 % cover, all galaxies", "90 % cover"),
        rows,
    )  # fmt: skip


def _picture(judged: ChapterGalaxy) -> str:
    held = BytesIO()
    chapter_figure(judged).savefig(held, format="png", dpi=110)
    said = (
        f"{judged.maps.name}: medians of the draws as they came, what was observed, and the "
        "difference with the level fitted, over the spread of the draws and the error together."
    )
    image = (
        f'<img alt="{escape(said)}" style="max-width:100%" '
        f'src="data:image/png;base64,{b64encode(held.getvalue()).decode()}">'
    )
    return f'<figure class="wide">{image}<figcaption>{escape(said)}</figcaption></figure>\n'
