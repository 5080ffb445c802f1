"""Classifier test: exact posteriors pass at the stated rate, and accuracy is the best there is.

False-alarm budget: seeds are fixed; the rate test allows five binomial standard deviations.
"""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from probmmae.calibration.c2st import classifier_test


def generator(seed):
    return np.random.default_rng(seed)


def vectors(rng, *, galaxies, draws=20, quantities=3):
    both = rng.normal(size=(draws + 1, galaxies, quantities))
    return both[1:], both[0]


def test_exact_posteriors_pass_at_the_stated_rate():
    rng = generator(1)
    alarms = []
    for _ in range(40):
        draws, truth = vectors(rng, galaxies=100, quantities=1)
        inputs = rng.normal(size=(100, 2))
        alarms.append(
            not classifier_test(draws, truth, generator=rng, inputs=inputs, flips=99).passed
        )
    assert np.mean(alarms) <= 0.01 + 5 * np.sqrt(0.01 * 0.99 / 40)


def test_the_accuracy_is_that_of_the_best_classifier():
    # Truth N(0, 1), draws N(1, 1): the ROC curve of the difference has area Phi(1 / sqrt(2)).
    draws, truth = vectors(generator(2), galaxies=3000, draws=300, quantities=1)
    result = classifier_test(draws + 1, truth, generator=generator(3), flips=99)
    best = stats.norm.cdf(1 / np.sqrt(2))
    assert result.accuracy.low < best + 0.01
    assert result.accuracy.value == pytest.approx(best, abs=0.03)
    assert result.p_value == 0.01


def test_errors_in_opposite_senses_are_caught_where_the_inputs_tell_them_apart():
    rng = generator(4)
    draws, truth = vectors(rng, galaxies=1500)
    inputs = rng.normal(size=(1500, 2))
    wrong = draws * np.where(inputs[:, :1] > 0, 0.7, 1.4)
    result = classifier_test(wrong, truth, generator=rng, inputs=inputs, flips=99)
    assert not result.passed
    assert result.margins.mean() == pytest.approx(result.statistic)


def test_a_sum_that_every_draw_keeps_does_no_harm():
    draws, truth = vectors(generator(5), galaxies=200)
    closed = [np.concatenate([a, -a.sum(axis=-1, keepdims=True)], axis=-1) for a in (draws, truth)]
    assert classifier_test(*closed, generator=generator(6), flips=99).passed


def test_the_result_is_json_and_draws_itself():
    result = classifier_test(*vectors(generator(7), galaxies=100), generator=generator(7))
    assert json.loads(json.dumps(result.to_dict()))["flips"] == 299
    axes = Figure().subplots()
    result.plot(axes)
    assert axes.get_legend_handles_labels()[1] == ["truth and draw exchanged", "observed"]


DRAWS, TRUTH = vectors(generator(0), galaxies=100)


def call(draws=DRAWS, truth=TRUTH, **options):
    return classifier_test(draws, truth, generator=generator(0), **options)


WRONG = {
    "draws behind": lambda: call(np.moveaxis(DRAWS, 0, -1)),
    "few draws": lambda: call(DRAWS[:9]),
    "few galaxies": lambda: call(DRAWS[:, :50], TRUTH[:50]),
    "missing truths": lambda: call(truth=TRUTH * np.nan),
    "equal draws": lambda: call(np.ones_like(DRAWS)),
    "inputs of others": lambda: call(inputs=TRUTH[:50]),
    "few flips": lambda: call(flips=50),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(wrong):
    with pytest.raises(ValueError, match=r"Expected .*; got .*\. "):
        wrong()
