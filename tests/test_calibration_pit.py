"""PIT and coverage: exact posteriors pass at the stated rate, broken ones are caught.

The posteriors are standard normal with standard normal truths; CDFs are exact, so every departure
is the one put in. False-alarm budget: seeds are fixed; a test of one exact sample may fail with
probability 1e-3 at most, and the rate tests allow five binomial standard deviations.
"""

import json

import numpy as np
import pytest
import qp
from hypothesis import given
from hypothesis import strategies as st
from qp.metrics.goodness_of_fit import goodness_of_fit_metrics
from scipy import stats

from probmmae.calibration.coverage import (
    LEVELS,
    clustered_coverage,
    coverage,
    interval_coverage,
    jeffreys_interval,
    thirds,
)
from probmmae.calibration.pit import (
    ad_distance,
    cvm_distance,
    ks_limit,
    pit_from_draws,
    pit_from_grid,
    pit_result,
)

#: PIT values of truths under a posterior of another width or centre.
BROKEN = {
    "10 % too narrow": lambda truth: stats.norm.cdf(truth, scale=0.9),
    "10 % too wide": lambda truth: stats.norm.cdf(truth, scale=1.1),
    "shifted by 0.1 sigma": lambda truth: stats.norm.cdf(truth, loc=0.1),
}


def generator(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("n", [20, 300, 10_000])
def test_ks_limit_is_the_null_quantile(n):
    trials = 2000 if n < 1000 else 400
    values = np.sort(generator(n).uniform(size=(trials, n)), axis=1)
    steps = np.arange(n + 1) / n
    distance = np.maximum(steps[1:] - values, values - steps[:-1]).max(axis=1)
    alarms = np.mean(distance > ks_limit(n, confidence=0.95))
    assert abs(alarms - 0.05) < 5 * np.sqrt(0.05 * 0.95 / trials)


def test_exact_posteriors_pass_at_the_stated_rate():
    rng = generator(3)
    alarms = [not pit_result(rng.uniform(size=500)).passed for _ in range(800)]
    assert abs(np.mean(alarms) - 0.01) < 5 * np.sqrt(0.01 * 0.99 / 800)


# Power measured on 300 samples, false-alarm rate 1 % for each diagnostic:
#
#     n       too narrow: KS, coverage    too wide: KS, coverage    shifted: KS, coverage
#     1,000   0.19  0.96                  0.09  0.78                0.55  0.01
#     2,000   0.52  1.00                  0.33  1.00                0.88  0.01
#     4,000   0.94  1.00                  0.90  1.00                1.00  0.02
#     6,000   1.00  1.00                  1.00  1.00                1.00  0.01
CAUGHT_BY_KS = {"10 % too narrow": 6_000, "10 % too wide": 6_000, "shifted by 0.1 sigma": 4_000}
# A shift leaves central coverage nearly unchanged: it takes the KS distance to see it.
CAUGHT_BY_COVERAGE = {"10 % too narrow": 2_000, "10 % too wide": 2_000}


@pytest.mark.parametrize(("name", "n"), CAUGHT_BY_KS.items())
def test_ks_catches_what_is_broken(name, n):
    truth = generator(4).normal(size=(50, n))
    caught = [not pit_result(pit).passed for pit in BROKEN[name](truth)]
    assert np.mean(caught) >= 0.96


@pytest.mark.parametrize(("name", "n"), CAUGHT_BY_COVERAGE.items())
def test_coverage_catches_wrong_widths(name, n):
    truth = generator(5).normal(size=(50, n))
    caught = [
        min(result.p_value for result in coverage(pit)) < 0.01 / len(LEVELS)
        for pit in BROKEN[name](truth)
    ]
    assert np.mean(caught) >= 0.96


def test_coverage_of_exact_posteriors_raises_no_more_alarms_than_stated():
    rng = generator(6)
    alarms = [
        min(result.p_value for result in coverage(rng.uniform(size=4000))) < 0.01 / len(LEVELS)
        for _ in range(200)
    ]
    assert np.mean(alarms) < 0.01 + 5 * np.sqrt(0.01 * 0.99 / 200)


@pytest.mark.parametrize("draws", [3, 50])
def test_randomised_ranks_are_uniform_for_any_number_of_draws(draws):
    rng = generator(7)
    both = rng.normal(size=(draws + 1, 20_000))
    pit = pit_from_draws(both[1:], both[0], generator=rng)
    assert pit_result(pit, confidence=0.999).passed


def test_randomised_ranks_of_ties_are_uniform():
    rng = generator(8)
    both = rng.poisson(1.0, size=(21, 20_000))
    pit = pit_from_draws(both[1:], both[0], generator=rng)
    assert pit_result(pit, confidence=0.999).passed


@given(st.floats(-3, 3), st.floats(0.1, 10))
def test_ranks_do_not_depend_on_the_unit(shift, scale):
    both = generator(9).normal(size=(12, 30))
    plain = pit_from_draws(both[1:], both[0], generator=generator(1))
    moved = shift + scale * both
    assert np.array_equal(plain, pit_from_draws(moved[1:], moved[0], generator=generator(1)))


def test_missing_truths_and_draws_are_left_out():
    draws, truth = generator(10).normal(size=(9, 4)), np.array([0.0, np.nan, 0.0, 0.0])
    draws[3, 2] = np.nan
    pit = pit_from_draws(draws, truth, generator=generator(1))
    assert np.isnan(pit).tolist() == [False, True, True, False]
    assert coverage(pit)[0].n == 2


def test_pit_of_a_grid_agrees_with_qp():
    rng = generator(11)
    loc, scale = rng.uniform(0.3, 0.6, (200, 1)), rng.uniform(0.02, 0.1, (200, 1))
    grid = np.linspace(0, 1.2, 20_001)
    ensemble = qp.Ensemble(qp.stats.norm, data={"loc": loc, "scale": scale})
    truth = rng.normal(loc[:, 0], scale[:, 0])
    ours = pit_from_grid(ensemble.cdf(grid), grid, truth)
    theirs = qp.metrics.pit.PIT(ensemble, truth).pit_samps
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_distances_of_pit_values_are_those_of_qp():
    rng = generator(17)
    loc = rng.uniform(0.3, 0.6, (300, 1))
    ensemble = qp.Ensemble(qp.stats.norm, data={"loc": loc, "scale": np.full((300, 1), 0.05)})
    theirs = qp.metrics.pit.PIT(ensemble, rng.normal(loc[:, 0], 0.045))
    values = theirs.pit_samps
    assert pit_result(values).distance == pytest.approx(theirs.evaluate_PIT_KS().statistic, 1e-6)
    ours, expected = cvm_distance(values), theirs.evaluate_PIT_CvM()
    assert ours.value == pytest.approx(expected.statistic, abs=1e-6)
    assert ours.p_value == pytest.approx(expected.pvalue, abs=1e-6)
    # Its PIT class compares with a random sample by Anderson-Darling; this one with the law.
    exactly = goodness_of_fit_metrics["ad"](stats.uniform(), values)
    assert ad_distance(values).value == pytest.approx(exactly, abs=1e-6)


def test_the_anderson_darling_distance_has_its_null_distribution():
    sample = np.sort(generator(18).uniform(size=200))
    weights = 2 * np.arange(1, 201) - 1
    direct = -200 - np.mean(weights * (np.log(sample) + np.log1p(-sample[::-1])))
    assert ad_distance(sample).value == pytest.approx(direct)
    rng = generator(19)
    p_values = [ad_distance(rng.uniform(size=50)).p_value for _ in range(1000)]
    assert pit_result(p_values, confidence=0.999).passed
    assert ad_distance(np.r_[0.0, sample]).p_value == 0.0


@pytest.mark.parametrize("distance", [cvm_distance, ad_distance])
@pytest.mark.parametrize("name", BROKEN)
def test_the_other_distances_catch_what_is_broken(distance, name):
    truth = generator(20).normal(size=(20, 6000))
    assert np.mean([not distance(pit).passed for pit in BROKEN[name](truth)]) >= 0.95


def test_truths_outside_the_grid_have_pit_zero_or_one():
    grid = np.linspace(0, 1, 11)
    pit = pit_from_grid(np.tile(grid, (3, 1)), grid, [-0.1, 0.25, 1.3])
    assert pit.tolist() == [0.0, pytest.approx(0.25), 1.0]
    assert pit_result(pit).edge_fraction == pytest.approx(2 / 3)


def test_jeffreys_interval_holds_the_truth_as_often_as_it_says():
    rng = generator(12)
    inside = rng.binomial(300, 0.9, size=1000)
    ends = [jeffreys_interval(int(k), 300) for k in inside]
    held = np.mean([low <= 0.9 <= high for low, high in ends])
    assert abs(held - 0.95) < 0.02


def test_groups_are_counted_apart():
    pit = np.concatenate([np.full(30, 0.5), np.full(70, 0.01)])
    groups = np.array(["blue"] * 30 + ["red"] * 69 + [""])
    results = {r.group: r for r in coverage(pit, levels=[0.9], groups=groups)}
    assert {name: (r.value, r.n) for name, r in results.items()} == {
        "all": (0.3, 100),
        "blue": (1.0, 30),
        "red": (0.0, 69),
    }


def test_thirds_have_equal_numbers_and_leave_out_what_is_missing():
    labels = thirds([*range(9), np.nan], name="S/N")
    assert labels.tolist() == [
        *["S/N low"] * 3,
        *["S/N middle"] * 3,
        *["S/N high"] * 3,
        "",
    ]


def test_interval_coverage_equals_coverage_of_pit():
    rng = generator(13)
    truth = rng.normal(size=500)
    low, high = stats.norm.ppf([0.05, 0.95])
    ends = interval_coverage(np.full(500, low), np.full(500, high), truth, level=0.9)
    assert ends == coverage(stats.norm.cdf(truth), levels=[0.9])[0]


def test_pixels_of_one_galaxy_do_not_count_as_many_galaxies():
    # Every galaxy's 100 pixels share one truth: the information is that of 400 galaxies.
    rng = generator(14)
    covered = []
    for _ in range(300):
        pit = np.repeat(rng.uniform(size=(400, 1)), 100, axis=1)
        result = clustered_coverage(pit, levels=[0.9])[0]
        covered.append(result.low <= 0.9 <= result.high)
    assert abs(np.mean(covered) - 0.95) < 5 * np.sqrt(0.05 * 0.95 / 300)


def test_independent_pixels_do_count():
    pit = generator(15).uniform(size=(400, 100))
    pit[:, :10] = np.nan
    result = clustered_coverage(pit, levels=[0.9])[0]
    assert result.high - result.low == pytest.approx(4 * np.sqrt(0.09 / 36_000), rel=0.15)


def test_results_are_json():
    pit = generator(16).uniform(size=50)
    results = [pit_result(pit), cvm_distance(pit), ad_distance(pit), *coverage(pit)]
    text = json.dumps([result.to_dict() for result in results])
    assert [entry["n"] for entry in json.loads(text)[:3]] == [50, 50, 50]


WRONG = {
    "draws behind": lambda: pit_from_draws(np.ones((4, 9)), np.ones(4), generator=generator(0)),
    "no draw": lambda: pit_from_draws(np.ones((0, 4)), np.ones(4), generator=generator(0)),
    "falling grid": lambda: pit_from_grid(np.ones((2, 3)), [3, 2, 1], [0, 0]),
    "not a probability": lambda: pit_result([0.5, 1.5]),
    "nothing": lambda: pit_result([np.nan]),
    "one value for a distance": lambda: cvm_distance([0.5]),
    "groups of another length": lambda: coverage([0.5, 0.5], groups=["a"]),
    "a vector of pixels": lambda: clustered_coverage([0.5, 0.5]),
    "one end missing": lambda: interval_coverage([0.0], [1.0, 2.0], [0.5], level=0.9),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"Expected .*; got .*"):
        call()
