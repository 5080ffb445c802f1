"""What one instrument measured of a galaxy: an image, a flux, a spectrum, a number; with errors.

What comes in is a `Quantity`; what is kept is a read-only array in the units of `probmmae.batch`:
nanomaggies for images and photometry, 1e-17 erg/s/cm2/Angstrom for spectra, observed vacuum
wavelengths in Angstrom, angles in arcsec. `ivar` = 0 means missing, and NaN or infinite pixels are
missing from here on. Images have x growing towards east and y towards north.

`in_batch_units` builds the same objects from bare numbers that are known to be in those units.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from astropy import units as u
from jaxtyping import Float

from probmmae.bands import effective_wavelength
from probmmae.quantities import (
    AB,
    FLUX_DENSITY,
    NANOMAGGIE,
    bare,
    frozen,
    is_bare,
    measured,
    named,
    number,
    single,
)

#: FWHM of a Gaussian over its standard deviation.
FWHM_PER_SIGMA = float(2.0 * np.sqrt(2.0 * np.log(2.0)))


def _keep(record: Any, **values: Any) -> None:
    """Set fields of a frozen record under construction."""
    for name, value in values.items():
        object.__setattr__(record, name, value)


def _band_wavelength(value: Any, band: str, what: str) -> float:
    """In Angstrom: the one given, or the one that the name of the band stands for."""
    if value is None:
        return effective_wavelength(band)
    return single(value, u.AA, f"the wavelength of {what}", positive=True)


@dataclass(frozen=True, eq=False, init=False)
class BandImage:
    """An image in one band, east along x and north along y.

    Args:
        band: its name, such as `hsc-g`.
        flux: (y, x), per pixel: a Quantity in nanomaggies, or in Jy and the like (AB).
        ivar: (y, x), inverse variance: a Quantity in the inverse square of such a unit.
        pixel_scale: side of a pixel, a Quantity.
        psf_fwhm: FWHM of the point-spread function, a Quantity.
        wavelength: effective wavelength, a Quantity; None looks it up by the name of the band.
        centre: sky position (dx east, dy north) of the middle of the frame from the galaxy, two
            Quantities; None is (0, 0).

    Raises:
        TypeError: a number without its unit.
        ValueError: shapes or values that no image has.
        UnitConversionError: a unit of something else.
    """

    band: str
    flux: Float[np.ndarray, "y x"]
    """Nanomaggies per pixel."""
    ivar: Float[np.ndarray, "y x"]
    """Nanomaggies^-2; 0 is missing."""
    pixel_scale: float
    """arcsec."""
    psf_fwhm: float
    """arcsec."""
    wavelength: float
    """Angstrom."""
    centre: tuple[float, float]
    """arcsec."""

    def __init__(
        self,
        band: Any,
        flux: Any,
        *,
        ivar: Any,
        pixel_scale: Any,
        psf_fwhm: Any,
        wavelength: Any = None,
        centre: Any = None,
    ) -> None:
        what = f"the image {named(band, 'the band of an image')!r}"
        values, weights = measured(flux, ivar, NANOMAGGIE, what=what, equivalencies=AB)
        if values.ndim != 2:
            raise ValueError(
                f"Expected {what} as an array (y, x); got shape {values.shape}. "
                "Give one BandImage a band."
            )
        dx, dy = (bare(0.0), bare(0.0)) if centre is None else centre
        _keep(
            self,
            band=band,
            flux=frozen(values, np.float32),
            ivar=frozen(weights, np.float32),
            pixel_scale=single(pixel_scale, u.arcsec, f"the pixel scale of {what}", positive=True),
            psf_fwhm=single(psf_fwhm, u.arcsec, f"the PSF FWHM of {what}", positive=True),
            wavelength=_band_wavelength(wavelength, band, what),
            centre=(
                single(dx, u.arcsec, f"the centre of {what}"),
                single(dy, u.arcsec, f"the centre of {what}"),
            ),
        )

    @classmethod
    def in_batch_units(
        cls,
        band: str,
        flux: Any,
        *,
        ivar: Any,
        pixel_scale: Any,
        psf_fwhm: Any,
        wavelength: Any = None,
        centre: tuple[Any, Any] = (0.0, 0.0),
    ) -> Self:
        """From bare numbers: nanomaggies, nanomaggies^-2, arcsec, Angstrom."""
        return cls(
            band,
            flux=bare(flux),
            ivar=bare(ivar),
            pixel_scale=bare(pixel_scale),
            psf_fwhm=bare(psf_fwhm),
            wavelength=None if wavelength is None else bare(wavelength),
            centre=(bare(centre[0]), bare(centre[1])),
        )


@dataclass(frozen=True, eq=False, init=False)
class Photometry:
    """The total flux of the galaxy in one band; it may be negative.

    Args:
        band: its name, such as `sdss-r`.
        flux: a Quantity in nanomaggies, or in Jy and the like (AB).
        ivar: inverse variance, a Quantity in the inverse square of such a unit.
        wavelength: effective wavelength, a Quantity; None looks it up by the name of the band.

    Raises:
        TypeError, ValueError, UnitConversionError: as `BandImage`.
    """

    band: str
    flux: float
    """Nanomaggies."""
    ivar: float
    """Nanomaggies^-2."""
    wavelength: float
    """Angstrom."""

    def __init__(self, band: Any, flux: Any, *, ivar: Any, wavelength: Any = None) -> None:
        what = f"the photometry {named(band, 'the photometric band')!r}"
        value, weight = measured(flux, ivar, NANOMAGGIE, what=what, equivalencies=AB)
        if value.ndim != 0:
            raise ValueError(
                f"Expected one flux in {what}; got an array of shape {value.shape}. "
                "Give one Photometry a band."
            )
        _keep(
            self,
            band=band,
            flux=float(value),
            ivar=float(weight),
            wavelength=_band_wavelength(wavelength, band, what),
        )

    @classmethod
    def in_batch_units(cls, band: str, flux: Any, *, ivar: Any, wavelength: Any = None) -> Self:
        """From bare numbers: nanomaggies, nanomaggies^-2, Angstrom."""
        known = None if wavelength is None else bare(wavelength)
        return cls(band, flux=bare(flux), ivar=bare(ivar), wavelength=known)


@dataclass(frozen=True, init=False)
class Aperture:
    """Where on the sky a spectrum is taken.

    Args:
        dx: offset of the fibre from the galaxy towards east, a Quantity; None is 0.
        dy: towards north, likewise.
        diameter: of the fibre, a Quantity; None is 1.5 arcsec.
        seeing: FWHM of the seeing in front of it, a Quantity; None is 1 arcsec.

    Raises:
        TypeError, ValueError, UnitConversionError: as `BandImage`.
    """

    dx: float
    """arcsec."""
    dy: float
    """arcsec."""
    diameter: float
    """arcsec."""
    seeing: float
    """arcsec."""

    def __init__(
        self, dx: Any = None, dy: Any = None, *, diameter: Any = None, seeing: Any = None
    ) -> None:
        dx, dy = (bare(0.0) if value is None else value for value in (dx, dy))
        diameter = bare(1.5) if diameter is None else diameter
        seeing = bare(1.0) if seeing is None else seeing
        _keep(
            self,
            dx=single(dx, u.arcsec, "the offset dx of an aperture"),
            dy=single(dy, u.arcsec, "the offset dy of an aperture"),
            diameter=single(diameter, u.arcsec, "the diameter of an aperture", positive=True),
            seeing=single(seeing, u.arcsec, "the seeing of an aperture", positive=True),
        )

    @classmethod
    def in_batch_units(
        cls, dx: Any = 0.0, dy: Any = 0.0, *, diameter: Any = 1.5, seeing: Any = 1.0
    ) -> Self:
        """From bare numbers in arcsec."""
        return cls(bare(dx), bare(dy), diameter=bare(diameter), seeing=bare(seeing))


@dataclass(frozen=True, eq=False, init=False)
class Spectrum:
    """The flux through one aperture on its native wavelength grid.

    Args:
        wavelength: (pixel,), observed vacuum wavelength of the pixels' centres, increasing: a
            Quantity.
        flux: (pixel,), a Quantity in f_lambda or f_nu.
        ivar: (pixel,), inverse variance: a Quantity in the inverse square of such a unit.
        sigma: Gaussian width of the line-spread function, a Quantity: one, or one a pixel.
        resolution: R = wavelength / FWHM in place of `sigma`: one number, or one a pixel.
        aperture: where it was taken; None is a 1.5 arcsec fibre on the galaxy.
        name: of the spectrograph.

    Raises:
        TypeError, ValueError, UnitConversionError: as `BandImage`.
    """

    wavelength: Float[np.ndarray, " pixel"]
    """Angstrom."""
    flux: Float[np.ndarray, " pixel"]
    """1e-17 erg/s/cm2/Angstrom."""
    ivar: Float[np.ndarray, " pixel"]
    """Inverse variance of `flux`; 0 is missing."""
    sigma: Float[np.ndarray, " pixel"]
    """Angstrom."""
    aperture: Aperture
    name: str

    def __init__(
        self,
        wavelength: Any,
        flux: Any,
        *,
        ivar: Any,
        sigma: Any = None,
        resolution: Any = None,
        aperture: Any = None,
        name: Any = "spectrum",
    ) -> None:
        what = f"the spectrum {named(name, 'the name of a spectrum')!r}"
        grid = _checked_grid(number(wavelength, u.AA, f"the wavelength of {what}"), flux, what)
        density = () if is_bare(flux) else u.spectral_density(grid * u.AA)
        values, weights = measured(flux, ivar, FLUX_DENSITY, what=what, equivalencies=density)
        aperture = Aperture() if aperture is None else aperture
        if not isinstance(aperture, Aperture):
            raise TypeError(
                f"Expected the aperture of {what} as an Aperture; got "
                f"{type(aperture).__name__}. Build one with probmmae.Aperture."
            )
        _keep(
            self,
            wavelength=frozen(grid, np.float64),
            flux=frozen(values, np.float32),
            ivar=frozen(weights, np.float32),
            sigma=frozen(_line_spread(grid, sigma, resolution, what=what), np.float32),
            aperture=aperture,
            name=name,
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
            bare(wavelength),
            flux=bare(flux),
            ivar=bare(ivar),
            sigma=bare(sigma),
            aperture=aperture,
            name=name,
        )


def _checked_grid(wavelength: Any, flux: Any, what: str) -> Any:
    """The wavelengths, as long as the flux, positive and increasing."""
    flux_shape = np.shape(getattr(flux, "value", flux))
    if wavelength.ndim != 1 or wavelength.shape != flux_shape:
        raise ValueError(
            f"Expected wavelength and flux of {what} along one axis of equal length; got "
            f"shapes {wavelength.shape} and {flux_shape}. Give one flux a wavelength."
        )
    if not np.all(np.isfinite(wavelength)) or np.any(wavelength <= 0):
        odd = wavelength[~(np.isfinite(wavelength) & (wavelength > 0))][0]
        raise ValueError(
            f"Expected positive finite wavelengths in {what}; got {odd:.6g} Angstrom. "
            "Cut the padding off."
        )
    if np.any(np.diff(wavelength) <= 0):
        raise ValueError(
            f"Expected increasing wavelengths in {what}; got a step of "
            f"{np.min(np.diff(wavelength)):.6g} Angstrom. Sort the pixels and drop repeats."
        )
    return wavelength


def _line_spread(wavelength: Any, sigma: Any, resolution: Any, *, what: str) -> Any:
    """Gaussian width in Angstrom at every pixel, from one of the two."""
    if (sigma is None) == (resolution is None):
        raise ValueError(
            f"Expected either sigma (Angstrom) or resolution (R) of {what}; got "
            f"{'neither' if resolution is None else 'both'}. Give one of the two."
        )
    if resolution is None:
        width = number(sigma, u.AA, f"the line-spread width of {what}")
    else:
        if isinstance(resolution, u.Quantity):
            resolution = number(resolution, u.one, f"the resolution of {what}")
        with np.errstate(divide="ignore", invalid="ignore"):
            width = wavelength / np.asarray(resolution, dtype=np.float64) / FWHM_PER_SIGMA
    if width.shape not in [(), wavelength.shape]:
        raise ValueError(
            f"Expected one line-spread width, or one a pixel, of {what}; got shape "
            f"{width.shape} for {wavelength.size} pixels. Interpolate it onto the grid."
        )
    width = np.broadcast_to(width, wavelength.shape)
    if not np.all(np.isfinite(width)) or np.any(width <= 0):
        odd = width[~(np.isfinite(width) & (width > 0))][0]
        raise ValueError(
            f"Expected a positive finite line-spread width in {what}; got {odd:.3g} Angstrom. "
            "Fill the gaps with the instrument's typical resolution."
        )
    return width


@dataclass(frozen=True, init=False)
class Scalar:
    """A dimensionless number and its standard error, such as a redshift or a log stellar mass.

    Args:
        value: the number.
        error: its standard error; 0 takes it as exact.

    Raises:
        ValueError: not finite, or a negative error.
    """

    value: float
    error: float

    def __init__(self, value: Any, error: Any = 0.0) -> None:
        value, error = float(value), float(error)
        if not np.isfinite(value) or not np.isfinite(error) or error < 0:
            raise ValueError(
                f"Expected a finite value and an error >= 0; got {value} +/- {error}. "
                "Leave an unknown scalar out."
            )
        _keep(self, value=value, error=error)
