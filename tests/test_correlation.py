"""Chi-square of maps whose spaxels share their noise."""

import numpy as np
import pytest
from scipy import stats

from probmmae.correlation import chi_square, from_pairs

SHAPE = (6, 7)


def blurred(length):
    """Pairs (x, y, x, y, rho) of a Gaussian correlation on the grid."""
    y, x = (each.ravel() for each in np.indices(SHAPE))
    apart = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    rho = np.exp(-0.5 * apart / length**2)
    i, j = np.nonzero(np.triu(rho > 1e-6))
    places = np.stack([x, y], 1)
    return from_pairs(places[i], places[j], rho[i, j], SHAPE), rho


def test_independent_spaxels_are_the_sum_of_squares():
    rng = np.random.default_rng(0)
    residual, ivar = rng.normal(size=(3, *SHAPE)), rng.uniform(1, 2, size=(3, *SHAPE))
    value, freedom = chi_square(residual, ivar, None)
    assert np.allclose(value, (residual**2 * ivar).sum((1, 2)))
    assert freedom == 42


def test_mild_correlation_is_the_inverse_covariance():
    correlation, rho = blurred(0.5)
    rng = np.random.default_rng(0)
    residual, ivar = rng.normal(size=SHAPE), rng.uniform(1, 2, size=SHAPE)
    scaled = (residual * np.sqrt(ivar)).ravel()
    value, freedom = chi_square(residual, ivar, correlation)
    assert value == pytest.approx(scaled @ np.linalg.solve(rho, scaled))
    assert freedom == 42


@pytest.mark.parametrize("length", [0.5, 1.2, 2.0])
def test_noise_of_that_correlation_has_chi_square(length):
    """2,000 maps; p over 1e-4 for each of three lengths: one false alarm in 3,000."""
    correlation, rho = blurred(length)
    share, mode = np.linalg.eigh(rho)
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(2000, 42)) @ (mode * np.sqrt(np.maximum(share, 0))).T
    value, freedom = chi_square(3 * maps.reshape(-1, *SHAPE), np.full((2000, *SHAPE), 1 / 9),
                                correlation)  # fmt: skip
    assert freedom < 42 or length == 0.5
    assert stats.kstest(value, stats.chi2(freedom).cdf).pvalue > 1e-4
    naive, _ = chi_square(maps.reshape(-1, *SHAPE), np.ones((2000, *SHAPE)), None)
    if length > 1:
        assert stats.kstest(naive, stats.chi2(42).cdf).pvalue < 1e-4


def test_missing_spaxels_do_not_count():
    correlation, _ = blurred(0.5)
    residual, ivar = np.ones(SHAPE), np.ones(SHAPE)
    residual[0, 0], ivar[0, 0] = np.nan, 1
    residual[1, 1], ivar[1, 1] = 1e9, 0
    value, freedom = chi_square(residual, ivar, correlation)
    assert np.isfinite(value)
    assert freedom == 40
    where = np.zeros(SHAPE, bool)
    where[3, 3] = True
    assert chi_square(residual, ivar, correlation, where=where) == (pytest.approx(1.0), 1)


def test_error_of_a_sum_holds_the_covariance():
    correlation, rho = blurred(1.2)
    weights = np.ones(SHAPE)
    assert correlation.error_of_sum(weights, np.full(SHAPE, 0.25)) == pytest.approx(
        2 * np.sqrt(rho.sum()), rel=1e-4
    )


def test_errors():
    with pytest.raises(ValueError, match="grid of 6 x 7"):
        from_pairs(np.array([[7, 0]]), np.array([[7, 0]]), np.array([1.0]), SHAPE)
    with pytest.raises(ValueError, match="within -1 and 1"):
        from_pairs(np.array([[0, 0]]), np.array([[0, 1]]), np.array([1.5]), SHAPE)
    correlation, _ = blurred(0.5)
    with pytest.raises(ValueError, match="grid of the correlations"):
        chi_square(np.ones((2, 2)), np.ones((2, 2)), correlation)
    with pytest.raises(ValueError, match="at least one spaxel"):
        chi_square(np.ones(SHAPE), np.zeros(SHAPE), correlation)
