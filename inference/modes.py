r"""NUTS over (z, u) of one galaxy, mode by mode: draws of the exact density given new evidence.

The density (`target`) has a mode for every redshift that the data allow, between which no chain
walks. So the draws that the network proposed (`importance.propose`), those of negligible weight
left out, are split where they leave a gap in redshift; from the best draw of every mode its peak
is found (`peak`), and chains start around it and stay there; bridge sampling gives the integral of
every mode (`bridge`), so their weights, and the evidence, do not depend on how good the proposal
was.

Axes: chain, draw, mode, node (of redshift), dimension (of what is sampled), query, latent.
"""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from probmmae.inference.bridge import log_integral
from probmmae.inference.importance import Proposal, psis
from probmmae.inference.nuts import Chains, sample
from probmmae.inference.peak import peak
from probmmae.inference.target import Source, log_density

if TYPE_CHECKING:
    import xarray

_GAPS = (2e-4, 0.02)
"""Two modes are at least so far apart in ln(1 + z); and at most, whatever the scatter of draws."""
_FEWEST = 5
"""Draws that make a mode beside the one with the best draw."""
_FAR = 25.0
"""Draws whose ln of the weight lies this much below the best of all make no mode."""
_NODES = 65
"""Redshifts at which the field of one mode is evaluated."""
_NARROW = 1e-5
"""The least scatter of a mode's draws in ln(1 + z) that is believed."""
_MARGIN = 1e-3
"""The least by which a mode's grid outreaches its draws, in ln(1 + z)."""


@dataclass(frozen=True)
class Mode:
    """The draws of one mode of redshift."""

    chains: Chains
    nodes: Float[np.ndarray, " node"]
    """The grid of ln(1 + z); one node where it is known."""
    proposed: float
    """Sum of the importance weights of the draws that it was found by."""
    log_integral: float
    """ln p(x, mode | c), by bridge sampling."""
    log_integral_error: float
    field_error: float
    """Scatter of ln p(u | z, c) from interpolation between nodes."""

    @property
    def x(self) -> Float[np.ndarray, "chain draw"]:
        """ln(1 + z)."""
        position = self.chains.position
        if len(self.nodes) == 1:
            return np.full(position.shape[:2], self.nodes[0])
        return np.asarray(position[..., 0])

    @property
    def u(self) -> Float[np.ndarray, "chain draw joint"]:
        """Latents of all queries, flattened."""
        return np.asarray(self.chains.position[..., int(len(self.nodes) > 1) :])


@dataclass(frozen=True)
class Modes:
    """All modes of one galaxy."""

    modes: tuple[Mode, ...]
    latent: int
    """Numbers in u at one query."""

    @property
    def log_evidence(self) -> float:
        """ln p(x | c)."""
        return float(np.logaddexp.reduce([one.log_integral for one in self.modes]))

    @property
    def log_evidence_error(self) -> float:
        """Its standard error."""
        errors = np.array([one.log_integral_error for one in self.modes])
        return float(np.sqrt(((self.weight * errors) ** 2).sum()))

    @property
    def weight(self) -> Float[np.ndarray, " mode"]:
        """Probability of each mode."""
        logs = np.array([one.log_integral for one in self.modes])
        return np.asarray(np.exp(logs - np.logaddexp.reduce(logs)))

    def draws(self, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Equally likely draws, from the modes by weight: z (draw,) and u (draw, joint)."""
        rng = np.random.default_rng(seed)
        ends = np.cumsum(self.weight)
        chosen = np.searchsorted(ends / ends[-1], (np.arange(count) + rng.random()) / count)
        z, u = [], []
        for index, one in enumerate(self.modes):
            wanted = int((chosen == index).sum())
            have = one.x.size
            pick = rng.choice(have, wanted, replace=wanted > have)
            z.append(np.expm1(one.x.reshape(-1)[pick]))
            u.append(one.u.reshape(have, -1)[pick])
        order = rng.permutation(count)
        return np.concatenate(z)[order], np.concatenate(u)[order]

    def to_arviz(self) -> "xarray.DataTree":
        """ArviZ's container.

        Group `posterior`: redshift (chain, draw) and u (chain, draw, query, latent), the
        coordinate `mode` telling each chain's; `sample_stats`: lp and diverging; `modes`: for
        each, its redshifts, weight, ln of its integral with error, r_hat, effective draws and
        field_error.
        """
        import xarray

        steps = ("chain", "draw")
        found = [one.chains for one in self.modes]
        u = np.concatenate([one.u for one in self.modes])
        size = len(found[0].position)
        mode = {"mode": ("chain", np.repeat(np.arange(len(found)), size))}
        z = np.expm1(np.concatenate([one.x for one in self.modes]))
        posterior = {
            "redshift": (steps, z, {"long_name": "redshift"}),
            "u": ((*steps, "query", "latent"), u.reshape(*u.shape[:2], -1, self.latent)),
        }
        stats = {
            "lp": (steps, np.concatenate([one.log_density for one in found])),
            "diverging": (steps, np.concatenate([one.diverging for one in found])),
        }
        told: dict[str, Any] = {
            "z_low": [np.expm1(one.nodes[0]) for one in self.modes],
            "z_high": [np.expm1(one.nodes[-1]) for one in self.modes],
            "weight": self.weight,
            "proposed_weight": [one.proposed for one in self.modes],
            "log_integral": [one.log_integral for one in self.modes],
            "log_integral_error": [one.log_integral_error for one in self.modes],
            "r_hat": [one.r_hat for one in found],
            "effective": [one.effective for one in found],
            "field_error": [one.field_error for one in self.modes],
        }
        tree = xarray.DataTree.from_dict(
            {
                "/posterior": xarray.Dataset(posterior, coords=mode),
                "/sample_stats": xarray.Dataset(stats, coords=mode),
                "/modes": xarray.Dataset({name: ("mode", part) for name, part in told.items()}),
            }
        )
        tree.attrs = {"inference_library": "numpyro"}
        return tree


def sample_modes(
    source: Source,
    proposal: Proposal,
    *,
    seed: int,
    draws: int = 500,
    warmup: int = 500,
    chains: int = 2,
) -> Modes:
    """The exact posterior of one galaxy given new evidence.

    Args:
        source: The galaxy. A known redshift stays known.
        proposal: What `importance.propose` made of the same; 1000 draws are usual.
        seed: Of the chains.
        draws: Draws of each chain.
        warmup: Steps before them.
        chains: Chains in every mode.

    Raises:
        ValueError: More than one galaxy.

    Warns:
        UserWarning: The chains of a mode disagree, or more than one in a hundred draws diverge.
    """
    rows = (len(source.observed), len(proposal.z), len(source.evidence.aperture))
    if rows != (1, 1, 1):
        raise ValueError(
            f"Expected one galaxy, its proposal and its evidence; got {rows[0]}, {rows[1]} and "
            f"{rows[2]}. Take one row of each."
        )
    ratio = proposal.log_ratio[0].numpy()
    weight = np.exp(psis(ratio).log_weight)
    x, u = np.log1p(proposal.z[0].double().numpy()), proposal.u[0].double().numpy()
    key = jax.random.key(seed)
    results = []
    for members, low, high in _split(x, ratio):
        nodes = x[members][:1] if source.known else _grid(x[members], low, high)
        target = source.target(nodes)
        around = u[members] if source.known else np.column_stack([x[members], u[members]])
        key, start, walk, bridge = jax.random.split(key, 4)
        best = around[ratio[members].argmax()]
        centre, root = peak(log_density, target, start=best, root=_root(around, u))
        away = 0.5 * np.asarray(jax.random.normal(start, (chains, len(best))), dtype=float)
        found = sample(
            log_density, target, centre=centre, root=root, start=centre + away @ root.T,
            key=walk, draws=draws, warmup=warmup,
        )  # fmt: skip
        found.warn(f"at redshifts {np.expm1(nodes[0]):.3f} to {np.expm1(nodes[-1]):.3f}")
        value, error = log_integral(log_density, target, found, key=bridge)
        off = source.field_error(target, found.position.reshape(-1, found.position.shape[-1]))
        results.append(Mode(found, nodes, float(weight[members].sum()), value, error, off))
    return Modes(tuple(results), source.network.config.latent)


def _root(
    around: Float[np.ndarray, "draw dimension"], every: Float[np.ndarray, "all joint"]
) -> Float[np.ndarray, "dimension dimension"]:
    """Lower root of the covariance of a mode's draws.

    Of few draws only the scatter of each dimension is trusted, and of u that of all modes' draws.
    """
    count, dimension = around.shape
    if count > 2 * dimension:
        covariance = np.cov(around.T)
        covariance = 0.99 * covariance + 0.01 * np.diag(np.diag(covariance))
    else:
        apart = around.var(0)[: dimension - every.shape[1]] + _NARROW**2
        covariance = np.diag(np.concatenate([apart, every.var(0) + 1e-6]))
    return np.linalg.cholesky(covariance)


def runs(x: Float[np.ndarray, " draw"]) -> list[np.ndarray]:
    """Draws of ln(1 + z) that lie together, by index, in order.

    They are parted by gaps of three times the scatter of all (by the median absolute deviation),
    which draws of one normal never leave.
    """
    scatter = 1.4826 * np.median(np.abs(x - np.median(x)))
    order = np.argsort(x)
    gap = np.clip(3 * scatter, *_GAPS)
    return np.split(order, np.flatnonzero(np.diff(x[order]) > gap) + 1)


def _split(
    x: Float[np.ndarray, " draw"], ratio: Float[np.ndarray, " draw"]
) -> list[tuple[np.ndarray, float, float]]:
    """The draws of each mode, by index, and the borders to its neighbours."""
    heavy = np.flatnonzero(ratio > ratio.max() - _FAR)
    found = [heavy[part] for part in runs(x[heavy])]
    best = max(found, key=lambda part: ratio[part].max())
    parts = [part for part in found if len(part) >= _FEWEST or part is best]
    between = [0.5 * (x[one].max() + x[two].min()) for one, two in itertools.pairwise(parts)]
    borders = itertools.pairwise([0.0, *between, np.inf])
    return [(part, low, high) for part, (low, high) in zip(parts, borders, strict=True)]


def _grid(x: Float[np.ndarray, " draw"], low: float, high: float) -> Float[np.ndarray, " node"]:
    margin = 0.5 * np.ptp(x) + _MARGIN
    return np.linspace(max(x.min() - margin, low), min(x.max() + margin, high), _NODES)
