"""The report: exact posteriors are not called broken, broken ones are, and the page works."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from headless import browser, open_page
from tiny_model import some_galaxy, tiny_checkpoint
from typer.testing import CliRunner, Result

from probmmae.calibration import held_out
from probmmae.calibration.answers import Drawn
from probmmae.calibration.draws_file import read_draws
from probmmae.calibration.page import Cell, number, table
from probmmae.calibration.report import make_report
from probmmae.calibration.report_html import html
from probmmae.cli import app
from probmmae.dataset import split_of, write_shards
from probmmae.inference.pit_map import PitMap

GALAXIES, DRAWS, PIXELS = 1000, 60, 6


def archive(*, width=1.0, local=0.0, held=0, seed=3):
    """Exact answers on Gaussian redshifts and correlated spectra, or answers of a wrong width.

    `local` makes posteriors of half of the galaxies too narrow and those of the others too wide.
    """
    rng = np.random.default_rng(seed)
    magnitude = rng.uniform(18, 24, GALAXIES)
    sigma = 0.02 + 0.01 * (magnitude - 18)
    middle = rng.uniform(0.3, 0.8, GALAXIES)
    factor = width * np.where(magnitude > 21, 1 + local, 1 - local)
    root = np.linalg.cholesky(np.exp(-np.abs(np.subtract.outer(range(PIXELS), range(PIXELS)))))
    known = rng.normal(size=(GALAXIES, PIXELS))
    true = known + rng.normal(size=known.shape) @ root.T
    drawn = known + factor[:, None] * (rng.normal(size=(DRAWS, *known.shape)) @ root.T)
    return {
        "z_true": middle + sigma * rng.normal(size=GALAXIES),
        "z_draws": middle + factor * sigma * rng.normal(size=(DRAWS, GALAXIES)),
        "spectrum_true": true,
        "spectrum_draws": drawn,
        "rest_wavelength": np.linspace(4000, 7000, PIXELS) / (1 + middle[:, None]),
        "feature_slope_true": true[:, 0] - true[:, 1],
        "feature_slope_draws": drawn[..., 0] - drawn[..., 1],
        "condition_magnitude": magnitude,
        "condition_kind": np.where(rng.uniform(size=GALAXIES) > 0.5, "red", "blue"),
        "split": np.where(np.arange(GALAXIES) < held, "recalibrate", "report"),
    }


def saved(path: Path, arrays: dict) -> Path:
    np.savez(path, **arrays)
    return path


def reported(path: Path, **options):
    return make_report(read_draws(saved(path / "draws.npz", archive(**options))), {})


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    return reported(tmp_path_factory.mktemp("narrow"), width=0.75, held=350)


def call(*arguments) -> Result:
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


# Six verdicts of seed 3; exact ones fail with a probability of 1 % each.


def test_exact_answers_are_not_called_broken(tmp_path):
    report = reported(tmp_path)
    assert [job.name for job in report.jobs] == ["redshift", "spectra"]
    for job in report.jobs:
        assert job.before.passed
        assert job.after is None
        assert job.sentences[0].startswith(f"{job.name.capitalize()}: no sign of miscalibration")
        assert "smaller errors may be there" in job.sentences[0]


def test_too_narrow_answers_are_called_broken_and_repaired(narrow):
    redshift, spectra = narrow.jobs
    assert not redshift.before.passed
    assert re.search(r"miscalibrated.* 2\d % too narrow", redshift.sentences[0])
    assert redshift.before.galaxies == GALAXIES - 350
    assert not spectra.before.passed
    assert "slope is" in spectra.sentences[0]
    for job in (redshift, spectra):
        before, after = job.before.scalars[0], job.after.scalars[0]
        assert before.evidence.at(0.9).value < 0.86 < after.evidence.at(0.9).value
        assert after.evidence.scores[0].value < before.evidence.scores[0].value
    assert spectra.after.vectors.energy.p_value > spectra.before.vectors.energy.p_value
    assert set(spectra.fits) == {"slope", "spectrum"}
    content = json.loads(json.dumps(narrow.to_dict(), allow_nan=False))
    assert len(content["jobs"][1]["after"]["vectors"]["bands"]) == 6


def test_answers_that_are_wrong_for_each_half_are_called_broken(tmp_path):
    redshift, spectra = reported(tmp_path, local=0.25).jobs
    assert not redshift.before.passed
    assert re.search(r"Worst bin: (magnitude|posterior width)", redshift.sentences[0])
    assert redshift.before.scalars[0].evidence.at(0.9).value > 0.87
    assert not spectra.before.passed


def test_densities_are_judged_as_draws_are(tmp_path):
    arrays = archive()
    grid = np.linspace(-0.5, 1.6, 600)
    middle, sigma = arrays["z_draws"].mean(0), arrays["z_draws"].std(0, ddof=1)
    arrays["z_pdf"] = np.exp(-0.5 * ((grid - middle[:, None]) / sigma[:, None]) ** 2)
    arrays["z_grid"] = grid
    del arrays["z_draws"]
    only = {name: arrays[name] for name in arrays if name.startswith(("z_", "condition"))}
    (job,) = make_report(read_draws(saved(tmp_path / "d.npz", only)), {}).jobs
    (scalar,) = job.before.scalars
    assert {score.name for score in scalar.evidence.scores} >= {"CRPS", "NLL", "CDE loss"}
    assert len(scalar.hpd) == 4
    assert scalar.evidence.at(0.9).value == pytest.approx(0.9, abs=0.03)


def test_the_identity_map_leaves_draws_as_they_are():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(50, 30))
    draws[3, 4] = np.nan
    kept = Drawn("x", draws, rng.normal(size=30)).mapped(PitMap.tilted(np.zeros((1, 6))))
    assert np.isnan(kept.draws[:, 4]).all()
    rest = np.delete(np.arange(30), 4)
    np.testing.assert_allclose(kept.draws[:, rest], np.sort(draws[:, rest], axis=0), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z_true": None}, r"Expected the key z_true; got .*Add it"),
        ({"z_draws": None}, r"Expected z_draws or z_pdf; got neither"),
        ({"spectrum_true": None}, r"Expected the key spectrum_true; got"),
        ({"feature_slope_draws": None}, r"Expected the key feature_slope_draws; got"),
        ({"redshifts": np.zeros(3)}, r"Expected the keys z_true, .*; got redshifts. Rename"),
        ({"z_draws": np.zeros((GALAXIES, DRAWS))}, r"shape \(draw, galaxy\).*Move the axis"),
        ({"z_draws": np.zeros((5, GALAXIES))}, r"at least 10 draws of redshift; got 5"),
        ({"z_true": np.full(GALAXIES, np.nan)}, r"finite numbers in z_true; got 1000 of 1000 NaN"),
        ({"z_true": np.full(GALAXIES, "a")}, r"Expected numbers in z_true; got <U1"),
        (
            {"spectrum_draws": np.zeros((60, GALAXIES))},
            r"\(draw, galaxy, quantity\).*\(60, 1000\)",
        ),
        ({"rest_wavelength": np.ones(PIXELS)}, r"rest wavelength for every quantity.*got \(6,\)"),
        ({"condition_magnitude": np.ones(7)}, r"1000 galaxies of condition magnitude; got 7"),
        ({"split": np.full(GALAXIES, "test")}, r'"recalibrate" or "report".* with test'),
        ({"split": np.full(GALAXIES, "recalibrate")}, r"at least 20 galaxies .*got 0"),
        ({"z_true": np.array([{}] * GALAXIES)}, r"archive of plain arrays .*got: Object arrays"),
    ],
)
def test_a_wrong_archive_is_refused(tmp_path, change, message):
    arrays = {name: v for name, v in {**archive(), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        read_draws(saved(tmp_path / "draws.npz", arrays))


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name in ("text.npz", "one.npy"):
        with pytest.raises(ValueError, match=r"Expected an archive of plain arrays"):
            read_draws(tmp_path / name)


def test_text_is_escaped_and_numbers_sort():
    said = table(("a<b", "n"), [("<script>", number(2.0)), ("x", number(float("nan")))])
    assert "<script>" not in said
    assert "a&lt;b" in said
    assert 'data-sort="2"' in said
    assert 'data-sort=""' in said
    assert table(("k",), [(Cell("fine", kind="good"),)]).count('class="good"') == 1


def test_the_command_writes_both_files(tmp_path):
    arrays = archive(width=0.75, held=350)
    some = {name: v for name, v in arrays.items() if not name.startswith(("spec", "rest", "feat"))}
    draws = saved(tmp_path / "draws.npz", some)
    result = call("--draws", draws, "-o", tmp_path / "report.html")
    assert result.exit_code == 0, result.output
    assert "Redshift after repair:" in result.stdout
    content = json.loads((tmp_path / "report.json").read_text())
    (redshift,) = content["jobs"]
    assert redshift["calibrated"] is False
    assert redshift["repair"]["galaxies"] == 350
    assert content["provenance"]["command"].startswith("probmmae calibrate --draws")
    assert "numpy" in content["provenance"]["versions"]
    text = (tmp_path / "report.html").read_text()
    assert text.startswith("<!doctype html>")
    # Self-contained: no address but those that name a vocabulary.
    assert set(re.findall(r"https?://[^\"'<> ]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    identifiers = re.findall(r' id="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "draws.npz", "report.html", "report.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Expected CHECKPOINT and DATA, or --draws; got neither"),
        (["shipped"], "Expected CHECKPOINT and DATA, or --draws"),
        (["shipped", "x", "--draws", "d.npz"], "got both"),
        (["--draws", "absent.npz"], "No such file"),
        (["absent", "absent"], "Expected a dataset"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments, "-o", "report.html")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_judged_on_the_held_out_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(held_out, "DRAWS", 12)
    checkpoint = tiny_checkpoint(tmp_path / "model")
    names = (f"g{number}" for number in range(10_000))
    parts = {"report": 22, "recalibrate": 4, "train": 2}
    chosen = []
    for name in names:
        if parts.get(split_of(name), 0) > 0:
            parts[split_of(name)] -= 1
            chosen.append(name)
    redshifts = np.random.default_rng(0).uniform(0.05, 0.4, len(chosen))
    galaxies = [
        some_galaxy(n, z=z, seed=k) for k, (n, z) in enumerate(zip(chosen, redshifts, strict=True))
    ]
    write_shards(galaxies, tmp_path / "data")
    result = call(checkpoint, tmp_path / "data", "-o", tmp_path / "report.html")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "report.json").read_text())
    redshift, spectra = content["jobs"]
    assert redshift["before"]["galaxies"] == spectra["before"]["galaxies"] == 22
    assert redshift["after"] is None
    assert {one["name"] for one in spectra["before"]["scalars"]} >= {"o_ii", "d4000"}
    assert spectra["before"]["vectors"]["quantities"] > 20
    assert content["provenance"]["dataset"].endswith("28 galaxies")
    assert "22 galaxies reported, 4 for the repair" in content["provenance"]["redshift"]
    assert {"magnitude", "S/N", "colour"} <= set(content["provenance"]["conditions"].split(", "))


@pytest.fixture(scope="module")
def opened(narrow, tmp_path_factory):
    """The page of a repaired report in a browser, and where the file is."""
    if browser() is None:
        pytest.skip("no Chromium on the path")
    folder = tmp_path_factory.mktemp("browser")
    path = folder / "report.html"
    path.write_text(html(narrow))
    with open_page(browser(), folder / "profile") as page:
        page.view(1280, 900)
        page.open(path)
        yield page, path


def test_the_page_renders_on_any_screen_and_on_paper(opened):
    page, _ = opened
    headlines = "[...document.querySelectorAll('.headline')].map(one => one.textContent)"
    for width, paper in ((1280, False), (375, False), (718, True)):
        page.view(width, 900, paper=paper)
        root = "document.documentElement"
        # Wide tables scroll in their own box, never the page.
        assert page.run(f"{root}.scrollWidth <= {root}.clientWidth"), width
        assert [said.partition(":")[0] for said in page.run(headlines)] == ["Redshift", "Spectra"]
        assert page.run("document.querySelectorAll('figure svg').length") >= 20
        assert page.run(_OVERLAPPING) == [], width
    # On paper nothing scrolls: tables fit.
    assert page.run(
        "[...document.querySelectorAll('.scroll')].filter("
        "one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText)"
    ) == []  # fmt: skip
    page.view(1280, 900)


# Words of one figure that are written over each other.
_OVERLAPPING = """
[...document.querySelectorAll('figure svg')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(
    one => [one.textContent.trim(), one.getBoundingClientRect()]).filter(([text]) => text);
  return boxes.flatMap(([text, a], place) => boxes.slice(place + 1).filter(([, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2
  ).map(([other]) => svg.getAttribute('aria-label') + ': ' + text + ' / ' + other));
})"""


def test_every_table_of_the_page_sorts_by_every_column(opened):
    page, _ = opened
    tables = page.run("document.querySelectorAll('table.sortable').length")
    assert tables > 10
    unsorted = page.run(_UNSORTED)
    assert unsorted == []


# Clicks on every head of every table, twice; says which columns are not in order after it.
_UNSORTED = """
[...document.querySelectorAll('table.sortable')].flatMap((table, number) =>
  [...table.tHead.rows[0].cells].flatMap((head, column) => [1, -1].filter(sign => {
    head.querySelector('button').click();
    if (head.ariaSort !== (sign === 1 ? 'ascending' : 'descending')) return true;
    const cells = [...table.tBodies[0].rows].map(row => row.cells[column]);
    const keys = cells.map(cell => cell.dataset.sort ?? cell.textContent).filter(key => key);
    return keys.slice(1).some((key, place) => {
      const numbers = Number(key) - Number(keys[place]);
      const step = Number.isNaN(numbers) ? key.localeCompare(keys[place]) : numbers;
      return step * sign < 0;
    });
  }).map(sign => [number, head.textContent, sign])))"""


def test_the_page_is_light_or_dark_as_the_reader_likes_and_light_on_paper(opened):
    page, _ = opened
    paper = "getComputedStyle(document.body).backgroundColor"
    words = "getComputedStyle(document.body).color"
    inside = "getComputedStyle(document.querySelector('figure svg text')).fill"
    seen = {}
    for name, options in {"light": {}, "dark": {"dark": True}}.items():
        page.view(1280, 900, **options)
        seen[name] = page.run(paper)
        assert page.run(words) == page.run(inside) != page.run(paper)
    assert seen["light"] == "rgb(255, 255, 255)" != seen["dark"]
    page.view(718, 900, dark=True, paper=True)
    assert page.run(paper) == seen["light"]
    page.view(1280, 900)


def test_the_page_asks_the_network_for_nothing_and_the_console_is_silent(opened):
    page, path = opened
    page.open(path)
    assert set(page.requests) == {path.as_uri()}
    assert page.complaints == []
