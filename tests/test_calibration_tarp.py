"""TARP: exact posteriors of vectors pass at the stated rate, wrong widths are caught.

False-alarm budget: seeds are fixed; the rate tests allow five binomial standard deviations.
"""

import json
import tracemalloc

import numpy as np
import pytest
from matplotlib.figure import Figure

from probmmae.calibration.tarp import tarp_result


def generator(seed):
    return np.random.default_rng(seed)


def vectors(rng, *, galaxies, width=1.0, draws=100, quantities=4):
    centre = 2 * rng.normal(size=(galaxies, quantities))
    truth = centre + rng.normal(size=centre.shape)
    return centre + width * rng.normal(size=(draws, *centre.shape)), truth


def test_exact_posteriors_pass_at_the_stated_rate():
    rng = generator(1)
    results = [tarp_result(*vectors(rng, galaxies=200), generator=rng) for _ in range(150)]
    alarms = np.mean([not result.passed for result in results])
    assert alarms < 0.01 + 5 * np.sqrt(0.01 * 0.99 / 150)
    pulls = [result.area / result.area_error for result in results]
    assert abs(np.mean(pulls)) < 5 / np.sqrt(150)
    assert np.std(pulls) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("width", "sign"), [(0.8, -1), (1.25, 1)])
def test_wrong_widths_are_caught_with_the_right_sign(width, sign):
    rng = generator(2)
    result = tarp_result(*vectors(rng, galaxies=1500, width=width), generator=rng)
    assert not result.passed
    assert np.sign(result.area) == sign
    assert abs(result.area) > 5 * result.area_error


def test_the_bootstrap_band_holds_the_diagonal_of_exact_posteriors():
    rng = generator(3)
    result = tarp_result(*vectors(rng, galaxies=1000), generator=rng)
    inside = (result.low <= result.levels) & (result.levels <= result.high)
    assert np.mean(inside) > 0.9
    assert (result.coverage[0], result.coverage[-1]) == (0.0, pytest.approx(1.0))


def test_units_of_the_quantities_do_not_matter():
    draws, truth = vectors(generator(4), galaxies=100)
    scale = np.array([1e-3, 1.0, 50.0, 1e6])
    plain = tarp_result(draws, truth, generator=generator(5))
    scaled = tarp_result(draws * scale, truth * scale, generator=generator(5))
    assert np.array_equal(plain.coverage, scaled.coverage)


def test_memory_does_not_grow_with_the_draws_taken():
    rng = generator(6)
    draws, truth = vectors(rng, galaxies=1000, draws=500, quantities=10)
    single = draws.astype(np.float32)
    tracemalloc.start()
    tarp_result(single, truth, generator=rng)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # the draws are 20 MB, and 40 in double precision


def test_the_result_is_json_and_draws_itself():
    rng = generator(8)
    result = tarp_result(*vectors(rng, galaxies=50), generator=rng, name="latents")
    assert len(json.loads(json.dumps(result.to_dict()))["levels"]) == result.levels.size
    axes = Figure().subplots()
    result.plot(axes)
    assert axes.get_legend_handles_labels()[1] == ["exact", "latents"]


ONES = np.ones((20, 30, 2))
WRONG = {
    "draws behind": lambda: tarp_result(np.ones((30, 2, 20)), ONES[0], generator=generator(0)),
    "few draws": lambda: tarp_result(ONES[:5], ONES[0], generator=generator(0)),
    "few galaxies": lambda: tarp_result(ONES[:, :9], ONES[0, :9], generator=generator(0)),
    "a missing draw": lambda: tarp_result(ONES * np.nan, ONES[0], generator=generator(0)),
    "a missing truth": lambda: tarp_result(ONES, ONES[0] * np.nan, generator=generator(0)),
    "other references": lambda: tarp_result(
        ONES, ONES[0], generator=generator(0), references=np.ones((30, 3))
    ),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"Expected .*; got .*\. "):
        call()
