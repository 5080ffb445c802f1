"""Hidden parts of real spectra: what the model and a straight line say of the measured pixels.

Pieces of a spectrum are hidden, the rest and the redshift are shown, and the measured flux of the
hidden pixels is ranked among draws to which the pixel's own noise is added.

Axes: draw, galaxy, pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from probmmae.batch import Batch
from probmmae.calibration.pit import pit_from_draws
from probmmae.calibration.scores import crps_draws
from probmmae.inference.amortized import draw, spectra_at
from probmmae.instrument import covered
from probmmae.masking import Task, observe_part
from probmmae.model import GalaxyModel
from probmmae.redshift import RedshiftDensity
from probmmae.tokens import PIECE

HOLES = {"random 75 % hidden": "random", "contiguous hole": "chunk"}
"""What is hidden, and the state of `masking.Task` that hides it."""
_EVERY = 3
"""Hidden pixels judged: one in so many."""
_ROWS = 8
"""Galaxies at a time."""


@dataclass(frozen=True)
class Hidden:
    """Hidden pixels, predicted and measured; NaN where a pixel is not judged."""

    pit: np.ndarray
    """Of the measured flux among the draws with the pixel's noise, shape (galaxy, pixel)."""
    crps: np.ndarray
    """In units of the galaxy's mean flux."""
    chi2: np.ndarray
    """(measured - mean of the draws)^2 x ivar."""
    rest: np.ndarray
    """Rest wavelength, Angstrom."""
    residual: np.ndarray
    """Measured less mean of the draws, in units of the galaxy's mean flux."""
    error: np.ndarray
    """Noise of the measurement in the same units."""


@torch.no_grad()
def predict(
    network: GalaxyModel, batch: Batch, kind: str, *, draws: int, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray, Batch]:
    """Hide part of each first spectrum and draw the noise-free whole at the known redshift.

    Args:
        network: The trained network.
        batch: Galaxies with their redshifts; one spectrum each.
        kind: A value of `HOLES`.
        draws: Draws a galaxy.
        generator: Source of masks and draws.

    Returns:
        Spectra (draw, galaxy, pixel) in 1e-17 erg/s/cm2/Angstrom; True where a measured pixel was
        hidden, shape (galaxy, pixel); what was shown.
    """
    observed = observe_part(batch, generator, (Task(kind, 1.0, "none", "none", kind),))
    spectra, z = batch.spectra, batch.z
    spike = RedshiftDensity(
        torch.zeros(len(z), 1), torch.log1p(z)[:, None], torch.full((len(z), 1), 1e-5)
    )
    made = draw(network, spike, z, torch.ones_like(z, dtype=torch.bool), draws, generator)
    context = network.encode(observed)
    at = (spectra.aperture[:, :1], spectra.wavelength[:, :1], spectra.sigma[:, :1])
    flux = spectra_at(network, context, observed, made, *at)[:, :, 0].transpose(0, 1)
    judged = (spectra.ivar[:, 0] > 0) & (observed.spectra.ivar[:, 0] == 0)
    judged &= covered(network.templates, z, spectra.wavelength[:, 0])
    return flux.numpy(), judged.numpy(), observed


def reconstruct(
    network: GalaxyModel, batch: Batch, kind: str, *, draws: int, seed: int
) -> tuple[Hidden, Hidden]:
    """Predict what was measured in the hidden part of each spectrum.

    Returns:
        The model, and a straight line between the means of the visible pieces with their scatter.
    """
    generator = torch.Generator().manual_seed(seed)
    chance = np.random.default_rng(seed)
    ours, lines = [], []
    for start in range(0, len(batch), _ROWS):
        part = batch.take(slice(start, start + _ROWS))
        flux, judged, observed = predict(network, part, kind, draws=draws, generator=generator)
        line, width = interpolate(observed)
        white = chance.standard_normal((draws, 1, 1)).astype("f4")
        ours.append(judge(part, flux, judged, chance))
        lines.append(judge(part, line + width[:, None] * white, judged, chance))
    return together(ours), together(lines)


def interpolate(observed: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Visible continuum joined by straight lines, and how well that does on the visible pieces.

    Every visible piece is one ivar-weighted mean; the width is the scatter of the visible pieces
    about the line between their neighbours, two pieces away at least.

    Returns:
        Flux (galaxy, pixel) and width (galaxy,), 1e-17 erg/s/cm2/Angstrom.
    """
    spectra = observed.spectra
    flux, ivar, wavelength = (
        values[:, 0].numpy().astype(float)
        for values in (spectra.flux, spectra.ivar, spectra.wavelength)
    )
    line, width = np.zeros_like(flux), np.zeros(len(flux))
    index = np.arange(flux.shape[1]) // PIECE
    for row in range(len(flux)):
        weight = np.bincount(index, ivar[row])
        use = weight > 0
        if not use.any():
            continue
        safe = np.where(use, weight, 1.0)
        mean = (np.bincount(index, ivar[row] * flux[row]) / safe)[use]
        middle = (np.bincount(index, ivar[row] * wavelength[row]) / safe)[use]
        line[row] = np.interp(wavelength[row], middle, mean)
        others = np.abs(np.subtract.outer(np.arange(len(mean)), np.arange(len(mean)))) > 1
        left = [
            np.interp(middle[i], middle[keep], mean[keep]) - mean[i]
            for i, keep in enumerate(others)
            if keep.any()
        ]
        width[row] = np.std(left) if left else abs(mean).mean()
    return line, width


def judge(
    batch: Batch, drawn: np.ndarray, judged: np.ndarray, generator: np.random.Generator
) -> Hidden:
    """Rank measured pixels among draws with the noise of each pixel added.

    Args:
        batch: What was measured.
        drawn: Noise-free spectra, 1e-17 erg/s/cm2/Angstrom, shape (draw, galaxy, pixel).
        judged: Pixels to judge, shape (galaxy, pixel).
        generator: Source of the noise and of the randomised ranks.
    """
    keep = (slice(None), slice(None, None, _EVERY))
    flux, ivar, wavelength = (
        values[:, 0].numpy()[keep].astype(float)
        for values in (batch.spectra.flux, batch.spectra.ivar, batch.spectra.wavelength)
    )
    judged, drawn = judged[keep], drawn[:, :, ::_EVERY]
    good = batch.spectra.ivar[:, 0].numpy() > 0
    mean = (batch.spectra.flux[:, 0].numpy() * good).sum(1) / good.sum(1).clip(min=1)
    level = np.abs(mean)[:, None]
    error = np.sqrt(1 / np.where(judged, ivar, 1.0))
    noisy = drawn + generator.standard_normal(drawn.shape) * error
    measured = np.where(judged, flux, np.nan)
    residual = measured - drawn.mean(0)
    return Hidden(
        pit=pit_from_draws(noisy, measured, generator=generator),
        crps=np.where(judged, crps_draws(noisy, np.where(judged, flux, 0.0)), np.nan) / level,
        chi2=(residual / error) ** 2,
        rest=wavelength / (1 + batch.z.numpy()[:, None]),
        residual=residual / level,
        error=np.where(judged, error, np.nan) / level,
    )


def together(parts: Sequence[Hidden], *, axis: int = 0) -> Hidden:
    """Galaxies after galaxies (axis 0), or further pixels of the same galaxies (axis 1)."""
    return Hidden(
        **{
            name: np.concatenate([getattr(part, name) for part in parts], axis=axis)
            for name in Hidden.__dataclass_fields__
        }
    )


def galaxy_means(values: np.ndarray) -> np.ndarray:
    """Mean over the judged pixels of each galaxy; NaN where none is."""
    count = np.isfinite(values).sum(1)
    return np.where(count > 0, np.nansum(values, axis=1) / np.maximum(count, 1), np.nan)
