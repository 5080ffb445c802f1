"""NUTS against closed forms, against importance weights, and in the model's own modes.

False-alarm budget: seeds are fixed; every mean is allowed five Monte Carlo standard errors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpyro.diagnostics import effective_sample_size
from test_latent import field
from toys import small_model, toys

from probmmae.inference.importance import Proposal, propose
from probmmae.inference.jax_decoder import field_arrays, field_log_prob, low_rank_log_prob
from probmmae.inference.nuts import refine, sample

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
    model, observed = quiet_model(), TOYS.batch.take(slice(1))
    observed = type(observed)(
        observed.images, observed.photometry, observed.spectra, observed.z,
        torch.zeros(1, dtype=torch.bool),
    )  # fmt: skip
    weak = TOYS.batch.spectra.take(slice(1))
    weak = type(weak)(
        *(part[:, :1] for part in (weak.wavelength, weak.flux, weak.ivar * 1e-4, weak.sigma)),
        weak.aperture[:, :1],
    )
    generator = torch.Generator().manual_seed(0)
    proposal = propose(model, observed, evidence=weak, draws=1000, generator=generator)
    tree = refine(
        model, observed, evidence=weak, proposal=proposal, key=jax.random.key(1), draws=300,
        warmup=300,
    )  # fmt: skip
    return proposal, tree


@pytest.mark.slow
def test_every_mode_is_sampled_and_agrees_with_importance_weights(case):
    proposal, tree = case
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
    _, tree = case
    assert float(tree["modes"]["field_error"].max()) < 0.02


@pytest.mark.slow
def test_arviz_reads_it(case, tmp_path):
    import arviz

    _, tree = case
    tree.to_netcdf(tmp_path / "exact.nc", engine="h5netcdf")
    posterior = arviz.from_netcdf(tmp_path / "exact.nc", engine="h5netcdf")["posterior"]
    assert posterior["redshift"].shape == (4, 300)


@pytest.mark.parametrize("rows", [(2, 1, 1), (1, 2, 1), (1, 1, 2)])
def test_refine_refuses_more_than_one_galaxy(rows):
    model, batch = quiet_model(), TOYS.batch
    nothing = torch.zeros(rows[2], 30)
    with pytest.raises(ValueError, match="Expected one galaxy"):
        refine(
            model, batch.take(slice(rows[0])), evidence=batch.spectra.take(slice(rows[1])),
            proposal=Proposal(nothing, torch.zeros(rows[2], 30, 12), nothing),
            key=jax.random.key(0),
        )  # fmt: skip


def test_draws_without_a_mode_are_refused():
    model, one = quiet_model(), TOYS.batch.take(slice(1))
    z = torch.linspace(0.0, 3.0, 30)[None]
    with pytest.raises(ValueError, match="5 draws or more about some redshift"):
        refine(
            model, one, evidence=one.spectra, key=jax.random.key(0),
            proposal=Proposal(z, torch.zeros(1, 30, 12), torch.zeros(1, 30)),
        )  # fmt: skip
