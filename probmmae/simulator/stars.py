"""Stellar populations as weights of the templates: from ages, metals, dust and gas to light.

Axes: row (any population), age, node, basis, line.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from probmmae.templates import Templates

_SUBSTEPS = 4


@dataclass(frozen=True)
class Light:
    """What populations emit for each solar mass formed."""

    continuum: Float[Tensor, "row basis"]
    """Weights of the templates' curves, Lsun/Angstrom."""
    lines: Float[Tensor, "row line"]
    """Lsun."""


def delayed_tau(
    templates: Templates, start: Float[Tensor, " row"], tau: Float[Tensor, " row"]
) -> Float[Tensor, "row age"]:
    """Mass formed in each age bin by t exp(-t / tau), a unit of mass in all.

    Args:
        templates: Their age bins.
        start: Time since the first star, years.
        tau: Time scale, years.
    """
    low, high = templates.age_edges[:-1], templates.age_edges[1:]
    part = (torch.arange(_SUBSTEPS) + 0.5) / _SUBSTEPS
    age = low[:, None] + (high - low)[:, None] * part
    since = (start[:, None, None] - age).clamp(min=0) / tau[:, None, None]
    rate = (since * torch.exp(-since)).mean(-1) + 1e-12
    mass = rate * (high - low)
    return mass / mass.sum(-1, keepdim=True)


@lru_cache(maxsize=2)
def _flat_nodes(templates: Templates) -> tuple[Tensor, Tensor]:
    """The node tables with basis and line side by side and all other axes flattened."""
    stars = templates.stellar_continuum.flatten(0, 2)
    gas = torch.cat([templates.nebular_continuum, templates.nebular_line], dim=-1).flatten(0, 3)
    return stars, gas


def _between(nodes: Tensor, value: Tensor) -> Tensor:
    """Linear interpolation weights over `nodes`, shape (row, node)."""
    value = value.clamp(float(nodes[0]), float(nodes[-1]))
    right = torch.searchsorted(nodes, value).clamp(1, nodes.shape[0] - 1)
    part = (value - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
    weights = torch.zeros(value.shape[0], nodes.shape[0])
    weights.scatter_(1, (right - 1)[:, None], (1 - part)[:, None])
    return weights.scatter_(1, right[:, None], part[:, None])


def light(
    templates: Templates,
    mass: Float[Tensor, "row age"],
    *,
    log_metallicity: Float[Tensor, " row"],
    dust_av: Float[Tensor, " row"],
    log_u: Float[Tensor, " row"],
) -> Light:
    """Stars and their gas, with dust, for masses formed in each age bin.

    Between nodes of metallicity and dust the spectra are mixed in proportion, which is a physical
    spectrum too (two populations side by side).

    Args:
        templates: The node tables.
        mass: Mass formed in each age bin, any unit.
        log_metallicity: Decimal logarithm of solar units.
        dust_av: Magnitudes.
        log_u: Decimal logarithm of the ionisation parameter.
    """
    stars, gas = _flat_nodes(templates)
    metal = _between(torch.log10(templates.metallicity), log_metallicity)
    dust = _between(templates.dust_av, dust_av)
    ionisation = _between(templates.log_u, log_u)
    young = mass[:, : templates.nebular_line.shape[2]]
    both = torch.einsum("rz,ra,rd->rzad", metal, mass, dust).flatten(1)
    glow = torch.einsum("rz,ru,ry,rd->rzuyd", metal, ionisation, young, dust).flatten(1)
    basis = templates.continuum.shape[0]
    emitted = glow @ gas
    return Light(continuum=both @ stars + emitted[:, :basis], lines=emitted[:, basis:])
