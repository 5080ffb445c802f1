"""Light profiles as mixtures of Gaussians, so that seeing and pixels cost but a variance.

The weights below are what `fit_mixture` finds (non-negative least squares, more weight to where
more light is); `python -m probmmae.simulator.profiles` prints them. A mixture is a list of (width,
weight): widths in scale lengths (disk), half-light radii (bulge) or FWHM (point-spread function).

References:
    Hogg & Lang 2013 (PASP 125, 719, arXiv:1210.6563), who introduced mixtures for galaxy profiles.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mixture = tuple[tuple[float, float], ...]

_DISK_WIDTHS = (0.263, 0.702, 1.273, 2.343)
_PSF_WIDTHS = (0.394, 0.779)
_LADDER = (0.02, 0.042, 0.08818, 0.18517, 0.38883, 0.81647, 1.71443, 3.6)

#: Exponential disk: widths in scale lengths. Its Gaussians double as the zones of the population.
DISK: Mixture = ((0.263, 0.02158), (0.702, 0.13688), (1.273, 0.45373), (2.343, 0.38781))
#: Moffat profile with beta = 3.5: widths in FWHM.
PSF: Mixture = ((0.394, 0.5704), (0.779, 0.4296))
#: Sersic profiles of index 1 to 4 on one ladder of widths (half-light radii), out to 8 radii.
BULGE_WIDTHS = _LADDER
BULGE: tuple[tuple[float, ...], ...] = (
    (3e-05, 0.00019, 0.00184, 0.01763, 0.12883, 0.60097, 0.25051, 0.0),
    (0.00145, 0.00181, 0.02058, 0.05963, 0.19571, 0.33803, 0.30348, 0.07932),
    (0.00765, 0.00054, 0.05348, 0.0659, 0.21733, 0.24221, 0.27285, 0.14005),
    (0.0187, 0.0, 0.07319, 0.08078, 0.20494, 0.21268, 0.23594, 0.17376),
)


def fit_mixture(
    profile: Callable[[Array], Array], widths: Array, *, inner: float, outer: float
) -> Mixture:
    """Non-negative weights of Gaussians that follow a radial profile, with unit sum.

    Args:
        profile: Surface brightness as a function of radius, any unit.
        widths: Standard deviations of the Gaussians.
        inner: Smallest radius that counts.
        outer: Largest radius that counts.
    """
    from scipy.optimize import nnls

    radius = np.geomspace(inner, outer, 400)
    shapes = np.exp(-0.5 * (radius[:, None] / widths) ** 2) / (2 * np.pi * widths**2)
    light = profile(radius)
    # Equal weight to equal steps of ln(radius) times the light in a step, softened by its root.
    weight = radius / np.sqrt(light * radius**2 + 1e-3 * (light * radius**2).max())
    amplitudes, _ = nnls(shapes * weight[:, None], light * weight)
    amplitudes = amplitudes / amplitudes.sum()
    pairs = zip(widths.tolist(), amplitudes.tolist(), strict=True)
    return tuple((round(width, 5), round(weight, 5)) for width, weight in pairs)


def sersic(index: float) -> Callable[[Array], Array]:
    """Sersic profile of half-light radius 1 (Ciotti & Bertin 1999, A&A 352, 447, for b)."""
    b = 2 * index - 1 / 3 + 4 / (405 * index) + 46 / (25515 * index**2)
    return lambda radius: np.exp(-b * radius ** (1 / index))


def moffat(beta: float) -> Callable[[Array], Array]:
    """Moffat profile of FWHM 1."""
    scale = 0.5 / np.sqrt(2 ** (1 / beta) - 1)
    return lambda radius: (1 + (radius / scale) ** 2) ** -beta


def fitted() -> tuple[Mixture, Mixture, tuple[tuple[float, ...], ...]]:
    """The constants `DISK`, `PSF` and `BULGE`, computed."""
    disk = fit_mixture(
        lambda radius: np.exp(-radius), np.array(_DISK_WIDTHS), inner=0.02, outer=7.0
    )
    psf = fit_mixture(moffat(3.5), np.array(_PSF_WIDTHS), inner=0.01, outer=3.0)
    bulges = tuple(
        tuple(
            weight
            for _, weight in fit_mixture(sersic(index), np.array(_LADDER), inner=0.005, outer=8.0)
        )
        for index in (1.0, 2.0, 3.0, 4.0)
    )
    return disk, psf, bulges


if __name__ == "__main__":
    for constant in fitted():
        print(constant)
