"""What was measured of one galaxy: from files, with units, to arrays that the batch can trust.

This is the border for units. What comes in is a `Quantity`; what is kept is a read-only array in the
units of `probmmae.batch`: nanomaggies for images and photometry, 1e-17 erg/s/cm2/Angstrom for
spectra, observed vacuum wavelengths in Angstrom, angles in arcsec. `ivar` = 0 means missing, and NaN
or infinite pixels are missing from here on. Images have x growing towards east and y towards north.

`in_batch_units` builds the same objects from bare numbers that are known to be in those units.
"""

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from astropy import units as u
from jaxtyping import Float

from probmmae.bands import effective_wavelength

NANOMAGGIE = u.nmgy
FLUX_DENSITY = u.Unit(1e-17 * u.erg / u.s / u.cm**2 / u.AA)

#: The AB zero point: 3631 Jy by definition.
_AB = u.zero_point_flux(3631.0 * u.Jy)
#: FWHM of a Gaussian over its standard deviation.
FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


def _number(value: Any, unit: Any, what: str, equivalencies: Any = None) -> Any:
    """The bare value of a Quantity in `unit`, as float64."""
    if not isinstance(value, u.Quantity):
        raise TypeError(
            f"Expected {what} as a Quantity in {unit}; got a bare {type(value).__name__}. "
            f"Multiply it by its astropy unit."
        )
    try:
        converted = value.to_value(unit, equivalencies=equivalencies or [])
    except u.UnitConversionError as error:
        raise u.UnitConversionError(
            f"Expected {what} in a unit convertible to {unit}; got {value.unit}. "
            "Check the unit of the data."
        ) from error
    return np.asarray(converted, dtype=np.float64)


def _single(value: Any, unit: Any, what: str, *, positive: bool = False) -> float:
    number = _number(value, unit, what)
    kind = "one positive finite number" if positive else "one finite number"
    if number.shape != () or not np.isfinite(number) or (positive and number <= 0):
        raise ValueError(f"Expected {what} as {kind} in {unit}; got {value}. Correct the value.")
    return float(number)


def _measured(flux: Any, ivar: Any, unit: Any, what: str, equivalencies: Any) -> Any:
    """Flux and ivar in `unit`; whatever is not finite is missing (both 0)."""
    flux_array = _number(flux, unit, f"the flux of {what}", equivalencies)
    if not isinstance(ivar, u.Quantity):
        raise TypeError(
            f"Expected the ivar of {what} as a Quantity in 1 / ({unit})^2; got a bare "
            f"{type(ivar).__name__}. Multiply it by its astropy unit."
        )
    sigma = (1.0 * ivar.unit) ** -0.5
    shape = np.shape(ivar.value)
    if shape != flux_array.shape:
        raise ValueError(
            f"Expected flux and ivar of {what} of one shape; got {flux_array.shape} and {shape}. "
            "Give one inverse variance per flux."
        )
    if flux_array.size == 0:
        raise ValueError(
            f"Expected at least one pixel in {what}; got an empty array. Leave it out."
        )
    factor = _number(sigma, unit, f"the square root of 1 / ivar of {what}", equivalencies)
    ivar_array = np.asarray(ivar.value, dtype=np.float64) / factor**2
    if np.any(ivar_array < 0):
        raise ValueError(
            f"Expected ivar >= 0 in {what}; got {np.nanmin(ivar_array):.3g}. "
            "Set the ivar of bad pixels to 0."
        )
    good = np.isfinite(flux_array) & np.isfinite(ivar_array) & (ivar_array > 0)
    if not good.any():
        raise ValueError(
            f"Expected at least one pixel of {what} with ivar > 0; got none. "
            "Leave out what was not measured."
        )
    return np.where(good, flux_array, 0.0), np.where(good, ivar_array, 0.0)


def _frozen(array: Any, dtype: Any) -> Any:
    """A read-only copy."""
    copy = np.array(array, dtype=dtype)
    copy.setflags(write=False)
    return copy


def _named(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"Expected {what} as a non-empty string; got {value!r}. Name it.")
    return value


class _Checked:
    """A frozen record whose __post_init__ replaces what came in by what is kept."""

    def _keep(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, eq=False)
class BandImage(_Checked):
    """An image in one band, east along x and north along y."""

    band: str
    """Name, such as `hsc-g`."""
    flux: Float[np.ndarray, "y x"]
    """Per pixel, nanomaggies; in: Quantity, also in Jy and the like (AB)."""
    ivar: Float[np.ndarray, "y x"]
    """Inverse variance, nanomaggies^-2; 0 is missing."""
    pixel_scale: float
    """Side of a pixel, arcsec."""
    psf_fwhm: float
    """FWHM of the point-spread function, arcsec."""
    wavelength: float = None  # type: ignore[assignment]  # from the name of the band
    """Effective wavelength, Angstrom; looked up from `band` when not given."""
    centre: tuple[float, float] = (0.0 * u.arcsec, 0.0 * u.arcsec)
    """Sky position (dx east, dy north) of the middle of the frame from the galaxy, arcsec."""

    def __post_init__(self) -> None:
        """Check and convert.

        Raises:
            TypeError: a number without its unit.
            ValueError: shapes or values that no image has.
            UnitConversionError: a unit of something else.
        """
        what = f"the image {_named(self.band, 'the band of an image')!r}"
        flux, ivar = _measured(self.flux, self.ivar, NANOMAGGIE, what, _AB)
        if flux.ndim != 2:
            raise ValueError(
                f"Expected {what} as an array (y, x); got shape {flux.shape}. "
                "Give one BandImage a band."
            )
        wavelength = self.wavelength
        if wavelength is None:
            wavelength = effective_wavelength(self.band) * u.AA
        dx, dy = self.centre
        self._keep(
            flux=_frozen(flux, np.float32),
            ivar=_frozen(ivar, np.float32),
            pixel_scale=_single(
                self.pixel_scale, u.arcsec, f"the pixel scale of {what}", positive=True
            ),
            psf_fwhm=_single(self.psf_fwhm, u.arcsec, f"the PSF FWHM of {what}", positive=True),
            wavelength=_single(wavelength, u.AA, f"the wavelength of {what}", positive=True),
            centre=(
                _single(dx, u.arcsec, f"the centre of {what}"),
                _single(dy, u.arcsec, f"the centre of {what}"),
            ),
        )

    @classmethod
    def in_batch_units(
        cls,
        band: str,
        flux: Any,
        *,
        ivar: Any,
        pixel_scale: float,
        psf_fwhm: float,
        wavelength: float | None = None,
        centre: tuple[float, float] = (0.0, 0.0),
    ) -> Self:
        """From bare numbers: nanomaggies, nanomaggies^-2, arcsec, Angstrom."""
        return cls(
            band,
            flux=np.asarray(flux) * NANOMAGGIE,
            ivar=np.asarray(ivar) * NANOMAGGIE**-2,
            pixel_scale=pixel_scale * u.arcsec,
            psf_fwhm=psf_fwhm * u.arcsec,
            wavelength=wavelength if wavelength is None else wavelength * u.AA,
            centre=(centre[0] * u.arcsec, centre[1] * u.arcsec),
        )


@dataclass(frozen=True, eq=False)
class Photometry(_Checked):
    """The total flux of the galaxy in one band."""

    band: str
    """Name, such as `sdss-r`."""
    flux: float
    """Nanomaggies, may be negative; in: Quantity, also in Jy and the like (AB)."""
    ivar: float
    """Inverse variance, nanomaggies^-2."""
    wavelength: float = None  # type: ignore[assignment]
    """Effective wavelength, Angstrom; looked up from `band` when not given."""

    def __post_init__(self) -> None:
        """Check and convert; raises what `BandImage` raises."""
        what = f"the photometry {_named(self.band, 'the photometric band')!r}"
        flux, ivar = _measured(self.flux, self.ivar, NANOMAGGIE, what, _AB)
        if flux.ndim != 0:
            raise ValueError(
                f"Expected one flux in {what}; got an array of shape {flux.shape}. "
                "Give one Photometry a band."
            )
        wavelength = self.wavelength
        if wavelength is None:
            wavelength = effective_wavelength(self.band) * u.AA
        self._keep(
            flux=float(flux),
            ivar=float(ivar),
            wavelength=_single(wavelength, u.AA, f"the wavelength of {what}", positive=True),
        )

    @classmethod
    def in_batch_units(
        cls, band: str, flux: float, *, ivar: float, wavelength: float | None = None
    ) -> Self:
        """From bare numbers: nanomaggies, nanomaggies^-2, Angstrom."""
        return cls(
            band,
            flux=flux * NANOMAGGIE,
            ivar=ivar * NANOMAGGIE**-2,
            wavelength=wavelength if wavelength is None else wavelength * u.AA,
        )


@dataclass(frozen=True)
class Aperture(_Checked):
    """Where on the sky a spectrum is taken; every field a Quantity on the way in, arcsec inside."""

    dx: float = 0.0 * u.arcsec
    """Offset of the fibre from the galaxy, towards east, arcsec."""
    dy: float = 0.0 * u.arcsec
    """Towards north, arcsec."""
    diameter: float = 1.5 * u.arcsec
    """Diameter of the fibre, arcsec."""
    seeing: float = 1.0 * u.arcsec
    """FWHM of the seeing in front of it, arcsec."""

    def __post_init__(self) -> None:
        """Check and convert; raises what `BandImage` raises."""
        self._keep(
            dx=_single(self.dx, u.arcsec, "the offset dx of an aperture"),
            dy=_single(self.dy, u.arcsec, "the offset dy of an aperture"),
            diameter=_single(
                self.diameter, u.arcsec, "the diameter of an aperture", positive=True
            ),
            seeing=_single(self.seeing, u.arcsec, "the seeing of an aperture", positive=True),
        )

    @classmethod
    def in_batch_units(
        cls, dx: float = 0.0, dy: float = 0.0, *, diameter: float = 1.5, seeing: float = 1.0
    ) -> Self:
        """From bare numbers in arcsec."""
        return cls(dx * u.arcsec, dy * u.arcsec, diameter * u.arcsec, seeing * u.arcsec)


@dataclass(frozen=True, eq=False)
class Spectrum(_Checked):
    """The flux through one aperture on its native wavelength grid."""

    wavelength: Float[np.ndarray, " pixel"]
    """Observed vacuum wavelength of the pixel centres, increasing, Angstrom."""
    flux: Float[np.ndarray, " pixel"]
    """1e-17 erg/s/cm2/Angstrom; in: Quantity, also in f_nu."""
    ivar: Float[np.ndarray, " pixel"]
    """Inverse variance of `flux`; 0 is missing."""
    sigma: Float[np.ndarray, " pixel"] = None  # type: ignore[assignment]  # or the resolution
    """Gaussian width of the line-spread function, Angstrom; one number or one a pixel."""
    aperture: Aperture = field(default_factory=Aperture)
    name: str = "spectrum"
    """Of the spectrograph."""
    resolution: InitVar[Any] = None
    """R = wavelength / FWHM, in place of `sigma`; one number or one a pixel."""

    def __post_init__(self, resolution: Any) -> None:
        """Check and convert; raises what `BandImage` raises."""
        what = f"the spectrum {_named(self.name, 'the name of a spectrum')!r}"
        wavelength = _number(self.wavelength, u.AA, f"the wavelength of {what}")
        if wavelength.ndim != 1 or wavelength.shape != np.shape(getattr(self.flux, "value", 0)):
            raise ValueError(
                f"Expected wavelength and flux of {what} along one axis of equal length; got "
                f"shapes {wavelength.shape} and {np.shape(self.flux)}. Give one flux a wavelength."
            )
        if not np.all(np.isfinite(wavelength)) or np.any(wavelength <= 0):
            raise ValueError(
                f"Expected positive finite wavelengths in {what}; got "
                f"{np.nanmin(wavelength):.6g} Angstrom or not a number. Cut the padding off."
            )
        if np.any(np.diff(wavelength) <= 0):
            raise ValueError(
                f"Expected increasing wavelengths in {what}; got a step of "
                f"{np.min(np.diff(wavelength)):.6g} Angstrom. Sort the pixels and drop repeats."
            )
        density = u.spectral_density(wavelength * u.AA)
        flux, ivar = _measured(self.flux, self.ivar, FLUX_DENSITY, what, density)
        if (self.sigma is None) == (resolution is None):
            raise ValueError(
                f"Expected either sigma (Angstrom) or resolution (R) of {what}; got "
                f"{'neither' if resolution is None else 'both'}. Give one of the two."
            )
        if resolution is None:
            sigma = _number(self.sigma, u.AA, f"the line-spread width of {what}")
        else:
            if isinstance(resolution, u.Quantity):
                resolution = _number(resolution, u.one, f"the resolution of {what}")
            with np.errstate(divide="ignore", invalid="ignore"):
                sigma = wavelength / np.asarray(resolution, dtype=np.float64) / FWHM_PER_SIGMA
        if sigma.shape not in [(), wavelength.shape]:
            raise ValueError(
                f"Expected one line-spread width, or one a pixel, of {what}; got shape "
                f"{sigma.shape} for {wavelength.shape[0]} pixels. Interpolate it onto the grid."
            )
        sigma = np.broadcast_to(sigma, wavelength.shape)
        if not np.all(np.isfinite(sigma)) or np.any(sigma <= 0):
            raise ValueError(
                f"Expected a positive finite line-spread width in {what}; got "
                f"{np.nanmin(sigma):.3g} Angstrom or not a number. "
                "Fill the gaps with the instrument's typical resolution."
            )
        if not isinstance(self.aperture, Aperture):
            raise TypeError(
                f"Expected the aperture of {what} as an Aperture; got "
                f"{type(self.aperture).__name__}. Build one with probmmae.Aperture."
            )
        self._keep(
            wavelength=_frozen(wavelength, np.float64),
            flux=_frozen(flux, np.float32),
            ivar=_frozen(ivar, np.float32),
            sigma=_frozen(sigma, np.float32),
        )

    @classmethod
    def in_batch_units(
        cls,
        wavelength: Any,
        flux: Any,
        *,
        ivar: Any,
        sigma: Any,
        aperture: Aperture | None = None,
        name: str = "spectrum",
    ) -> Self:
        """From bare numbers: Angstrom, 1e-17 erg/s/cm2/Angstrom, its ivar, Angstrom."""
        return cls(
            np.asarray(wavelength) * u.AA,
            flux=np.asarray(flux) * FLUX_DENSITY,
            ivar=np.asarray(ivar) * FLUX_DENSITY**-2,
            sigma=np.asarray(sigma) * u.AA,
            aperture=aperture or Aperture(),
            name=name,
        )


@dataclass(frozen=True)
class Scalar(_Checked):
    """A dimensionless number and its standard error, such as a redshift or a log stellar mass."""

    value: float
    error: float = 0.0
    """0: taken as exact."""

    def __post_init__(self) -> None:
        """Check.

        Raises:
            ValueError: not finite, or a negative error.
        """
        value, error = float(self.value), float(self.error)
        if not np.isfinite(value) or not np.isfinite(error) or error < 0:
            raise ValueError(
                f"Expected a finite value and an error >= 0; got {value} +/- {error}. "
                "Leave an unknown scalar out."
            )
        self._keep(value=value, error=error)


@dataclass(frozen=True, eq=False)
class Galaxy(_Checked):
    """One object: everything that was measured of it, all of it optional."""

    id: str
    """What it is called; decides which part of a split it falls in."""
    ra: Any = None
    """Right ascension, a Quantity; degrees inside, None where unknown."""
    dec: Any = None
    """Declination, likewise."""
    images: tuple[BandImage, ...] = ()
    photometry: tuple[Photometry, ...] = ()
    spectra: tuple[Spectrum, ...] = ()
    scalars: Mapping[str, Scalar] = field(default_factory=dict)
    """By name; `redshift` is the one the model knows."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """By name, such as `class` or `morphology`."""

    def __post_init__(self) -> None:
        """Check.

        Raises:
            TypeError: something else where a measurement belongs, or a position without unit.
            ValueError: a position that is not on the sky, two images in one band.
        """
        _named(self.id, "the id of a galaxy")
        for name, kind in [("images", BandImage), ("photometry", Photometry), ("spectra", Spectrum)]:
            values = tuple(getattr(self, name))
            for value in values:
                if not isinstance(value, kind):
                    raise TypeError(
                        f"Expected {name} of galaxy {self.id!r} as {kind.__name__} objects; got "
                        f"{type(value).__name__}. Build them with probmmae.{kind.__name__}."
                    )
            self._keep(**{name: values})
        for name in ["images", "photometry"]:
            bands = [value.band for value in getattr(self, name)]
            if len(set(bands)) < len(bands):
                twice = sorted({band for band in bands if bands.count(band) > 1})
                raise ValueError(
                    f"Expected each band once in the {name} of galaxy {self.id!r}; got "
                    f"{', '.join(twice)} more than once. Give repeats names of their own."
                )
        for name, value in self.scalars.items():
            if not isinstance(value, Scalar):
                raise TypeError(
                    f"Expected scalar {name!r} of galaxy {self.id!r} as a Scalar; got "
                    f"{type(value).__name__}. Wrap it: Scalar(value, error)."
                )
        if (self.ra is None) != (self.dec is None):
            raise ValueError(
                f"Expected both ra and dec of galaxy {self.id!r}, or neither; got one. Give both."
            )
        if self.ra is not None:
            ra = _single(self.ra, u.deg, f"ra of galaxy {self.id!r}")
            dec = _single(self.dec, u.deg, f"dec of galaxy {self.id!r}")
            if not -90.0 <= dec <= 90.0:
                raise ValueError(
                    f"Expected dec of galaxy {self.id!r} between -90 and 90 deg; got {dec}. "
                    "Check the order of the coordinates."
                )
            self._keep(ra=(ra % 360.0) * u.deg, dec=dec * u.deg)
        self._keep(
            scalars=MappingProxyType(dict(self.scalars)),
            labels=MappingProxyType({name: str(value) for name, value in self.labels.items()}),
        )

    @property
    def redshift(self) -> float | None:
        """The scalar `redshift`; None where unknown."""
        scalar = self.scalars.get("redshift")
        return None if scalar is None else scalar.value

    def describe(self) -> str:
        """What there is, a line a measurement, with units."""
        where = "" if self.ra is None else f" at ({self.ra.value:.5f}, {self.dec.value:+.5f}) deg"
        lines = [f"galaxy {self.id}{where}"]
        for image in self.images:
            height, width = image.flux.shape
            lines.append(
                f"  image {image.band}: {width} x {height} pixels of {image.pixel_scale:.3g} arcsec, "
                f"PSF {image.psf_fwhm:.2f} arcsec, {image.wavelength:.0f} Angstrom, "
                f"sum {image.flux.sum(dtype=np.float64):.4g} nanomaggies, "
                f"{_missing(image.ivar)} missing"
            )
        for band in self.photometry:
            lines.append(
                f"  photometry {band.band}: {band.flux:.4g} +/- {band.ivar**-0.5:.2g} nanomaggies"
            )
        for spectrum in self.spectra:
            first, last = spectrum.wavelength[[0, -1]]
            good = spectrum.ivar > 0
            signal = spectrum.flux[good] * np.sqrt(spectrum.ivar[good])
            where = f"({spectrum.aperture.dx:+.2f}, {spectrum.aperture.dy:+.2f}) arcsec"
            lines.append(
                f"  spectrum {spectrum.name}: {first:.0f}-{last:.0f} Angstrom, {good.size} pixels, "
                f"R {np.median(spectrum.wavelength / spectrum.sigma) / FWHM_PER_SIGMA:.0f}, "
                f"median S/N {np.median(signal):.1f} a pixel, fibre {spectrum.aperture.diameter:g} "
                f"arcsec at {where}, {_missing(spectrum.ivar)} missing"
            )
        for name, scalar in self.scalars.items():
            error = f" +/- {scalar.error:.2g}" if scalar.error else ""
            lines.append(f"  {name}: {scalar.value:.6g}{error}")
        lines += [f"  {name}: {value}" for name, value in self.labels.items()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.describe()


def _missing(ivar: np.ndarray) -> str:
    return f"{np.mean(ivar == 0):.1%}"
