"""One network: from the photometry of a galaxy to its density of redshift.

The features of a band and the density are those of the full model. What differs suits a single
table, whose bands and depths are known beforehand. Every band has weights of its own in the first
layer, so that two surveys' bands of one wavelength are not taken for one (on the JWST table a CDE
loss lower by 0.6 than with the weights of all bands made from their wavelengths). Magnitudes and
colours at the typical depth of each band stand beside those at the galaxy's own (lower by 0.4).
Features are standardised; a missing band is left out of the sum and said to be missing. A part of
the hidden units is left out at every step of training (dropout): on tables of some thousand
galaxies the networks learn them by heart otherwise.

Axes: galaxy, band, feature, layer, hidden (unit), component.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from probmmae.batch import PhotometryTable, Rows
from probmmae.masking import only_photometry
from probmmae.photometric.recipe import FitConfig
from probmmae.redshift import RedshiftDensity
from probmmae.tokens import PHOTOMETRY_FEATURES, tokenize

LAYERS = 3
"""Hidden layers."""
_FEATURES = PHOTOMETRY_FEATURES + 3
_NARROWEST = 5e-3
"""Least width of a component in ln(1 + z), below what broad bands can tell."""
_CHUNK = 4096
"""Galaxies whose features are computed at a time."""


@dataclass(frozen=True)
class Features(Rows):
    """What the networks see of galaxies."""

    own: Float[Tensor, "galaxy band own"]
    """`Tokens.photometry_values`, as the full model computes them."""
    typical: Float[Tensor, "galaxy band typical"]
    """asinh magnitude softened at twice the band's typical error, ln error, and the colour against
    the next band of the recipe, which tells apertures apart; natural logarithms of nanomaggies."""
    visible: Bool[Tensor, "galaxy band"]

    @property
    def values(self) -> Float[Tensor, "galaxy band feature"]:
        """Both side by side."""
        return torch.cat([self.own, self.typical], dim=-1)


def typical_errors(table: PhotometryTable) -> Float[Tensor, " band"]:
    """The median error of each band, nanomaggies; 1 where nothing is measured."""
    error = torch.where(table.ivar > 0, table.ivar.clamp(min=1e-20).rsqrt(), torch.nan)
    return torch.nan_to_num(error.nanmedian(0).values, nan=1.0)


def features_of(table: PhotometryTable, typical: Float[Tensor, " band"]) -> Features:
    """The features of every galaxy; `typical` is the error of each band, nanomaggies."""
    rows, bands = table.flux.shape
    own = table.flux.new_zeros(rows, bands, PHOTOMETRY_FEATURES)
    for start in range(0, rows, _CHUNK):
        part = table.take(slice(start, start + _CHUNK))
        tokens = tokenize(only_photometry(part, torch.zeros(len(part.flux))))
        # Bands of images, of which there are none, come after those of the catalogue.
        own[start : start + _CHUNK] = tokens.photometry_values[:, :bands]
    seen = table.ivar > 0
    bright = torch.asinh(table.flux / (2 * typical)) + torch.log(2 * typical)
    colour = torch.zeros_like(bright)
    colour[:, :-1] = (bright[:, 1:] - bright[:, :-1]) * (seen[:, 1:] & seen[:, :-1])
    error = -0.5 * torch.log(table.ivar.clamp(min=1e-20))
    values = torch.stack([bright, error, colour], dim=-1) * seen[..., None]
    return Features(own, values, seen)


class PhotometricNetwork(nn.Module):
    """p(z | photometry), a mixture of Gaussians on ln(1 + z)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, bands: int, config: FitConfig) -> None:
        super().__init__()
        self.components = config.components
        self.register_buffer("mean", torch.zeros(bands, _FEATURES))
        self.register_buffer("deviation", torch.ones(bands, _FEATURES))
        widths = [bands * (_FEATURES + 1), *[config.hidden] * LAYERS]
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.last = nn.Linear(config.hidden, 3 * config.components)
        nn.init.normal_(self.last.weight, std=0.02)
        nn.init.zeros_(self.last.bias)

    def begin(self, features: Features, z: Float[Tensor, " known"]) -> None:
        """Standardise the features, and spread the components over the redshifts `z`."""
        seen = features.visible[..., None].to(features.values.dtype)
        count = seen.sum(0).clamp(min=1)
        values = features.values
        self.mean = (values * seen).sum(0) / count
        square = ((values - self.mean) ** 2 * seen).sum(0) / count
        self.deviation = square.sqrt().clamp(min=1e-2)
        x = torch.log1p(z)
        with torch.no_grad():
            _, loc, log_scale = self.last.bias.split(self.components)
            loc.copy_(torch.quantile(x, (torch.arange(len(loc)) + 0.5) / len(loc)))
            log_scale.fill_(math.log(float(x.std()) / 2 + 1e-3))

    def inputs(self, features: Features) -> Float[Tensor, "galaxy input"]:
        """Standardised features of every band, and whether it is there."""
        seen = features.visible[..., None].to(features.values.dtype)
        values = (features.values - self.mean) / self.deviation * seen
        return torch.cat([values, seen], dim=-1).flatten(1)

    def forward(
        self,
        inputs: Float[Tensor, "galaxy input"],
        kept: Float[Tensor, "layer galaxy hidden"] | None = None,
    ) -> RedshiftDensity:
        """The density of each galaxy.

        No component is a needle or leans on z = 0 from below, as one of a stranger could: a single
        galaxy would outweigh a whole catalogue in the integral of the squared density.

        Args:
            inputs: As `inputs` makes them.
            kept: In training, the factors of the hidden units; 0 leaves one out.
        """
        found = inputs
        for number, layer in enumerate(self.hidden):
            found = nn.functional.gelu(layer(found), approximate="tanh")
            if kept is not None:
                found = found * kept[number]
        logits, loc, log_scale = self.last(found).split(self.components, dim=-1)
        scale = (torch.exp(2 * log_scale.clamp(-9.0, 1.0)) + _NARROWEST**2).sqrt()
        return RedshiftDensity(logits, loc.clamp(min=0.0), scale)

    def density(self, features: Features) -> RedshiftDensity:
        """The density of each galaxy from its features."""
        return self(self.inputs(features))


def mixture(densities: Sequence[RedshiftDensity]) -> RedshiftDensity:
    """The average of densities of the same galaxies, in equal parts."""
    return RedshiftDensity(
        torch.cat([one.log_weight for one in densities], dim=-1),
        torch.cat([one.loc for one in densities], dim=-1),
        torch.cat([one.scale for one in densities], dim=-1),
    )
