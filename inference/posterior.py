"""What a user holds: one galaxy's posterior, asked for redshifts, spectra and images.

A `Posterior` is made by `Model.condition` and never changes. All its answers come from one set of
draws, so draw number 17 of the redshift, of a spectrum at the centre and of one two arcsec north
are one galaxy. Where the model has a repair (`repair.py`) they are recalibrated, and every export
says how.

Axes: galaxy, draw, wavelength (pixel), band, y, x.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import astropy.units as u
import numpy as np
import torch

from probmmae.bands import effective_wavelength
from probmmae.batch import Batch
from probmmae.collate import collate
from probmmae.encoder import Context
from probmmae.footprint import Footprint
from probmmae.galaxy import FWHM_PER_SIGMA, Aperture, BandImage, Galaxy
from probmmae.inference.amortized import Draws, draw, spectra_at
from probmmae.inference.draws import FLUX_UNIT, ImageDraws, SpectrumDraws
from probmmae.inference.grids import resolving_power, wavelength_grid
from probmmae.inference.redshifts import RedshiftPosterior, ensemble
from probmmae.inference.repair import (
    REFERENCE,
    REFERENCE_RESOLUTION,
    Applied,
    Repair,
    joined,
    read_repair,
    repaired_redshifts,
    untouched,
)
from probmmae.instrument import covered
from probmmae.model import GalaxyModel
from probmmae.redshift import RedshiftDensity
from probmmae.tokens import PATCH, unpatch

if TYPE_CHECKING:
    import xarray

    from probmmae.inference.cube import Cube
    from probmmae.spaxels import Spaxels

__all__ = [
    "FLUX_UNIT",
    "ImageDraws",
    "Model",
    "Posterior",
    "RedshiftPosterior",
    "SpectrumDraws",
    "ensemble",
    "load",
]

_CHUNK = 2_000_000
"""Pixels decoded at a time."""
_KNOWN_WIDTH = 1e-5
"""Width in ln(1 + z) of the spike that stands for a known redshift."""


@dataclass(frozen=True)
class Posterior:
    """p(everything | what was observed) of one galaxy."""

    network: GalaxyModel
    galaxy: Galaxy
    observed: Batch
    """What was conditioned on: a batch of one."""
    context: Context
    draws: Draws
    density: RedshiftDensity
    """p(z | c) as the network answers."""
    repair: Applied
    """What is done to it and to spectra."""
    bands: tuple[str, ...]
    """Names of the image bands of `observed`, in order."""
    footprint: Footprint | None
    """Where on galaxies the apertures lay that the model was trained on, if it is recorded."""

    @property
    def redshift(self) -> RedshiftPosterior:
        """The redshift."""
        known = float(self.observed.z[0]) if bool(self.observed.z_known[0]) else None
        return RedshiftPosterior(
            self.density[0],
            self.draws.z[0].numpy(),
            known,
            joined([self.repair]),
            self.repair.redshift_said,
        )

    def spectrum(
        self,
        wavelength: Any,
        aperture: Any = None,
        *,
        resolution: Any = 2000.0,
        draws: int | None = None,
    ) -> SpectrumDraws:
        """Draw the noise-free spectrum through an aperture, on any grid at any resolution.

        Args:
            wavelength: Quantity of length: observed vacuum wavelengths of the pixel centres,
                increasing, shape (wavelength,).
            aperture: An `Aperture`: position, diameter and seeing; by default 1.5 arcsec on the
                centre.
            resolution: R = wavelength / FWHM of the instrument, a number or one a pixel.
            draws: How many of the posterior's draws; by default all.

        Raises:
            TypeError: `wavelength` has no unit, or `aperture` is not an `Aperture`.
            astropy.units.UnitConversionError: The unit of `wavelength` is not one of length.
            ValueError: `wavelength` is not positive and increasing, `resolution` not positive or
                not of its shape, or more draws are asked for than there are.
        """
        grid = wavelength_grid(wavelength)
        power = resolving_power(resolution, grid)
        count = self._count(draws)
        if aperture is None:
            aperture = Aperture()
        elif not isinstance(aperture, Aperture):
            raise TypeError(
                f"Expected the aperture as an Aperture; got {type(aperture).__name__}. "
                "Aperture(1 * u.arcsec, 0 * u.arcsec) is one arcsec east."
            )
        applied = self.repair.at(aperture)
        if (stretch := applied.spectrum) is None:
            flux = self._decoded(grid, power, aperture, count)
        else:
            # Deviations are from the mean of all draws, whatever the number asked for.
            every = self.draws.z.shape[1]
            full = np.full(len(REFERENCE), REFERENCE_RESOLUTION)
            flux = stretch.apply(
                self._decoded(grid, power, aperture, every),
                self._decoded(REFERENCE, full, aperture, every),
                rest_wavelength=grid / (1 + float(self.draws.z[0, 0])),
            )[:count]
        return SpectrumDraws(
            grid * u.AA,
            flux * FLUX_UNIT,
            self.draws.z[0, :count].numpy(),
            aperture,
            applied.said,
        )

    @torch.no_grad()
    def _decoded(
        self, grid: np.ndarray, power: np.ndarray, aperture: Aperture, count: int
    ) -> np.ndarray:
        """The first draws as the network answers, shape (draw, wavelength)."""
        pixel = torch.tensor(grid, dtype=torch.float32)[None, None]
        sigma = torch.tensor(grid / power / FWHM_PER_SIGMA, dtype=torch.float32)[None, None]
        where = torch.tensor(
            [[[aperture.dx, aperture.dy, aperture.diameter, aperture.seeing]]], dtype=torch.float32
        )
        step = max(1, _CHUNK // len(grid))
        parts = []
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            some = self.draws.map(lambda part, rows=rows: part[:, rows])
            network, seen = self.network, self.observed
            flux = spectra_at(network, self.context, seen, some, where, pixel, sigma)[0, :, 0]
            inside = covered(network.templates, some.z[0], pixel[0].expand(flux.shape))
            parts.append(torch.where(inside, flux, torch.nan))
        return torch.cat(parts).double().numpy()

    def cube(self, spaxels: "Spaxels", wavelength: Any = None, **asked: Any) -> "Cube":
        """Joint draws of a whole cube: one redshift and one field, every spaxel.

        Args:
            spaxels: Where (`spaxels.square`, `hexagon` or `of_apertures`).
            wavelength: As in `spectrum`; MaNGA's by default.
            **asked: Resolution, draws, quantile levels and draws to keep, as in
                `inference.cube.cube`.
        """
        from probmmae.inference.cube import MANGA_WAVELENGTH, cube

        return cube(self, spaxels, MANGA_WAVELENGTH if wavelength is None else wavelength, **asked)

    def image(self, band: str, *, draws: int | None = None) -> ImageDraws:
        """Draw the noise-free image in a band, seen or not, on the grid of the images given.

        Args:
            band: A band the galaxy's images have, or the name of a known filter.
            draws: How many of the posterior's draws; by default all.

        Raises:
            ValueError: An unknown band, or more draws than there are.
        """
        count = self._count(draws)
        images = self.observed.images
        if band in self.bands:
            index = self.bands.index(band)
            wavelength, psf = (
                part[:, index : index + 1] for part in (images.wavelength, images.psf_fwhm)
            )
        else:
            wavelength = torch.full((1, 1), float(effective_wavelength(band)))
            psf = images.psf_fwhm[:, : max(1, len(self.bands))].mean(1, keepdim=True)
        height, width = images.flux.shape[-2:]
        asked = replace(
            images,
            flux=torch.zeros(1, 1, height, width),
            ivar=torch.full((1, 1, height, width), 1e12),
            wavelength=wavelength,
            psf_fwhm=psf,
        )
        cells = torch.arange((height // PATCH) * (width // PATCH))
        drawn = []
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self.draws.seed[0, 0]))
            for z in self.draws.z[0, :count]:
                pixels = self.network.image(self.context, z[None], asked, cells).rsample()
                drawn.append(unpatch(pixels.reshape(len(cells), PATCH**2), width))
        flux = torch.stack(drawn).double().numpy()
        return ImageDraws(band, flux * u.nmgy, float(images.pixel_scale[0]))

    def to_arviz(
        self,
        wavelength: Any = None,
        aperture: Any = None,
        *,
        resolution: Any = 2000.0,
        draws: int | None = None,
    ) -> "xarray.DataTree":
        """ArviZ's container: group `posterior` with the redshift draws and, given a grid, spectra.

        Dimensions are (chain, draw, wavelength); units are in the attributes. `to_netcdf(path,
        engine="h5netcdf")` writes a file that ArviZ 0.x and 1.x read. Arguments as in `spectrum`.
        """
        import xarray

        count = self._count(draws)
        steps = {"chain": [0], "draw": np.arange(count)}
        z = (("chain", "draw"), self.draws.z[:, :count].numpy(), {"long_name": "redshift"})
        groups = {"/posterior": xarray.Dataset({"redshift": z}, coords=steps)}
        said = self.repair.said
        if wavelength is not None:
            spectrum = self.spectrum(wavelength, aperture, resolution=resolution, draws=count)
            grid = ("wavelength", spectrum.wavelength.value, WAVELENGTH_ATTRIBUTES)
            flux = (
                ("chain", "draw", "wavelength"), spectrum.flux.value[None], FLUX_ATTRIBUTES
            )  # fmt: skip
            groups["/posterior_predictive"] = xarray.Dataset(
                {"flux": flux}, coords={**steps, "wavelength": grid}
            )
            at, said = spectrum.aperture, spectrum.repair
            groups["/constant_data"] = xarray.Dataset(
                {
                    name: ((), getattr(at, name), {"units": "arcsec"})
                    for name in ("dx", "dy", "diameter", "seeing")
                }
            )
        tree = xarray.DataTree.from_dict(groups)
        tree.attrs = {
            "inference_library": "probmmae",
            "galaxy": self.galaxy.id,
            "repair": said,
        }
        return tree

    def _count(self, draws: int | None) -> int:
        have = self.draws.z.shape[1]
        if draws is None:
            return have
        if not 1 <= draws <= have:
            raise ValueError(
                f"Expected between 1 and {have} draws; got {draws}. "
                "Ask for more with model.condition(galaxy, draws=...)."
            )
        return draws


#: Of wavelengths and fluxes in files that xarray reads.
WAVELENGTH_ATTRIBUTES = {"units": "Angstrom", "long_name": "observed vacuum wavelength"}
FLUX_ATTRIBUTES = {"units": "1e-17 erg/s/cm2/Angstrom", "long_name": "noise-free flux density"}


class Model:
    """A trained model: give it a galaxy, get its posterior."""

    def __init__(
        self,
        network: GalaxyModel,
        repair: Repair | None = None,
        footprint: Footprint | None = None,
    ) -> None:
        self.network = network
        self.repair = repair
        self.footprint = footprint

    @overload
    def condition(
        self,
        galaxy: Galaxy,
        *,
        draws: int = ...,
        seed: int = ...,
        use_redshift: bool = ...,
        repair: bool = ...,
    ) -> Posterior: ...

    @overload
    def condition(
        self,
        galaxy: Sequence[Galaxy],
        *,
        draws: int = ...,
        seed: int = ...,
        use_redshift: bool = ...,
        repair: bool = ...,
    ) -> list[Posterior]: ...

    def condition(
        self,
        galaxy: Any,
        *,
        draws: int = 200,
        seed: int = 0,
        use_redshift: bool = True,
        repair: bool = True,
    ) -> Any:
        """Posterior of one galaxy, or the list of posteriors of several.

        Everything that the galaxy holds is conditioned on: images, photometry, spectra and, if
        `use_redshift`, its redshift. Take parts away with `dataclasses.replace` to ask what they
        add.

        Args:
            galaxy: One galaxy or several.
            draws: Draws per galaxy.
            seed: Seed of the draws; with the galaxy's id it decides them, whatever stands beside
                it.
            use_redshift: Whether a redshift that the galaxy carries counts as known.
            repair: Whether the repair that is kept with the model is applied; the posterior says
                what came of it.

        Raises:
            TypeError: Something else than galaxies.
            ValueError: No galaxy, one without a single measurement, or less than one draw.
        """
        several = [galaxy] if isinstance(galaxy, Galaxy) else list(galaxy)
        if draws < 1:
            raise ValueError(f"Expected at least 1 draw; got {draws}. 200 is usual.")
        batch = observed_batch(several, use_redshift=use_redshift)
        posteriors = []
        with torch.no_grad():
            context = self.network.encode(batch)
            density = self.network.redshift(context)
            applied = self.applied(batch, density, draws=draws, repair=repair)
            for index, one in enumerate(several):
                row = slice(index, index + 1)
                own = _known(density[row], batch, index)
                drawn = draw(
                    self.network, own, batch.z[row], batch.z_known[row], draws,
                    torch.Generator().manual_seed(_seed(seed, one.id)),
                )  # fmt: skip
                if (pit_map := applied[index].redshift) is not None:
                    moved = repaired_redshifts(own[0], pit_map, drawn.z[0])
                    drawn = replace(drawn, z=moved[None])
                part = context.take(row)
                kept = batch.images.wavelength[index][
                    (batch.images.ivar[index] > 0).any(-1).any(-1)
                ]
                names = tuple(image.band for image in one.images if _among(image, kept))
                posteriors.append(
                    Posterior(
                        network=self.network,
                        galaxy=one,
                        observed=batch.take(row),
                        context=part,
                        draws=drawn,
                        density=own,
                        repair=applied[index],
                        bands=names,
                        footprint=self.footprint,
                    )
                )
        return posteriors[0] if isinstance(galaxy, Galaxy) else posteriors

    def applied(
        self, batch: Batch, density: RedshiftDensity, *, draws: int, repair: bool
    ) -> list[Applied]:
        """What is done to each galaxy's posterior, and why nothing where nothing is.

        Args:
            batch: What is conditioned on.
            density: p(z | c) of each galaxy, as the network answers.
            draws: Draws per galaxy.
            repair: Whether the repair that is kept with the model is applied.
        """
        if repair and self.repair is not None:
            return self.repair.applied(batch, density, draws=draws)
        why = "the model has no repair" if self.repair is None else "it was not asked for"
        return [untouched(why)] * len(batch)


def observed_batch(galaxies: Sequence[Any], *, use_redshift: bool) -> Batch:
    """The galaxies as a batch to condition on.

    Raises:
        TypeError: Something else than galaxies.
        ValueError: No galaxy, or one without a single measurement.
    """
    for one in galaxies:
        if not isinstance(one, Galaxy):
            raise TypeError(
                f"Expected a Galaxy or a list of them; got {type(one).__name__}. "
                "probmmae.read(path) gives galaxies."
            )
        known = use_redshift and one.redshift is not None
        if not (one.images or one.photometry or one.spectra or known):
            raise ValueError(
                f"Expected a galaxy with an image, photometry, a spectrum or a known redshift; "
                f"got {one.id!r}, which has none. Add a measurement."
            )
    batch = collate(galaxies)
    if use_redshift:
        return batch
    nothing = torch.zeros_like(batch.z_known)
    return replace(batch, z=torch.zeros_like(batch.z), z_known=nothing)


def _seed(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:7])


def _among(image: BandImage, wavelengths: torch.Tensor) -> bool:
    """Whether `collate` kept this image: bands that share no grid are left out."""
    return bool(torch.isclose(wavelengths, torch.tensor(image.wavelength)).any())


def _known(density: RedshiftDensity, batch: Batch, index: int) -> RedshiftDensity:
    """p(z | c), or a spike where the redshift is known."""
    if not bool(batch.z_known[index]):
        return density
    at = torch.log1p(batch.z[index]).reshape(1, 1)
    return RedshiftDensity(torch.zeros(1, 1), at, torch.full((1, 1), _KNOWN_WIDTH))


def load(path: str | Path | None = None) -> Model:
    """The shipped model, or that of a checkpoint folder, with the repair that is kept there.

    Raises:
        FileNotFoundError: There is no checkpoint at `path`.
        ValueError: It or its repair is damaged, of another version of the network, or the repair
            of other weights.
    """
    from probmmae.checkpoint import SHIPPED, load_model, read_footprint

    folder = SHIPPED if path is None else Path(path)
    try:
        return Model(load_model(path), read_repair(folder), read_footprint(folder))
    except RuntimeError as error:
        raise ValueError(
            f"Expected a checkpoint of this version's network; got {path or 'the shipped one'}, "
            f"whose weights do not fit ({str(error).splitlines()[-1].strip()}). Train it anew."
        ) from error
