"""NUTS against closed forms, against importance weights, and in the model's own modes.

False-alarm budget: seeds are fixed; every mean is allowed five Monte Carlo standard errors.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpyro.diagnostics import effective_sample_size
from test_latent import field
from toys import small_model, toys

from probmmae.calibration.ranks import rank_result
from probmmae.inference.evidence import Measured
from probmmae.inference.importance import Proposal, propose
from probmmae.inference.jax_decoder import field_arrays, field_log_prob, low_rank_log_prob
from probmmae.inference.modes import sample_modes
from probmmae.inference.nuts import sample
from probmmae.inference.target import Source

TOYS = toys(count=3, spectra=2, pixels=80)


def twin_density(data, u):
    """ln p(u) p(x | u): a Gaussian field seen through a matrix, in correlated noise."""
    prior, matrix, flux, factor, variance = data
    every = jnp.ones(flux.shape, dtype=bool)
    residual = flux - matrix @ u
    return field_log_prob(prior, u) + low_rank_log_prob(residual, factor, variance, every)


def test_of_a_linear_gaussian_twin_the_posterior_is_the_closed_form():
    prior, _ = field()
    rng = np.random.default_rng(0)
    matrix, flux = rng.normal(size=(8, 6)), 2 * rng.normal(size=8)
    factor, variance = 0.5 * rng.normal(size=(8, 2)), rng.uniform(0.2, 0.5, 8)
    before, mean = prior.covariance()[0, 0].numpy(), prior.means()[0, 0].numpy()
    noise = np.linalg.inv(factor @ factor.T + np.diag(variance))
    covariance = np.linalg.inv(np.linalg.inv(before) + matrix.T @ noise @ matrix)
    exact = covariance @ (np.linalg.solve(before, mean) + matrix.T @ noise @ flux)
    arrays = (jnp.asarray(part, jnp.float32) for part in (matrix, flux, factor, variance))
    data = (jax.tree.map(lambda part: part[0], field_arrays(prior)), *arrays)
    # It starts from draws of the prior, far from the posterior.
    start = rng.multivariate_normal(mean, before, size=4)
    found = sample(
        twin_density,
        data,
        centre=mean,
        root=np.linalg.cholesky(before),
        start=start,
        key=jax.random.key(0),
        draws=1000,
        warmup=300,
    )
    assert found.r_hat < 1.02
    assert found.effective > 400
    assert not found.diverging.any()
    points = found.position.reshape(-1, 6)
    width = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(points.mean(0) - exact) < 5 * width / found.effective**0.5)
    squares = effective_sample_size((found.position - exact) ** 2).min()
    np.testing.assert_allclose(points.std(0), width, rtol=5 * (0.5 / squares) ** 0.5)


def source_of(model, observed, spectra):
    return Source(model, observed, model.encode(observed), Measured.of_spectra(spectra))


@pytest.mark.slow
def test_ranks_of_what_the_model_draws_are_uniform():
    # u and a spectrum drawn from the model at a known redshift, inferred, ranked. The bands of the
    # six numbers of u hold together with 99.9 %.
    model, count = quiet_model(), 40
    observed = TOYS.batch.take(slice(1))
    weak = observed.spectra.map(lambda part: part[:, :1])
    weak = replace(weak, ivar=weak.ivar * 1e-2)
    source = source_of(model, observed, weak)
    known = model.known_field(source.context, observed, weak.aperture, observed.z).field
    ranks, shrunk = [], []
    for seed in range(count):
        torch.manual_seed(seed)
        u = known.distribution().sample()
        spectrum = model.spectrum(
            u.float()[:, None], u[:, None], observed.z, source.context.scale, weak
        )
        drawn = replace(weak, flux=spectrum.rsample() * (weak.ivar > 0))
        told = Measured.of_spectra(drawn)
        generator = torch.Generator().manual_seed(seed)
        proposal = propose(model, observed, evidence=told, draws=100, generator=generator)
        found = sample_modes(
            Source(model, observed, source.context, told), proposal, seed=seed, draws=150,
            warmup=150,
        )  # fmt: skip
        _, draws = found.draws(49, seed=seed)
        ranks.append((draws < u[0].numpy()).sum(0))
        centre = draws.mean(0)
        shrunk.append((centre + 0.4 * (draws - centre) < u[0].numpy()).sum(0))
    right, wrong = (
        [rank_result(each, draws=49, confidence=1 - 0.001 / 6).passed for each in np.array(one).T]
        for one in (ranks, shrunk)
    )
    assert all(right)
    assert not all(wrong)


def quiet_model():
    """An untrained network whose guide says little, and whose redshifts are narrow."""
    model = small_model(TOYS).requires_grad_(False)
    row, column = torch.tril_indices(6, 6)
    model.recognition.root.bias[row == column] = -3.0
    last = model.redshift_head.layers[-1]
    last.bias[3:6] = torch.tensor([0.1, 0.11, 0.35])
    last.bias[6:] = -5.0
    model.redshift_head.judge[-1].bias[:2] = -30.0  # no candidates: two modes are wanted
    return model


@pytest.fixture(scope="module")
def case():
    # The context has images and photometry; with spectra the field has steps in redshift.
    model, batch = quiet_model(), TOYS.batch.take(slice(1))
    hidden = replace(batch.spectra, ivar=torch.zeros_like(batch.spectra.ivar))
    observed = replace(batch, spectra=hidden, z_known=torch.zeros(1, dtype=torch.bool))
    weak = TOYS.batch.spectra.take(slice(1))
    weak = weak.map(lambda part: part[:, :1])
    weak = replace(weak, ivar=weak.ivar * 1e-4)
    generator, told = torch.Generator().manual_seed(0), Measured.of_spectra(weak)
    proposal = propose(model, observed, evidence=told, draws=1000, generator=generator)
    source = source_of(model, observed, weak)
    return proposal, sample_modes(source, proposal, seed=1, draws=300, warmup=300)


@pytest.mark.slow
def test_every_mode_is_sampled_and_agrees_with_importance_weights(case):
    proposal, found = case
    tree = found.to_arviz()
    modes, posterior = tree["modes"], tree["posterior"]
    assert posterior["redshift"].dims == ("chain", "draw")
    assert posterior["u"].shape == (4, 300, 1, 6)
    assert len(modes["weight"]) == 2
    assert float(modes["weight"].sum()) == pytest.approx(1)
    assert float(modes["r_hat"].max()) < 1.05
    assert float(tree["sample_stats"]["diverging"].mean()) < 0.01
    weight = torch.softmax(proposal.log_ratio[0], 0).numpy()
    values = np.column_stack([np.log1p(proposal.z[0].numpy()), proposal.u[0].numpy()])
    for index in range(2):
        low, high = (np.log1p(float(modes[name][index])) for name in ("z_low", "z_high"))
        inside = (values[:, 0] > low) & (values[:, 0] < high)
        own = weight * inside / weight[inside].sum()
        mean = own @ values
        spread = np.sqrt(own @ (values - mean) ** 2)
        chains = posterior.to_dataset().isel(chain=posterior["mode"].values == index)
        x = np.log1p(chains["redshift"].values)[..., None]
        found = np.concatenate([x, chains["u"].values[:, :, 0]], -1).reshape(-1, 7)
        error = spread * np.sqrt(1 / float(modes["effective"][index]) + (own**2).sum())
        assert np.all(np.abs(found.mean(0) - mean) < 5 * error)
        np.testing.assert_allclose(found.std(0), spread, rtol=0.4)


@pytest.mark.slow
def test_the_interpolated_field_is_the_networks(case):
    _, found = case
    assert max(one.field_error for one in found.modes) < 0.02


@pytest.mark.slow
def test_arviz_reads_it(case, tmp_path):
    import arviz

    _, found = case
    found.to_arviz().to_netcdf(tmp_path / "exact.nc", engine="h5netcdf")
    posterior = arviz.from_netcdf(tmp_path / "exact.nc", engine="h5netcdf")["posterior"]
    assert posterior["redshift"].shape == (4, 300)


@pytest.mark.parametrize("rows", [(2, 1, 1), (1, 2, 1), (1, 1, 2)])
def test_it_refuses_more_than_one_galaxy(rows):
    model, batch = quiet_model(), TOYS.batch
    nothing = torch.zeros(rows[2], 30)
    with pytest.raises(ValueError, match="Expected one galaxy"):
        sample_modes(
            source_of(model, batch.take(slice(rows[0])), batch.spectra.take(slice(rows[1]))),
            Proposal(nothing, torch.zeros(rows[2], 30, 12), nothing),
            seed=0,
        )


def test_draws_without_a_mode_are_refused():
    model, one = quiet_model(), TOYS.batch.take(slice(1))
    z = torch.linspace(0.0, 3.0, 30)[None]
    with pytest.raises(ValueError, match="5 draws or more about some redshift"):
        sample_modes(
            source_of(model, one, one.spectra),
            Proposal(z, torch.zeros(1, 30, 12), torch.zeros(1, 30)),
            seed=0,
        )
