"""Local test: exact posteriors pass at the stated rate; it sees what no bin shows.

False-alarm budget: seeds are fixed; the rate test allows five binomial standard deviations.
"""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from probmmae.calibration.conditional import conditional_result
from probmmae.calibration.local_test import local_test
from probmmae.calibration.pit import pit_result


def generator(seed):
    return np.random.default_rng(seed)


def test_exact_posteriors_pass_at_the_stated_rate():
    rng = generator(1)
    alarms = []
    for _ in range(40):
        inputs = rng.normal(size=(100, 3))
        result = local_test(rng.uniform(size=100), inputs, generator=rng, permutations=99)
        alarms.append(not result.passed)
    assert np.mean(alarms) <= 0.01 + 5 * np.sqrt(0.01 * 0.99 / 40)


def test_a_failure_of_two_inputs_together_is_seen_by_no_bin_but_here():
    rng = generator(2)
    inputs = rng.normal(size=(3000, 4))
    width = np.where(inputs[:, 0] * inputs[:, 1] > 0, 0.82, 1.2)
    pit = stats.norm.cdf(rng.normal(size=3000) / width)
    assert pit_result(pit).passed
    assert conditional_result(pit, {str(i): inputs[:, i] for i in range(4)}).passed
    result = local_test(pit, inputs, generator=rng, permutations=99)
    assert not result.passed
    # The galaxies that it names were not used to find them.
    assert result.narrowest.high < 0.9 < result.widest.value
    assert result.predicted[width < 1, 1].mean() > result.predicted[width > 1, 1].mean() + 0.1


def test_inputs_that_were_not_observed_are_inputs_too():
    rng = generator(3)
    inputs = rng.normal(size=(2000, 2))
    inputs[rng.uniform(size=2000) < 0.5, 1] = np.nan
    pit = rng.uniform(size=2000)
    wrong = np.where(np.isnan(inputs[:, 1]), stats.norm.cdf(stats.norm.ppf(pit) + 0.3), pit)
    assert not local_test(wrong, inputs, generator=rng, permutations=99).passed


def test_the_result_is_json_and_draws_itself():
    rng = generator(4)
    result = local_test(rng.uniform(size=100), rng.normal(size=(100, 2)), generator=rng)
    assert json.loads(json.dumps(result.to_dict()))["permutations"] == 299
    axes = Figure().subplots()
    result.plot(axes)
    assert axes.get_legend_handles_labels()[1] == ["permuted", "observed"]


PIT = np.linspace(0.01, 0.99, 100)


def call(pit=PIT, inputs=PIT[:, None], **options):
    return local_test(pit, inputs, generator=generator(0), **options)


WRONG = {
    "not a probability": lambda: call(PIT + 1),
    "a missing value": lambda: call(np.where(PIT > 0.5, PIT, np.nan)),
    "few galaxies": lambda: call(PIT[:50], PIT[:50, None]),
    "inputs of others": lambda: call(inputs=PIT[:50, None]),
    "a single input without its axis": lambda: call(inputs=PIT),
    "constant inputs": lambda: call(inputs=np.ones((100, 2))),
    "few permutations": lambda: call(permutations=50),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(wrong):
    with pytest.raises(ValueError, match=r"Expected .*; got .*\. "):
        wrong()
