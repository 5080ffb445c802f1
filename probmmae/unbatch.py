"""From a padded `Batch` back to `Galaxy` objects: the inverse of `collate`.

It turns simulated galaxies, which are born as batches, into what files and users hold.

Axes: galaxy, band, y, x, spectrum, pixel.
"""

from collections.abc import Sequence

import torch

from probmmae.bands import EFFECTIVE_WAVELENGTH
from probmmae.batch import Batch
from probmmae.galaxy import Aperture, BandImage, Galaxy, Photometry, Scalar, Spectrum

_TOLERANCE = 0.03
"""Relative difference of effective wavelengths that makes two bands one."""


def unbatch(batch: Batch, ids: Sequence[str], *, survey: str = "hsc") -> list[Galaxy]:
    """The galaxies of a batch; what has no pixel with ivar > 0 is left out.

    Args:
        batch: Any batch on the CPU.
        ids: A name for each galaxy.
        survey: Whose bands they are, to name them by their effective wavelengths (`bands`).

    Raises:
        ValueError: Not one id per galaxy.
    """
    if len(ids) != len(batch):
        raise ValueError(
            f"Expected one id for each of {len(batch)} galaxies; got {len(ids)}. Give as many."
        )
    return [_galaxy(batch, row, name, survey) for row, name in enumerate(ids)]


def _galaxy(batch: Batch, row: int, name: str, survey: str) -> Galaxy:
    images, photometry = batch.images, batch.photometry
    centre = (float(images.centre[row, 0]), float(images.centre[row, 1]))
    pictures = tuple(
        BandImage.in_batch_units(
            _band(survey, float(images.wavelength[row, band])),
            images.flux[row, band].numpy(),
            ivar=images.ivar[row, band].numpy(),
            pixel_scale=float(images.pixel_scale[row]),
            psf_fwhm=float(images.psf_fwhm[row, band]),
            wavelength=float(images.wavelength[row, band]),
            centre=centre,
        )
        for band in _present(images.ivar[row])
    )
    totals = tuple(
        Photometry.in_batch_units(
            _band(survey, float(photometry.wavelength[row, band])),
            float(photometry.flux[row, band]),
            ivar=float(photometry.ivar[row, band]),
            wavelength=float(photometry.wavelength[row, band]),
        )
        for band in _present(photometry.ivar[row])
    )
    spectra = tuple(_spectrum(batch, row, index) for index in _present(batch.spectra.ivar[row]))
    known = bool(batch.z_known[row])
    return Galaxy(
        name,
        images=pictures,
        photometry=totals,
        spectra=spectra,
        scalars={"redshift": Scalar(float(batch.z[row]))} if known else {},
    )


def _present(ivar: torch.Tensor) -> list[int]:
    """Which of the entries along the first axis have any pixel."""
    seen = (ivar > 0).flatten(1).any(1) if ivar.ndim > 1 else ivar > 0
    return torch.nonzero(seen)[:, 0].tolist()


def _spectrum(batch: Batch, row: int, index: int) -> Spectrum:
    spectra = batch.spectra
    wavelength = spectra.wavelength[row, index].double().numpy()
    # Padding repeats the last wavelength.
    end = 1 + int((wavelength[1:] > wavelength[:-1]).sum())
    dx, dy, diameter, seeing = spectra.aperture[row, index].tolist()
    return Spectrum.in_batch_units(
        wavelength[:end],
        spectra.flux[row, index, :end].numpy(),
        ivar=spectra.ivar[row, index, :end].numpy(),
        sigma=spectra.sigma[row, index, :end].numpy(),
        aperture=Aperture.in_batch_units(dx, dy, diameter=diameter, seeing=seeing),
        name=f"fibre {index}",
    )


def _band(survey: str, wavelength: float) -> str:
    """The survey's band at this wavelength, or a name that says the wavelength."""
    prefix = f"{survey}-"
    near = {
        abs(known / wavelength - 1): name
        for name, known in EFFECTIVE_WAVELENGTH.items()
        if name.startswith(prefix)
    }
    closest = min(near, default=1.0)
    return near[closest] if closest < _TOLERANCE else f"{survey}-{wavelength:.0f}A"
