"""Every test of one job, and one verdict that holds for all of them together.

From a `Job` (`answers.py`) to its evidence: of each number, of the vectors, and the list of tests
whose p-values are corrected for their number, so that exact posteriors are called miscalibrated
with probability 1 % a job, however many features and bins there are.

Axes: galaxy, quantity, check.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probmmae.calibration.answers import Gridded, Job, Scalar, Vectors
from probmmae.calibration.c2st import ClassifierTest, classifier_test
from probmmae.calibration.cell_map import CellMap, cell_map
from probmmae.calibration.conditional import ConditionalResult, cells_of, conditional_result
from probmmae.calibration.conformal_evidence import ConformalEvidence, conformal_evidence
from probmmae.calibration.coverage import Coverage
from probmmae.calibration.departure import Departure, departure
from probmmae.calibration.evidence import BandEvidence, Evidence, pixel_evidence
from probmmae.calibration.hpd import hpd_coverage, hpd_from_grid
from probmmae.calibration.local_test import LocalTest, local_test
from probmmae.calibration.multiple_tests import holm
from probmmae.calibration.pit import PitDistance, ad_distance, cvm_distance, pit_from_draws
from probmmae.calibration.point_redshifts import point_scores
from probmmae.calibration.power import Detectable, detectable
from probmmae.calibration.ranks import RankResult, rank_result
from probmmae.calibration.samples import blocks
from probmmae.calibration.scores import Score, brier_score, crps_draws, mean_score
from probmmae.calibration.tarp import TarpResult, tarp_result
from probmmae.calibration.tomography import Tomography, tomography
from probmmae.calibration.vector_scores import VectorScore, energy_score, variogram_score

FloatArray = NDArray[np.float64]
Conditions = Mapping[str, NDArray[Any]]

CONFIDENCE = 0.99
"""Probability with which a job of exact posteriors is not called miscalibrated."""
_FEWEST_IN_CELL = 50
_FEWEST_TO_LEARN = 100
"""Galaxies that the learned tests need."""
_MOST_TO_LEARN = 5000
"""Galaxies that the learned tests take: their memory grows with the number."""
_BRIER_STEP = 0.05
"""Width of the redshift bins of the Brier score."""
_PERMUTATIONS = 799
_FLIPS = 2999
"""Enough for a corrected p-value below 1 % among thirty checks."""


@dataclass(frozen=True)
class Check:
    """One test, corrected for those beside it."""

    of: str
    """What was tested."""
    question: str
    """What was asked of it."""
    p_value: float
    """Of the test alone."""
    adjusted: float
    """The p-value that holds for all checks of the job together (Holm)."""

    @property
    def passed(self) -> bool:
        """True when exact posteriors could have done this."""
        return self.adjusted > 1 - CONFIDENCE

    def to_dict(self) -> dict[str, Any]:
        """Every field and the verdict, ready for JSON."""
        return {**vars(self), "passed": self.passed}


@dataclass(frozen=True)
class ScalarEvidence:
    """All that is known of the posteriors of one number."""

    evidence: Evidence
    """PIT, central coverage, scores."""
    distances: tuple[PitDistance, ...]
    """Cramér-von Mises and Anderson-Darling."""
    ranks: RankResult
    """The ECDF of the PIT in its simultaneous band."""
    departure: Departure
    """Shift and width error."""
    detectable: Detectable
    """What a sample of this size could have shown."""
    conditional: ConditionalResult | None
    """By bins; None where no bin has enough galaxies."""
    hpd: tuple[Coverage, ...]
    """Coverage of highest-density regions, of densities."""
    points: tuple[Score, ...]
    """Statistics of the medians as point redshifts."""
    brier: Score | None
    """Of bins of redshift, 0.05 wide."""
    cells: CellMap | None
    """Two conditions crossed, of the redshift."""
    local: LocalTest | None
    """Learned from the conditions, of the redshift."""
    tomography: Tomography | None
    """Bias of the mean redshift in bins of the median."""

    @property
    def name(self) -> str:
        """What was predicted."""
        return self.evidence.name

    @property
    def p_values(self) -> dict[str, float]:
        """Of the tests that enter the verdict."""
        found = {
            "whole distribution of the PIT (ECDF)": self.ranks.p_value,
            "shift, width, skew and tails": self.departure.p_value,
        }
        if self.conditional is not None:
            found["every bin of the conditions"] = self.conditional.p_value
        if self.local is not None:
            found["learned from the conditions"] = self.local.p_value
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; not the per-galaxy values."""
        parts: dict[str, Any] = {
            "ranks": self.ranks, "departure": self.departure, "detectable": self.detectable,
            "conditional": self.conditional, "cells": self.cells, "local": self.local,
            "tomography": self.tomography, "brier": self.brier,
        }  # fmt: skip
        return {
            **self.evidence.to_dict(),
            "distances": [one.to_dict() for one in self.distances],
            "hpd": [one.to_dict() for one in self.hpd],
            "points": [one.to_dict() for one in self.points],
            **{name: None if part is None else part.to_dict() for name, part in parts.items()},
        }


@dataclass(frozen=True)
class VectorEvidence:
    """All that is known of the posteriors of whole vectors."""

    name: str
    """What was predicted."""
    quantities: int
    """Length of a vector."""
    tarp: TarpResult
    energy: VectorScore
    variogram: VectorScore | None
    """None for vectors of one quantity."""
    classifier: ClassifierTest | None
    """None with too few galaxies."""
    departure: Departure
    """Shift and width error of the quantities, galaxies counted."""
    conditional: ConditionalResult | None
    """Quantities by bins of the conditions, and of rest wavelength."""
    bands: tuple[BandEvidence, ...]
    """Coverage in bands of rest wavelength."""

    @property
    def p_values(self) -> dict[str, float]:
        """Of the tests that enter the verdict."""
        found = {
            "balls around random points (TARP)": self.tarp.ranks.p_value,
            "energy score against its own expectation": self.energy.p_value,
            "shift and width of every quantity": self.departure.p_value,
        }
        if self.variogram is not None:
            found["differences of quantities (variogram)"] = self.variogram.p_value
        if self.classifier is not None:
            found["truth told from a draw by a classifier"] = self.classifier.p_value
        if self.conditional is not None:
            found["every bin of the conditions"] = self.conditional.p_value
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; not the per-galaxy values."""
        parts: dict[str, Any] = {
            "tarp": self.tarp, "energy": self.energy, "variogram": self.variogram,
            "classifier": self.classifier, "departure": self.departure,
            "conditional": self.conditional,
        }  # fmt: skip
        return {
            "name": self.name,
            "quantities": self.quantities,
            **{name: None if part is None else part.to_dict() for name, part in parts.items()},
            "bands": [band.to_dict() for band in self.bands],
        }


@dataclass(frozen=True)
class Judgement:
    """The evidence on one job, and the verdict."""

    scalars: tuple[ScalarEvidence, ...]
    vectors: VectorEvidence | None
    conformal: tuple[ConformalEvidence, ...]
    """What conformal intervals would make of each quantity."""
    checks: tuple[Check, ...]
    """Every test that enters the verdict."""
    galaxies: int
    """Galaxies that were judged."""

    @property
    def passed(self) -> bool:
        """True when all checks together are compatible with exact posteriors."""
        return all(check.passed for check in self.checks)

    @property
    def worst(self) -> Check:
        """The least likely check."""
        return min(self.checks, key=lambda check: (check.adjusted, check.p_value))

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "passed": self.passed,
            "galaxies": self.galaxies,
            "confidence": CONFIDENCE,
            "checks": [check.to_dict() for check in self.checks],
            "scalars": [one.to_dict() for one in self.scalars],
            "vectors": None if self.vectors is None else self.vectors.to_dict(),
            "conformal": [one.to_dict() for one in self.conformal],
        }


def judge(job: Job, conditions: Mapping[str, Conditions], *, seed: int) -> Judgement:
    """Run every diagnostic of a job on all of its galaxies.

    Args:
        job: The answers.
        conditions: For each number or vector, by name, what its galaxies are divided by. Not made
            from the truths, or exact posteriors fail.
        seed: Of ties, references, folds, permutations and the bootstrap.

    Raises:
        ValueError: A feature has fewer than 20 galaxies, or no vector is whole.
    """
    generator = np.random.default_rng(seed)
    scalars = tuple(
        _scalar(one, conditions[one.name], generator, redshift=job.name == "redshift")
        for one in job.scalars
    )
    vectors = None
    if job.vectors is not None:
        vectors = _vectors(job.vectors, conditions[job.vectors.name], generator)
    named = [(one.name, *pair) for one in scalars for pair in one.p_values.items()]
    if vectors is not None:
        named += [(vectors.name, *pair) for pair in vectors.p_values.items()]
    adjusted = holm([p_value for *_, p_value in named]).tolist()
    checks = tuple(
        Check(of, question, p_value, together)
        for (of, question, p_value), together in zip(named, adjusted, strict=True)
    )
    conformal = conformal_evidence(job, generator=generator)
    return Judgement(scalars, vectors, conformal, checks, int(job.for_repair.size))


def _scalar(
    scalar: Scalar, conditions: Conditions, generator: np.random.Generator, *, redshift: bool
) -> ScalarEvidence:
    evidence = scalar.evidence(generator)
    pit = evidence.pit_values
    known = ~np.isnan(pit)
    chosen = pit[known]
    within = {name: values[known] for name, values in conditions.items()}
    ranks = np.minimum((chosen * (scalar.steps + 1)).astype(np.int64), scalar.steps)
    hpd: tuple[Coverage, ...] = ()
    if isinstance(scalar, Gridded):
        hpd = hpd_coverage(hpd_from_grid(scalar.pdf, scalar.grid, scalar.truth))
    points: tuple[Score, ...] = ()
    if redshift:
        points = point_scores(scalar.quantile(0.5), scalar.truth, generator=generator)
    return ScalarEvidence(
        evidence=evidence,
        distances=(cvm_distance(chosen), ad_distance(chosen)),
        ranks=rank_result(ranks, draws=scalar.steps, name=scalar.name),
        departure=departure(chosen),
        detectable=detectable(chosen.size),
        conditional=_conditional(chosen, within),
        hpd=hpd,
        points=points,
        brier=_brier(scalar) if redshift else None,
        cells=_cells(chosen, within) if redshift else None,
        local=_local(chosen, within, generator) if redshift else None,
        tomography=_tomography(scalar) if redshift else None,
    )


def _conditional(pit: FloatArray, conditions: Conditions) -> ConditionalResult | None:
    """By bins, fewer of them in small samples; None where no bin has enough galaxies."""
    bins = int(np.clip(len(pit) // 200, 2, 5))
    reached = (
        (inside.any(axis=1) if inside.ndim == 2 else inside).sum()
        for name, values in conditions.items()
        for _, inside in cells_of(name, values, pit.shape, bins=bins)
    )
    if not any(number >= _FEWEST_IN_CELL for number in reached):
        return None
    return conditional_result(pit, conditions, bins=bins, fewest=_FEWEST_IN_CELL)


def _cells(pit: FloatArray, conditions: Conditions) -> CellMap | None:
    """The first two conditions crossed, if they have that many galaxies."""
    bins = int(np.clip(np.sqrt(len(pit) / 100), 2, 5))
    if len(conditions) < 2 or len(pit) < 2 * _FEWEST_IN_CELL * bins**2:
        return None
    first, second = list(conditions.items())[:2]
    return cell_map(pit, first, second, bins=bins, fewest=_FEWEST_IN_CELL)


def _local(
    pit: FloatArray, conditions: Conditions, generator: np.random.Generator
) -> LocalTest | None:
    inputs = _inputs(conditions)
    if len(pit) < _FEWEST_TO_LEARN or inputs is None:
        return None
    part = slice(0, _MOST_TO_LEARN)
    return local_test(pit[part], inputs[part], generator=generator, permutations=_PERMUTATIONS)


def _inputs(conditions: Conditions) -> FloatArray | None:
    """The conditions that are numbers and vary, shape (galaxy, condition)."""
    numbers = [
        values.astype(np.float64)
        for values in conditions.values()
        if values.dtype.kind in "fiu" and values.ndim == 1
    ]
    varied = [values for values in numbers if np.unique(values[np.isfinite(values)]).size > 1]
    return np.stack(varied, axis=1) if varied else None


def _brier(scalar: Scalar) -> Score:
    """Of the probability of each bin of redshift; the first and the last have no other end."""
    top = float(np.nanmax(scalar.truth))
    inner = np.arange(_BRIER_STEP, max(top, _BRIER_STEP) + _BRIER_STEP, _BRIER_STEP)
    below = scalar.below(inner)
    whole = np.pad(below, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
    chance = np.diff(whole, axis=1)
    known = np.isfinite(scalar.truth) & np.isfinite(scalar.quantile(0.5))
    outcome = np.searchsorted(inner, scalar.truth[known], side="right")
    return mean_score("Brier score", brier_score(chance[known], outcome))


def _tomography(scalar: Scalar) -> Tomography | None:
    """In five bins of equal numbers of galaxies, by the median."""
    point = scalar.quantile(0.5)
    edges = np.unique(np.quantile(point, np.linspace(0, 1, 6)))
    if point.size < 5 * 40 or edges.size < 6:
        return None
    edges[-1] = np.nextafter(edges[-1], np.inf)
    return tomography(scalar.mean(), scalar.truth, point=point, edges=edges)


def _vectors(
    vectors: Vectors, conditions: Conditions, generator: np.random.Generator
) -> VectorEvidence:
    whole = vectors.whole()
    chosen = vectors.take(whole)
    draws, truth = chosen.draws, chosen.truth
    within = {name: values[whole] for name, values in conditions.items()}
    pit, crps = _pixels(chosen, generator)
    inputs, classifier = _inputs(within), None
    if len(truth) >= _FEWEST_TO_LEARN:
        part = slice(0, _MOST_TO_LEARN)
        classifier = classifier_test(
            draws[:, part], truth[part], generator=generator, flips=_FLIPS,
            inputs=None if inputs is None else inputs[part],
        )  # fmt: skip
    bands: tuple[BandEvidence, ...] = ()
    rest = chosen.rest_wavelength
    if rest is not None:
        edges = np.unique(np.quantile(rest, np.linspace(0, 1, 7)).round(-1))
        edges[[0, -1]] = np.floor(rest.min()), np.ceil(rest.max()) + 1
        bands = pixel_evidence(pit, crps, rest_wavelength=rest, edges=edges)
        within["rest wavelength, \u00c5"] = rest
    return VectorEvidence(
        name=vectors.name,
        quantities=truth.shape[1],
        tarp=tarp_result(draws, truth, generator=generator, name=vectors.name),
        energy=energy_score(draws, truth),
        variogram=variogram_score(draws, truth) if truth.shape[1] > 1 else None,
        classifier=classifier,
        departure=departure(pit),
        conditional=_conditional(pit, within),
        bands=bands,
    )


def _pixels(vectors: Vectors, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """PIT and CRPS of every quantity, shape (galaxy, quantity), in bounded memory."""
    pit, crps = np.empty(vectors.truth.shape), np.empty(vectors.truth.shape)
    for part in blocks(vectors.draws):
        draws, truth = vectors.draws[:, part], vectors.truth[part]
        pit[part] = pit_from_draws(draws, truth, generator=generator)
        crps[part] = crps_draws(draws, truth)
    return pit, crps
