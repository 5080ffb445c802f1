"""What stands on the page of a report: verdicts, then evidence by job, then what made it.

From a `Report` to one HTML file, with the parts of `page.py` and the figures of `plots.py`, and
one of JSON beside it.
"""

import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from probmmae.calibration.cell_map import CellMap
from probmmae.calibration.coverage import Coverage
from probmmae.calibration.judgement import CONFIDENCE, Judgement, ScalarEvidence, VectorEvidence
from probmmae.calibration.page import (
    Cell,
    figure,
    figures,
    interval,
    number,
    page,
    paragraph,
    percent,
    table,
    verdict_cell,
)
from probmmae.calibration.plots import (
    Draw,
    coverage_curve,
    coverage_rows,
    pit_histogram,
    svg,
    svgs,
)
from probmmae.calibration.report import JobReport, Report
from probmmae.calibration.scores import Score
from probmmae.calibration.verdict import cells
from probmmae.inference.growing import whole_file

_WORST = 15
"""Bins in the table of the worst."""


def html(report: Report) -> str:
    """The file as text."""
    links = "".join(f'<a href="#{job.name}">{job.name}</a>' for job in report.jobs)
    body = f"<h1>{escape(report.title)}</h1>\n"
    body += "".join(_verdicts(job) for job in report.jobs)
    body += f'<nav>{links}<a href="#made">how it was made</a></nav>\n'
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


def _verdicts(job: JobReport) -> str:
    judged = [one for one in (job.before, job.after) if one is not None]
    parts = []
    for one, sentence in zip(judged, job.sentences, strict=True):
        name, _, rest = sentence.partition(": ")
        kind = "verdict" if one.passed else "verdict bad"
        parts.append(f'<p class="{kind}"><strong>{escape(name)}:</strong> {escape(rest)}</p>\n')
    return "".join(parts)


def _job(job: JobReport) -> str:
    said = f'<h2 id="{job.name}">{escape(job.name.capitalize())}</h2>\n'
    said += _checks(job)
    if job.fits:
        said += "<h3>Repair</h3>\n"
        said += paragraph(job.source)
        said += table(("quantity", "repair"), list(job.fits.items()))
    one_number = len(job.before.scalars) == 1
    for index, scalar in enumerate(job.before.scalars if one_number else ()):
        said += _scalar_figures(scalar, None if job.after is None else job.after.scalars[index])
    if not one_number:
        said += _feature_figures(job)
    if job.before.vectors is not None:
        said += _vector_figures(job.before.vectors, None if job.after is None else
                                job.after.vectors)  # fmt: skip
    return said + _coverage(job) + _scores(job) + _worst_bins(job) + _detectable(job.before)


def _checks(job: JobReport) -> str:
    said = "<h3>Tests</h3>\n" + paragraph(
        f"p-values hold for all tests of this job together (Holm): exact posteriors fail any of "
        f"them with a probability of {100 * (1 - CONFIDENCE):.0f} %."
    )
    columns = ["quantity", "what was asked", "p alone", "p together", "result"]
    after = job.after
    if after is not None:
        columns += ["p together, repaired", "repaired"]
    rows = []
    for index, check in enumerate(job.before.checks):
        row = [
            Cell(check.of), Cell(check.question), number(check.p_value, ".2g"),
            number(check.adjusted, ".2g"), verdict_cell(passed=check.passed),
        ]  # fmt: skip
        if after is not None:
            later = after.checks[index]
            row += [number(later.adjusted, ".2g"), verdict_cell(passed=later.passed)]
        rows.append(row)
    return said + table(columns, rows)


def _scalar_figures(before: ScalarEvidence, after: ScalarEvidence | None) -> str:
    both = [before] if after is None else [before, after]
    name = before.name
    parts = _compared(
        [pit_histogram(one.evidence.pit_values) for one in both], f"{name}, PIT",
        "PIT. Band: 99 % of exact bins. A bowl says too narrow, a hump too wide, a slope shifted.",
    )  # fmt: skip
    parts += _compared(
        [one.ranks.plot for one in both], f"{name}, ECDF",
        "Distribution of the PIT less the uniform one. Exact posteriors stay in the band with "
        "99 %.",
    )  # fmt: skip
    overall = [
        [result for result in one.evidence.coverage if result.group == "all"] for one in both
    ]
    parts += _compared(
        [coverage_curve(results) for results in overall], f"{name}, coverage",
        "Coverage of central intervals, with 95 % intervals.",
    )  # fmt: skip
    if before.tomography is not None:
        parts += _compared(
            [one.tomography.plot for one in both if one.tomography is not None],
            f"{name}, tomographic bins",
            "Bias of the mean redshift in bins of the median. Band: 0.002 (1 + z), what weak "
            "lensing of LSST's first year requires.",
        )
    said = "<h3>Evidence</h3>\n" + figures(parts, pairs=after is not None)
    if before.conditional is not None:
        drawn = _compared(
            [one.conditional.plot for one in both if one.conditional is not None],
            f"{name}, bins", "Width error by bin; red where a bin fails.",
            size=(6.0, 0.8 + 0.19 * len(before.conditional.cells)), wide=True,
        )  # fmt: skip
        said += figures(drawn)
    maps = [one.cells for one in both if one.cells is not None]
    return said + "".join(_map(one, when) for one, when in zip(maps, _whens(maps), strict=True))


def _whens(of: Sequence[object]) -> tuple[str, ...]:
    return ("",) if len(of) == 1 else ("before repair", "after repair")[: len(of)]


def _compared(
    draws: Sequence[Draw],
    name: str,
    caption: str,
    *,
    size: tuple[float, float] = (4.0, 2.7),
    wide: bool = False,
) -> list[str]:
    """The same figure before and, if there is one, after repair."""
    whens = _whens(draws)
    drawn = svgs(draws, names=[f"{name} {when}".strip() for when in whens], size=size)
    said = [f"{when.capitalize()}. {caption}" if when else caption for when in whens]
    return [figure(one, words, wide=wide) for one, words in zip(drawn, said, strict=True)]


def _map(cells_: CellMap, when: str) -> str:
    """Width error in the cells of two conditions: deeper is worse, framed is significant."""
    by_label = {cell.label: cell for cell in cells_.result.cells}
    first, second = cells_.names
    when = f" {when}" if when else ""
    said = paragraph(
        f"Width error by {first} (down) and {second} (across){when}, in per cent; framed where a "
        "cell fails."
    )
    heads = "".join(f'<th scope="col">{escape(column)}</th>' for column in cells_.columns)
    body = ""
    for row in cells_.rows:
        body += f'<tr><th scope="row">{escape(row)}</th>'
        for column in cells_.columns:
            cell = by_label.get(f"{row} | {column}")
            if cell is None:
                body += "<td>\u2013</td>"
                continue
            width = cell.departure.width.value
            shade = min(60, round(200 * abs(width)))
            colour = "--bad" if width < 0 else "--before"
            kind = ' class="bad"' if cell.adjusted <= 1 - CONFIDENCE else ""
            body += (
                f'<td{kind} style="background: color-mix(in srgb, var({colour}) {shade}%, '
                f'transparent)">{100 * width:+.0f}</td>'
            )
        body += "</tr>"
    return (
        f'{said}<div class="scroll"><table class="map"><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def _feature_figures(job: JobReport) -> str:
    before = job.before.scalars
    after = () if job.after is None else job.after.scalars
    if not before:
        return ""
    rows = coverage_rows(
        [one.name for one in before],
        [one.evidence.at(0.9) for one in before],
        [one.evidence.at(0.9) for one in after],
    )
    drawn = svg(rows, name="coverage of features", size=(6.0, 1.2 + 0.32 * len(before)))
    said = "<h3>Features</h3>\n"
    said += figures([figure(drawn, "90 % intervals of every feature, with 95 % intervals.",
                            wide=True)])  # fmt: skip
    parts = []
    for index, one in enumerate(before):
        both = [one, *after[index : index + 1]]
        parts += _compared(
            [each.ranks.plot for each in both], f"{one.name}, ECDF",
            f"{one.name}: distribution of the PIT less the uniform one.", size=(4.0, 2.3),
        )  # fmt: skip
    return said + figures(parts, pairs=bool(after))


def _vector_figures(before: VectorEvidence, after: VectorEvidence | None) -> str:
    both = [before] if after is None else [before, after]
    said = f"<h3>{escape(before.name.capitalize())}</h3>\n"
    said += paragraph(
        f"Vectors of {before.quantities} quantities: what they do together, which no quantity "
        "alone can show."
    )
    parts = _compared(
        [one.tarp.plot for one in both], f"{before.name}, TARP",
        "Expected coverage of balls around random points. On the diagonal if exact.",
    )  # fmt: skip
    tests = [one.classifier for one in both if one.classifier is not None]
    if tests:
        shares = " and ".join(
            f"{100 * one.accuracy.value:.1f} % ({100 * one.accuracy.low:.1f} to "
            f"{100 * one.accuracy.high:.1f})"
            for one in tests
        )
        parts += _compared(
            [one.plot for one in tests], f"{before.name}, classifier",
            "Margin of a classifier that tells truths from draws, against exchanges at random. "
            f"It knows {shares} of the truths{', before and after' if after else ''}.",
        )  # fmt: skip
    said += figures(parts, pairs=after is not None)
    if before.bands:
        names = [f"{band.low:.0f}\u2013{band.high:.0f} \u00c5" for band in before.bands]
        rows = coverage_rows(
            names,
            [_of_band(band.coverage) for band in before.bands],
            [] if after is None else [_of_band(band.coverage) for band in after.bands],
        )
        drawn = svg(rows, name="coverage of pixels", size=(6.0, 1.2 + 0.32 * len(names)))
        said += figures([figure(drawn, "90 % intervals of pixels by rest wavelength; the error "
                                "bars count galaxies, not pixels.", wide=True)])  # fmt: skip
    return said


def _of_band(results: tuple[Coverage, ...]) -> Coverage:
    return next(one for one in results if one.level == 0.9)


def _coverage(job: JobReport) -> str:
    """Every coverage, with its interval, before and after."""
    before, after = list(_coverages(job.before)), dict(_coverages(job.after))
    columns = ["quantity", "interval", "nominal, %", "galaxies", "observed, %"]
    columns += ["after repair, %"] if after else []
    rows = []
    for key, one in before:
        row = [
            Cell(key[0]), Cell(key[1]), number(100 * one.level, ".0f"),
            number(one.n, ",d"), _coverage_cell(one),
        ]  # fmt: skip
        rows.append([*row, _coverage_cell(after[key])] if after else row)
    return (
        "<h3>Coverage</h3>\n"
        + paragraph(
            "With the 95 % interval of the true coverage; red where the nominal one is outside "
            "even at 99.9 %, as one in a thousand would be by chance."
        )
        + table(columns, rows)
    )


def _coverages(
    judgement: Judgement | None,
) -> Iterator[tuple[tuple[str, str, float], Coverage]]:
    if judgement is None:
        return
    for one in judgement.scalars:
        for kind, results in (("central", one.evidence.coverage), ("highest density", one.hpd)):
            for result in results:
                yield (one.name, kind, result.level), result
    if judgement.vectors is not None:
        for band in judgement.vectors.bands:
            for result in band.coverage:
                yield (f"pixels {result.group}", "central", result.level), result


def _coverage_cell(one: Coverage) -> Cell:
    kind = "bad" if one.p_value < 0.001 else ""
    return interval(100 * one.value, 100 * one.low, 100 * one.high, ".1f", kind=kind)


def _scores(job: JobReport) -> str:
    before, after = list(_all_scores(job.before)), dict(_all_scores(job.after))
    rows = [
        [Cell(of), Cell(what), interval(one.value, one.low, one.high, ".3g")]
        + ([interval(after[of, what].value, after[of, what].low, after[of, what].high, ".3g")]
           if after else [])
        for (of, what), one in before
    ]  # fmt: skip
    columns = ["quantity", "figure", "value (interval)"]
    columns += ["after repair"] if after else []
    return (
        "<h3>Scores and sizes of errors</h3>\n"
        + paragraph(
            "CRPS, NLL, CDE loss, energy and variogram scores: lower is better. Shift is truth "
            "less mean in posterior standard deviations; width error is -0.1 for 10 % too narrow."
        )
        + table(columns, rows)
    )


def _all_scores(judgement: Judgement | None) -> Iterator[tuple[tuple[str, str], Score]]:
    if judgement is None:
        return
    for one in judgement.scalars:
        for score in (*one.evidence.scores, *one.points, one.departure.shift, one.departure.width):
            yield (one.name, score.name), score
    vectors = judgement.vectors
    if vectors is not None:
        found = [vectors.energy.score, vectors.energy.excess, vectors.departure.shift,
                 vectors.departure.width]  # fmt: skip
        if vectors.variogram is not None:
            found[2:2] = [vectors.variogram.score, vectors.variogram.excess]
        for score in found:
            yield (vectors.name, score.name), score


def _worst_bins(job: JobReport) -> str:
    """The bins that are least likely under exact posteriors."""
    found = sorted(cells(job.before), key=lambda pair: pair[1].p_value)
    if not found:
        return ""
    later = {} if job.after is None else {
        (name, cell.condition, cell.label): cell for name, cell in cells(job.after)
    }  # fmt: skip
    columns = ["quantity", "condition", "bin", "galaxies", "shift, \u03c3", "width error, %",
               "90 % coverage, %", "p together"]  # fmt: skip
    columns += ["after: width error, %", "after: p together"] if later else []
    rows = []
    for name, cell in found[:_WORST]:
        kind = "bad" if cell.adjusted <= 1 - CONFIDENCE else ""
        row = [
            Cell(name), Cell(cell.condition), Cell(cell.label),
            number(cell.departure.n, ",d"), number(cell.departure.shift.value, "+.2f"),
            percent(cell.departure.width.value), number(100 * cell.coverage.value, ".1f"),
            number(cell.adjusted, ".2g", kind=kind),
        ]  # fmt: skip
        if later:
            after = later[name, cell.condition, cell.label]
            kind = "bad" if after.adjusted <= 1 - CONFIDENCE else ""
            row += [percent(after.departure.width.value), number(after.adjusted, ".2g", kind=kind)]
        rows.append(row)
    return (
        "<h3>Worst bins</h3>\n"
        + paragraph(
            f"The {len(rows)} least likely of {len(found)} bins of what was observed; p-values "
            "hold for all bins of a quantity together. All of them are in the JSON file."
        )
        + table(columns, rows)
    )


def _detectable(judgement: Judgement) -> str:
    if not judgement.scalars:
        return ""
    rows = [
        [
            Cell(one.name), number(one.detectable.n, ",d"),
            percent(one.detectable.narrow), percent(one.detectable.wide),
            number(one.detectable.shift, ".2f"),
            number(100 * one.detectable.coverage_below, ".1f"),
            number(100 * one.detectable.coverage_above, ".1f"),
        ]
        for one in judgement.scalars
    ]  # fmt: skip
    columns = ("quantity", "galaxies", "too narrow by, %", "too wide by, %", "shifted by, \u03c3",
               "90 % interval at most, %", "90 % interval at least, %")  # fmt: skip
    return (
        "<h3>What this sample could have shown</h3>\n"
        + paragraph(
            "The smallest errors that a sample of this size finds nine times in ten. A pass says "
            "that nothing larger is likely to be there, and no more."
        )
        + table(columns, rows)
    )
