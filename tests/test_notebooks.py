"""The notebooks as they are committed: what they show is what one run of them made."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TUTORIALS = ("photoz_for_cosmology", "calibration_report", "images_to_nz", "image_to_cube")


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_of_one_run_or_there_are_none(path):
    code = cells(path, "code")
    assert code
    counts = [cell["execution_count"] for cell in code]
    assert counts in (list(range(1, len(code) + 1)), [None] * len(code))
    outputs = [output for cell in code for output in cell["outputs"]]
    if counts[0] is None:
        assert outputs == []
    strange = [one for one in outputs if one["output_type"] == "error" or
               one.get("name") == "stderr"]  # fmt: skip
    assert strange == []
    # No trace of the machine that ran it.
    assert not re.search(r"/(home|tmp|root|Users)/", json.dumps(outputs))


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_shows_what_it_makes_and_says_what_is_seen(name):
    path = FOLDER / f"{name}.ipynb"
    code = cells(path, "code")
    prose = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    assert all(cell["execution_count"] for cell in code)
    shown = [output.get("data", {}) for cell in code for output in cell["outputs"]]
    pictures = [one for one in shown if "image/png" in one]
    captions = re.findall(r"^\*Figure (\d+)\.", prose, flags=re.MULTILINE)
    assert captions == [str(number) for number in range(1, len(pictures) + 1)]
    assert "## Exercises" in prose
    assert "## What to read next" in prose
    for named in re.findall(r"`(\w+\.ipynb)`", prose):
        assert (FOLDER / named).is_file()
