"""Redshift candidates of spectra: how well a few eigenspectra fit at every redshift.

At each redshift of a grid a spectrum is a sum of eigenspectra (`data/eigenspectra.npz`) with
standard normal coefficients, plus noise; the marginal likelihood of that linear model is exact,
and by FFT it costs milliseconds for all redshifts. Its highest peaks are candidates. Which of them
is right, and how far its width is to be trusted, the redshift head learns: the linear model is
only a way of looking.

Axes: galaxy, spectrum, pixel, bin (of ln wavelength), shift (of ln(1 + z)), eigen, candidate.

References:
    Glazebrook, Offer & Deeley 1998, PCAZ, ApJ 492, 98 (eigenspectra and cross-correlation);
    Tonry & Davis 1979, AJ 84, 1511 (redshift as a shift of ln wavelength).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probmmae.batch import Rows, Spectra, spectrum_level

STEP = 4e-4
"""Of ln wavelength, 120 km/s."""
FIRST = math.log(3500.0)
"""ln of the bluest observed wavelength that is looked at, Angstrom."""
BINS = 2747
"""Bins of observed wavelength, to 10500 Angstrom."""
SHIFTS = 1340
"""Redshifts looked at: 0 to 0.709."""
SIZE = 4096
"""Bins of rest wavelength, from `SHIFTS` bins bluer than the first observed one."""
CANDIDATES = 3
EVIDENCE = 5
"""Features a candidate."""
_SOFT = 0.05
"""Fraction of the level that the eigenspectra may miss of a bin."""
_APART = 20
"""Candidates lie at least this many shifts apart."""
_ROWS = 32
"""Spectra at a time: bounds the memory."""


@dataclass(frozen=True)
class Candidates(Rows):
    """The redshifts at which the visible spectra of a galaxy fit best."""

    log1p_z: Float[Tensor, "galaxy candidate"]
    width: Float[Tensor, "galaxy candidate"]
    """Of the peak, in ln(1 + z)."""
    evidence: Float[Tensor, "galaxy candidate feature"]
    """ln of its share of the likelihood, as it is and tempered; depth below the best; height over
    the typical redshift; ln width."""
    seen: Bool[Tensor, " galaxy"]
    """Whether the galaxy shows any spectrum."""


@lru_cache(maxsize=1)
def eigenspectra() -> Float[Tensor, "eigen bin"]:
    """Eigenspectra per unit level, in units of their coefficients' standard deviation."""
    with (files("probmmae") / "data" / "eigenspectra.npz").open("rb") as file:
        return torch.from_numpy(np.load(file)["eigenspectra"].astype(np.float32))


def rest_wavelength() -> Float[Tensor, " bin"]:
    """Middles of the bins of the eigenspectra, Angstrom."""
    return torch.exp(FIRST + STEP * (torch.arange(SIZE) - SHIFTS + 0.5))


def candidates(spectra: Spectra) -> Candidates:
    """Look for the redshift of galaxies in all of their visible spectra together."""
    shown = (spectra.ivar > 0).any(-1)
    seen = shown.any(1)
    total = spectra.flux.new_zeros(int(seen.sum()), SHIFTS)
    galaxy, slot = shown.nonzero(as_tuple=True)
    owner = (seen.cumsum(0) - 1)[galaxy]
    with torch.no_grad():
        for start in range(0, len(owner), _ROWS):
            rows = slice(start, start + _ROWS)
            chosen = (galaxy[rows], slot[rows])
            part = spectra.map(lambda table, chosen=chosen: table[chosen][:, None])
            total = total.index_add(0, owner[rows], log_likelihood(part)[:, 0])
        log1p_z, width, evidence = (_placed(part, seen) for part in _peaks(total))
        return Candidates(log1p_z, width, evidence, seen)


def _placed(rows: Tensor, seen: Bool[Tensor, " galaxy"]) -> Tensor:
    """Rows of the galaxies that show a spectrum, zero for the others."""
    every = rows.new_zeros(len(seen), *rows.shape[1:])
    every[seen] = rows
    return every


def log_likelihood(spectra: Spectra) -> Float[Tensor, "galaxy spectrum shift"]:
    """ln p(spectrum | z) at every shift, up to a constant."""
    shape = spectra.flux.shape[:2]
    value, weight = (part.flatten(0, 1) for part in _rebin(spectra))
    basis = eigenspectra().to(value.device)
    count = len(basis)
    first, second = torch.tril_indices(count, count, device=value.device)
    at = SHIFTS - torch.arange(SHIFTS, device=value.device)

    def against(pixels: Tensor, curves: Tensor) -> Tensor:
        product = torch.fft.rfft(pixels).conj()[:, None] * torch.fft.rfft(curves)
        return torch.fft.irfft(product, n=SIZE)[..., at].transpose(1, 2)

    along = against(value * weight, basis)
    square = along.new_zeros(*along.shape, count)
    square[..., first, second] = against(weight, basis[first] * basis[second])
    square = square + square.tril(-1).mT + torch.eye(count, device=value.device)
    root = torch.linalg.cholesky(square)
    fit = torch.linalg.solve_triangular(root, along[..., None], upper=False)[..., 0]
    told = 0.5 * fit.square().sum(-1) - root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return told.unflatten(0, shape)


def bins(spectra: Spectra) -> tuple[Tensor, Tensor]:
    """The bin of observed ln wavelength of every pixel, and whether it is inside of `BINS`."""
    place = ((spectra.wavelength.log() - FIRST) / STEP).floor().long()
    return place.clamp(0, BINS - 1), (place >= 0) & (place < BINS)


def _rebin(spectra: Spectra) -> tuple[Tensor, Tensor]:
    """Flux over the level and its weight in every bin, shape (galaxy, spectrum, SIZE)."""
    level, _ = spectrum_level(spectra)
    place, inside = bins(spectra)
    ivar = spectra.ivar * level[..., None] ** 2 * inside
    empty = ivar.new_zeros(*ivar.shape[:-1], SIZE)
    total = empty.scatter_add(-1, place, ivar)
    value = empty.scatter_add(-1, place, ivar * spectra.flux / level[..., None])
    return value / total.clamp(min=1e-12), total / (1 + total * _SOFT**2)


def _peaks(curve: Float[Tensor, "seen shift"]) -> tuple[Tensor, Tensor, Tensor]:
    """ln(1 + z), widths and features of the highest peaks, leading axes (seen, candidate)."""
    shift = torch.arange(SHIFTS, device=curve.device)
    rows = torch.arange(len(curve), device=curve.device)
    typical = curve.median(-1).values
    best = curve.amax(-1)
    share, tempered = torch.log_softmax(curve, -1), torch.log_softmax(curve / 8, -1)
    left = curve
    places, widths, features = [], [], []
    for _ in range(CANDIDATES):
        top = left.argmax(-1)
        middle = top.clamp(1, SHIFTS - 2)
        below, here, above = (curve[rows, middle + step] for step in (-1, 0, 1))
        bend = (2 * here - below - above).clamp(min=1e-3)
        offset = (0.5 * (above - below) / bend).clamp(-0.5, 0.5)
        width = (STEP / bend.sqrt()).clamp(0.05 * STEP, 10 * STEP)
        near = (shift - top[:, None]).abs() < _APART
        places.append((STEP * (middle + offset)).clamp(min=0.0))
        widths.append(width)
        features.append(
            torch.stack(
                [
                    share.masked_fill(~near, -1e9).logsumexp(-1).clamp(min=-20) / 4,
                    tempered.masked_fill(~near, -1e9).logsumexp(-1).clamp(min=-20) / 4,
                    torch.asinh((curve[rows, top] - best) / 4) / 2,
                    torch.asinh((best - typical) / 4) / 2,
                    torch.log(width / STEP),
                ],
                dim=-1,
            )
        )
        left = left.masked_fill(near, -torch.inf)
    return torch.stack(places, -1), torch.stack(widths, -1), torch.stack(features, 1)
