"""Lines, motions and D4000 of spectra: against simulated truth, and their errors."""

import astropy.units as u
import numpy as np
import pytest
import torch
from simulated_cube import simulated_scene, true_cube

from probmmae.calibration import features
from probmmae.spaxels import square
from probmmae.spectral_maps import LINES, QUANTITIES, Measure
from probmmae.templates import load_templates

SPAXELS = square(8, side=1 * u.arcsec, psf_fwhm=1.5 * u.arcsec)


@pytest.fixture(scope="module")
def known():
    """A rotating star-forming galaxy at z 0.07: spectra and measurements."""
    cube = true_cube(simulated_scene(60), 8, SPAXELS)
    return cube, Measure(cube.wavelength, cube.sigma, z=cube.z)


def line_flux(cube, name):
    templates = load_templates()
    return sum(cube.light.lines[0, :, templates.line(one)].numpy() for one in LINES[name][0])


def test_noise_free_spectra_give_back_the_truth(known):
    cube, measure = known
    maps = measure(cube.flux)
    for name in LINES:
        # Of the continuum, a twentieth of an Angstrom: what template mismatch leaves.
        apart = np.abs(maps[name] - line_flux(cube, name)) / maps["continuum"]
        assert np.quantile(apart, 0.9) < 0.12, name
        assert np.median(maps[name] / line_flux(cube, name)) == pytest.approx(1, abs=0.03), name
    rotation = cube.light.velocity[0].numpy()
    assert np.ptp(rotation) > 100
    assert np.median(np.abs(maps["velocity"] - rotation)) < 3
    assert np.median(np.abs(maps["stellar_velocity"] - rotation)) < 5
    width = maps["dispersion"] / cube.light.sigma_gas[0].numpy()
    assert np.nanmedian(width) == pytest.approx(1, abs=0.05)
    assert np.all(np.isnan(maps.error))


def test_errors_are_those_of_the_noise(known):
    """64 spectra: the standard deviation of the pulls is 1 to 0.3 (three of its own errors)."""
    cube, measure = known
    rng = np.random.default_rng(1)
    ivar = np.full(cube.flux.shape, (0.1 * cube.flux.mean(1, keepdims=True)) ** -2)
    ivar[:, 1000:1050] = 0
    noise = np.where(ivar > 0, rng.normal(size=ivar.shape) / np.sqrt(np.maximum(ivar, 1e-9)), 99)
    maps = measure(cube.flux + noise, ivar=ivar)
    names = list(QUANTITIES)
    for name in ("h_alpha", "h_beta", "o_iii", "n_ii", "s_ii"):
        error = maps.error[names.index(name)]
        pull = (maps[name] - line_flux(cube, name)) / error
        assert abs(np.mean(pull)) < 0.6, name
        assert 0.7 < np.std(pull) < 1.35, name
    pull = (maps["d4000"] - measure(cube.flux)["d4000"]) / maps.error[names.index("d4000")]
    assert 0.7 < np.std(pull) < 1.3


def test_fluxes_scale_and_the_rest_does_not(known):
    cube, measure = known
    once, tenfold = measure(cube.flux[:4]), measure(10 * cube.flux[:4])
    for name, unit in QUANTITIES.items():
        factor = 10 if "erg" in unit else 1
        assert np.allclose(tenfold[name], factor * once[name], rtol=2e-3, atol=0.5, equal_nan=True)


def test_leading_axes_and_chunks_do_not_matter(known):
    cube, measure = known
    whole = measure(cube.flux.reshape(8, 8, -1))
    parts = measure(cube.flux, chunk=5)
    assert whole.value.shape == (len(QUANTITIES), 8, 8)
    flat = whole.value.reshape(parts.value.shape)
    assert np.allclose(flat, parts.value, rtol=1e-3, atol=0.02, equal_nan=True)


def test_d4000_is_that_of_the_features(known):
    cube, measure = known
    told = features.spectrum_features(cube.flux, cube.wavelength, z=np.full(64, cube.z)).d4000
    assert torch.allclose(torch.tensor(measure(cube.flux)["d4000"]).double(), told, rtol=1e-4)


def test_equivalent_width_is_in_the_rest_frame(known):
    cube, measure = known
    maps = measure(cube.flux)
    at = np.searchsorted(cube.wavelength, 6600 * (1 + cube.z))
    near = np.median(cube.flux[:, at - 10 : at + 40], axis=1)
    expected = line_flux(cube, "h_alpha") / near / (1 + cube.z)
    assert np.median(maps["h_alpha_ew"] / expected) == pytest.approx(1, abs=0.05)


def test_what_the_grid_does_not_hold_is_nan(known):
    cube, _ = known
    blue = cube.wavelength < 6500
    maps = Measure(cube.wavelength[blue], cube.sigma[blue], z=cube.z)(cube.flux[:3, blue])
    assert np.all(np.isnan(maps["h_alpha"]))
    assert np.all(np.isfinite(maps["o_iii"]))
    masked = np.ones((1, len(cube.wavelength)))
    masked[0, np.abs(cube.wavelength / (6564.6 * (1 + cube.z)) - 1) < 1e-3] = 0
    maps = Measure(cube.wavelength, cube.sigma, z=cube.z)(cube.flux[:1], ivar=masked)
    assert np.isnan(maps["h_alpha"][0])
    assert np.isfinite(maps["o_iii"][0])


def test_empty_spectra_are_nan(known):
    cube, measure = known
    nothing = np.full((2, len(cube.wavelength)), np.nan)
    assert np.all(np.isnan(measure(nothing).value))
    assert np.all(np.isnan(measure(cube.flux[:2], ivar=np.zeros_like(nothing)).value))


def test_errors_of_the_caller(known):
    cube, measure = known
    with pytest.raises(ValueError, match="wavelengths last"):
        measure(cube.flux.T)
    with pytest.raises(ValueError, match="one width a pixel"):
        Measure(cube.wavelength, 1.0, z=0.1)
    with pytest.raises(ValueError, match="quantity among h_alpha"):
        measure(cube.flux[:1])["h_gamma"]
