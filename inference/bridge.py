r"""Bridge sampling: the integral of a density from its draws, whatever proposed them.

A normal distribution q is fitted to half of the draws (in the sampler's coordinates). The other
half, and draws of q, give the integral by the optimal bridge, found by iteration:

    Z  =  mean over q of  p / (s_1 p / Z + s_2 q)  /  mean over p of  q / (s_1 p / Z + s_2 q) .

Importance weights of a network's draws fail where the network is far off; the draws of a chain
that has mixed in its mode do not, so the integral of every mode, hence its weight, is known.

Axes: chain, draw, dimension.

References:
    Meng and Wong (1996), Simulating ratios of normalizing constants via a simple identity,
    Statistica Sinica 6, 831; Gronau et al. (2017), A tutorial on bridge sampling,
    https://arxiv.org/abs/1703.05984
"""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy.special import logsumexp

from probmmae.inference.nuts import Chains, LogDensity

_ROUNDS = 200
_SETTLED = 1e-8


def log_integral(
    density: LogDensity, data: Any, chains: Chains, *, key: Array
) -> tuple[float, float]:
    """ln of the integral of a density, and its standard error.

    Args:
        density: What was sampled; a function of the module level.
        data: Passed on to it.
        chains: Its draws.
        key: A jax random key.

    Raises:
        ValueError: Fewer than two draws a dimension in each half of the draws.
    """
    middle = chains.position.shape[1] // 2
    dimension = chains.position.shape[-1]
    learn, told = (
        chains.position[:, part].reshape(-1, dimension)
        for part in (slice(middle), slice(middle, None))
    )
    if len(learn) < 2 * dimension:
        raise ValueError(
            f"Expected at least {4 * dimension} draws of {dimension} dimensions; got "
            f"{2 * len(learn)}. Sample more."
        )
    centre, root = learn.mean(0), np.linalg.cholesky(np.cov(learn.T).reshape(dimension, dimension))
    noise = np.asarray(jax.random.normal(key, told.shape), dtype=float)
    proposed = centre + noise @ root.T
    at_proposed = np.asarray(_many(density)(data, jnp.asarray(proposed, jnp.float32)), dtype=float)
    at_told = chains.log_density[:, middle:].reshape(-1)
    white = np.linalg.solve(root, (told - centre).T).T
    own, theirs = (at - _standard(y, root) for at, y in ((at_told, white), (at_proposed, noise)))
    # What the chain's draws are worth, correlated as they are.
    worth = min(chains.effective / 2, float(len(own)))
    return _bridge(own, theirs, worth)


@lru_cache(maxsize=8)
def _many(density: LogDensity) -> Any:
    return jax.jit(jax.vmap(density, in_axes=(None, 0)))


def _standard(white: NDArray[Any], root: NDArray[Any]) -> NDArray[Any]:
    """ln of the fitted normal at points of which the whitened coordinates are given."""
    size = 0.5 * white.shape[1] * np.log(2 * np.pi) + np.log(np.diag(root)).sum()
    return np.asarray(-0.5 * (white**2).sum(1) - size)


def _bridge(own: NDArray[Any], theirs: NDArray[Any], worth: float) -> tuple[float, float]:
    """From ln(p / q) at draws of p and of q; `worth` is the effective number of the former."""
    share = np.log([worth, len(theirs)]) - np.log(worth + len(theirs))
    found = float(np.median(own))
    for _ in range(_ROUNDS):
        before = found
        top = logsumexp(theirs - np.logaddexp(share[0] + theirs - found, share[1])) - np.log(
            len(theirs)
        )
        below = logsumexp(-np.logaddexp(share[0] + own - found, share[1])) - np.log(len(own))
        found = float(top - below)
        if abs(found - before) < _SETTLED:
            break
    parts = [
        np.exp(theirs - found - np.logaddexp(share[0] + theirs - found, share[1])),
        np.exp(-np.logaddexp(share[0] + own - found, share[1])),
    ]
    spread = [part.var() / part.mean() ** 2 for part in parts]
    return found, float(np.sqrt(spread[0] / len(theirs) + spread[1] / worth))
