"""Fill the table of measured numbers in README.md from benchmarks/results/main_job.json.

    python benchmarks/readme_table.py

Shown are the figures that have a goal and the headline scores; what was measured in groups (thirds
of signal-to-noise and of colour) is counted in one row. The rest stays in the results file.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "main_job.json"
BEGIN, END = "<!-- results -->", "<!-- /results -->"

_GROUPED = re.compile(r"(S/N|g-r) ")
_HEADLINE = re.compile(r" to redshift: (CRPS|sigma_NMAD|outlier fraction)$|^latent: ")


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    figures: Sequence[dict[str, Any]] = results["figures"]
    single = [one for one in figures if not _GROUPED.search(one["name"])]
    grouped = [one for one in figures if _GROUPED.search(one["name"]) and one["goal"]]
    lines = ["| measured | value | 95 % interval | n | goal | met |", "|---|---|---|---|---|---|"]
    lines += [_line(one) for one in single if one["goal"] or _HEADLINE.search(one["name"])]
    if grouped:
        met = sum(bool(one["met"]) for one in grouped)
        lines.append(
            f"| coverage in thirds of S/N and of colour, goals met | {met} of {len(grouped)} "
            f"| | | all | {'yes' if met == len(grouped) else 'no'} |"
        )
    commit = str(results.get("commit", ""))[:10]
    said = f"From `benchmarks/results/main_job.json`: `{results['command']}`, commit {commit}."
    return "\n".join([*lines, "", said])


def filled(readme: str, content: str) -> str:
    """The README with `content` between its markers.

    Raises:
        ValueError: The markers are not there, once and in order.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"Expected {BEGIN} and {END} once each in the README; got another count.")
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def _line(one: dict[str, Any]) -> str:
    interval = one["interval"]
    cells = [
        one["name"].replace("|", "\\|"),
        _number(one["value"]),
        "" if interval is None else f"{_number(interval[0])} to {_number(interval[1])}",
        "" if one["n"] is None else f"{one['n']:,}",
        one["goal"] or "",
        "" if one["met"] is None else ("yes" if one["met"] else "**no**"),
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.3g}"


def main() -> None:
    """Rewrite README.md."""
    if not RESULTS.is_file():
        sys.exit(f"Expected {RESULTS.relative_to(ROOT)}; found none. Run the benchmark first.")
    path = ROOT / "README.md"
    results = json.loads(RESULTS.read_text())
    partial = path.with_suffix(".md.partial")
    partial.write_text(filled(path.read_text(), table(results)))
    partial.replace(path)


if __name__ == "__main__":
    main()
