"""Shift and width error: recovered where they are put in, and a test at its stated rate.

False-alarm budget: seeds are fixed; the rate tests allow five binomial standard deviations.
"""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from probmmae.calibration.departure import departure, legendre


def generator(seed):
    return np.random.default_rng(seed)


def dependent(rng, galaxies, *, pixels=20):
    """Normal errors of pixels of which nine tenths of the variance are common to a galaxy."""
    common = rng.normal(size=(galaxies, 1))
    return np.sqrt(0.9) * common + np.sqrt(0.1) * rng.normal(size=(galaxies, pixels))


@pytest.mark.parametrize(
    ("shift", "width"), [(0.0, 0.0), (0.1, 0.0), (-0.2, 0.0), (0.0, -0.1), (0.0, 0.1)]
)
def test_what_was_put_in_comes_out(shift, width):
    error = generator(1).normal(size=100_000)
    result = departure(stats.norm.cdf((error + shift) / (1 + width)))
    assert result.shift.value == pytest.approx(shift, abs=0.015)
    assert result.width.value == pytest.approx(width, abs=0.02)
    assert result.passed == (shift == width == 0)


@pytest.mark.parametrize("galaxies", [30, 300])
def test_exact_posteriors_pass_at_the_stated_rate(galaxies):
    rng = generator(2)
    alarms = np.mean([not departure(rng.uniform(size=galaxies)).passed for _ in range(500)])
    assert alarms < 0.01 + 5 * np.sqrt(0.01 * 0.99 / 500)


@pytest.mark.parametrize("galaxies", [50, 300])
def test_dependent_pixels_count_as_galaxies(galaxies):
    rng = generator(3)
    results = []
    for _ in range(300):
        pit = stats.norm.cdf(dependent(rng, galaxies))
        pit[rng.uniform(size=pit.shape) < 0.2] = np.nan
        results.append(departure(pit))
    alarms = np.mean([not result.passed for result in results])
    assert alarms < 0.01 + 5 * np.sqrt(0.01 * 0.99 / 300)
    held = np.mean([result.shift.low <= 0 <= result.shift.high for result in results])
    assert held > 0.99 - 5 * np.sqrt(0.01 * 0.99 / 300)


def test_a_wrong_width_of_dependent_pixels_is_caught():
    result = departure(stats.norm.cdf(dependent(generator(4), 3000) / 0.85))
    assert not result.passed
    assert result.width.low < -0.15 < result.width.high


def test_polynomials_are_orthonormal():
    grid = (np.arange(20_000) + 0.5) / 20_000
    values = legendre(2 * grid - 1)
    np.testing.assert_allclose(values @ values.T / grid.size, np.eye(4), atol=1e-6)
    np.testing.assert_allclose(values.mean(axis=1), 0, atol=1e-6)


def test_the_result_is_json_and_draws_itself():
    result = departure(generator(5).uniform(size=50))
    assert json.loads(json.dumps(result.to_dict()))["n"] == 50
    axes = Figure().subplots()
    result.plot(axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "shift, sigma",
        "width error",
    ]


WRONG = {
    "not a probability": lambda: departure(np.full(50, 1.5)),
    "few galaxies": lambda: departure(np.full(19, 0.5)),
    "few galaxies with a value": lambda: departure(np.where(np.arange(50) < 9, 0.5, np.nan)),
    "three axes": lambda: departure(np.full((30, 2, 2), 0.5)),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"Expected .*; got .*\. "):
        call()
