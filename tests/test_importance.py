"""Importance weights: right where the truth is known, and a warning where they cannot be.

False-alarm budget: seeds are fixed; every estimate is allowed four standard errors (6e-5 each).
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from test_latent import field
from torch.distributions import MultivariateNormal
from toys import small_model, toys

from probmmae.inference.evidence import Measured
from probmmae.inference.importance import Proposal, propose, psis

TOYS = toys(count=3, spectra=2, pixels=60)


def gaussian_ratio(width, draws=4000, dimensions=4, seed=0):
    """ln of exp(3) N(0, 1) over a proposal of another width, at draws of it."""
    draw = width * np.random.default_rng(seed).normal(size=(draws, dimensions))
    target = stats.norm.logpdf(draw).sum(-1) + 3.0
    return target - stats.norm.logpdf(draw, scale=width).sum(-1)


def test_a_wide_proposal_gives_the_evidence_and_is_trusted():
    weights = psis(gaussian_ratio(1.3))
    assert weights.pareto_k < 0.5
    assert weights.trusted
    assert np.exp(weights.log_weight).sum() == pytest.approx(1)
    assert 0.3 < weights.effective / 4000 < 1
    assert abs(weights.log_evidence - 3.0) < 4 * weights.log_evidence_error


def test_the_stated_error_is_the_scatter_of_the_evidence():
    found = psis(np.stack([gaussian_ratio(1.3, draws=500, seed=s) for s in range(200)]))
    # The relative error of a standard deviation of 200 is 5 %; four of them.
    scatter = found.log_evidence.std()
    assert scatter == pytest.approx(found.log_evidence_error.mean(), rel=0.2)


def test_a_narrow_proposal_is_not_trusted():
    weights = psis(np.stack([gaussian_ratio(0.4), gaussian_ratio(1.3)]))
    assert list(weights.trusted) == [False, True]


def test_of_a_linear_gaussian_twin_the_weights_give_the_evidence():
    prior, _ = field(classes=1)
    before, mean = prior.covariance()[0, 0], prior.means()[0, 0]
    generator = torch.Generator().manual_seed(4)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64).tril()
    noise = root @ root.T + 4 * torch.eye(6)
    x = torch.randn(6, generator=generator, dtype=torch.float64)
    gain = before @ torch.linalg.inv(before + noise)
    centre, covariance = mean + gain @ (x - mean), before - gain @ before
    exact = float(MultivariateNormal(mean, before + noise).log_prob(x))
    for wider, trusted in ((1.0, True), (1.3, True), (0.2, False)):
        proposal = MultivariateNormal(centre, wider * covariance)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            u = proposal.sample((2000,))
        ratio = prior.distribution().log_prob(u[:, None])[:, 0]
        ratio = ratio + MultivariateNormal(x, noise).log_prob(u) - proposal.log_prob(u)
        weights = psis(ratio)
        assert bool(weights.trusted) == trusted
        # Of the exact posterior every weight is the evidence.
        error = 4 * weights.log_evidence_error + 1e-6
        assert abs(weights.log_evidence - exact) < error or not trusted


@pytest.mark.parametrize("z_known", [True, False])
def test_the_evidence_is_that_of_draws_from_the_prior(z_known):
    # A brute-force answer that never reads the evidence: it is weak, and the draws are many.
    model = small_model(TOYS)
    with torch.no_grad():
        model.redshift_head.layers[-1].bias[6:] = -4.0
    observed = replace(TOYS.batch, z_known=torch.full((3,), z_known))
    weak = replace(TOYS.batch.spectra, ivar=TOYS.batch.spectra.ivar * 1e-4)
    generator = torch.Generator().manual_seed(2)
    count = 200
    found = psis(
        propose(
            model, observed, evidence=Measured.of_spectra(weak), draws=count, generator=generator
        ).log_ratio
    )
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        context = model.encode(observed)
        z = model.redshift(context).draw(torch.Size((count,)), generator).T
        z = torch.where(observed.z_known[:, None], observed.z[:, None], z)
        prior, hidden = model.field(context, observed, weak.aperture, z)
        u = prior.distribution().sample().float().unflatten(-1, (2, -1)).flatten(0, 1)
        many = weak.map(lambda part: part.repeat_interleave(count, 0))
        scale = context.scale.repeat_interleave(count)
        density = model.spectrum(u, hidden.flatten(0, 1), z.flatten(), scale, many)
        plain = psis(density.log_prob(many.flux).sum(-1).unflatten(0, (3, count)))
    assert plain.trusted.all()
    error = np.hypot(found.log_evidence_error, plain.log_evidence_error)
    assert (error < 0.5).all()
    assert np.all(np.abs(found.log_evidence - plain.log_evidence) < 4 * error)


def test_draws_are_those_of_the_generator_and_keep_a_known_redshift():
    model = small_model(TOYS)

    def ask(seed):
        generator = torch.Generator().manual_seed(seed)
        evidence = Measured.of_spectra(TOYS.batch.spectra)
        return propose(model, TOYS.batch, evidence=evidence, draws=5, generator=generator)

    first, again, other = ask(0), ask(0), ask(1)
    assert isinstance(first, Proposal)
    assert torch.equal(first.u, again.u)
    assert not torch.equal(first.u, other.u)
    assert torch.equal(first.z, TOYS.batch.z[:, None].expand(3, 5))


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        (np.zeros(24), "at least 25 draws"),
        (np.full(30, np.nan), "below infinity"),
        (np.full(30, np.inf), "below infinity"),
        (np.full(30, -np.inf), "got none"),
    ],
)
def test_psis_refuses(ratio, message):
    with pytest.raises(ValueError, match=message):
        psis(ratio)


@pytest.mark.parametrize(
    ("likelihood", "rows", "draws", "message"),
    [
        ("mse", 3, 5, "the likelihood 'field'; got 'mse'"),
        ("field", 2, 5, "evidence on 3 galaxies; got 2"),
        ("field", 3, 0, "at least 1 draw; got 0"),
    ],
)
def test_propose_refuses(likelihood, rows, draws, message):
    model = small_model(TOYS, likelihood)
    evidence = Measured.of_spectra(TOYS.batch.spectra.take(slice(rows)))
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=message):
        propose(model, TOYS.batch, evidence=evidence, draws=draws, generator=generator)
