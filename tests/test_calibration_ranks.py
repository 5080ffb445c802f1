"""SBC ranks: exact posteriors stay in the band as often as it says, broken ones leave it.

False-alarm budget: seeds are fixed; the rate tests allow five binomial standard deviations.
"""

import itertools
import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from probmmae.calibration import ranks


def generator(seed):
    return np.random.default_rng(seed)


def test_the_probability_of_the_band_is_that_of_counting_all_outcomes():
    # Three galaxies, three draws: every one of the 4^3 tables of ranks is equally likely.
    tables = np.array(list(itertools.product(range(4), repeat=3)))
    results = [ranks.rank_result(table, draws=3) for table in tables]
    p_values = np.array([result.p_value for result in results])
    for p_value in np.unique(p_values):
        assert np.mean(p_values <= p_value * (1 + 1e-9)) == pytest.approx(p_value)


def test_the_band_of_one_point_is_the_binomial_interval():
    result = ranks.rank_result(np.arange(40) % 2, draws=1, confidence=0.95)
    low, high = stats.binom.ppf([0.025, 0.975], 40, 0.5)
    assert (result.lower[0], result.upper[0]) == (low / 40, high / 40)


@pytest.mark.parametrize(("n", "draws", "confidence"), [(60, 20, 0.9), (400, 99, 0.99)])
def test_exact_posteriors_stay_inside_at_the_stated_rate(n, draws, confidence):
    rng = generator(1)
    trials = 300
    results = [
        ranks.rank_result(rng.integers(draws + 1, size=n), draws=draws, confidence=confidence)
        for _ in range(trials)
    ]
    inside = [np.all((r.lower <= r.ecdf) & (r.ecdf <= r.upper)) for r in results]
    assert inside == [result.passed for result in results]
    # Counts are whole numbers, so the band holds a little more than it says.
    rate, alarms = 1 - confidence, 1 - np.mean(inside)
    error = np.sqrt(rate * confidence / trials)
    assert 0.6 * rate - 5 * error < alarms < rate + 5 * error


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_wrong_widths_leave_the_band(factor):
    rng = generator(2)
    caught = []
    for _ in range(10):
        draws = factor * rng.normal(size=(99, 3000))
        rank = ranks.sbc_ranks(draws, rng.normal(size=3000), generator=rng)
        caught.append(not ranks.rank_result(rank, draws=99).passed)
    assert np.mean(caught) >= 0.9


def test_ranks_count_draws_below_and_break_ties_at_random():
    rng = generator(3)
    truth = np.array([0.5, 2.5, -1.0])
    draws = np.tile(np.arange(3.0)[:, None], (1, 3))
    assert ranks.sbc_ranks(draws, truth, generator=rng).tolist() == [1, 3, 0]
    tied = ranks.sbc_ranks(np.zeros((4, 5000)), np.zeros(5000), generator=rng)
    assert ranks.rank_result(tied, draws=4, confidence=0.999).passed


def test_a_hopeless_sample_has_a_tiny_p_value_and_a_huge_one_takes_no_time():
    result = ranks.rank_result(np.zeros(10_000, dtype=int), draws=1000)
    assert 0 <= result.p_value < 1e-100
    assert not result.passed
    assert ranks.rank_result(np.arange(200_000) % 1001, draws=1000).passed


def test_the_result_is_json_and_draws_itself():
    result = ranks.rank_result(np.arange(50) % 10, draws=9, name="redshift")
    assert json.loads(json.dumps(result.to_dict()))["passed"] is True
    axes = Figure().subplots()
    result.plot(axes)
    assert axes.get_legend_handles_labels()[1] == ["exact, 99%", "redshift"]


WRONG = {
    "draws behind": lambda: ranks.sbc_ranks(np.ones((4, 9)), np.ones(4), generator=generator(0)),
    "no draw": lambda: ranks.sbc_ranks(np.ones((0, 4)), np.ones(4), generator=generator(0)),
    "a missing draw": lambda: ranks.sbc_ranks(
        np.full((3, 4), np.nan), np.ones(4), generator=generator(0)
    ),
    "not ranks": lambda: ranks.rank_result([0.5, 0.2], draws=9),
    "too high": lambda: ranks.rank_result([0, 10], draws=9),
    "one galaxy": lambda: ranks.rank_result([1], draws=9),
    "many quantities": lambda: ranks.rank_result([[1, 2], [3, 4]], draws=9),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"Expected .*; got .*\. "):
        call()
