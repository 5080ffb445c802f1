"""A linear-Gaussian twin of the model, whose posterior and evidence are known in closed form.

u is normal and correlated, a spectrum is a matrix times u with noise and calibration factors, as
in the model but linear. An amortised posterior is trained on simulated pairs, its draws are
weighted, NUTS is run, and all are held against the formulas.

Axes: set (of data), draw, latent, pixel, factor.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray
from results_file import Figure, at_most, figure
from torch.distributions import MultivariateNormal

from probmmae.inference.bridge import log_integral
from probmmae.inference.importance import psis
from probmmae.inference.jax_decoder import low_rank_log_prob
from probmmae.inference.nuts import sample

LATENT, PIXELS, SETS = 8, 40, 20
_TRAINING, _DRAWS = 1500, 4000


def _twin(seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    root = np.tril(rng.normal(size=(LATENT, LATENT))) / 2 + np.eye(LATENT)
    return {
        "mean": rng.normal(size=LATENT),
        "before": root @ root.T,
        "matrix": rng.normal(size=(PIXELS, LATENT)) / 2,
        "factor": 0.3 * rng.normal(size=(PIXELS, 2)),
        "variance": rng.uniform(0.3, 1.0, PIXELS),
    }


def _density(data: tuple[Any, ...], u: Any) -> Any:
    """ln p(u, x)."""
    mean, white, matrix, flux, factor, variance = data
    apart = white @ (u - mean)
    prior = -0.5 * (apart**2).sum() + jnp.log(jnp.diagonal(white)).sum()
    prior = prior - 0.5 * LATENT * jnp.log(2 * jnp.pi)
    every = jnp.ones(flux.shape, dtype=bool)
    return prior + low_rank_log_prob(flux - matrix @ u, factor, variance, every)


def _trained(twin: dict[str, NDArray[Any]], noise: NDArray[Any], seed: int) -> Any:
    """q(u | x): a normal whose mean is linear in x, by maximum likelihood on simulated pairs."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.tensor(twin["matrix"])
    prior_root = torch.linalg.cholesky(torch.tensor(twin["before"]))
    noise_root = torch.linalg.cholesky(torch.tensor(noise))
    slope = torch.zeros(LATENT, PIXELS, dtype=torch.float64, requires_grad=True)
    offset = torch.zeros(LATENT, dtype=torch.float64, requires_grad=True)
    lower = torch.eye(LATENT, dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.Adam([slope, offset, lower], 0.02, foreach=False)
    for step in range(_TRAINING):
        optimiser.param_groups[0]["lr"] = 0.02 * (1 - step / _TRAINING)
        white = torch.randn(256, LATENT, generator=generator, dtype=torch.float64)
        u = torch.tensor(twin["mean"]) + white @ prior_root.T
        own = torch.randn(256, PIXELS, generator=generator, dtype=torch.float64)
        x = u @ matrix.T + own @ noise_root.T
        root = lower.tril(-1) + torch.diag(torch.nn.functional.softplus(lower.diagonal()))
        density = MultivariateNormal(x @ slope.T + offset, scale_tril=root, validate_args=False)
        loss = -density.log_prob(u).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fixed = slope.detach(), offset.detach(), root.detach()
    return lambda x: MultivariateNormal(
        fixed[0] @ torch.tensor(x) + fixed[1], scale_tril=fixed[2], validate_args=False
    )


def twin_figures(seed: int) -> list[Figure]:
    """Means in posterior standard deviations, widths as ratios, evidences in nats."""
    twin, rng = _twin(seed), np.random.default_rng(seed + 1)
    noise = twin["factor"] @ twin["factor"].T + np.diag(twin["variance"])
    precision = np.linalg.inv(twin["before"])
    covariance = np.linalg.inv(
        precision + twin["matrix"].T @ np.linalg.solve(noise, twin["matrix"])
    )
    width = np.sqrt(np.diag(covariance))
    marginal = twin["matrix"] @ twin["before"] @ twin["matrix"].T + noise
    network = _trained(twin, noise, seed)
    worst: dict[str, list[NDArray[Any]]] = {}
    for index in range(SETS):
        u = rng.multivariate_normal(twin["mean"], twin["before"])
        x = twin["matrix"] @ u + rng.multivariate_normal(np.zeros(PIXELS), noise)
        pull = precision @ twin["mean"] + twin["matrix"].T @ np.linalg.solve(noise, x)
        centre = covariance @ pull
        away = torch.tensor(x - twin["matrix"] @ twin["mean"])
        evidence = float(
            MultivariateNormal(torch.zeros_like(away), torch.tensor(marginal)).log_prob(away)
        )
        white = np.linalg.inv(np.linalg.cholesky(twin["before"]))
        data = tuple(
            jnp.asarray(part, jnp.float32)
            for part in (twin["mean"], white, twin["matrix"], x, twin["factor"], twin["variance"])
        )
        proposal = network(x)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(index)
            drawn = proposal.sample((_DRAWS,))
        prior = MultivariateNormal(torch.tensor(twin["mean"]), torch.tensor(twin["before"]))
        told = MultivariateNormal(drawn @ torch.tensor(twin["matrix"]).T, torch.tensor(noise))
        ratio = prior.log_prob(drawn) + told.log_prob(torch.tensor(x)) - proposal.log_prob(drawn)
        weights = psis(ratio.numpy())
        chance = np.exp(weights.log_weight)
        chains = sample(
            _density, data, centre=proposal.mean.numpy(), root=proposal.scale_tril.numpy(),
            start=drawn[:2].numpy(), key=jax.random.key(index), draws=1000, warmup=300,
        )  # fmt: skip
        bridge, _ = log_integral(_density, data, chains, key=jax.random.key(index))
        points = chains.position.reshape(-1, LATENT)
        by_weight = chance @ drawn.numpy()
        spread = np.sqrt(chance @ (drawn.numpy() - by_weight) ** 2)
        for name, mean, std in (
            ("amortised, trained", proposal.mean.numpy(), proposal.stddev.numpy()),
            ("importance-weighted", by_weight, spread),
            ("NUTS", points.mean(0), points.std(0)),
        ):
            worst.setdefault(f"{name}: mean", []).append(np.abs(mean - centre) / width)
            worst.setdefault(f"{name}: width", []).append(np.abs(std / width - 1))
        worst.setdefault("importance weights: ln evidence", []).append(
            np.abs(weights.log_evidence - evidence)
        )
        worst.setdefault("bridge sampling of NUTS: ln evidence", []).append(
            np.abs(bridge - evidence)
        )
    figures = []
    for name, values in worst.items():
        exact = not name.startswith("amortised")
        found = float(np.mean(values))
        unit = "nats" if "evidence" in name else "posterior standard deviations"
        unit = "relative" if "width" in name else unit
        figures.append(
            figure(
                f"linear-Gaussian twin, {name}, mean absolute error ({unit})", found,
                n=SETS, goal="at most 0.05" if exact else None,
                met=at_most(found, 0.05) if exact else None,
            )
        )  # fmt: skip
    return figures
