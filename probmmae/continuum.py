"""What a spectrum says of its continuum at a redshift: a linear Gaussian fit, exact and cheap.

A continuum is a sum of a few curves (`data/eigenspectra.npz`: the principal directions of the
template weights of simulated apertures) with standard normal coefficients in units of the
spectrum's level; pixels near an emission line are left out. So the level of a quarter of a noisy
spectrum is known to better than a per cent, which a network that looks at the pixels learns late.

Axes: galaxy, draw (of z), spectrum, bin (of ln wavelength), curve.

References:
    Bishop 2006, Pattern Recognition and Machine Learning, section 3.3 (linear regression).
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probmmae.batch import Spectra, spectrum_level
from probmmae.instrument import SPEED_OF_LIGHT, RestSpectrum, observe
from probmmae.scan import BINS, SHIFTS, SIZE, STEP, bins, rest_wavelength
from probmmae.templates import Templates, load_templates

CURVES = 16
FEATURES = 2 * CURVES + 1
_SOFT = 0.02
"""Fraction of the level that the curves may miss of a bin."""
_AROUND = 31
"""Bins that the variance is the mean of."""
_ROWS = 1024
"""Fits at a time: bounds the memory."""
_NEAR_LINE = 700.0
"""km/s: bins closer to an emission line than this are not of the continuum."""
_RESOLUTION, _STAR_SIGMA = 2000.0, 120.0


@dataclass(frozen=True)
class ContinuumFit:
    """The posterior of the continuum of every visible spectrum at every redshift draw."""

    level: Float[Tensor, "galaxy draw spectrum"]
    """Mean flux between 4500 and 6500 Angstrom rest, 1e-17 erg/s/cm2/Angstrom, positive."""
    error: Float[Tensor, "galaxy draw spectrum"]
    """Standard error of ln level."""
    features: Float[Tensor, "galaxy draw spectrum feature"]
    """Coefficients over the level, ln of their standard errors, ln error; zero where not seen."""
    seen: Bool[Tensor, "galaxy spectrum"]
    """Whether a spectrum has a visible pixel."""


def continuum_level(templates: Templates) -> Float[Tensor, " basis"]:
    """Mean of each continuum curve between 4500 and 6500 Angstrom rest."""
    wavelength = templates.wavelength
    inside = (wavelength > 4500) & (wavelength < 6500)
    return templates.continuum[:, inside].mean(1)


def fit(spectra: Spectra, z: Float[Tensor, "galaxy draw"]) -> ContinuumFit:
    """Fit the curves to the visible pixels of every spectrum at the redshifts `z`."""
    own, _ = spectrum_level(spectra)
    value, weight = _rebin(spectra, own)
    seen = (spectra.ivar > 0).any(-1)
    step = max(1, _ROWS // max(1, own.numel()))
    parts = [_fit(value, weight, some) for some in z.split(step, dim=1)]
    mean, covariance = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    level_of = _curves().level.to(z.device)
    height = (mean @ level_of).clamp(min=0.05)
    error = ((covariance @ level_of) @ level_of).sqrt() / height
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    told = torch.cat(
        [
            (mean / height[..., None]).clamp(-4, 4),
            deviation.log() / 2,
            error.log()[..., None] / 2,
        ],
        dim=-1,
    )
    return ContinuumFit(
        level=(height * own[:, None]).to(z.dtype),
        error=error.to(z.dtype),
        features=(told * seen[:, None, :, None]).to(z.dtype),
        seen=seen,
    )


def _fit(
    value: Float[Tensor, "galaxy spectrum bin"],
    weight: Float[Tensor, "galaxy spectrum bin"],
    z: Float[Tensor, "galaxy draw"],
) -> tuple[
    Float[Tensor, "galaxy draw spectrum curve"], Float[Tensor, "galaxy draw spectrum curve curve"]
]:
    """Mean and covariance of the coefficients, double precision."""
    known = _curves()
    at = torch.arange(SIZE, device=z.device) - SHIFTS
    at = at + torch.round(torch.log1p(z) / STEP).long()[..., None]
    inside = (at >= 0) & (at < BINS) & known.clear.to(z.device)
    at = at.clamp(0, BINS - 1)[:, :, None].expand(-1, -1, value.shape[1], -1)

    def in_rest(pixels: Tensor) -> Tensor:
        """From observed to rest-frame bins, (galaxy, draw, spectrum, bin)."""
        return pixels[:, None].expand(-1, z.shape[1], -1, -1).gather(-1, at)

    used = (in_rest(weight) * inside[:, :, None]).double()
    along = (used * in_rest(value)) @ known.curve.to(z.device).T
    first, second = torch.tril_indices(CURVES, CURVES, device=z.device)
    square = used.new_zeros(*along.shape, CURVES)
    square[..., first, second] = used @ known.product.to(z.device).T
    square = square + square.tril(-1).mT
    square = square + torch.eye(CURVES, dtype=square.dtype, device=z.device)
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(square))
    return (covariance @ along[..., None])[..., 0], covariance


def _rebin(
    spectra: Spectra, level: Float[Tensor, "galaxy spectrum"]
) -> tuple[Float[Tensor, "galaxy spectrum bin"], Float[Tensor, "galaxy spectrum bin"]]:
    """Flux over the level in observed bins, and its weight.

    A pixel's own variance rises with its own noise, so weights by it would make faint spectra
    fainter: pixels of a bin count alike, with the variance of some 30 bins around.
    """
    place, inside = bins(spectra)
    good = ((spectra.ivar > 0) & inside).to(spectra.flux.dtype)
    empty = good.new_zeros(*good.shape[:-1], BINS)

    def collected(pixels: Tensor) -> Tensor:
        return empty.scatter_add(-1, place, pixels * good)

    count = collected(torch.ones_like(good))
    flux = collected(spectra.flux) / count.clamp(min=1) / level[..., None]
    variance = collected(1 / spectra.ivar.clamp(min=1e-20)) / level[..., None] ** 2
    around = _smooth(variance) / _smooth(count).clamp(min=1e-6)
    weight = count / around.clamp(min=1e-12)
    return flux, torch.where(count > 0, weight / (1 + weight * _SOFT**2), 0.0)


def _smooth(pixels: Float[Tensor, "galaxy spectrum bin"]) -> Tensor:
    wide: Tensor = torch.nn.functional.avg_pool1d(pixels, _AROUND, 1, _AROUND // 2)
    return wide


@dataclass(frozen=True)
class _Curves:
    """In units of their coefficients' standard deviation, double precision."""

    curve: Float[Tensor, "curve bin"]
    """In rest-frame bins."""
    product: Float[Tensor, "pair bin"]
    """Of two curves, lower triangle."""
    level: Float[Tensor, " curve"]
    clear: Bool[Tensor, " bin"]
    """Bins within the templates that are far from every line."""


@lru_cache(maxsize=1)
def _curves() -> _Curves:
    templates = load_templates()
    with (files("probmmae") / "data" / "eigenspectra.npz").open("rb") as file:
        weights = torch.from_numpy(np.load(file)["continua"].astype(np.float32))
    wavelength = rest_wavelength()
    one = torch.ones(CURVES)
    light = RestSpectrum(
        continuum=weights,
        lines=torch.zeros(CURVES, len(templates.line_wavelength)),
        velocity=0 * one,
        sigma_star=_STAR_SIGMA * one,
        sigma_gas=one,
    )
    grid = wavelength.expand(CURVES, -1)
    curves = observe(templates, light, 0 * one, grid, grid / _RESOLUTION / 2.3548).double()
    level = (weights @ continuum_level(templates)).double()
    apart = (wavelength[:, None] / templates.line_wavelength - 1).abs() * SPEED_OF_LIGHT
    held = (wavelength > templates.wavelength[0]) & (wavelength < templates.wavelength[-1])
    clear = (apart > _NEAR_LINE).all(1) & held
    first, second = torch.tril_indices(CURVES, CURVES)
    return _Curves(curves, curves[first] * curves[second], level, clear)
