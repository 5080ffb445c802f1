"""The continuum and the level of drawn spectra: where repair moves them.

The continuum is ln of the median flux in bins of wavelength, which lines hardly touch; the level
is its mean. A draw whose level has rank u goes to the level of rank G^-1(u), G being the law of
the PIT of true levels (`pit_map.py`), which may depend on what was shown. The whole spectrum is
multiplied by what the move takes: its shape, colours and equivalent widths stay, the draws keep
their order, and a draw stays one galaxy.

Axes: draw, galaxy, pixel, bin.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from probmmae.inference.pit_map import PitMap

FloatArray = NDArray[np.float64]


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


def level(bins: ArrayLike) -> FloatArray:
    """The mean of a continuum over the bins that all spectra have.

    Args:
        bins: As `continuum` gives them, shape (*rest, bin); those NaN anywhere are left out.

    Returns:
        Shape (*rest,); NaN where no bin is left.
    """
    values = np.asarray(bins, dtype=np.float64)
    whole = np.isfinite(values).reshape(-1, values.shape[-1]).all(axis=0)
    if not whole.any():
        return np.full(values.shape[:-1], np.nan)
    return np.asarray(values[..., whole].mean(axis=-1))


def moved(levels: FloatArray, pit_map: PitMap) -> FloatArray:
    """The levels of one galaxy's draws after repair.

    Quantiles between draws are linear in the normal score of the rank; beyond the lowest and the
    highest draw they go on with the standard deviation of the draws for a unit of it.

    Args:
        levels: Finite, shape (draw,).
        pit_map: Of one row.
    """
    count = len(levels)
    ranks = (np.arange(count) + 0.5) / count
    order = np.argsort(levels, kind="stable")
    known, at = special.ndtri(ranks), levels[order]
    wanted = special.ndtri(np.clip(pit_map.inverse(ranks), 1e-9, 1 - 1e-9))
    beyond = wanted - np.clip(wanted, known[0], known[-1])
    new = np.empty(count)
    new[order] = np.interp(wanted, known, at) + beyond * levels.std(ddof=1)
    return new
