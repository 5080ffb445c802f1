"""From `Galaxy` objects to one padded `Batch`.

Images of a galaxy are brought to one pixel grid: pixels finer than `min_pixel_scale` are summed by
an integer factor, then every band is cut or padded (ivar = 0) to `image_size` around the galaxy.
Bands that no integer factors bring together, to within a pixel over the frame, cannot share a
grid: the largest group that can is kept and a warning says so.

Axes: galaxy, band, y, x, spectrum, pixel.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from probmmae.batch import Batch, Images, PhotometryTable, Spectra
from probmmae.galaxy import BandImage, Galaxy

#: What stands in the coordinates of padding, where ivar is 0: any ordinary value.
_PADDING_WAVELENGTH = 6000.0
_PADDING_PSF_FWHM = 1.0
_PADDING_PIXEL_SCALE = 0.25
_PADDING_APERTURE = (0.0, 0.0, 1.5, 1.0)


def collate(
    galaxies: Sequence[Galaxy], *, image_size: int = 48, min_pixel_scale: float = 0.15
) -> Batch:
    """The galaxies side by side.

    Args:
        galaxies: at least one.
        image_size: pixels along each side of the batch's images.
        min_pixel_scale: arcsec; finer pixels are summed up to at least this.

    Returns:
        A batch of float32 tensors with every axis of length at least 1.

    Raises:
        ValueError: no galaxies, or a size or a scale that is not positive.
    """
    if len(galaxies) == 0 or image_size < 1 or min_pixel_scale <= 0:
        raise ValueError(
            f"Expected at least one galaxy, image_size >= 1 pixel and min_pixel_scale > 0 arcsec; "
            f"got {len(galaxies)}, {image_size} and {min_pixel_scale}. Correct the arguments."
        )
    z = [galaxy.redshift for galaxy in galaxies]
    return Batch(
        images=_collate_images(galaxies, image_size, min_pixel_scale),
        photometry=_collate_photometry(galaxies),
        spectra=_collate_spectra(galaxies),
        z=torch.tensor([0.0 if value is None else value for value in z]),
        z_known=torch.tensor([value is not None for value in z]),
    )


def binned(flux: np.ndarray, ivar: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums over factor x factor pixels, and the inverse variance of the sums.

    A sum over a missing pixel is missing; rows and columns beyond the last block are dropped.
    """
    if factor == 1:
        return flux, ivar
    height, width = (length // factor * factor for length in flux.shape)
    blocks = (height // factor, factor, width // factor, factor)
    good = (ivar > 0)[:height, :width].reshape(blocks).all(axis=(1, 3))
    with np.errstate(divide="ignore"):
        variance = (
            (1.0 / ivar.astype(np.float64))[:height, :width].reshape(blocks).sum(axis=(1, 3))
        )
    total = flux.astype(np.float64)[:height, :width].reshape(blocks).sum(axis=(1, 3))
    return np.where(good, total, 0.0), np.where(good, 1.0 / variance, 0.0)


def common_grid(
    scales: Sequence[float], *, image_size: int, min_pixel_scale: float
) -> tuple[float, list[int | None]]:
    """The finest common pixel scale, and the factor by which each band is binned to it.

    Two scales agree when they drift apart by less than half a pixel from the middle of a frame to
    its edge. A grid twice as coarse as needed is the limit of what is given up for one more band;
    the factor of a band left out is None.

    Returns:
        (scale in arcsec, one factor or None a band).
    """
    tolerance = 1.0 / image_size
    best: tuple[int, float, list[int | None]] = (0, 0.0, [])
    for reference in sorted(set(scales), reverse=True):
        smallest = max(1, int(np.ceil(min_pixel_scale / reference * (1.0 - tolerance))))
        for multiple in range(smallest, smallest + 2):
            target = reference * multiple
            factors: list[int | None] = []
            for scale in scales:
                factor = max(1, round(target / scale))
                factors.append(factor if abs(factor * scale / target - 1.0) < tolerance else None)
            count = sum(factor is not None for factor in factors)
            finer = count == best[0] and target < best[1]
            if count > best[0] or finer:
                best = (count, target, factors)
    return best[1], best[2]


def _window(
    image: BandImage, factor: int, size: int, middle: tuple[float, float]
) -> tuple[Any, Any, tuple[float, float]]:
    """Cut `size` binned pixels a side around the sky position `middle`, in whole native pixels.

    Returns:
        (flux, ivar, sky position of the middle of what was cut).
    """
    length = size * factor
    flux = np.zeros((length, length), np.float32)
    ivar = np.zeros((length, length), np.float32)
    inside: list[slice] = []
    outside: list[slice] = []
    reached: list[float] = []
    for axis, wanted in [(0, middle[1]), (1, middle[0])]:
        native = image.flux.shape[axis]
        offset = image.centre[1 - axis]
        start = round(native / 2 + (wanted - offset) / image.pixel_scale - length / 2)
        reached.append(offset + (start + length / 2 - native / 2) * image.pixel_scale)
        low, high = max(start, 0), max(min(start + length, native), max(start, 0))
        outside.append(slice(low, high))
        inside.append(slice(low - start, high - start))
    flux[tuple(inside)] = image.flux[tuple(outside)]
    ivar[tuple(inside)] = image.ivar[tuple(outside)]
    return *binned(flux, ivar, factor), (reached[1], reached[0])


def _collate_images(galaxies: Sequence[Galaxy], size: int, min_pixel_scale: float) -> Images:
    n_band = max([1, *(len(galaxy.images) for galaxy in galaxies)])
    shape = (len(galaxies), n_band)
    flux = np.zeros((*shape, size, size), np.float32)
    ivar = np.zeros((*shape, size, size), np.float32)
    wavelength = np.full(shape, _PADDING_WAVELENGTH, np.float32)
    psf_fwhm = np.full(shape, _PADDING_PSF_FWHM, np.float32)
    pixel_scale = np.full(len(galaxies), _PADDING_PIXEL_SCALE, np.float32)
    centre = np.zeros((len(galaxies), 2), np.float32)
    for row, galaxy in enumerate(galaxies):
        if not galaxy.images:
            continue
        scale, factors = common_grid(
            [image.pixel_scale for image in galaxy.images],
            image_size=size,
            min_pixel_scale=min_pixel_scale,
        )
        pairs = list(zip(galaxy.images, factors, strict=True))
        kept = [(image, factor) for image, factor in pairs if factor is not None]
        left_out = [image.band for image, factor in pairs if factor is None]
        if left_out:
            warnings.warn(
                f"Images of galaxy {galaxy.id!r} in {', '.join(left_out)} cannot be binned to the "
                f"{scale:.3g} arcsec pixels of the others and are left out.",
                stacklevel=3,
            )
        # The coarsest native pixels decide where the frame ends up; finer ones can follow.
        coarsest, factor = max(kept, key=lambda pair: pair[0].pixel_scale)
        *_, middle = _window(coarsest, factor, size, (0.0, 0.0))
        pixel_scale[row], centre[row] = scale, middle
        for band, (image, factor) in enumerate(kept):
            flux[row, band], ivar[row, band], _ = _window(image, factor, size, middle)
            wavelength[row, band], psf_fwhm[row, band] = image.wavelength, image.psf_fwhm
    return Images(
        flux=torch.from_numpy(flux),
        ivar=torch.from_numpy(ivar),
        wavelength=torch.from_numpy(wavelength),
        psf_fwhm=torch.from_numpy(psf_fwhm),
        pixel_scale=torch.from_numpy(pixel_scale),
        centre=torch.from_numpy(centre),
    )


def _collate_photometry(galaxies: Sequence[Galaxy]) -> PhotometryTable:
    n_band = max([1, *(len(galaxy.photometry) for galaxy in galaxies)])
    shape = (len(galaxies), n_band)
    flux, ivar = torch.zeros(shape), torch.zeros(shape)
    wavelength = torch.full(shape, _PADDING_WAVELENGTH)
    for row, galaxy in enumerate(galaxies):
        for band, measured in enumerate(galaxy.photometry):
            flux[row, band], ivar[row, band] = measured.flux, measured.ivar
            wavelength[row, band] = measured.wavelength
    return PhotometryTable(flux=flux, ivar=ivar, wavelength=wavelength)


def _collate_spectra(galaxies: Sequence[Galaxy]) -> Spectra:
    every = [spectrum for galaxy in galaxies for spectrum in galaxy.spectra]
    n_pixel = max([1, *(spectrum.flux.size for spectrum in every)])
    shape = (len(galaxies), max([1, *(len(galaxy.spectra) for galaxy in galaxies)]))
    wavelength = np.full((*shape, n_pixel), _PADDING_WAVELENGTH, np.float32)
    sigma = np.full((*shape, n_pixel), 1.0, np.float32)
    flux = np.zeros((*shape, n_pixel), np.float32)
    ivar = np.zeros((*shape, n_pixel), np.float32)
    aperture = np.broadcast_to(np.array(_PADDING_APERTURE, np.float32), (*shape, 4)).copy()
    for row, galaxy in enumerate(galaxies):
        for index, spectrum in enumerate(galaxy.spectra):
            n = spectrum.flux.size
            cell = (row, index)
            wavelength[cell][:n] = spectrum.wavelength
            wavelength[cell][n:] = spectrum.wavelength[-1]
            sigma[cell][:n] = spectrum.sigma
            sigma[cell][n:] = spectrum.sigma[-1]
            flux[cell][:n] = spectrum.flux
            ivar[cell][:n] = spectrum.ivar
            place = spectrum.aperture
            aperture[cell] = (place.dx, place.dy, place.diameter, place.seeing)
    return Spectra(
        wavelength=torch.from_numpy(wavelength),
        flux=torch.from_numpy(flux),
        ivar=torch.from_numpy(ivar),
        sigma=torch.from_numpy(sigma),
        aperture=torch.from_numpy(aperture),
    )
