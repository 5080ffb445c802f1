"""Factors for the deviations of drawn spectra from their mean, as they are kept and applied.

`PixelScale` is a smooth factor of rest wavelength and S/N; `PrincipalScale` one for each principal
direction of the galaxy's own draws. Both keep the mean, and each draw stays one galaxy.
`calibration/recalibrate_spectra.py` fits them and says what they are for.

Axes: draw, galaxy, pixel, knot, rank.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probmmae.inference.stored import check_kind

FloatArray = NDArray[np.float64]

LEAST_DRAWS = 12
"""Fewer draws than this say too little of their own spread."""


@dataclass(frozen=True)
class PixelScale:
    """A factor for each pixel, bilinear in the logarithms of rest wavelength and S/N."""

    rest_wavelength: tuple[float, ...]
    """Knots, rest-frame Angstrom, increasing."""
    snr: tuple[float, ...]
    """Knots in S/N, increasing."""
    log_scale: tuple[tuple[float, ...], ...]
    """ln of the factor at the knots, shape (wavelength knot, S/N knot)."""
    galaxies: int
    """Number of galaxies it was fitted on."""

    def scale(self, rest_wavelength: ArrayLike, snr: ArrayLike) -> FloatArray:
        """The factor of each pixel; beyond the knots that of the nearest.

        Args:
            rest_wavelength: Angstrom, shape (galaxy, pixel).
            snr: S/N as in the fit, shape (galaxy,) or (galaxy, pixel).

        Returns:
            Shape (galaxy, pixel).

        Raises:
            ValueError: The shapes disagree, or a value is not positive.
        """
        rest, ratio = placed(rest_wavelength, snr)
        table = np.asarray(self.log_scale)
        total = np.zeros(rest.shape)
        for row, across in tents(np.log(rest), np.log(self.rest_wavelength)):
            for column, along in tents(np.log(ratio), np.log(self.snr)):
                total += across * along * table[row, column]
        return np.asarray(np.exp(total))

    def apply(self, draws: ArrayLike, *, rest_wavelength: ArrayLike, snr: ArrayLike) -> FloatArray:
        """Stretch draws about their mean, pixel by pixel.

        Args:
            draws: Any flux unit, shape (draw, galaxy, pixel); NaN stays NaN.
            rest_wavelength: Angstrom, shape (galaxy, pixel).
            snr: S/N as in the fit, shape (galaxy,) or (galaxy, pixel).

        Returns:
            Shape of `draws`; the mean is unchanged.

        Raises:
            ValueError: The shapes disagree, or a wavelength or S/N is not positive.
        """
        values = drawn(draws, least=2)
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
        values = drawn(draws, least=2)
        new = values.copy()
        for galaxy in range(values.shape[1]):
            whole = np.isfinite(values[:, galaxy]).all(axis=0)
            centre = values[:, galaxy, whole].mean(axis=0)
            deviation = values[:, galaxy, whole] - centre
            new[:, galaxy, whole] = centre + self.mixing(deviation) @ deviation
        return new

    def mixing(self, deviation: FloatArray) -> FloatArray:
        """U diag(s) U^T of one galaxy, shape (draw, draw): what makes new deviations of old ones.

        Args:
            deviation: Of the draws from their mean, without NaN, shape (draw, pixel).
        """
        _, vectors = principal(deviation / positive_spread(deviation))
        factor = np.exp(np.interp(log_ranks(vectors), np.log(self.ranks), self.log_scale))
        # Directions without variance stay: vectors is (draw, rank), of at most draw - 1.
        return np.asarray(np.eye(len(deviation)) + (vectors * (factor - 1)) @ vectors.T)

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


def principal(deviation: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Squared singular values, falling, and vectors (draw, rank) of deviations (draw, pixel)."""
    variances, vectors = np.linalg.eigh(deviation @ deviation.T)
    real = variances > 1e-9 * variances[-1]
    return variances[real][::-1], vectors[:, real][:, ::-1]


def log_ranks(vectors: FloatArray) -> FloatArray:
    """ln of the rank, from 1, of each of the vectors (draw, rank)."""
    return np.log(np.arange(1.0, vectors.shape[1] + 1))


def drawn(draws: ArrayLike, *, least: int) -> FloatArray:
    """Draws of shape (draw, galaxy, pixel), in double precision.

    Raises:
        ValueError: Another number of axes, or fewer than `least` draws.
    """
    values = np.asarray(draws, dtype=np.float64)
    if values.ndim != 3 or values.shape[0] < least:
        raise ValueError(
            f"Expected draws of shape (draw, galaxy, pixel) with at least {least} draws; got "
            f"{values.shape}. Move the axis of draws to the front."
        )
    return values


def placed(rest_wavelength: ArrayLike, snr: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Rest wavelengths and S/N, shape (galaxy, pixel) each; S/N may be one a galaxy.

    Raises:
        ValueError: The shapes disagree, or a value is not positive.
    """
    rest, ratio = (np.asarray(a, dtype=np.float64) for a in (rest_wavelength, snr))
    if rest.ndim != 2 or ratio.shape not in (rest.shape[:1], rest.shape):
        raise ValueError(
            "Expected rest_wavelength (galaxy, pixel) and snr (galaxy,) or of its shape; got "
            f"{rest.shape} and {ratio.shape}. Give one S/N a galaxy, or one a pixel."
        )
    if ratio.ndim == 1:
        ratio = np.repeat(ratio[:, None], rest.shape[1], axis=1)
    if not (
        np.all(rest > 0) and np.all(ratio > 0) and np.isfinite([rest.sum(), ratio.sum()]).all()
    ):
        raise ValueError(
            f"Expected positive finite wavelengths and S/N; got {rest.min()} Angstrom and "
            f"S/N {ratio.min()} at least. Leave out galaxies without a measurement."
        )
    return rest, ratio


def positive_spread(deviation: FloatArray) -> FloatArray:
    """Standard deviation over draws (draw, pixel), 1 where there is none."""
    spread = deviation.std(axis=0, ddof=1)
    return np.where(spread > 0, spread, 1.0)


def tents(at: FloatArray, knots: FloatArray) -> list[tuple[NDArray[np.int_], FloatArray]]:
    """The two knots around each value and their shares; beyond the knots the nearest counts."""
    position = np.interp(at, knots, np.arange(float(len(knots))))
    left = np.minimum(position.astype(int), max(len(knots) - 2, 0))
    share = position - left
    return [(left, 1 - share), (np.minimum(left + 1, len(knots) - 1), share)]
