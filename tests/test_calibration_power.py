"""Power: what is said to be found is found as often as said.

Budget: seeds are fixed; measured power may differ from the stated one by 0.08, five binomial
standard deviations at 500 samples.
"""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from probmmae.calibration.departure import departure
from probmmae.calibration.power import detectable, smooth_power


def found(n, *, shift=0.0, width=0.0):
    error = np.random.default_rng(n).normal(size=(500, n))
    pit = stats.norm.cdf(error / (1 + width) + shift)
    return np.mean([not departure(sample).passed for sample in pit])


@pytest.mark.parametrize("kind", ["narrow", "wide", "shift"])
@pytest.mark.parametrize("n", [200, 1000])
def test_the_smallest_error_is_found_with_the_stated_probability(n, kind):
    size = getattr(detectable(n), kind)
    changed = {"shift" if kind == "shift" else "width": size}
    assert found(n, **changed) == pytest.approx(0.9, abs=0.08)


@pytest.mark.parametrize("n", [200, 2000])
def test_the_smallest_coverage_errors_are_found_with_the_stated_probability(n):
    result = detectable(n, level=0.68, power=0.8)
    low, high = stats.binom.ppf([0.005, 0.995], n, 0.68)
    assert stats.binom.cdf(low - 1, n, result.coverage_below) == pytest.approx(0.8, abs=1e-6)
    assert stats.binom.sf(high, n, result.coverage_above) == pytest.approx(0.8, abs=1e-6)


def test_exact_posteriors_are_found_wrong_at_the_stated_rate():
    assert smooth_power(500) == pytest.approx(0.01, abs=1e-4)


def test_errors_shrink_as_the_root_of_the_number():
    few, many = detectable(2000), detectable(200_000)
    assert few.shift / many.shift == pytest.approx(10, rel=0.03)
    assert many.narrow == pytest.approx(-many.wide, rel=0.03)


def test_what_no_error_makes_visible_is_nan():
    result = detectable(30)
    assert np.isnan(result.coverage_above)
    assert np.isnan(result.wide)
    assert smooth_power(30, shift=50.0) == 1.0


def test_the_result_is_json_and_draws_itself():
    result = detectable(1000)
    assert json.loads(json.dumps(result.to_dict()))["n"] == 1000
    axes = Figure().subplots()
    result.plot(axes)
    assert axes.get_legend_handles_labels()[1] == ["1,000 galaxies"]


WRONG = {
    "few galaxies": lambda: detectable(19),
    "a level of a hundred": lambda: detectable(100, level=90.0),
    "few galaxies for the test": lambda: smooth_power(5),
    "no width": lambda: smooth_power(100, width=-1.0),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"Expected .*; got .*\. "):
        call()
