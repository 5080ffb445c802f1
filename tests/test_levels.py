"""Continuum and level of drawn spectra, moved by factors and by a law of the level's PIT."""

import numpy as np
import pytest
from scipy import special

from probmmae.inference.levels import continuum, level, moved
from probmmae.inference.pit_map import KNOTS, PitMap
from probmmae.inference.repair import BINS, REFERENCE, SpectrumRepair, Stretch
from probmmae.inference.stretch import PixelScale

DRAWS = 50
PLACE = REFERENCE
PIXELS = len(PLACE)
SCALE = PixelScale((2000.0, 12000.0), (1.0, 10.0), ((-0.5, -0.5), (-0.5, -0.5)), 100)
NARROWER = PitMap.tilted(np.array([[0.0, -0.4, 0.0, 0.0]]))


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
    new = Stretch(None, NARROWER, 0.0).apply(flux, flux, rest_wavelength=PLACE, snr=10.0)
    np.testing.assert_allclose(new[:, 1:] / new[:, :1], flux[:, 1:] / flux[:, :1])
    before, after = (level(continuum(one, BINS)) for one in (flux, new))
    np.testing.assert_array_equal(np.argsort(after), np.argsort(before))
    assert after.std() < 0.9 * before.std()


def test_an_answer_does_not_depend_on_the_wavelengths_asked_for():
    flux, part = draws(), slice(4, 20)
    told = {"snr": 10.0}
    whole = Stretch(SCALE, NARROWER, 0.0).apply(flux, flux, rest_wavelength=PLACE, **told)
    some = Stretch(SCALE, NARROWER, 0.0).apply(
        flux[:, part], flux, rest_wavelength=PLACE[part], **told
    )
    np.testing.assert_array_equal(whole[:, part], some)


def test_the_level_is_moved_from_where_the_factors_put_it():
    flux = draws()
    both = Stretch(SCALE, NARROWER, 0.0).apply(flux, flux, rest_wavelength=PLACE, snr=10.0)
    wider = Stretch(SCALE, None, 0.0).apply(flux, flux, rest_wavelength=PLACE, snr=10.0)
    before, after = (level(continuum(one, BINS)) for one in (wider, both))
    np.testing.assert_allclose(after, moved(before, NARROWER), atol=1e-3)


def test_without_a_positive_continuum_in_every_draw_spectra_stay():
    flux = draws()
    flux[7] *= -1
    new = Stretch(SCALE, NARROWER, 0.0).apply(flux, flux, rest_wavelength=PLACE, snr=10.0)
    np.testing.assert_array_equal(new, flux)


def test_the_continuum_is_stretched_and_lines_keep_their_equivalent_widths():
    rng = np.random.default_rng(3)
    place = np.log(REFERENCE / REFERENCE[0])
    slope = 0.1 * rng.normal(size=(DRAWS, 1))
    smooth = 2 + slope * np.sin(6 * place)
    line = 1 + 5 * np.exp(rng.normal(size=(DRAWS, 1))) * (np.abs(REFERENCE - 6000) < 12)
    stretch = SpectrumRepair(SCALE, None, 100).of({"redshift": [0.1]})
    assert stretch == Stretch(SCALE, None, 0.1)
    new = stretch.apply(smooth * line, smooth * line, rest_wavelength=REFERENCE / 1.1, snr=3.0)
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
