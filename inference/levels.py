"""The level and the continuum of drawn spectra: where repair moves them.

The level is ln of a spectrum's mean flux. Its deviations from the mean of the draws are multiplied
by a factor; then a draw of rank u goes to the level of rank G^-1(u), G being the law of the PIT of
true levels (`pit_map.py`), which may depend on what was shown. Ranks alone could not tell how much
too narrow draws are that no truth lies among. The whole spectrum is multiplied by what the move
takes: its shape, colours and equivalent widths stay, the draws keep their order, and a draw stays
one galaxy. The continuum is ln of the median flux in bins of wavelength, which lines hardly touch;
what moves it multiplies lines and continuum alike.

Axes: draw, galaxy, pixel, bin.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from probmmae.inference.pit_map import PitMap

FloatArray = NDArray[np.float64]


def level(flux: ArrayLike) -> FloatArray:
    """ln of the mean flux over the pixels that all spectra have.

    Args:
        flux: Any flux unit, shape (*rest, pixel); a pixel that is NaN anywhere is left out.

    Returns:
        Shape (*rest,); NaN where the mean flux is not positive.
    """
    values = np.asarray(flux, dtype=np.float64)
    whole = np.isfinite(values).reshape(-1, values.shape[-1]).all(axis=0)
    mean = np.where(whole, values, 0.0).sum(axis=-1) / max(int(whole.sum()), 1)
    return np.log(np.where(mean > 0, mean, np.nan))


def continuum(flux: ArrayLike, bins: int) -> FloatArray:
    """ln of the median flux in bins of equally many pixels.

    Args:
        flux: Any flux unit, shape (*rest, pixel).
        bins: Their number; what is left over at the red end belongs to none.

    Returns:
        Shape (*rest, bin); NaN where a pixel is, and where the median is not positive.
    """
    values = np.asarray(flux, dtype=np.float64)
    width = values.shape[-1] // bins
    cells = values[..., : bins * width].reshape(*values.shape[:-1], bins, width)
    middle = np.median(cells, axis=-1)
    return np.log(np.where(middle > 0, middle, np.nan))


def moved(levels: FloatArray, factor: float, pit_map: PitMap | None) -> FloatArray:
    """The levels of one galaxy's draws after repair.

    Quantiles between draws are linear in the normal score of the rank; beyond the lowest and the
    highest draw they go on with the standard deviation of the draws for a unit of it.

    Args:
        levels: Finite, shape (draw,).
        factor: Of deviations from the mean.
        pit_map: Of one row; None where ranks stay.
    """
    wide = levels.mean() + factor * (levels - levels.mean())
    if pit_map is None:
        return np.asarray(wide)
    count = len(wide)
    ranks = (np.arange(count) + 0.5) / count
    order = np.argsort(wide, kind="stable")
    known, at = special.ndtri(ranks), wide[order]
    wanted = special.ndtri(np.clip(pit_map.inverse(ranks), 1e-9, 1 - 1e-9))
    beyond = wanted - np.clip(wanted, known[0], known[-1])
    new = np.empty(count)
    new[order] = np.interp(wanted, known, at) + beyond * wide.std(ddof=1)
    return new
