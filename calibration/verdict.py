"""The verdict on a job, in a sentence or two that say how large, how sure, and what was testable.

From a `Judgement` to words, for the top of a report.
"""

from probmmae.calibration.conditional import Cell
from probmmae.calibration.departure import Departure
from probmmae.calibration.judgement import CONFIDENCE, Judgement


def verdict(name: str, judgement: Judgement) -> str:
    """One to three sentences on a job.

    Args:
        name: What was asked, such as "redshift".
        judgement: Its evidence.
    """
    said = _calibrated(judgement) if judgement.passed else _miscalibrated(judgement)
    return f"{name.capitalize()}: {said}"


def headline(name: str, before: Judgement, after: Judgement | None) -> str:
    """The whole verdict on a job in one sentence.

    Args:
        name: What was asked, such as "redshift".
        before: Its evidence as the model answers.
        after: And after repair; None without.
    """
    wrong = f"miscalibrated{_how_far(before)}"
    if after is None:
        said = "no sign of miscalibration" if before.passed else wrong
    elif before.passed:
        said = (
            "no sign of miscalibration, with or without repair" if after.passed
            else "no sign of miscalibration, unless it is repaired"
        )  # fmt: skip
    elif after.passed:
        said = f"{wrong}; after repair no sign of it is left"
    else:
        failed = sum(not check.passed for check in after.checks)
        said = f"{wrong}; after repair {failed} of {len(after.checks)} tests still fail"
    return f"{name.capitalize()}: {said}."


def _how_far(judgement: Judgement) -> str:
    """How far off the one number of a job is, or how many tests of several fail."""
    words = ""
    if len(judgement.scalars) == 1 and judgement.vectors is None:
        words = departure_in_words(judgement.scalars[0].departure)
    failed = sum(not check.passed for check in judgement.checks)
    return f", {words}" if words else f" ({failed} of {len(judgement.checks)} tests fail)"


def departure_in_words(departure: Departure) -> str:
    """Width error and shift, where their intervals leave zero out; "" where neither does.

    Example:
        >>> from probmmae.calibration.scores import Score
        >>> shift = Score("shift, sigma", 0.01, -0.05, 0.07, 2000, 0.99)
        >>> width = Score("width error", -0.1, -0.15, -0.05, 2000, 0.99)
        >>> departure_in_words(Departure(shift, width, 1e-6, 2000, 0.99))
        '10 % too narrow (5 to 15 %)'
    """
    parts = []
    width, shift = departure.width, departure.shift
    if not width.low <= 0 <= width.high:
        sense = "narrow" if width.value < 0 else "wide"
        ends = sorted(abs(100 * end) for end in (width.low, width.high))
        parts.append(f"{abs(width.value):.0%} too {sense} ({ends[0]:.0f} to {ends[1]:.0f} %)")
    if not shift.low <= 0 <= shift.high:
        sense = "low" if shift.value > 0 else "high"
        ends = sorted(abs(end) for end in (shift.low, shift.high))
        parts.append(f"{abs(shift.value):.2f} \u03c3 too {sense} ({ends[0]:.2f} to {ends[1]:.2f})")
    return " and ".join(parts).replace("%", " %").replace("  %", " %")


def worst_cell(judgement: Judgement) -> tuple[str, Cell] | None:
    """The least likely bin that fails after correction, and of what; None where none fails."""
    failed = [
        (name, cell)
        for name, cell in cells(judgement)
        if cell.adjusted <= 1 - CONFIDENCE
    ]  # fmt: skip
    return min(failed, key=lambda pair: pair[1].p_value) if failed else None


def cells(judgement: Judgement) -> list[tuple[str, Cell]]:
    """Every bin of a job, and of what."""
    parts = [(one.name, one.conditional) for one in judgement.scalars]
    if judgement.vectors is not None:
        parts.append((judgement.vectors.name, judgement.vectors.conditional))
    return [(name, cell) for name, part in parts if part is not None for cell in part.cells]


def _calibrated(judgement: Judgement) -> str:
    said = f"no sign of miscalibration in {judgement.galaxies:,} galaxies. {_coverage(judgement)}"
    if not judgement.scalars:
        return said
    limits = min((one.detectable for one in judgement.scalars), key=lambda one: one.n)
    if not (limits.narrow < 0 < limits.wide and limits.shift > 0):
        return f"{said} The sample is too small to have shown even gross errors."
    return (
        f"{said} A sample of {limits.n:,} shows posteriors {-limits.narrow:.0%} too narrow, "
        f"{limits.wide:.0%} too wide or {limits.shift:.2f} \u03c3 off with a chance of "
        f"{limits.power:.0%}; smaller errors may be there."
    ).replace("%", " %").replace("  %", " %")  # fmt: skip


def _miscalibrated(judgement: Judgement) -> str:
    failed = [check for check in judgement.checks if not check.passed]
    names = {check.of for check in failed}
    said = [f"miscalibrated ({len(failed)} of {len(judgement.checks)} tests fail)."]
    found = [
        (one.name, words)
        for one in judgement.scalars
        if one.name in names and (words := departure_in_words(one.departure))
    ]
    if found and len(judgement.scalars) == 1 and judgement.vectors is None:
        said.append(f"Posteriors are {found[0][1]}.")
    elif found:
        said.append("; ".join(f"{name} is {words}" for name, words in found[:3]) + ".")
    else:
        said.append("Widths and centres are right on average.")
    if (worst := worst_cell(judgement)) is not None:
        name, cell = worst
        where = "" if len(names | {name}) == 1 else f"{name} at "
        said.append(
            f"Worst bin: {where}{cell.condition} {cell.label}, where 90 % intervals hold "
            f"{100 * cell.coverage.value:.1f} %."
        )
    elif judgement.vectors is not None and judgement.vectors.name in names:
        worst_check = min(
            (one for one in failed if one.of == judgement.vectors.name),
            key=lambda one: one.p_value,
        )
        said.append(f"The {worst_check.of} fails at: {worst_check.question}.")
    said.append(_coverage(judgement))
    return " ".join(said)


def _coverage(judgement: Judgement) -> str:
    """How many truths the 90 % intervals hold."""
    results = [one.evidence.at(0.9) for one in judgement.scalars]
    if not results:
        return ""
    if len(results) == 1:
        one = results[0]
        of = "" if judgement.vectors is None else f" of {judgement.scalars[0].name}"
        return (
            f"90 % intervals{of} hold {100 * one.value:.1f} % of the truths "
            f"({100 * one.low:.1f} to {100 * one.high:.1f} %)."
        )
    values = [100 * one.value for one in results]
    return (
        f"90 % intervals of {len(results)} features hold {min(values):.1f} to {max(values):.1f} % "
        "of the truths."
    )
