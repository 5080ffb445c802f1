"""Galaxies to tensors: one grid per galaxy, flux and noise conserved, padding is missing."""

import numpy as np
import pytest
import torch
from astropy import units as u

from probmmae.collate import binned, collate, common_grid
from probmmae.galaxy import Aperture, BandImage, Galaxy, Photometry, Scalar, Spectrum


def image(band="hsc-g", *, shape=(60, 50), scale=0.168, centre=(0.0, 0.0), flux=None, ivar=None):
    flux = np.ones(shape) if flux is None else flux
    return BandImage.in_batch_units(
        band,
        flux,
        ivar=np.full(np.shape(flux), 4.0) if ivar is None else ivar,
        pixel_scale=scale,
        psf_fwhm=0.7,
        centre=centre,
    )


def spot(band, *, shape, scale, centre, at):
    """An image with all its light in the pixel that holds the sky position `at`."""
    flux = np.zeros(shape)
    x = int(np.floor((at[0] - centre[0]) / scale + shape[1] / 2))
    y = int(np.floor((at[1] - centre[1]) / scale + shape[0] / 2))
    flux[y, x] = 1.0
    return image(band, scale=scale, centre=centre, flux=flux)


def light(images, band):
    """Sky position of the light in a band of a batch of one, arcsec."""
    flux = images.flux[0, band].double()
    offset = (torch.arange(flux.shape[0]) - (flux.shape[0] - 1) / 2) * images.pixel_scale[0]
    where = torch.stack([(flux.sum(0) * offset).sum(), (flux.sum(1) * offset).sum()])
    return where / flux.sum() + images.centre[0]


def everything():
    wave = np.linspace(4000, 5000, 7)
    return Galaxy(
        "whole",
        images=(image("hsc-g"), image("hsc-i")),
        photometry=(Photometry("sdss-r", 2 * u.nmgy, ivar=4 * u.nmgy**-2),),
        spectra=(
            Spectrum.in_batch_units(wave, wave * 0 + 1, ivar=wave * 0 + 1, sigma=1.0),
            Spectrum.in_batch_units(
                wave[:4],
                wave[:4] * 0 + 2,
                ivar=wave[:4] * 0 + 1,
                sigma=2.0,
                aperture=Aperture.in_batch_units(1, -1, diameter=2, seeing=1.2),
            ),
        ),
        scalars={"redshift": Scalar(0.3)},
    )


def test_padding_is_missing_and_ordinary():
    batch = collate([everything(), Galaxy("empty")])
    assert len(batch) == 2
    assert batch.images.flux.shape == (2, 2, 48, 48)
    assert batch.photometry.flux.shape == (2, 1)
    assert batch.spectra.flux.shape == (2, 2, 7)
    assert batch.z.tolist() == [pytest.approx(0.3), 0.0]
    assert batch.z_known.tolist() == [True, False]
    for table in [batch.images, batch.photometry, batch.spectra]:
        assert table.flux.dtype == torch.float32
        assert torch.all(table.flux[table.ivar == 0] == 0)
        assert torch.all(table.ivar[1] == 0)
        assert torch.all(table.wavelength > 0)
    assert torch.all(batch.spectra.sigma > 0)
    assert torch.all(batch.images.psf_fwhm > 0)
    assert torch.all(batch.images.pixel_scale > 0)
    # The shorter spectrum repeats its last wavelength.
    assert torch.all(batch.spectra.wavelength[0, 1, 3:] == batch.spectra.wavelength[0, 1, 3])
    assert torch.all(batch.spectra.ivar[0, 1, 4:] == 0)
    assert batch.spectra.aperture[0, 1].tolist() == pytest.approx([1, -1, 2, 1.2])


def test_binning_sums_flux_and_variance():
    flux = np.arange(36.0).reshape(6, 6)
    ivar = 1.0 + np.arange(36.0).reshape(6, 6)
    total, weight = binned(flux, ivar, 3)
    assert total[0, 1] == flux[:3, 3:].sum()
    assert weight[1, 0] == pytest.approx(1.0 / (1.0 / ivar[3:, :3]).sum())


def test_binning_over_a_missing_pixel_is_missing():
    ivar = np.ones((4, 4))
    ivar[0, 3] = 0.0
    total, weight = binned(np.ones((4, 4)), ivar, 2)
    assert weight.tolist() == [[0.25, 0.0], [0.25, 0.25]]
    assert total.tolist() == [[4.0, 0.0], [4.0, 4.0]]


def test_binned_noise_is_what_its_ivar_says():
    """Standardised sums of 40,000 pixels: chi2 within 5 sigma of its mean (chance 6e-7)."""
    rng = np.random.default_rng(1)
    ivar = rng.uniform(0.5, 4.0, (400, 400))
    total, weight = binned(rng.standard_normal((400, 400)) / np.sqrt(ivar), ivar, 2)
    n = total.size
    assert abs((total**2 * weight).sum() - n) < 5.0 * np.sqrt(2.0 * n)


@pytest.mark.parametrize(
    ("scales", "expected", "factors"),
    [
        ([0.168, 0.168], 0.168, [1, 1]),
        ([0.03, 0.03], 0.15, [5, 5]),
        ([0.262], 0.262, [1]),
        ([0.03, 0.15], 0.15, [5, 1]),
        ([0.2, 0.396], 0.396, [2, 1]),
        ([0.2, 0.3], 0.6, [3, 2]),
        ([0.168, 0.168, 0.396], 0.168, [1, 1, None]),
        ([0.1, 0.04], 0.2, [2, 5]),
    ],
)
def test_common_grid(scales, expected, factors):
    scale, found = common_grid(scales, image_size=48, min_pixel_scale=0.15)
    assert scale == pytest.approx(expected)
    assert found == factors


def test_bands_that_cannot_share_a_grid_are_named():
    images = (image("hsc-g"), image("hsc-r"), image("sdss-r", scale=0.396))
    with pytest.warns(UserWarning, match=r"galaxy 'a' in sdss-r cannot be binned .* left out"):
        batch = collate([Galaxy("a", images=images)])
    assert (batch.images.ivar[0] > 0).any(dim=(1, 2)).tolist() == [True, True, False]


@pytest.mark.parametrize("centre", [(0.0, 0.0), (3.0, -2.0), (-1.03, 0.71)])
@pytest.mark.parametrize("shape", [(61, 80), (120, 47), (20, 20)])
def test_light_stays_where_it_is_on_the_sky(centre, shape):
    at = (centre[0] + 0.8, centre[1] - 0.5)
    galaxy = Galaxy("a", images=(spot("hsc-g", shape=shape, scale=0.2, centre=centre, at=at),))
    images = collate([galaxy]).images
    assert images.flux.sum() == 1.0
    assert torch.allclose(light(images, 0), torch.tensor(at).double(), atol=0.11)
    # The frame is centred on the galaxy, to half a pixel.
    assert images.centre.abs().max() <= 0.1 + 1e-6


def test_bands_of_different_pixels_agree_on_the_sky():
    at = (1.0, -1.3)
    bands = (
        spot("hst-f606w", shape=(301, 300), scale=0.03, centre=(0.02, 0.4), at=at),
        spot("hst-f814w", shape=(200, 211), scale=0.06, centre=(-0.3, 0.0), at=at),
    )
    images = collate([Galaxy("a", images=bands)]).images
    assert images.pixel_scale.item() == pytest.approx(0.18)
    for band in range(2):
        assert images.flux[0, band].sum() == 1.0
        assert torch.allclose(light(images, band), torch.tensor(at).double(), atol=0.13)


def test_frame_larger_than_the_image_is_missing_outside():
    images = collate([Galaxy("a", images=(image(shape=(10, 20)),))]).images
    assert (images.ivar > 0).sum() == 200
    assert images.flux.sum() == 200


def test_frame_elsewhere_on_the_sky_is_all_missing():
    images = collate([Galaxy("a", images=(image(centre=(100.0, 0.0)),))]).images
    assert torch.all(images.ivar == 0)


@pytest.mark.parametrize("arguments", [{"image_size": 0}, {"min_pixel_scale": 0.0}])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match="Expected at least one galaxy, image_size >= 1"):
        collate([everything()], **arguments)
    with pytest.raises(ValueError, match="got 0,"):
        collate([])
