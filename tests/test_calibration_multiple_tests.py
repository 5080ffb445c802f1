"""Holm's correction: against its definition, and the chance of any false alarm."""

import numpy as np
import pytest

from probmmae.calibration.multiple_tests import holm


def test_adjusted_values_reject_what_stepping_down_rejects():
    rng = np.random.default_rng(1)
    for _ in range(50):
        p_values = rng.uniform(size=7) ** 3
        rejected = np.zeros(7, dtype=bool)
        for rank, test in enumerate(p_values.argsort()):
            if p_values[test] > 0.05 / (7 - rank):
                break
            rejected[test] = True
        assert np.array_equal(holm(p_values) <= 0.05, rejected)


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_the_chance_of_any_false_alarm_is_bounded_however_tests_depend(shared):
    rng = np.random.default_rng(2)
    trials = 1000
    common = rng.uniform(size=(trials, 1)) < shared
    tests = np.where(common, rng.uniform(size=(trials, 1)), rng.uniform(size=(trials, 20)))
    alarms = np.mean([holm(p_values).min() <= 0.05 for p_values in tests])
    assert alarms < 0.05 + 5 * np.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize("wrong", [[0.5, 1.2], [np.nan], [[0.1]]])
def test_wrong_input_is_refused_with_what_was_expected(wrong):
    with pytest.raises(ValueError, match=r"Expected .*; got .*\. "):
        holm(wrong)
