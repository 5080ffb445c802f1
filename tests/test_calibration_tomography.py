"""Tomographic bins: exact posteriors pass whatever the selection, a bias is measured.

False-alarm budget: seeds are fixed; the rate test allows five binomial standard deviations.
"""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from probmmae.calibration.tomography import tomography

EDGES = [0.2, 0.4, 0.6, 0.8]


def redshifts(rng, galaxies):
    """Posterior means and truths that scatter around them."""
    mean = rng.uniform(0.1, 0.9, galaxies)
    return mean, mean + 0.03 * (1 + mean) * rng.normal(size=galaxies)


def test_exact_posteriors_pass_at_the_stated_rate():
    rng = np.random.default_rng(1)
    alarms = []
    for _ in range(200):
        mean, truth = redshifts(rng, 600)
        alarms.append(not tomography(mean, truth, point=mean, edges=EDGES).passed)
    assert np.mean(alarms) < 0.01 + 5 * np.sqrt(0.01 * 0.99 / 200)


def test_a_bias_is_measured_in_its_bin():
    mean, truth = redshifts(np.random.default_rng(2), 40_000)
    moved = mean + np.where(mean > 0.6, 0.004 * (1 + mean), 0.0)
    result = tomography(moved, truth, point=mean, edges=EDGES)
    assert [part.bias.low < 0 < part.bias.high for part in result.bins] == [True, True, False]
    assert result.bins[2].bias.value == pytest.approx(0.004, abs=0.001)
    assert (result.passed, result.met) == (False, False)
    assert result.bins[1].mean_true == pytest.approx(0.5, abs=0.01)


def test_the_requirement_is_met_only_where_the_sample_can_tell():
    mean, truth = redshifts(np.random.default_rng(3), 400)
    few = tomography(mean, truth, point=mean, edges=EDGES)
    assert (few.passed, few.met) == (True, False)
    assert tomography(mean, truth, point=mean, edges=EDGES, requirement=0.02).met


def test_empty_bins_are_missing_and_the_result_is_json_and_draws_itself():
    mean, truth = redshifts(np.random.default_rng(4), 500)
    result = tomography(mean, truth, point=mean, edges=[0.2, 0.5, 2.0, 3.0])
    assert [(part.low, part.high) for part in result.bins] == [(0.2, 0.5), (0.5, 2.0)]
    assert len(json.loads(json.dumps(result.to_dict()))["bins"]) == 2
    axes = Figure().subplots()
    result.plot(axes)
    assert axes.get_legend_handles_labels()[1] == ["requirement"]


Z = np.linspace(0.1, 0.9, 100)
WRONG = {
    "other galaxies": lambda: tomography(Z, Z[:9], point=Z, edges=EDGES),
    "missing": lambda: tomography(Z, Z * np.nan, point=Z, edges=EDGES),
    "falling edges": lambda: tomography(Z, Z, point=Z, edges=[0.5, 0.2]),
    "one edge": lambda: tomography(Z, Z, point=Z, edges=[0.5]),
    "few galaxies": lambda: tomography(Z, Z, point=Z, edges=[0.5, 0.51]),
    "no galaxies": lambda: tomography(Z, Z, point=Z, edges=[2, 3]),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"Expected .*; got .*\. "):
        call()
