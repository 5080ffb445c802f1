"""The repair that a report shows beside what it repairs, fitted on galaxies of its own.

From a job with galaxies set aside to the job of the others after repair: every number by the law
of its PIT given the conditions (`recalibrate_local.py`; one law for all in small samples,
`recalibrate.py`), vectors by a factor for each principal direction (`recalibrate_spectra.py`).

Axes: draw, galaxy, quantity.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probmmae.calibration.answers import Job, Scalar, Vectors
from probmmae.calibration.recalibrate import LEAST_GALAXIES as LEAST_GLOBAL
from probmmae.calibration.recalibrate import fit_global
from probmmae.calibration.recalibrate_local import LEAST_GALAXIES as LEAST_LOCAL
from probmmae.calibration.recalibrate_local import fit_local
from probmmae.calibration.recalibrate_spectra import LEAST_GALAXIES as LEAST_VECTORS
from probmmae.calibration.recalibrate_spectra import fit_principal_scale

Conditions = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Repaired:
    """A job after repair."""

    job: Job
    """The galaxies that the repair was not fitted on."""
    fits: Mapping[str, str]
    """What was done to each number and vector, in words."""
    source: str
    """Which galaxies it was fitted on, a sentence."""


def repaired(job: Job, conditions: Mapping[str, Conditions], *, seed: int) -> Repaired | None:
    """Fit a repair on the galaxies set aside and apply it to the others.

    Args:
        job: The answers, `for_repair` true where a galaxy is for fitting.
        conditions: For each number or vector, by name, what the repair may depend on.
        seed: Of landmarks and folds.

    Returns:
        None where there are too few galaxies to fit anything.
    """
    generator = np.random.default_rng(seed)
    fits, scalars = {}, []
    for one in job.scalars:
        after, said = _repaired_scalar(one, conditions[one.name], job.for_repair, generator)
        scalars.append(after)
        fits[one.name] = said
    vectors = job.vectors
    if vectors is not None:
        vectors, fits[vectors.name] = _repaired_vectors(vectors, job.for_repair)
    if all(said == _UNCHANGED for said in fits.values()):
        return None
    kept = job.take(~job.for_repair)
    source = (
        f"Fitted on {int(job.for_repair.sum()):,} galaxies that are not among the "
        f"{kept.for_repair.size:,} reported here."
    )
    return Repaired(replace(kept, scalars=tuple(scalars), vectors=vectors), fits, source)


_UNCHANGED = "left as it is: too few galaxies to fit a repair"


def _repaired_scalar(
    scalar: Scalar,
    conditions: Conditions,
    fitted: NDArray[np.bool_],
    generator: np.random.Generator,
) -> tuple[Scalar, str]:
    """The reported galaxies after repair, and what was done."""
    pit = scalar.take(fitted).evidence(generator).pit_values if fitted.any() else np.zeros(0)
    kept, known = scalar.take(~fitted), int((~np.isnan(pit)).sum())
    if known < LEAST_GLOBAL:
        return kept, _UNCHANGED
    covariates = {
        name: values
        for name, values in conditions.items()
        if values.dtype.kind in "fiu" and np.isfinite(values).all()
    }
    if known < LEAST_LOCAL or not covariates:
        fit = fit_global(pit)
        said = f"one law of the PIT for all, from {fit.galaxies:,} galaxies"
        return kept.mapped(fit.pit_map()), said
    own = {name: values[fitted] for name, values in covariates.items()}
    local = fit_local(pit, own, generator=generator)
    depends = (
        f"depending on {', '.join(covariates)}, which gains {local.gain:.4f} +- "
        f"{local.gain_error:.4f} nats a galaxy"
        if local.gain > 0
        else f"the same for all, as none depends on {', '.join(covariates)}"
    )
    said = f"a law of the PIT from {local.galaxies:,} galaxies, {depends}"
    rest = {name: values[~fitted] for name, values in covariates.items()}
    return kept.mapped(local.pit_map(rest)), said


def _repaired_vectors(vectors: Vectors, fitted: NDArray[np.bool_]) -> tuple[Vectors, str]:
    kept, known = vectors.take(~fitted), int((vectors.whole() & fitted).sum())
    if known < LEAST_VECTORS or vectors.truth.shape[1] < 2:
        return kept, _UNCHANGED
    own = vectors.take(fitted)
    scale = fit_principal_scale(own.draws, own.truth)
    first, last = np.exp(np.asarray(scale.log_scale)[[0, -1]])
    said = (
        f"deviations from the mean times {first:.3f} along the first principal direction to "
        f"{last:.3f} along the last, from {known:,} galaxies"
    )
    return replace(kept, draws=scale.apply(kept.draws)), said
