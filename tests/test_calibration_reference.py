"""Reference posteriors on a linear-Gaussian problem, whose posterior is known exactly."""

import numpy as np
import pytest
from scipy import stats

from probmmae.calibration.coverage import coverage
from probmmae.calibration.pit import pit_from_draws, pit_result
from probmmae.calibration.reference import (
    importance_posterior,
    marginal_draws,
    neighbour_draws,
)
from probmmae.calibration.scores import crps_draws, crps_gaussian_mixture, ratio_of_means

SLOPES = np.array([1.0, -0.5, 2.0])
NOISE = np.array([0.5, 0.3, 1.0])


def linear_gaussian(galaxies, *, seed, bank=200_000):
    """A standard normal scalar seen through three noisy linear bands."""
    rng = np.random.default_rng(seed)
    prior = rng.normal(size=bank)
    truth = rng.normal(size=galaxies)
    flux = truth[:, None] * SLOPES + NOISE * rng.normal(size=(galaxies, 3))
    ivar = np.broadcast_to(NOISE**-2.0, flux.shape).copy()
    return prior[:, None] * SLOPES, prior, flux, ivar, truth


def exact(flux, ivar):
    precision = 1 + (ivar * SLOPES**2).sum(axis=1)
    return (flux * ivar * SLOPES).sum(axis=1) / precision, precision**-0.5


def gaussian_crps(mean, sigma, truth):
    one = np.ones((truth.size, 1))
    return crps_gaussian_mixture(one, mean[:, None], sigma[:, None], truth)


def test_importance_weighting_gives_the_exact_posterior():
    bank, prior, flux, ivar, truth = linear_gaussian(60, seed=1)
    ivar[:20, 0] = 0.0
    flux[:20, 0] = 1e6  # what ivar = 0 hides must not matter
    result = importance_posterior(bank, prior, flux, ivar, truth=truth, levels=(0.05, 0.5, 0.95))
    mean, sigma = exact(np.where(ivar > 0, flux, 0.0), ivar)
    # Monte-Carlo error: sigma over the root of the effective size, five standard deviations.
    error = sigma / np.sqrt(result.effective_size)
    assert result.usable(1000.0).all()
    assert np.all(np.abs(result.mean - mean) < 5 * error)
    for level, quantile in zip((0.05, 0.5, 0.95), result.quantiles.T, strict=True):
        expected = stats.norm.ppf(level, mean, sigma)
        density = stats.norm.pdf(expected, mean, sigma)
        spread = np.sqrt(level * (1 - level)) / density / np.sqrt(result.effective_size)
        assert np.all(np.abs(quantile - expected) < 5 * spread), level
    crps = gaussian_crps(mean, sigma, truth)
    np.testing.assert_allclose(result.crps, crps, atol=0.02)
    np.testing.assert_allclose(result.pit, stats.norm.cdf(truth, mean, sigma), atol=0.03)


def test_crps_of_a_small_bank_is_not_inflated():
    # Effective sizes near 100: the plain estimate would be about 1 % too high.
    ours, exactly = [], []
    for seed in range(60):
        bank, prior, flux, ivar, truth = linear_gaussian(60, seed=100 + seed, bank=300)
        result = importance_posterior(bank, prior, flux, ivar, truth=truth)
        usable = result.usable(30.0)
        ours.append(result.crps[usable])
        exactly.append(gaussian_crps(*exact(flux, ivar), truth)[usable])
    ratio = ratio_of_means("CRPS", np.concatenate(ours), np.concatenate(exactly))
    assert ratio.value == pytest.approx(1.0, abs=5e-3)


def test_a_floor_of_the_noise_enters_width_and_normalisation():
    # One band, noise proportional to the true flux: p(flux | x) = N(x, (f x)^2) on x in [1, 2].
    rng = np.random.default_rng(2)
    prior = rng.uniform(1, 2, 400_000)
    flux = np.array([[1.5]])
    result = importance_posterior(
        prior[:, None], prior, flux, np.array([[1e6]]), fractional_error=0.2
    )
    x = np.linspace(1, 2, 20_001)
    density = stats.norm.pdf(1.5, x, np.hypot(0.2 * x, 1e-3))
    assert result.mean[0] == pytest.approx((x * density).sum() / density.sum(), abs=2e-3)
    assert np.isnan(result.crps).all()


def test_neighbours_and_marginal_are_calibrated_and_ordered_by_information():
    rng = np.random.default_rng(3)
    _, _, train, _, train_truth = linear_gaussian(20_000, seed=4, bank=1)
    _, _, test, ivar, truth = linear_gaussian(2_000, seed=5, bank=1)
    near = neighbour_draws(train, train_truth, test)
    marginal = marginal_draws(train_truth, 2_000, draws=100, generator=rng)
    assert near.shape == marginal.shape == (100, 2_000)
    mean, sigma = exact(test, ivar)
    draws = mean + sigma * rng.normal(size=(100, 2_000))
    crps = [crps_draws(d, truth).mean() for d in (draws, near, marginal)]
    assert crps[0] < crps[1] < 1.1 * crps[0]
    assert crps[2] > 1.5 * crps[1]
    assert pit_result(pit_from_draws(marginal, truth, generator=rng), confidence=0.999).passed
    half = coverage(pit_from_draws(near, truth, generator=rng), levels=[0.9])[0]
    assert half.value == pytest.approx(0.9, abs=0.03)


def test_neighbours_of_spectra_stay_whole_and_keep_their_precision():
    rng = np.random.default_rng(6)
    features, spectra = rng.normal(size=(50, 2)), rng.normal(size=(50, 7)).astype(np.float32)
    features[3, 0] = np.nan
    draws = neighbour_draws(features, spectra, features[:5], neighbours=4)
    assert draws.shape == (4, 5, 7)
    assert draws.dtype == np.float32
    np.testing.assert_array_equal(draws[0], spectra[:5])


WRONG = {
    "too few to be neighbours": lambda: neighbour_draws(
        np.ones((9, 2)), np.ones(9), np.ones((1, 2))
    ),
    "other features": lambda: neighbour_draws(np.ones((200, 2)), np.ones(200), np.ones((1, 3))),
    "other bands": lambda: importance_posterior(
        np.ones((9, 2)), np.ones(9), np.ones((1, 3)), np.ones((1, 3))
    ),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"Expected .*; got .*"):
        call()
