"""What a galaxy shows: the kind of its evidence, and what a repair may depend on.

From a batch, and the network's redshift density, to one row a galaxy; the truth is not looked at.

Axes: galaxy.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from probmmae.batch import Batch, Images, PhotometryTable, Spectra
from probmmae.inference.redshifts import exact
from probmmae.redshift import RedshiftDensity

FloatArray = NDArray[np.float64]

_REACH = 0.03
"""Of a measurement, in ln wavelength."""
_ANYWHERE = 1e-3
KINDS = ("image", "photometry", "spectrum", "mixture")
"""Of evidence: one sort of measurement alone, or several."""


def kinds(batch: Batch) -> list[str]:
    """The kind of evidence of each galaxy; "" where nothing was measured."""
    counts = _measurements(batch)
    said = []
    for row in zip(*counts.values(), strict=True):
        there = [name for name, count in zip(counts, row, strict=True) if count > 0]
        said.append("" if not there else there[0] if len(there) == 1 else "mixture")
    return said


def covariates(batch: Batch, density: RedshiftDensity) -> dict[str, FloatArray]:
    """What the law of a redshift's PIT may depend on, known without the truth.

    Args:
        batch: What is conditioned on.
        density: p(z | c) of each galaxy, as the network answers.

    Returns:
        ln S/N, ln of the number of pixels and fluxes, and median and ln of the width (half of 16
        to 84 %) of the density, each of shape (galaxy,).
    """
    levels = torch.tensor([0.16, 0.5, 0.84], dtype=torch.float64)[:, None]
    low, middle, high = exact(density).icdf(levels).numpy()
    return {
        **_amount(batch),
        "posterior median": middle,
        "ln posterior width": np.log(np.maximum(high - low, 1e-7) / 2),
    }


def spectrum_covariates(batch: Batch) -> dict[str, FloatArray]:
    """What the law of a spectrum's level may depend on: what is shown, and the known redshift.

    Returns:
        ln S/N, ln of the number of pixels and fluxes, and redshift, each of shape (galaxy,).
    """
    return {**_amount(batch), "redshift": batch.z.double().numpy()}


def _amount(batch: Batch) -> dict[str, FloatArray]:
    """How much is shown of each galaxy."""
    number = np.sum(list(_measurements(batch).values()), axis=0)
    return {
        "ln S/N": np.log(signal_to_noise(batch)),
        "ln measurements": np.log(np.maximum(number, 1.0)),
    }


def signal_to_noise(batch: Batch) -> FloatArray:
    """Root of the sum of (flux / error)^2 over all that each galaxy shows, at least 1e-3."""
    total = torch.zeros(len(batch), dtype=torch.float64)
    for part in _parts(batch).values():
        total += (part.flux.double() ** 2 * part.ivar.double()).flatten(1).sum(1)
    return np.asarray(total.sqrt().clamp(min=1e-3).numpy())


def signal_to_noise_near(batch: Batch, wavelength: FloatArray) -> FloatArray:
    """Root of the sum of (flux / error)^2 over what each galaxy shows near wavelengths.

    A measurement counts by exp(-|ln of the ratio of wavelengths| / 0.03), and by a thousandth
    wherever it lies: what is known of a spectrum is known best where it was seen.

    Args:
        batch: What is conditioned on.
        wavelength: Observed, Angstrom, shape (wavelength,).

    Returns:
        At least 1e-3, shape (galaxy, wavelength).
    """
    asked = torch.log(torch.as_tensor(wavelength, dtype=torch.float64))
    total = torch.zeros(len(batch), len(asked), dtype=torch.float64)
    for part in _parts(batch).values():
        place = torch.log(part.wavelength.double())
        square = part.flux.double() ** 2 * part.ivar.double()
        square = square.flatten(place.dim()).sum(-1) if square.dim() > place.dim() else square
        for column, one in enumerate(asked):
            near = torch.exp((place - one).abs() / -_REACH) + _ANYWHERE
            total[:, column] += (square * near).flatten(1).sum(1)
    return np.asarray(total.sqrt().clamp(min=1e-3).numpy())


def _measurements(batch: Batch) -> dict[str, NDArray[np.int64]]:
    """Number of visible pixels and fluxes of each sort, shape (galaxy,)."""
    return {
        name: (part.ivar > 0).flatten(1).sum(1).numpy() for name, part in _parts(batch).items()
    }


def _parts(batch: Batch) -> dict[str, Images | PhotometryTable | Spectra]:
    return {"image": batch.images, "photometry": batch.photometry, "spectrum": batch.spectra}
