"""What only a report computes: conformal intervals, Brier scores, headlines, maps."""

import re

import numpy as np
import pytest
from scipy import stats

from probmmae.calibration.answers import Drawn, Gridded, Job, Vectors
from probmmae.calibration.conformal_evidence import conformal_evidence
from probmmae.calibration.judgement import Check, Judgement, judge
from probmmae.calibration.page import Shade, figure, heat_map, p_value, table
from probmmae.calibration.verdict import headline

GALAXIES, DRAWS, PIXELS = 800, 99, 8


def job(*, width=1.0, seed=5):
    """A redshift and a spectrum whose posteriors are too narrow or too wide by a factor."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform(0.2, 0.6, GALAXIES)
    z = Drawn(
        "redshift",
        middle + 0.03 * width * rng.normal(size=(DRAWS, GALAXIES)),
        middle + 0.03 * rng.normal(size=GALAXIES),
    )
    vectors = Vectors(
        "spectrum",
        width * rng.normal(size=(DRAWS, GALAXIES, PIXELS)),
        rng.normal(size=(GALAXIES, PIXELS)),
        None,
    )
    return Job("redshift", (z,), vectors, {}, np.zeros(GALAXIES, dtype=bool))


# Coverages of 800 galaxies scatter by 1.1 %; halves and thresholds make it at most 1.5 %. Nine
# figures, each allowed 4.5 %: a false alarm in about 40,000 seeds.


@pytest.mark.parametrize("width", [0.7, 1.0, 1.4])
def test_conformal_intervals_hold_whatever_the_posterior(width):
    of_z, of_spectrum = conformal_evidence(job(width=width), generator=np.random.default_rng(1))
    for one in (of_z, of_spectrum):
        assert one.conformal.value == pytest.approx(0.9, abs=0.045)
    assert of_z.own.value == pytest.approx(2 * stats.norm.cdf(1.645 * width) - 1, abs=0.045)
    assert of_z.stretch == pytest.approx(1 / width, rel=0.15)
    # Independent pixels: intervals that hold 90 % each hold all at once as often as their power.
    single = 2 * stats.norm.cdf(1.645 * width) - 1
    assert of_spectrum.own.value == pytest.approx(single**PIXELS, abs=0.07)
    whole = stats.norm.ppf(0.5 + 0.9 ** (1 / PIXELS) / 2)
    assert of_spectrum.stretch == pytest.approx(whole / 1.645 / width, rel=0.15)


def test_few_galaxies_have_no_conformal_intervals_and_nan_is_left_out():
    few = job().take(np.arange(GALAXIES) < 30)
    assert conformal_evidence(few, generator=np.random.default_rng(1)) == ()
    whole = job()
    whole.scalars[0].draws[3, :100] = np.nan
    whole.vectors.truth[:200, 2] = np.nan
    found = conformal_evidence(whole, generator=np.random.default_rng(1))
    assert [one.own.n for one in found] == [GALAXIES - 100, GALAXIES - 200]


def test_the_brier_score_of_draws_is_that_of_their_density():
    rng = np.random.default_rng(2)
    middle, truth = rng.uniform(0.2, 0.6, (2, 100))
    grid = np.linspace(-0.4, 1.2, 1601)
    shape = stats.norm(middle[:, None], 0.04)
    dense = Gridded("redshift", shape.pdf(grid), grid, shape.cdf(grid), truth)
    drawn = Drawn("redshift", middle + 0.04 * rng.normal(size=(4000, 100)), truth)
    nothing = np.zeros(100, dtype=bool)
    briers = [
        judge(Job("redshift", (one,), None, {}, nothing), {"redshift": {}}, seed=0)
        .scalars[0].brier.value
        for one in (dense, drawn)
    ]  # fmt: skip
    assert briers[0] == pytest.approx(briers[1], abs=0.01)
    # By hand: bins of 0.05 from 0, the first and last open.
    edges = np.concatenate([[-np.inf], np.arange(1, 13) * 0.05, [np.inf]])
    chance = np.diff(shape.cdf(edges), axis=1)
    hit = (truth[:, None] >= edges[:-1]) & (truth[:, None] < edges[1:])
    assert briers[0] == pytest.approx(np.mean(np.sum((chance - hit) ** 2, axis=1)), abs=1e-4)


def side(*fails):
    """A judgement with tests that fail or not, and no number."""
    checks = tuple(Check("redshift", "all", 0.5, 0.0 if bad else 0.5) for bad in fails)
    return Judgement(scalars=(), vectors=None, conformal=(), checks=checks, galaxies=100)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (side(False), None, r"no sign of miscalibration\.$"),
        (side(True, False), None, r"miscalibrated \(1 of 2 tests fail\)\.$"),
        (side(False), side(False), r"no sign of miscalibration, with or without repair\.$"),
        (side(False), side(True), r"no sign of miscalibration, unless it is repaired\.$"),
        (side(True), side(False), r"miscalibrated .*; after repair no sign of it is left\.$"),
        (side(True), side(True, False), r"after repair 1 of 2 tests still fail\.$"),
    ],
)
def test_a_headline_is_one_sentence(before, after, said):
    found = headline("redshift", before, after)
    assert re.match(f"Redshift: .*{said}", found)
    assert found.count(". ") == 0


def test_columns_that_say_the_same_are_spared():
    rows = [("z", "a"), ("z", "b")]
    assert "quantity" not in table(("quantity", "bin"), rows, spare=("quantity",))
    assert "quantity" in table(("quantity", "bin"), rows)
    assert "quantity" in table(("quantity", "bin"), [*rows, ("x", "c")], spare=("quantity",))


def test_small_p_values_are_not_spelled_out():
    assert (p_value(3e-33).text, p_value(3e-33).key) == ("< 0.0001", 3e-33)
    assert p_value(0.0321).text == "0.032"


def test_a_map_frames_what_fails_and_leaves_gaps():
    shade = Shade("-31", -0.31, True, "bins < 3")
    said = heat_map([("magnitude", ["1", "2"])], [("redshift", [[shade, None]])])
    assert 'class="bad" title="bins &lt; 3"' in said
    assert said.count("<td></td>") == 3
    assert 'class="panels"' in figure(["<svg></svg>"], "said")
    assert "before repair" not in figure(["<svg></svg>"], "said")
    assert "before repair" in figure(["<svg></svg>"] * 2, "said")
