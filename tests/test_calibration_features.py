"""Features of spectra against closed forms, on the grids that surveys use."""

import numpy as np
import pytest
import torch
from scipy import special

from probmmae.calibration.features import FEATURES, spectrum_features
from probmmae.calibration.line_widths import fit_line

LIGHT = 299792.458
GRIDS = {
    "linear": np.arange(3600.0, 9824.0, 0.8),
    "logarithmic": 10 ** np.arange(np.log10(3622.0), np.log10(10354.0), 1e-4),
}
LINES = {"h_alpha": 6564.61, "h_beta": 4862.68, "o_iii": 5008.24, "o_ii": 3728.5}


def line_spectrum(grid, *, centre, sigma, flux):
    """A Gaussian line (km/s) integrated over each pixel."""
    middle = 0.5 * (grid[1:] + grid[:-1])
    edges = np.concatenate([[2 * grid[0] - middle[0]], middle, [2 * grid[-1] - middle[-1]]])
    below = special.ndtr((edges - centre) / (centre * sigma / LIGHT))
    return flux * np.diff(below) / np.diff(edges)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("name", LINES)
def test_line_flux_on_a_sloping_continuum_is_the_flux_of_the_line(grid, name):
    z = 0.213
    centre = LINES[name] * (1 + z)
    flux = 40 + 0.003 * grid + line_spectrum(grid, centre=centre, sigma=90.0, flux=120.0)
    measured = getattr(spectrum_features(flux[None], grid, z=np.array([z])), name)
    assert float(measured[0]) == pytest.approx(120.0, rel=2e-3)


def test_h_alpha_window_holds_the_line_and_not_nitrogen():
    grid, z = GRIDS["logarithmic"], 0.05
    nitrogen = sum(
        line_spectrum(grid, centre=rest * (1 + z), sigma=85.0, flux=100.0)
        for rest in (6549.86, 6585.27)
    )
    measured = spectrum_features(nitrogen[None], grid, z=np.array([z]))
    assert abs(float(measured.h_alpha[0])) < 0.5


def test_break_of_a_step_is_the_ratio_of_its_sides():
    grid, z = GRIDS["linear"], 0.1
    per_frequency = np.where(grid < 3975.0 * (1 + z), 2.0, 3.4)
    flux = per_frequency * 1e8 / grid**2
    measured = spectrum_features(flux[None], grid, z=np.array([z]))
    assert float(measured.d4000[0]) == pytest.approx(1.7, rel=1e-4)


@pytest.mark.parametrize("slope", [-3.0, -2.0, 0.0, 1.5])
def test_colour_agrees_with_speclite(slope):
    from astropy import units
    from speclite.filters import load_filter

    grid = GRIDS["linear"]
    flux = 3.0 * (grid / 6000.0) ** slope
    fine = np.arange(3000.0, 11000.0, 0.5)
    fine_flux = 3e-17 * (fine / 6000.0) ** slope * units.Unit("erg / (s cm2 Angstrom)")
    expected = np.subtract(
        *(
            load_filter(f"sdss2010-{band}").get_ab_magnitude(fine_flux, fine * units.Angstrom)
            for band in "gr"
        )
    )
    measured = spectrum_features(flux[None], grid, z=np.zeros(1))
    assert float(measured.g_minus_r[0]) == pytest.approx(float(expected), abs=5e-4)


def test_features_outside_the_grid_are_missing_and_the_others_are_not():
    grid = np.arange(3900.0, 6500.0, 1.0)
    measured = spectrum_features(np.ones((1, grid.size)), grid, z=np.zeros(1))
    known = {name: bool(torch.isfinite(value[0])) for name, value in measured.items()}
    assert known == {
        "h_alpha": False,
        "h_beta": True,
        "o_iii": True,
        "o_ii": False,
        "d4000": False,
        "g_minus_r": False,
    }


def random_spectra(rng, draws=5, galaxies=7):
    grid = np.stack([GRIDS["logarithmic"] * (1 + 1e-4 * i) for i in range(galaxies)])
    flux = 5 + rng.normal(size=(draws, galaxies, grid.shape[1]))
    return flux, grid, rng.uniform(0.02, 0.3, galaxies)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_draws_chunks_and_libraries_do_not_change_the_answer(kind):
    flux, grid, z = random_spectra(np.random.default_rng(1))
    arrays = (flux, grid, z)
    if kind == "torch":
        arrays = tuple(torch.from_numpy(a) for a in arrays)
    together = spectrum_features(arrays[0], arrays[1], z=arrays[2], chunk=3)
    for name in FEATURES:
        one = torch.stack(
            [
                getattr(spectrum_features(flux[:, i], grid[i], z=np.full(5, z[i])), name)
                for i in range(7)
            ],
            dim=1,
        )
        assert torch.allclose(getattr(together, name), one, rtol=1e-9, atol=1e-9), name


def test_a_redshift_a_draw_moves_the_windows():
    grid = GRIDS["logarithmic"]
    z = np.array([[0.1], [0.2]])
    flux = np.stack(
        [line_spectrum(grid, centre=6564.61 * (1 + at[0]), sigma=80.0, flux=10.0) for at in z]
    )[:, None]
    own = spectrum_features(flux, grid, z=z).h_alpha
    shared = spectrum_features(flux, grid, z=z[0]).h_alpha
    assert own.shape == (2, 1)
    assert torch.allclose(own, torch.full((2, 1), 10.0, dtype=torch.float64), rtol=2e-3)
    assert float(shared[1, 0]) == pytest.approx(0.0, abs=0.05)


def test_padding_changes_nothing():
    grid = GRIDS["linear"]
    flux = 3 + np.random.default_rng(2).normal(size=(1, grid.size))
    padded_grid = np.concatenate([grid, np.full(500, grid[-1])])[None]
    padded_flux = np.concatenate([flux, np.zeros((1, 500))], axis=1)
    z = np.array([0.15])
    plain, padded = (
        spectrum_features(flux, grid, z=z),
        spectrum_features(padded_flux, padded_grid, z=z),
    )
    for name, value in plain.items():
        assert torch.allclose(value, getattr(padded, name), rtol=1e-12), name


def test_a_missing_pixel_spoils_only_the_features_that_need_it():
    grid, z = GRIDS["linear"], 0.1
    flux, valid = np.ones((2, grid.size)), np.ones((2, grid.size), dtype=bool)
    hidden = np.abs(grid - 6564.6 * (1 + z)) < 3
    flux[0, hidden], valid[0, hidden] = np.nan, False
    measured = spectrum_features(flux, grid, z=np.full(2, z), valid=valid)
    assert torch.isnan(measured.h_alpha[0])
    assert torch.isfinite(measured.h_alpha[1])
    # At this redshift H-alpha lies redwards of the r filter.
    for name in ("h_beta", "o_iii", "o_ii", "d4000", "g_minus_r"):
        assert torch.isfinite(getattr(measured, name)).all(), name


WRONG = {
    "grid of another length": lambda f, w, z: spectrum_features(f, w[:-1], z=z),
    "one redshift for two galaxies": lambda f, w, z: spectrum_features(f, w, z=z[:1]),
    "mask of another shape": lambda f, w, z: spectrum_features(f, w, z=z, valid=f[0] > 0),
    "draws to a line fit": lambda f, w, z: fit_line(f[None], w, z=z),
    "unknown line": lambda f, w, z: fit_line(f, w, z=z, line="h_gamma"),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    grid = GRIDS["linear"]
    with pytest.raises(ValueError, match=r"Expected .*; got .*"):
        call(np.ones((2, grid.size)), grid, np.zeros(2))


@pytest.mark.parametrize("velocity", [0.0, 170.0])
@pytest.mark.parametrize("sigma", [45.0, 90.0, 200.0, 600.0])
@pytest.mark.parametrize("name", ["h_alpha", "o_iii", "h_beta"])
def test_fitted_width_is_the_width_of_the_line(name, sigma, velocity):
    grid, z = GRIDS["logarithmic"], 0.12
    moved = (1 + z) * (1 + velocity / LIGHT)
    lines = {
        "h_alpha": {6564.61: 50.0, 6549.86: 7.0, 6585.27: 21.0},
        "o_iii": {5008.24: 50.0, 4960.30: 17.0},
        "h_beta": {4862.68: 50.0},
    }[name]
    flux = (
        5
        + 1e-4 * grid
        + sum(
            line_spectrum(grid, centre=rest * moved, sigma=sigma, flux=total)
            for rest, total in lines.items()
        )
    )
    fit = fit_line(flux[None], grid, z=np.array([z]), line=name)
    # At 600 km/s H-alpha and [N II] are one hump, whose width and velocity trade places.
    blended = name == "h_alpha" and sigma == 600.0
    assert float(fit.sigma[0]) == pytest.approx(sigma, rel=0.02 if blended else 0.005)
    assert float(fit.velocity[0]) == pytest.approx(velocity, abs=20.0 if blended else 1.0)
    flux_tolerance = 0.05 if blended else 0.01
    assert float(fit.flux[0]) == pytest.approx(50.0, rel=flux_tolerance)
    height = 5 + 1e-4 * next(iter(lines)) * (1 + z)
    assert float(fit.equivalent_width[0]) == pytest.approx(
        50.0 / height / (1 + z), rel=flux_tolerance
    )


def test_a_flat_spectrum_has_no_width():
    grid = GRIDS["logarithmic"]
    short = grid[grid < 6500]
    assert torch.isnan(fit_line(np.ones((1, short.size)), short, z=np.zeros(1)).sigma).all()


def test_a_few_missing_pixels_under_broad_bands_are_forgiven():
    grid = GRIDS["linear"]
    flux = 5.0 + 0.001 * (grid - 6000)
    whole = spectrum_features(flux[None], grid, z=np.array([0.1]))
    spoilt, valid = flux.copy(), np.ones((1, grid.size), dtype=bool)
    for bad in (4300.0, 4450.0, 5200.0, 7100.0):
        hidden = np.abs(grid - bad) < 2
        spoilt[hidden], valid[0, hidden] = np.nan, False
    measured = spectrum_features(spoilt[None], grid, z=np.array([0.1]), valid=valid)
    for name, value in whole.items():
        assert torch.allclose(value, getattr(measured, name), atol=0.01), name


def test_an_unmasked_nan_spoils_what_uses_it_and_nothing_else():
    grid = GRIDS["linear"]
    flux = np.ones((2, 1, grid.size))
    flux[1, 0, np.argmin(np.abs(grid - 6564.6 * 1.1))] = np.nan
    measured = spectrum_features(flux, grid, z=np.array([0.1]))
    assert torch.isfinite(measured.h_alpha[:, 0]).tolist() == [True, False]
    for name in ("h_beta", "o_iii", "o_ii", "d4000", "g_minus_r"):
        assert torch.isfinite(getattr(measured, name)).all(), name


@pytest.mark.slow
def test_ten_thousand_spectra_a_second_are_measured():
    import time

    grid = np.tile(GRIDS["logarithmic"], (64, 1))
    flux = torch.ones(200, 64, grid.shape[1])
    start = time.perf_counter()
    spectrum_features(flux, grid, z=np.linspace(0.05, 0.3, 64))
    # One core did 60,000 to 100,000; a sixth leaves room for a busy machine.
    assert 200 * 64 / (time.perf_counter() - start) > 10_000
