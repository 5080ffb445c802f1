"""What the spectra of one galaxy say: emission lines, motions, the 4000 Angstrom break.

The same measurement runs on posterior draws, on simulated truth and on observed cubes:

1. Stars: the templates' continuum curves, blurred and redshifted by `instrument`, are fitted to
   what lies more than 500 km/s from every line, at the velocity that leaves the least residual.
   The weights of the curves have a unit normal prior in units of the spectrum's level.
2. Gas: what is left is fitted by Gaussians behind the line-spread function, one velocity and one
   width for all lines, the fluxes free; so lines are net of the stellar absorption beneath them.
3. Equivalent width: flux over the continuum at the line, a straight line through the means of two
   sidebands, in the rest frame, positive in emission. D4000: mean f_nu redwards over bluewards.

As in the MaNGA data analysis pipeline (DAP; GFLUX, GEW, Dn4000) the stars are subtracted, the
velocities of all lines are one, and the sidebands are its own (ELPMPL11). Differences: it fits the
stars with its own templates and polynomials, ties the doublets' flux ratios, lets widths differ,
and corrects fluxes for Galactic dust (E(B-V) in its header), which nothing here does; velocities
here are relative to the given redshift, (1 + v/c) times it, as the DAP's to its SCINPVEL.

Spectra without an inverse variance (draws, truth) are taken as known to 1 % of their level, and no
error is given: it is the spread of the draws. With one, the errors are those of fluxes and
width together, given the stars; those of velocity and width come from the curvature of the
likelihood. Neither holds the noise that neighbouring spaxels share: see `correlation`.

Axes: quantity, spectrum, pixel, curve, line, trial (velocity or width).

References:
    Westfall et al. 2019, The Data Analysis Pipeline for the SDSS-IV MaNGA IFU Galaxy Survey:
        Overview, https://arxiv.org/abs/1901.00856
    Belfiore et al. 2019, The Data Analysis Pipeline for the SDSS-IV MaNGA IFU Galaxy Survey:
        Emission-line Modeling, https://arxiv.org/abs/1901.00866
    Balogh et al. 1999, https://arxiv.org/abs/astro-ph/9906470
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probmmae.instrument import SPEED_OF_LIGHT, pixel_widths
from probmmae.spectral_fit import NEAR_LINE, Design, Lines, fit_lines, fit_stars

#: The lines of the templates that make a flux, and the sidebands of its equivalent width: rest
#: vacuum Angstrom.
LINES: dict[str, tuple[tuple[str, ...], tuple[float, float], tuple[float, float]]] = {
    "h_alpha": (("H-alpha",), (6483.0, 6513.0), (6623.0, 6653.0)),
    "h_beta": (("H-beta",), (4798.9, 4838.9), (4885.6, 4925.6)),
    "o_iii": (("[OIII]5008",), (4978.2, 4998.2), (5028.2, 5048.2)),
    "n_ii": (("[NII]6585",), (6483.0, 6513.0), (6623.0, 6653.0)),
    "o_ii": (("[OII]3727", "[OII]3730"), (3706.3, 3716.3), (3738.6, 3748.6)),
    "s_ii": (("[SII]6718", "[SII]6733"), (6690.0, 6708.0), (6748.0, 6768.0)),
}
_BLENDS = ("[OIII]4960", "[NII]6550")
#: 3850-3950 and 4000-4100 Angstrom in air (Balogh et al. 1999), here in vacuum.
D4000_BANDS = ((3851.09, 3951.12), (4001.13, 4101.16))
#: Where the stellar continuum is told: no strong line, rest Angstrom.
CONTINUUM_BAND = (5450.0, 5550.0)

#: Every quantity and its unit.
QUANTITIES: dict[str, str] = {
    **dict.fromkeys(LINES, "1e-17 erg/s/cm2"),
    **{f"{name}_ew": "Angstrom" for name in LINES},
    "velocity": "km/s",
    "dispersion": "km/s",
    "stellar_velocity": "km/s",
    "d4000": "",
    "continuum": "1e-17 erg/s/cm2/Angstrom",
}

_ASSUMED_NOISE = 0.01
_RESOLVED = 0.5
"""A width below this share of the instrument's is not resolved."""
_SHARE = 0.9
"""A band needs this share of itself in valid pixels."""


@dataclass(frozen=True)
class SpectralMaps:
    """The measurements, in the order of `QUANTITIES`."""

    value: Float[np.ndarray, "quantity *spectrum"]
    """NaN where the grid does not hold a quantity, or the spectrum does not say it."""
    error: Float[np.ndarray, "quantity *spectrum"]
    """Standard error; NaN where no inverse variance was given."""

    def __getitem__(self, name: str) -> Float[np.ndarray, "*spectrum"]:
        """Values of a quantity.

        Raises:
            ValueError: No quantity has this name.
        """
        if name not in QUANTITIES:
            known = ", ".join(QUANTITIES)
            raise ValueError(f"Expected a quantity among {known}; got {name!r}. Choose one.")
        return self.value[list(QUANTITIES).index(name)]


class Measure:
    """Measures every quantity in spectra that share a redshift and a grid.

    Args:
        wavelength: Vacuum pixel centres, Angstrom, increasing, shape (pixel,).
        sigma: Gaussian width of the line-spread function, Angstrom, shape (pixel,).
        z: Redshift of the galaxy.

    Raises:
        ValueError: The shapes disagree.
    """

    def __init__(self, wavelength: Any, sigma: Any, *, z: float) -> None:
        self.grid, width = (
            torch.as_tensor(np.asarray(part), dtype=torch.float64) for part in (wavelength, sigma)
        )
        if self.grid.ndim != 1 or width.shape != self.grid.shape:
            raise ValueError(
                "Expected wavelength and sigma (pixel,); got shapes "
                f"{tuple(self.grid.shape)} and {tuple(width.shape)}. Give one width a pixel."
            )
        names = (*(name for group, _, _ in LINES.values() for name in group), *_BLENDS)
        self.design = Design(self.grid, width, float(z), names)

    def __call__(self, flux: Any, *, ivar: Any = None, chunk: int = 512) -> SpectralMaps:
        """The maps of spectra.

        Args:
            flux: 1e-17 erg/s/cm2/Angstrom, shape (*spectrum, pixel); NaN is missing.
            ivar: Inverse variance, of the shape of `flux`; 0 is missing.
            chunk: Spectra at a time.

        Raises:
            ValueError: The shapes disagree.
        """
        spectra = torch.as_tensor(np.asarray(flux), dtype=torch.float32)
        told = None if ivar is None else torch.as_tensor(np.asarray(ivar), dtype=torch.float32)
        if spectra.shape[-1:] != self.grid.shape or (
            told is not None and told.shape != spectra.shape
        ):
            raise ValueError(
                f"Expected flux and ivar of shape (*spectrum, {len(self.grid)}); got "
                f"{tuple(spectra.shape)} and {None if told is None else tuple(told.shape)}. "
                "Put the wavelengths last."
            )
        rows = spectra.reshape(-1, len(self.grid))
        parts = [torch.empty(2, len(QUANTITIES), 0)]
        for first in range(0, len(rows), chunk):
            some = slice(first, first + chunk)
            known = None if told is None else told.reshape(rows.shape)[some]
            parts.append(_measure(self.design, rows[some], known))
        shape = (2, len(QUANTITIES), *spectra.shape[:-1])
        return SpectralMaps(*torch.cat(parts, dim=2).reshape(shape).numpy())


def _measure(
    design: Design,
    flux: Float[Tensor, "spectrum pixel"],
    ivar: Float[Tensor, "spectrum pixel"] | None,
) -> Float[Tensor, "2 quantity spectrum"]:
    spoilt = ~torch.isfinite(flux)
    flux = torch.where(spoilt, 0.0, flux)
    usable = ~spoilt if ivar is None else ~spoilt & (ivar > 0)
    weight = usable.float()
    level = (flux.abs() * weight).sum(1) / weight.sum(1).clamp(min=1)
    level = level.clamp(min=1e-12)
    scaled = flux / level[:, None]
    precision = (
        weight / _ASSUMED_NOISE**2
        if ivar is None
        else torch.where(usable, ivar, 0.0) * level[:, None] ** 2
    )
    velocity, stars = fit_stars(design, scaled, precision)
    lines = fit_lines(design, velocity, (scaled - stars)[:, design.gas], precision[:, design.gas])
    value, error = _lines_told(design, lines, level, flux, precision)
    value["stellar_velocity"] = velocity
    band = _band(design, *CONTINUUM_BAND)
    value["continuum"] = (stars @ band) / band.sum() * level
    value["d4000"], error["d4000"] = _break(design, flux, precision / level[:, None] ** 2)
    known = usable[:, design.stars].float().mean(1) > 0.5
    nothing = torch.full_like(level, torch.nan)
    told = [
        torch.stack([part.get(name, nothing) for name in QUANTITIES]) for part in (value, error)
    ]
    if ivar is None:
        told[1] = torch.full_like(told[1], torch.nan)
    return torch.where(known, torch.stack(told), torch.nan)


def _lines_told(
    design: Design, lines: Lines, level: Tensor, flux: Tensor, precision: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Fluxes, equivalent widths, velocity and dispersion, and their errors."""
    value: dict[str, Tensor] = {}
    error: dict[str, Tensor] = {}
    good = precision > 0
    # Every line needs its own pixels: 90 % of those within 500 km/s.
    own = (design.grid[design.gas] / (1 + design.z) / design.centre[:, None] - 1).abs()
    core = (own < NEAR_LINE / SPEED_OF_LIGHT).float()
    seen = (good[:, design.gas].float() @ core.T) / core.sum(1).clamp(min=1) > _SHARE
    seen = seen & design.held
    for name, (group, blue, red) in LINES.items():
        index = [design.names.index(one) for one in group]
        known = seen[:, index].all(1)
        total = lines.flux[:, index].sum(1) * level
        block = lines.covariance[:, index][..., index].sum((1, 2)).sqrt() * level
        value[name] = torch.where(known, total, torch.nan)
        error[name] = torch.where(known, block, torch.nan)
        left, right = (_mean(_band(design, *side), flux, good) for side in (blue, red))
        centre = float(design.centre[index].mean())
        share = (2 * centre - sum(blue)) / (sum(red) - sum(blue))
        under = (left + share * (right - left)) * (1 + design.z)
        under = torch.where(under > 0, under, torch.nan)
        value[f"{name}_ew"], error[f"{name}_ew"] = value[name] / under, error[name] / under
    instrument = torch.searchsorted(
        design.grid, design.centre[design.names.index("H-alpha")] * (1 + design.z)
    ).clamp(max=len(design.grid) - 1)
    blur = SPEED_OF_LIGHT * design.sigma[instrument] / design.grid[instrument]
    resolved = lines.moving & (lines.width > _RESOLVED * blur)
    value["velocity"] = torch.where(lines.moving, lines.velocity, torch.nan)
    error["velocity"] = torch.where(lines.moving, lines.velocity_error, torch.nan)
    value["dispersion"] = torch.where(resolved, lines.width, torch.nan)
    error["dispersion"] = torch.where(resolved, lines.width_error, torch.nan)
    return value, error


def _band(design: Design, low: float, high: float) -> Float[Tensor, " pixel"]:
    """Angstrom of every pixel inside a rest-frame band; NaN where the grid is too short."""
    half = pixel_widths(design.grid) / 2
    low, high = low * (1 + design.z), high * (1 + design.z)
    start, end = design.grid - half, design.grid + half
    inside = (end.clamp(max=high) - start.clamp(min=low)).clamp(min=0)
    whole = bool(start[0] <= low) and bool(end[-1] >= high)
    return (inside if whole else torch.full_like(inside, torch.nan)).float()


def _mean(
    band: Float[Tensor, " pixel"], flux: Tensor, good: Bool[Tensor, "spectrum pixel"]
) -> Float[Tensor, " spectrum"]:
    """Mean flux density of the valid pixels of a band; NaN where too few are valid."""
    held = _held(band)
    band, flux, good = band[held], flux[:, held], good[:, held]
    whole = good.float() @ band
    return torch.where(
        whole >= _SHARE * band.sum(), (flux * good) @ band / whole.clamp(min=1e-9), torch.nan
    )


def _held(band: Float[Tensor, " pixel"]) -> slice:
    """The pixels of a band; all where the grid is too short for it."""
    inside = torch.nonzero(band)[:, 0]
    return slice(int(inside[0]), int(inside[-1]) + 1)


def _break(
    design: Design, flux: Tensor, ivar: Tensor
) -> tuple[Float[Tensor, " spectrum"], Float[Tensor, " spectrum"]]:
    """D4000 and its error."""
    bands = []
    for each in D4000_BANDS:
        band = _band(design, *each)
        held = _held(band)
        band, good = band[held], ivar[:, held] > 0
        frequency = (design.grid[held].float() / 4000) ** 2
        variance = torch.where(good, 1 / ivar[:, held].clamp(min=1e-30), 0.0) * frequency**2
        spread = (variance @ band**2).sqrt() / (good.float() @ band).clamp(min=1e-9)
        bands.append((_mean(band, flux[:, held] * frequency, good), spread))
    blue, red = bands
    ratio = torch.where(blue[0] > 0, red[0] / blue[0], torch.nan)
    return ratio, ratio.abs() * ((blue[1] / blue[0]) ** 2 + (red[1] / red[0]) ** 2).sqrt()
