r"""New evidence on a galaxy: what is measured after a network has conditioned on the rest.

A spectrum, the flux in a filter (broad or narrow) or the flux of a line, each through an aperture.
Nothing is trained for it. Given the latent u and the redshift z the decoder says what an aperture
sends, and every measurement has an exact density:

    spectrum   low-rank normal (`likelihoods`)
    filter     w . x with x that spectrum: normal, its variance follows from the spectrum's
    line       normal about the decoded flux, scattered by the modes of flux calibration

`Evidence` is what a user holds; `Measured` the same as tensors, for one galaxy or for many that
were measured alike. Latents live at distinct apertures (queries): those of the spectra first, then
those of filters and lines that lie elsewhere.

Axes: galaxy, draw, spectrum, filter, line, query, pixel, mode.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from astropy import units as u
from jaxtyping import Float, Int
from torch import Tensor

from probmmae.batch import NANOMAGGIE_FLAMBDA, Rows, Spectra
from probmmae.collate import collate
from probmmae.decoders import calibration_modes
from probmmae.galaxy import Aperture, Galaxy, Spectrum
from probmmae.instrument import observe
from probmmae.model import GalaxyModel
from probmmae.quantities import AB, NANOMAGGIE, number
from probmmae.templates import load_templates

_LINE_FLUX = u.Unit(1e-17 * u.erg / u.s / u.cm**2)
_PIXELS = 256
"""Most pixels on which a filter is integrated."""


@dataclass(frozen=True, eq=False, init=False)
class FilterFlux:
    """The flux of a galaxy through a filter and an aperture.

    Args:
        flux: AB flux, a Quantity in nanomaggies, Jy, ABmag or the like.
        error: Its standard error, a Quantity in a linear unit.
        wavelength: Where the response is given: vacuum, increasing, a Quantity of shape (pixel,).
        response: Photons counted of those that arrive, in any unit, shape (pixel,).
        aperture: Through which; by default 1.5 arcsec on the centre.

    Raises:
        TypeError, UnitConversionError: A number without its unit, a unit of something else, or an
            error in magnitudes.
        ValueError: A curve that is no response, or an error that is not positive and finite.
    """

    flux: float
    """Nanomaggies."""
    error: float
    """Nanomaggies."""
    wavelength: Float[np.ndarray, " pixel"]
    """Angstrom."""
    response: Float[np.ndarray, " pixel"]
    aperture: Aperture

    def __init__(
        self, flux: Any, error: Any, *, wavelength: Any, response: Any, aperture: Any = None
    ) -> None:
        grid = number(wavelength, u.AA, "the wavelengths of a filter")
        curve = np.asarray(response, dtype=float)
        paired = grid.ndim == 1 and len(grid) > 1 and curve.shape == grid.shape
        finite = paired and bool(np.isfinite([grid, curve]).all())
        increasing = finite and bool((np.diff(grid) > 0).all() and grid[0] > 0)
        if not increasing or (curve < 0).any() or len(_responding(grid, curve)) < 2:
            raise ValueError(
                "Expected increasing wavelengths and as many responses, all finite, none negative "
                "and at least two above a thousandth of the largest; got wavelengths of shape "
                f"{grid.shape} and responses of shape {curve.shape}: {curve}. Check the filter's "
                "curve."
            )
        _keep(
            self,
            **_measured(flux, error, NANOMAGGIE, "a filter flux", AB),
            wavelength=grid,
            response=curve,
            aperture=_aperture(aperture),
        )

    @classmethod
    def named(cls, band: str, flux: Any, error: Any, *, aperture: Any = None) -> Self:
        """Through a filter that speclite knows by name, such as "hsc2017-g"."""
        from speclite.filters import load_filter

        curve = load_filter(band)
        return cls(
            flux, error, wavelength=curve.wavelength * u.AA, response=curve.response,
            aperture=aperture,
        )  # fmt: skip

    @classmethod
    def narrow(
        cls, centre: Any, width: Any, *, flux: Any, error: Any, aperture: Any = None
    ) -> Self:
        """Through a top-hat of a central wavelength and a full width, both Quantities."""
        middle, wide = (number(one, u.AA, "a narrow band") for one in (centre, width))
        grid = middle + wide * np.linspace(-0.5, 0.5, 33)
        return cls(
            flux, error, wavelength=grid * u.AA, response=np.ones(33), aperture=aperture
        )  # fmt: skip

    def weights(self, pixels: int) -> tuple[np.ndarray, np.ndarray]:
        """A grid of that many pixels, Angstrom, and what a unit of flux density in each adds.

        The weights are nanomaggies per 1e-17 erg/s/cm2/Angstrom, for a detector that counts
        photons.
        """
        inside = _responding(self.wavelength, self.response)
        edges = np.linspace(inside[0], inside[-1], pixels + 1)
        grid = 0.5 * (edges[1:] + edges[:-1])
        response = np.interp(grid, self.wavelength, self.response)
        return grid, response * grid / (NANOMAGGIE_FLAMBDA * np.sum(response / grid))


@dataclass(frozen=True, eq=False, init=False)
class LineFlux:
    """The flux of an emission line through an aperture.

    Args:
        line: One of the templates' lines, such as "H-alpha".
        flux: A Quantity in erg/s/cm2 or the like.
        error: Its standard error, such a Quantity.
        aperture: Through which; by default 1.5 arcsec on the centre.

    Raises:
        TypeError, UnitConversionError: A number without its unit, or a unit of something else.
        ValueError: An unknown line, or an error that is not positive and finite.
    """

    line: str
    flux: float
    """1e-17 erg/s/cm2."""
    error: float
    """1e-17 erg/s/cm2."""
    aperture: Aperture

    def __init__(self, line: str, flux: Any, error: Any, *, aperture: Any = None) -> None:
        load_templates().line(line)
        told = _measured(flux, error, _LINE_FLUX, f"the flux of {line}")
        _keep(self, line=line, **told, aperture=_aperture(aperture))


@dataclass(frozen=True, init=False)
class Evidence:
    """All that was measured anew of one galaxy.

    Args:
        spectra: Any number of `Spectrum`.
        filters: Any number of `FilterFlux`.
        lines: Any number of `LineFlux`.

    Raises:
        TypeError: Something else than lists or tuples of these.
        ValueError: None of them.
    """

    spectra: tuple[Spectrum, ...]
    filters: tuple[FilterFlux, ...]
    lines: tuple[LineFlux, ...]

    def __init__(self, spectra: Any = (), filters: Any = (), lines: Any = ()) -> None:
        _keep(
            self,
            spectra=_all(spectra, Spectrum, "spectra"),
            filters=_all(filters, FilterFlux, "filters"),
            lines=_all(lines, LineFlux, "lines"),
        )
        if not (self.spectra or self.filters or self.lines):
            raise ValueError(
                "Expected at least one spectrum, filter flux or line flux; got none. "
                "Without evidence the network's answer is the posterior."
            )

    def check_reach(self, lowest: float, highest: float) -> None:
        """The templates reach a part of each spectrum and filter at redshifts between two.

        Raises:
            ValueError: One lies outside, whatever the redshift.
        """
        rest = load_templates().wavelength
        blue, red = float(rest[0]) * (1 + lowest), float(rest[-1]) * (1 + highest)
        grids = [("spectrum", one.wavelength[one.ivar > 0]) for one in self.spectra]
        grids += [("filter", _responding(one.wavelength, one.response)) for one in self.filters]
        for what, grid in grids:
            if grid[-1] <= blue or grid[0] >= red:
                at = f"{lowest:.3g}" + (f" to {highest:.3g}" if highest > lowest else "")
                raise ValueError(
                    f"Expected evidence between {blue:.0f} and {red:.0f} Angstrom, which the "
                    f"templates reach at a redshift of {at}; got a {what} at {grid[0]:.0f} to "
                    f"{grid[-1]:.0f} Angstrom. Leave it out."
                )

    def measured(self) -> "Measured":
        """As tensors, of one galaxy."""
        spectra = _spectra(self.spectra)
        places = [] if spectra is None else list(spectra.aperture[0])
        slots = []
        for at in [one.aperture for one in self.filters] + [one.aperture for one in self.lines]:
            place = torch.tensor([at.dx, at.dy, at.diameter, at.seeing])
            same = [torch.allclose(place, known, atol=1e-3) for known in places]
            slots.append(same.index(True) if any(same) else len(places))
            if not any(same):
                places.append(place)
        cut = len(self.filters)
        return Measured(
            torch.stack(places)[None],
            spectra,
            _filters(self.filters, slots[:cut]),
            _lines(self.lines, slots[cut:]),
        )


@dataclass(frozen=True)
class Filters(Rows):
    """Fluxes through filters."""

    wavelength: Float[Tensor, "galaxy filter pixel"]
    """Angstrom."""
    weight: Float[Tensor, "galaxy filter pixel"]
    """Nanomaggies per 1e-17 erg/s/cm2/Angstrom."""
    flux: Float[Tensor, "galaxy filter"]
    """Nanomaggies."""
    variance: Float[Tensor, "galaxy filter"]
    slot: Int[Tensor, "galaxy filter"]
    """The query each was measured at."""


@dataclass(frozen=True)
class Lines(Rows):
    """Fluxes of lines."""

    which: Int[Tensor, "galaxy line"]
    """In the templates' list."""
    flux: Float[Tensor, "galaxy line"]
    """1e-17 erg/s/cm2."""
    variance: Float[Tensor, "galaxy line"]
    slot: Int[Tensor, "galaxy line"]


@dataclass(frozen=True)
class Measured(Rows):
    """Evidence as tensors."""

    aperture: Float[Tensor, "galaxy query 4"]
    """dx, dy, diameter and seeing of each query, arcsec; those of the spectra come first."""
    spectra: Spectra | None = None
    filters: Filters | None = None
    lines: Lines | None = None

    @classmethod
    def of_spectra(cls, spectra: Spectra) -> Self:
        """Spectra alone, of any number of galaxies."""
        return cls(spectra.aperture, spectra)

    def log_likelihood(
        self,
        network: GalaxyModel,
        latent: Float[Tensor, "galaxy query latent"],
        hidden: Float[Tensor, "galaxy query width"],
        z: Float[Tensor, " galaxy"],
        scale: Float[Tensor, " galaxy"],
    ) -> Float[Tensor, " galaxy"]:
        """ln p(all of it | u, z); the rows may be draws of one galaxy.

        Args:
            network: Whose decoder says what is sent.
            latent: u at the queries.
            hidden: The queries' features, as `GalaxyModel.field` gives them.
            z: Redshifts.
            scale: Flux scales, nanomaggies.
        """
        total = torch.zeros_like(z)
        if (spectra := self.spectra) is not None:
            of = slice(spectra.flux.shape[1])
            density = network.spectrum(latent[:, of], hidden[:, of], z, scale, spectra)
            total = total + density.log_prob(spectra.flux).sum(-1)
        if (filters := self.filters) is not None:
            mean, variance = _through(network, latent, z, scale, filters)
            total = total + _normal(filters.flux - mean, variance + filters.variance)
        if (lines := self.lines) is not None:
            mean, variance = _of_lines(network, latent, z, scale, lines)
            total = total + _normal(lines.flux - mean, variance + lines.variance)
        return total


def padded(spectra: Spectra, pixels: int) -> Spectra:
    """The spectra on grids of so many pixels, padded as in a batch: ivar and flux 0."""
    short = pixels - spectra.flux.shape[-1]

    def repeat(part: Tensor) -> Tensor:
        return torch.cat([part, part[..., -1:].expand(*part.shape[:-1], short)], dim=-1)

    def zero(part: Tensor) -> Tensor:
        return torch.nn.functional.pad(part, (0, short))

    return Spectra(
        repeat(spectra.wavelength),
        zero(spectra.flux),
        zero(spectra.ivar),
        repeat(spectra.sigma),
        spectra.aperture,
    )


def _through(
    network: GalaxyModel, latent: Tensor, z: Tensor, scale: Tensor, filters: Filters
) -> tuple[Tensor, Tensor]:
    """Mean flux through each filter and the model's variance of it."""
    z = z[:, None].expand(filters.flux.shape)
    rest = network.spectrum_decoder(_at(latent, filters.slot), scale[:, None].expand_as(z))
    sharp = torch.zeros_like(filters.wavelength)
    mean = observe(network.templates, rest, z, filters.wavelength, sharp)
    own, factor = network.spectrum_decoder.uncertainty(mean, z, filters.wavelength)
    shared = (filters.weight[..., None] * factor).sum(-2).square().sum(-1)
    return (filters.weight * mean).sum(-1), (filters.weight**2 * own).sum(-1) + shared


def _of_lines(
    network: GalaxyModel, latent: Tensor, z: Tensor, scale: Tensor, lines: Lines
) -> tuple[Tensor, Tensor]:
    """Mean flux of each line and the model's variance of it."""
    z = z[:, None].expand(lines.flux.shape)
    rest = network.spectrum_decoder(_at(latent, lines.slot), scale[:, None].expand_as(z))
    mean = rest.lines.gather(-1, lines.which[..., None])[..., 0]
    at = network.templates.line_wavelength.to(z)[lines.which] * (1 + z)
    modes = calibration_modes(at) * torch.exp(network.spectrum_decoder.log_calibration)
    return mean, mean**2 * modes.square().sum(-1)


def _at(latent: Tensor, slot: Tensor) -> Tensor:
    index = slot[..., None].expand(*slot.shape, latent.shape[-1])
    return latent.gather(1, index)


def _normal(residual: Tensor, variance: Tensor) -> Tensor:
    return -0.5 * (residual**2 / variance + torch.log(2 * math.pi * variance)).sum(-1)


def _spectra(spectra: Sequence[Spectrum]) -> Spectra | None:
    """As in a batch of one, without the pixels beyond the first and last that were measured."""
    if not spectra:
        return None
    made = collate([Galaxy("evidence", spectra=tuple(spectra))]).spectra
    seen = torch.nonzero((made.ivar > 0).any(0).any(0))[:, 0]
    part = slice(int(seen[0]), int(seen[-1]) + 1)
    cut = {
        name: getattr(made, name)[..., part] for name in ("wavelength", "flux", "ivar", "sigma")
    }
    return Spectra(**cut, aperture=made.aperture)


def _filters(filters: Sequence[FilterFlux], slots: list[int]) -> Filters | None:
    if not filters:
        return None
    grid, weight = zip(*(one.weights(_PIXELS) for one in filters), strict=True)
    return Filters(
        torch.tensor(np.stack(grid)[None], dtype=torch.float32),
        torch.tensor(np.stack(weight)[None], dtype=torch.float32),
        torch.tensor([[one.flux for one in filters]]),
        torch.tensor([[one.error**2 for one in filters]]),
        torch.tensor([slots]),
    )


def _lines(lines: Sequence[LineFlux], slots: list[int]) -> Lines | None:
    if not lines:
        return None
    templates = load_templates()
    return Lines(
        torch.tensor([[templates.line(one.line) for one in lines]]),
        torch.tensor([[one.flux for one in lines]]),
        torch.tensor([[one.error**2 for one in lines]]),
        torch.tensor([slots]),
    )


def _measured(
    flux: Any, error: Any, unit: Any, what: str, equivalencies: Any = ()
) -> dict[str, float]:
    value = number(flux, unit, what, equivalencies=equivalencies)
    scale = getattr(error, "unit", None)
    if isinstance(scale, u.LogUnit) or scale == u.mag:
        raise u.UnitConversionError(
            f"Expected the error of {what} in a linear unit, such as {unit}; got {error}. Give "
            "flux and error in a linear unit; of m +/- s mag the error is ln(10) / 2.5 * s * flux."
        )
    spread = number(error, unit, f"the error of {what}", equivalencies=equivalencies)
    single = value.shape == spread.shape == ()
    if not single or not np.isfinite([value, spread]).all() or spread <= 0:
        raise ValueError(
            f"Expected {what} as one number with a positive error, both finite, in {unit}; got "
            f"{value} +/- {spread}. Leave out what was not measured."
        )
    return {"flux": float(value), "error": float(spread)}


def _all(values: Any, kind: type, name: str) -> tuple[Any, ...]:
    listed = isinstance(values, list | tuple)
    wrong = [one for one in values if not isinstance(one, kind)] if listed else [values]
    if wrong:
        raise TypeError(
            f"Expected {name} as a list of {kind.__name__} objects; got "
            f"{'one that is a' if listed else 'a bare'} {type(wrong[0]).__name__}. Write "
            f"Evidence({name}=[{kind.__name__}(...)])."
        )
    return tuple(values)


def _responding(wavelength: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Wavelengths where a filter responds with more than a thousandth of its largest."""
    return wavelength[response > 1e-3 * response.max()]


def _aperture(aperture: Any) -> Aperture:
    if aperture is None:
        return Aperture()
    if not isinstance(aperture, Aperture):
        raise TypeError(
            f"Expected the aperture as an Aperture; got {type(aperture).__name__}. "
            "Aperture(1 * u.arcsec, 0 * u.arcsec) is one arcsec east."
        )
    return aperture


def _keep(record: Any, **values: Any) -> None:
    """Set fields of a frozen record under construction."""
    for name, value in values.items():
        object.__setattr__(record, name, value)
