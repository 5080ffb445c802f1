"""Conformal thresholds and intervals: the coverage is the one promised, at any sample size.

False-alarm budget: seeds are fixed and a coverage over many calibration samples may leave its
band, of four standard errors over samples, with probability 1e-4. Something broken on purpose
(the posterior's own interval, or no weights) must leave it.
"""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from probmmae.calibration.conformal import Threshold, fit_threshold, weighted_thresholds
from probmmae.calibration.conformal_intervals import (
    absolute_interval,
    absolute_scores,
    cdf_interval,
    cdf_scores,
    cqr_interval,
    cqr_scores,
)
from probmmae.calibration.covariate_shift import density_ratio


def generator(seed):
    return np.random.default_rng(seed)


def rate(inside, expected, *, above=0.0):
    """Whether mean coverages of many samples are in [expected, expected + above]."""
    error = 4 * np.std(inside, ddof=1) / np.sqrt(len(inside))
    return expected - error < np.mean(inside) < expected + above + error


@pytest.mark.parametrize("n", [9, 30, 101])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_is_that_of_the_theorem_at_any_size(n, level):
    # Without ties it is exactly ceil(level (n + 1)) / (n + 1).
    rng = generator(n)
    inside = []
    for _ in range(1000):
        values = rng.standard_cauchy(size=n + 50)
        inside.append(np.mean(values[n:] <= fit_threshold(values[:n], level=level).at()))
    assert rate(inside, np.ceil(level * (n + 1)) / (n + 1))


@given(st.integers(1, 60), st.floats(0.05, 0.95))
def test_threshold_is_the_order_statistic(n, level):
    scores = generator(n).normal(size=n)
    rank = int(np.ceil(level * (n + 1) - 1e-9))
    if rank > n:
        with pytest.raises(ValueError, match="calibration galaxies in each group"):
            fit_threshold(scores, level=level)
    else:
        assert np.sum(scores <= fit_threshold(scores, level=level).at()) == rank


def test_range_of_coverage_holds_the_coverage_as_often_as_it_says():
    rng = generator(1)
    held = []
    for _ in range(500):
        threshold = fit_threshold(rng.uniform(size=200), level=0.9)
        low, high = threshold.coverage_range()[0]
        held.append(low <= threshold.values[0] <= high)  # the coverage of a uniform score
    assert abs(np.mean(held) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 500)


def heteroscedastic(rng, n):
    """Truths whose scatter doubles in the second group, and posteriors 30 % too narrow there."""
    red = rng.uniform(size=n) < 0.3
    scale = np.where(red, 2.0, 1.0)
    return red, scale * np.where(red, 0.7, 1.0), scale * rng.normal(size=n)


def scored(kind, width, truth):
    low, high = stats.norm.ppf([0.05, 0.95])[:, None] * width
    return {
        "absolute": lambda: absolute_scores(np.zeros_like(truth), truth, scale=width),
        "cqr": lambda: cqr_scores(low, high, truth),
        "cqr scaled": lambda: cqr_scores(low, high, truth, scale=high - low),
        "cdf": lambda: cdf_scores(stats.norm.cdf(truth / width)),
    }[kind]()


@pytest.mark.parametrize("kind", ["absolute", "cqr", "cqr scaled", "cdf"])
def test_mondrian_covers_each_group_where_one_threshold_does_not(kind):
    rng = generator(2)
    together, by_group = [], []
    for _ in range(120):
        red, width, truth = heteroscedastic(rng, 900)
        names, scores = np.where(red, "red", "blue"), scored(kind, width, truth)
        one = fit_threshold(scores[:300], level=0.9)
        each = fit_threshold(scores[:300], level=0.9, groups=names[:300])
        assert each.groups == ("blue", "red")
        inside = scores[300:] <= one.at()
        together.append([inside.mean(), inside[red[300:]].mean()])
        inside = scores[300:] <= each.at(names[300:])
        by_group.append([inside[red[300:]].mean(), inside[~red[300:]].mean()])
    overall, red_only = np.transpose(together)
    assert rate(overall, 0.9, above=1 / 301)
    assert red_only.mean() < 0.88  # broken on purpose
    for inside in np.transpose(by_group):
        assert rate(inside, 0.9, above=1 / 60)


def test_intervals_hold_the_truths_whose_scores_are_within():
    rng = generator(3)
    centre, width = rng.normal(size=300), rng.uniform(0.5, 2, size=300)
    truth = centre + 1.2 * width * rng.normal(size=300)
    low, high = centre - 1.5 * width, centre + 1.7 * width
    grid = np.linspace(-15, 15, 3001)
    cdf = stats.norm.cdf(grid, centre[:, None], width[:, None])
    at_truth = [np.interp(t, grid, row) for t, row in zip(truth, cdf, strict=True)]
    for threshold in (-0.1, 0.2, 0.45):
        pairs = [
            (
                absolute_scores(centre, truth, scale=width),
                absolute_interval(centre, threshold, scale=width),
            ),
            (cqr_scores(low, high, truth), cqr_interval(low, high, threshold)),
            (
                cqr_scores(low, high, truth, scale=width),
                cqr_interval(low, high, threshold, scale=width),
            ),
        ]
        if threshold > 0:
            pairs.append((cdf_scores(at_truth), cdf_interval(cdf, grid, threshold)))
        for scores, interval in pairs:
            inside = (truth >= interval.lower) & (truth <= interval.upper)
            assert np.array_equal(inside, scores <= threshold)


def test_ends_that_cross_meet_in_the_middle():
    interval = cqr_interval([0.0], [1.0], -2.0)
    assert (interval.lower[0], interval.upper[0]) == (0.5, 0.5)


def test_a_threshold_that_reaches_outside_the_grid_is_infinite():
    grid = np.linspace(0, 1, 5)
    interval = cdf_interval([grid, grid], grid, [0.5, 0.25])
    assert interval.lower.tolist() == [-np.inf, 0.25]
    assert interval.upper.tolist() == [np.inf, 0.75]


def shifted(rng, n, mean):
    """Scores whose scale rises with a covariate, normal around `mean`."""
    x = mean + rng.normal(size=n)
    return x, np.exp(0.5 * x) * np.abs(rng.normal(size=n))


def test_weights_restore_coverage_under_covariate_shift():
    rng = generator(4)
    plain, exact, estimated = [], [], []
    for _ in range(80):
        (x, scores), (x_new, new) = shifted(rng, 500, 0.0), shifted(rng, 500, 1.0)
        plain.append(np.mean(new <= fit_threshold(scores, level=0.9).at()))
        limit = weighted_thresholds(scores, np.exp(x), np.exp(x_new), level=0.9)
        exact.append(np.mean(new <= limit))
        own, other = (
            density_ratio(
                at[:, None], calibration=x[:, None], target=x_new[:, None], neighbours=30
            )
            for at in (x, x_new)
        )
        limit = weighted_thresholds(scores, own, other, level=0.9)
        estimated.append(np.mean(new <= limit))
    assert np.mean(plain) < 0.8  # broken on purpose
    # Not far above either: a few percent of thresholds are infinite.
    assert rate(exact, 0.9, above=0.03)
    assert abs(np.mean(estimated) - 0.9) < 0.03


def test_equal_weights_are_no_weights():
    scores = generator(5).normal(size=70)
    limit = weighted_thresholds(scores, np.full(70, 3.0), np.full(4, 3.0), level=0.8)
    assert limit.tolist() == [fit_threshold(scores, level=0.8).values[0]] * 4


def test_a_target_too_far_away_has_no_finite_interval():
    scores = np.arange(9.0)
    limit = weighted_thresholds(scores, np.ones(9), [1.0, 1e9], level=0.9)
    assert limit.tolist() == [8.0, np.inf]


def test_density_ratio_is_the_ratio_of_densities():
    rng = generator(6)
    own, target = rng.normal(size=(20_000, 1)), 0.5 + rng.normal(size=(20_000, 1))
    at = np.linspace(-1.5, 1.5, 7)[:, None]
    ratio = density_ratio(at, calibration=own, target=target, neighbours=400)
    np.testing.assert_allclose(ratio, np.exp(0.5 * at[:, 0] - 0.125), rtol=0.25)
    stretched = density_ratio(9 * at, calibration=9 * own, target=9 * target, neighbours=400)
    np.testing.assert_allclose(stretched, ratio, rtol=1e-9)


def test_thresholds_survive_json():
    scores = generator(7).normal(size=60)
    stored = fit_threshold(scores, level=0.8, groups=np.arange(60) % 3)
    assert Threshold.from_dict(json.loads(json.dumps(stored.to_dict()))) == stored


def test_crepes_agrees():
    crepes = pytest.importorskip("crepes", reason="crepes is not installed")
    rng = generator(8)
    residuals, scale, bins = rng.normal(size=(200,)), rng.uniform(0.5, 2, 200), np.arange(200) % 2
    centre, width, group = rng.normal(size=40), rng.uniform(0.5, 2, 40), np.arange(40) % 2
    regressor = crepes.ConformalRegressor()
    regressor.fit(residuals=residuals, sigmas=scale, bins=bins)
    theirs = regressor.predict_int(centre, sigmas=width, bins=group, confidence=0.9)
    scores = absolute_scores(np.zeros(200), residuals, scale=scale)
    threshold = fit_threshold(scores, level=0.9, groups=bins)
    ours = absolute_interval(centre, threshold.at(group), scale=width)
    np.testing.assert_allclose(np.stack([ours.lower, ours.upper], axis=1), theirs, rtol=1e-9)


def test_mapie_agrees():
    regression = pytest.importorskip("mapie.regression", reason="MAPIE is not installed")
    dummy = pytest.importorskip("sklearn.dummy", reason="scikit-learn is not installed")
    rng = generator(9)
    x, truth = rng.normal(size=(150, 1)), rng.normal(size=150)
    ends = [dummy.DummyRegressor(strategy="constant", constant=c) for c in (-1.0, 1.5, 0.2)]
    for one in ends:
        one.fit(x, truth)
    quantile = regression.ConformalizedQuantileRegressor(ends, confidence_level=0.9, prefit=True)
    quantile.conformalize(x, truth)
    _, theirs = quantile.predict_interval(x[:1], symmetric_correction=True)
    scores = cqr_scores(np.full(150, -1.0), np.full(150, 1.5), truth)
    ours = cqr_interval([-1.0], [1.5], fit_threshold(scores, level=0.9).at())
    np.testing.assert_allclose([ours.lower[0], ours.upper[0]], theirs.ravel(), rtol=1e-9)
    split = regression.SplitConformalRegressor(ends[2], confidence_level=0.9, prefit=True)
    split.conformalize(x, truth)
    _, theirs = split.predict_interval(x[:1])
    threshold = fit_threshold(absolute_scores(np.full(150, 0.2), truth), level=0.9)
    ours = absolute_interval([0.2], threshold.at())
    np.testing.assert_allclose([ours.lower[0], ours.upper[0]], theirs.ravel(), rtol=1e-9)


GRID = np.linspace(0, 1, 5)
ONE = np.ones(20)
WRONG = {
    "NaN score": lambda: fit_threshold([1.0, np.nan], level=0.5),
    "no score": lambda: fit_threshold([], level=0.5),
    "scores in two axes": lambda: fit_threshold(np.ones((3, 3)), level=0.5),
    "percent": lambda: fit_threshold(ONE, level=90.0),
    "too few galaxies": lambda: fit_threshold(ONE[:8], level=0.9),
    "too few in a group": lambda: fit_threshold(ONE, level=0.9, groups=[0] * 15 + [1] * 5),
    "a label too few": lambda: fit_threshold(ONE, level=0.9, groups=["a"]),
    "unknown group": lambda: fit_threshold(ONE, level=0.9, groups=["a"] * 20).at(["b"]),
    "labels lacking": lambda: fit_threshold(ONE, level=0.9, groups=["a"] * 20).at(),
    "labels without groups": lambda: fit_threshold(ONE, level=0.9).at(["a"]),
    "negative weight": lambda: weighted_thresholds(ONE, -ONE, ONE, level=0.9),
    "no weight": lambda: weighted_thresholds(ONE, 0 * ONE, ONE, level=0.9),
    "a weight too few": lambda: weighted_thresholds(ONE, ONE[:3], ONE, level=0.9),
    "another shape": lambda: absolute_scores(ONE, ONE[:3]),
    "NaN truth": lambda: cqr_scores([0.0], [1.0], [np.nan]),
    "no width": lambda: absolute_interval([0.0], 1.0, scale=[0.0]),
    "NaN threshold": lambda: cqr_interval([0.0], [1.0], np.nan),
    "thresholds of others": lambda: cqr_interval([0.0], [1.0], [1.0, 2.0]),
    "not a probability": lambda: cdf_scores([0.5, 1.2]),
    "falling cdf": lambda: cdf_interval([GRID[::-1]], GRID, 0.4),
    "falling grid": lambda: cdf_interval([GRID], GRID[::-1], 0.4),
    "other covariates": lambda: density_ratio(
        np.ones((3, 2)), calibration=np.ones((60, 1)), target=np.ones((3, 2))
    ),
    "NaN covariate": lambda: density_ratio(
        [[np.nan]], calibration=np.ones((60, 1)), target=[[0.0]]
    ),
    "few neighbours": lambda: density_ratio([[0.0]], calibration=[[0.0]], target=[[0.0]]),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"(?s)^Expected .*; got .*\. .*\.$"):
        call()
