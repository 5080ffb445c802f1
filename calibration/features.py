"""What a spectrum says: line fluxes, the 4000 Angstrom break and a colour, from whole spectra.

From draws of noise-free spectra (and the true one) to quantities that use many pixels together.
Each one depends on how pixels vary together, which coverage pixel by pixel cannot see.

Every quantity is a sum over pixels, or a ratio of two sums, with weights that depend on the grid
and the redshift alone; measuring a draw is then a matrix product. Line fluxes are net: the sum in
a passband less the straight line through the mean flux densities of two sidebands, so stellar
absorption under a Balmer line counts against it. The passbands (vacuum, rest frame) are those of
the MaNGA data analysis pipeline; H-alpha's reaches 320 km/s to either side, between the [N II]
lines.

Axes: draw, galaxy, pixel, sum (one row of weights), edge.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from probmmae.spectral_maps import D4000_BANDS

Arrayish: TypeAlias = Tensor | NDArray[Any]

#: Passband, blue sideband, red sideband: rest-frame vacuum Angstrom (Westfall et al. 2019,
#: https://arxiv.org/abs/1901.00856, and Belfiore et al. 2019, https://arxiv.org/abs/1901.00866).
LINE_BANDS = {
    "h_alpha": ((6557.6, 6571.6), (6483.0, 6513.0), (6623.0, 6653.0)),
    "h_beta": ((4852.7, 4872.7), (4798.9, 4838.9), (4885.6, 4925.6)),
    "o_iii": ((4998.2, 5018.2), (4978.2, 4998.2), (5018.2, 5038.2)),
    "o_ii": ((3716.3, 3738.3), (3696.3, 3716.3), (3738.3, 3758.3)),
}

#: A filter counts as covered when the grid holds this share of its transmission for an AB source.
FILTER_SHARE = 0.995

#: Sidebands, the bands of D4000 and filters need this share of themselves in valid pixels.
WINDOW_SHARE = 0.9


@dataclass(frozen=True)
class SpectrumFeatures:
    """Quantities of whole spectra; NaN where the wavelength grid does not hold them."""

    h_alpha: Float[Tensor, "*rows"]
    """Net flux of H-alpha, 1e-17 erg/s/cm2."""
    h_beta: Float[Tensor, "*rows"]
    """Net flux of H-beta, 1e-17 erg/s/cm2."""
    o_iii: Float[Tensor, "*rows"]
    """Net flux of [O III] 5008.24, 1e-17 erg/s/cm2."""
    o_ii: Float[Tensor, "*rows"]
    """Net flux of [O II] 3727.09 and 3729.88 together, 1e-17 erg/s/cm2."""
    d4000: Float[Tensor, "*rows"]
    """Narrow 4000 Angstrom break: mean f_nu redwards over mean f_nu bluewards."""
    g_minus_r: Float[Tensor, "*rows"]
    """SDSS g - r through the aperture, AB magnitudes."""

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Name and values of every feature."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)


FEATURES = tuple(field.name for field in fields(SpectrumFeatures))


def spectrum_features(
    flux: Arrayish,
    wavelength: Arrayish,
    *,
    z: Arrayish,
    valid: Arrayish | None = None,
    chunk: int = 32,
) -> SpectrumFeatures:
    """Measure every feature of many spectra.

    Args:
        flux: 1e-17 erg/s/cm2/Angstrom, shape (*draws, galaxy, pixel); the leading axes are free.
        wavelength: Vacuum pixel centres, Angstrom, increasing (padding may repeat the last), shape
            (pixel,) or (galaxy, pixel).
        z: Redshifts that place the rest frame, shape (galaxy,), or (*draws, galaxy) where every
            draw has its own.
        valid: Pixels that may be used, shape (galaxy, pixel), for measured spectra (ivar > 0); all
            by default. A line needs every pixel of its passband; sidebands, the bands of D4000 and
            filters need WINDOW_SHARE of theirs.
        chunk: Galaxies at a time; memory beyond the flux is about 100 bytes a pixel of a chunk.

    Returns:
        Features of shape (*draws, galaxy), float64, on the CPU or the device of `flux`.

    Raises:
        ValueError: The shapes disagree.
    """
    spectra = as_tensor(flux)
    *draws, galaxies, pixels = spectra.shape
    grid = as_tensor(wavelength).to(spectra.device, torch.float64)
    redshift = as_tensor(z).to(spectra.device, torch.float64)
    usable = None if valid is None else as_tensor(valid).to(spectra.device).bool()
    _check(spectra, grid, redshift, usable)
    grid = grid.expand(galaxies, pixels)
    if redshift.ndim > 1:
        # Every draw has its own redshift, so its own weights: treat draws as galaxies of one draw.
        rows = redshift.numel()
        repeats = rows // galaxies
        spectra = spectra.reshape(rows, pixels)
        grid = grid.expand(repeats, galaxies, pixels).reshape(rows, pixels)
        redshift = redshift.reshape(rows)
        if usable is not None:
            usable = usable.expand(repeats, galaxies, pixels).reshape(rows, pixels)
    stacked = spectra.reshape(-1, redshift.shape[0], pixels)
    measured = torch.empty(
        (len(FEATURES), *stacked.shape[:2]), dtype=torch.float64, device=spectra.device
    )
    for start in range(0, redshift.shape[0], chunk):
        part = slice(start, start + chunk)
        mask = None if usable is None else usable[part]
        weights, covered = _weights(grid[part], redshift[part], mask)
        sums = _sums(stacked[:, part], weights)
        measured[:, :, part] = _combine(sums, covered)
    shaped = measured.reshape(len(FEATURES), *draws, galaxies)
    return SpectrumFeatures(*shaped)


def _check(flux: Tensor, grid: Tensor, z: Tensor, valid: Tensor | None) -> None:
    galaxies, pixels = flux.shape[-2:]
    grids = ((pixels,), (galaxies, pixels))
    redshifts = ((galaxies,), tuple(flux.shape[:-1]))
    if tuple(grid.shape) not in grids or tuple(z.shape) not in redshifts:
        raise ValueError(
            "Expected flux (*draws, galaxy, pixel), wavelength (pixel,) or (galaxy, pixel), z "
            f"(galaxy,) or (*draws, galaxy); got flux {tuple(flux.shape)}, wavelength "
            f"{tuple(grid.shape)}, z {tuple(z.shape)}. Put galaxy and pixel last."
        )
    if valid is not None and tuple(valid.shape) != (galaxies, pixels):
        raise ValueError(
            f"Expected valid of shape (galaxy, pixel) = {(galaxies, pixels)}; got "
            f"{tuple(valid.shape)}. Give each galaxy its own mask."
        )


def as_tensor(values: Arrayish) -> Tensor:
    """A detached tensor of the same values."""
    return values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))


def pixel_edges(wavelength: Float[Tensor, "galaxy pixel"]) -> Float[Tensor, "galaxy edge"]:
    """Edges half-way between centres, Angstrom; padding gets pixels of width 0."""
    middle = 0.5 * (wavelength[:, 1:] + wavelength[:, :-1])
    step = wavelength.diff(dim=1)
    rising = step > 0
    first = wavelength[:, :1] - 0.5 * step[:, :1]
    count = rising.sum(dim=1, keepdim=True)
    # The last true pixel of a padded row is as wide redwards as bluewards.
    end = wavelength.gather(1, count) + 0.5 * step.gather(1, (count - 1).clamp(min=0))
    inner = torch.where(rising, middle, end)
    return torch.cat([first, inner, end], dim=1)


def _window(edges: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Angstrom of every pixel inside (low, high), shape (galaxy, pixel)."""
    bounded = edges.clamp(low[:, None], high[:, None])
    return bounded.diff(dim=1)


def _weights(
    wavelength: Float[Tensor, "galaxy pixel"],
    z: Float[Tensor, " galaxy"],
    valid: Bool[Tensor, "galaxy pixel"] | None,
) -> tuple[Float[Tensor, "galaxy sum pixel"], Bool[Tensor, "galaxy sum"]]:
    """Weights of line fluxes, of D4000's two means and of the two filters; what is covered."""
    edges = pixel_edges(wavelength)
    usable = torch.ones_like(wavelength) if valid is None else valid.to(wavelength)
    stretch = 1 + z
    rows, whole = [], []
    for main, blue, red in LINE_BANDS.values():
        low, high = main[0] * stretch, main[1] * stretch
        inside = _window(edges, low, high)
        left, left_known = _mean(edges, usable, blue[0] * stretch, blue[1] * stretch)
        right, right_known = _mean(edges, usable, red[0] * stretch, red[1] * stretch)
        share = (sum(main) - sum(blue)) / (sum(red) - sum(blue))
        line = (1 - share) * left + share * right
        rows.append(inside * usable - (high - low)[:, None] * line)
        whole.append(left_known & right_known & ~((inside > 0) & (usable == 0)).any(dim=1))
    for band in D4000_BANDS:
        row, known = _mean(edges, usable, band[0] * stretch, band[1] * stretch)
        rows.append(row * wavelength**2)
        whole.append(known)
    for name in ("sdss2010-g", "sdss2010-r"):
        row, known = _filter_row(name, edges, usable)
        rows.append(row)
        whole.append(known)
    return torch.stack(rows, dim=1), torch.stack(whole, dim=1)


def _mean(
    edges: Float[Tensor, "galaxy edge"],
    usable: Float[Tensor, "galaxy pixel"],
    low: Float[Tensor, " galaxy"],
    high: Float[Tensor, " galaxy"],
) -> tuple[Float[Tensor, "galaxy pixel"], Bool[Tensor, " galaxy"]]:
    """Weights of the mean over a window's valid pixels; whether enough of it is known."""
    window = _window(edges, low, high) * usable
    width = window.sum(dim=1)
    inside = (edges[:, 0] <= low) & (edges[:, -1] >= high)
    known = inside & (width >= WINDOW_SHARE * (high - low))
    return window / width[:, None].clamp(min=1e-9), known


@lru_cache(maxsize=8)
def _filter_tables(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Filter grid, and the integrals of S lambda and S / lambda up to each of its points."""
    from speclite.filters import load_filter

    curve = load_filter(name)
    fine = np.arange(curve.wavelength[0], curve.wavelength[-1] + 0.25, 0.5)
    response = np.interp(fine, curve.wavelength, curve.response)

    def running(values: NDArray[np.float64]) -> Tensor:
        steps = 0.5 * (values[1:] + values[:-1]) * np.diff(fine)
        return torch.from_numpy(np.concatenate([[0.0], np.cumsum(steps)]))

    return torch.from_numpy(fine), running(response * fine), running(response / fine)


def _filter_row(
    name: str, edges: Float[Tensor, "galaxy edge"], usable: Float[Tensor, "galaxy pixel"]
) -> tuple[Float[Tensor, "galaxy pixel"], Bool[Tensor, " galaxy"]]:
    """Weights that give a flux over that of an AB source; whether enough of the filter is known.

    The photons of each pixel are integrated exactly for a flux that is flat inside the pixel.
    """
    fine, energy, source = (table.to(edges.device) for table in _filter_tables(name))
    position = ((edges - fine[0]) / (fine[1] - fine[0])).clamp(0, fine.numel() - 1.001)
    left = position.long()

    def at_edges(table: Tensor) -> Tensor:
        return torch.lerp(table[left], table[left + 1], position - left)

    photons = at_edges(source).diff(dim=1)
    held, inside = photons.sum(dim=1), (photons * usable).sum(dim=1)
    known = (held >= FILTER_SHARE * source[-1]) & (inside >= WINDOW_SHARE * held)
    row = at_edges(energy).diff(dim=1) * usable / inside[:, None].clamp(min=1e-30)
    return row, known


def _sums(
    flux: Float[Tensor, "draw galaxy pixel"], weights: Float[Tensor, "galaxy sum pixel"]
) -> Float[Tensor, "sum draw galaxy"]:
    """Weighted sums over pixels."""
    touched = torch.nonzero((weights != 0).any(dim=1).any(dim=0))
    if touched.numel() == 0:
        return torch.zeros(weights.shape[1], *flux.shape[:2]).double()
    span = slice(int(touched[0]), int(touched[-1]) + 1)
    values = flux[..., span].transpose(0, 1)
    matrix = weights[..., span].transpose(1, 2).to(flux.dtype)
    sums = torch.bmm(values, matrix)
    if not torch.isfinite(sums).all():
        # A NaN pixel must spoil the sums that use it and no other, and 0 * NaN is NaN.
        bad = ~torch.isfinite(values)
        spoilt = torch.bmm(bad.to(flux.dtype), (matrix != 0).to(flux.dtype)) > 0
        sums = torch.bmm(values.masked_fill(bad, 0.0), matrix).masked_fill(spoilt, torch.nan)
    return sums.permute(2, 1, 0).double()


def _combine(sums: Tensor, covered: Bool[Tensor, "galaxy sum"]) -> Tensor:
    """The features of the sums, shape (feature, draw, galaxy)."""
    lines = len(LINE_BANDS)
    d4000 = sums[lines + 1] / sums[lines]
    green, red = sums[lines + 2].clamp(min=0), sums[lines + 3].clamp(min=0)
    colour = -2.5 * torch.log10(green / red)
    features = torch.stack([*sums[:lines], d4000, colour])
    known = torch.stack(
        [
            *covered[:, :lines].unbind(dim=1),
            covered[:, lines : lines + 2].all(dim=1),
            covered[:, lines + 2 :].all(dim=1),
        ]
    )
    known = known[:, None, :] & torch.isfinite(features)
    return torch.where(known, features, torch.nan)
