"""NUTS against closed forms, against importance weights, and in the model's own modes.

False-alarm budget: seeds are fixed; every mean is allowed five Monte Carlo standard errors.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from astropy import units
from numpyro.diagnostics import effective_sample_size
from test_latent import field
from toys import small_model, toys

from probmmae.calibration.ranks import rank_result
from probmmae.decoders import calibration_modes
from probmmae.inference.evidence import Evidence, LineFlux, Measured
from probmmae.inference.importance import Proposal, propose
from probmmae.inference.jax_decoder import field_arrays, field_log_prob, low_rank_log_prob
from probmmae.inference.modes import sample_modes
from probmmae.inference.nuts import Chains, sample
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


@pytest.mark.parametrize(("r_hat", "diverging"), [(1.2, 0), (1.01, 5)])
def test_chains_that_disagree_or_diverge_are_told(r_hat, diverging):
    every = np.arange(200).reshape(2, 100)
    chains = Chains(np.zeros((2, 100, 1)), np.zeros((2, 100)), every < diverging, r_hat, 50.0)
    assert not chains.agree
    with pytest.warns(UserWarning, match=f"got R-hat {r_hat:.3f} and {diverging / 200:.1%} div"):
        chains.warn("here")


def source_of(model, observed, spectra):
    return Source(model, observed, model.encode(observed), Measured.of_spectra(spectra))


# Of one short chain R-hat is a few per cent.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Expected chains that agree:UserWarning")
def test_ranks_of_what_the_model_draws_are_uniform():
    # u and the fluxes of three lines drawn from the model at a known redshift, inferred, ranked.
    # The bands of the six numbers of u hold together with 99.9 %.
    model, observed = quiet_model(), TOYS.batch.take(slice(1))
    unit = units.Unit(1e-17 * units.erg / units.s / units.cm**2)
    names = ("H-alpha", "H-beta", "[OIII]5008")
    told = Evidence(lines=[LineFlux(name, 1 * unit, 0.3 * unit) for name in names]).measured()
    context, which = model.encode(observed), told.lines.which[0]
    known = model.known_field(context, observed, told.aperture, observed.z).field
    at = model.templates.line_wavelength[which] * (1 + observed.z)
    modes = calibration_modes(at) * torch.exp(model.spectrum_decoder.log_calibration)
    ranks, shrunk = [], []
    for seed in range(24):
        torch.manual_seed(seed)
        truth = known.distribution().sample()
        light = model.spectrum_decoder(truth.float()[:, None], context.scale[:, None])
        flux = light.lines[0, 0, which] * (1 + (modes * torch.randn(3, 3)).sum(-1))
        flux = flux + 0.3 * torch.randn(3)
        drawn = replace(told, lines=replace(told.lines, flux=flux[None]))
        generator = torch.Generator().manual_seed(seed)
        proposal = propose(model, observed, evidence=drawn, draws=200, generator=generator)
        found = sample_modes(
            Source(model, observed, context, drawn), proposal, seed=seed, draws=100, warmup=80,
            chains=1,
        )  # fmt: skip
        _, draws = found.draws(49, seed=seed)
        ranks.append((draws < truth[0].numpy()).sum(0))
        centre = draws.mean(0)
        shrunk.append((centre + 0.25 * (draws - centre) < truth[0].numpy()).sum(0))
    right, wrong = (
        [rank_result(each, draws=49, confidence=1 - 0.001 / 6).passed for each in np.array(one).T]
        for one in (ranks, shrunk)
    )
    assert all(right)
    assert not any(wrong)


def quiet_model():
    """An untrained network whose redshifts are narrow."""
    model = small_model(TOYS).requires_grad_(False)
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
    return proposal, sample_modes(source, proposal, seed=1, draws=200, warmup=150)


@pytest.mark.slow
def test_every_mode_is_sampled_and_agrees_with_importance_weights(case):
    proposal, found = case
    tree = found.to_arviz()
    modes, posterior = tree["modes"], tree["posterior"]
    assert posterior["redshift"].dims == ("chain", "draw")
    assert posterior["u"].shape == (4, 200, 1, 6)
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
    assert posterior["redshift"].shape == (4, 200)


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
