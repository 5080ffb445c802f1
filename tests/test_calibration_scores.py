"""Scores against independent implementations (scoringrules, qp) and against their definitions."""

import numpy as np
import pytest
import qp
import scoringrules
from hypothesis import given
from hypothesis import strategies as st
from qp.metrics.brier import Brier
from qp.metrics.concrete_metric_classes import CDELossMetric
from qp.metrics.point_estimate_metric_classes import PointBias, PointSigmaMAD

from probmmae.calibration import point_redshifts, scores


def generator(seed):
    return np.random.default_rng(seed)


def mixture(galaxies=40, components=4, seed=1):
    rng = generator(seed)
    weights = rng.dirichlet(np.ones(components), galaxies)
    means = rng.uniform(0.2, 0.8, (galaxies, components))
    scales = rng.uniform(0.02, 0.1, (galaxies, components))
    return weights, means, scales, rng.uniform(0.1, 0.9, galaxies)


@pytest.mark.parametrize("draws", [2, 17, 200])
def test_crps_of_draws_is_the_fair_one_of_scoringrules(draws):
    rng = generator(2)
    sample, truth = rng.normal(size=(draws, 6, 5)), rng.normal(size=(6, 5))
    expected = scoringrules.crps_ensemble(truth, sample, m_axis=0, estimator="fair")
    np.testing.assert_allclose(scores.crps_draws(sample, truth), expected, rtol=1e-10, atol=1e-14)


def test_crps_of_few_draws_is_unbiased():
    # Draws and truth standard normal: the expected CRPS is 1 / sqrt(pi) for any number of draws.
    rng = generator(3)
    values = scores.crps_draws(rng.normal(size=(3, 200_000)), rng.normal(size=200_000))
    error = values.std() / np.sqrt(values.size)
    assert abs(values.mean() - 1 / np.sqrt(np.pi)) < 3.5 * error  # false alarm 5e-4


def test_crps_of_a_mixture_is_that_of_scoringrules():
    weights, means, scales, truth = mixture()
    expected = scoringrules.crps_mixnorm(truth, means, scales, weights)
    ours = scores.crps_gaussian_mixture(weights, means, scales, truth)
    np.testing.assert_allclose(ours, expected, rtol=1e-9)


def gridded(points=3001):
    weights, means, scales, truth = mixture()
    ensemble = qp.Ensemble(qp.mixmod, data={"means": means, "stds": scales, "weights": weights})
    grid = np.linspace(-0.5, 1.5, points)
    return ensemble, grid, truth, (weights, means, scales)


def test_crps_of_a_grid_is_that_of_the_mixture():
    ensemble, grid, truth, parts = gridded()
    expected = scores.crps_gaussian_mixture(*parts, truth)
    np.testing.assert_allclose(
        scores.crps_grid(ensemble.cdf(grid), grid, truth), expected, atol=1e-6
    )


@given(st.floats(-1, 2))
def test_crps_of_a_uniform_law_is_its_closed_form(truth):
    # F(x) = x on [0, 1]; inside: (y^3 + (1 - y)^3) / 3, outside the distance is added.
    inside = min(max(truth, 0.0), 1.0)
    expected = (inside**3 + (1 - inside) ** 3) / 3 + abs(truth - inside)
    grid = np.array([0.0, 0.3, 1.0])
    value = scores.crps_grid(grid[None], grid, [truth])[0]
    assert value == pytest.approx(expected, abs=1e-12)


def test_cde_loss_is_that_of_qp():
    ensemble, grid, truth, _ = gridded()
    # qp takes the density at the nearest grid point, so the truths are put on grid points.
    truth = grid[np.searchsorted(grid, truth)]
    expected = CDELossMetric(eval_grid=grid).evaluate(ensemble, truth)
    ours = scores.cde_loss(ensemble.pdf(grid), grid, truth).mean()
    assert ours == pytest.approx(expected, rel=1e-9)


def test_brier_score_is_that_of_qp():
    ensemble, _, truth, _ = gridded()
    edges = np.linspace(-0.5, 1.5, 21)
    chance = np.diff(ensemble.cdf(edges), axis=1)
    chance /= chance.sum(axis=1, keepdims=True)
    outcome = np.searchsorted(edges, truth) - 1
    expected = Brier(chance, np.eye(20)[outcome]).evaluate()
    assert scores.brier_score(chance, outcome).mean() == pytest.approx(expected, rel=1e-9)


def test_log_score_of_a_grid_is_that_of_scoringrules_and_finite_outside():
    ensemble, grid, truth, (weights, means, scales) = gridded()
    pdf = ensemble.pdf(grid)
    expected = scoringrules.logs_mixnorm(truth, means, scales, weights)
    likely = expected < 10
    ours = scores.log_score_grid(pdf, grid, truth)
    assert likely.sum() > 20
    np.testing.assert_allclose(ours[likely], expected[likely], atol=2e-3)
    outside = scores.log_score_grid(pdf[:1], grid, [5.0])
    np.testing.assert_allclose(outside, -np.log(1e-12))


SCORES = {
    "CRPS": lambda m, s, y: scores.crps_gaussian_mixture(np.ones_like(m), m, s, y),
    "CDE loss": lambda m, s, y: scores.cde_loss(normal_pdf(m, s), GRID, y),
    "log score": lambda m, s, y: scores.log_score_grid(normal_pdf(m, s), GRID, y),
}
GRID = np.linspace(-8, 8, 1601)


def normal_pdf(means, scales):
    return np.exp(-0.5 * ((GRID - means) / scales) ** 2) / scales / np.sqrt(2 * np.pi)


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())
@pytest.mark.parametrize("wrong", [(0.0, 0.8), (0.0, 1.25), (0.25, 1.0)])
def test_the_true_law_scores_best(score, wrong):
    truth = generator(5).normal(size=4000)
    means, scales = np.zeros((4000, 1)), np.ones((4000, 1))
    exact = score(means, scales, truth)
    other = score(means + wrong[0], scales * wrong[1], truth)
    assert scores.mean_score("loss", other - exact, confidence=0.998).low > 0


def test_point_statistics_of_known_errors():
    truth = np.zeros(5)
    errors = point_redshifts.scaled_errors([0.0, 0.01, -0.01, 0.2, 0.03], truth)
    assert point_redshifts.sigma_nmad(errors) == pytest.approx(1.4826 * 0.02)
    assert point_redshifts.outlier_fraction(errors) == pytest.approx(0.2)
    assert point_redshifts.outlier_fraction(errors, beyond=0.02) == pytest.approx(0.4)
    assert point_redshifts.bias(errors) == pytest.approx(0.01)
    assert point_redshifts.scaled_errors([3.0], [1.0])[0] == pytest.approx(1.0)


def test_nmad_of_gaussian_errors_is_their_width():
    rng = generator(6)
    truth = rng.uniform(0, 1, 5000)
    estimate = truth + 0.03 * (1 + truth) * rng.normal(size=5000)
    results = {
        s.name: s
        for s in point_redshifts.point_scores(estimate, truth, generator=rng, confidence=0.999)
    }
    assert results["sigma_NMAD"].low < 0.03 < results["sigma_NMAD"].high
    assert results["bias"].low < 0.0 < results["bias"].high


def test_point_statistics_are_those_of_qp():
    # Outliers are not compared: qp counts those beyond three interquartile widths, not a fraction.
    rng = generator(7)
    truth = rng.uniform(0, 2, 1001)
    estimate = truth + 0.05 * (1 + truth) * rng.standard_t(2, size=1001)
    errors = point_redshifts.scaled_errors(estimate, truth)
    mad, middle = PointSigmaMAD().evaluate(estimate, truth), PointBias().evaluate(estimate, truth)
    assert point_redshifts.sigma_nmad(errors) == pytest.approx(mad, rel=1e-6)
    assert point_redshifts.bias(errors) == pytest.approx(middle, abs=1e-6)


def test_ratio_of_means_uses_the_pairing():
    rng = generator(7)
    hard = rng.gamma(1.0, size=2000)
    ratio = scores.ratio_of_means("CRPS", 1.03 * hard + 0.001 * rng.normal(size=2000), hard)
    assert ratio.low > 1.02
    assert ratio.high < 1.04
    unpaired = scores.ratio_of_means("CRPS", 1.03 * rng.permutation(hard), hard)
    assert unpaired.high - unpaired.low > 0.05


def test_intervals_of_ratios_hold_the_truth_as_often_as_they_say():
    rng = generator(8)
    held = []
    for _ in range(400):
        shared = rng.gamma(2.0, size=(2, 500))
        score = scores.ratio_of_means("r", shared[0] + shared[1], 2 * shared[0])
        held.append(score.low <= 1.0 <= score.high)
    assert abs(np.mean(held) - 0.95) < 5 * np.sqrt(0.05 * 0.95 / 400)


WRONG = {
    "one draw": lambda: scores.crps_draws(np.ones((1, 3)), np.ones(3)),
    "draws behind": lambda: scores.crps_draws(np.ones((3, 9)), np.ones(3)),
    "scales of another shape": lambda: scores.crps_gaussian_mixture(
        np.ones((3, 1)), np.ones((3, 1)), np.ones((3, 3)), np.ones(3)
    ),
    "cdf of another grid": lambda: scores.crps_grid(np.ones((3, 9)), np.arange(8), np.ones(3)),
    "pdf of another grid": lambda: scores.cde_loss(np.ones((3, 9)), np.arange(8), np.ones(3)),
    "outcomes as bins": lambda: scores.brier_score(np.eye(3), np.eye(3, dtype=int)),
    "probabilities of nothing": lambda: scores.brier_score(np.ones((2, 3)), [0, 1]),
    "no such bin": lambda: scores.brier_score(np.eye(3), [0, 1, 3]),
    "one score": lambda: scores.mean_score("CRPS", [1.0]),
    "other galaxies": lambda: scores.ratio_of_means("CRPS", [1.0, 2.0], [1.0]),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"Expected .*; got .*"):
        call()
