r"""The exact density of one galaxy: p(z | c) p(u | z, c) prod_t p(x_t | u, z, c), for samplers.

What depends on the context c is evaluated by the network beforehand. p(z | c) is a mixture and is
used as it is. p(u | z, c) depends on z through the prior network: its parameters (class weights,
means, whitening matrices) are taken on a grid of redshifts and interpolated linearly in ln(1 + z);
between nodes it is a normalised density still, at nodes the exact one. `field_error` is the
scatter of the difference of the two in ln p over draws: small for a context of images and
photometry, less so where c has read spectra, which are binned in the rest frame. Of a known
redshift the grid is one node and nothing is interpolated.

Axes: draw, node (of redshift), dimension (of what is sampled: ln(1 + z), unless z is known, then u
of all queries), query, latent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from jaxtyping import Float, Int

from probmmae.batch import Batch, Spectra
from probmmae.encoder import Context
from probmmae.inference.evidence import Measured, padded
from probmmae.inference.jax_decoder import (
    DecoderArrays,
    FieldArrays,
    FilterArrays,
    LineArrays,
    PixelArrays,
    RedshiftArrays,
    decoder_arrays,
    field_arrays,
    field_log_prob,
    filter_arrays,
    filter_log_prob,
    line_arrays,
    line_log_prob,
    pixel_arrays,
    pytree,
    redshift_arrays,
    redshift_log_prob,
    spectrum_log_prob,
)
from probmmae.model import GalaxyModel

_PIXELS = 256
"""Grids are padded to a multiple of this: galaxies alike share one compiled program."""
_CHECKED = 32
"""Draws at which the interpolated field is held against the network's."""

_Tree = TypeVar("_Tree")


@pytree
@dataclass(frozen=True)
class Target:
    """All that the density of one galaxy in one mode is made of."""

    decoder: DecoderArrays
    spectra: PixelArrays | None
    """Leading axis spectrum, as is that of the first queries."""
    filters: FilterArrays | None
    filter_slot: Int[Array, " filter"] | None
    """The query of each filter."""
    lines: LineArrays | None
    line_slot: Int[Array, " line"] | None
    scale: Float[Array, ""]
    redshift: RedshiftArrays
    node: Float[Array, " node"]
    """ln(1 + z), equally spaced."""
    field: FieldArrays
    """Leading axis node."""


@dataclass(frozen=True)
class Source:
    """One galaxy and its new evidence, from which targets are made."""

    network: GalaxyModel
    observed: Batch
    """What the network has conditioned on: a batch of one."""
    context: Context
    evidence: Measured
    """Of one galaxy."""

    @property
    def known(self) -> bool:
        """Whether the redshift is."""
        return bool(self.observed.z_known[0])

    def target(self, nodes: Float[np.ndarray, " node"]) -> Target:
        """The density on a grid of ln(1 + z), equally spaced; of one node where z is known."""
        told = self.evidence
        filters, lines, spectra = told.filters, told.lines, told.spectra
        with torch.no_grad():
            density = redshift_arrays(self.network.redshift(self.context)[0])
        return Target(
            decoder=decoder_arrays(self.network),
            spectra=None if spectra is None else first(pixel_arrays(_rounded(spectra))),
            filters=None if filters is None else first(filter_arrays(filters)),
            filter_slot=None if filters is None else jnp.asarray(filters.slot[0].numpy()),
            lines=None if lines is None else first(line_arrays(lines)),
            line_slot=None if lines is None else jnp.asarray(lines.slot[0].numpy()),
            scale=jnp.asarray(self.context.scale[0].numpy()),
            redshift=density,
            node=jnp.asarray(nodes, jnp.float32),
            field=self.field(nodes),
        )

    @torch.no_grad()
    def field(self, nodes: Float[np.ndarray, " node"]) -> FieldArrays:
        """p(u | z, c) at redshifts of which ln(1 + z) is given; leading axis node."""
        aperture = self.evidence.aperture
        z = torch.as_tensor(np.expm1(nodes), dtype=aperture.dtype)[None]
        field, _ = self.network.field(self.context, self.observed, aperture, z)
        return first(field_arrays(field))

    def field_error(self, target: Target, position: Float[np.ndarray, "draw dimension"]) -> float:
        """Scatter of ln p(u | z, c), interpolated less the network's own, over draws."""
        some = position[:: max(1, len(position) // _CHECKED)]
        x, u = jax.vmap(apart, in_axes=(None, 0))(target, jnp.asarray(some, jnp.float32))
        exact = self.field(np.asarray(x, dtype=float))
        near = jax.vmap(_field_at, in_axes=(None, 0))(target, x)
        density = jax.vmap(field_log_prob)
        return float(jnp.std(density(near, u) - density(exact, u)))


def log_density(target: Target, point: Float[Array, " dimension"]) -> Float[Array, ""]:
    """ln p(ln(1 + z), u, x | c) of one galaxy; ln p(u, x | z, c) where z is known."""
    x, u = apart(target, point)
    z = jnp.expm1(x)
    latent = target.decoder.straight.shape[1] + 1
    queries = u.reshape(-1, latent)

    def told(density: Callable[..., Array], where: Array, data: Any) -> Array:
        each = jax.vmap(density, in_axes=(None, 0, None, None, 0))
        return each(target.decoder, where, z, target.scale, data).sum()

    total = field_log_prob(_field_at(target, x), u)
    if target.spectra is not None:
        of = queries[: target.spectra.flux.shape[0]]
        total = total + told(spectrum_log_prob, of, target.spectra)
    if target.filters is not None and target.filter_slot is not None:
        total = total + told(filter_log_prob, queries[target.filter_slot], target.filters)
    if target.lines is not None and target.line_slot is not None:
        total = total + told(line_log_prob, queries[target.line_slot], target.lines)
    if target.node.shape[0] == 1:
        return total
    inside = (x >= target.node[0]) & (x <= target.node[-1])
    return jnp.where(inside, total + redshift_log_prob(target.redshift, z) + x, -jnp.inf)


def apart(target: Target, point: Float[Array, " dimension"]) -> tuple[Array, Array]:
    """ln(1 + z), and u of all queries."""
    if target.node.shape[0] == 1:
        return target.node[0], point
    return point[0], point[1:]


def _field_at(target: Target, x: Array) -> FieldArrays:
    """The field at one redshift, between the nodes around it."""
    count = target.node.shape[0]
    if count == 1:
        return first(target.field)
    step = (target.node[-1] - target.node[0]) / (count - 1)
    place = jnp.clip((x - target.node[0]) / step, 0, count - 1)
    left = jnp.clip(jnp.floor(place).astype(int), 0, count - 2)
    share = place - left
    mixed = jax.tree.map(
        lambda part: (1 - share) * part[left] + share * part[left + 1], target.field
    )
    return FieldArrays(jax.nn.log_softmax(mixed.log_weight), mixed.mean, mixed.whitener)


def first(tree: _Tree) -> _Tree:
    """The first row of every array."""
    return cast(_Tree, jax.tree.map(lambda part: part[0], tree))


def _rounded(spectra: Spectra) -> Spectra:
    """Padded to a multiple of `_PIXELS` pixels."""
    return padded(spectra, -(-spectra.flux.shape[-1] // _PIXELS) * _PIXELS)
