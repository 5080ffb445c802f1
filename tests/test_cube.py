"""Joint draws of a cube: parts of one galaxy, exact statistics, bounded memory."""

import tracemalloc
import warnings
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from tiny_model import some_galaxy, some_spectrum, tiny_network

from probmmae.galaxy import Aperture
from probmmae.inference import cube as module
from probmmae.inference.cube import MANGA_WAVELENGTH, cube, unseen
from probmmae.inference.posterior import Model, Posterior
from probmmae.spaxels import hexagon, of_apertures, square
from probmmae.spectral_maps import QUANTITIES, Measure

GRID = np.arange(3700, 7600, 5.0) * u.AA
SPAXELS = square(3, side=1 * u.arcsec, psf_fwhm=1.5 * u.arcsec)


def posterior(z: float | None = 0.05, draws: int = 6) -> Posterior:
    return Model(tiny_network()).condition(some_galaxy(z=z), draws=draws, seed=4)


@pytest.fixture(scope="module", params=[0.05, None], ids=["known z", "drawn z"])
def answer(request):
    asked = posterior(request.param)
    return asked, cube(asked, SPAXELS, GRID, resolution=1800, keep=6)


def test_a_spaxel_is_the_spectrum_at_its_aperture(answer):
    asked, got = answer
    for spaxel in (0, 4, 7):
        alone = asked.spectrum(GRID, SPAXELS.at(spaxel), resolution=1800)
        expected = alone.flux.value * SPAXELS.share[spaxel]
        assert np.allclose(got.draws[:, spaxel], expected, rtol=1e-4, atol=1e-6, equal_nan=True)
        assert np.allclose(got.z, alone.z)
    assert repr(got).startswith(f"Cube of {asked.galaxy.id}: 9 spaxels of {len(GRID)} wavelengths")


@pytest.mark.parametrize("z", [0.05, None], ids=["known z", "drawn z"])
def test_what_spaxels_share_is_computed_once(z, monkeypatch):
    """On a grid of one resolution, against the spectra asked for one by one: 3e-4 of the level is
    what single precision leaves of a wavelength among the templates'."""
    asked = posterior(z)
    grid = MANGA_WAVELENGTH[500:3000]
    monkeypatch.setattr(module, "spectra_at", None)  # the other way is not taken
    got = cube(asked, square(2, side=1 * u.arcsec), grid, keep=6)
    for spaxel in range(4):
        place, share = got.spaxels.at(spaxel), got.spaxels.share[spaxel]
        expected = asked.spectrum(grid, place).flux.value * share
        apart = np.abs(got.draws[:, spaxel] - expected)
        assert np.nanmax(apart / np.nanmean(expected, -1, keepdims=True)) < 3e-4
        assert np.array_equal(np.isnan(got.draws[:, spaxel]), np.isnan(expected))


def test_statistics_are_those_of_the_draws(answer):
    _, got = answer
    assert np.allclose(got.mean, np.nanmean(got.draws, 0), rtol=1e-5, equal_nan=True)
    assert np.allclose(got.std, np.nanstd(got.draws, 0), rtol=1e-4, atol=1e-7, equal_nan=True)
    expected = np.nanquantile(got.draws, got.levels, axis=0)
    assert np.allclose(got.quantiles, expected, rtol=1e-5, atol=1e-7, equal_nan=True)


def test_pixels_that_some_draws_do_not_reach_are_told_by_the_others():
    asked = posterior(None)
    grid = np.arange(9000, 40000, 60.0) * u.AA
    got = cube(asked, SPAXELS, grid, keep=6)
    missing = np.isnan(got.draws).mean(0)
    assert (missing == 1).any()
    assert ((missing > 0) & (missing < 1)).any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = np.nanquantile(got.draws, got.levels, axis=0)
    assert np.allclose(got.quantiles, expected, rtol=1e-5, atol=1e-7, equal_nan=True)


def test_maps_are_measured_on_every_draw_at_its_redshift(answer):
    _, got = answer
    for draw in (0, 5):
        measure = Measure(got.wavelength, got.sigma, z=float(got.z[draw]))
        expected = measure(got.draws[draw]).value
        close = np.isclose(got.maps[:, draw], expected, rtol=1e-3, atol=1e-3, equal_nan=True)
        assert close.mean() > 0.93  # what is not significant may fall to either side
    assert got.map("d4000").shape == (6, 9)


def test_blocks_and_fewer_draws_give_the_same(monkeypatch):
    asked = posterior()
    whole = cube(asked, SPAXELS, GRID, keep=5)
    monkeypatch.setattr(module, "_BLOCK", 3 * 6 * len(GRID))
    monkeypatch.setattr(module, "_PIXELS", 2 * len(GRID))
    seen: list[int] = []
    parts = cube(asked, SPAXELS, GRID, keep=5, watch=seen.append)
    assert seen == [3, 6, 9]
    assert np.allclose(parts.mean, whole.mean, rtol=1e-4)
    fewer = cube(asked, SPAXELS, GRID, keep=5, draws=5)
    assert fewer.maps.shape == (len(QUANTITIES), 5, 9)
    assert np.allclose(fewer.draws, whole.draws, rtol=1e-4)


def test_the_encoder_does_not_run():
    asked = posterior()

    def forbidden(*_, **__):
        raise AssertionError("the encoder ran")

    asked.network.encoder.forward = forbidden
    cube(asked, SPAXELS, GRID)


def test_neighbours_are_alike_and_draws_are_not():
    got = cube(posterior(draws=40), square(5, side=0.2 * u.arcsec), GRID)
    level = got.map("continuum")
    spread, step = level.std(0).mean(), np.abs(np.diff(level[:, 10:15], axis=1)).mean()
    assert step < spread


@pytest.mark.slow
def test_memory_beyond_the_answer_does_not_grow_with_the_cube(monkeypatch):
    """Peak of numpy's memory less the answer: at most 6 blocks, for 16 as for 64 spaxels."""
    draws = 12
    monkeypatch.setattr(module, "_BLOCK", 8 * draws * len(GRID))
    block = 8 * draws * len(GRID) * 4
    asked = posterior(draws=draws)
    cube(asked, square(2), GRID)  # what is made once
    beyond = []
    for size in ((4, 4), (8, 8)):
        tracemalloc.start()
        got = cube(asked, square(size, side=0.5 * u.arcsec), GRID)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        held = sum(part.nbytes for part in (got.mean, got.std, got.quantiles, got.maps))
        beyond.append((peak - held) / block)
    assert max(beyond) < 6, beyond
    assert beyond[1] < 1.3 * beyond[0]


def test_list_of_apertures_keeps_their_light():
    asked = posterior()
    place = Aperture(1 * u.arcsec, 0 * u.arcsec, diameter=2 * u.arcsec)
    got = cube(asked, of_apertures([place]), GRID)
    assert np.allclose(got.mean[0], asked.spectrum(GRID, place).mean.value, rtol=1e-4)


def test_spaxels_where_nothing_was_seen_are_marked():
    galaxy = some_galaxy(z=0.05)  # images of 9.6 arcsec
    spaxels = hexagon(37)
    beyond = np.abs(spaxels.aperture[:, :2]).max(1) > 4.9
    assert np.array_equal(unseen(galaxy, spaxels), beyond)
    far = replace(galaxy, images=(), spectra=(some_spectrum(dx=6.0),))
    near = np.hypot(spaxels.aperture[:, 0] - 6, spaxels.aperture[:, 1]) < 1
    assert np.array_equal(unseen(far, spaxels), ~near)
    with pytest.warns(UserWarning, match="neither image nor spectrum"):
        cube(posterior(draws=2), square(3, side=5 * u.arcsec), GRID)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda p: cube(p, SPAXELS, GRID, levels=(5.0,)), ValueError, "between 0 and 1"),
        (lambda p: cube(p, SPAXELS, GRID, draws=99), ValueError, "between 1 and 2 draws"),
        (lambda p: cube(p, SPAXELS, GRID, keep=3), ValueError, "at most 2 draws"),
        (lambda p: cube(p, SPAXELS, GRID.value), TypeError, "wavelengths as a Quantity"),
        (lambda p: cube(p, SPAXELS, GRID).map("x"), ValueError, "quantity among h_alpha"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call(posterior(draws=2))
