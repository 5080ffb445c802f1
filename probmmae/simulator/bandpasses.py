"""Filter curves as matrices: from continuum weights and line fluxes to nanomaggies at any z.

For one redshift the AB flux of a galaxy in a band is linear in its `RestSpectrum`, so a table over
redshift replaces every rendering of a spectrum.

Axes: band, node (redshift), basis, line, galaxy, part.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probmmae.batch import NANOMAGGIE_FLAMBDA
from probmmae.templates import Templates, load_templates

HSC = tuple(f"hsc2017-{band}" for band in "grizy")
SDSS = tuple(f"sdss2010-{band}" for band in "ugriz")
DECAM = tuple(f"decam2014-{band}" for band in "grz")

_Z_STEP = 0.001
_Z_MAX = 0.8


@dataclass(frozen=True, eq=False)
class Bandpasses:
    """What a unit of each curve and of each line adds to a band, over redshift."""

    names: tuple[str, ...]
    """speclite names of the bands."""
    wavelength: Float[Tensor, " band"]
    """Effective (photon-weighted) wavelength, as in `probmmae.bands`, Angstrom."""
    continuum: Float[Tensor, "node band basis"]
    """Nanomaggies a unit of continuum weight (1e-17 erg/s/cm2/Angstrom)."""
    lines: Float[Tensor, "node band line"]
    """Nanomaggies a unit of line flux (1e-17 erg/s/cm2)."""

    def flux(
        self,
        z: Float[Tensor, " galaxy"],
        continuum: Float[Tensor, "galaxy part basis"],
        lines: Float[Tensor, "galaxy part line"],
    ) -> Float[Tensor, "galaxy part band"]:
        """AB flux in nanomaggies, linear between the nodes in redshift."""
        position = (z / _Z_STEP).clamp(0, self.continuum.shape[0] - 1.001)
        node = position.long()
        weight = (position - node)[:, None, None]
        curve = torch.lerp(self.continuum[node], self.continuum[node + 1], weight)
        line = torch.lerp(self.lines[node], self.lines[node + 1], weight)
        return torch.bmm(continuum, curve.mT) + torch.bmm(lines, line.mT)


@lru_cache(maxsize=8)
def load_bandpasses(names: tuple[str, ...] = HSC) -> Bandpasses:
    """The tables of the named speclite filters, computed once (about a second a band).

    A filter that reaches beyond the templates at some redshift sees their last value there.
    """
    import speclite.filters  # late: loading it costs as much as everything else here

    templates = load_templates()
    nodes = np.arange(0.0, _Z_MAX + _Z_STEP, _Z_STEP)
    wavelengths, continua, lines = [], [], []
    for name in names:
        curve = speclite.filters.load_filter(name)
        wavelength = np.arange(curve.wavelength[0], curve.wavelength[-1], 2.0)
        response = np.interp(wavelength, curve.wavelength, curve.response)
        reference = NANOMAGGIE_FLAMBDA * np.sum(response / wavelength) * 2.0
        wavelengths.append(curve.effective_wavelength.value)
        continua.append(
            _continuum(templates, nodes, wavelength, response * wavelength * 2.0 / reference)
        )
        at = templates.line_wavelength.numpy() * (1 + nodes[:, None])
        lines.append(np.interp(at, wavelength, response, left=0, right=0) * at / reference)
    return Bandpasses(
        names=names,
        wavelength=torch.tensor(wavelengths, dtype=torch.float32),
        continuum=torch.from_numpy(np.stack(continua, axis=1).astype(np.float32)),
        lines=torch.from_numpy(np.stack(lines, axis=1).astype(np.float32)),
    )


def _continuum(
    templates: Templates,
    nodes: np.ndarray,
    wavelength: np.ndarray,
    weight: np.ndarray,
) -> np.ndarray:
    """Weighted sums of every curve under one filter, shape (node, basis)."""
    curves = templates.continuum.double().numpy().T
    start = float(templates.wavelength[0])
    out = np.empty((len(nodes), curves.shape[1]))
    for row, z in enumerate(nodes):
        position = np.log(wavelength / (1 + z) / start) / templates.step
        position = position.clip(0, curves.shape[0] - 1.001)
        left = position.astype(int)
        part = position - left
        spread = np.bincount(left, weight * (1 - part), curves.shape[0])
        spread += np.bincount(left + 1, weight * part, curves.shape[0])
        inside = slice(left[0], left[-1] + 2)
        out[row] = spread[inside] @ curves[inside]
    return out
