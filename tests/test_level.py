"""Levels measured on images: exact for sources whose light through a fibre is known."""

import math

import pytest
import torch

from probmmae.batch import NANOMAGGIE_FLAMBDA, Images
from probmmae.decoders import to_physical
from probmmae.level import LEVEL, MeasuredLevel, flux_through, level_of_images
from probmmae.masking import hide
from probmmae.simulator import simulate
from probmmae.templates import load_templates
from probmmae.tokens import SPECTRAL_UNIT, galaxy_scale

SIDE, PIXEL = 48, 0.25
BANDS = torch.tensor([[4800.0, 6200.0, 7700.0, 9000.0]])


def gaussian_source(own=0.8, psf_fwhm=(0.7, 0.9, 0.6, 0.8), flux=(3.0, 4.0, 5.0, 6.0)):
    """A round Gaussian of width `own` (arcsec), in four bands of different seeing."""
    place = (torch.arange(SIDE) - (SIDE - 1) / 2) * PIXEL
    square = place[:, None] ** 2 + place[None] ** 2
    frames = []
    for fwhm, total in zip(psf_fwhm, flux, strict=True):
        variance = own**2 + (fwhm / 2.3548) ** 2
        frames.append(
            total * PIXEL**2 * torch.exp(-0.5 * square / variance) / (2 * math.pi * variance)
        )
    pixels = torch.stack(frames)[None]
    return Images(
        flux=pixels,
        ivar=torch.full_like(pixels, 1e6),
        wavelength=BANDS,
        psf_fwhm=torch.tensor([psf_fwhm]),
        pixel_scale=torch.tensor([PIXEL]),
        centre=torch.zeros(1, 2),
    )


@pytest.mark.parametrize("diameter", [1.0, 1.5, 2.0, 3.0])
def test_flux_through_a_fibre_at_its_own_seeing(diameter):
    seeing, own = 1.4, 0.8
    images = gaussian_source(own)
    flux, error = flux_through(images, torch.tensor([[[0.0, 0.0, diameter, seeing]]]))
    variance = own**2 + (seeing / 2.3548) ** 2
    share = 1 - math.exp(-0.125 * diameter**2 / variance)
    expected = share * torch.tensor([3.0, 4.0, 5.0, 6.0])
    assert torch.allclose(flux[0, 0], expected, rtol=0.02)
    # Smoothed by the seeing's window the noise is less than that of the pixels it covers.
    pixels = 0.25 * math.pi * (diameter / PIXEL) ** 2
    assert (error > 0).all()
    assert (error < 1e-3 * pixels**0.5).all()


def test_flux_off_centre():
    seeing, own, away = 1.4, 0.8, 1.2
    flux, _ = flux_through(gaussian_source(own), torch.tensor([[[0.0, away, 1.5, seeing]]]))
    variance = own**2 + (seeing / 2.3548) ** 2
    fine = (torch.arange(-150, 151) / 200) * 1.5
    x, y = fine[:, None], fine[None]
    inside = x**2 + y**2 < 0.75**2
    light = torch.exp(-0.5 * (x**2 + (y + away) ** 2) / variance) / (2 * math.pi * variance)
    expected = float((light * inside).sum()) * (1.5 / 200) ** 2
    assert torch.allclose(flux[0, 0] / torch.tensor([3.0, 4.0, 5.0, 6.0]) / expected,
                          torch.ones(4), rtol=0.02)  # fmt: skip


def test_hidden_pixels_are_neither_read_nor_counted():
    images = gaussian_source()
    aperture = torch.tensor([[[0.0, 0.0, 1.5, 1.2], [4.0, 4.0, 1.5, 1.2]]])
    whole, _ = flux_through(images, aperture)
    ivar = images.ivar.clone()
    ivar[:, 0, :, : SIDE // 2] = 0
    ivar[:, 1] = 0
    ivar[:, 2, :, SIDE // 2 :] = 0
    spoilt = Images(
        torch.where(ivar > 0, images.flux, torch.full((), 99.0)),
        ivar, images.wavelength, images.psf_fwhm, images.pixel_scale, images.centre,
    )  # fmt: skip
    flux, error = flux_through(spoilt, aperture)
    assert torch.isinf(error[0, :, 1]).all()
    assert torch.isinf(error[0, 1, 2])
    assert torch.allclose(flux[0, 0, 0], whole[0, 0, 0], rtol=0.01)  # half of a round source
    dark = Images(
        images.flux, torch.zeros_like(ivar), images.wavelength, images.psf_fwhm,
        images.pixel_scale, images.centre,
    )  # fmt: skip
    level = level_of_images(dark, aperture, torch.tensor([[0.1]]), torch.ones(1))
    assert torch.isinf(level.error).all()
    assert torch.isfinite(level.mean).all()


@pytest.mark.parametrize("z", [0.02, 0.2, 0.5])
def test_level_of_flat_light_is_exact(z):
    density = 2.0 * SPECTRAL_UNIT  # 1e-17 erg/s/cm2/Angstrom, the same at every wavelength
    images = gaussian_source(0.3, flux=tuple(density * BANDS[0] ** 2 / NANOMAGGIE_FLAMBDA))
    aperture = torch.tensor([[[0.0, 0.0, 6.0, 1.0]]])  # all of the light
    level = level_of_images(images, aperture, torch.tensor([[z]]), torch.full((1,), 4.0))
    expected = math.log(2.0 / 4.0) + LEVEL
    assert float(level.mean[0, 0, 0]) == pytest.approx(expected, abs=0.01)


def test_levels_of_simulated_galaxies():
    """Without a network: the scatter around the truth is below 10 % on the centre."""
    batch, truth = simulate(192, seed=79)
    on, off = torch.ones((), dtype=torch.bool), torch.zeros((), dtype=torch.bool)
    observed = hide(batch, images=on, photometry=off, spectra=off)
    scale = galaxy_scale(observed)
    central = truth.rest.map(lambda part: part[:, 0])
    true = to_physical(load_templates(), central, scale)[:, 0] + LEVEL
    aperture = batch.spectra.aperture[:, :1]
    found = level_of_images(observed.images, aperture, truth.z[:, None], scale).mean[:, 0, 0]
    near = aperture[:, 0, :2].norm(dim=-1) < 1
    apart = (found - true)[near]
    assert apart.median().abs() < 0.05
    assert (apart - apart.median()).abs().median() < 0.1


def test_a_measured_level_is_a_product_of_gaussians():
    mean, deviation = torch.tensor([[[[0.3, -0.2]]]]), torch.tensor([[[[0.5, 0.1]]]])
    level = MeasuredLevel(torch.tensor([[[0.1]]]), torch.tensor([[[0.2]]]))
    after, narrower = level.combined(mean, deviation)
    precision = deviation**-2 + 0.2**-2
    assert torch.allclose(narrower, precision**-0.5)
    assert torch.allclose(after, (mean * deviation**-2 + 0.1 * 0.2**-2) / precision)
    nothing = MeasuredLevel(torch.zeros(1, 1, 1), torch.full((1, 1, 1), torch.inf))
    after, narrower = nothing.combined(mean, deviation)
    assert torch.equal(after, mean)
    assert torch.equal(narrower, deviation)
