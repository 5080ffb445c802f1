"""The tables of one job on the page of a report, before and after repair beside each other.

From a `JobReport` to the tables of `page.py`. Where the sides need more than a column each, they
are rows.
"""

from collections.abc import Iterator, Sequence

from probmmae.calibration.coverage import Coverage
from probmmae.calibration.judgement import CONFIDENCE, Judgement
from probmmae.calibration.page import (
    Cell,
    interval,
    number,
    p_value,
    paragraph,
    percent,
    table,
    verdict_cell,
)
from probmmae.calibration.pit import PitDistance, PitResult
from probmmae.calibration.report import JobReport
from probmmae.calibration.report_figures import judged, whens
from probmmae.calibration.scores import Score
from probmmae.calibration.tomography import TomographicBin
from probmmae.calibration.verdict import cells

_WORST = 15
"""Bins in the table of the worst."""
_SPARE = ("quantity", "when", "interval")
"""Columns that are left out where they say the same of everything."""


def checks(job: JobReport) -> str:
    """Every test that enters the verdict."""
    said = "<h3>Tests</h3>\n" + paragraph(
        f"Each asks whether exact posteriors could have done this. p-values hold for all tests of "
        f"this job together (Holm): exact posteriors fail any of them with a probability of "
        f"{100 * (1 - CONFIDENCE):.0f} %."
    )
    columns = ["quantity", "what was tested", "p alone", "p together", "result"]
    columns += ["p together, repaired", "repaired"] if job.after is not None else []
    rows = []
    for index, check in enumerate(job.before.checks):
        row = [
            Cell(check.of), Cell(check.question), p_value(check.p_value),
            p_value(check.adjusted), verdict_cell(passed=check.passed),
        ]  # fmt: skip
        if job.after is not None:
            later = job.after.checks[index]
            row += [p_value(later.adjusted), verdict_cell(passed=later.passed)]
        rows.append(row)
    return said + table(columns, rows, spare=_SPARE)


def repair(job: JobReport) -> str:
    """What was fitted."""
    if not job.fits:
        return ""
    said = "<h3>Repair</h3>\n" + paragraph(job.source)
    return said + table(("quantity", "what is done"), list(job.fits.items()))


def distances(job: JobReport) -> str:
    """Kolmogorov-Smirnov, Cramér-von Mises and Anderson-Darling distances of the PIT."""
    if not job.before.scalars:
        return ""
    rows = []
    for index, _ in enumerate(job.before.scalars):
        for side, when in _sides(job):
            one = side.scalars[index]
            ks = one.evidence.pit
            found = [_distance(ks, ks.distance), *(_distance(d, d.value) for d in one.distances)]
            found.insert(1, number(ks.limit, ".4f"))
            rows.append([Cell(one.name), Cell(when), number(ks.n, ",d"), *found,
                         number(100 * ks.edge_fraction, ".2g")])  # fmt: skip
    columns = ["quantity", "when", "galaxies", "Kolmogorov\u2013Smirnov", "99 % limit of it",
               "Cram\u00e9r\u2013von Mises", "Anderson\u2013Darling",
               "truths outside, %"]  # fmt: skip
    return (
        "<h3>Distances of the PIT from the uniform law</h3>\n"
        + paragraph(
            "Each with its own p-value, uncorrected; red below 1 %. Outside: truths where the "
            "posterior gives no probability at all."
        )
        + table(columns, rows, spare=_SPARE)
    )


def _distance(of: PitResult | PitDistance, value: float) -> Cell:
    p = p_value(of.p_value)
    said = f"p {p.text}" if p.text.startswith("<") else f"p = {p.text}"
    return Cell(f"{value:.4g}", value, "" if of.passed else "bad", said)


def coverage(job: JobReport) -> str:
    """Every coverage with its interval, a column a level."""
    rows = []
    sides = [(dict(_coverages(side)), when) for side, when in _sides(job)]
    for key in sides[0][0]:
        for found, when in sides:
            results = found[key]
            shown = [_coverage_cell(one) for one in results]
            rows.append([Cell(key[0]), Cell(key[1]), Cell(when), number(results[0].n, ",d"),
                         *shown])  # fmt: skip
    levels = [one.level for one in next(iter(sides[0][0].values()))]
    columns = ["quantity", "interval", "when", "galaxies",
               *(f"claims {100 * level:.0f} %" for level in levels)]  # fmt: skip
    return (
        "<h3>Coverage</h3>\n"
        + paragraph(
            "Per cent of the truths in intervals, with the 95 % credible interval of that share; "
            "red where the claim is off with p below 0.001, uncorrected."
        )
        + table(columns, rows, spare=_SPARE)
    )


def _coverages(side: Judgement) -> Iterator[tuple[tuple[str, str], Sequence[Coverage]]]:
    for one in side.scalars:
        central = [found for found in one.evidence.coverage if found.group == "all"]
        yield (one.name, "central"), central
        if one.hpd:
            yield (one.name, "highest density"), one.hpd
    if side.vectors is not None:
        for band in side.vectors.bands:
            yield (f"pixels {band.low:.0f} to {band.high:.0f} \u00c5", "central"), band.coverage


def _coverage_cell(one: Coverage) -> Cell:
    kind = "bad" if one.p_value < 0.001 else ""
    return interval(100 * one.value, 100 * one.low, 100 * one.high, ".1f", kind=kind)


def scores(job: JobReport) -> str:
    """Proper scores, sizes of errors and statistics of point redshifts."""
    sides = [dict(_scores(side)) for side in judged(job)]
    rows = [
        [Cell(key[0]), Cell(key[1]), *(_score_cell(side[key]) for side in sides)]
        for key in sides[0]
    ]  # fmt: skip
    columns = ["quantity", "figure", "before repair", "after repair"]
    columns = columns[:2] + (columns[2:] if len(sides) > 1 else ["value"])
    return (
        "<h3>Scores and sizes of errors</h3>\n"
        + paragraph(
            "With 95 % intervals; lower is better of CRPS, log score, CDE loss, Brier, energy and "
            "variogram scores. Those \u201cless expected\u201d are 0 for exact posteriors, above "
            "it for too narrow ones. Shift: truth less posterior mean, in posterior standard "
            "deviations. Width error: -0.1 is 10 % too narrow (both: 99 %)."
        )
        + table(columns, rows, spare=_SPARE)
    )


def _score_cell(one: Score) -> Cell:
    return interval(one.value, one.low, one.high)


_NAMES = {
    "NLL": "log score, -ln p(truth)",
    "shift, sigma": "shift, \u03c3",
    "sigma_NMAD": "\u03c3 NMAD of the median",
    "bias": "bias of the median",
    "Brier score": "Brier score, bins of 0.05",
    "energy score - expected": "energy score, less expected",
    "variogram score - expected": "variogram score, less expected",
}


def _scores(side: Judgement) -> Iterator[tuple[tuple[str, str], Score]]:
    for one in side.scalars:
        found = [*one.evidence.scores, *one.points]
        found += [] if one.brier is None else [one.brier]
        for score in (*found, one.departure.shift, one.departure.width):
            yield (one.name, _NAMES.get(score.name, score.name)), score
    vectors = side.vectors
    if vectors is not None:
        found = [vectors.energy.score, vectors.energy.excess]
        if vectors.variogram is not None:
            found += [vectors.variogram.score, vectors.variogram.excess]
        for score in (*found, vectors.departure.shift, vectors.departure.width):
            yield (vectors.name, _NAMES.get(score.name, score.name)), score


def tomographic_bins(job: JobReport) -> str:
    """Bias of the mean redshift of each bin against the requirement."""
    rows, requirement = [], 0.0
    for side, when in _sides(job):
        for one in side.scalars:
            if one.tomography is None:
                continue
            requirement = one.tomography.requirement
            rows += [
                [
                    Cell(when), Cell(f"{part.low:.3f} to {part.high:.3f}", part.low),
                    number(part.bias.n, ",d"), number(part.mean_true, ".4f"),
                    interval(part.bias.value, part.bias.low, part.bias.high, "+.4f"),
                    p_value(part.adjusted), _requirement(part, requirement),
                ]
                for part in one.tomography.bins
            ]  # fmt: skip
    if not rows:
        return ""
    columns = ["when", "bin of the median", "galaxies", "mean true z", "bias / (1 + z)",
               "p together", "requirement"]  # fmt: skip
    return (
        "<h3>Mean redshifts of tomographic bins</h3>\n"
        + paragraph(
            f"DESC asks for a bias of less than {requirement:g} (1 + z). It is met, or missed, "
            "where the whole 99 % interval says so; else the sample is too small to tell."
        )
        + table(columns, rows, spare=_SPARE)
    )


def _requirement(part: TomographicBin, limit: float) -> Cell:
    low, high = part.bias.low, part.bias.high
    if -limit <= low and high <= limit:
        return Cell("met", 2.0, "good")
    if low > limit or high < -limit:
        return Cell("missed", 0.0, "bad")
    return Cell("too few to tell", 1.0)


def worst_bins(job: JobReport) -> str:
    """The bins that are least likely under exact posteriors."""
    found = sorted(cells(job.before), key=lambda pair: pair[1].p_value)
    if not found:
        return ""
    later = {} if job.after is None else {
        (name, cell.condition, cell.label): cell for name, cell in cells(job.after)
    }  # fmt: skip
    columns = ["quantity", "condition", "bin", "galaxies", "shift, \u03c3", "width error, %",
               "90 % intervals hold, %", "p together"]  # fmt: skip
    columns += ["repaired: width error, %", "hold, %", "p"] if later else []
    rows = []
    for name, cell in found[:_WORST]:
        row = [
            Cell(name), Cell(cell.condition), Cell(cell.label),
            number(cell.departure.n, ",d"), number(cell.departure.shift.value, "+.2f"),
            percent(cell.departure.width.value), number(100 * cell.coverage.value, ".1f"),
            p_value(cell.adjusted, kind=_alarm(cell.adjusted)),
        ]  # fmt: skip
        if later:
            after = later[name, cell.condition, cell.label]
            row += [
                percent(after.departure.width.value), number(100 * after.coverage.value, ".1f"),
                p_value(after.adjusted, kind=_alarm(after.adjusted)),
            ]  # fmt: skip
        rows.append(row)
    which = f"The {_WORST} least likely of {len(found)}" if len(found) > _WORST else "All"
    return paragraph(
        f"{which} bins, the least likely first; p-values hold for all bins of a quantity "
        "together. All bins are in the JSON file."
    ) + table(columns, rows, spare=_SPARE)


def _alarm(adjusted: float) -> str:
    return "bad" if adjusted <= 1 - CONFIDENCE else ""


def learned(job: JobReport) -> str:
    """Where a regression on what was observed finds posteriors too narrow or too wide."""
    rows = [
        [
            Cell(when), p_value(one.local.p_value),
            _coverage_cell(one.local.narrowest), _coverage_cell(one.local.widest),
        ]
        for side, when in _sides(job)
        for one in side.scalars
        if one.local is not None
    ]  # fmt: skip
    if not rows:
        return ""
    columns = ["when", "p", "90 % intervals hold, where too narrow, %",
               "where too wide, %"]  # fmt: skip
    return (
        "<h3>Learned from what was observed</h3>\n"
        + paragraph(
            "A regression of the PIT on all conditions at once finds what no bin shows. Coverage "
            "is that of the tenth of the galaxies predicted, from other galaxies, to have the "
            "narrowest posteriors for their errors, and of the tenth with the widest."
        )
        + table(columns, rows, spare=_SPARE)
    )


def conformal(job: JobReport) -> str:
    """What conformal intervals would make of it."""
    sides = [({one.name: one for one in side.conformal}, when) for side, when in _sides(job)]
    rows = [
        [
            Cell(name), Cell("band, all at once" if found[name].whole else "interval"), Cell(when),
            number(found[name].own.n, ",d"), _coverage_cell(found[name].own),
            _coverage_cell(found[name].conformal), number(found[name].stretch, ".3f"),
        ]
        for name in sides[0][0]
        for found, when in sides
        if name in found
    ]  # fmt: skip
    if not rows:
        return ""
    columns = ["quantity", "what", "when", "galaxies", "posterior\u2019s own 90 % hold, %",
               "conformal 90 % hold, %", "width over own"]  # fmt: skip
    whole = any(one.whole for one in job.before.conformal)
    said = (
        "Conformal intervals stretch the posterior\u2019s own until they hold 90 % of the truths, "
        "whatever the posterior: a guarantee on average over galaxies like these, not for each "
        "kind of them. Each half of the galaxies is judged by thresholds from the other."
    )
    said += (
        " A band holds all quantities of a vector at once; the posterior\u2019s own is made of "
        "intervals that each claim 90 %." if whole else ""
    )  # fmt: skip
    return "<h3>Conformal intervals</h3>\n" + paragraph(said) + table(columns, rows, spare=_SPARE)


def detectable(job: JobReport) -> str:
    """The smallest miscalibration that this sample could have shown."""
    if not job.before.scalars:
        return ""
    rows = [
        [
            Cell(one.name), number(one.detectable.n, ",d"),
            percent(one.detectable.narrow), percent(one.detectable.wide),
            number(one.detectable.shift, ".2f"),
            number(100 * one.detectable.coverage_below, ".1f"),
            number(100 * one.detectable.coverage_above, ".1f"),
        ]
        for one in job.before.scalars
    ]  # fmt: skip
    columns = ("quantity", "galaxies", "too narrow, %", "too wide, %", "shifted, \u03c3",
               "90 % intervals hold at most, %", "or at least, %")  # fmt: skip
    return (
        "<h3>What this sample could have shown</h3>\n"
        + paragraph(
            "The smallest errors that a sample of this size finds nine times in ten. A pass says "
            "that nothing larger is likely to be there, and no more."
        )
        + table(columns, rows, spare=_SPARE)
    )


def _sides(job: JobReport) -> list[tuple[Judgement, str]]:
    sides = judged(job)
    return list(zip(sides, whens(sides), strict=True))
