"""Drawn spectra and images as users hold them: with units, statistics and exports.

What lies outside the templates' rest wavelengths at a draw's redshift is NaN in that draw;
statistics are those of the draws that reach a pixel.

Axes: draw, wavelength (pixel), level, y, x.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from probmmae.galaxy import Aperture

FLUX_UNIT = u.Unit("1e-17 erg / (s cm2 Angstrom)")


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
    """Where; arcsec."""
    repair: str = "not repaired"
    """What was done to redshift and spectra to calibrate them, in words."""

    @property
    def mean(self) -> u.Quantity:
        """Mean of the draws, shape (wavelength,)."""
        return self._over_draws(np.nanmean)

    @property
    def std(self) -> u.Quantity:
        """Standard deviation of the draws, shape (wavelength,)."""
        return self._over_draws(np.nanstd)

    def quantiles(self, levels: Any) -> u.Quantity:
        """Quantiles at each wavelength, shape (level, wavelength).

        Raises:
            ValueError: A level is not between 0 and 1.
        """
        wanted = np.asarray(levels, dtype=float)
        if not np.all((wanted >= 0) & (wanted <= 1)):
            raise ValueError(
                f"Expected levels between 0 and 1; got {levels}. A percentage is divided by 100."
            )
        return self._over_draws(lambda flux, axis: np.nanquantile(flux, wanted, axis=axis))

    def _over_draws(self, statistic: Callable[..., Any]) -> u.Quantity:
        with warnings.catch_warnings():
            # A pixel that no draw reaches is NaN, as it should be.
            warnings.simplefilter("ignore", RuntimeWarning)
            return statistic(self.flux.value, axis=0) * self.flux.unit

    def to_specutils(self) -> Any:
        """A `specutils.Spectrum` of the mean with the draws' standard deviation as uncertainty.

        The draws themselves are in `meta["draws"]`, their redshifts in `meta["z"]`, and
        `meta["repair"]` says whether they were recalibrated.
        """
        from astropy.nddata import StdDevUncertainty
        from specutils import Spectrum

        return Spectrum(
            flux=self.mean,
            spectral_axis=self.wavelength,
            uncertainty=StdDevUncertainty(self.std),
            meta={"draws": self.flux, "z": self.z, "repair": self.repair},
        )

    def to_fits(self, path: str | Path) -> None:
        """Write mean, standard deviation, 5/50/95 % quantiles and all draws to a FITS file.

        HDU SPECTRUM is a table with a row a wavelength; HDU DRAWS an image (draw, wavelength); HDU
        Z a table of the draws' redshifts. REPAIR, in the first header, says whether the draws were
        recalibrated.
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
        redshifts = fits.BinTableHDU.from_columns([fits.Column("z", "D", array=self.z)], name="Z")
        content = fits.HDUList(
            [
                fits.PrimaryHDU(header=fits.Header({"REPAIR": self.repair})),
                first,
                fits.ImageHDU(self.flux.value.astype("f4"), header),
                redshifts,
            ]
        )
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        try:
            content.writeto(partial, overwrite=True, output_verify="exception")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class ImageDraws:
    """Posterior draws of a noise-free image in one band."""

    band: str
    flux: u.Quantity
    """Nanomaggies per pixel, shape (draw, y, x); x grows towards east, y towards north."""
    pixel_scale: float
    """arcsec."""
