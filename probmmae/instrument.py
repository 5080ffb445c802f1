"""What a spectrograph does to a rest-frame spectrum: from `RestSpectrum` to flux on a pixel grid.

Redshift, velocity, velocity dispersion, line-spread function and pixel are applied, none is
learned, so that one rest-frame spectrum answers on every wavelength grid and at every resolution.
The simulator and the model's spectrum decoder share this module.

- The continuum is a sum of the templates' basis curves. Each is blurred once to a ladder of
  widths; a pixel that needs the width s takes the mixture of its two neighbouring rungs with the
  variance s^2.
- A line is a Gaussian integrated over every pixel exactly (error function).

Axes: row (any leading axes: galaxy, spectrum, draw), basis, line, pixel, rung, wave (rest-frame
grid).
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from probmmae.batch import Rows
from probmmae.templates import Templates

SPEED_OF_LIGHT = 299792.458
"""km/s."""

RUNGS = (
    *(0.0, 50.0, 100.0, 160.0, 250.0, 350.0, 450.0, 560.0, 700.0, 900.0),
    *(1200.0, 1600.0, 2200.0, 3200.0, 6400.0),
)
"""km/s: the widths to which the templates' curves are blurred."""


@dataclass(frozen=True)
class RestSpectrum(Rows):
    """The light that an aperture collects, before the spectrograph."""

    continuum: Float[Tensor, "*rows basis"]
    """Weights of the templates' curves, in 1e-17 erg/s/cm2/Angstrom observed."""
    lines: Float[Tensor, "*rows line"]
    """Integrated observed line fluxes, 1e-17 erg/s/cm2."""
    velocity: Float[Tensor, "*rows"]
    """km/s relative to the redshift, positive away from us."""
    sigma_star: Float[Tensor, "*rows"]
    """Velocity dispersion of the continuum, km/s."""
    sigma_gas: Float[Tensor, "*rows"]
    """Velocity dispersion of the lines, km/s."""


@lru_cache(maxsize=4)
def blurred(templates: Templates) -> Float[Tensor, "rung basis wave"]:
    """The templates' curves blurred to each rung (km/s), by FFT on the ln-wavelength grid."""
    curves = templates.continuum
    pad = 512
    left, right = curves[:, :1].expand(-1, pad), curves[:, -1:].expand(-1, pad)
    padded = torch.cat([left, curves, right], dim=1).double()
    step = SPEED_OF_LIGHT * float(torch.log(templates.wavelength[1] / templates.wavelength[0]))
    frequency = 2 * torch.pi * torch.fft.rfftfreq(padded.shape[1], dtype=torch.float64)
    spectrum = torch.fft.rfft(padded)
    rungs = [
        torch.fft.irfft(
            spectrum * torch.exp(-0.5 * (frequency * rung / step) ** 2), n=padded.shape[1]
        )[:, pad:-pad]
        for rung in RUNGS
    ]
    return torch.stack(rungs).to(curves.dtype)


def pixel_widths(wavelength: Float[Tensor, "*rows pixel"]) -> Float[Tensor, "*rows pixel"]:
    """Pixel widths in Angstrom from pixel centres; padding (repeated centres) gets 1e-3."""
    difference = wavelength.diff(dim=-1)
    inner = 0.5 * (difference[..., 1:] + difference[..., :-1])
    widths = torch.cat([difference[..., :1], inner, difference[..., -1:]], dim=-1)
    return widths.clamp(min=1e-3)


def covered(
    templates: Templates, z: Float[Tensor, "*rows"], wavelength: Float[Tensor, "*rows pixel"]
) -> Tensor:
    """True where the templates reach the pixel at this redshift; shape (*rows, pixel)."""
    rest = wavelength / (1 + z[..., None])
    return (rest > templates.wavelength[0]) & (rest < templates.wavelength[-1])


def observe(
    templates: Templates,
    rest: RestSpectrum,
    z: Float[Tensor, "*rows"],
    wavelength: Float[Tensor, "*rows pixel"],
    sigma: Float[Tensor, "*rows pixel"],
) -> Float[Tensor, "*rows pixel"]:
    """Flux of `rest` at redshift `z` on a pixel grid, 1e-17 erg/s/cm2/Angstrom.

    Args:
        templates: The rest-frame curves and lines.
        rest: What the aperture collects.
        z: Redshift, shape (*rows,).
        wavelength: Observed pixel centres, Angstrom, shape (*rows, pixel).
        sigma: Gaussian width of the line-spread function, Angstrom, shape (*rows, pixel).
    """
    leading, pixels = wavelength.shape[:-1], wavelength.shape[-1]
    rows = 1
    for size in leading:
        rows *= size
    flat = RestSpectrum(
        continuum=rest.continuum.reshape(rows, -1),
        lines=rest.lines.reshape(rows, -1),
        velocity=rest.velocity.reshape(rows),
        sigma_star=rest.sigma_star.reshape(rows),
        sigma_gas=rest.sigma_gas.reshape(rows),
    )
    shift = (1 + z.reshape(rows)) * (1 + flat.velocity / SPEED_OF_LIGHT)
    wavelength, sigma = wavelength.reshape(rows, pixels), sigma.reshape(rows, pixels)
    widths = pixel_widths(wavelength)
    flux = _continuum(templates, flat, shift, wavelength, sigma, widths)
    flux = add_lines(templates, flat, shift, wavelength, sigma, widths, flux)
    return flux.reshape(*leading, pixels)


def _continuum(
    templates: Templates,
    rest: RestSpectrum,
    shift: Tensor,
    wavelength: Tensor,
    sigma: Tensor,
    widths: Tensor,
) -> Tensor:
    ladder = blurred(templates)
    waves = ladder.shape[-1]
    # Width still to be added at each pixel, km/s squared: instrument, pixel and stars less what
    # the templates already carry.
    per_angstrom = SPEED_OF_LIGHT / wavelength
    needed = (
        (per_angstrom**2) * (sigma**2 + widths.clamp(max=1e3) ** 2 / 12)
        + rest.sigma_star[:, None] ** 2
        - templates.template_sigma**2
    ).clamp(0.0, RUNGS[-1] ** 2 - 1)
    squares = torch.tensor(RUNGS, dtype=needed.dtype, device=needed.device) ** 2
    with torch.no_grad():
        top = int(torch.searchsorted(squares, needed.max()).clamp(1, len(RUNGS) - 1))
        rung = (torch.searchsorted(squares, needed.contiguous(), right=True) - 1).clamp(0, top - 1)
    upper = (needed - squares[rung]) / (squares[rung + 1] - squares[rung])
    curves = torch.einsum("rb,lbw->rlw", rest.continuum, ladder[: top + 1].to(rest.continuum))
    position = (
        torch.log(wavelength / shift[:, None] / templates.wavelength[0]) / templates.step
    ).clamp(0.0, waves - 1.001)
    left = position.floor()
    weight = position - left
    index = rung * waves + left.long()
    flat = curves.reshape(curves.shape[0], -1)
    low = torch.lerp(flat.gather(1, index), flat.gather(1, index + 1), weight)
    high = torch.lerp(flat.gather(1, index + waves), flat.gather(1, index + waves + 1), weight)
    return torch.lerp(low, high, upper)


def add_lines(
    templates: Templates,
    rest: RestSpectrum,
    shift: Tensor,
    wavelength: Tensor,
    sigma: Tensor,
    widths: Tensor,
    flux: Tensor,
) -> Tensor:
    """Lines on top of a continuum; rows are flat, and `shift` is (1 + z) (1 + v/c) of each."""
    pixels = wavelength.shape[-1]
    centre = templates.line_wavelength.to(wavelength) * shift[:, None]
    with torch.no_grad():
        middle = torch.searchsorted(wavelength.contiguous(), centre.detach().contiguous())
        middle = middle.clamp(0, pixels - 1)
    gas = rest.sigma_gas[:, None] / SPEED_OF_LIGHT * centre
    width = torch.sqrt(gas**2 + sigma.gather(1, middle) ** 2)
    with torch.no_grad():
        reach = (5 * width / widths.gather(1, middle)).clamp(max=float(pixels))
        inside = (centre > wavelength[:, :1]) & (centre < wavelength[:, -1:])
        half = int(torch.where(inside, reach, torch.zeros_like(reach)).max()) + 2
        offsets = torch.arange(-half, half + 1, device=wavelength.device)
        raw = middle[..., None] + offsets
        valid = (raw >= 0) & (raw < pixels) & inside[..., None]
        index = raw.clamp(0, pixels - 1)
    rows = index.reshape(index.shape[0], -1)
    at = wavelength.gather(1, rows).reshape(index.shape)
    across = widths.gather(1, rows).reshape(index.shape)
    scale = width[..., None] * 2**0.5
    distance = at - centre[..., None]
    share = 0.5 * (
        torch.erf((distance + across / 2) / scale) - torch.erf((distance - across / 2) / scale)
    )
    value = torch.where(valid, rest.lines[..., None] * share / across, torch.zeros_like(share))
    return flux.scatter_add(1, rows, value.reshape(rows.shape))
