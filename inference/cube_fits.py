"""Cubes on disk: FITS laid out as MaNGA's LOGCUBE files, with what the draws say beside it.

    FLUX, IVAR         mean of the draws, and 1 / their variance
    MASK               bits: 0 no spaxel, 10 do not use, 20 extrapolated: nothing was observed
                       there, or no aperture of training lay so far out
    WAVE, SPECRES      vacuum Angstrom; R = wavelength / FWHM
    LSFPOST            Gaussian width of the line-spread function, Angstrom
    FLUX_Q05 ...       quantiles of each pixel by itself
    GIMG, RIMG ...     the mean through SDSS's griz, nanomaggies a spaxel
    GPSF, RPSF ...     the Gaussian that stands for the point-spread function
    MAPS_Q05 ...       quantiles of `QUANTITIES`; C01 ... of the header name them, U01 ... units
    MAPS_DRAWS         maps of every draw (quantity, draw, y, x): for totals, gradients, averages
    DRAWS              the draws that were kept (draw, wavelength, y, x)
    Z                  redshift of every draw

Arrays are (wavelength, y, x), north up and east left. WAVE-LOG axes are read as metres by some
libraries: HDU WAVE says it in Angstrom.

Axes: draw, wavelength, y, x, quantity, level.
"""

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from probmmae.galaxy import FWHM_PER_SIGMA
from probmmae.inference.cube import Cube
from probmmae.inference.growing import whole_file
from probmmae.spaxels import Grid
from probmmae.spectral_maps import QUANTITIES
from probmmae.synthetic import band_weights

FLUX_UNIT = "1E-17 erg/s/cm^2/Angstrom/spaxel"
NO_SPAXEL, DO_NOT_USE, EXTRAPOLATED = 1 << 0, 1 << 10, 1 << 20
"""Bits of MASK; the first two are MaNGA's NOCOV and DONOTUSE."""
_UNIFORM = 1e-6
"""Steps of a grid that differ by less than this share are equal."""


def write_cube(cube: Cube, path: str | Path) -> None:
    """Write a cube, whole or not at all.

    Raises:
        ValueError: Its spaxels lie on no grid, or its wavelengths are uniform neither in
            themselves nor in their logarithm.
        FileNotFoundError, IsADirectoryError: As `whole_file`.
    """
    grid = cube.spaxels.grid
    if grid is None:
        raise ValueError(
            "Expected spaxels on a grid (spaxels.hexagon, spaxels.square); got a list of "
            "apertures. Take their spectra with Posterior.spectrum."
        )
    sky = _sky(cube, grid)
    header = _spectral(cube.wavelength) + sky
    with whole_file(Path(path)) as partial:
        fits.PrimaryHDU(header=_primary(cube, grid)).writeto(partial)

        def add(name: str, data: np.ndarray, header: fits.Header, **said: Any) -> None:
            kept = header.copy()
            kept["EXTNAME"] = name
            kept.update(said)
            fits.append(partial, data, kept, verify=False)

        def pixels(values: np.ndarray) -> np.ndarray:
            return grid.image(values.T)

        about = {"HDUCLASS": "SDSS", "HDUCLAS1": "CUBE"}
        named = {"ERRDATA": "IVAR", "QUALDATA": "MASK"}
        add("FLUX", _filled(pixels(cube.mean)), header, BUNIT=FLUX_UNIT, HDUCLAS2="DATA",
            **about, **named)  # fmt: skip
        with np.errstate(divide="ignore"):
            ivar = np.where(cube.std > 0, cube.std**-2.0, 0.0).astype(np.float32)
        add("IVAR", _filled(pixels(ivar)), header, HDUCLAS2="ERROR", HDUCLAS3="INVMSE", **about)
        del ivar
        add("MASK", _mask(cube, grid), header, HDUCLAS2="QUALITY", MASKNAME="PROBMMAE_PIXMASK",
            NOCOV=0, DONOTUSE=10, EXTRAPOL=20, **about)  # fmt: skip
        add("WAVE", cube.wavelength, fits.Header(), BUNIT="Angstrom")
        power = cube.wavelength / (FWHM_PER_SIGMA * cube.sigma)
        add("SPECRES", power, fits.Header())
        widths = np.broadcast_to(cube.sigma[:, None, None], (len(cube.sigma), *grid.shape))
        add("LSFPOST", widths.astype(np.float32), header, BUNIT="Angstrom")
        for level, values in zip(cube.levels, cube.quantiles, strict=True):
            add(f"FLUX_Q{_percent(level)}", _filled(pixels(values)), header, BUNIT=FLUX_UNIT)
        for band in "griz":
            _add_band(add, cube, grid, band, sky)
        channels = _channels()
        for level in cube.levels:
            values = _quantile(cube.maps, level)
            add(f"MAPS_Q{_percent(level)}", grid.image(values), sky + channels)
        add("MAPS_DRAWS", grid.image(cube.maps), sky + channels)
        if len(cube.draws):
            whole = grid.image(np.moveaxis(cube.draws, 1, -1))
            add("DRAWS", whole, header, BUNIT=FLUX_UNIT)
        table = fits.BinTableHDU.from_columns([fits.Column("z", "D", array=cube.z)], name="Z")
        fits.append(partial, table.data, table.header)


def _percent(level: float) -> str:
    """0.05 is 05, 0.975 is 97P5."""
    return f"{100 * level:04.1f}".removesuffix(".0").replace(".", "P")


def _filled(values: np.ndarray) -> np.ndarray:
    """Zeros where there is nothing, as in MaNGA's cubes; MASK tells."""
    np.nan_to_num(values, copy=False)
    return values


def _quantile(maps: np.ndarray, level: float) -> np.ndarray:
    """Over the draws that have a value, shape (quantity, spaxel)."""
    flat = np.moveaxis(maps, 1, 0)
    found = np.isfinite(flat).any(0)
    out = np.full(flat.shape[1:], np.nan, np.float32)
    out[found] = np.nanquantile(flat[:, found], level, axis=0)
    return out


def _mask(cube: Cube, grid: Grid) -> np.ndarray:
    bits = np.where(np.isfinite(cube.mean), 0, DO_NOT_USE)
    bits |= np.where(cube.extrapolated, EXTRAPOLATED, 0)[:, None]
    full = np.full((len(cube.wavelength), grid.shape[0] * grid.shape[1]), NO_SPAXEL | DO_NOT_USE)
    full = full.astype(np.int32)
    full[:, grid.index] = bits.T
    return full.reshape(-1, *grid.shape)


def _add_band(add: Any, cube: Cube, grid: Grid, band: str, sky: fits.Header) -> None:
    """The image of a band and its point-spread function, where the grid holds the filter."""
    weights = band_weights(f"sdss2010-{band}", cube.wavelength)
    if weights is None:
        return
    used = weights > 0
    image = grid.image(cube.mean[:, used] @ weights[used].astype(np.float32))
    add(
        f"{band.upper()}IMG",
        _filled(image),
        sky,
        BUNIT="nanomaggies/pixel",
        FILTNAME=f"SDSS {band}",
    )
    y, x = np.indices(grid.shape)
    apart = (y - grid.shape[0] // 2) ** 2 + (x - grid.shape[1] // 2) ** 2
    sigma = grid.psf_fwhm / FWHM_PER_SIGMA / grid.side
    profile = np.exp(-0.5 * apart / sigma**2)
    add(f"{band.upper()}PSF", (profile / profile.sum()).astype(np.float32), sky)


def _primary(cube: Cube, grid: Grid) -> fits.Header:
    said = fits.Header()
    said["TELESCOP"] = ("none", "these are predictions")
    said["INSTRUME"] = ("probmmae", "what predicted them")
    said["OBJECT"] = cube.galaxy.id
    if cube.galaxy.ra is not None:
        said["OBJRA"], said["OBJDEC"] = cube.galaxy.ra.value, cube.galaxy.dec.value
    said["NDRAWS"] = (len(cube.z), "draws of the posterior")
    said["REDSHIFT"] = (float(np.median(cube.z)), "median of the draws")
    for band in "GRIZ":
        said[f"{band}FWHM"] = (grid.psf_fwhm, "FWHM of the point-spread function (arcsec)")
    said["COMMENT"] = "FLUX is the mean of noise-free draws, IVAR their spread: no noise of data."
    said["JOINT"] = (bool(cube.footprint and cube.footprint.joint), "seen two positions a galaxy")
    said["NEXTRAP"] = (int(cube.extrapolated.sum()), "spaxels marked as extrapolated")
    if cube.footprint is not None:
        said["APREACH"] = (cube.footprint.arcsec, "arcsec: training apertures lay within")
        if cube.footprint.radii is not None:
            said["APREACHR"] = (cube.footprint.radii, "the same in half-light radii")
        said["APNUM"] = (cube.footprint.positions, "training apertures a galaxy, at most")
    said["COMMENT"] = f"Positions: {cube.jointly}."
    said["COMMENT"] = f"Recalibration: {cube.repair}"
    said["COMMENT"] = "Errors of neighbours are shared: sum MAPS_DRAWS, not IVAR."
    return said


def _channels() -> fits.Header:
    said = fits.Header()
    for index, (name, unit) in enumerate(QUANTITIES.items(), start=1):
        said[f"C{index:02d}"] = (name, "quantity of this channel")
        said[f"U{index:02d}"] = (f"{unit}/spaxel" if "erg" in unit else unit, "its unit")
    return said


def _sky(cube: Cube, grid: Grid) -> fits.Header:
    known = cube.galaxy.ra is not None
    said = fits.Header()
    for axis, kind, length, sign in ((1, "RA---TAN", 1, -1), (2, "DEC--TAN", 0, 1)):
        said[f"CTYPE{axis}"] = kind
        said[f"CUNIT{axis}"] = "deg"
        said[f"CRPIX{axis}"] = float(grid.shape[length] // 2 + 1)
        said[f"CD{axis}_{axis}"] = sign * grid.side / 3600
    said["CRVAL1"] = cube.galaxy.ra.value if known else 0.0
    said["CRVAL2"] = cube.galaxy.dec.value if known else 0.0
    said["RADESYS"] = "ICRS"
    return said


def _spectral(wavelength: np.ndarray) -> fits.Header:
    """The third axis, linear or logarithmic."""
    step, ratio = np.diff(wavelength), np.diff(np.log(wavelength))
    said = fits.Header()
    if np.ptp(ratio) < _UNIFORM * ratio.mean():
        said["CTYPE3"], said["CD3_3"] = "WAVE-LOG", wavelength[0] * ratio.mean()
    elif np.ptp(step) < _UNIFORM * step.mean():
        said["CTYPE3"], said["CD3_3"] = "WAVE", step.mean()
    else:
        raise ValueError(
            "Expected wavelengths uniform in themselves or in their logarithm; got steps of "
            f"{step.min():.4g} to {step.max():.4g} Angstrom. Take such a grid for a FITS cube."
        )
    said["CRPIX3"], said["CRVAL3"], said["CUNIT3"] = 1.0, wavelength[0], "Angstrom"
    return said
