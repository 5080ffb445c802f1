import math

import numpy as np
import pytest
import torch
from scipy import stats

from probmmae.redshift import RedshiftDensity


def density():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    loc = 0.02 + 0.4 * torch.rand(4, 3, generator=generator, dtype=torch.float64)
    scale = 0.005 + 0.1 * torch.rand(4, 3, generator=generator, dtype=torch.float64)
    return RedshiftDensity(logits, loc, scale)


def test_density_integrates_to_its_cdf():
    p = density()
    grid = torch.linspace(0, 3, 60001, dtype=torch.float64)[:, None].expand(-1, 4)
    pdf = p.log_prob(grid).exp()
    cumulative = torch.cumulative_trapezoid(pdf, grid, dim=0)
    assert torch.allclose(cumulative, p.cdf(grid[1:]), atol=1e-6)
    assert torch.allclose(cumulative[-1], torch.ones(4, dtype=torch.float64), atol=1e-6)


def test_quantiles_invert_the_cdf():
    p = density()
    levels = torch.tensor([0.01, 0.25, 0.5, 0.9, 0.999], dtype=torch.float64)[:, None]
    levels = levels.expand(-1, 4)
    assert torch.allclose(p.cdf(p.icdf(levels)), levels, atol=1e-6)


def test_no_probability_below_zero():
    p = density()
    assert torch.all(p.log_prob(torch.full((4,), -0.01, dtype=torch.float64)) == -math.inf)
    assert torch.all(p.cdf(torch.zeros(4, dtype=torch.float64)) == 0)


@pytest.mark.parametrize("way", ["draw", "sample"])
def test_draws_follow_the_density(way):
    # Four KS tests at 1e-4 each: false alarm below 1e-3.
    p = density()
    if way == "draw":
        draws = p.draw(torch.Size((20000,)), torch.Generator().manual_seed(1))
    else:
        with torch.random.fork_rng():
            torch.manual_seed(2)
            draws = p.sample(torch.Size((20000,)))
    assert draws.shape == (20000, 4)
    assert bool((draws >= 0).all())
    for k in range(4):
        pit = p[k].cdf(draws[:, k])
        assert stats.kstest(np.asarray(pit), "uniform").pvalue > 1e-4


def test_mean_is_the_mean_of_draws():
    p = density()
    draws = p.draw(torch.Size((40000,)), torch.Generator().manual_seed(5))
    error = draws.std(0) / 200
    assert torch.all((p.mean - draws.mean(0)).abs() < 5 * error + 2e-3)
