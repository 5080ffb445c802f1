"""GalaxiesML-Spectra: one HDF5 file of HSC images with DESI spectra and redshifts.

Layout: `image` (galaxy, 5, 64, 64) in g, r, i, z, y of HSC (27 mag zero point, no noise map: it is
estimated from each frame's edge); `spectrum/{flux,ivar,wave}`, where row 0 of `wave` is the grid
of all; `DESI_fibermap/*` with DESI_redshift and MORPHTYPE; `HSC_metadata/*`; `object_id`;
`targetid`.
The file is read in slices, so that its size does not matter.

References:
    GalaxiesML-Spectra, https://doi.org/10.5281/zenodo.16989593
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy import units as u

from probmmae.formats.frames import edge_noise
from probmmae.formats.opening import shortened
from probmmae.galaxy import (
    Aperture,
    BandImage,
    Galaxy,
    Photometry,
    Scalar,
    Spectrum,
)
from probmmae.measurements import FWHM_PER_SIGMA

DESCRIPTION = "GalaxiesML-Spectra (HDF5 with image and spectrum/flux)"

_BANDS = "grizy"
_PIXEL_SCALE = 0.168
#: Median seeing of HSC's wide survey in g, r, i, z, y, arcsec (Aihara et al. 2019, table 2).
_PSF_FWHM = (0.77, 0.76, 0.58, 0.68, 0.68)
_ZERO_POINT = 27.0
#: DESI's resolution at 3600 and 9800 Angstrom; between them it is taken as linear.
_RESOLUTION = ((3600.0, 9800.0), (2000.0, 5500.0))
#: Typical PSF_TO_FIBER_SPECFLUX, for files that leave it out.
_FIBRE_FRACTION = 0.79
_POINT_SOURCE = "PSF"


def recognise(path: Path) -> bool:
    """Whether this is an HDF5 file with `image` and `spectrum/flux`."""
    if not h5py.is_hdf5(path):
        return False
    with _opened(path) as file:
        return "image" in file and "spectrum/flux" in file


def read(
    path: Path,
    *,
    negative_redshifts: bool = False,
    point_sources: bool = False,
    fibre_flux: bool = True,
    chunk: int = 64,
) -> Iterator[Galaxy]:
    """The galaxies of the file, one at a time.

    Args:
        path: the file.
        negative_redshifts: keep objects with z < 0 (stars).
        point_sources: keep objects of morphological type PSF (stars, quasars).
        fibre_flux: scale spectra from the total flux of a point source to what the fibre caught.
        chunk: rows read at once.

    Yields:
        Galaxies with five images, one spectrum, cmodel photometry with errors, redshift.

    Raises:
        ValueError: a damaged file or a missing dataset.
    """
    warnings.warn(
        f"{path.name}: image noise is estimated from the edge of each frame, and the PSF is the "
        "median of the survey.",
        stacklevel=2,
    )
    with _opened(path) as file:
        images = _dataset(file, "image")
        if images.ndim != 4 or images.shape[1] != len(_BANDS):
            raise ValueError(
                f"Expected image of shape (galaxy, {len(_BANDS)}, y, x) in {path}; got "
                f"{images.shape}. Check the kind of file."
            )
        wave = _dataset(file, "spectrum/wave")
        grid = np.asarray(wave[0] if wave.ndim == 2 else wave[:], np.float64)
        for start in range(0, len(images), chunk):
            rows = slice(start, min(start + chunk, len(images)))
            block = {
                "image": images[rows],
                "flux": _dataset(file, "spectrum/flux")[rows],
                "ivar": _dataset(file, "spectrum/ivar")[rows],
                "z": _dataset(file, "DESI_fibermap/DESI_redshift")[rows],
                **_metadata(file, rows),
            }
            for row in range(rows.stop - rows.start):
                one = {name: values[row] for name, values in block.items()}
                kind = _text(one.get("DESI_fibermap/MORPHTYPE", ""))
                if (kind == _POINT_SOURCE and not point_sources) or (
                    one["z"] < 0 and not negative_redshifts
                ):
                    continue
                yield _galaxy(one, grid, start + row, fibre_flux=fibre_flux, kind=kind)


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"Expected a whole HDF5 file; got {path}, which is damaged or cut off ({error}). "
            "Fetch it anew."
        ) from error


def _dataset(file: h5py.File, name: str) -> Any:
    if name not in file:
        raise ValueError(
            f"Expected the dataset {name} in {file.filename}; got {shortened(sorted(file))}. "
            "Check the kind of file."
        )
    return file[name]


def _metadata(file: h5py.File, rows: slice) -> dict[str, Any]:
    """What the file may or may not carry."""
    names = ["object_id", "targetid"]
    names += [
        f"HSC_metadata/{band}_cmodel_{what}" for band in _BANDS for what in ("mag", "magerr")
    ]
    names += [f"HSC_metadata/{name}" for name in ("ra", "dec")]
    names += [
        f"DESI_fibermap/{name}"
        for name in ("MORPHTYPE", "TARGET_RA", "TARGET_DEC", "MEAN_PSF_TO_FIBER_SPECFLUX", "ZWARN")
    ]
    return {name: file[name][rows] for name in names if name in file}


def _text(value: Any) -> str:
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()


def _galaxy(
    one: dict[str, Any], grid: np.ndarray, row: int, *, fibre_flux: bool, kind: str
) -> Galaxy:
    identity = _text(one.get("targetid", "")) or _text(one.get("object_id", "")) or f"row-{row}"
    ra = one.get("DESI_fibermap/TARGET_RA", one.get("HSC_metadata/ra"))
    dec = one.get("DESI_fibermap/TARGET_DEC", one.get("HSC_metadata/dec"))
    scalars = {}
    if np.isfinite(one["z"]) and int(one.get("DESI_fibermap/ZWARN", 0)) == 0:
        scalars["redshift"] = Scalar(float(one["z"]))
    return Galaxy(
        identity,
        ra=None if ra is None or dec is None else float(ra) * u.deg,
        dec=None if ra is None or dec is None else float(dec) * u.deg,
        images=tuple(_images(one["image"])),
        photometry=tuple(_photometry(one)),
        spectra=tuple(_spectra(one, grid, fibre_flux=fibre_flux)),
        scalars=scalars,
        labels={"morphology": kind} if kind else {},
    )


def _images(stack: np.ndarray) -> Iterator[BandImage]:
    nanomaggies = 10.0 ** (-0.4 * (_ZERO_POINT - 22.5))
    for letter, plane, fwhm in zip(_BANDS, stack, _PSF_FWHM, strict=True):
        # North is up and east is left, as in every HSC cutout.
        flux = np.asarray(plane, np.float64)[:, ::-1] * nanomaggies
        sigma = edge_noise(flux)
        if sigma > 0:
            yield BandImage.in_batch_units(
                f"hsc-{letter}",
                flux,
                ivar=np.where(np.isfinite(flux), sigma**-2, 0.0),
                pixel_scale=_PIXEL_SCALE,
                psf_fwhm=fwhm,
            )


def _photometry(one: dict[str, Any]) -> Iterator[Photometry]:
    """Total magnitudes of the HSC catalogue, where they come with an error."""
    for letter in _BANDS:
        magnitude = one.get(f"HSC_metadata/{letter}_cmodel_mag", np.nan)
        error = one.get(f"HSC_metadata/{letter}_cmodel_magerr", np.nan)
        if np.isfinite(magnitude) and np.isfinite(error) and error > 0:
            flux = 10.0 ** (-0.4 * (float(magnitude) - 22.5))
            sigma = flux * 0.4 * np.log(10.0) * float(error)
            yield Photometry.in_batch_units(f"hsc-{letter}", flux, ivar=sigma**-2)


def _spectra(one: dict[str, Any], grid: np.ndarray, *, fibre_flux: bool) -> Iterator[Spectrum]:
    """The spectrum on the part of the grid that is a grid; nothing where ivar is 0 throughout."""
    keep = np.isfinite(grid) & (grid > 0)
    keep &= np.concatenate([[True], np.diff(np.maximum.accumulate(np.where(keep, grid, 0))) > 0])
    flux = np.asarray(one["flux"], np.float64)[keep]
    ivar = np.asarray(one["ivar"], np.float64)[keep]
    if not np.any(np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0)):
        return
    fraction = float(one.get("DESI_fibermap/MEAN_PSF_TO_FIBER_SPECFLUX", _FIBRE_FRACTION))
    if not 0.0 < fraction < 1.0:
        fraction = _FIBRE_FRACTION
    factor = fraction if fibre_flux else 1.0
    wavelength = grid[keep]
    resolution = np.interp(wavelength, *_RESOLUTION)
    yield Spectrum.in_batch_units(
        wavelength,
        flux * factor,
        ivar=np.where(ivar > 0, ivar, 0.0) / factor**2,
        sigma=wavelength / resolution / FWHM_PER_SIGMA,
        aperture=Aperture.in_batch_units(diameter=1.5, seeing=1.0),
        name="desi-brz",
    )
