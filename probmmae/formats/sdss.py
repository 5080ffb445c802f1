"""SDSS, BOSS, eBOSS and SDSS-V spectra: `spec-PLATE-MJD-FIBER.fits`, lite or full.

The header's RA and DEC are the plate's centre: the object's position is PLUG_RA and PLUG_DEC.
`wdisp` is in pixels of 1e-4 in log10(wavelength). Since Data Release 6 the flux scale is that of
the PSF magnitudes of stars, so that a *point source* has its total flux: synthetic r fluxes of 15
BOSS stars are 0.97 of their PSF fluxes (median), and twice what a 2 arcsec aperture in 2 arcsec
seeing holds. What the fibre caught is fainter by its loss of a point source: `read` gives that.

References:
    Adelman-McCarthy et al. 2008, The Sixth Data Release of the SDSS, section 3.1,
        https://arxiv.org/abs/0707.3413
    SDSS data model of spec files, https://data.sdss.org/datamodel/
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u

from probmmae.formats.opening import column, fits_file, is_fits, names_of
from probmmae.galaxy import Aperture, Galaxy, Photometry, Scalar, Spectrum
from probmmae.measurements import FWHM_PER_SIGMA

DESCRIPTION = "SDSS/BOSS/SDSS-V spectrum (spec-*.fits)"

#: Step of the wavelength grid, ln(wavelength).
_LN_STEP = 1e-4 * math.log(10.0)
#: Sky so bright in every exposure that the residuals are not described by ivar.
_BRIGHTSKY = 1 << 23
#: Where neither WDISP nor WRESL is known.
_TYPICAL_RESOLUTION = 2000.0
#: The first plate of the BOSS spectrograph, with fibres of 2 arcsec in place of 3.
_FIRST_BOSS_PLATE = 3510
_ORDINARY_SEEING = 1.5


def recognise(path: Path) -> bool:
    """Whether this is a FITS file whose first table holds flux, loglam and ivar."""
    if not is_fits(path):
        return False
    with fits_file(path) as opened:
        return len(opened) > 1 and {"flux", "loglam", "ivar"} <= set(names_of(opened[1]))


def read(
    path: Path, *, fibre_flux: bool = True, trust_warned_redshift: bool = False
) -> Iterator[Galaxy]:
    """The one object of the file.

    Args:
        path: the file.
        fibre_flux: scale from the total flux of a point source to what the fibre caught of it.
            False keeps the numbers of the file.
        trust_warned_redshift: keep the pipeline's redshift where ZWARNING is not 0.

    Yields:
        A galaxy with one spectrum, the pipeline's redshift, class and, where the file carries the
        imaging row, the cmodel fluxes.

    Raises:
        ValueError: a damaged file, a missing column.
    """
    with fits_file(path) as opened:
        header = opened[0].header
        coadd = opened[1]
        wavelength = 10.0 ** column(coadd, "loglam").astype(np.float64)
        flux, ivar = column(coadd, "flux"), column(coadd, "ivar")
        if "and_mask" in names_of(coadd):
            ivar = np.where(column(coadd, "and_mask") & _BRIGHTSKY, 0.0, ivar)
        sigma = _line_spread(coadd, wavelength)
        row = opened[2] if len(opened) > 2 else None
        about = {} if row is None else {name: row.data[0][name] for name in row.columns.names}
    about = {name.upper(): value for name, value in about.items()}
    scalars, labels = _pipeline(about, trust_warned=trust_warned_redshift)
    ra, dec = _position(about, header)
    aperture = _aperture(about, header)
    fraction = point_source_fraction(aperture) if fibre_flux else 1.0
    spectrum = Spectrum.in_batch_units(
        wavelength,
        flux * fraction,
        ivar=ivar / fraction**2,
        sigma=sigma,
        aperture=aperture,
        name="sdss",
    )
    name = path.name.split(".fits")[0]
    yield Galaxy(
        name if name.startswith("spec-") else f"sdss-{name}",
        ra=None if ra is None else ra * u.deg,
        dec=None if dec is None else dec * u.deg,
        spectra=(spectrum,),
        photometry=_photometry(about),
        scalars=scalars,
        labels=labels,
    )


def point_source_fraction(aperture: Aperture) -> float:
    """Share of a centred point source's light, in Gaussian seeing, that enters the fibre."""
    return 1.0 - 2.0 ** -((aperture.diameter / aperture.seeing) ** 2)


def _line_spread(coadd: Any, wavelength: np.ndarray) -> np.ndarray:
    """Gaussian width in Angstrom; gaps are bridged by the typical width of the others."""
    there = names_of(coadd)
    sigma = np.zeros_like(wavelength)
    if "wdisp" in there:
        sigma = column(coadd, "wdisp") * _LN_STEP * wavelength
    elif "wresl" in there:
        sigma = column(coadd, "wresl").astype(np.float64)
    good = np.isfinite(sigma) & (sigma > 0)
    resolution = (
        float(np.median(wavelength[good] / sigma[good])) / FWHM_PER_SIGMA
        if good.any()
        else _TYPICAL_RESOLUTION
    )
    return np.where(good, sigma, wavelength / resolution / FWHM_PER_SIGMA)


def _position(about: dict[str, Any], header: Any) -> tuple[float | None, float | None]:
    """Where the fibre was: never the header's RA and DEC, which are those of the plate."""
    for names in [("PLUG_RA", "PLUG_DEC"), ("FIBER_RA", "FIBER_DEC"), ("RACAT", "DECCAT")]:
        for source in [about, header]:
            if names[0] in source and names[1] in source:
                ra, dec = (float(source[name]) for name in names)
                if np.isfinite(ra) and -90.0 <= dec <= 90.0:
                    return ra, dec
    return None, None


def _aperture(about: dict[str, Any], header: Any) -> Aperture:
    plate = int(about.get("PLATE", header.get("PLATEID", 0)))
    diameter = 3.0 if 0 < plate < _FIRST_BOSS_PLATE else 2.0
    seeing = float(header.get("SEEING50", 0.0))
    return Aperture.in_batch_units(
        diameter=diameter, seeing=seeing if 0.3 < seeing < 5.0 else _ORDINARY_SEEING
    )


def _pipeline(
    about: dict[str, Any], *, trust_warned: bool
) -> tuple[dict[str, Scalar], dict[str, str]]:
    """Redshift and velocity dispersion with errors, class; nothing that the pipeline warns of."""
    scalars: dict[str, Scalar] = {}
    labels = {
        name.lower(): str(about[name]).strip()
        for name in ["CLASS", "SUBCLASS"]
        if str(about.get(name, "")).strip()
    }
    if "ZWARNING" in about:
        labels["zwarning"] = str(int(about["ZWARNING"]))
    if "Z" in about and (trust_warned or int(about.get("ZWARNING", 0)) == 0):
        error = float(about.get("Z_ERR", 0.0))
        scalars["redshift"] = Scalar(float(about["Z"]), max(error, 0.0))
    if float(about.get("VDISP_ERR", 0.0)) > 0:
        scalars["velocity_dispersion_km_s"] = Scalar(
            float(about["VDISP"]), float(about["VDISP_ERR"])
        )
    return scalars, labels


def _photometry(about: dict[str, Any]) -> tuple[Photometry, ...]:
    """Total fluxes of the imaging survey; SPECTROFLUX is the spectrum itself and no news."""
    if "CMODELFLUX" not in about:
        return ()
    fluxes, ivars = np.asarray(about["CMODELFLUX"]), np.asarray(about["CMODELFLUX_IVAR"])
    return tuple(
        Photometry.in_batch_units(f"sdss-{band}", float(flux), ivar=float(ivar))
        for band, flux, ivar in zip("ugriz", fluxes, ivars, strict=True)
        if np.isfinite(flux) and np.isfinite(ivar) and ivar > 0
    )
