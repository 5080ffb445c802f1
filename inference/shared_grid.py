"""Spectra of many draws and places on one grid at one redshift: what they share is computed once.

The answer is that of `amortized.spectra_at` to rounding, in less than half the time. Where the
instrument's resolution is the same in all pixels, a row needs the templates at one width alone,
so that its continuum is one product of matrices; the decoder's scatter is in proportion to the
flux, so that one row of it serves all; and the hash behind the noise runs in 32 bits.

Axes: draw, query (aperture), row (draw and query together), basis, rung, wave, pixel, mode.
"""

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt32
from torch import Tensor

from probmmae.instrument import (
    RUNGS,
    SPEED_OF_LIGHT,
    RestSpectrum,
    add_lines,
    blurred,
    pixel_widths,
)
from probmmae.model import GalaxyModel

_UNIFORM = 2e-3
"""Largest spread of the instrument's variance over the pixels, as a share of it."""
_MARGIN = 32
"""Steps of the templates (69 km/s) beyond the grid that velocities may need."""
_ROWS = 48
"""At a time, so that they stay in the processor's cache."""


class SharedGrid:
    """One grid at one redshift.

    Args:
        network: A trained network with a field.
        z: The redshift.
        wavelength: Observed pixel centres, Angstrom, shape (pixel,).
        sigma: Width of the line-spread function, Angstrom, shape (pixel,).
    """

    def __init__(
        self, network: GalaxyModel, z: float, wavelength: np.ndarray, sigma: np.ndarray
    ) -> None:
        self.templates, self.z = network.templates, z
        self.wavelength, self.sigma = (
            torch.tensor(part, dtype=torch.float32)[None] for part in (wavelength, sigma)
        )
        self.width = pixel_widths(self.wavelength)
        instrument = (SPEED_OF_LIGHT / self.wavelength) ** 2 * (
            self.sigma**2 + self.width.clamp(max=1e3) ** 2 / 12
        )
        self.uniform = bool(np.ptp(instrument.numpy()) < _UNIFORM * float(instrument.mean()))
        """Whether rows need the templates at one width each; where not, ask `spectra_at`."""
        self.added = float(instrument.mean()) - self.templates.template_sigma**2
        first = float(self.templates.wavelength[0])
        place = np.log(np.asarray(wavelength) / (1 + z) / first) / self.templates.step
        low = int(np.clip(np.floor(place[0]) - _MARGIN, 0, len(self.templates.wavelength) - 2))
        high = int(np.clip(np.ceil(place[-1]) + _MARGIN, low + 2, len(self.templates.wavelength)))
        self.curves = blurred(self.templates)[..., low:high]
        whole = np.floor(place)
        self.left = torch.tensor(whole - low, dtype=torch.int64)
        self.beside = torch.tensor(place - whole, dtype=torch.float32)
        one, grid = torch.ones_like(self.wavelength), torch.tensor([z], dtype=torch.float32)
        variance, factor = network.spectrum_decoder.uncertainty(one, grid, self.wavelength)
        self.scatter, self.modes = variance.sqrt()[0].numpy(), factor[0].numpy()
        # A number for every hundredth of an Angstrom, as in `amortized`.
        hundredth = (self.wavelength[0] * 100).round().long().numpy()
        self.number = _stride(hundredth)

    def flux(
        self,
        light: RestSpectrum,
        seed: Float[Tensor, " draw"],
        position: Float[Tensor, "query 2"],
    ) -> Float[np.ndarray, "draw query pixel"]:
        """Noise-free spectra, the model's intrinsic scatter included.

        Args:
            light: What the apertures collect, rows (draw, query).
            seed: Of every draw.
            position: Sky positions of the queries, arcsec.
        """
        shape = light.velocity.shape
        rows = light.map(lambda part: part.reshape(shape[0] * shape[1], *part.shape[2:]))
        square = torch.tensor(RUNGS) ** 2
        needed = (self.added + rows.sigma_star**2).clamp(0.0, float(square[-1]) - 1)
        rung = (torch.searchsorted(square, needed, right=True) - 1).clamp(0, len(RUNGS) - 2)
        upper = (needed - square[rung]) / (square[rung + 1] - square[rung])
        modes = normals(seed + 1, position, np.arange(self.modes.shape[-1]))
        tilt = 1 + modes.reshape(len(needed), -1) @ self.modes.T
        start = _counter(seed + 2, position).reshape(-1)
        flux = np.empty((len(needed), len(self.number)), np.float32)
        for one in rung.unique():  # rows of one rung share their curves
            for some in torch.nonzero(rung == one)[:, 0].split(_ROWS):
                part = rows.map(lambda each, some=some: each[some])
                mean = self._mean(part, int(one), upper[some]).numpy()
                own = _normal(start[some, None] + self.number)
                flux[some] = mean * tilt[some] + np.abs(mean) * (own * self.scatter)
        return flux.reshape(*shape, -1)

    def _mean(
        self, rows: RestSpectrum, rung: int, upper: Float[Tensor, " row"]
    ) -> Float[Tensor, "row pixel"]:
        """Continuum and lines; the templates at two widths, mixed before they are summed."""
        weight = torch.cat(
            [rows.continuum * (1 - upper[:, None]), rows.continuum * upper[:, None]], dim=1
        )
        curves = weight @ self.curves[rung : rung + 2].flatten(0, 1)
        moved = torch.log1p(rows.velocity / SPEED_OF_LIGHT)[:, None] / self.templates.step
        place = self.beside - moved
        whole = place.floor()
        left = (self.left + whole.long()).clamp(0, curves.shape[1] - 2)
        flux = torch.lerp(curves.gather(1, left), curves.gather(1, left + 1), place - whole)
        grid, sigma, width = (
            part.expand_as(flux) for part in (self.wavelength, self.sigma, self.width)
        )
        shift = (1 + self.z) * (1 + rows.velocity / SPEED_OF_LIGHT)
        return add_lines(self.templates, rows, shift, grid, sigma, width, flux)


def normals(
    seed: Float[Tensor, " draw"],
    position: Float[Tensor, "query 2"],
    index: Integer[np.ndarray, " count"],
) -> Float[np.ndarray, "draw query count"]:
    """Standard normals, each a function of its draw, position and index: `amortized`'s own."""
    return _normal(_counter(seed, position)[..., None] + _stride(index))


def _counter(
    seed: Float[Tensor, " draw"], position: Float[Tensor, "query 2"]
) -> UInt32[np.ndarray, "draw query"]:
    place = (position * 1000).round().long().numpy().astype(np.uint32)
    start = seed.long().numpy().astype(np.uint32)[:, None] * np.uint32(0x9E3779B1)
    return _mix(
        start + (place[:, 0] * np.uint32(0x85EBCA6B) + place[:, 1] * np.uint32(0xC2B2AE35))
    )


def _stride(index: Integer[np.ndarray, " count"]) -> UInt32[np.ndarray, " count"]:
    return index.astype(np.uint32) * np.uint32(0x27D4EB2F)


def _normal(counter: UInt32[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Two uniforms from a hash, a normal by Box and Muller."""
    first, second = _uniform(counter), _uniform(counter ^ np.uint32(0x165667B1))
    np.log(first, out=first)
    first *= np.float32(-2)
    np.sqrt(first, out=first)
    second *= np.float32(2 * np.pi)
    first *= np.cos(second, out=second)
    return first


def _uniform(counter: UInt32[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    return (_mix(counter).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)


def _mix(counter: UInt32[np.ndarray, "*any"]) -> UInt32[np.ndarray, "*any"]:
    """A 32-bit hash: every bit of the counter reaches every bit of the answer."""
    mixed = counter ^ (counter >> np.uint32(16))
    mixed *= np.uint32(0x7FEB352D)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x846CA68B)
    mixed ^= mixed >> np.uint32(16)
    return mixed
