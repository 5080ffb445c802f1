"""Emission that young stars do not power: from an equivalent width of H-alpha to a line list.

Old populations glow faintly (LIER-like: low ionisation, strong [NII]) and some nuclei strongly
(Seyfert-like: high [OIII]). Without it a quiescent galaxy would have lines of exactly zero.

Axes: row (any population), line.

References:
    Belfiore et al. 2016 (MNRAS 461, 3111), Kewley et al. 2006 (MNRAS 372, 961).
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from probmmae.templates import Templates

#: Flux relative to H-alpha in old populations; decimal logarithm of the change to a Seyfert.
_RATIO: dict[str, tuple[float, float]] = {
    "[OII]3727": (0.75, -0.3), "[OII]3730": (0.95, -0.3), "[NeIII]3870": (0.10, 0.45),
    "[NeIII]3969": (0.03, 0.45), "H-epsilon": (0.055, 0.0), "[SII]4070": (0.04, 0.0),
    "H-delta": (0.089, 0.0), "H-gamma": (0.163, 0.0), "[OIII]4364": (0.01, 0.6),
    "HeII4687": (0.01, 0.9), "H-beta": (0.345, 0.0), "[OIII]4960": (0.20, 0.62),
    "[OIII]5008": (0.60, 0.62), "[NI]5202": (0.04, 0.0), "HeI5877": (0.03, 0.1),
    "[OI]6302": (0.18, -0.1), "[OI]6366": (0.06, -0.1), "[NII]6550": (0.34, -0.1),
    "H-alpha": (1.0, 0.0), "[NII]6585": (1.0, -0.1), "[SII]6718": (0.50, -0.25),
    "[SII]6733": (0.42, -0.2), "[ArIII]7138": (0.03, 0.4), "[OII]7325": (0.03, 0.0),
    "[OII]7334": (0.025, 0.0), "[SIII]9071": (0.12, 0.2), "[SIII]9533": (0.30, 0.2),
}  # fmt: skip


@lru_cache(maxsize=2)
def _pattern(templates: Templates) -> tuple[Tensor, Tensor]:
    pairs = [_RATIO.get(name, (0.0, 0.0)) for name in templates.line_name]
    base, change = torch.tensor(pairs).T
    return base.contiguous(), change.contiguous()


@lru_cache(maxsize=2)
def species(templates: Templates) -> Tensor:
    """Which lines vary together: 0 H and He, 1 N+, 2 O0 and O+, 3 O++ and Ne++, 4 S, Ar."""
    groups = []
    for name in templates.line_name:
        if name.startswith("[N") and not name.startswith("[Ne"):
            groups.append(1)
        elif name.startswith("[OIII]") or name.startswith("[Ne"):
            groups.append(3)
        elif name.startswith("[O"):
            groups.append(2)
        else:
            groups.append(4 if name.startswith("[") else 0)
    return torch.tensor(groups)


def weak_lines(
    templates: Templates,
    continuum: Float[Tensor, "row basis"],
    *,
    width: Float[Tensor, " row"],
    hardness: Float[Tensor, " row"],
    dust_av: Float[Tensor, " row"],
) -> Float[Tensor, "row line"]:
    """Line fluxes in the unit of `continuum` times Angstrom.

    Args:
        templates: The lines and curves.
        continuum: Weights of the continuum behind the lines.
        width: Equivalent width of H-alpha as seen, Angstrom, rest frame.
        hardness: 0 for an old population, 1 for a Seyfert nucleus.
        dust_av: Magnitudes; it changes the ratios to H-alpha.
    """
    base, change = _pattern(templates)
    near = (templates.wavelength > 6480) & (templates.wavelength < 6640)
    level = (continuum @ templates.continuum[:, near].mean(1)).clamp(min=0)
    ratio = base * 10 ** (hardness[:, None] * change)
    # Calzetti's curve near enough: k(lambda)/k(V) as a power of wavelength.
    slope = (templates.line_wavelength / 5500) ** -0.95
    reddening = slope - (6564.6 / 5500) ** -0.95
    return (width * level)[:, None] * ratio * 10 ** (-0.4 * dust_av[:, None] * reddening)
