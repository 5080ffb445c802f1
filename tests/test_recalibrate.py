"""Recalibrated densities: proper, calibrated where they were broken, sharp where they were not.

Posteriors are normal with known faults on a grid; PITs come from the exact CDF. False-alarm
budget: seeds are fixed; a KS or coverage verdict on repaired posteriors uses the 99.9 % band of
the test sample widened by that of the calibration sample, and each broken posterior must fail the
same verdict or one of p < 1e-3 on an exact one.
"""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from probmmae.calibration.coverage import coverage
from probmmae.calibration.pit import ks_limit, pit_from_grid, pit_result
from probmmae.calibration.recalibrate import (
    GlobalRecalibration,
    fit_global,
    recalibrate_density,
)
from probmmae.calibration.recalibrate_local import fit_local
from probmmae.calibration.scores import crps_grid
from probmmae.inference.pit_law import LocalRecalibration
from probmmae.inference.pit_map import BASIS, KNOT_WEIGHTS, PitMap

GRID = np.linspace(-9, 9, 181)
CALIBRATION, TEST = 3000, 3000


def generator(seed):
    return np.random.default_rng(seed)


def posteriors(kind, n, rng):
    """Covariates, centres and widths of normal posteriors, and truths."""
    kinds = rng.integers(2, size=n)
    magnitude, noise = rng.uniform(18, 24, size=n), rng.normal(size=n)
    truth, centre, width = rng.normal(size=n), np.zeros(n), np.ones(n)
    if kind == "10 % too narrow":
        width = width * 0.9
    elif kind == "shifted":
        centre = centre + 0.15
    elif kind == "opposite widths":
        width = np.where(kinds == 1, 0.75, 1.35)
    elif kind == "opposite shifts":
        centre = np.where(kinds == 1, 0.25, -0.25)
    elif kind == "width by magnitude":
        width = np.exp((magnitude - 21) / 8)
    return {"kind": kinds, "magnitude": magnitude, "noise": noise}, centre, width, truth


def tables(centre, width):
    standard = (GRID - centre[:, None]) / width[:, None]
    return stats.norm.pdf(standard) / width[:, None], stats.norm.cdf(standard)


def fit(how, kind, rng, n=CALIBRATION):
    """Maps for galaxies with given covariates, fitted on a split of its own."""
    covariates, centre, width, truth = posteriors(kind, n, rng)
    pit = stats.norm.cdf((truth - centre) / width)
    if how == "global":
        repair = fit_global(pit).pit_map()
        return lambda _: repair
    return fit_local(pit, covariates, generator=rng).pit_map


def judge(how, kind, *, seed):
    """Per-galaxy CRPS before and after, PITs before and after, and covariates of a test split."""
    rng = generator(seed)
    maps = fit(how, kind, rng)
    covariates, centre, width, truth = posteriors(kind, TEST, rng)
    pdf, cdf = tables(centre, width)
    new = recalibrate_density(pdf, GRID, maps(covariates), cdf=cdf)
    crps = [crps_grid(table, GRID, truth) for table in (cdf, new.cdf)]
    return *crps, *(pit_from_grid(table, GRID, truth) for table in (cdf, new.cdf)), covariates


def limits(n):
    """KS distance and error of a 90 % coverage of n test galaxies, with the repair's own error."""
    share = np.sqrt(1 + TEST / CALIBRATION)
    return ks_limit(n, confidence=0.999) * share, 3.3 * np.sqrt(0.09 / n) * share


@pytest.mark.parametrize("how", ["global", "local"])
@pytest.mark.parametrize("kind", ["10 % too narrow", "shifted"])
def test_what_is_wrong_for_all_is_repaired(how, kind):
    before, after, pit, repaired, _ = judge(how, kind, seed=1)
    assert min(pit_result(pit).p_value, coverage(pit, levels=[0.9])[0].p_value) < 1e-3
    distance, error = limits(TEST)
    assert pit_result(repaired).distance < distance
    assert abs(coverage(repaired, levels=[0.9])[0].value - 0.9) < error
    assert after.mean() < before.mean()


def test_a_repaired_width_and_shift_are_the_true_ones():
    pit = stats.norm.cdf(0.3 + 1.25 * stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000))
    levels = np.linspace(0.005, 0.995, 199)
    repaired = fit_global(pit).pit_map().cdf(levels)
    expected = stats.norm.cdf((stats.norm.ppf(levels) - 0.3) / 1.25)
    np.testing.assert_allclose(repaired, expected, atol=3e-3)


@pytest.mark.parametrize("kind", ["opposite widths", "opposite shifts", "width by magnitude"])
def test_what_is_wrong_by_kind_is_repaired_by_the_local_map_only(kind):
    for how, passes in (("global", False), ("local", True)):
        before, after, pit, repaired, covariates = judge(how, kind, seed=2)
        if kind == "width by magnitude":
            halves = covariates["magnitude"] > 21
        else:
            halves = covariates["kind"] == 1
        assert abs(coverage(pit, levels=[0.9])[0].value - 0.9) < 0.05  # nearly right on average
        distance, error = limits(TEST // 2)
        verdicts = [pit_result(repaired[half]).distance < distance for half in (halves, ~halves)]
        covered = [coverage(repaired[half], levels=[0.9])[0].value for half in (halves, ~halves)]
        within = [abs(value - 0.9) < error for value in covered]
        assert all(verdicts + within) == passes
        if passes:
            assert after.mean() < before.mean()


@pytest.mark.parametrize("how", ["global", "local"])
@pytest.mark.parametrize("n", [400, 1500])
def test_exact_posteriors_lose_at_most_two_percent(how, n):
    losses = []
    for seed in range(3):
        rng = generator(10 + seed)
        maps = fit(how, "exact", rng, n=n)
        covariates, centre, width, truth = posteriors("exact", 1000, rng)
        pdf, cdf = tables(centre, width)
        new = recalibrate_density(pdf, GRID, maps(covariates), cdf=cdf)
        losses.append(crps_grid(new.cdf, GRID, truth).mean() / crps_grid(cdf, GRID, truth).mean())
    assert max(losses) < 1.02
    assert np.mean(losses) < 1.01


def test_most_exact_samples_are_left_as_they_are():
    rng = generator(20)
    identity = [fit_global(rng.uniform(size=1000)).width == 0 for _ in range(60)]
    assert np.mean(identity) > 0.6


coefficients = st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=6).map(
    lambda theta: np.array(theta) / np.arange(1, len(theta) + 1)
)


@given(coefficients, st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_map_is_monotone_and_undone_by_its_inverse(theta, levels):
    repair = PitMap.tilted(theta[None])
    u = np.sort(levels)
    mapped = repair.cdf(u)
    np.testing.assert_allclose(repair.cdf([0.0, 1.0]), [0, 1], atol=1e-12)
    assert np.all(np.diff(mapped) >= 0)
    assert np.all(repair.density(u) > 0)
    np.testing.assert_allclose(repair.cdf(repair.inverse(u)), u, atol=1e-9)


@given(coefficients)
def test_the_density_of_a_map_is_the_slope_of_its_cdf(theta):
    repair = PitMap.tilted(theta[None])
    u = np.linspace(0.013, 0.987, 41)
    slope = (repair.cdf(u + 1e-6) - repair.cdf(u - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope, repair.density(u), rtol=1e-3, atol=1e-6)


def test_the_terms_are_orthonormal_under_the_uniform_law():
    gram = BASIS.T @ (KNOT_WEIGHTS[:, None] * BASIS)
    np.testing.assert_allclose(gram, np.eye(BASIS.shape[1]), atol=1e-9)
    np.testing.assert_allclose(KNOT_WEIGHTS @ BASIS, 0, atol=1e-9)


@pytest.mark.parametrize("exact_cdf", [True, False])
def test_recalibrated_densities_are_proper(exact_cdf):
    rng = generator(3)
    maps = PitMap.tilted(rng.normal(scale=0.3, size=(30, 6)) / np.arange(1, 7) ** 2)
    pdf, cdf = tables(rng.normal(size=30), rng.uniform(0.5, 1.5, size=30))
    new = recalibrate_density(pdf, GRID, maps, cdf=cdf if exact_cdf else None)
    assert new.pdf.min() >= 0
    np.testing.assert_allclose(np.trapezoid(new.pdf, GRID, axis=1), 1, rtol=1e-12)
    assert np.all(np.diff(new.cdf, axis=1) >= 0)
    np.testing.assert_allclose(new.cdf[:, [0, -1]], [[0, 1]] * 30, atol=1e-4)
    steps = 0.5 * (new.pdf[:, 1:] + new.pdf[:, :-1]) * np.diff(GRID)
    np.testing.assert_allclose(steps.cumsum(axis=1), new.cdf[:, 1:] - new.cdf[:, :1], atol=5e-3)


def test_rows_of_maps_are_the_maps_of_the_galaxies():
    theta, u = generator(4).normal(scale=0.4, size=(5, 4)), generator(5).uniform(size=(5, 7))
    together = PitMap.tilted(theta)
    for name in ("cdf", "density", "inverse"):
        rows = [getattr(PitMap.tilted(theta[i : i + 1]), name)(u[i]) for i in range(len(theta))]
        np.testing.assert_allclose(getattr(together, name)(u), rows, rtol=1e-9)


def test_truths_outside_the_posterior_do_not_break_the_fit():
    pit = np.concatenate([generator(6).uniform(size=980), np.zeros(10), np.ones(10)])
    repair = fit_global(pit).pit_map()
    assert repair.cdf(0.5) == pytest.approx(0.5, abs=0.05)
    assert np.isfinite(repair.density([0.0, 0.5, 1.0])).all()


def test_missing_truths_are_left_out():
    rng = generator(7)
    pit, magnitude = rng.beta(2, 2, size=400), rng.uniform(18, 24, size=400)
    holes = np.concatenate([pit, [np.nan] * 9])
    assert fit_global(holes) == fit_global(pit)
    with_holes = fit_local(
        holes, {"m": np.append(magnitude, np.full(9, 20.0))}, generator=generator(1)
    )
    assert with_holes == fit_local(pit, {"m": magnitude}, generator=generator(1))


def test_units_of_covariates_do_not_matter_and_far_values_count_as_extremes():
    rng = generator(8)
    magnitude = rng.uniform(18, 24, size=600)
    pit = np.where(magnitude > 21, rng.beta(2, 2, size=600), rng.beta(0.5, 0.5, size=600))
    one = fit_local(pit, {"m": magnitude}, generator=generator(1))
    other = fit_local(pit, {"m": 10 ** (magnitude / 5)}, generator=generator(1))
    at = np.sort(magnitude)[[30, 300, 570]]
    densities = [
        one.pit_map({"m": at}).density(np.full(3, 0.02)),
        other.pit_map({"m": 10 ** (at / 5)}).density(np.full(3, 0.02)),
    ]
    np.testing.assert_allclose(*densities, rtol=0.05)
    edge, far = one.pit_map({"m": [24.0, 40.0]}).knot_density
    np.testing.assert_allclose(edge, far)


def test_local_gain_is_seen_only_where_there_is_one():
    rng = generator(9)
    for kind, expected in (("opposite shifts", True), ("10 % too narrow", False)):
        covariates, centre, width, truth = posteriors(kind, 1500, rng)
        pit = stats.norm.cdf((truth - centre) / width)
        repair = fit_local(pit, covariates, generator=rng)
        assert (repair.gain > 3 * repair.gain_error > 0) == expected


def test_repairs_survive_json():
    rng = generator(11)
    covariates = {"m": rng.uniform(18, 24, size=300), "flag": rng.integers(2, size=300)}
    one = fit_global(rng.beta(2, 2, size=300))
    local = fit_local(rng.beta(2, 2, size=300), covariates, generator=rng)
    assert GlobalRecalibration.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert LocalRecalibration.from_dict(json.loads(json.dumps(local.to_dict()))) == local


GOOD = {"m": np.linspace(18, 24, 300)}
PIT = np.linspace(0.001, 0.999, 300)


def local(pit=PIT, covariates=GOOD):
    return fit_local(pit, covariates, generator=generator(0))


IDENTITY = PitMap.tilted(np.zeros((1, 6)))
WRONG = {
    "not a probability": lambda: fit_global(PIT + 1),
    "few galaxies": lambda: fit_global(PIT[:99]),
    "few galaxies, local": lambda: local(PIT[:299], {"m": GOOD["m"][:299]}),
    "not a probability, local": lambda: local(PIT + 1),
    "no covariate": lambda: local(covariates={}),
    "NaN covariate": lambda: local(covariates={"m": np.where(PIT > 0.5, np.nan, 1.0)}),
    "covariates of others": lambda: local(covariates={"m": np.ones(9)}),
    "covariates of two shapes": lambda: local(covariates={**GOOD, "n": np.ones(9)}),
    "a covariate lacks": lambda: local().pit_map({"n": [1.0]}),
    "another kind": lambda: LocalRecalibration.from_dict({"kind": "global"}),
    "kind lacks": lambda: GlobalRecalibration.from_dict({}),
    "level above 1": lambda: IDENTITY.inverse(1.1),
    "NaN level": lambda: IDENTITY.cdf([np.nan]),
    "maps of others": lambda: PitMap.tilted(np.zeros((3, 2))).cdf(np.ones((2, 5))),
    "falling grid": lambda: recalibrate_density(np.ones((1, 3)), [3, 2, 1], IDENTITY),
    "pdf of another grid": lambda: recalibrate_density(np.ones((1, 3)), [1, 2], IDENTITY),
    "negative pdf": lambda: recalibrate_density([[1.0, -1, 1]], [1, 2, 3], IDENTITY),
    "no probability": lambda: recalibrate_density([[0.0, 0, 0]], [1, 2, 3], IDENTITY),
    "cdf of another shape": lambda: recalibrate_density(
        np.ones((1, 3)), [1, 2, 3], IDENTITY, cdf=np.ones((2, 3))
    ),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"(?s)^Expected .*; got .*\. .*\.$"):
        call()
