"""n(z) of simulated surveys whose population is not the training sample's.

False-alarm budget: seeds are fixed; means are allowed four posterior standard deviations (6e-5
each), the coverage of 90 % intervals over 3 surveys of about 15 independent numbers each five
binomial standard deviations.
"""

import re

import jax
import numpy as np
import pytest
import torch
from scipy import stats

from probmmae.inference import population
from probmmae.inference.handoff import n_of_z_ensemble, sacc_tracers, write_n_of_z
from probmmae.inference.population import Population, cell_masses, infer, tomographic
from probmmae.inference.redshifts import RedshiftPosterior
from probmmae.redshift import RedshiftDensity

EDGES = np.linspace(0, 1.5, 31)
MIDDLES = 0.5 * (EDGES[1:] + EDGES[:-1])
TRAINING = stats.gamma(4.0, scale=0.11)
TRUE = stats.norm(0.72, 0.17)
GALAXIES = 2000


def histogram(law):
    share = np.diff(law.cdf(EDGES))
    return share / share.sum()


def survey(seed, galaxies=GALAXIES, law=TRUE):
    """Redshifts, an observed colour of each, and the masses of an exact posterior under TRAINING.

    One galaxy in ten is an outlier: its colour says little and speaks of another redshift.
    """
    rng = np.random.default_rng(seed)
    cell = rng.choice(len(MIDDLES), size=galaxies, p=histogram(law))
    z = MIDDLES[cell]
    good = rng.random(galaxies) < 0.9
    colour = np.where(
        good, rng.normal(z, 0.07 * (1 + z)), rng.normal(0.9 - 0.4 * z, 0.15)
    )  # fmt: skip
    told = 0.9 * stats.norm.pdf(colour[:, None], MIDDLES, 0.07 * (1 + MIDDLES))
    told = told + 0.1 * stats.norm.pdf(colour[:, None], 0.9 - 0.4 * MIDDLES, 0.15)
    masses = told * histogram(TRAINING)
    return z, colour, (masses / masses.sum(1, keepdims=True)).astype(np.float32)


def inferred(masses, seed=0):
    return infer(
        masses, EDGES, interim=histogram(TRAINING), key=jax.random.key(seed), draws=200, warmup=200
    )


@pytest.fixture(scope="module")
def surveys():
    return [survey(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def found(surveys):
    return [inferred(masses, seed) for seed, (_, _, masses) in enumerate(surveys)]


def test_the_stack_is_biased_and_the_hierarchical_n_of_z_is_not(surveys, found):
    truth = histogram(TRUE)
    for (_, _, masses), one in zip(surveys, found, strict=True):
        stack = masses.mean(0)
        error = one.mean_redshift.std()
        assert abs(stack @ MIDDLES - truth @ MIDDLES) > 5 * error
        assert abs(one.mean_redshift.mean() - truth @ MIDDLES) < 4 * error
        apart = [np.abs(share - truth).sum() for share in (one.share.mean(0), stack)]
        assert apart[0] < 0.6 * apart[1]


def test_intervals_cover(found):
    truth = histogram(TRUE) / np.diff(EDGES)
    inside = []
    for one in found:
        low, high = one.interval(0.9)
        told = truth > 1e-2
        inside.append(((low <= truth) & (truth <= high))[told])
    # 45 independent numbers at 90 %: standard deviation 0.045.
    assert np.concatenate(inside).mean() > 0.9 - 5 * 0.045


def test_the_chains_agree(found):
    for one in found:
        assert one.r_hat < 1.05
        assert one.effective > 100
        assert one.divergences <= 4  # one in a hundred draws
        assert one.pareto_k is None
        np.testing.assert_allclose(one.density @ np.diff(EDGES), 1, rtol=1e-5)


def test_the_expansion_of_many_galaxies_is_the_likelihood_itself(surveys, found, monkeypatch):
    monkeypatch.setattr(population, "EXACT", 10)
    monkeypatch.setattr(population, "_ROWS", 700)
    one = inferred(surveys[0][2])
    assert one.pareto_k < 0.7
    spread = found[0].share.std(0)
    assert np.all(np.abs(one.share.mean(0) - found[0].share.mean(0)) < 0.5 * spread)
    np.testing.assert_allclose(one.mean_redshift.std(), found[0].mean_redshift.std(), rtol=0.35)


def test_of_many_galaxies_the_curvature_is_not_lost(surveys):
    # It is a scatter, never negative, and the prior adds one to it.
    _, _, masses = surveys[0]
    many = np.broadcast_to(masses, (100, *masses.shape)).reshape(-1, 30)
    root = 16 * population._root(EDGES, 1.28)
    _, hessian, _ = population._mode(many, histogram(TRAINING), root, np.zeros(30))
    assert np.linalg.eigvalsh(hessian).min() > 1 - 1e-3


def test_tails_beyond_the_training_sample_are_left_out(surveys, found):
    # Smooth densities reach a little into cells where there was nothing to learn from.
    _, colour, masses = surveys[0]
    edges = np.append(EDGES, [1.6, 1.7])
    tails = np.full((GALAXIES, 2), 2e-4, np.float32)
    reaching, interim = np.hstack([masses, tails]), np.append(histogram(TRAINING), [0, 0])
    one = infer(reaching, edges, interim=interim, key=jax.random.key(0), draws=200, warmup=200)
    assert np.all(one.share[:, 30:] == 0)
    spread = found[0].share.std(0)
    assert np.all(np.abs(one.share[:, :30].mean(0) - found[0].share.mean(0)) < 0.5 * spread)
    n = tomographic(one, reaching, np.digitize(colour, [0.7]), seed=0)
    np.testing.assert_allclose(n @ np.diff(edges), 1)
    # With five times the tails it would be guesswork.
    reaching[:, 30:] *= 5
    with pytest.raises(ValueError, match=r"at redshifts 1\.5 to 1\.7\. End the cells"):
        infer(reaching, edges, interim=interim, key=jax.random.key(0))


def test_tomographic_bins_are_not_biased_either(surveys, found):
    z, colour, masses = surveys[0]
    bins = np.digitize(colour, [0.5, 0.8]) - 1  # below 0.5 in no bin
    n = tomographic(found[0], masses, bins, seed=0)
    assert n.shape == (2, 400, 30)
    for index in range(2):
        mean = n[index] @ (MIDDLES * np.diff(EDGES))
        inside = z[bins == index]
        error = np.hypot(mean.std(), inside.std() / len(inside) ** 0.5)
        assert abs(mean.mean() - inside.mean()) < 4 * error
        stack = masses[bins == index].mean(0) @ MIDDLES
        assert abs(stack - inside.mean()) > 2 * abs(mean.mean() - inside.mean())


def test_masses_are_those_of_the_density(tmp_path):
    generator = torch.Generator().manual_seed(0)
    loc = 0.3 + 0.05 * torch.randn(5000, 2, generator=generator)
    density = RedshiftDensity(torch.zeros(5000, 2), loc, torch.full((5000, 2), 0.05))
    masses = cell_masses(density, EDGES)
    assert masses.dtype == np.float32
    below = density[4321].cdf(torch.tensor(EDGES[10]))
    assert masses[4321, :10].sum() == pytest.approx(float(below), abs=1e-5)
    stored = np.lib.format.open_memmap(
        tmp_path / "m.npy", mode="w+", dtype=np.float32, shape=(5000, 30)
    )
    np.testing.assert_array_equal(cell_masses(density, EDGES, stored), masses)


def some_population():
    share = np.full((3, 30), 1 / 30)
    return Population(EDGES, share, share[0], 1.0, 100.0, 0, None)


def test_a_selection_is_undone():
    detected = np.linspace(1, 0.1, 30)
    parent = some_population().before_selection(detected)
    again = parent * detected
    np.testing.assert_allclose(again / again.sum(1, keepdims=True), np.full((3, 30), 1 / 30))


@pytest.mark.parametrize(
    ("edges", "masses", "interim", "message"),
    [
        ([0.1, 0.1, 0.2], np.ones((4, 2)), [1, 1], "increasing redshifts >= 0"),
        ([-0.1, 0.1, 0.2], np.ones((4, 2)), [1, 1], "increasing redshifts >= 0"),
        ([0, 1, 2], np.ones((4, 3)), [1, 1], "galaxy in 2 cells; got shape"),
        ([0, 1, 2], np.ones((0, 2)), [1, 1], "at least one galaxy"),
        ([0, 1, 2], np.ones((4, 2)), [1, 1, 1], "each of 2 cells, none negative"),
        ([0, 1, 2], np.ones((4, 2)), [-1, 1], "none negative"),
        ([0, 1, 2], np.array([[0.0, 0.0]]), [1, 1], "got 1 that have none"),
        ([0, 1, 2], np.array([[0.0, 1.0]]), [1, 0], "got 1 of it at redshifts 1 to 2"),
        ([0, 1, 2], np.array([[1e4, 0.0], [0.0, 1.0]]), [1, 0], "got 1 that have none"),
        (
            [0, 0.1, 0.5, 2],
            np.array([[0.1, 0.8, 0.1]] * 4),
            [0, 1, 0],
            "got 0.2 of it at redshifts 0 to 0.1, 0.5 to 2",
        ),
    ],
)
def test_infer_refuses(edges, masses, interim, message):
    with pytest.raises(ValueError, match=message):
        infer(masses, edges, interim=interim, key=jax.random.key(0))


def test_what_a_population_refuses():
    one = some_population()
    with pytest.raises(ValueError, match="between 0 and 1"):
        one.interval(90)
    for detected in (np.zeros(30), np.ones(29)):
        with pytest.raises(ValueError, match=r"in \(0, 1\] for each of 30 cells"):
            one.before_selection(detected)
    for bins in (np.zeros(4), np.full(5, -1)):
        with pytest.raises(ValueError, match="the bin of each of 5 galaxies"):
            tomographic(one, np.ones((5, 30)), bins, seed=0)


def changed(array, value):
    again = np.array(array, dtype=float)
    again.flat[1] = value
    return again


MASSES = np.full((5, 30), 1 / 30)
N_OF_Z = np.full((1, 3, 30), 1 / 1.5)


def from_masses(masses=MASSES, edges=EDGES, interim=MASSES[0], **other):
    infer(masses, edges, interim=interim, **{"key": jax.random.key(0), **other})


def in_bins(bins, masses=MASSES):
    tomographic(some_population(), masses, bins, seed=0)


def of_density(loc, edges=EDGES):
    cell_masses(RedshiftDensity(torch.zeros_like(loc), loc, torch.ones_like(loc)), edges)


# What is wrong: what the error must name of it.
WRONG = {
    "a mass of NaN": (lambda: from_masses(changed(MASSES, np.nan)), "1 NaN"),
    "an infinite mass": (lambda: from_masses(changed(MASSES, np.inf)), "1 NaN or inf"),
    "a negative mass in a list": (lambda: from_masses(changed(MASSES, -2).tolist()), "from -2"),
    "an edge of NaN": (lambda: from_masses(edges=changed(EDGES, np.nan)), "1 NaN"),
    "an infinite edge": (lambda: from_masses(edges=np.append(EDGES[:-1], np.inf)), "1 NaN or inf"),
    "a repeated edge": (lambda: from_masses(edges=changed(EDGES, 0)), "1 not above"),
    "an interim of NaN": (lambda: from_masses(interim=changed(MASSES[0], np.nan)), "1 NaN"),
    "no draws": (lambda: from_masses(draws=0), "got 0"),
    "draws below zero": (lambda: from_masses(draws=-5), "got -5"),
    "half a draw": (lambda: from_masses(draws=4.5), r"got 4\.5"),
    "no warmup": (lambda: from_masses(warmup=0), "got 0"),
    "no chains": (lambda: from_masses(chains=0), "got 0"),
    "a number for a key": (lambda: from_masses(key=0), "got int"),
    "many keys": (
        lambda: from_masses(key=jax.random.split(jax.random.key(0), 3)),
        r"of shape \(3,\)",
    ),
    "detected of NaN": (
        lambda: some_population().before_selection(changed(MASSES[0], np.nan)),
        "1 NaN",
    ),
    "bins as floats": (lambda: in_bins(np.zeros(5)), "got float64"),
    "an empty bin": (lambda: in_bins([0, 0, 2, 2, -1]), "got none in bin 1"),
    "a bin below -1": (lambda: in_bins([0, 0, 0, 0, -2]), "from -2"),
    "bins of other cells": (lambda: in_bins([0] * 5, MASSES[:, 1:]), r"\(5, 29\)"),
    "bins of masses of NaN": (lambda: in_bins([0] * 5, changed(MASSES, np.nan)), "1 NaN"),
    "a density at an edge of NaN": (
        lambda: of_density(torch.ones(5, 2), changed(EDGES, np.nan)),
        "1 NaN",
    ),
    "the density of one galaxy": (lambda: of_density(torch.ones(2)), r"shape \(2,\)"),
    "a posterior": (
        lambda: cell_masses(
            RedshiftPosterior(
                RedshiftDensity(torch.zeros(2), torch.ones(2), torch.ones(2)), np.ones(9), None
            ),
            EDGES,
        ),
        r"got RedshiftPosterior\. .* posterior\.redshift\.density\[None\]",
    ),
}

WRONG_N_OF_Z = {
    "missing": (changed(N_OF_Z, np.nan), EDGES, "1 NaN"),
    "infinite": (changed(N_OF_Z, np.inf), EDGES, "1 NaN or inf"),
    "negative": (changed(N_OF_Z, -3), EDGES, "from -3"),
    "all zero": (0 * N_OF_Z, EDGES, "from 0 to 0"),
    "shares": (np.full((1, 3, 30), 1 / 30), EDGES, r"from 0\.05 to 0\.05"),
    "no draws": (N_OF_Z[:, :0], EDGES, r"\(1, 0, 30\)"),
    "no bins": (N_OF_Z[:0], EDGES, r"\(0, 3, 30\)"),
    "an edge of NaN": (N_OF_Z, changed(EDGES, np.nan), "1 NaN"),
    "a repeated edge": (N_OF_Z, changed(EDGES, 0), "1 not above"),
    "falling edges": (N_OF_Z, EDGES[::-1], "30 not above"),
}


@pytest.mark.parametrize(("call", "named"), WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_found(call, named):
    with pytest.raises((ValueError, TypeError), match=r"Expected .*; got .*\. ") as refused:
        call()
    assert re.search(named, str(refused.value))


@pytest.mark.parametrize(
    ("density", "edges", "named"), WRONG_N_OF_Z.values(), ids=WRONG_N_OF_Z.keys()
)
def test_wrong_n_of_z_is_not_handed_over(density, edges, named, tmp_path):
    for call in (sacc_tracers, lambda *given: write_n_of_z(tmp_path / "n.hdf5", *given)):
        with pytest.raises(ValueError, match=r"Expected .*; got .*\. ") as refused:
            call(density, edges)
        assert re.search(named, str(refused.value))
    assert not list(tmp_path.iterdir())


def test_masses_may_be_a_list_and_rounded():
    in_bins([0] * 5, changed(MASSES, -1e-9))
    one, two = (
        tomographic(some_population(), masses, [0, 1, 1, 0, -1], seed=0)
        for masses in (MASSES, MASSES.tolist())
    )
    np.testing.assert_array_equal(one, two)


def test_n_of_z_goes_out_as_qp_and_as_tracers(tmp_path):
    import qp

    density = np.random.default_rng(0).dirichlet(np.ones(30), size=(2, 5)) / np.diff(EDGES)
    write_n_of_z(tmp_path / "n.hdf5", density, EDGES)
    stored = qp.read(tmp_path / "n.hdf5")
    assert stored.npdf == 10
    np.testing.assert_allclose(stored.pdf(MIDDLES), density.reshape(10, 30), rtol=1e-5)
    assert stored.ancil["bin"].tolist() == [0] * 5 + [1] * 5
    one, two = sacc_tracers(density, EDGES, name="lens")
    assert (one["name"], two["name"]) == ("lens_0", "lens_1")
    np.testing.assert_allclose(two["nz"] @ np.diff(EDGES), 1)
    np.testing.assert_allclose(two["extra_columns"]["error"], density[1].std(0))
    # Of one sample the axis of bins may be left out.
    assert n_of_z_ensemble(density[0], EDGES).npdf == 5
    with pytest.raises(ValueError, match="one edge more than cells"):
        sacc_tracers(density, EDGES[:-1])
