"""Does a repair help? Only what does, on galaxies that it was not fitted on, is kept.

A repair that is fitted to noise makes exact posteriors worse. So each part of one is
cross-validated on the galaxies kept for repair, by a proper score, and is left out unless it gains
by three standard errors: laws of a PIT by log density (`recalibrate_local.py` has it), the spread
of levels by the log density of a normal law of that spread, factors of the ln continuum by CRPS.

Axes: draw, galaxy, bin (of wavelength).
"""

import numpy as np
from numpy.typing import NDArray

from probmmae.calibration.left_out_draws import LEVEL, against_kept
from probmmae.calibration.recalibrate_spectra import fit_pixel_scale
from probmmae.calibration.scores import crps_draws
from probmmae.inference.pit_law import LocalRecalibration
from probmmae.inference.stretch import PixelScale

FloatArray = NDArray[np.float64]

SURE = 3.0
"""Standard errors by which a gain must exceed zero: some ten parts are asked, and at two one exact
model in five would be repaired."""
NO_HELP = "it did not help on galaxies that it was not fitted on"
_FOLDS = 3


def law_helps(law: LocalRecalibration) -> bool:
    """Whether a law of the PIT gains in log density over none."""
    return law.worth > SURE * law.worth_error


def said_of(law: LocalRecalibration) -> str:
    """What a law gains, in words."""
    return f"{law.worth:.4f} +- {law.worth_error:.4f} nats a galaxy"


def level_factor_that_helps(
    levels: FloatArray, truth: FloatArray, *, generator: np.random.Generator
) -> tuple[float, str]:
    """The factor of the spread of levels if it helps, else 1, and what it gains.

    Args:
        levels: Finite, shape (draw, galaxy).
        truth: Finite, shape (galaxy,).
        generator: Source of the folds.

    References:
        Gneiting & Raftery 2007, "Strictly proper scoring rules, prediction, and estimation",
        https://doi.org/10.1198/016214506000001437, equation 25 (the score of mean and spread)
    """
    deviations, _ = against_kept(levels, truth)
    size = np.abs(deviations)

    def factor(rows: NDArray[np.bool_]) -> float:
        """Of the truths' 90 % quantile over that of draws left out."""
        return float(np.quantile(size[0, rows], LEVEL) / np.quantile(size[1:, rows], LEVEL))

    folds = generator.permutation(len(truth)) % _FOLDS
    found = np.array([factor(folds != fold) for fold in range(_FOLDS)])[folds]
    spread = levels.std(axis=0, ddof=1)
    square = 0.5 * ((truth - levels.mean(axis=0)) / spread) ** 2
    # Dawid & Sebastiani's score: of mean and spread alone.
    mean, error = _gained(square - (square / found**2 + np.log(found)))
    helps = mean > SURE * error
    return (factor(folds >= 0) if helps else 1.0), f"{mean:.4f} +- {error:.4f} nats a galaxy"


def continuum_scale_that_helps(
    draws: FloatArray,
    truth: FloatArray,
    *,
    rest_wavelength: FloatArray,
    snr: FloatArray,
    generator: np.random.Generator,
) -> tuple[PixelScale | None, str]:
    """The factors of the ln continuum, if they help, and what they gain.

    Args:
        draws: ln of any flux unit, shape (draw, galaxy, bin); NaN is left out.
        truth: In the same unit, shape (galaxy, bin); NaN is left out.
        rest_wavelength: Angstrom, shape (galaxy, bin).
        snr: S/N of what each galaxy's posterior was conditioned on, shape (galaxy,).
        generator: Source of the folds.

    Raises:
        ValueError: As `fit_pixel_scale`.
    """
    folds = generator.permutation(len(truth)) % _FOLDS
    scores = np.empty((2, len(truth)))
    for fold in range(_FOLDS):
        fitted, held = folds != fold, folds == fold
        scale = fit_pixel_scale(
            draws[:, fitted], truth[fitted], rest_wavelength=rest_wavelength[fitted],
            snr=snr[fitted],
        )  # fmt: skip
        told = {"rest_wavelength": rest_wavelength[held], "snr": snr[held]}
        new = scale.apply(draws[:, held], **told)
        for row, one in zip(scores, (draws[:, held], new), strict=True):
            row[held] = _crps(one, truth[held])
    before, after = scores[:, np.isfinite(scores).all(axis=0)]
    mean, error = _gained(before - after)
    percent = 100 / float(before.mean())
    said = f"{percent * mean:.2f} +- {percent * error:.2f} % of the CRPS"
    if mean <= SURE * error:
        return None, said
    return fit_pixel_scale(draws, truth, rest_wavelength=rest_wavelength, snr=snr), said


def _crps(draws: FloatArray, truth: FloatArray) -> FloatArray:
    """Mean CRPS of each galaxy's bins, shape (galaxy,); NaN where it has none."""
    scores = crps_draws(draws, truth)
    known = np.isfinite(scores)
    count = known.sum(axis=1)
    total = np.where(known, scores, 0.0).sum(axis=1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _gained(gain: FloatArray) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))
