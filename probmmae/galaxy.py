"""One galaxy: its images, photometry, spectra, scalars and labels, all of them optional."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from astropy import units as u

from probmmae.measurements import (
    FWHM_PER_SIGMA,
    Aperture,
    BandImage,
    Photometry,
    Scalar,
    Spectrum,
)
from probmmae.quantities import named, single

__all__ = [
    "FWHM_PER_SIGMA",
    "Aperture",
    "BandImage",
    "Galaxy",
    "Photometry",
    "Scalar",
    "Spectrum",
    "sky_identity",
]


@dataclass(frozen=True, eq=False, init=False)
class Galaxy:
    """One object and everything that was measured of it.

    `dataclasses.replace(galaxy, spectra=())` is the galaxy without its spectra.

    Args:
        id: what it is called; decides which part of a split it falls in.
        ra: right ascension, a Quantity; None where unknown.
        dec: declination, likewise.
        images: one `BandImage` a band.
        photometry: one `Photometry` a band.
        spectra: any number.
        scalars: by name; `redshift` is the one that the model knows.
        labels: by name, such as `class` or `morphology`.

    Raises:
        TypeError: something else where a measurement belongs, or a position without unit.
        ValueError: a position that is not on the sky, a band twice.

    Example:
        >>> galaxy = Galaxy("NGC 1", ra=1.816 * u.deg, dec=27.708 * u.deg)
        >>> print(galaxy)
        galaxy NGC 1 at (1.81600, +27.70800) deg
    """

    id: str
    ra: Any
    """Quantity in degrees, or None."""
    dec: Any
    """Quantity in degrees, or None."""
    images: tuple[BandImage, ...]
    photometry: tuple[Photometry, ...]
    spectra: tuple[Spectrum, ...]
    scalars: Mapping[str, Scalar]
    labels: Mapping[str, str]

    def __init__(
        self,
        id: Any,
        ra: Any = None,
        dec: Any = None,
        *,
        images: Any = (),
        photometry: Any = (),
        spectra: Any = (),
        scalars: Any = MappingProxyType({}),
        labels: Any = MappingProxyType({}),
    ) -> None:
        name = named(id, "the id of a galaxy")
        position = _position(name, ra, dec)
        kept = {
            "id": name,
            "ra": position[0],
            "dec": position[1],
            "images": _all(images, BandImage, f"images of galaxy {name!r}"),
            "photometry": _all(photometry, Photometry, f"photometry of galaxy {name!r}"),
            "spectra": _all(spectra, Spectrum, f"spectra of galaxy {name!r}"),
            "scalars": MappingProxyType(dict(scalars)),
            "labels": MappingProxyType({key: str(value) for key, value in labels.items()}),
        }
        for what in ["images", "photometry"]:
            bands = [value.band for value in kept[what]]
            twice = sorted({band for band in bands if bands.count(band) > 1})
            if twice:
                raise ValueError(
                    f"Expected each band once in the {what} of galaxy {name!r}; got "
                    f"{', '.join(twice)} more than once. Give repeats names of their own."
                )
        for key, value in kept["scalars"].items():
            if not isinstance(value, Scalar):
                raise TypeError(
                    f"Expected scalar {key!r} of galaxy {name!r} as a Scalar; got "
                    f"{type(value).__name__}. Wrap it: Scalar(value, error)."
                )
        for key, value in kept.items():
            object.__setattr__(self, key, value)

    @property
    def redshift(self) -> float | None:
        """The scalar `redshift`; None where unknown."""
        scalar = self.scalars.get("redshift")
        return None if scalar is None else scalar.value

    def describe(self) -> str:
        """What there is, a line a measurement, with units."""
        where = "" if self.ra is None else f" at ({self.ra.value:.5f}, {self.dec.value:+.5f}) deg"
        lines = [f"galaxy {self.id}{where}"]
        lines += [_image_line(image) for image in self.images]
        lines += [
            f"photometry {one.band}: {one.flux:.4g} +/- {one.ivar**-0.5:.2g} nanomaggies"
            for one in self.photometry
        ]
        lines += [_spectrum_line(spectrum) for spectrum in self.spectra]
        for name, scalar in self.scalars.items():
            error = f" +/- {scalar.error:.2g}" if scalar.error else ""
            lines.append(f"{name}: {scalar.value:.6g}{error}")
        lines += [f"{name}: {value}" for name, value in self.labels.items()]
        return "\n  ".join(lines)

    def __str__(self) -> str:
        return self.describe()


def sky_identity(ra: Any, dec: Any) -> str:
    """A name from the position, to an arcsec: for galaxies that have no other.

    Args:
        ra: right ascension, a Quantity.
        dec: declination, a Quantity.

    Example:
        >>> sky_identity(150.00012 * u.deg, -2.5 * u.deg)
        'J150.0001-02.5000'
    """
    return f"J{ra.to_value(u.deg) % 360.0:08.4f}{dec.to_value(u.deg):+08.4f}"


def _all(values: Any, kind: type, what: str) -> tuple[Any, ...]:
    found = tuple(values)
    for value in found:
        if not isinstance(value, kind):
            raise TypeError(
                f"Expected {what} as {kind.__name__} objects; got {type(value).__name__}. "
                f"Build them with probmmae.{kind.__name__}."
            )
    return found


def _position(name: str, ra: Any, dec: Any) -> tuple[Any, Any]:
    if (ra is None) != (dec is None):
        raise ValueError(
            f"Expected both ra and dec of galaxy {name!r}, or neither; got one. Give both."
        )
    if ra is None:
        return None, None
    east = single(ra, u.deg, f"ra of galaxy {name!r}")
    north = single(dec, u.deg, f"dec of galaxy {name!r}")
    if not -90.0 <= north <= 90.0:
        raise ValueError(
            f"Expected dec of galaxy {name!r} between -90 and 90 deg; got {north}. "
            "Check the order of the coordinates."
        )
    return (east % 360.0) * u.deg, north * u.deg


def _image_line(image: BandImage) -> str:
    height, width = image.flux.shape
    return (
        f"image {image.band}: {width} x {height} pixels of {image.pixel_scale:.3g} arcsec, "
        f"PSF {image.psf_fwhm:.2f} arcsec, {image.wavelength:.0f} Angstrom, "
        f"sum {image.flux.sum(dtype=np.float64):.4g} nanomaggies, "
        f"{np.mean(image.ivar == 0):.1%} missing"
    )


def _spectrum_line(spectrum: Spectrum) -> str:
    first, last = spectrum.wavelength[[0, -1]]
    good = spectrum.ivar > 0
    signal = np.median(spectrum.flux[good] * np.sqrt(spectrum.ivar[good]))
    resolution = np.median(spectrum.wavelength / spectrum.sigma) / FWHM_PER_SIGMA
    place = spectrum.aperture
    return (
        f"spectrum {spectrum.name}: {first:.0f}-{last:.0f} Angstrom, {good.size} pixels, "
        f"R {resolution:.0f}, median S/N {signal:.1f} a pixel, fibre {place.diameter:g} arcsec "
        f"at ({place.dx:+.2f}, {place.dy:+.2f}) arcsec, {np.mean(~good):.1%} missing"
    )
