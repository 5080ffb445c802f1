"""The README is true: its example runs, its paths and commands exist, its table is measured."""

import json
import re
import sys
from pathlib import Path

import pytest
from tiny_model import tiny_checkpoint

from probmmae import checkpoint

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROSE = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
sys.path.append(str(ROOT / "benchmarks"))

from calibration_table import calibration_table  # noqa: E402
from ifu_table import ifu_table  # noqa: E402
from inference_table import inference_table  # noqa: E402
from photoz_table import photoz_table  # noqa: E402
from readme_table import CALIBRATION, IFU, INFERENCE, PHOTOZ, RESULTS, filled, table  # noqa: E402


def blocks(language: str) -> list[str]:
    every = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    return [content for kind, content in every if kind == language]


def test_the_example_runs(tmp_path, monkeypatch, capsys) -> None:
    if not checkpoint.SHIPPED.is_dir():  # not trained yet: any weights show that the calls exist
        monkeypatch.setattr(checkpoint, "SHIPPED", tiny_checkpoint(tmp_path / "shipped"))
    monkeypatch.chdir(tmp_path)
    example, exact = blocks("python")
    assert 15 <= len([line for line in example.splitlines() if line.strip()]) <= 25
    names: dict[str, object] = {}
    for part in (example, exact):
        exec(compile(part, "README.md", "exec"), names)
    said = capsys.readouterr().out
    assert "image hsc-g" in said
    assert "90 %:" in said
    assert "by importance, Pareto k" in said
    for name in ("photoz.hdf5", "north.fits", "posterior.nc"):
        assert (tmp_path / name).stat().st_size > 0


def test_every_path_is_there() -> None:
    (tree,) = blocks("")
    folder = ROOT
    named = []
    for line in tree.splitlines():
        names = re.findall(r"\w+\.py\b|\w+/", line)
        if not line.startswith(" "):
            folder = ROOT / names[0]
        parent = folder if line.startswith(" ") else ROOT
        named += [parent / name for name in names if not name.startswith("results")]
    assert len(named) > 25
    assert [path for path in named if not path.exists()] == []
    linked = re.findall(r"\]\(((?!http)[^)]+)\)", README) + re.findall(r"`(\w+/[\w./]+)`", PROSE)
    assert [path for path in linked if "main_job" not in path and not (ROOT / path).exists()] == []


def test_every_command_is_there() -> None:
    from typer.main import get_command

    from probmmae.cli import app

    verbs = set(re.findall(r"`probmmae ([a-z]+)", PROSE))
    assert verbs == set(get_command(app).commands)
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_the_table_is_that_of_the_results() -> None:
    if not RESULTS.is_file():
        assert "Not measured yet" in README
    else:
        assert filled(README, table(json.loads(RESULTS.read_text()))) == README


def test_the_table_of_calibration_is_that_of_the_results() -> None:
    results = json.loads(CALIBRATION.read_text())
    content = calibration_table(results)
    assert filled(README, content, "calibration") == README
    missed = [one["name"] for one in results["figures"] if one["met"] is False]
    assert [name for name in missed if f"- {name}: " not in content] == []


def test_the_table_of_cubes_is_that_of_the_results() -> None:
    results = json.loads(IFU.read_text())
    content = ifu_table(results)
    assert filled(README, content, "ifu") == README
    missed = [one["name"] for one in results["figures"] if one["met"] is False]
    assert [name for name in missed if f"- {name}: " not in content] == []


def test_the_table_of_catalogues_is_that_of_the_results() -> None:
    if not PHOTOZ.is_file():
        assert "Not measured yet" in README
    else:
        assert filled(README, photoz_table(json.loads(PHOTOZ.read_text())), "photoz") == README


def test_the_table_of_exact_inference_is_that_of_the_results() -> None:
    content = inference_table(json.loads(INFERENCE.read_text()))
    assert filled(README, content, "inference") == README
    assert content.count("\n- ") == len(
        [one for one in json.loads(INFERENCE.read_text())["figures"] if one["met"] is False]
    )


def test_the_table_of_catalogues_names_the_best_and_the_missed() -> None:
    def one(method: str, what: str, value: float, goal: str | None = None, met: bool = True):
        return {"name": f"hdfn, {method}: {what}", "value": value, "n": 27, "goal": goal,
                "met": met if goal else None}  # fmt: skip

    figures = [
        one(method, what, value + step)
        for method, step in (("probmmae", 0.0), ("GPz", 0.01))
        for what, value in (("CRPS", 0.1), ("CDE loss", -2.0), ("PIT KS distance", 0.2))
    ]
    figures += [one("probmmae", "NMAD of the mode", 0.05, "below every peer's, 0.0400", False)]
    figures += [one("GPz", "NMAD of the mode", 0.04)]
    figures += [{"name": "hdfn, PZFlow: no answer (not asked)", "value": None, "n": None,
                 "goal": None, "met": None}]  # fmt: skip
    said = photoz_table({"command": "make photoz", "commit": "0123456789abcdef",
                         "figures": figures})  # fmt: skip
    ours, theirs = "0.0500 / **0.1000** / **-2.00** / **0.200**", "**0.0400** / 0.1100 / -1.99"
    assert f"| HDF-N | 27 | {ours} | - | - | - | {theirs}" in said
    assert "0 of 1 goals are met. Missed:" in said
    assert "- hdfn, probmmae: NMAD of the mode: 0.05 (goal: below every peer's, 0.0400)" in said
    assert "SDSS" not in said


def test_the_table_says_what_was_missed() -> None:
    one = {"name": "image to redshift: CRPS", "value": 0.01234, "interval": [0.012, 0.0127],
           "n": 2048, "goal": None, "met": None}  # fmt: skip
    ks = {**one, "name": "image to redshift: PIT KS distance", "value": 0.05, "met": False,
          "goal": "at most 0.0359 (99 % band)"}  # fmt: skip
    missed = {**one, "name": "a | b", "value": 0.86, "goal": "0.88 to 0.92", "met": False}
    name = "image to spectrum: h_alpha coverage of 90% intervals, "
    thirds = [
        {**missed, "name": f"{name}S/N third {number}", "value": value, "met": value > 0.88}
        for number, value in ((1, 0.85), (2, 0.9), (3, 0.91))
    ]
    left = {**one, "name": "something without a goal"}
    null = {**missed, "name": "no number", "value": None, "interval": None, "n": None}
    said = table(
        {"command": "make bench", "commit": "0123456789abcdef",
         "figures": [one, ks, missed, *thirds, left, null]}
    )  # fmt: skip
    assert "| images (five bands) | 2,048 | 0.0123 |  | 0.05 (0.036) |  |" in said
    assert "| a \\| b | 0.86 | 0.88 to 0.92 |" in said
    assert "colour |  | 0.85 to 0.91 (2 of 3 within) |" in said
    assert "2 of 6 goals are met. Missed:" in said
    assert "- a \\| b: 0.86 (goal: 0.88 to 0.92)" in said
    assert f"- {name}S/N third 1: 0.85 (goal: 0.88 to 0.92)" in said
    assert "without a goal" not in said
    assert "- no number: not measurable (goal: 0.88 to 0.92)" in said
    with pytest.raises(ValueError, match="once each"):
        filled("nothing to fill", said)
