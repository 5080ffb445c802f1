"""Highest-density regions: against densities with closed forms, and coverage at its level.

False-alarm budget: a test of one exact sample fails with probability 1e-3; seeds are fixed.
"""

import numpy as np
import pytest
from scipy import stats

from probmmae.calibration.hpd import hpd_coverage, hpd_from_grid
from probmmae.calibration.pit import pit_result

GRID = np.linspace(-8, 8, 1601)


def test_regions_of_a_normal_law_are_central():
    truth = np.array([0.0, -1.0, 2.0, 9.0, np.nan])
    values = hpd_from_grid(np.tile(stats.norm.pdf(GRID), (5, 1)), GRID, truth)
    expected = [*(2 * stats.norm.cdf(np.abs(truth[:3])) - 1), 1.0, np.nan]
    np.testing.assert_allclose(values, expected, atol=2e-5)


def test_regions_of_a_flat_law_hold_nothing_denser_than_itself():
    assert hpd_from_grid([[1.0, 1.0, 1.0]], [0, 1, 2], [0.3]).tolist() == [0.0]
    assert hpd_from_grid([[2.0, 2.0, 1.0, 1.0]], [0, 1, 2, 3], [2.5])[0] == pytest.approx(
        3.5 / 4.5
    )


def bimodal(galaxies, *, seed):
    """Densities with two modes, and truths from them."""
    rng = np.random.default_rng(seed)
    modes = rng.uniform([-5, 1], [-1, 5], size=(galaxies, 2))
    chosen = modes[np.arange(galaxies), (rng.uniform(size=galaxies) < 0.3).astype(int)]
    pdf = 0.7 * stats.norm.pdf(GRID, modes[:, :1], 0.5)
    pdf += 0.3 * stats.norm.pdf(GRID, modes[:, 1:], 0.5)
    return pdf, chosen + 0.5 * rng.normal(size=galaxies)


def test_exact_densities_of_two_modes_pass_and_cover():
    values = hpd_from_grid(bimodal(2000, seed=1)[0], GRID, bimodal(2000, seed=1)[1])
    assert pit_result(values, confidence=0.999).passed
    for result in hpd_coverage(values, confidence=0.999):
        assert result.low < result.level < result.high


def test_densities_that_are_too_narrow_do_not():
    pdf, truth = bimodal(2000, seed=2)
    values = hpd_from_grid(pdf**1.5, GRID, truth)
    assert not pit_result(values).passed
    assert hpd_coverage(values, levels=[0.9])[0].high < 0.9


WRONG = {
    "another grid": lambda: hpd_from_grid(np.ones((2, 3)), [0, 1], [0.5, 0.5]),
    "a falling grid": lambda: hpd_from_grid(np.ones((1, 2)), [1, 0], [0.5]),
    "negative": lambda: hpd_from_grid([[1.0, -1.0]], [0, 1], [0.5]),
    "nothing": lambda: hpd_from_grid([[0.0, 0.0]], [0, 1], [0.5]),
    "missing": lambda: hpd_from_grid([[np.nan, 1.0]], [0, 1], [0.5]),
    "not a probability": lambda: hpd_coverage([1.5]),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"Expected .*; got .*\. "):
        call()
