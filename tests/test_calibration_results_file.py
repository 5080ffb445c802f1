"""The shape of benchmark results, and that a file is written whole or not at all."""

import importlib.util
import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def results_file():
    path = Path(__file__).parents[1] / "benchmarks" / "results_file.py"
    spec = importlib.util.spec_from_file_location("results_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_file_has_the_agreed_shape(results_file, tmp_path):
    value = 0.9
    entry = results_file.figure(
        "coverage of 90 %",
        value,
        interval=(0.88, 0.92),
        n=2000,
        goal="0.88 to 0.92",
        met=results_file.within(value, 0.88, 0.92),
    )
    path = results_file.write_results(
        "trial", "make trial", seed=3, figures=[entry], folder=tmp_path / "new"
    )
    content = json.loads(path.read_text())
    assert list(content) == ["command", "commit", "seed", "versions", "figures"]
    assert content["figures"] == [
        {
            "name": "coverage of 90 %",
            "value": 0.9,
            "interval": [0.88, 0.92],
            "n": 2000,
            "goal": "0.88 to 0.92",
            "met": True,
        }
    ]
    assert {"python", "torch", "numpy"} <= set(content["versions"])
    assert content["commit"]


def test_what_cannot_be_measured_is_null_and_misses_its_goal(results_file):
    missing = float("nan")
    entry = results_file.figure(
        "x", missing, interval=(missing, 1.0), goal="low", met=results_file.at_most(missing, 1.0)
    )
    assert (entry["value"], entry["interval"], entry["met"]) == (None, None, False)
    assert not results_file.at_least(missing, 0.0)
    assert not results_file.within(missing, 0.0, 1.0)


def test_a_failed_write_leaves_the_old_file(results_file, tmp_path):
    good = results_file.figure("x", 1.0)
    path = results_file.write_results("a", "c", seed=None, figures=[good], folder=tmp_path)
    before = path.read_text()
    with pytest.raises(TypeError):
        results_file.write_results("a", "c", seed=None, figures=[object()], folder=tmp_path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_scores_become_figures(results_file):
    from probmmae.calibration.scores import mean_score

    score = mean_score("CRPS", [0.1, 0.2, 0.3])
    entry = results_file.score_figure(score, goal="at most 1", met=True)
    assert entry["name"] == "CRPS"
    assert entry["interval"] == [score.low, score.high]
    assert entry["n"] == 3


@pytest.mark.parametrize(
    "arguments", [{"interval": (1.0, 2.0, 3.0)}, {"met": True}], ids=["interval", "goal"]
)
def test_wrong_figures_are_refused(results_file, arguments):
    with pytest.raises(ValueError, match=r"Expected .*; got .*"):
        results_file.figure("x", 1.0, **arguments)
