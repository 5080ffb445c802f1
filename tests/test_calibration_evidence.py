"""Evidence on whole predictions, and the failure that only whole draws can show.

Posteriors are exact by construction, then broken; seeds are fixed and each pass of an exact
posterior uses a band with a false-alarm rate of 1e-3 or less (the PIT band of 1e-2 once).
"""

import json

import numpy as np
import pytest
from scipy import interpolate, stats

from probmmae.calibration.coverage import thirds
from probmmae.calibration.evidence import (
    cumulate,
    density_evidence,
    draw_evidence,
    grid_quantile,
    pixel_evidence,
)
from probmmae.calibration.features import FEATURES, spectrum_features
from probmmae.calibration.pit import pit_from_draws
from probmmae.calibration.reference import residual_draws
from probmmae.calibration.scores import crps_draws

GRID = 10 ** np.arange(np.log10(3622.0), np.log10(10354.0), 2e-4)


def coherent_spectra(rng, *, draws, galaxies):
    """Spectra around 5, correlated over tens of pixels, with an uncertain H-alpha."""
    shape = (draws, galaxies)
    knots = np.linspace(GRID[0], GRID[-1], 40)
    smooth = interpolate.make_interp_spline(knots, rng.normal(size=(*shape, 40)), axis=-1)(GRID)
    line = np.exp(-0.5 * ((GRID / 1.1 - 6564.6) / 2.5) ** 2)
    return 5 + 0.2 * smooth + rng.normal(size=shape)[..., None] * line


def broken_pixels(draws, rng):
    """The same marginal law of every pixel, all correlation between pixels destroyed."""
    return rng.permuted(draws, axis=0)


@pytest.fixture(scope="module")
def spectra():
    rng = np.random.default_rng(1)
    everything = coherent_spectra(rng, draws=61, galaxies=300)
    return everything[1:], everything[0]


def measured(draws, truth):
    z = np.full(truth.shape[0], 0.1)
    of_draws, of_truth = (spectrum_features(flux, GRID, z=z) for flux in (draws, truth))
    return {name: (getattr(of_draws, name), getattr(of_truth, name)) for name in FEATURES}


@pytest.mark.parametrize("name", FEATURES)
def test_features_of_coherent_draws_are_calibrated(spectra, name):
    rng = np.random.default_rng(2)
    draws, truth = measured(*spectra)[name]
    evidence = draw_evidence(name, draws, truth=truth, generator=rng)
    # Binomial probabilities of six features at two levels: each test at 1e-4.
    assert evidence.at(0.5).p_value > 1e-4
    assert evidence.at(0.9).p_value > 1e-4


def test_pixels_cannot_see_destroyed_correlations_and_features_can(spectra):
    rng = np.random.default_rng(3)
    draws, truth = spectra
    broken = broken_pixels(draws, rng)
    # Every fifth pixel is enough to judge pixels.
    some, of_truth = broken[..., ::5], truth[:, ::5]
    pit = pit_from_draws(some, of_truth, generator=rng)
    rest = np.broadcast_to(GRID[::5] / 1.1, of_truth.shape)
    bands = pixel_evidence(
        pit, crps_draws(some, of_truth), rest_wavelength=rest, edges=[3600, 5000, 6000, 8000]
    )
    assert len(bands) == 3
    for band in bands:
        assert all(result.p_value > 1e-3 / 12 for result in band.coverage)
    for name in ("h_alpha", "d4000", "g_minus_r"):
        of_draws, of_truth = measured(broken, truth)[name]
        evidence = draw_evidence(name, of_draws, truth=of_truth, generator=rng)
        assert evidence.at(0.9).value < 0.75, name
        assert not evidence.pit.passed, name


def test_groups_and_missing_galaxies():
    rng = np.random.default_rng(4)
    both = rng.normal(size=(51, 300))
    both[0, 7] = np.nan
    groups = {
        "S/N": thirds(np.arange(300), name="S/N"),
        "colour": np.where(np.arange(300) < 100, "blue", "red"),
    }
    evidence = draw_evidence(
        "x", both[1:], truth=both[0], generator=rng, groups=groups, levels=(0.5, 0.9)
    )
    assert evidence.pit.n == 299
    assert evidence.at(0.9, group="S/N low").n == 99
    assert evidence.at(0.5, group="red").n == 200
    assert len(evidence.coverage) == 2 * (1 + 3 + 2)
    assert json.loads(json.dumps(evidence.to_dict()))["scores"][0]["name"] == "CRPS"
    with pytest.raises(KeyError, match=r"Expected .*; got 0.9, 'green'"):
        evidence.at(0.9, group="green")


def test_density_evidence_of_exact_redshifts():
    rng = np.random.default_rng(5)
    grid = np.linspace(0, 1, 1001)
    centre, width = rng.uniform(0.3, 0.6, 1000), rng.uniform(0.02, 0.06, 1000)
    truth = rng.normal(centre, width)
    pdf = stats.norm.pdf(grid, centre[:, None], width[:, None])
    evidence = density_evidence("z", pdf, grid=grid, truth=truth, generator=rng)
    scores = {score.name: score for score in evidence.scores}
    assert evidence.pit.passed
    assert evidence.at(0.9).p_value > 1e-3
    # Of an exact Gaussian: CRPS is sigma / sqrt(pi), NLL is log(sigma sqrt(2 pi e)), CDE loss is
    # -1 / (2 sigma sqrt(pi)), on average; 5 standard errors are 2.55 times the 95 % half-width.
    expected = {
        "CRPS": np.mean(width) / np.sqrt(np.pi),
        "NLL": np.mean(np.log(width * np.sqrt(2 * np.pi * np.e))),
        "CDE loss": -np.mean(0.5 / width / np.sqrt(np.pi)),
    }
    for name, value in expected.items():
        reach = 2.55 * (scores[name].high - scores[name].low) / 2
        assert scores[name].value == pytest.approx(value, abs=reach), name
    assert scores["sigma_NMAD"].n == 1000


def test_quantiles_invert_the_cdf():
    grid = np.linspace(-5, 5, 2001)
    pdf = stats.norm.pdf(grid, [[0.0], [1.0]], [[1.0], [0.5]])
    cdf = cumulate(pdf, grid)
    assert cdf[:, -1].tolist() == [1.0, 1.0]
    for level in (0.05, 0.5, 0.95):
        expected = stats.norm.ppf(level, [0.0, 1.0], [1.0, 0.5])
        np.testing.assert_allclose(grid_quantile(cdf, grid, level), expected, atol=1e-4)


def test_residual_draws_are_whole():
    rng = np.random.default_rng(6)
    residuals = np.arange(12.0).reshape(4, 3)
    draws = residual_draws(np.zeros((5, 3)), residuals, draws=7, generator=rng)
    assert draws.shape == (7, 5, 3)
    assert {tuple(row) for row in draws.reshape(-1, 3)} == {tuple(row) for row in residuals}
    with pytest.raises(ValueError, match=r"Expected .*; got .*"):
        residual_draws(np.zeros((5, 2)), residuals, draws=7, generator=rng)
