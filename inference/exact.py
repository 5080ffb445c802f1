"""Exact inference for one galaxy: importance weights first, NUTS where they may not be trusted.

The network conditions on a galaxy and proposes draws given the new evidence as well. Their weights
against the exact density say, by the Pareto k of their tail, whether resampling them is enough. If
not, NUTS samples the density. Either way the answer is a `Posterior`, with the same methods as the
amortised one: redshifts, spectra at any aperture, cubes, exports.

Axes: draw, component, query, latent.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from probmmae.galaxy import Galaxy
from probmmae.inference.conditioned import held_to
from probmmae.inference.evidence import Evidence
from probmmae.inference.importance import Proposal, Weights, propose, psis
from probmmae.inference.modes import Modes, runs, sample_modes
from probmmae.inference.posterior import Model, Posterior
from probmmae.inference.repair import untouched
from probmmae.inference.target import Source
from probmmae.redshift import RedshiftDensity
from probmmae.scan import SHIFTS, STEP

_COMPONENTS = 256
"""Most draws that a redshift density is made of."""
_HIGHEST = math.expm1(SHIFTS * STEP)
"""Redshift up to which the network looks for it."""


@dataclass(frozen=True)
class Exact:
    """The exact posterior of one galaxy, and what was needed for it."""

    posterior: Posterior
    """Equally likely draws of the exact density."""
    evidence: Evidence
    pareto_k: float
    """Of the amortised draws' weights: below `TRUSTED` they are enough."""
    log_evidence: float
    """ln p(evidence | what the network had seen)."""
    log_evidence_error: float
    """Its standard error."""
    modes: Modes | None
    """What NUTS found; None where weights were enough."""

    @property
    def method(self) -> str:
        """How the draws were made: "importance" or "nuts"."""
        return "importance" if self.modes is None else "nuts"

    def __repr__(self) -> str:
        return (
            f"Exact(method={self.method!r}, pareto_k={self.pareto_k:.2f}, "
            f"log_evidence={self.log_evidence:.2f} +/- {self.log_evidence_error:.2f}, "
            f"draws={self.posterior.draws.z.shape[1]})"
        )


def exact_posterior(
    model: Any,
    galaxy: Any,
    evidence: Any = None,
    *,
    draws: int = 200,
    seed: int = 0,
    use_redshift: bool = True,
    proposals: int = 1000,
    warmup: int = 300,
) -> Exact:
    """The posterior of a galaxy by the model's own density.

    Args:
        model: The trained `Model`.
        galaxy: The `Galaxy` on which the network conditions.
        evidence: What is new, as `Evidence`. By default the galaxy's own spectra: they are then
            kept from the network's context and weighed exactly instead.
        draws: Draws of the answer.
        seed: Of all that is random.
        use_redshift: Whether a redshift that the galaxy carries counts as known.
        proposals: Draws of the network that are weighed.
        warmup: Steps of NUTS before its draws; more where its chains disagree.

    Raises:
        TypeError: Something else than a model, a galaxy or evidence.
        ValueError: Nothing is left to condition on, the galaxy has no spectra and no evidence was
            given, the evidence lies where the templates do not reach, or less than one draw.

    Warns:
        UserWarning: The chains of NUTS disagree.
    """
    _check_kind(model, Model, "a Model", "Load it: model = probmmae.load().")
    _check_kind(galaxy, Galaxy, "one Galaxy", "Call this for each of several.")
    if draws < 1:
        raise ValueError(f"Expected at least 1 draw; got {draws}. 200 is usual.")
    if evidence is None:
        evidence, galaxy = _taken_apart(galaxy)
    _check_kind(evidence, Evidence, "an Evidence", "Write Evidence(lines=[...]) or the like.")
    known = galaxy.redshift if use_redshift else None
    evidence.check_reach(*((0.0, _HIGHEST) if known is None else (known, known)))
    start = model.condition(
        galaxy, draws=1, seed=seed, use_redshift=use_redshift, repair=False
    )  # fmt: skip
    measured = evidence.measured()
    generator = torch.Generator().manual_seed(seed)
    proposal = propose(
        model.network, start.observed, evidence=measured, draws=proposals, generator=generator
    )
    weights = psis(proposal.log_ratio[0].numpy())
    modes = None
    if bool(weights.trusted):
        z, u = _resampled(proposal, weights, draws, seed)
        told = float(weights.log_evidence), float(weights.log_evidence_error)
    else:
        source = Source(model.network, start.observed, start.context, measured)
        # Twice as many as are asked for, in two chains: they are correlated.
        modes = sample_modes(source, proposal, seed=seed, draws=max(draws, 250), warmup=warmup)
        z, u = modes.draws(draws, seed=seed)
        told = modes.log_evidence, modes.log_evidence_error
    if bool(start.observed.z_known[0]):
        density = start.density
    else:
        density = redshift_density(z)
    held = held_to(
        model.network,
        start.context,
        start.observed,
        aperture=measured.aperture,
        z=torch.as_tensor(z, dtype=torch.float32),
        u=torch.as_tensor(u),
        generator=generator,
    )
    method = "importance weights" if modes is None else "NUTS"
    posterior = replace(
        start, draws=held, density=density, repair=untouched(f"exact density, by {method}")
    )
    return Exact(posterior, evidence, float(weights.pareto_k), *told, modes)


def _check_kind(value: Any, kind: type, what: str, instead: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"Expected {what}; got {type(value).__name__}. {instead}")


def _taken_apart(galaxy: Galaxy) -> tuple[Evidence, Galaxy]:
    if not galaxy.spectra or not (galaxy.images or galaxy.photometry):
        raise ValueError(
            f"Expected a galaxy with images or photometry, and with a spectrum to weigh; got "
            f"{galaxy.id!r}, which has {len(galaxy.images)} images, {len(galaxy.photometry)} "
            f"fluxes and {len(galaxy.spectra)} spectra. Give the evidence apart."
        )
    return Evidence(spectra=galaxy.spectra), replace(galaxy, spectra=())


def _resampled(
    proposal: Proposal, weights: Weights, draws: int, seed: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Equally likely draws, by systematic resampling: z (draw,) and u (draw, joint)."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(np.exp(weights.log_weight))
    pick = np.searchsorted(ends / ends[-1], (np.arange(draws) + rng.random()) / draws)
    pick = rng.permutation(pick)
    return proposal.z[0].double().numpy()[pick], proposal.u[0].double().numpy()[pick]


def redshift_density(z: NDArray[Any]) -> RedshiftDensity:
    """A smooth p(z) through draws, of the kind that the network answers with; a batch of one.

    A Gaussian on ln(1 + z) at each draw (or at as many as are kept), by Silverman's rule within
    each run of draws, drawn together so that mean and variance of the run are those of its draws.

    References:
        Silverman (1986), Density estimation, section 3.4; West (1993), Mixture models, Monte
        Carlo, Bayesian updating and dynamic models (the shrinkage).
    """
    every = np.log1p(np.sort(np.asarray(z, dtype=float)))
    kept = every[np.unique(np.linspace(0, len(every) - 1, _COMPONENTS).round().astype(int))]
    loc, scale = np.empty_like(kept), np.empty_like(kept)
    for run in runs(kept):
        own = kept[run]
        spread = max(own.std(), 1e-6)
        quartiles = np.quantile(own, [0.25, 0.75])
        robust = min(spread, np.ptp(quartiles) / 1.349) or spread
        width = 0.9 * robust * len(own) ** -0.2
        loc[run] = own.mean() + (own - own.mean()) * np.sqrt(1 - (width / spread) ** 2)
        scale[run] = width
    parts = (torch.as_tensor(one, dtype=torch.float64)[None] for one in (0 * loc, loc, scale))
    return RedshiftDensity(*parts)
