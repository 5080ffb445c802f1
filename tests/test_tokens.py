"""Colours as inputs: exact where the answer is known, blind to units and to what is missing."""

import math
from dataclasses import replace

import pytest
import torch
from toys import toys

from probmmae.batch import Images
from probmmae.masking import hide
from probmmae.simulator import simulate
from probmmae.tokens import (
    APERTURE_FEATURES,
    PHOTOMETRY_FEATURES,
    contrasts,
    forced_photometry,
    tokenize,
)

WAVELENGTH = torch.tensor([[4800.0, 6200.0, 7700.0]])


def of(flux, error=0.01, visible=(True, True, True), wavelength=WAVELENGTH):
    flux = torch.as_tensor(flux, dtype=torch.float32)[None, :, None]
    seen = torch.tensor([visible])
    there = torch.full_like(flux, error)
    return contrasts(flux, there, seen[..., None], wavelength=wavelength, visible=seen)[0]


def test_colour_is_the_logarithm_of_the_ratio_of_bright_fluxes():
    colour, doubt, step = of([1.0, 2.0, 3.0]).T
    assert colour[:2].tolist() == pytest.approx(
        [math.log(2.0) / 0.25, math.log(1.5) / 0.25], rel=1e-3
    )
    error = math.hypot(0.01, 0.005)
    assert float(doubt[0]) == pytest.approx(0.5 * math.log(error), rel=1e-2)
    assert float(step[0]) == pytest.approx(5 * math.log(6200 / 4800), rel=1e-5)
    # Nothing is redder than the reddest band.
    assert of([1.0, 2.0, 3.0])[2].tolist() == [0.0, 0.0, 0.0]


def test_a_hidden_band_is_stepped_over_and_its_value_does_not_matter():
    seen = (True, False, True)
    skipped = of([1.0, 2.0, 3.0], visible=seen)
    assert float(skipped[0, 0]) == pytest.approx(math.log(3.0) / 0.25, rel=1e-3)
    assert float(skipped[0, 2]) == pytest.approx(5 * math.log(7700 / 4800), rel=1e-5)
    assert torch.equal(skipped, of([1.0, -70.0, 3.0], visible=seen))
    assert not bool(skipped[1].any())


def test_order_and_unit_of_bands_do_not_matter():
    order = torch.tensor([2, 0, 1])
    flux = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(of(flux)[order], of(flux[order], wavelength=WAVELENGTH[:, order]))
    assert torch.allclose(of(flux), of(1e4 * flux, error=100.0), atol=1e-3)


def test_noise_and_negative_flux_stay_finite():
    assert bool(of([-5.0, 0.0, 1e-6], error=1.0).isfinite().all())
    assert bool(of([-5.0, 0.0, 1e9], error=1e-9).isfinite().all())


def test_tokens_have_the_widths_that_are_announced():
    tokens = tokenize(toys().batch)
    assert tokens.central.shape[-1] == APERTURE_FEATURES
    assert tokens.photometry_values.shape[-1] == PHOTOMETRY_FEATURES


def test_forced_photometry_has_the_colours_of_the_truth():
    # Of 128 simulated galaxies those of S/N above 10: adjacent colours to 5 % in the median (noise
    # of the images), biased by less than 4 % (the gradients of galaxies).
    batch, truth = simulate(128, 5)
    table = forced_photometry(batch.images)
    sure = (table.flux * table.ivar.sqrt() > 10).all(1)
    assert int(sure.sum()) > 60
    flux = table.flux
    wrong = (flux[:, 1:] / flux[:, :-1]).log() - (
        truth.photometry_flux[:, 1:] / truth.photometry_flux[:, :-1]
    ).log()
    wrong = wrong[sure]
    assert float(wrong.abs().median()) < 0.05
    assert float(wrong.median(0).values.abs().max()) < 0.04


def test_forced_colours_do_not_depend_on_the_seeing():
    # One round source in five bands of the same flux, the seeing of each its own: fluxes agree to
    # 1 % where fluxes through one profile at native seeing differ by 25 %.
    size, scale = 48, 0.2
    seeing = torch.tensor([[0.6, 0.8, 1.0, 1.2, 1.4]])
    x = (torch.arange(size) - (size - 1) / 2) * scale
    variance = 0.5**2 + (seeing / 2.3548) ** 2
    square = (x[:, None] ** 2 + x[None, :] ** 2)[None, None]
    blob = torch.exp(-0.5 * square / variance[..., None, None])
    blob = 100 * blob / blob.sum((-2, -1), keepdim=True)
    images = Images(
        blob,
        torch.full_like(blob, 1e4),
        torch.tensor([[4800.0, 6200.0, 7700.0, 8900.0, 9800.0]]),
        seeing,
        torch.tensor([scale]),
        torch.zeros(1, 2),
    )
    flux = forced_photometry(images).flux
    assert float(flux.max() / flux.min()) < 1.01
    middle = blob[0, 2] / blob[0, 2].square().sum()
    fixed = (blob[0] * middle).sum((-2, -1))
    assert float(fixed.max() / fixed.min()) > 1.25


def test_hidden_pixels_leak_nothing_into_forced_photometry():
    images = simulate(3, 6)[0].images
    ivar = images.ivar.clone()
    ivar[..., 10:20] = 0
    ivar[:, 1] = 0
    first = forced_photometry(replace(images, ivar=ivar))
    changed = torch.where(ivar > 0, images.flux, torch.full_like(images.flux, 1e3))
    second = forced_photometry(replace(images, ivar=ivar, flux=changed))
    assert torch.equal(first.flux, second.flux)
    assert not bool(first.ivar[:, 1].any())


def test_images_speak_as_photometry_where_no_catalogue_does():
    batch = toys().batch
    off = torch.zeros((), dtype=torch.bool)
    alone = tokenize(hide(batch, images=~off, photometry=off, spectra=off))
    both = tokenize(hide(batch, images=~off, photometry=~off, spectra=off))
    bands = batch.photometry.flux.shape[1]
    assert not bool(alone.photometry_visible[:, :bands].any())
    assert bool(alone.photometry_visible[:, bands:].all())
    assert bool(both.photometry_visible[:, :bands].all())
    assert not bool(both.photometry_visible[:, bands:].any())
