"""Repair of drawn spectra: stretch the draws about their mean, each one staying one galaxy.

From draws of held-out galaxies and their true spectra to a factor for the deviations of draws from
their mean, in one of two ways:

- `fit_pixel_scale`: a smooth factor of rest wavelength and S/N, for coverage pixel by pixel;
- `fit_principal_scale`: a factor for each principal direction of the galaxy's own draws, from the
  first (often the overall flux, or the colour) to the last, for what many pixels say together. It
  mixes draws linearly, so the sum over any passband of the new draws is the same mixture of the
  sums of the old ones: redshifts aside, everything linear stays consistent.

Both compare truths with left-out draws (`left_out_draws.py`), so the factor is 1 on average where
the posterior is exact. It makes central intervals of 90 % right.

Axes: draw, galaxy, pixel, knot, rank.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probmmae.calibration.left_out_draws import LEFT_OUT, Tally, against_kept, usable
from probmmae.inference.stretch import (
    LEAST_DRAWS,
    PixelScale,
    PrincipalScale,
    drawn,
    log_ranks,
    placed,
    principal,
    tents,
)

FloatArray = NDArray[np.float64]

LEAST_GALAXIES = 50
"""Fewer galaxies than this are refused."""


def fit_pixel_scale(
    draws: ArrayLike, truth: ArrayLike, *, rest_wavelength: ArrayLike, snr: ArrayLike
) -> PixelScale:
    """Learn the factor of each rest wavelength and S/N.

    Knots are even in ln wavelength (12) and lie at quantiles of S/N (4). A knot that few galaxies
    reach is pulled to the factor of all pixels, as a normal prior of width 0.2 on its logarithm
    does; the pixels of one galaxy count as one.

    Args:
        draws: Any flux unit, shape (draw, galaxy, pixel), at least 12 draws.
        truth: Noise-free spectra in the same unit, shape (galaxy, pixel); NaN is left out.
        rest_wavelength: Angstrom, shape (galaxy, pixel).
        snr: S/N of what each galaxy's posterior was conditioned on, all of it, shape (galaxy,), or
            near each pixel, shape (galaxy, pixel); positive.

    Raises:
        ValueError: The shapes disagree, a wavelength or S/N is not positive, or there are fewer
            than 50 galaxies or 12 draws.
    """
    values, true = _pair(draws, truth)
    rest, ratio = placed(rest_wavelength, snr)
    if rest.shape != true.shape:
        raise ValueError(
            f"Expected rest wavelengths of the shape of the truth, {true.shape}; got "
            f"{rest.shape}. Give one a pixel."
        )
    reached = np.log(rest[np.isfinite(true)])
    wave_knots = np.linspace(reached.min(), reached.max(), 12)
    snr_knots = np.unique(np.quantile(np.log(ratio), [0.1, 0.37, 0.63, 0.9]))
    tally = Tally.empty(len(wave_knots) * len(snr_knots))
    for galaxy in range(true.shape[0]):
        known = usable(values[:, galaxy], true[galaxy])
        deviations, _ = against_kept(values[:, galaxy, known], true[galaxy, known])
        corners = [
            (row * len(snr_knots) + column, across * along)
            for row, across in tents(np.log(rest[galaxy, known]), wave_knots)
            for column, along in tents(np.log(ratio[galaxy, known]), snr_knots)
        ]
        tally.add(deviations, corners)
    table = tally.log_scale().reshape(len(wave_knots), len(snr_knots))
    return PixelScale(
        tuple(np.exp(wave_knots).tolist()),
        tuple(np.exp(snr_knots).tolist()),
        tuple(tuple(row) for row in table.tolist()),
        true.shape[0],
    )


def fit_principal_scale(draws: ArrayLike, truth: ArrayLike) -> PrincipalScale:
    """Learn the factor of each rank of principal direction.

    What of the truth lies outside the span of a galaxy's draws (always something, with fewer draws
    than pixels) is out of reach; take as many draws as will be used.

    Args:
        draws: Any flux unit, shape (draw, galaxy, pixel), at least 12 draws.
        truth: Noise-free spectra in the same unit, shape (galaxy, pixel); NaN is left out.

    Raises:
        ValueError: The shapes disagree, or there are fewer than 50 galaxies or 12 draws.
    """
    values, true = _pair(draws, truth)
    kept = values.shape[0] - LEFT_OUT
    knots = np.log(2.0 ** np.arange(int(np.log2(kept - 1)) + 1))
    tally = Tally.empty(len(knots))
    for galaxy in range(true.shape[0]):
        known = usable(values[:, galaxy], true[galaxy])
        deviations, sample = against_kept(values[:, galaxy, known], true[galaxy, known])
        variances, vectors = principal(sample)
        # On direction k, in units of the standard deviation of the kept draws along it.
        along = (deviations @ sample.T @ vectors) * np.sqrt(kept - 1) / variances
        tally.add(along, tents(log_ranks(vectors), knots))
    return PrincipalScale(
        tuple(np.exp(knots).tolist()), tuple(tally.log_scale().tolist()), true.shape[0]
    )


def _pair(draws: ArrayLike, truth: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Draws and truth of a fit, checked."""
    values, true = drawn(draws, least=LEAST_DRAWS), np.asarray(truth, dtype=np.float64)
    if values.shape[1:] != true.shape:
        raise ValueError(
            f"Expected a truth of shape (galaxy, pixel) = {values.shape[1:]}; got {true.shape}. "
            "Put the truth on the grid of the draws."
        )
    whole = np.isfinite(true) & np.isfinite(values).all(axis=0)
    known = int(whole.any(axis=1).sum())
    if known < LEAST_GALAXIES:
        raise ValueError(
            f"Expected at least {LEAST_GALAXIES} galaxies with finite pixels in truth and draws; "
            f"got {known}. Hold out more galaxies."
        )
    return values, true
