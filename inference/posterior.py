"""What a user holds: one galaxy's posterior, asked for redshifts, spectra and images.

A `Posterior` is made by `Model.condition` and never changes. All its answers come from one set of draws,
so draw number 17 of the redshift, of a spectrum at the centre and of one two arcsec north are one galaxy.

Axes: draw, wavelength (pixel), band, y, x.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
import torch
from torch import Tensor

from probmmae.batch import Batch
from probmmae.encoder import Context
from probmmae.galaxy import Aperture, Galaxy
from probmmae.inference.amortized import Draws, draw, spectra_at
from probmmae.model import GalaxyModel
from probmmae.redshift import RedshiftDensity
from probmmae.tokens import PATCH, unpatch

if TYPE_CHECKING:
    import xarray

FLUX_UNIT = u.Unit("1e-17 erg / (s cm2 Angstrom)")

_CHUNK = 4_000_000
"""Pixels decoded at a time."""


@dataclass(frozen=True)
class RedshiftPosterior:
    """p(z | what was observed) of one galaxy: an exact density, and the posterior's own draws."""

    density: RedshiftDensity
    """One galaxy, no batch axes."""
    samples: np.ndarray
    """Redshifts of the posterior's draws, shape (draw,)."""
    known: float | None
    """The redshift that was given, if one was: the draws are then that number."""

    def pdf(self, z: Any) -> np.ndarray:
        """Probability density at redshifts `z`."""
        return np.asarray(self.density.log_prob(_tensor(z)).exp())

    def cdf(self, z: Any) -> np.ndarray:
        """Probability below redshifts `z`."""
        return np.asarray(self.density.cdf(_tensor(z)))

    def quantiles(self, levels: Any) -> np.ndarray:
        """Redshifts below which lies the probability `levels` (between 0 and 1)."""
        wanted = np.asarray(levels, dtype=float)
        if np.any((wanted <= 0) | (wanted >= 1)):
            raise ValueError(f"Expected levels between 0 and 1; got {levels}.")
        return np.asarray(self.density.icdf(_tensor(wanted)))

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """The central interval that holds the probability `level`."""
        low, high = self.quantiles([0.5 - level / 2, 0.5 + level / 2])
        return float(low), float(high)

    @property
    def median(self) -> float:
        """The redshift with half of the probability below."""
        return float(self.quantiles([0.5])[0])

    def to_qp(self, grid: Any = None) -> Any:
        """A `qp` ensemble of one density, interpolated on `grid` (default: 0 to past the tail)."""
        return ensemble([self], grid)


def ensemble(posteriors: list[RedshiftPosterior], grid: Any = None, **columns: Any) -> Any:
    """A `qp` ensemble of many densities on a common redshift grid.

    Args:
        posteriors: One per galaxy.
        grid: Redshifts; by default 0 to 1.2 times the highest 99.9 % quantile in steps of 0.002.
        **columns: Ancillary columns, one value per galaxy.
    """
    import qp

    if grid is None:
        top = max(float(one.quantiles([0.999])[0]) for one in posteriors)
        grid = np.arange(0.0, max(0.1, 1.2 * top), 0.002)
    grid = np.asarray(grid, dtype=float)
    quantiles = np.array([one.quantiles([0.025, 0.16, 0.5, 0.84, 0.975]) for one in posteriors])
    pdfs = np.array([one.pdf(grid) for one in posteriors], dtype=float)
    names = ("z_lower_95", "z_lower_68", "z_median", "z_upper_68", "z_upper_95")
    ancil = {name: quantiles[:, k] for k, name in enumerate(names)}
    ancil |= {"z_mode": grid[pdfs.argmax(1)]} | {k: np.asarray(v) for k, v in columns.items()}
    return qp.Ensemble(qp.interp, data={"xvals": grid, "yvals": pdfs}, ancil=ancil)


@dataclass(frozen=True)
class SpectrumDraws:
    """Posterior draws of the noise-free spectrum through one aperture."""

    wavelength: u.Quantity
    """Observed vacuum wavelength, shape (wavelength,)."""
    flux: u.Quantity
    """1e-17 erg/s/cm2/Angstrom, shape (draw, wavelength)."""
    z: np.ndarray
    """Redshift of every draw, shape (draw,)."""
    aperture: Aperture

    @property
    def mean(self) -> u.Quantity:
        """Mean of the draws."""
        return self.flux.mean(0)

    @property
    def std(self) -> u.Quantity:
        """Standard deviation of the draws."""
        return self.flux.std(0)

    def quantiles(self, levels: Any) -> u.Quantity:
        """Quantiles at each wavelength, shape (level, wavelength)."""
        return np.quantile(self.flux.value, levels, axis=0) * self.flux.unit

    def to_specutils(self) -> Any:
        """A `specutils.Spectrum` of the mean with the draws' standard deviation as uncertainty.

        The draws themselves are in `meta["draws"]`, their redshifts in `meta["z"]`.
        """
        from astropy.nddata import StdDevUncertainty
        from specutils import Spectrum

        return Spectrum(
            flux=self.mean,
            spectral_axis=self.wavelength,
            uncertainty=StdDevUncertainty(self.std),
            meta={"draws": self.flux, "z": self.z},
        )

    def to_fits(self, path: str | Path) -> None:
        """Write mean, standard deviation, 5/50/95 % quantiles and all draws to a FITS file.

        HDU SPECTRUM is a table with a row a wavelength; HDU DRAWS an image (draw, wavelength); HDU Z a
        table of the draws' redshifts.
        """
        from astropy.io import fits
        from astropy.table import QTable

        low, middle, high = self.quantiles([0.05, 0.5, 0.95])
        table = QTable(
            {
                "wavelength": self.wavelength, "mean": self.mean, "std": self.std,
                "q05": low, "q50": middle, "q95": high,
            }
        )  # fmt: skip
        header = fits.Header({"BUNIT": "1E-17 erg/s/cm^2/Angstrom", "EXTNAME": "DRAWS"})
        for key, value in (
            ("APER_DX", self.aperture.dx), ("APER_DY", self.aperture.dy),
            ("APER_D", self.aperture.diameter), ("SEEING", self.aperture.seeing),
        ):  # fmt: skip
            header[key] = (value, "arcsec")
        first = fits.table_to_hdu(table)
        first.name = "SPECTRUM"
        redshifts = fits.BinTableHDU.from_columns(
            [fits.Column("z", "D", array=self.z)], name="Z"
        )
        content = fits.HDUList(
            [fits.PrimaryHDU(), first, fits.ImageHDU(self.flux.value.astype("f4"), header), redshifts]
        )
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        content.writeto(partial, overwrite=True, output_verify="exception")
        os.replace(partial, path)


@dataclass(frozen=True)
class ImageDraws:
    """Posterior draws of a noise-free image in one band."""

    band: str
    flux: u.Quantity
    """Nanomaggies per pixel, shape (draw, y, x); x grows towards east, y towards north."""
    pixel_scale: float
    """arcsec."""


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
    bands: tuple[str, ...]
    """Names of the image bands of `observed`, in order."""

    @property
    def redshift(self) -> RedshiftPosterior:
        """The redshift."""
        known = float(self.observed.z[0]) if bool(self.observed.z_known[0]) else None
        return RedshiftPosterior(self.density[0], self.draws.z[0].numpy(), known)

    def spectrum(
        self,
        wavelength: u.Quantity,
        aperture: Aperture | None = None,
        *,
        resolution: float | u.Quantity = 2000.0,
        draws: int | None = None,
    ) -> SpectrumDraws:
        """Draw the noise-free spectrum through an aperture, on any grid at any resolution.

        Args:
            wavelength: Observed vacuum wavelengths of the pixel centres, increasing, length units.
            aperture: Position, diameter and seeing; by default 1.5 arcsec on the centre.
            resolution: R = wavelength / FWHM of the instrument, a number or one a pixel.
            draws: How many of the posterior's draws; by default all.

        Raises:
            TypeError: `wavelength` has no unit.
            astropy.units.UnitConversionError: Its unit is not one of length.
            ValueError: It is empty, not increasing or not positive.
        """
        grid = _grid(wavelength)
        count = self._count(draws)
        aperture = Aperture() if aperture is None else aperture
        power = np.broadcast_to(np.asarray(u.Quantity(resolution).value, dtype=float), grid.shape)
        if np.any(~(power > 0)):
            raise ValueError(f"Expected a positive resolution R; got {resolution}.")
        pixel = torch.tensor(grid, dtype=torch.float32)[None, None]
        sigma = pixel / torch.tensor(power.copy(), dtype=torch.float32) / 2.3548
        where = torch.tensor(
            [[[aperture.dx, aperture.dy, aperture.diameter, aperture.seeing]]], dtype=torch.float32
        )
        step = max(1, _CHUNK // len(grid))
        with torch.no_grad():
            parts = [
                spectra_at(
                    self.network,
                    self.context,
                    self.observed,
                    self.draws.map(lambda part, start=start: part[:, start : start + step]),
                    where,
                    pixel,
                    sigma,
                )[0, :, 0]
                for start in range(0, self.draws.z.shape[1], step)
                if start < count
            ]
        flux = torch.cat(parts)[:count].double().numpy()
        return SpectrumDraws(
            grid * u.AA, flux * FLUX_UNIT, self.draws.z[0, :count].numpy(), aperture
        )

    def image(self, band: str, *, draws: int | None = None) -> ImageDraws:
        """Draw the noise-free image in a band of the conditioning grid, hidden or seen.

        Args:
            band: A band the galaxy's images have, or the name of a known filter.
            draws: How many of the posterior's draws; by default all.
        """
        from probmmae.bands import effective_wavelength

        count = self._count(draws)
        images = self.observed.images.map(lambda part: part[:1])
        if band in self.bands:
            index = self.bands.index(band)
            wavelength = images.wavelength[:, index : index + 1]
        else:
            wavelength = torch.full((1, 1), float(effective_wavelength(band)))
        psf = images.psf_fwhm.mean(1, keepdim=True)
        height, width = images.flux.shape[-2:]
        one = type(images)(
            flux=torch.zeros(1, 1, height, width),
            ivar=torch.full((1, 1, height, width), 1e12),
            wavelength=wavelength,
            psf_fwhm=psf,
            pixel_scale=images.pixel_scale,
            centre=images.centre,
        )
        cells = torch.arange((height // PATCH) * (width // PATCH))
        drawn = []
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self.draws.seed[0, 0]))
            for z in self.draws.z[0, :count]:
                pixels = self.network.image(self.context, z[None], one, cells).rsample()
                drawn.append(unpatch(pixels.reshape(len(cells), PATCH**2), width))
        flux = torch.stack(drawn).double().numpy()
        return ImageDraws(band, flux * u.nmgy, float(images.pixel_scale[0]))

    def to_arviz(
        self, wavelength: u.Quantity | None = None, aperture: Aperture | None = None
    ) -> "xarray.DataTree":
        """ArviZ's container: group `posterior` with the redshift draws and, given a grid, spectra.

        Dimensions are (chain, draw, wavelength); units are in the attributes. `to_netcdf(path,
        engine="h5netcdf")` writes a file that ArviZ 0.x and 1.x read.
        """
        import xarray

        z = self.draws.z.numpy()
        groups = {"/posterior": xarray.Dataset({"redshift": (("chain", "draw"), z)})}
        if wavelength is not None:
            spectrum = self.spectrum(wavelength, aperture)
            coordinate = ("wavelength", spectrum.wavelength.value, {"units": "Angstrom"})
            groups["/posterior_predictive"] = xarray.Dataset(
                {
                    "flux": (
                        ("chain", "draw", "wavelength"),
                        spectrum.flux.value[None],
                        {"units": "1e-17 erg/s/cm2/Angstrom"},
                    )
                },
                coords={"wavelength": coordinate},
            )
            at = spectrum.aperture
            groups["/constant_data"] = xarray.Dataset(
                {
                    name: ((), getattr(at, name), {"units": "arcsec"})
                    for name in ("dx", "dy", "diameter", "seeing")
                }
            )
        tree = xarray.DataTree.from_dict(groups)
        tree.attrs = {"inference_library": "probmmae", "galaxy": self.galaxy.id}
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


def _grid(wavelength: Any) -> np.ndarray:
    if not isinstance(wavelength, u.Quantity):
        raise TypeError(
            f"Expected wavelengths with a unit, such as np.arange(3800, 9200) * u.AA; "
            f"got {type(wavelength).__name__}."
        )
    if not wavelength.unit.is_equivalent(u.AA):
        raise u.UnitConversionError(
            f"Expected wavelengths in a unit of length (Angstrom, nm, micron); "
            f"got {wavelength.unit}."
        )
    grid = np.atleast_1d(wavelength.to_value(u.AA)).astype(float)
    if grid.ndim != 1 or len(grid) < 2 or np.any(grid <= 0) or np.any(np.diff(grid) <= 0):
        raise ValueError(
            "Expected at least two positive, increasing wavelengths along one axis; "
            f"got shape {grid.shape}."
        )
    return grid


def _tensor(values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float32))


class Model:
    """A trained model: give it a galaxy, get its posterior."""

    def __init__(self, network: GalaxyModel) -> None:
        self.network = network

    def condition(
        self,
        galaxy: Galaxy | list[Galaxy],
        *,
        draws: int = 200,
        seed: int = 0,
        use_redshift: bool = True,
    ) -> Any:
        """Posterior of one galaxy, or the list of posteriors of several.

        Everything that the galaxy holds is conditioned on: images, photometry, spectra and, if
        `use_redshift`, its redshift. Take parts away with `dataclasses.replace` to ask what they add.

        Args:
            galaxy: One galaxy or several.
            draws: Draws per galaxy.
            seed: Seed of the draws.
            use_redshift: Whether a redshift that the galaxy carries counts as known.

        Raises:
            TypeError: Something else than galaxies.
            ValueError: A galaxy without a single measurement.
        """
        from probmmae.collate import collate

        several = [galaxy] if isinstance(galaxy, Galaxy) else list(galaxy)
        for one in several:
            if not isinstance(one, Galaxy):
                raise TypeError(
                    f"Expected a Galaxy or a list of them; got {type(one).__name__}. "
                    "probmmae.read(path) gives galaxies."
                )
            if not (one.images or one.photometry or one.spectra or one.scalars):
                raise ValueError(
                    f"Expected a galaxy with an image, photometry, a spectrum or a redshift; "
                    f"{one.id} has none."
                )
        batch = collate(several)
        if not use_redshift:
            batch = type(batch)(
                batch.images, batch.photometry, batch.spectra,
                torch.zeros_like(batch.z), torch.zeros_like(batch.z_known),
            )  # fmt: skip
        with torch.no_grad():
            context = self.network.encode(batch)
            density = self.network.redshift(context)
            posteriors = []
            for index, one in enumerate(several):
                row = slice(index, index + 1)
                generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
                own = _known(density[row], batch, index)
                drawn = draw(
                    self.network, own, batch.z[row], batch.z_known[row], draws, generator
                )
                part = Context(context.tokens[row], context.visible[row], context.scale[row])
                names = tuple(image.band for image in one.images)
                posteriors.append(
                    Posterior(self.network, one, batch.take(row), part, drawn, own, names)
                )
        return posteriors[0] if isinstance(galaxy, Galaxy) else posteriors


def _known(density: RedshiftDensity, batch: Batch, index: int) -> RedshiftDensity:
    """p(z | c), or a spike of width 1e-5 (1+z) where the redshift is known."""
    if not bool(batch.z_known[index]):
        return density
    at = torch.log1p(batch.z[index]).reshape(1, 1)
    return RedshiftDensity(torch.zeros(1, 1), at, torch.full((1, 1), 1e-5))


def load(path: str | Path | None = None) -> Model:
    """The shipped model, or that of a checkpoint folder.

    Raises:
        FileNotFoundError: There is no checkpoint at `path`.
        ValueError: It is damaged.
    """
    from probmmae.checkpoint import load_model

    return Model(load_model(path))
