"""NUTS for any log-density in JAX: all chains of one call compiled as one program.

References:
    Hoffman and Gelman (2014), The No-U-Turn sampler, https://arxiv.org/abs/1111.4246
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float
from numpyro.diagnostics import summary
from numpyro.infer.hmc import hmc

AGREE = 1.05
"""R-hat below which chains agree."""
_DIVERGING = 0.01
"""Share of divergent draws that is borne."""

LogDensity = Callable[[Any, Array], Array]
"""ln of a density, up to a constant: of its data (a pytree) and of a point, shape (dimension,)."""


@dataclass(frozen=True)
class Chains:
    """What NUTS brought back."""

    position: Float[np.ndarray, "chain draw dimension"]
    log_density: Float[np.ndarray, "chain draw"]
    """Up to a constant."""
    diverging: Bool[np.ndarray, "chain draw"]
    r_hat: float
    """Largest of all dimensions, chains split in halves."""
    effective: float
    """Smallest effective number of draws of all dimensions."""

    @property
    def agree(self) -> bool:
        """Whether the chains agree and hardly diverge."""
        return self.r_hat < AGREE and bool(self.diverging.mean() < _DIVERGING)

    def warn(self, where: str) -> None:
        """Tell the user of chains that do not agree.

        Warns:
            UserWarning: R-hat is over `AGREE`, or more than one draw in a hundred diverges.
        """
        if not self.agree:
            warnings.warn(
                f"Expected chains that agree (R-hat below {AGREE}) and hardly diverge; got R-hat "
                f"{self.r_hat:.3f} and {self.diverging.mean():.1%} divergent draws {where}. Raise "
                "`warmup` where it is asked from Python (the command line has no such option).",
                stacklevel=3,
            )


def sample(
    density: LogDensity,
    data: Any,
    *,
    centre: Float[np.ndarray, " dimension"],
    root: Float[np.ndarray, "dimension dimension"],
    start: Float[np.ndarray, "chain dimension"],
    key: Array,
    draws: int,
    warmup: int,
) -> Chains:
    """NUTS in coordinates y of which the point is centre + root y.

    Args:
        density: A function of the module level: what it is compiled to is kept for the next call
            with data of the same shapes.
        data: Passed on to it.
        centre: Where the density lies.
        root: Of its covariance, roughly.
        start: Points where the chains start.
        key: A jax random key.
        draws: Draws of each chain.
        warmup: Steps before them, in which step size and a dense mass matrix are found.
    """
    y = np.linalg.solve(root, (start - centre).T).T
    frame = (jnp.asarray(part, jnp.float32) for part in (y, centre, root))
    keys = jax.random.split(key, len(start))
    found, energy, diverging = _program(density, draws, warmup)(keys, data, *frame)
    position = np.asarray(found, dtype=float)
    told = summary(position)["Param:0"]
    return Chains(
        position=centre + position @ root.T,
        log_density=-np.asarray(energy, dtype=float),
        diverging=np.asarray(diverging),
        r_hat=float(told["r_hat"].max()),
        effective=float(told["n_eff"].min()),
    )


@lru_cache(maxsize=8)
def _program(density: LogDensity, draws: int, warmup: int) -> Callable[..., tuple[Array, ...]]:
    """All of it, compiled as one: numpyro's own driver would compile anew for every galaxy."""

    def potential(data: Any, centre: Array, root: Array) -> Callable[[Array], Array]:
        return lambda y: -density(data, centre + root @ y)

    first, step = hmc(potential_fn_gen=potential, algo="NUTS")

    def chain(key: Array, data: Any, y: Array, centre: Array, root: Array) -> tuple[Array, ...]:
        frame = (data, centre, root)
        state = first(y, warmup, dense_mass=True, model_args=frame, rng_key=key)

        def move(state: Any, _: None) -> tuple[Any, tuple[Array, ...]]:
            state = step(state, model_args=frame)
            return state, (state.z, state.potential_energy, state.diverging)

        _, every = jax.lax.scan(move, state, None, length=warmup + draws)
        return cast(tuple[Array, ...], jax.tree.map(lambda part: part[warmup:], every))

    def every(keys: Array, data: Any, y: Array, centre: Array, root: Array) -> tuple[Array, ...]:
        # One after the other: side by side each would wait for the longest trajectory of all.
        return cast(
            tuple[Array, ...],
            jax.lax.map(lambda own: chain(own[0], data, own[1], centre, root), (keys, y)),
        )

    return jax.jit(every)
