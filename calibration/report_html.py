"""What stands on the page of a report: verdicts, then evidence by job, then what made it.

From a `Report` to one HTML file, with the figures of `report_figures.py` and the tables of
`report_tables.py`, and one of JSON beside it.
"""

import json
from html import escape
from pathlib import Path

from probmmae.calibration import report_figures, report_tables
from probmmae.calibration.page import page, table
from probmmae.calibration.report import JobReport, Report
from probmmae.inference.growing import whole_file

_ABOVE = ("archive", "model", "dataset", "made")
"""What made the report in short, under its title."""


def html(report: Report) -> str:
    """The file as text."""
    found = [report.provenance[name] for name in _ABOVE if name in report.provenance]
    made = [said.partition(", SHA-256")[0] for said in found]
    links = "".join(
        f'<a href="#{job.name}">{escape(job.name.capitalize())}</a>' for job in report.jobs
    )
    body = f"<h1>{escape(report.title)}</h1>\n"
    body += f'<p class="made">{escape("; ".join(made))}</p>\n' if made else ""
    body += "".join(_verdict(job) for job in report.jobs)
    body += f'<nav>{links}<a href="#made">How this was made</a></nav>\n'
    body += "".join(_job(job) for job in report.jobs)
    body += '<h2 id="made">How this was made</h2>\n'
    rows = [(name, value) for name, value in report.provenance.items()]
    return page(report.title, body + (table(("what", "value"), rows) if rows else ""))


def write_report(report: Report, path: Path) -> Path:
    """Write the HTML file and, beside it, the JSON file; each whole or not at all.

    Args:
        report: What to write.
        path: Of the HTML file.

    Returns:
        The path of the JSON file.

    Raises:
        FileNotFoundError: The folder is not there.
        IsADirectoryError: The path is a folder.
        ValueError: The path ends in .json, where the other file goes.
    """
    beside = path.with_suffix(".json")
    if beside == path:
        raise ValueError(f"Expected a path for HTML; got {path}. Name it report.html.")
    text = html(report)
    with whole_file(beside) as partial:
        partial.write_text(json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n")
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return beside


def _verdict(job: JobReport) -> str:
    """One sentence on the job, and what stands behind it before and after repair."""
    sides = report_figures.judged(job)
    names = ("As the model answers", "After repair") if len(sides) > 1 else ("In detail",)
    parts = []
    for name, one, sentence in zip(names, sides, job.sentences, strict=True):
        said = sentence.partition(": ")[2]
        kind = "" if one.passed else ' class="bad"'
        parts.append(f"<p><strong{kind}>{name}:</strong> {escape(said)}</p>")
    kind = "verdict" if sides[-1].passed else "verdict bad"
    return (
        f'<section class="{kind}"><p class="headline">{escape(job.headline)}</p>'
        f'<div class="sides">{"".join(parts)}</div></section>\n'
    )


def _job(job: JobReport) -> str:
    figures, tables = report_figures, report_tables
    said = f'<h2 id="{job.name}">{escape(job.name.capitalize())}</h2>\n'
    said += tables.checks(job) + tables.repair(job)
    vectors, several = job.before.vectors, len(job.before.scalars) > 1
    if several:
        said += "<h3>Features</h3>\n" + figures.feature_figures(job)
    elif job.before.scalars:
        said += "<h3>Truths in their posteriors</h3>\n" + figures.scalar_figures(job)
    if vectors is not None:
        said += f"<h3>{escape(vectors.name.capitalize())}: {vectors.quantities} quantities "
        said += "together</h3>\n" + figures.vector_figures(job)
    said += tables.distances(job) + tables.coverage(job)
    said += "<h3>By bins of what was observed</h3>\n"
    said += figures.bin_figures(job) + tables.worst_bins(job)
    said += tables.learned(job) + tables.tomographic_bins(job) + tables.scores(job)
    return said + tables.conformal(job) + tables.detectable(job)
