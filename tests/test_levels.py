"""Continuum and level of drawn spectra, moved by factors and by a law of the level's PIT."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special
from tiny_model import some_galaxy

from probmmae.collate import collate
from probmmae.inference.levels import continuum, level, moved
from probmmae.inference.pit_map import KNOTS, PitMap
from probmmae.inference.repair import BINS, REFERENCE, Applied, SpectrumRepair, Stretch
from probmmae.inference.shown import signal_to_noise_near
from probmmae.inference.stretch import PixelScale
from probmmae.measurements import Aperture

DRAWS = 50
PLACE = REFERENCE
PIXELS = len(PLACE)
SCALE = PixelScale((2000.0, 12000.0), (1.0, 10.0), ((-0.5, -0.5), (-0.5, -0.5)), 100)
NARROWER = PitMap.tilted(np.array([[0.0, -0.4, 0.0, 0.0]]))


def stretch(scale, law, z=0.0):
    """Of a galaxy that showed nothing but an image."""
    return Stretch(scale, law, z, np.full(BINS, 10.0), ())


def draws(seed=0, spread=0.1):
    """Spectra of a scattered level and a scattered slope."""
    rng = np.random.default_rng(seed)
    tall = np.exp(spread * rng.normal(size=(DRAWS, 1)))
    return 3 * tall * (1 + 0.1 * rng.normal(size=(DRAWS, 1)) * np.linspace(-1, 1, PIXELS))


def test_the_level_is_that_of_the_bins_that_all_have():
    bins = np.log(draws())
    bins[3, 5] = np.nan
    np.testing.assert_allclose(level(bins), np.delete(bins, 5, axis=1).mean(axis=1))
    bins[:] = np.nan
    assert np.isnan(level(bins)).tolist() == [True] * DRAWS


def test_a_map_that_does_nothing_moves_nothing():
    old = level(np.log(draws()))
    np.testing.assert_allclose(moved(old, PitMap.identity()), old, atol=1e-6)


@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_normal_levels_get_the_width_that_their_law_says(factor):
    # The PIT of truths `factor` times as wide as the draws, in the form that maps have.
    old = special.ndtri((np.arange(400) + 0.5) / 400)
    u = np.linspace(1e-4, 1 - 1e-4, 20_001)
    normal = special.ndtri(u) / factor
    density = np.exp(-0.5 * normal**2 + 0.5 * special.ndtri(u) ** 2) / factor
    law = PitMap(np.interp(KNOTS, u, density)[None])
    new = moved(old, law)
    assert np.all(np.diff(new) > 0)
    np.testing.assert_allclose(new[40:-40], factor * old[40:-40], atol=0.02)


def test_shapes_and_order_stay_and_the_spread_shrinks():
    flux = draws()
    new = stretch(None, NARROWER).apply(flux, flux, rest_wavelength=PLACE)
    np.testing.assert_allclose(new[:, 1:] / new[:, :1], flux[:, 1:] / flux[:, :1])
    before, after = (level(continuum(one, BINS)) for one in (flux, new))
    np.testing.assert_array_equal(np.argsort(after), np.argsort(before))
    assert after.std() < 0.9 * before.std()


def test_an_answer_does_not_depend_on_the_wavelengths_asked_for():
    flux, part = draws(), slice(4, 20)
    whole = stretch(SCALE, NARROWER).apply(flux, flux, rest_wavelength=PLACE)
    some = stretch(SCALE, NARROWER).apply(flux[:, part], flux, rest_wavelength=PLACE[part])
    np.testing.assert_array_equal(whole[:, part], some)


def test_the_level_is_moved_from_where_the_factors_put_it():
    flux = draws()
    both = stretch(SCALE, NARROWER).apply(flux, flux, rest_wavelength=PLACE)
    wider = stretch(SCALE, None).apply(flux, flux, rest_wavelength=PLACE)
    before, after = (level(continuum(one, BINS)) for one in (wider, both))
    np.testing.assert_allclose(after, moved(before, NARROWER), atol=1e-3)


def test_without_a_positive_continuum_in_every_draw_spectra_stay():
    flux = draws()
    flux[7] *= -1
    new = stretch(SCALE, NARROWER).apply(flux, flux, rest_wavelength=PLACE)
    np.testing.assert_array_equal(new, flux)


def test_the_continuum_is_stretched_and_lines_keep_their_equivalent_widths():
    rng = np.random.default_rng(3)
    place = np.log(REFERENCE / REFERENCE[0])
    slope = 0.1 * rng.normal(size=(DRAWS, 1))
    smooth = 2 + slope * np.sin(6 * place)
    line = 1 + 5 * np.exp(rng.normal(size=(DRAWS, 1))) * (np.abs(REFERENCE - 6000) < 12)
    new = stretch(SCALE, None, z=0.1).apply(
        smooth * line, smooth * line, rest_wavelength=REFERENCE / 1.1
    )
    # Away from lines the ln continuum has the spread that was asked for.
    inside = slice(40, 700)
    ratio = (np.log(new / line).std(axis=0) / np.log(smooth).std(axis=0))[inside]
    wide = np.log(smooth).std(axis=0)[inside] > 0.02
    np.testing.assert_allclose(ratio[wide], np.exp(-0.5), rtol=0.05)
    # A line goes with its continuum.
    at = np.argmin(np.abs(REFERENCE - 6000))
    beside = at + 20
    old = (smooth * line)[:, at] / (smooth * line)[:, beside]
    np.testing.assert_allclose(new[:, at] / new[:, beside], old, rtol=0.02)


def test_the_continuum_is_ln_of_the_median_in_bins():
    flux = np.arange(1.0, 14.0)
    np.testing.assert_allclose(continuum(flux, 4), np.log([2, 5, 8, 11]))
    flux[4] = np.nan
    assert np.isnan(continuum(flux, 4)).tolist() == [False, True, False, False]
    assert np.isnan(continuum(-flux, 4)).all()


def test_near_a_wavelength_counts_what_was_shown_there():
    batch = collate([some_galaxy()])
    seen = batch.spectra
    place = torch.where(seen.wavelength < 6000, seen.ivar, torch.zeros(()))
    blue = replace(batch, spectra=replace(seen, ivar=place))
    at = np.array([5000.0, 9000.0])
    whole, half = (signal_to_noise_near(one, at)[0] for one in (batch, blue))
    assert half[0] == pytest.approx(whole[0], rel=0.01)
    assert half[1] < 0.5 * whole[1]
    nothing = replace(seen, ivar=torch.zeros_like(seen.ivar))
    assert signal_to_noise_near(replace(batch, spectra=nothing), at).shape == (1, 2)


def test_a_repair_given_spectra_holds_where_they_were_taken():
    batch = collate([some_galaxy()])
    (x, y, wide, seeing) = batch.spectra.aperture[0, 0].tolist()
    made = SpectrumRepair(SCALE, None, 100).of(batch)
    assert made.snr.shape == (BINS,)
    here, beside, wider = (
        Aperture.in_batch_units(x + dx, y, diameter=size * wide, seeing=seeing)
        for dx, size in ((0.1 * wide, 1.0), (0.5 * wide, 1.0), (0.0, 2.0))
    )
    assert [made.holds(one) for one in (here, beside, wider, None)] == [True, False, False, False]
    said = Applied(None, made, "kept", "repaired")
    assert said.at(here) is said
    assert said.at(beside).spectrum is None
    assert said.at(beside).said.endswith("not repaired: it holds where a spectrum was shown")
    hidden = replace(batch.spectra, ivar=torch.zeros_like(batch.spectra.ivar))
    assert SpectrumRepair(SCALE, None, 100).of(replace(batch, spectra=hidden)).holds(None)
