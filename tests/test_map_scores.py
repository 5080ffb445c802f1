"""Scores of drawn maps: exact posteriors pass, spaxels that forget each other fail as a whole."""

from dataclasses import replace

import numpy as np
import pytest

from probmmae.calibration.map_scores import (
    INTEGRALS,
    ZONES,
    GalaxyMaps,
    chi_square_of_draws,
    integral_scores,
    integrals,
    map_correlation,
    zone_scores,
)
from probmmae.spectral_maps import QUANTITIES

NAMES = list(QUANTITIES)
RADIUS = 0.1 * np.arange(20)
SHAPE = (len(NAMES), 40, len(RADIUS))


def world(galaxies: int, *, seed: int = 0) -> list[GalaxyMaps]:
    """Truth and draws of one law: a level that the spaxels share, and one of each spaxel."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(galaxies):
        common = rng.normal(size=(len(NAMES), 41, 1))
        whole = 10 + 2 * common + rng.normal(size=(len(NAMES), 41, len(RADIUS)))
        whole = whole.astype(np.float32)
        found.append(
            GalaxyMaps(str(index), whole[:, 1:], whole[:, 0], np.zeros_like(whole[:, 0]), RADIUS)
        )
    return found


def forgetful(one: GalaxyMaps, rng: np.random.Generator) -> GalaxyMaps:
    """The same draws of every spaxel, in an order of each spaxel's own."""
    return replace(one, drawn=rng.permuted(one.drawn, axis=1))


def test_exact_posteriors_are_covered_in_every_ring_and_as_a_whole():
    """150 galaxies: rings within 0.06, and integrals within 0.08, are 3.2 standard errors of 150
    galaxies: 14 figures, one false alarm in 50 seeds."""
    told = world(150)
    for score in zone_scores(told, ("h_alpha", "d4000")):
        assert score.zone in ZONES
        ninety = score.coverage[1]
        assert ninety.n == 150
        assert ninety.value == pytest.approx(0.9, abs=0.06)
        assert abs(score.bias) < 0.2
    for score in integral_scores(told):
        assert score.coverage[1].value == pytest.approx(0.9, abs=0.08), score.name


def test_spaxels_that_forget_each_other_fail_as_a_whole_only():
    rng = np.random.default_rng(1)
    told = [forgetful(one, rng) for one in world(150)]
    (ring,) = [one for one in zone_scores(told, ("h_alpha",)) if one.zone == ZONES[2]]
    assert ring.coverage[1].value == pytest.approx(0.9, abs=0.06)
    total = next(one for one in integral_scores(told) if one.name == list(INTEGRALS)[1])
    assert total.coverage[1].value < 0.6


def test_integrals_are_what_they_say():
    maps = np.zeros((len(NAMES), len(RADIUS)))
    maps[NAMES.index("h_alpha")] = 1.0
    maps[NAMES.index("h_alpha_ew")] = 5 + 3 * RADIUS
    maps[NAMES.index("d4000")] = 1.8 - 0.2 * RADIUS
    maps[NAMES.index("d4000"), 3] = np.nan
    maps[NAMES.index("o_iii")], maps[NAMES.index("h_beta")] = 2.0, 0.2
    value = list(integrals(maps, RADIUS).values())
    assert value == pytest.approx([10, 20, 3, -0.2, 1.0])


def test_noise_of_the_data_is_in_the_draws_with_its_correlation():
    """40 draws of 17 quantities: the standard deviation of a sum to 10 %, three of its errors."""
    rho = np.exp(-0.5 * ((RADIUS[:, None] - RADIUS) / 0.2) ** 2)
    error = np.full(SHAPE[::2], 0.5)
    one = GalaxyMaps("a", np.zeros(SHAPE, np.float32), np.zeros(SHAPE[::2]), error, RADIUS, rho)
    noise = one.noisy(np.random.default_rng(0)).drawn
    assert noise.std() == pytest.approx(0.5, rel=0.05)
    assert noise.sum(-1).std() == pytest.approx(0.5 * np.sqrt(rho.sum()), rel=0.1)


@pytest.mark.parametrize("correlated", [False, True])
def test_chi_square_of_maps_is_its_degrees_of_freedom(correlated):
    """100 maps with 400 draws of their own law and correlated noise: the mean is 1 to 10 %, three
    to four of its errors; without the draws' part it is far beyond."""
    rng = np.random.default_rng(2)
    rho = np.exp(-0.5 * ((RADIUS[:, None] - RADIUS) / 0.15) ** 2) if correlated else None
    index = NAMES.index("h_alpha")
    values = []
    for _ in range(100):
        whole = rng.normal(size=(1, 401, 1)) + 0.3 * rng.normal(size=(1, 401, len(RADIUS)))
        share, mode = np.linalg.eigh(np.eye(len(RADIUS)) if rho is None else rho)
        noise = (mode * np.sqrt(np.maximum(share, 0))) @ rng.normal(size=len(RADIUS))
        known, drawn = np.zeros(SHAPE[::2]), np.zeros((SHAPE[0], 400, SHAPE[2]), np.float32)
        known[index], drawn[index] = whole[0, 0] + 0.5 * noise, whole[0, 1:]
        one = GalaxyMaps("a", drawn, known, np.full(SHAPE[::2], 0.5), RADIUS, rho)
        value, freedom = chi_square_of_draws(one, "h_alpha")
        alone, _ = chi_square_of_draws(one, "h_alpha", with_draws=False)
        values.append((value / freedom, alone / freedom))
    mean, naive = np.mean(values, axis=0)
    assert mean == pytest.approx(1, abs=0.1)
    assert naive > 1.3
    assert (freedom < len(RADIUS)) == correlated
    with pytest.raises(ValueError, match="A truth has no chi-square"):
        chi_square_of_draws(replace(one, error=np.zeros(SHAPE[::2])), "h_alpha")


def test_missing_spaxels_count_in_nothing():
    one = world(1)[0]
    known = one.known.copy()
    known[:, :12] = np.nan
    missing = replace(one, known=known)
    assert {score.zone for score in zone_scores([missing], ("h_alpha",))} == {ZONES[2]}
    assert np.isfinite(map_correlation([missing], "d4000")).all()
    known[:, 5:] = np.nan
    assert np.isnan(map_correlation([missing], "d4000")).all()
