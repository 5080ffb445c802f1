"""Galaxies as padded tensors: from `Galaxy` objects (or the simulator) to the model.

Axes: galaxy, band, y, x, spectrum, pixel. Inside a batch everything is a plain tensor in fixed
units:

- image and photometric flux in nanomaggies (per pixel for images), spectral flux in
  1e-17 erg/s/cm2/Angstrom, observed vacuum wavelengths in Angstrom, angles in arcsec;
- `ivar` is the inverse variance in those units; **ivar = 0 means missing**, everywhere, and the
  flux there is 0;
- the x index of an image grows towards east and the y index towards north; sky positions are
  offsets (dx east, dy north) in arcsec from the galaxy's centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

#: f_lambda in 1e-17 erg/s/cm2/Angstrom of a 1 nanomaggie source is this over wavelength squared
#: (Angstrom): 3.631e-29 erg/s/cm2/Hz (AB) times the speed of light.
NANOMAGGIE_FLAMBDA = 3.631e-29 * 2.99792458e18 * 1e17


class Rows:
    """Row selection and device moves shared by every padded table of galaxies."""

    def map(self, function: Any) -> Self:
        """Apply `function` to every tensor, nested tables included."""
        changed: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Rows):
                changed[field.name] = value.map(function)
            elif isinstance(value, Tensor):
                changed[field.name] = function(value)
        return replace(self, **changed)  # type: ignore[type-var]

    def take(self, index: Any) -> Self:
        """The rows `index` (slice, integer or boolean tensor) of every tensor."""
        return self.map(lambda tensor: tensor[index])

    def join(self, others: Sequence[Self]) -> Self:
        """These rows and then those of the others."""
        changed: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            rest = [getattr(other, field.name) for other in others]
            if isinstance(value, Rows):
                changed[field.name] = value.join(rest)
            elif isinstance(value, Tensor):
                changed[field.name] = torch.cat([value, *rest])
        return replace(self, **changed)  # type: ignore[type-var]

    def to(self, device: torch.device | str) -> Self:
        """Every tensor on `device`."""
        return self.map(lambda tensor: tensor.to(device))


@dataclass(frozen=True)
class Images(Rows):
    """One pixel grid per galaxy, any number of bands on it."""

    flux: Float[Tensor, "galaxy band y x"]
    """Nanomaggies per pixel."""
    ivar: Float[Tensor, "galaxy band y x"]
    """Inverse variance, nanomaggies^-2; 0 is missing."""
    wavelength: Float[Tensor, "galaxy band"]
    """Effective wavelength of the band, Angstrom."""
    psf_fwhm: Float[Tensor, "galaxy band"]
    """FWHM of the point-spread function, arcsec."""
    pixel_scale: Float[Tensor, " galaxy"]
    """Side of a pixel, arcsec."""
    centre: Float[Tensor, "galaxy 2"]
    """Sky position (dx, dy) of the middle of the frame, arcsec."""


@dataclass(frozen=True)
class PhotometryTable(Rows):
    """Total fluxes of catalogue photometry."""

    flux: Float[Tensor, "galaxy band"]
    """Nanomaggies; may be negative."""
    ivar: Float[Tensor, "galaxy band"]
    """Inverse variance, nanomaggies^-2; 0 is missing."""
    wavelength: Float[Tensor, "galaxy band"]
    """Effective wavelength of the band, Angstrom."""


@dataclass(frozen=True)
class Spectra(Rows):
    """Spectra on their native grids, padded at the red end."""

    wavelength: Float[Tensor, "galaxy spectrum pixel"]
    """Pixel centres, Angstrom, increasing; the padding repeats a positive value with ivar 0."""
    flux: Float[Tensor, "galaxy spectrum pixel"]
    """1e-17 erg/s/cm2/Angstrom."""
    ivar: Float[Tensor, "galaxy spectrum pixel"]
    """Inverse variance of `flux`; 0 is missing."""
    sigma: Float[Tensor, "galaxy spectrum pixel"]
    """Gaussian width of the line-spread function (before the pixel), Angstrom."""
    aperture: Float[Tensor, "galaxy spectrum 4"]
    """dx, dy, diameter of the fibre and FWHM of the seeing in front of it, all arcsec."""


@dataclass(frozen=True)
class Batch(Rows):
    """Galaxies side by side; what one galaxy lacks has ivar 0 (or `z_known` False)."""

    images: Images
    photometry: PhotometryTable
    spectra: Spectra
    z: Float[Tensor, " galaxy"]
    """Redshift; 0 where unknown."""
    z_known: Bool[Tensor, " galaxy"]

    def __len__(self) -> int:
        """Number of galaxies."""
        return self.z.shape[0]


def spectrum_level(
    spectra: Spectra,
) -> tuple[Float[Tensor, "galaxy spectrum"], Float[Tensor, "galaxy spectrum"]]:
    """Level of each spectrum (1e-17 erg/s/cm2/Angstrom, positive); 1 if it has pixels, or 0."""
    good = spectra.ivar > 0
    count = good.sum(-1).clamp(min=1)
    mean = (spectra.flux * good).sum(-1) / count
    variance = (good / spectra.ivar.clamp(min=1e-20)).sum(-1) / count**2
    return (mean**2 + variance).clamp(min=1e-12).sqrt(), good.any(-1).to(mean.dtype)
