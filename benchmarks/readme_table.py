"""Fill the numbers of README.md from what is under benchmarks/results.

    python benchmarks/readme_table.py

Of the main job four short tables: redshifts, spectra, everything else that has a goal, and every
goal that was missed. The rest stays in the results file. Of calibration see `calibration_table`,
of the catalogues `photoz_table`, of exact inference `inference_table`, of cubes `ifu_table`.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibration_table import calibration_table
from goals_told import goals_told
from ifu_table import ifu_table
from inference_table import inference_table
from photoz_table import photoz_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "main_job.json"
CALIBRATION = ROOT / "benchmarks" / "results" / "calibration.json"
PHOTOZ = ROOT / "benchmarks" / "results" / "photoz.json"
INFERENCE = ROOT / "benchmarks" / "results" / "inference.json"
IFU = ROOT / "benchmarks" / "results" / "ifu.json"

Figure = Mapping[str, Any]

_REDSHIFTS = {
    "images (five bands)": "image to redshift",
    "photometry (five bands)": "photometry to redshift",
    "FlexZBoost on that photometry": "photometry to redshift, FlexZBoost, default",
    "n(z) alone": "marginal n(z)",
    "a spectrum": "spectrum to redshift",
    "a quarter of a spectrum": "masked spectrum (75 %) to redshift",
    "real: BOSS spectra": "BOSS spectrum to redshift",
    "real: SDSS spectra": "SDSS spectrum to redshift",
    "real: BOSS photometry (griz)": "BOSS photometry (griz) to redshift",
    "real: HST images (two bands)": "HST images to redshift",
}
_SPECTRA = {
    "images and z": "image to spectrum",
    "a quarter of the spectrum and z": "masked spectrum (75 %) to spectrum",
    "images and z, by independent pixels": "image to spectrum, baseline_independent",
}
_FEATURE = r"(h_alpha|h_beta|o_iii|o_ii|d4000|g_minus_r)"
_KINDS = {
    "line fluxes, D4000, g - r": rf"{_FEATURE} coverage of LEVEL% intervals, all",
    "the same in thirds of S/N and colour": (
        rf"{_FEATURE} coverage of LEVEL% intervals, (S/N|g-r) .*"
    ),
    "pixels, by rest wavelength": r"pixels .* A coverage of LEVEL% intervals",
}
_TABLED = re.compile(
    r"coverage of|PIT KS distance|(h_alpha|h_beta|o_iii|o_ii|d4000|g_minus_r) CRPS over"
)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    figures: Sequence[Figure] = results["figures"]
    named = {one["name"]: one for one in figures}
    goals = [one for one in figures if one["goal"]]
    commit = str(results.get("commit", ""))[:10]
    parts = [
        *_redshifts(named),
        "",
        *_spectra(figures),
        "",
        *_others(goals),
        "",
        *goals_told(
            figures, lambda one: _number(one["value"]), lambda one: _escaped(one["name"])
        ),
        "",
        f"From `benchmarks/results/main_job.json`: `{results['command']}`, commit {commit}.",
    ]  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


def _redshifts(named: Mapping[str, Figure]) -> list[str]:
    columns = ("CRPS", "sigma_NMAD", "PIT KS distance", "coverage of 90% intervals")
    lines = [
        "| redshift from | n | CRPS | sigma_NMAD | PIT KS (99 % limit) | 90 % intervals cover |",
        "|---|---|---|---|---|---|",
    ]
    for title, job in _REDSHIFTS.items():
        found = [_of(named, f"{job}: {column}") for column in columns]
        if found[0] is None:
            continue
        cells = [_cell(one) for one in found]
        if found[2] is not None:
            limit = re.search(
                r"(?:at most |band )(0\.\d+)", f"{found[2]['goal']} {found[2]['name']}"
            )
            cells[2] += f" ({float(limit[1]):.2g})" if limit else ""
        lines.append(f"| {title} | {found[0]['n']:,} | {' | '.join(cells)} |")
    return lines


def _spectra(figures: Sequence[Figure]) -> list[str]:
    lines = [
        "| spectrum from | of what | 50 % intervals cover | 90 % intervals cover |",
        "|---|---|---|---|",
    ]
    for title, job in _SPECTRA.items():
        for kind, pattern in _KINDS.items():
            cells = []
            for level in ("50", "90"):
                named = re.compile(re.escape(f"{job}: ") + pattern.replace("LEVEL", level))
                cells.append(_range([one for one in figures if named.fullmatch(one["name"])]))
            if any(cells):
                lines.append(f"| {title} | {kind} | {' | '.join(cells)} |")
    lines += ["", "| CRPS of line fluxes, D4000, g - r from images and z, over that of | ratio |",
              "|---|---|"]  # fmt: skip
    for title, rival in (
        ("nearest neighbours", "nearest neighbours"),
        ("the deterministic autoencoder with its residual scatter", "baseline_mse"),
        ("independent pixels", "baseline_independent"),
    ):
        named = re.compile(rf"image to spectrum: {_FEATURE} CRPS over that of {rival}")
        lines.append(
            f"| {title} | {_range([one for one in figures if named.fullmatch(one['name'])])} |"
        )
    return lines


def _others(goals: Sequence[Figure]) -> list[str]:
    lines = ["| measured | value | goal |", "|---|---|---|"]
    return lines + [
        f"| {_escaped(one['name'])} | {_number(one['value'])} | {one['goal']} |"
        for one in goals
        if not _TABLED.search(one["name"])
    ]


def _of(named: Mapping[str, Figure], name: str) -> Figure | None:
    """A figure by the beginning of its name, which may go on with a limit in brackets."""
    return named.get(name) or next(
        (one for key, one in named.items() if key.startswith(f"{name} (")), None
    )


def _cell(one: Figure | None) -> str:
    return "" if one is None else _number(one["value"])


def _range(found: Sequence[Figure]) -> str:
    """Smallest and largest value of figures of one kind, and how many meet their goal."""
    if not found:
        return ""
    values = [one["value"] for one in found if one["value"] is not None]
    if not values:
        return "not measurable"
    low, high = min(values), max(values)
    said = _number(low) if low == high else f"{_number(low)} to {_number(high)}"
    asked = [one for one in found if one["goal"]]
    if asked:
        said += f" ({sum(bool(one['met']) for one in asked)} of {len(asked)} within)"
    return said


def filled(readme: str, content: str, name: str = "results") -> str:
    """The README with `content` between the markers `name`.

    Raises:
        ValueError: The markers are not there, once and in order.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if readme.count(begin) != 1 or readme.count(end) != 1:
        raise ValueError(f"Expected {begin} and {end} once each in the README; got another count.")
    before, rest = readme.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def _escaped(name: str) -> str:
    return name.replace("|", "\\|")


def _number(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.3g}"


def main() -> None:
    """Rewrite README.md."""
    if not RESULTS.is_file():
        sys.exit(f"Expected {RESULTS.relative_to(ROOT)}; found none. Run the benchmark first.")
    path = ROOT / "README.md"
    readme = filled(path.read_text(), table(json.loads(RESULTS.read_text())))
    others = {
        "calibration": (CALIBRATION, calibration_table),
        "photoz": (PHOTOZ, photoz_table),
        "inference": (INFERENCE, inference_table),
        "ifu": (IFU, ifu_table),
    }
    for name, (results, made) in others.items():
        if results.is_file():
            readme = filled(readme, made(json.loads(results.read_text())), name)
    partial = path.with_suffix(".md.partial")
    partial.write_text(readme)
    partial.replace(path)


if __name__ == "__main__":
    main()
