"""Does a repair help? Only what does, on galaxies that it was not fitted on, is kept.

A repair that is fitted to noise makes exact posteriors worse. So each part of one is
cross-validated on the galaxies kept for repair, by a proper score, and is left out unless it gains
by three standard errors: laws of a PIT by log density (`recalibrate_local.py` has it), factors of
the ln continuum by CRPS, each galaxy's in units of the spread that its draws had before: a galaxy
that is known to a per cent counts as much as one that is known to a half.

Axes: draw, galaxy, bin (of wavelength).
"""

import numpy as np
from numpy.typing import NDArray

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
        snr: S/N of what each galaxy's posterior was conditioned on, shape (galaxy,) or
            (galaxy, bin).
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
        spread = _mean(draws[:, held].std(axis=0, ddof=1))
        for row, one in zip(scores, (draws[:, held], new), strict=True):
            row[held] = _mean(crps_draws(one, truth[held])) / spread
    before, after = scores[:, np.isfinite(scores).all(axis=0)]
    mean, error = _gained(before - after)
    percent = 100 / float(before.mean())
    said = f"{percent * mean:.2f} +- {percent * error:.2f} % of the CRPS"
    if mean <= SURE * error:
        return None, said
    return fit_pixel_scale(draws, truth, rest_wavelength=rest_wavelength, snr=snr), said


def _mean(values: FloatArray) -> FloatArray:
    """Mean of each galaxy's finite bins, shape (galaxy,); NaN where it has none."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _gained(gain: FloatArray) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))
