"""The calibration report: a verdict for each job, the evidence, and what made it.

From jobs (`answers.py`) to a `Report`, which `report_html.py` writes. Where a repair is kept with
the model, or galaxies were set aside to fit one, the same galaxies are judged before and after it.

Axes: galaxy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probmmae.calibration.answers import Job
from probmmae.calibration.judgement import Judgement, judge
from probmmae.calibration.plain_json import plain
from probmmae.calibration.repaired import Repaired, repaired
from probmmae.calibration.verdict import headline, verdict

SEED = 0
"""Of everything random in a report: it is the same every time."""

Watch = Callable[[str], None]
"""Told what is being done."""


@dataclass(frozen=True)
class JobReport:
    """One job, before and after repair."""

    name: str
    """What was asked."""
    before: Judgement
    """As the model answers."""
    after: Judgement | None
    """After repair, on the same galaxies; None where nothing was fitted."""
    fits: Mapping[str, str]
    """What the repair did, by quantity."""
    source: str
    """Which galaxies the repair was fitted on, a sentence; "" without repair."""
    fitted: int
    """Galaxies of the report's data that were set aside for the repair."""
    sentences: tuple[str, ...]
    """The verdict, then the verdict after repair."""

    @property
    def headline(self) -> str:
        """The verdict in one sentence."""
        return headline(self.name, self.before, self.after)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "name": self.name,
            "headline": self.headline,
            "calibrated": self.before.passed,
            "calibrated_after_repair": None if self.after is None else self.after.passed,
            "verdict": list(self.sentences),
            "before": self.before.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
            "repair": {
                "source": self.source,
                "galaxies": self.fitted,
                "fits": dict(self.fits),
            },
        }


@dataclass(frozen=True)
class Report:
    """Everything that a report says."""

    title: str
    jobs: tuple[JobReport, ...]
    provenance: Mapping[str, str]
    """Command, data, split, versions and the like, by name."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for strict JSON: what is not a number is null."""
        content = {
            "title": self.title,
            "jobs": [job.to_dict() for job in self.jobs],
            "provenance": dict(self.provenance),
        }
        told: dict[str, Any] = plain(content)
        return told


def make_report(
    jobs: Sequence[Job],
    provenance: Mapping[str, str],
    *,
    stored: Sequence[Repaired] | None = None,
    title: str = "Calibration report",
    watch: Watch | None = None,
) -> Report:
    """Judge every job, before and after repair.

    Every number is divided by the conditions of its job and by the median and the width of its own
    posterior, which are known without the truth; after repair by the same bins.

    Args:
        jobs: The answers.
        provenance: What made them, by name, for the end of the report.
        stored: The same jobs, in the same order, after the repair that is kept with the model;
            None to fit one on the galaxies set aside.
        title: Of the page.
        watch: Told of progress.

    Raises:
        ValueError: Too few galaxies; see `judgement.judge`.
    """
    kept: Sequence[Repaired | None] = [None] * len(jobs) if stored is None else stored
    pairs = zip(jobs, kept, strict=True)
    return Report(title, tuple(_report(*pair, watch) for pair in pairs), dict(provenance))


def _report(job: Job, stored: Repaired | None, watch: Watch | None) -> JobReport:
    tell = watch or (lambda _: None)
    conditions = _conditions(job)
    kept = ~job.for_repair
    shown = {
        name: {key: values[kept] for key, values in own.items()}
        for name, own in conditions.items()
    }
    tell(f"{job.name}: evidence")
    before = judge(job.take(kept), shown, seed=SEED)
    sentences, after = [verdict(job.name, before)], None
    tell(f"{job.name}: repair")
    repair = stored
    if repair is None and job.for_repair.any():
        repair = repaired(job, conditions, seed=SEED)
    if repair is not None:
        tell(f"{job.name}: evidence after repair")
        after = judge(repair.job, shown, seed=SEED)
        said = verdict(f"{job.name} after repair", after)
        if before.passed and not after.passed:
            said += " Without repair no test fails: leave the answers as they are."
        sentences.append(said)
    return JobReport(
        name=job.name,
        before=before,
        after=after,
        fits={} if repair is None else repair.fits,
        source="" if repair is None else repair.source,
        fitted=int(job.for_repair.sum()),
        sentences=tuple(sentences),
    )


def _conditions(job: Job) -> dict[str, dict[str, NDArray[Any]]]:
    """What each number and vector is divided by: the job's conditions, then its own posterior."""
    given = dict(job.conditions)
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for one in job.scalars:
        low, middle, high = (one.quantile(level) for level in (0.16, 0.5, 0.84))
        own = {"posterior median": middle, "posterior width": (high - low) / 2}
        found[one.name] = {**given, **{name: _filled(values) for name, values in own.items()}}
    if job.vectors is not None:
        found[job.vectors.name] = given
    return found


def _filled(values: NDArray[Any]) -> NDArray[Any]:
    """Galaxies without a posterior get the middle value: they are in no test, but in a table."""
    known = np.isfinite(values)
    return np.where(known, values, np.median(values[known]) if known.any() else 0.0)
