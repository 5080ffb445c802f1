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

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probmmae.calibration.left_out_draws import (
    LEFT_OUT,
    Tally,
    against_kept,
    positive_spread,
    tents,
    usable,
)
from probmmae.calibration.recalibrate import check_kind

FloatArray = NDArray[np.float64]

LEAST_GALAXIES = 50
"""Fewer galaxies than this are refused."""
LEAST_DRAWS = 12
"""Fewer draws than this are refused."""


@dataclass(frozen=True)
class PixelScale:
    """A factor for each pixel, bilinear in the logarithms of rest wavelength and S/N."""

    rest_wavelength: tuple[float, ...]
    """Knots, rest-frame Angstrom, increasing."""
    snr: tuple[float, ...]
    """Knots in the galaxy's S/N, increasing."""
    log_scale: tuple[tuple[float, ...], ...]
    """ln of the factor at the knots, shape (wavelength knot, S/N knot)."""
    galaxies: int
    """Number of galaxies it was fitted on."""

    def scale(self, rest_wavelength: ArrayLike, snr: ArrayLike) -> FloatArray:
        """The factor of each pixel; beyond the knots that of the nearest.

        Args:
            rest_wavelength: Angstrom, shape (galaxy, pixel).
            snr: S/N of each galaxy as in the fit, shape (galaxy,).

        Returns:
            Shape (galaxy, pixel).

        Raises:
            ValueError: The shapes disagree, or a value is not positive.
        """
        rest, ratio = _placed(rest_wavelength, snr)
        table = np.asarray(self.log_scale)
        total = np.zeros(rest.shape)
        for row, across in tents(np.log(rest), np.log(self.rest_wavelength)):
            for column, along in tents(np.log(ratio), np.log(self.snr)):
                total += across * along[:, None] * table[row, column[:, None]]
        return np.asarray(np.exp(total))

    def apply(self, draws: ArrayLike, *, rest_wavelength: ArrayLike, snr: ArrayLike) -> FloatArray:
        """Stretch draws about their mean, pixel by pixel.

        Args:
            draws: Any flux unit, shape (draw, galaxy, pixel); NaN stays NaN.
            rest_wavelength: Angstrom, shape (galaxy, pixel).
            snr: S/N of each galaxy as in the fit, shape (galaxy,).

        Returns:
            Shape of `draws`; the mean is unchanged.

        Raises:
            ValueError: The shapes disagree, or a wavelength or S/N is not positive.
        """
        values = _drawn(draws, least=2)
        factor = self.scale(rest_wavelength, snr)
        if factor.shape != values.shape[1:]:
            raise ValueError(
                f"Expected rest wavelengths of shape (galaxy, pixel) = {values.shape[1:]}; got "
                f"{factor.shape}. Give one a pixel of the draws."
            )
        centre = values.mean(axis=0)
        return np.asarray(centre + factor * (values - centre))

    def to_dict(self) -> dict[str, Any]:
        """Every field and the kind of recalibration, ready for JSON."""
        return {
            "kind": "pixel scale",
            "rest_wavelength": list(self.rest_wavelength),
            "snr": list(self.snr),
            "log_scale": [list(row) for row in self.log_scale],
            "galaxies": self.galaxies,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The scale that `to_dict` stored.

        Raises:
            ValueError: Another kind of recalibration.
        """
        check_kind(stored, "pixel scale")
        return cls(
            tuple(stored["rest_wavelength"]),
            tuple(stored["snr"]),
            tuple(tuple(row) for row in stored["log_scale"]),
            int(stored["galaxies"]),
        )


@dataclass(frozen=True)
class PrincipalScale:
    """A factor for each principal direction of a galaxy's draws, linear in the log of its rank."""

    ranks: tuple[float, ...]
    """Knots in rank; 1 is the direction of largest variance."""
    log_scale: tuple[float, ...]
    """ln of the factor at the knots."""
    galaxies: int
    """Number of galaxies it was fitted on."""

    def apply(self, draws: ArrayLike) -> FloatArray:
        """Stretch draws about their mean along their own principal directions.

        With U the eigenvectors of the draws' Gram matrix (deviations in units of each pixel's
        standard deviation) and s the factors, the new deviations are U diag(s) U^T times the old.

        Args:
            draws: Any flux unit, shape (draw, galaxy, pixel), at least two. A pixel that is NaN in
                any draw is left as it is.

        Returns:
            Shape of `draws`; the mean is unchanged.

        Raises:
            ValueError: Another number of axes, or fewer than two draws.
        """
        values = _drawn(draws, least=2)
        new = values.copy()
        for galaxy in range(values.shape[1]):
            whole = np.isfinite(values[:, galaxy]).all(axis=0)
            centre = values[:, galaxy, whole].mean(axis=0)
            deviation = values[:, galaxy, whole] - centre
            _, vectors = _principal(deviation / positive_spread(deviation))
            factor = np.exp(np.interp(_log_ranks(vectors), np.log(self.ranks), self.log_scale))
            # Directions without variance stay: vectors is (draw, rank), of at most draw - 1.
            mixed = deviation + (vectors * (factor - 1)) @ (vectors.T @ deviation)
            new[:, galaxy, whole] = centre + mixed
        return new

    def to_dict(self) -> dict[str, Any]:
        """Every field and the kind of recalibration, ready for JSON."""
        return {
            "kind": "principal scale",
            "ranks": list(self.ranks),
            "log_scale": list(self.log_scale),
            "galaxies": self.galaxies,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The scale that `to_dict` stored.

        Raises:
            ValueError: Another kind of recalibration.
        """
        check_kind(stored, "principal scale")
        return cls(tuple(stored["ranks"]), tuple(stored["log_scale"]), int(stored["galaxies"]))


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
        snr: S/N of what each galaxy's posterior was conditioned on, positive, shape (galaxy,).

    Raises:
        ValueError: The shapes disagree, a wavelength or S/N is not positive, or there are fewer
            than 50 galaxies or 12 draws.
    """
    values, true = _pair(draws, truth)
    rest, ratio = _placed(rest_wavelength, snr)
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
            for column, along in tents(np.log(ratio[galaxy : galaxy + 1]), snr_knots)
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
        variances, vectors = _principal(sample)
        # On direction k, in units of the standard deviation of the kept draws along it.
        along = (deviations @ sample.T @ vectors) * np.sqrt(kept - 1) / variances
        tally.add(along, tents(_log_ranks(vectors), knots))
    return PrincipalScale(
        tuple(np.exp(knots).tolist()), tuple(tally.log_scale().tolist()), true.shape[0]
    )


def _principal(deviation: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Squared singular values, falling, and vectors (draw, rank) of deviations (draw, pixel)."""
    variances, vectors = np.linalg.eigh(deviation @ deviation.T)
    real = variances > 1e-9 * variances[-1]
    return variances[real][::-1], vectors[:, real][:, ::-1]


def _log_ranks(vectors: FloatArray) -> FloatArray:
    return np.log(np.arange(1.0, vectors.shape[1] + 1))


def _drawn(draws: ArrayLike, *, least: int) -> FloatArray:
    values = np.asarray(draws, dtype=np.float64)
    if values.ndim != 3 or values.shape[0] < least:
        raise ValueError(
            f"Expected draws of shape (draw, galaxy, pixel) with at least {least} draws; got "
            f"{values.shape}. Move the axis of draws to the front."
        )
    return values


def _pair(draws: ArrayLike, truth: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Draws and truth of a fit, checked."""
    values, true = _drawn(draws, least=LEAST_DRAWS), np.asarray(truth, dtype=np.float64)
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


def _placed(rest_wavelength: ArrayLike, snr: ArrayLike) -> tuple[FloatArray, FloatArray]:
    rest, ratio = (np.asarray(a, dtype=np.float64) for a in (rest_wavelength, snr))
    if rest.ndim != 2 or ratio.shape != rest.shape[:1]:
        raise ValueError(
            "Expected rest_wavelength (galaxy, pixel) and snr (galaxy,); got "
            f"{rest.shape} and {ratio.shape}. Give one S/N a galaxy."
        )
    if not (
        np.all(rest > 0) and np.all(ratio > 0) and np.isfinite([rest.sum(), ratio.sum()]).all()
    ):
        raise ValueError(
            f"Expected positive finite wavelengths and S/N; got {rest.min()} Angstrom and "
            f"S/N {ratio.min()} at least. Leave out galaxies without a measurement."
        )
    return rest, ratio
