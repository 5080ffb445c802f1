"""Widths of emission lines in spectra of low noise: the mean of posterior draws, or the truth.

One Gaussian width and velocity for a line and its close neighbours, on a straight continuum, each
line integrated over the pixels exactly. The width is found on a logarithmic grid (the amplitudes
are linear at each width) and refined by a parabola, so that nothing needs a starting value.

Axes: galaxy, pixel, width, term (lines, then constant and slope of the continuum).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probmmae.calibration.features import Arrayish, as_tensor, pixel_edges

SPEED_OF_LIGHT = 299792.458
"""km/s."""

#: Rest-frame vacuum Angstrom: the fitted range, and the lines, the first of which is reported.
LINE_FITS = {
    "h_alpha": ((6480.0, 6650.0), (6564.61, 6549.86, 6585.27)),
    "o_iii": ((4920.0, 5050.0), (5008.24, 4960.30)),
    "h_beta": ((4800.0, 4925.0), (4862.68,)),
}

_WIDTHS = torch.logspace(1.3, 3.5, 56, dtype=torch.float64)
"""Candidate widths, km/s: 20 to 3,160."""
_SHIFTS = torch.arange(-400.0, 401.0, 40.0, dtype=torch.float64)
"""Candidate velocities, km/s."""


@dataclass(frozen=True)
class LineFit:
    """A fitted line of each galaxy; NaN where the grid does not hold it or no width fits best."""

    sigma: Float[Tensor, " galaxy"]
    """Gaussian width with the instrument's in it, km/s."""
    velocity: Float[Tensor, " galaxy"]
    """Velocity relative to the given redshift, km/s."""
    flux: Float[Tensor, " galaxy"]
    """Integrated flux, 1e-17 erg/s/cm2; negative in absorption."""
    equivalent_width: Float[Tensor, " galaxy"]
    """Rest-frame equivalent width, Angstrom, positive in emission."""


def fit_line(
    flux: Arrayish, wavelength: Arrayish, *, z: Arrayish, line: str = "h_alpha", chunk: int = 64
) -> LineFit:
    """Fit a line in every spectrum.

    Args:
        flux: 1e-17 erg/s/cm2/Angstrom, shape (galaxy, pixel), of low noise and without gaps.
        wavelength: Vacuum pixel centres, Angstrom, shape (pixel,) or (galaxy, pixel).
        z: Redshifts, shape (galaxy,).
        line: "h_alpha" (with [N II]), "o_iii" (5008.24, with 4960.30) or "h_beta".
        chunk: Galaxies at a time.

    Raises:
        ValueError: An unknown line, or shapes that disagree.
    """
    if line not in LINE_FITS:
        raise ValueError(f"Expected a line among {', '.join(LINE_FITS)}; got {line!r}.")
    spectra, redshift = as_tensor(flux).double(), as_tensor(z).double()
    grid = as_tensor(wavelength).double()
    if spectra.ndim != 2 or redshift.shape != spectra.shape[:1]:
        raise ValueError(
            "Expected flux (galaxy, pixel) and z (galaxy,); got flux "
            f"{tuple(spectra.shape)} and z {tuple(redshift.shape)}. Average the draws first."
        )
    grid = grid.expand(spectra.shape)
    parts = []
    for start in range(0, spectra.shape[0], chunk):
        part = slice(start, start + chunk)
        parts.append(_fit(spectra[part], grid[part], redshift[part], line))
    return LineFit(*torch.cat(parts, dim=1))


def _fit(flux: Tensor, wavelength: Tensor, z: Tensor, line: str) -> Float[Tensor, "4 galaxy"]:
    pixels, whole = _cut(flux, wavelength, z, line)
    step = float(torch.log(_WIDTHS[1] / _WIDTHS[0]))
    shift = torch.zeros_like(z)[:, None]
    sigma, _ = _width(pixels, shift)
    # A line off the given redshift looks broad until it is centred, so both are found in turn.
    for _ in range(2):
        shift, at_end = _shift(pixels, sigma)
        sigma, extreme = _width(pixels, shift)
    around = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    for _ in range(2):
        nudged = shift + 8.0 * around
        shift = shift + 8.0 * _vertex(_solve(pixels, sigma.expand_as(nudged), nudged)[0])
        tried = sigma * torch.exp(0.2 * step * around)
        loss, _ = _solve(pixels, tried, shift.expand_as(tried))
        sigma = sigma * torch.exp(0.2 * step * _vertex(loss))
    chosen = _solve(pixels, sigma, shift)[1][:, 0]
    (low, high), centres = LINE_FITS[line]
    height = chosen[:, -2:-1] + chosen[:, -1:] * (2 * centres[0] - low - high) / (high - low)
    equivalent = chosen[:, :1] / height.clamp(min=1e-12) / pixels.stretch
    result = torch.cat([sigma, shift, chosen[:, :1], equivalent], dim=1)
    return torch.where(whole & ~extreme & ~at_end, result, torch.nan).T


@dataclass(frozen=True)
class _Pixels:
    """The pixels around a line, galaxy by galaxy."""

    left: Float[Tensor, "galaxy pixel"]
    right: Float[Tensor, "galaxy pixel"]
    inside: Bool[Tensor, "galaxy pixel"]
    flux: Float[Tensor, "galaxy pixel"]
    stretch: Float[Tensor, "galaxy 1"]
    line: str


def _cut(
    flux: Tensor, wavelength: Tensor, z: Tensor, line: str
) -> tuple[_Pixels, Bool[Tensor, "galaxy 1"]]:
    """The pixels of the fitted range, and whether the grid holds all of it."""
    (low, high), centres = LINE_FITS[line]
    stretch = (1 + z)[:, None]
    edges = pixel_edges(wavelength)
    whole = (edges[:, :1] <= low * stretch) & (edges[:, -1:] >= high * stretch)
    first = torch.searchsorted(wavelength, low * stretch)
    last = torch.searchsorted(wavelength, high * stretch)
    count = int((last - first).max().clamp(min=len(centres) + 3))
    index = (first + torch.arange(count)).clamp(max=wavelength.shape[1] - 1)
    left, right = edges.gather(1, index), edges.gather(1, index + 1)
    # Padding repeats wavelengths: such pixels have no width and no weight.
    inside = ((first + torch.arange(count)) < last) & (right > left)
    value = torch.where(inside, flux.gather(1, index), 0.0)
    return _Pixels(left, right, inside, value, stretch, line), whole


def _width(
    pixels: _Pixels, shift: Float[Tensor, "galaxy 1"]
) -> tuple[Float[Tensor, "galaxy 1"], Bool[Tensor, "galaxy 1"]]:
    """The best width at a velocity, and whether it is the first or last candidate."""
    widths = _WIDTHS.expand(shift.shape[0], -1)
    step, at_end = _lowest(_solve(pixels, widths, shift.expand_as(widths))[0])
    return _WIDTHS[0] * (_WIDTHS[1] / _WIDTHS[0]) ** step, at_end


def _shift(
    pixels: _Pixels, sigma: Float[Tensor, "galaxy 1"]
) -> tuple[Float[Tensor, "galaxy 1"], Bool[Tensor, "galaxy 1"]]:
    """The best velocity at a width, and whether it is the first or last candidate."""
    shifts = _SHIFTS.expand(sigma.shape[0], -1)
    step, at_end = _lowest(_solve(pixels, sigma.expand_as(shifts), shifts)[0])
    return _SHIFTS[0] + (_SHIFTS[1] - _SHIFTS[0]) * step, at_end


def _lowest(
    loss: Float[Tensor, "galaxy trial"],
) -> tuple[Float[Tensor, "galaxy 1"], Bool[Tensor, "galaxy 1"]]:
    """Where the loss is lowest, in steps from the first trial; whether that is an end."""
    best = loss.argmin(dim=1, keepdim=True)
    last = loss.shape[1] - 1
    inner = best.clamp(1, last - 1)
    step = inner + _vertex(loss.gather(1, inner + torch.tensor([-1, 0, 1])))
    return step, (best == 0) | (best == last)


def _vertex(loss: Float[Tensor, "galaxy 3"]) -> Float[Tensor, "galaxy 1"]:
    """Where the parabola through three equidistant points is lowest, in steps from the middle."""
    before, at, after = loss.split(1, dim=1)
    curvature = (before - 2 * at + after).clamp(min=1e-300)
    lowest: Tensor = 0.5 * (before - after) / curvature
    return lowest.clamp(-1, 1)


def _solve(
    pixels: _Pixels, widths: Float[Tensor, "galaxy trial"], shifts: Float[Tensor, "galaxy trial"]
) -> tuple[Float[Tensor, "galaxy trial"], Float[Tensor, "galaxy trial term"]]:
    """Sum of squared residuals, and the best amplitudes, at every width and velocity (km/s)."""
    terms = _terms(pixels, widths, shifts)
    normal = torch.einsum("gkpt,gkps->gkts", terms, terms)
    normal = normal + 1e-12 * torch.eye(normal.shape[-1], dtype=normal.dtype)
    target = torch.einsum("gkpt,gp->gkt", terms, pixels.flux)
    amplitude = torch.linalg.solve(normal, target)
    loss = (pixels.flux**2).sum(dim=1, keepdim=True) - (amplitude * target).sum(dim=2)
    return loss, amplitude


def _terms(
    pixels: _Pixels, widths: Float[Tensor, "galaxy trial"], shifts: Float[Tensor, "galaxy trial"]
) -> Float[Tensor, "galaxy trial pixel term"]:
    """Columns of the linear model: unit-flux lines, then constant and slope over the range."""
    (low, high), centres = LINE_FITS[pixels.line]
    left, right, stretch = pixels.left[:, None], pixels.right[:, None], pixels.stretch[:, None]
    across = (right - left).clamp(min=1e-6)
    columns = []
    for rest in centres:
        centre = rest * stretch * (1 + shifts[..., None] / SPEED_OF_LIGHT)
        scale = centre * 2**0.5 / SPEED_OF_LIGHT * widths[..., None]
        share = torch.erf((right - centre) / scale) - torch.erf((left - centre) / scale)
        columns.append(0.5 * share / across)
    position = ((left + right) - (low + high) * stretch) / ((high - low) * stretch)
    columns += [torch.ones_like(columns[0]), position.expand_as(columns[0])]
    return torch.stack(columns, dim=-1) * pixels.inside[:, None, :, None]
