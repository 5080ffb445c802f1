"""Real galaxies as `Galaxy` objects: BOSS and SDSS spectra, DESI spectra, HST images.

From files of public surveys (a folder with one folder a set; absent from the repository) to
galaxies that `collate` takes. Only objects of class GALAXY whose pipeline warns of nothing are
read. Redshifts are the scalar `redshift`; SDSS fluxes, extinction-corrected, are photometry.

References:
    Ahumada et al. 2020 (SDSS Data Release 16), Newman et al. 2013 (DEEP2), Davis et al. 2007
    (AEGIS), DESI Collaboration 2024 (Early Data Release).
"""

import csv
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
from scipy.ndimage import gaussian_filter

from probmmae.bands import effective_wavelength
from probmmae.formats import read
from probmmae.formats.sdss import point_source_fraction
from probmmae.galaxy import (
    FWHM_PER_SIGMA,
    Aperture,
    BandImage,
    Galaxy,
    Photometry,
    Scalar,
    Spectrum,
)

REACH = (0.01, 0.65)
"""Redshifts that the simulator covers."""
SKY_LINES = ((5565.0, 5592.0), (5880.0, 5905.0), (6295.0, 6307.0), (6360.0, 6370.0))
"""Bright airglow, vacuum Angstrom, where sky subtraction leaves residuals beyond ivar."""
_BRIGHTSKY = 1 << 23
_BANDS = "ugriz"
_HST = (("hst-f606w", 26.486), ("hst-f814w", 25.937))
_HST_SCALE, _HST_PSF = 0.03, 0.10
_FLOOR = 0.015
"""Relative calibration error of catalogue fluxes, as in the simulator."""
_BIN = 5
"""HST pixels along a side of the 0.15 arcsec pixels that the model sees."""


def split_by_reach(galaxies: Sequence[Galaxy]) -> tuple[list[Galaxy], list[Galaxy]]:
    """Galaxies whose redshift the simulator covers, and the others."""
    inside, outside = [], []
    for galaxy in galaxies:
        z = galaxy.redshift
        if z is not None:
            (inside if REACH[0] < z < REACH[1] else outside).append(galaxy)
    return inside, outside


def boss(data: Path, *, fibre_flux: bool = True, dust: bool = False) -> list[Galaxy]:
    """BOSS spectra of the XXL-N field with the matched SDSS model fluxes.

    Args:
        data: Folder of the sets.
        fibre_flux: Scale from the total flux of a point source to what the 2 arcsec fibre caught
            of it in 1.5 arcsec seeing.
        dust: Correct the spectra for Galactic extinction, interpolated between the five bands.
    """
    galaxies = []
    aperture = Aperture.in_batch_units(diameter=2.0, seeing=1.5)
    fraction = point_source_fraction(aperture) if fibre_flux else 1.0
    with h5py.File(data / "boss_xxl_spectra" / "boss_xxl.h5") as file:
        wavelength = 10.0 ** file["loglam"][:]
        table = {name: file[f"cat/{name}"][:] for name in file["cat"]}
        kind = np.char.strip(table["class"].astype(str))
        for row in np.flatnonzero((kind == "GALAXY") & (table["zwarning"] == 0)):
            ivar = file["ivar"][row] * (~_bright(file["and_mask"][row]))
            width = file["wdisp"][row] * 1e-4 * np.log(10.0) * wavelength
            usual = np.median((width / wavelength)[width > 0])
            light = np.full_like(wavelength, fraction)
            if dust:
                bands = [effective_wavelength(f"sdss-{band}") for band in _BANDS]
                lost = np.interp(wavelength, bands, table["extinction"][row])
                light = light * 10 ** (0.4 * lost)
            spectrum = Spectrum.in_batch_units(
                wavelength,
                file["flux"][row] * light,
                ivar=ivar / light**2,
                sigma=np.where(width > 0, width, usual * wavelength),
                aperture=aperture,
                name="boss",
            )
            galaxies.append(
                Galaxy(
                    f"boss-{table['plate'][row]}-{table['mjd'][row]}-{table['fiberid'][row]}",
                    photometry=_photometry(table, int(row)),
                    spectra=(spectrum,),
                    scalars={"redshift": Scalar(table["z"][row], table["z_err"][row])},
                    labels={"subclass": table["subclass"][row].decode().strip()},
                )
            )
    return galaxies


def _bright(mask: np.ndarray) -> np.ndarray:
    """True in pixels that no exposure covers or where the sky was too bright in all of them."""
    return (mask == -1) | ((mask & _BRIGHTSKY) != 0)


def _photometry(table: dict[str, np.ndarray], row: int) -> tuple[Photometry, ...]:
    """Model fluxes without the Galaxy's dust, with the simulator's calibration floor."""
    bare = 10 ** (0.4 * table["extinction"][row])
    flux = table["modelflux"][row] * bare
    ivar = table["modelflux_ivar"][row] / bare**2
    variance = 1 / np.maximum(ivar, 1e-12) + (_FLOOR * flux) ** 2
    return tuple(
        Photometry.in_batch_units(f"sdss-{band}", flux[index], ivar=1 / variance[index])
        for index, band in enumerate(_BANDS)
        if ivar[index] > 0
    )


def sdss(data: Path, *, fibre_flux: bool = True) -> list[Galaxy]:
    """Galaxies among the `spec-*.fits` files, most of them bright and below z = 0.3."""
    folder = data / "sdss_spec_fits"
    galaxies = []
    with (folder / "index.csv").open() as rows:
        for row in csv.DictReader(rows):
            path = folder / f"{row['file']}.gz"
            if row["cls"] == "GALAXY" and row["zwarning"] == "0" and path.is_file():
                galaxies += read(path, format="sdss", fibre_flux=fibre_flux)
    return [replace(galaxy, photometry=()) for galaxy in galaxies]


def desi(data: Path) -> list[Galaxy]:
    """DESI spectra with ivar: the raw ones of the set, and those in fastspecfit's tests.

    The raw ones come without resolution or fibre flux: R is DESI's typical one, and their level is
    that of a point source (the scale of a spectrum that is conditioned on itself cancels).
    """
    galaxies = []
    aperture = Aperture.in_batch_units(diameter=1.5, seeing=1.1)
    for path in sorted((data / "desi_edr_spectra").glob("heldout_*.npz")):
        with np.load(path) as stored:
            wavelength = stored["wavelength"].astype(float)
            spectrum = Spectrum.in_batch_units(
                wavelength,
                stored["flux"],
                ivar=np.where(stored["mask"], 0.0, stored["ivar"]),
                sigma=np.full_like(wavelength, 1.7 / FWHM_PER_SIGMA),
                aperture=aperture,
                name="desi",
            )
            z = Scalar(stored["z_true"], 0.0)
        galaxies.append(Galaxy(path.stem, spectra=(spectrum,), scalars={"redshift": z}))
    package = find_spec("fastspecfit")
    for folder in (package.submodule_search_locations or []) if package else []:
        for path in sorted((Path(folder) / "test" / "data").glob("coadd-*.fits")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = read(path, format="desi")
            galaxies += [g for g in found if g.labels.get("class", "GALAXY") == "GALAXY"]
    return galaxies


def triples(data: Path, *, psf_fwhm: float = _HST_PSF) -> list[Galaxy]:
    """HST F606W and F814W images of DEEP2 galaxies, 6 arcsec wide.

    Drizzling correlates the noise of neighbouring pixels, so the noise is that of the corners of
    the image after binning to 0.15 arcsec, and the native ivar is what gives it back when binned.

    Args:
        data: Folder of the sets.
        psf_fwhm: Blur the images to this seeing, arcsec; the default leaves them as they are.
    """
    galaxies = []
    blur = max(psf_fwhm**2 - _HST_PSF**2, 0.0) ** 0.5 / FWHM_PER_SIGMA / _HST_SCALE
    with h5py.File(data / "deep2_hst_triples" / "deep2_hst.h5") as file:
        redshifts, names = file["cat/z"][:], file["cat/objno"][:]
        for row, pixels in enumerate(file["images"][:].astype(float)):
            images = []
            for (band, zero), counts in zip(_HST, pixels, strict=True):
                flux = counts * 10 ** (-0.4 * (zero - 22.5))
                flux = gaussian_filter(flux, blur) if blur > 0 else flux
                sky, noise = corner_noise(flux, counts != 0)
                images.append(
                    BandImage.in_batch_units(
                        band,
                        flux - sky,
                        ivar=np.where(counts != 0, _BIN**2 / noise**2, 0.0),
                        pixel_scale=_HST_SCALE,
                        psf_fwhm=max(psf_fwhm, _HST_PSF),
                    )
                )
            galaxies.append(
                Galaxy(
                    names[row].decode(),
                    images=images,
                    scalars={"redshift": Scalar(redshifts[row], 2e-4)},
                )
            )
    return galaxies


def corner_noise(flux: np.ndarray, seen: np.ndarray) -> tuple[float, float]:
    """Sky of a native pixel, and noise of a binned one, from the faintest of the four corners.

    Args:
        flux: The image, shape (y, x).
        seen: False where the detector ends (the archive writes exact zeros there).
    """
    side = flux.shape[0] // _BIN // 4
    whole = slice(None, side * 4 * _BIN)
    blocks = (side * 4, _BIN, side * 4, _BIN)
    binned = flux[whole, whole].reshape(blocks).sum(axis=(1, 3))
    good = seen[whole, whole].reshape(blocks).all(axis=(1, 3))
    ends = (slice(0, side), slice(-side, None))
    corners = [binned[y, x] for y in ends for x in ends if good[y, x].all()]
    faintest = min(corners, key=lambda corner: float(np.median(corner)))
    sky = float(np.median(faintest))
    return sky / _BIN**2, 1.4826 * float(np.median(np.abs(faintest - sky)))
