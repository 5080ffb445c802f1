"""Calibration by bins: no more alarms than stated over all cells, and the wrong cell is named.

False-alarm budget: seeds are fixed; the rate tests allow five binomial standard deviations.
"""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from probmmae.calibration.cell_map import cell_map
from probmmae.calibration.conditional import conditional_result
from probmmae.calibration.pit import ad_distance


def generator(seed):
    return np.random.default_rng(seed)


def sample(rng, galaxies):
    """Exact PIT values, and conditions that depend on each other."""
    magnitude = rng.normal(20, 1, galaxies)
    conditions = {
        "magnitude": magnitude,
        "S/N": np.exp(22 - magnitude + 0.2 * rng.normal(size=galaxies)),
        "type": np.where(rng.uniform(size=galaxies) < 0.3, "early", "late"),
    }
    return rng.uniform(size=galaxies), conditions


def test_exact_posteriors_pass_in_all_cells_together():
    rng = generator(1)
    alarms = [not conditional_result(*sample(rng, 600)).passed for _ in range(40)]
    assert np.mean(alarms) < 0.01 + 5 * np.sqrt(0.01 * 0.99 / 40)


def test_posteriors_right_on_average_are_caught_and_the_cells_named():
    rng = generator(2)
    pit, conditions = sample(rng, 4000)
    bright = conditions["magnitude"] < 20
    error = stats.norm.ppf(pit)
    wrong = stats.norm.cdf(np.where(bright, error / 0.8, error / 1.25))
    result = conditional_result(wrong, conditions)
    assert not result.passed
    assert result.worst[0].condition in ("magnitude", "S/N")
    first, *_, last = (cell for cell in result.cells if cell.condition == "magnitude")
    assert first.departure.width.high < -0.1
    assert last.departure.width.low > 0.1
    assert first.coverage.value < 0.88
    kinds = [cell for cell in result.cells if cell.condition == "type"]
    assert [cell.label for cell in kinds] == ["early", "late"]
    assert all(abs(cell.departure.width.value) < 0.07 for cell in kinds)


def test_pixels_are_divided_by_wavelength_and_galaxies_stay_whole():
    rng = generator(3)
    galaxies, pixels = 400, 30
    rest = np.linspace(3000, 6000, pixels) * rng.uniform(0.8, 1.0, size=(galaxies, 1))
    error = np.sqrt(0.8) * rng.normal(size=(galaxies, 1))
    error = error + np.sqrt(0.2) * rng.normal(size=(galaxies, pixels))
    conditions = {"wavelength": rest, "redshift": rng.uniform(size=galaxies)}
    assert conditional_result(stats.norm.cdf(error), conditions).passed
    blue = rest < 3300
    result = conditional_result(stats.norm.cdf(np.where(blue, error / 0.7, error)), conditions)
    assert not result.passed
    assert result.worst[0].label == result.cells[0].label
    assert {cell.departure.n for cell in result.cells if cell.condition == "redshift"} == {80}


def test_any_diagnostic_of_pit_values_can_be_the_test():
    pit, conditions = sample(generator(4), 500)
    result = conditional_result(
        pit, conditions, bins=2, test=lambda values: ad_distance(values).p_value
    )
    low = pit[conditions["magnitude"] < np.median(conditions["magnitude"])]
    assert result.cells[0].p_value == pytest.approx(ad_distance(low).p_value)
    assert result.cells[0].departure.n == 250


def test_the_map_frames_the_cell_that_is_wrong():
    rng = generator(5)
    pit, conditions = sample(rng, 6000)
    z = rng.uniform(size=6000)
    corner = (z > 2 / 3) & (conditions["magnitude"] > np.quantile(conditions["magnitude"], 2 / 3))
    wrong = np.where(corner, stats.norm.cdf(stats.norm.ppf(pit) / 0.7), pit)
    found = cell_map(wrong, ("z", z), ("magnitude", conditions["magnitude"]), bins=3)
    assert not found.passed
    assert found.result.worst[0].label == f"{found.rows[2]} | {found.columns[2]}"
    assert [cell.adjusted <= 0.01 for cell in found.result.cells] == [False] * 8 + [True]
    axes = Figure().subplots()
    found.plot(axes)
    framed = [text for text in axes.texts if text.get_bbox_patch() is not None]
    assert [text.get_position() for text in framed] == [(2, 2)]
    assert json.loads(json.dumps(found.to_dict()))["names"] == ["z", "magnitude"]


def test_missing_conditions_and_small_cells_are_left_out():
    pit = generator(6).uniform(size=300)
    kind = np.array(["rare"] * 30 + ["common"] * 250 + [""] * 20)
    z = np.where(np.arange(300) < 100, np.nan, np.arange(300.0))
    result = conditional_result(pit, {"type": kind, "z": z, "void": z * np.nan}, bins=2)
    assert [(cell.condition, cell.departure.n) for cell in result.cells] == [
        ("type", 250),
        ("z", 100),
        ("z", 100),
    ]
    assert result.left_out == ("type rare",)


def test_the_result_is_json_and_draws_itself():
    result = conditional_result(*sample(generator(7), 400))
    assert len(json.loads(json.dumps(result.to_dict()))["cells"]) == 12
    axes = Figure().subplots()
    result.plot(axes)
    assert len(axes.get_yticklabels()) == 12


PIT = np.linspace(0.01, 0.99, 100)
WRONG = {
    "not a probability": lambda: conditional_result(PIT + 1, {"z": PIT}),
    "other galaxies": lambda: conditional_result(PIT, {"z": PIT[:9]}),
    "nothing to divide by": lambda: conditional_result(PIT, {}),
    "one bin": lambda: conditional_result(PIT, {"z": PIT}, bins=1),
    "cells too small": lambda: conditional_result(PIT, {"z": PIT}, fewest=60),
    "cells of too few": lambda: conditional_result(PIT, {"z": PIT}, fewest=9),
    "a map of other galaxies": lambda: cell_map(PIT, ("z", PIT), ("m", PIT[:9])),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"Expected .*; got .*\. "):
        call()
