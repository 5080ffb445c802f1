"""Joint draws of a whole cube: one redshift, one field on the sky, every spaxel.

From a `Posterior` and `Spaxels` to statistics of every pixel and maps of every draw, a block of
spaxels in memory at a time. The encoder ran once, when the posterior was made. A spaxel of draw 17
is the spectrum that `Posterior.spectrum` gives in draw 17 at its aperture, times its share; so
totals, gradients and averages over a drawn map are draws of what they are of the galaxy, as far as
the model has learned how positions vary together.

Memory is that of the answer (4 bytes a pixel for mean, standard deviation, each quantile, each
draw kept) and of a block. 200 draws of 74 x 74 x 4563 pixels take about 1.2 GB with three
quantiles.

Axes: draw, spaxel, wavelength (pixel), level (of a quantile), quantity.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
import torch
from jaxtyping import Bool, Float

from probmmae.footprint import Footprint, half_light_radius
from probmmae.galaxy import FWHM_PER_SIGMA, Galaxy
from probmmae.inference.amortized import Draws, light_at, spectra_at
from probmmae.inference.grids import resolving_power, wavelength_grid
from probmmae.inference.repair import REFERENCE, REFERENCE_RESOLUTION
from probmmae.inference.shared_grid import SharedGrid
from probmmae.instrument import covered
from probmmae.spaxels import Spaxels
from probmmae.spectral_maps import QUANTITIES, Measure

if TYPE_CHECKING:
    from probmmae.inference.posterior import Posterior

#: MaNGA's wavelengths: 4563 vacuum pixels of 1e-4 in the decimal logarithm.
MANGA_WAVELENGTH = 3621.59598486 * 10 ** (1e-4 * np.arange(4563)) * u.AA

_PIXELS = 500_000
"""Decoded at a time."""
_BLOCK = 24_000_000
"""Pixels of all draws in a block."""

Watch = Callable[[int], None]
"""Called after every block with the number of spaxels done."""


@dataclass(frozen=True, eq=False, repr=False)
class Cube:
    """What the draws of a cube say of every pixel, and maps of every draw."""

    galaxy: Galaxy
    spaxels: Spaxels
    wavelength: Float[np.ndarray, " wavelength"]
    """Observed, vacuum, Angstrom."""
    sigma: Float[np.ndarray, " wavelength"]
    """Gaussian width of the line-spread function, Angstrom."""
    z: Float[np.ndarray, " draw"]
    mean: Float[np.ndarray, "spaxel wavelength"]
    """1e-17 erg/s/cm2/Angstrom a spaxel; NaN where no draw reaches."""
    std: Float[np.ndarray, "spaxel wavelength"]
    levels: tuple[float, ...]
    quantiles: Float[np.ndarray, "level spaxel wavelength"]
    """Of each pixel by itself: linear between the order statistics of the draws that reach it
    (Hyndman and Fan's type 7, numpy's default)."""
    maps: Float[np.ndarray, "quantity draw spaxel"]
    """`QUANTITIES` of every draw, measured at the draw's redshift."""
    draws: Float[np.ndarray, "kept spaxel wavelength"]
    """The first draws, whole."""
    extrapolated: Bool[np.ndarray, " spaxel"]
    """No image was seen there, and no spectrum; or no aperture of training lay so far out."""
    footprint: Footprint | None
    """Where on galaxies the apertures of training lay; None where it is not recorded."""
    repair: str
    """What was done to redshift and spectra, in words."""

    def __repr__(self) -> str:
        """In a line."""
        return (
            f"Cube of {self.galaxy.id}: {len(self.spaxels)} spaxels of {len(self.wavelength)} "
            f"wavelengths, {self.maps.shape[1]} draws; {self.jointly}"
        )

    @property
    def jointly(self) -> str:
        """What can be said of how positions vary together, in words."""
        if self.footprint is None:
            return (
                "joint calibration is not claimed: where the apertures of training lay is not "
                "recorded"
            )
        if not self.footprint.joint:
            return "joint calibration is not claimed: the model has not seen two positions"
        return "the model has seen two or more positions of a galaxy"

    def map(self, name: str) -> Float[np.ndarray, "draw spaxel"]:
        """A quantity of `QUANTITIES` in every draw.

        Raises:
            ValueError: No quantity has this name.
        """
        if name not in QUANTITIES:
            known = ", ".join(QUANTITIES)
            raise ValueError(f"Expected a quantity among {known}; got {name!r}. Choose one.")
        return self.maps[list(QUANTITIES).index(name)]


def cube(
    posterior: "Posterior",
    spaxels: Spaxels,
    wavelength: Any = MANGA_WAVELENGTH,
    *,
    resolution: Any = 2000.0,
    draws: int | None = None,
    levels: Sequence[float] = (0.05, 0.5, 0.95),
    keep: int = 0,
    watch: Watch | None = None,
) -> Cube:
    """Draw a cube and say what its draws say; warns of spaxels where nothing was observed.

    Args:
        posterior: Of one galaxy.
        spaxels: Where; `spaxels.hexagon`, `spaxels.square` or `spaxels.of_apertures`.
        wavelength: Quantity of length: observed vacuum wavelengths, shape (wavelength,).
        resolution: R = wavelength / FWHM of the instrument, a number or one a pixel.
        draws: How many of the posterior's draws; by default all.
        levels: Of the quantiles, between 0 and 1.
        keep: How many whole draws to keep.
        watch: Told of progress.

    Raises:
        TypeError, UnitConversionError: As `Posterior.spectrum`.
        ValueError: Levels beyond 0 and 1, more draws (or draws to keep) than there are; and as
            `Posterior.spectrum`.
    """
    grid = wavelength_grid(wavelength)
    sigma = grid / resolving_power(resolution, grid) / FWHM_PER_SIGMA
    drawn = _first(posterior.draws, draws)
    count = drawn.z.shape[1]
    if not all(0 <= level <= 1 for level in levels):
        raise ValueError(
            f"Expected levels between 0 and 1; got {tuple(levels)}. Divide a percentage by 100."
        )
    if not 0 <= keep <= count:
        raise ValueError(
            f"Expected at most {count} draws to keep, as many as are drawn; got {keep}."
        )
    shape = (len(spaxels), len(grid))
    mean, std = (np.empty(shape, np.float32) for _ in range(2))
    quantiles = np.empty((len(levels), *shape), np.float32)
    kept = np.empty((keep, *shape), np.float32)
    maps = np.empty((len(QUANTITIES), count, len(spaxels)), np.float32)
    at_one = bool((drawn.z == drawn.z[:, :1]).all())
    measure = Measure(grid, sigma, z=float(drawn.z[0, 0])) if at_one else None
    for where, flux in _blocks(posterior, drawn, spaxels, grid, sigma):
        kept[:, where] = flux[:keep]
        if measure is not None:
            maps[:, :, where] = measure(flux).value
        mean[where], std[where], quantiles[:, where] = _statistics(flux, levels)
        if watch is not None:
            watch(where.stop)
    for index in range(0 if at_one else count):
        # Every redshift has its own fit: all spaxels of a draw are measured together.
        one = drawn.map(lambda part, index=index: part[:, index : index + 1])
        measure = Measure(grid, sigma, z=float(one.z[0, 0]))
        for where, flux in _blocks(posterior, one, spaxels, grid, sigma):
            maps[:, index : index + 1, where] = measure(flux).value
    return Cube(
        posterior.galaxy, spaxels, grid, sigma, drawn.z[0].double().numpy(), mean, std,
        tuple(levels), quantiles, maps, kept, _extrapolated(posterior, spaxels),
        posterior.footprint, posterior.repair.at(None).said,
    )  # fmt: skip


def _extrapolated(posterior: "Posterior", spaxels: Spaxels) -> Bool[np.ndarray, " spaxel"]:
    """Spaxels where nothing was seen, or so far out that nothing was learned; warns of them."""
    galaxy, known = posterior.galaxy, posterior.footprint
    blind = unseen(galaxy, spaxels)
    far = np.zeros_like(blind)
    if known is not None:
        far = known.beyond(spaxels.aperture, half_light_radius(galaxy))
    for marked, why in (
        (blind, f"where galaxy {galaxy.id!r} has neither image nor spectrum"),
        (far, f"further out than the model has learned ({known and known.describe()})"),
    ):
        if marked.any():
            warnings.warn(
                f"{int(marked.sum())} of {len(spaxels)} spaxels lie {why}: they are extrapolated.",
                stacklevel=3,
            )
    return blind | far


def spectra(
    posterior: "Posterior",
    spaxels: Spaxels,
    wavelength: Any = MANGA_WAVELENGTH,
    *,
    resolution: Any = 2000.0,
) -> Iterator[tuple[slice, Float[np.ndarray, "draw spaxel wavelength"]]]:
    """The draws themselves, a block of spaxels at a time, for statistics of one's own.

    Yields which spaxels they are, and their flux. Arguments and errors as in `cube`.
    """
    grid = wavelength_grid(wavelength)
    sigma = grid / resolving_power(resolution, grid) / FWHM_PER_SIGMA
    yield from _blocks(posterior, posterior.draws, spaxels, grid, sigma)


def unseen(galaxy: Galaxy, spaxels: Spaxels) -> Bool[np.ndarray, " spaxel"]:
    """Spaxels in whose middle no image has a valid pixel, and no spectrum's aperture lies."""
    x, y = spaxels.aperture[:, :2].T
    seen = np.zeros(len(spaxels), bool)
    for image in galaxy.images:
        height, width = image.ivar.shape
        column = np.rint((x - image.centre[0]) / image.pixel_scale + (width - 1) / 2).astype(int)
        row = np.rint((y - image.centre[1]) / image.pixel_scale + (height - 1) / 2).astype(int)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        seen[inside] |= image.ivar[row[inside], column[inside]] > 0
    for spectrum in galaxy.spectra:
        place = spectrum.aperture
        seen |= np.hypot(x - place.dx, y - place.dy) < place.diameter / 2
    return ~seen


def _first(draws: Draws, count: int | None) -> Draws:
    """The first draws.

    Raises:
        ValueError: More than there are, or less than one.
    """
    have = draws.z.shape[1]
    wanted = have if count is None else count
    if not 1 <= wanted <= have:
        raise ValueError(
            f"Expected between 1 and {have} draws; got {count}. "
            "Ask for more with model.condition(galaxy, draws=...)."
        )
    return draws.map(lambda part: part[:, :wanted])


def _blocks(
    posterior: "Posterior",
    draws: Draws,
    spaxels: Spaxels,
    grid: Float[np.ndarray, " wavelength"],
    sigma: Float[np.ndarray, " wavelength"],
) -> Iterator[tuple[slice, Float[np.ndarray, "draw spaxel wavelength"]]]:
    """Draws of some spaxels at a time: which spaxels, and their flux."""
    count = draws.z.shape[1]
    stretch = posterior.repair.at(None).spectrum
    # A repair stretches deviations from the mean of all draws, whatever the number asked for.
    decoded = draws if stretch is None else posterior.draws
    decode = _Decode(posterior, decoded, grid, sigma)
    if stretch is not None:
        width = np.full_like(REFERENCE, REFERENCE / REFERENCE_RESOLUTION / FWHM_PER_SIGMA)
        decode_reference = _Decode(posterior, decoded, REFERENCE, width)
    step = max(1, _BLOCK // (decoded.z.shape[1] * len(grid)))
    for first in range(0, len(spaxels), step):
        where = slice(first, min(first + step, len(spaxels)))
        aperture = spaxels.aperture[where]
        flux = decode(aperture)
        if stretch is not None:
            reference = decode_reference(aperture)
            rest = grid / (1 + float(draws.z[0, 0]))
            for spaxel in range(flux.shape[1]):
                flux[:, spaxel] = stretch.apply(
                    flux[:, spaxel].astype(np.float64), reference[:, spaxel].astype(np.float64),
                    rest_wavelength=rest,
                )  # fmt: skip
            flux = flux[:count]
        flux *= spaxels.share[where, None].astype(np.float32)
        yield where, flux


class _Decode:
    """Flux through apertures as the network answers; NaN beyond the templates."""

    def __init__(
        self, posterior: "Posterior", draws: Draws, grid: np.ndarray, sigma: np.ndarray
    ) -> None:
        self.posterior, self.draws = posterior, draws
        self.pixel, self.width = (
            torch.tensor(part, dtype=torch.float32)[None] for part in (grid, sigma)
        )
        network = posterior.network
        with torch.no_grad():
            every = self.pixel.expand(draws.z.shape[1], -1)
            self.inside = covered(network.templates, draws.z[0], every).numpy()
        self.shared: list[SharedGrid] = []
        if network.config.likelihood == "field":
            redshifts = draws.z[0].tolist()
            made = {z: SharedGrid(network, z, grid, sigma) for z in dict.fromkeys(redshifts)}
            if all(one.uniform for one in made.values()):
                self.shared = [made[z] for z in redshifts]

    @torch.no_grad()
    def __call__(
        self, aperture: Float[np.ndarray, "spaxel 4"]
    ) -> Float[np.ndarray, "draw spaxel wavelength"]:
        place = torch.tensor(aperture, dtype=torch.float32)[None]
        flux = self._shared(place) if self.shared else self._one_by_one(place)
        if not self.inside.all():
            flux = np.where(self.inside[:, None], flux, np.float32(np.nan))
        return flux

    def _shared(self, place: torch.Tensor) -> np.ndarray:
        own = self.posterior
        light = light_at(own.network, own.context, own.observed, self.draws, place)
        light = light.map(lambda part: part[0])
        seed, position = self.draws.seed[0], place[0, :, :2]
        if self.shared[0] is self.shared[-1]:
            return self.shared[0].flux(light, seed, position)
        parts = [
            one.flux(light.map(lambda part, k=k: part[k : k + 1]), seed[k : k + 1], position)
            for k, one in enumerate(self.shared)
        ]
        return np.concatenate(parts)

    def _one_by_one(self, place: torch.Tensor) -> np.ndarray:
        own, (spaxels, pixels) = self.posterior, (place.shape[1], self.pixel.shape[1])
        flux = np.empty((self.draws.z.shape[1], spaxels, pixels), np.float32)
        rows = max(1, _PIXELS // (pixels * spaxels))
        grid, width = (part.expand(1, spaxels, -1) for part in (self.pixel, self.width))
        for start in range(0, len(flux), rows):
            some = slice(start, min(start + rows, len(flux)))
            part = self.draws.map(lambda each, some=some: each[:, some])
            flux[some] = spectra_at(
                own.network, own.context, own.observed, part, place, grid, width
            )[0]
        return flux


def _statistics(
    flux: Float[np.ndarray, "draw spaxel wavelength"], levels: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation and quantiles over the draws that reach each pixel."""
    with warnings.catch_warnings():
        # A pixel that no draw reaches is NaN, as it should be.
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = np.asarray(np.nanmean(flux, axis=0, dtype=np.float64))
        std = np.sqrt(np.nanmean((flux - mean.astype(np.float32)) ** 2, axis=0, dtype=np.float64))
    ordered = np.ascontiguousarray(np.moveaxis(flux, 0, -1))
    ordered.sort(axis=-1)  # NaN come last
    last = np.isfinite(ordered).sum(-1) - 1
    quantiles = np.empty((len(levels), *flux.shape[1:]), np.float32)
    for out, level in zip(quantiles, levels, strict=True):
        place = np.maximum(last, 0) * level
        below = np.floor(place).astype(int)
        low, high = (
            np.take_along_axis(ordered, index[..., None], -1)[..., 0]
            for index in (below, np.minimum(below + 1, np.maximum(last, 0)))
        )
        out[...] = low + (place - below) * (high - low)
    return mean, std, quantiles
