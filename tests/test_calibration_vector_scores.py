"""Energy and variogram scores: against scoringrules, and against what they must see.

False-alarm budget: seeds are fixed; the rate tests allow five binomial standard deviations.
"""

import json

import numpy as np
import pytest
import scoringrules
from matplotlib.figure import Figure

from probmmae.calibration.scores import crps_draws
from probmmae.calibration.vector_scores import energy_score, variogram_score


def generator(seed):
    return np.random.default_rng(seed)


def spectra(rng, *, galaxies, draws=30, pixels=12):
    """Draws and truths whose pixels are correlated over four steps."""
    index = np.arange(pixels)
    covariance = np.exp(-np.abs(index[:, None] - index) / 4)
    both = rng.normal(size=(draws + 1, galaxies, pixels)) @ np.linalg.cholesky(covariance).T
    return both[1:], both[0]


@pytest.mark.parametrize("draws", [2, 3, 9])
def test_the_energy_score_is_the_fair_one_of_scoringrules(draws):
    values, truth = spectra(generator(1), galaxies=20, draws=draws)
    expected = scoringrules.es_ensemble(truth, values, m_axis=0, v_axis=-1, estimator="fair")
    np.testing.assert_allclose(energy_score(values, truth).scores, expected, rtol=1e-10)


def test_the_energy_score_of_many_draws_is_unbiased():
    values, truth = spectra(generator(2), galaxies=300, draws=60)
    expected = scoringrules.es_ensemble(truth, values, m_axis=0, v_axis=-1, estimator="fair")
    gap = energy_score(values, truth).scores - expected
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(300)
    assert gap.std() < 0.1 * expected.std()


def test_the_energy_score_of_scalars_is_the_crps():
    values, truth = spectra(generator(3), galaxies=30, draws=8, pixels=1)
    np.testing.assert_allclose(
        energy_score(values[..., 0], truth[..., 0]).scores,
        crps_draws(values[..., 0], truth[..., 0]),
        rtol=1e-10,
    )


def test_the_variogram_score_is_that_of_scoringrules_without_its_bias():
    values, truth = spectra(generator(4), galaxies=20, draws=15, pixels=5)
    pairs = [(i, j) for i in range(5) for j in range(5)]
    ours = variogram_score(values, truth, pairs=pairs).scores
    biased = scoringrules.vs_ensemble(truth, values, m_axis=0, v_axis=-1, p=0.5)
    apart = np.sqrt(np.abs(values[..., :, None] - values[..., None, :]))
    bias = apart.var(axis=0, ddof=1).sum(axis=(1, 2)) / 15
    np.testing.assert_allclose(25 * ours, biased - bias, rtol=1e-9)


def test_pairs_are_near_ones_by_default_and_blocks_do_not_matter(monkeypatch):
    values, truth = spectra(generator(5), galaxies=20, pixels=6)
    pairs = [(i, i + step) for step in (1, 2, 4) for i in range(6 - step)]
    whole = variogram_score(values, truth)
    np.testing.assert_allclose(
        whole.scores, variogram_score(values, truth, pairs=pairs).scores, rtol=1e-12
    )
    monkeypatch.setattr("probmmae.calibration.vector_scores.BLOCK", 60)
    small = variogram_score(values, truth)
    np.testing.assert_allclose(whole.excesses, small.excesses, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("score", [energy_score, variogram_score])
def test_exact_posteriors_pass_at_the_stated_rate(score):
    rng = generator(6)
    results = [score(*spectra(rng, galaxies=60, pixels=4)) for _ in range(150)]
    alarms = np.mean([not result.passed for result in results])
    assert alarms < 0.01 + 5 * np.sqrt(0.01 * 0.99 / 150)


def test_the_excess_has_the_sign_of_the_error():
    values, truth = spectra(generator(7), galaxies=500)
    for score in (energy_score, variogram_score):
        assert score(0.8 * values, truth).excess.low > 0
        assert score(1.25 * values, truth).excess.high < 0


def test_the_variogram_score_sees_destroyed_correlations_and_the_energy_score_a_shift():
    values, truth = spectra(generator(8), galaxies=300)
    # Each pixel keeps its own draws, of other spectra than its neighbours'.
    order = generator(9).permuted(np.tile(np.arange(30)[:, None], (1, 12)), axis=0)
    shuffled = np.stack([values[order[:, pixel], :, pixel] for pixel in range(12)], axis=-1)
    assert variogram_score(shuffled, truth).p_value < 1e-6
    assert crps_draws(shuffled, truth).mean() == pytest.approx(crps_draws(values, truth).mean())
    assert not energy_score(values + 0.5, truth).passed
    assert variogram_score(values + 0.5, truth).passed


def test_results_are_json_and_draw_themselves():
    result = variogram_score(*spectra(generator(10), galaxies=30), name="spectrum")
    assert json.loads(json.dumps(result.to_dict()))["excess"]["name"] == "spectrum - expected"
    axes = Figure().subplots()
    result.plot(axes)
    assert axes.get_xlabel() == "spectrum - expected, a galaxy"


VALUES, TRUTH = spectra(generator(0), galaxies=20, draws=3)
WRONG = {
    "draws behind": lambda: energy_score(np.ones((20, 12, 3)), TRUTH),
    "one draw": lambda: energy_score(VALUES[:1], TRUTH),
    "few galaxies": lambda: energy_score(VALUES[:, :9], TRUTH[:9]),
    "missing": lambda: energy_score(VALUES * np.nan, TRUTH),
    "missing pixels": lambda: variogram_score(VALUES, TRUTH * np.nan),
    "one pixel": lambda: variogram_score(VALUES[..., :1], TRUTH[:, :1]),
    "a pair beyond": lambda: variogram_score(VALUES, TRUTH, pairs=[(0, 12)]),
    "no pairs": lambda: variogram_score(VALUES, TRUTH, pairs=np.zeros((0, 2), dtype=int)),
    "triples": lambda: variogram_score(VALUES, TRUTH, pairs=[(0, 1, 2)]),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"Expected .*; got .*\. "):
        call()
