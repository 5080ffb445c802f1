import torch
from torch.distributions import MultivariateNormal

from probmmae.likelihoods import LowRankNormal


def pieces():
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(3, 12, generator=generator, dtype=torch.float64)
    factor = torch.randn(3, 12, 2, generator=generator, dtype=torch.float64)
    variance = 0.1 + torch.rand(3, 12, generator=generator, dtype=torch.float64)
    value = torch.randn(3, 12, generator=generator, dtype=torch.float64)
    return loc, factor, variance, value


def test_density_is_that_of_the_dense_normal():
    loc, factor, variance, value = pieces()
    mask = torch.ones_like(loc, dtype=torch.bool)
    dense = MultivariateNormal(loc, factor @ factor.mT + torch.diag_embed(variance))
    mine = LowRankNormal(loc, factor, variance, mask).log_prob(value)
    assert torch.allclose(mine, dense.log_prob(value))


def test_missing_pixels_contribute_nothing():
    loc, factor, variance, value = pieces()
    mask = torch.ones_like(loc, dtype=torch.bool)
    mask[:, 7:] = False
    kept = LowRankNormal(loc[:, :7], factor[:, :7], variance[:, :7], mask[:, :7])
    value[:, 7:] = float("nan")
    mine = LowRankNormal(loc, factor, variance, mask).log_prob(value)
    assert torch.allclose(mine, kept.log_prob(value[:, :7]))


def test_draws_have_the_covariance():
    # 200,000 draws: each of 78 entries within 6 standard errors, false alarm below 1e-6.
    loc, factor, variance, _ = pieces()
    one = LowRankNormal(loc[0], factor[0], variance[0], torch.ones(12, dtype=torch.bool))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        draws = one.rsample(torch.Size((200_000,)))
    found = torch.cov(draws.T)
    wanted = factor[0] @ factor[0].T + torch.diag(variance[0])
    spread = (wanted.diag()[:, None] * wanted.diag() + wanted**2).sqrt() / 200_000**0.5
    assert torch.all((found - wanted).abs() < 6 * spread)
