"""Fluxes of a spectrum through the broadband filters of a survey: a weight for every pixel.

Axes: pixel.
"""

import numpy as np
from jaxtyping import Float

from probmmae.batch import NANOMAGGIE_FLAMBDA

_COVERED = 0.95
"""A grid must hold this share of a filter's light of a source flat in f_nu."""


def band_weights(
    name: str, wavelength: Float[np.ndarray, " pixel"]
) -> Float[np.ndarray, " pixel"] | None:
    """Weights whose sum over flux (1e-17 erg/s/cm2/Angstrom) is the flux in nanomaggies.

    A photon counter's AB flux; what the grid lacks of a filter's last few per cent is made up for.

    Args:
        name: A filter of speclite, such as "sdss2010-g".
        wavelength: Vacuum pixel centres, Angstrom, increasing.

    Returns:
        None where the grid holds less than 95 % of the filter.
    """
    from speclite.filters import load_filter

    curve = load_filter(name)
    response = np.interp(wavelength, curve.wavelength, curve.response, left=0.0, right=0.0)
    photons = response * wavelength * np.gradient(wavelength)
    source = float((photons * NANOMAGGIE_FLAMBDA / wavelength**2).sum())
    whole = float(
        np.trapezoid(curve.response * NANOMAGGIE_FLAMBDA / curve.wavelength, curve.wavelength)
    )
    return photons / source if source > _COVERED * whole else None
