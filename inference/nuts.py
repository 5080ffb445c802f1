r"""NUTS over (z, u) of one galaxy: from importance-weighted draws to draws of the exact density.

The density is the model's own, p(z | c) p(u | z, c) prod_t p(x_t | u, z, c), given new spectra
x_t. It has a mode for every redshift that the data allow, between which no chain walks. So the
draws that the network proposed (`importance.propose`) are split where they leave a gap in
redshift; chains start from weighted draws of every mode and stay there; the modes' weights are the
sums of the importance weights.

p(u | z, c) depends on z through the prior network. It is evaluated by that network on a grid of
redshifts across each mode, and its parameters (class weights, means, whitening matrices) are
interpolated linearly in ln(1 + z): between nodes it is a normalised density still, at nodes the
exact one. `field_error` is the scatter of the difference of the two in ln p over draws. Of a known
redshift the grid is one node and nothing is interpolated.

Axes: chain, draw, mode, node (of redshift), dimension (of what is sampled), spectrum, latent.

References:
    Hoffman and Gelman (2014), The No-U-Turn sampler, https://arxiv.org/abs/1111.4246
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from jaxtyping import Bool, Float
from numpyro.diagnostics import summary
from numpyro.infer.hmc import hmc

from probmmae.batch import Batch, Spectra
from probmmae.inference.importance import Proposal, psis
from probmmae.inference.jax_decoder import (
    DecoderArrays,
    FieldArrays,
    PixelArrays,
    RedshiftArrays,
    decoder_arrays,
    field_arrays,
    field_log_prob,
    pixel_arrays,
    pytree,
    redshift_arrays,
    redshift_log_prob,
    spectrum_log_prob,
)
from probmmae.model import GalaxyModel

if TYPE_CHECKING:
    import xarray

AGREE = 1.05
"""R-hat below which chains agree."""

_GAP = 0.02
"""Draws further apart than this in ln(1 + z) belong to two modes."""
_FEWEST = 5
"""Draws that make a mode."""
_NODES = 65
"""Redshifts at which the field of one mode is evaluated."""
_MARGIN = 1e-3
"""The least by which a mode's grid outreaches its draws, in ln(1 + z)."""
_CHECKED = 32
"""Draws at which the interpolated field is held against the network's."""

_Tree = TypeVar("_Tree")

LogDensity = Callable[[Any, Array], Array]
"""ln of a density, up to a constant: of its data (a pytree) and of a point, shape (dimension,)."""


@dataclass(frozen=True)
class Chains:
    """What NUTS brought back."""

    position: Float[np.ndarray, "chain draw dimension"]
    log_density: Float[np.ndarray, "chain draw"]
    """Up to a constant."""
    diverging: Bool[np.ndarray, "chain draw"]
    r_hat: float
    """Largest of all dimensions, chains split in halves."""
    effective: float
    """Smallest effective number of draws of all dimensions."""


def sample(
    density: LogDensity,
    data: Any,
    *,
    centre: Float[np.ndarray, " dimension"],
    root: Float[np.ndarray, "dimension dimension"],
    start: Float[np.ndarray, "chain dimension"],
    key: Array,
    draws: int,
    warmup: int,
) -> Chains:
    """NUTS in coordinates y of which the point is centre + root y.

    Args:
        density: A function of the module level: what it is compiled to is kept for the next call
            with data of the same shapes.
        data: Passed on to it.
        centre: Where the density lies.
        root: Of its covariance, roughly.
        start: Points where the chains start.
        key: A jax random key.
        draws: Draws of each chain.
        warmup: Steps before them, in which step size and a dense mass matrix are found.
    """
    y = np.linalg.solve(root, (start - centre).T).T
    frame = (jnp.asarray(part, jnp.float32) for part in (y, centre, root))
    keys = jax.random.split(key, len(start))
    found, energy, diverging = _program(density, draws, warmup)(keys, data, *frame)
    position = np.asarray(found, dtype=float)
    told = summary(position)["Param:0"]
    return Chains(
        position=centre + position @ root.T,
        log_density=-np.asarray(energy, dtype=float),
        diverging=np.asarray(diverging),
        r_hat=float(told["r_hat"].max()),
        effective=float(told["n_eff"].min()),
    )


@lru_cache(maxsize=8)
def _program(density: LogDensity, draws: int, warmup: int) -> Callable[..., tuple[Array, ...]]:
    """All of it, compiled as one: numpyro's own driver would compile anew for every galaxy."""

    def potential(data: Any, centre: Array, root: Array) -> Callable[[Array], Array]:
        return lambda y: -density(data, centre + root @ y)

    first, step = hmc(potential_fn_gen=potential, algo="NUTS")

    def chain(key: Array, data: Any, y: Array, centre: Array, root: Array) -> tuple[Array, ...]:
        frame = (data, centre, root)
        state = first(y, warmup, dense_mass=True, model_args=frame, rng_key=key)

        def move(state: Any, _: None) -> tuple[Any, tuple[Array, ...]]:
            state = step(state, model_args=frame)
            return state, (state.z, state.potential_energy, state.diverging)

        _, every = jax.lax.scan(move, state, None, length=warmup + draws)
        return cast(tuple[Array, ...], jax.tree.map(lambda part: part[warmup:], every))

    return jax.jit(jax.vmap(chain, in_axes=(0, None, 0, None, None)))


def refine(
    network: GalaxyModel,
    observed: Batch,
    *,
    evidence: Spectra,
    proposal: Proposal,
    key: Array,
    draws: int = 500,
    warmup: int = 500,
    chains: int = 2,
) -> "xarray.DataTree":
    """The exact posterior of one galaxy given new spectra.

    Args:
        network: The trained network.
        observed: What it has conditioned on: a batch of one. A known redshift stays known.
        evidence: New spectra of that galaxy.
        proposal: What `importance.propose` made of the same; 1000 draws are usual.
        key: A jax random key.
        draws: Draws of each chain.
        warmup: Steps before them.
        chains: Chains in every mode.

    Returns:
        ArviZ's container. Group `posterior`: redshift (chain, draw) and u (chain, draw, spectrum,
        latent), the coordinate `mode` telling each chain's; `sample_stats`: lp (up to a constant)
        and diverging; `modes`: for each, its redshifts, weight, r_hat, effective draws and
        field_error.

    Raises:
        ValueError: More than one galaxy, a network without latent, or no mode among the draws.

    Warns:
        UserWarning: The chains of a mode disagree, or more than one in a hundred draws diverge.
    """
    if len(observed) != 1 or proposal.z.shape[0] != 1 or evidence.flux.shape[0] != 1:
        raise ValueError(
            f"Expected one galaxy, its evidence and its proposal; got {len(observed)}, "
            f"{evidence.flux.shape[0]} and {proposal.z.shape[0]}. Take one row of each."
        )
    weight = np.exp(psis(proposal.log_ratio[0].numpy()).log_weight)
    x, u = np.log1p(proposal.z[0].double().numpy()), proposal.u[0].double().numpy()
    decoder, pixels = decoder_arrays(network), _first(pixel_arrays(evidence))
    known = bool(observed.z_known[0])
    with torch.no_grad():
        context = network.encode(observed)
        density = redshift_arrays(network.redshift(context)[0])
    scale = jnp.asarray(context.scale[0].numpy())
    results = []
    for members in _modes(x):
        nodes = x[members][:1] if known else _grid(x[members])
        field = _field(network, observed, evidence, nodes)
        target = Target(
            decoder, pixels, scale, density, jnp.asarray(nodes, jnp.float32), field
        )  # fmt: skip
        around = u[members] if known else np.column_stack([x[members], u[members]])
        key, first, second = jax.random.split(key, 3)
        chance = jnp.asarray(weight[members] / weight[members].sum())
        pick = jax.random.choice(first, len(around), (chains,), p=chance)
        centre, root = _standard(around)
        found = sample(
            log_density,
            target,
            centre=centre,
            root=root,
            start=around[np.asarray(pick)],
            key=second,
            draws=draws,
            warmup=warmup,
        )
        _warn(found)
        error = _field_error(network, observed, evidence, target, found)
        results.append((found, nodes, weight[members].sum(), error))
    return _tree(results, network.config.latent)


@pytree
@dataclass(frozen=True)
class Target:
    """All that the density of one galaxy in one mode is made of."""

    decoder: DecoderArrays
    pixels: PixelArrays
    """Leading axis spectrum."""
    scale: Float[Array, ""]
    redshift: RedshiftArrays
    node: Float[Array, " node"]
    """ln(1 + z), equally spaced."""
    field: FieldArrays
    """Leading axis node."""


def log_density(target: Target, point: Float[Array, " dimension"]) -> Float[Array, ""]:
    """ln p(ln(1 + z), u, x | c) of one galaxy, up to a constant.

    Args:
        target: Its data.
        point: ln(1 + z), unless there is one node, then u of all spectra.
    """
    x, u = _apart(target, point)
    z = jnp.expm1(x)
    apart = u.reshape(target.pixels.flux.shape[0], -1)
    each = jax.vmap(spectrum_log_prob, in_axes=(None, 0, None, None, 0))(
        target.decoder, apart, z, target.scale, target.pixels
    )
    total = each.sum() + field_log_prob(_field_at(target, x), u)
    if target.node.shape[0] == 1:
        return total
    inside = (x >= target.node[0]) & (x <= target.node[-1])
    return jnp.where(inside, total + redshift_log_prob(target.redshift, z) + x, -jnp.inf)


def _apart(target: Target, point: Array) -> tuple[Array, Array]:
    if target.node.shape[0] == 1:
        return target.node[0], point
    return point[0], point[1:]


def _field_at(target: Target, x: Array) -> FieldArrays:
    """The field at one redshift, between the nodes around it."""
    count = target.node.shape[0]
    if count == 1:
        return _first(target.field)
    step = (target.node[-1] - target.node[0]) / (count - 1)
    place = jnp.clip((x - target.node[0]) / step, 0, count - 1)
    left = jnp.clip(jnp.floor(place).astype(int), 0, count - 2)
    share = place - left
    mixed = jax.tree.map(
        lambda part: (1 - share) * part[left] + share * part[left + 1], target.field
    )
    return FieldArrays(jax.nn.log_softmax(mixed.log_weight), mixed.mean, mixed.whitener)


def _first(tree: _Tree) -> _Tree:
    """The first row of every array."""
    return cast(_Tree, jax.tree.map(lambda part: part[0], tree))


def _standard(around: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and lower root of the covariance; of few points only the diagonal is trusted."""
    count, dimension = around.shape
    covariance = np.atleast_2d(np.cov(around.T))
    diagonal = np.diag(np.diag(covariance) + 1e-12)
    trust = 0.99 if count > 2 * dimension else 0.0
    return around.mean(0), np.linalg.cholesky(trust * covariance + (1 - trust) * diagonal)


def _modes(x: Float[np.ndarray, " draw"]) -> list[np.ndarray]:
    """The draws of each mode, by index: runs of ln(1 + z) without a gap."""
    order = np.argsort(x)
    parts = np.split(order, np.flatnonzero(np.diff(x[order]) > _GAP) + 1)
    kept = [part for part in parts if len(part) >= _FEWEST]
    if not kept:
        raise ValueError(
            f"Expected {_FEWEST} draws or more about some redshift; got {len(x)} draws in "
            f"{len(parts)} places. Propose more draws."
        )
    return kept


def _grid(x: Float[np.ndarray, " draw"]) -> Float[np.ndarray, " node"]:
    margin = 0.5 * np.ptp(x) + _MARGIN
    return np.linspace(max(x.min() - margin, 0.0), x.max() + margin, _NODES)


def _field(
    network: GalaxyModel, observed: Batch, evidence: Spectra, nodes: Float[np.ndarray, " node"]
) -> FieldArrays:
    z = torch.as_tensor(np.expm1(nodes), dtype=evidence.flux.dtype)[None]
    with torch.no_grad():
        field, _ = network.field(network.encode(observed), observed, evidence.aperture, z)
        return _first(field_arrays(field))


def _field_error(
    network: GalaxyModel, observed: Batch, evidence: Spectra, target: Target, found: Chains
) -> float:
    """Scatter of ln p(u | z, c), interpolated less the network's own."""
    every = found.position.reshape(-1, found.position.shape[-1])
    points = jnp.asarray(every[:: max(1, len(every) // _CHECKED)], jnp.float32)
    x, u = jax.vmap(_apart, in_axes=(None, 0))(target, points)
    exact = _field(network, observed, evidence, np.asarray(x, dtype=float))
    near = jax.vmap(_field_at, in_axes=(None, 0))(target, x)
    density = jax.vmap(field_log_prob)
    return float(jnp.std(density(near, u) - density(exact, u)))


def _warn(found: Chains) -> None:
    share = found.diverging.mean()
    if found.r_hat > AGREE or share > 0.01:
        warnings.warn(
            f"Expected chains that agree (R-hat below {AGREE}) and hardly diverge; got R-hat "
            f"{found.r_hat:.3f} and {share:.1%} divergent draws. Ask for more warmup.",
            stacklevel=3,
        )


def _tree(
    results: list[tuple[Chains, np.ndarray, float, float]], latent: int
) -> "xarray.DataTree":
    import xarray

    found = [one for one, *_ in results]
    z, u = [], []
    for chains, nodes, *_ in results:
        point, known = chains.position, len(nodes) == 1
        x = np.full(point.shape[:2], nodes[0]) if known else point[..., 0]
        z.append(np.expm1(x))
        latents = point if known else point[..., 1:]
        u.append(latents.reshape(*latents.shape[:2], -1, latent))
    size = len(found[0].position)
    steps = ("chain", "draw")
    mode = {"mode": ("chain", np.repeat(np.arange(len(results)), size))}
    posterior = {
        "redshift": (steps, np.concatenate(z), {"long_name": "redshift"}),
        "u": ((*steps, "spectrum", "latent"), np.concatenate(u)),
    }
    stats = {
        "lp": (steps, np.concatenate([one.log_density for one in found])),
        "diverging": (steps, np.concatenate([one.diverging for one in found])),
    }
    of_modes = {
        "z_low": [np.expm1(nodes[0]) for _, nodes, *_ in results],
        "z_high": [np.expm1(nodes[-1]) for _, nodes, *_ in results],
        "weight": [weight for *_, weight, _ in results],
        "r_hat": [one.r_hat for one in found],
        "effective": [one.effective for one in found],
        "field_error": [error for *_, error in results],
    }
    tree = xarray.DataTree.from_dict(
        {
            "/posterior": xarray.Dataset(posterior, coords=mode),
            "/sample_stats": xarray.Dataset(stats, coords=mode),
            "/modes": xarray.Dataset({name: ("mode", part) for name, part in of_modes.items()}),
        }
    )
    tree.attrs = {"inference_library": "numpyro"}
    return tree
