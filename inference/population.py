r"""n(z) of a sample: from the redshift posteriors of its galaxies to the population behind them.

A galaxy's p(z | d) was learned from a training sample whose own redshifts follow the interim
prior pi(z). Stacking such densities gives back a blurred mixture of pi and the truth. The
hierarchical likelihood divides pi out: with the redshift axis cut into cells, m_ij the probability
that galaxy i lies in cell j and n_j the population's share of it,

    ln p(d | n)  =  sum_i ln sum_j m_ij n_j / pi_j  + constant,
    n_j          =  pi_j exp(g_j) / sum_k pi_k exp(g_k),

where g, the log of how the population differs from the training sample, is a smooth Gaussian
process, its length and amplitude those of a few with the largest evidence (Laplace's). Where the
data say nothing n falls back to pi. A cell that the training sample never filled stays empty: no
p(z | d) that was learned from it means anything there. So the little mass that smooth densities
have there is left out; of a sample with more, n(z) cannot be inferred.

The mode is found by Newton's method in a few passes over the rows of m, a chunk at a time, so m
may be a memory map larger than the memory. NUTS then samples g: with the likelihood itself for up
to `EXACT` galaxies; beyond, with its second-order expansion in n / pi about the mode, which is
what a sum of many concave terms comes to, and whose draws are then weighed by the likelihood
itself and resampled (`pareto_k` says whether that was possible).

Axes: galaxy, cell (of redshift), edge, draw, chain, bin (tomographic).

References:
    Leistedt, Mortlock and Peiris (2016), Hierarchical Bayesian inference of galaxy redshift
    distributions from photometric surveys, https://arxiv.org/abs/1602.05960
    Malz and Hogg (2022), How to obtain the redshift distribution from probabilistic redshift
    estimates, https://arxiv.org/abs/2007.12178
"""

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from jaxtyping import Float
from numpy.typing import ArrayLike

from probmmae.inference.importance import psis
from probmmae.inference.nuts import sample
from probmmae.redshift import RedshiftDensity

EXACT = 5_000
"""Galaxies up to which NUTS evaluates the likelihood itself."""

_ROWS = 65_536
"""Galaxies in memory at a time."""
_LENGTHS = (0.08, 0.16, 0.32, 0.64, 1.28)
"""Correlation lengths of g in ln(1 + z)."""
_AMPLITUDES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Of g."""
_CHOOSING = 20_000
"""Galaxies by which the two are chosen, at most about."""
_SETTLED = 1e-2
"""Squared length of the last Newton step, in posterior standard deviations."""
_LEFT_OUT = 1e-3
"""Most mass of a sample that may lie in cells that the training sample did not fill."""
_ROUNDING = 1e-6
"""How far below zero a mass may be: a CDF falls by its rounding errors where p(z) is all but 0."""


@dataclass(frozen=True)
class Population:
    """Posterior draws of the redshift distribution of a sample."""

    edges: Float[np.ndarray, " edge"]
    """Borders of the cells."""
    share: Float[np.ndarray, "draw cell"]
    """Share of the sample in each cell; every draw sums to 1."""
    interim: Float[np.ndarray, " cell"]
    """Share of the training sample in each cell."""
    r_hat: float
    """Largest of all parameters: about 1 when the chains agree."""
    effective: float
    """Smallest effective number of draws of all parameters."""
    divergences: int
    pareto_k: float | None
    """Of the weights that made the expansion exact; None where the likelihood was sampled."""

    @property
    def density(self) -> Float[np.ndarray, "draw cell"]:
        """n(z) per unit redshift, integral 1."""
        return np.asarray(self.share / np.diff(self.edges))

    @property
    def mean_redshift(self) -> Float[np.ndarray, " draw"]:
        """Mean redshift of each draw, cells at their middles."""
        return np.asarray(self.share @ (0.5 * (self.edges[1:] + self.edges[:-1])))

    def interval(self, level: Any = 0.9) -> Float[np.ndarray, "2 cell"]:
        """The central interval of n(z) in each cell that holds the probability `level`.

        Raises:
            ValueError: `level` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(
                f"Expected a level between 0 and 1; got {level}. A percentage is divided by 100."
            )
        return np.quantile(self.density, [0.5 - level / 2, 0.5 + level / 2], axis=0)

    def before_selection(self, detected: ArrayLike) -> Float[np.ndarray, "draw cell"]:
        """n(z) per unit redshift of the galaxies that the sample was selected from.

        Args:
            detected: Probability that a galaxy in each cell enters the sample, shape (cell,). It
                must have been the same for the training sample, whose interim prior is that of
                its selected galaxies.

        Raises:
            ValueError: A probability outside (0, 1], or not one for each cell.
        """
        probability = np.asarray(detected, dtype=float)
        if probability.shape != self.interim.shape or not np.all(
            (probability > 0) & (probability <= 1)
        ):
            raise ValueError(
                f"Expected a probability in (0, 1] for each of {len(self.interim)} cells; got "
                f"{described(probability)}. Leave out cells where nothing is detected."
            )
        parent = self.density / probability
        return np.asarray(parent / (parent @ np.diff(self.edges))[:, None])


def cell_masses(
    density: Any, edges: ArrayLike, out: np.ndarray | None = None
) -> Float[np.ndarray, "galaxy cell"]:
    """The probability of every galaxy in every cell, single precision.

    Args:
        density: p(z | c) of many galaxies, a `RedshiftDensity`.
        edges: Borders of the cells, increasing, shape (edge,).
        out: Where to write, shape (galaxy, cell): a memory map, for one.

    Raises:
        TypeError: Something else than a density of many galaxies.
        ValueError: Edges that are not finite, or do not increase from 0 or above.
    """
    if not isinstance(density, RedshiftDensity) or density.loc.ndim != 2:
        found = f" of shape {tuple(density.loc.shape)}" if hasattr(density, "loc") else ""
        raise TypeError(
            "Expected a RedshiftDensity of shape (galaxy, component); got "
            f"{type(density).__name__}{found}. Of one posterior pass posterior.redshift."
            "density[None]."
        )
    at = torch.as_tensor(checked_edges(edges))[:, None]
    galaxies = density.loc.shape[0]
    if out is None:
        out = np.empty((galaxies, len(at) - 1), dtype=np.float32)
    for rows in _chunks(galaxies, 4096):
        part = density[rows]
        exact = RedshiftDensity(part.logits.double(), part.loc.double(), part.scale.double())
        out[rows] = np.diff(exact.cdf(at).detach().numpy(), axis=0).T
    return out


def infer(
    masses: Any,
    edges: ArrayLike,
    *,
    interim: ArrayLike,
    key: Any,
    draws: Any = 500,
    warmup: Any = 300,
    chains: Any = 2,
) -> Population:
    """The redshift distribution of a sample, from its galaxies' posteriors.

    Args:
        masses: Probability of every galaxy in every cell, shape (galaxy, cell): a list, an array,
            a memory map, anything with a shape whose slices of rows are arrays.
        edges: Borders of the cells, increasing, shape (edge,).
        interim: Share of the training sample's redshifts in each cell, shape (cell,), after the
            same selection as the sample's; need not sum to 1.
        key: A jax random key.
        draws: Draws of each chain, at least 4: R-hat compares halves of chains.
        warmup: Steps before them.
        chains: Chains.

    Raises:
        TypeError: `key` is no jax random key.
        ValueError: Edges that do not increase from 0 or above, masses or an interim prior of
            another shape, negative or not finite, a galaxy that has no mass in any cell that the
            training sample filled, a sample with more than a thousandth of its mass in others,
            or a number of draws, steps or chains that cannot be.
    """
    borders = checked_edges(edges)
    prior = _interim(interim, len(borders) - 1)
    for name, count, least in (("draws", draws, 4), ("warmup", warmup, 1), ("chains", chains, 1)):
        if not isinstance(count, Integral) or int(count) < least:
            raise ValueError(
                f"Expected {name} to be a whole number, at least {least}; got {count!r}. Leave "
                "it out to take the default."
            )
    try:
        first, second = jax.random.split(key)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"Expected one jax random key; got {type(key).__name__} of shape {np.shape(key)}. "
            "jax.random.key(0) is one."
        ) from error
    masses = _checked_masses(masses, prior, borders)
    root, mode, hessian = _best(masses, prior, borders)
    few = len(masses) <= EXACT
    ratio = _ratio(root, prior, mode)
    data: Any
    if few:
        rows = np.asarray(masses[:], dtype=float)
        data = jnp.asarray(rows / (rows @ ratio)[:, None], jnp.float32)
    else:
        expansion = _expansion(masses, ratio, prior)
        data = tuple(jnp.asarray(part, jnp.float32) for part in expansion)
    white = np.linalg.inv(np.linalg.cholesky(hessian)).T
    away = 0.5 * np.asarray(jax.random.normal(first, (chains, len(mode))), dtype=float)
    found = sample(
        _density_of_rows if few else _density_expanded,
        (jnp.asarray(root, jnp.float32), jnp.asarray(prior, jnp.float32), data),
        centre=mode,
        root=white,
        start=mode + away @ white.T,
        key=second,
        draws=draws,
        warmup=warmup,
    )
    x = found.position.reshape(-1, len(mode))
    sampled = np.stack([_ratio(root, prior, one) for one in x])
    k = None
    if not few:
        sampled, k = _resampled(masses, sampled, expansion, second)
    return Population(
        edges=borders,
        share=sampled * prior,
        interim=prior,
        r_hat=found.r_hat,
        effective=found.effective,
        divergences=int(found.diverging.sum()),
        pareto_k=k,
    )


def tomographic(
    population: Population, masses: Any, bins: ArrayLike, *, seed: int
) -> Float[np.ndarray, "bin draw cell"]:
    """n(z) per unit redshift of each tomographic bin, draws in step with the population's.

    Under a draw of the population a galaxy's own posterior follows from its masses; a bin's n(z)
    is their weighted mean, the weights those of the Bayesian bootstrap, so that what is left open
    by a finite number of galaxies is in the scatter of the draws.

    Args:
        population: Of all galaxies, whatever their bin.
        masses: As given to `infer`.
        bins: Bin of each galaxy, counted from 0, shape (galaxy,); -1 is left out.
        seed: Of the bootstrap.

    Raises:
        ValueError: Not one whole bin number for each galaxy, a bin without galaxies, or masses
            that `infer` refuses.
    """
    prior = population.interim
    masses = _checked_masses(masses, prior, population.edges)
    number = np.asarray(bins)
    if (
        number.shape != (len(masses),)
        or number.dtype.kind not in "iu"
        or number.min() < -1
        or number.max() < 0
    ):
        raise ValueError(
            f"Expected the bin of each of {len(masses)} galaxies as whole numbers from 0, or -1; "
            f"got {number.dtype} of {described(number)}. Put galaxies in no bin in -1."
        )
    used = np.unique(number[number >= 0])
    empty = np.flatnonzero(used != np.arange(len(used)))
    if empty.size:
        raise ValueError(
            f"Expected galaxies in every bin from 0 to {used[-1]}; got none in bin {empty[0]}. "
            "Number the bins without gaps."
        )
    ratio = np.divide(
        population.share, prior, out=np.zeros_like(population.share), where=prior > 0
    )
    total = np.zeros((number.max() + 1, *ratio.shape))
    rng = np.random.default_rng(seed)
    for rows in _chunks(len(masses), _ROWS):
        some = np.asarray(masses[rows], dtype=np.float32)
        for index in range(len(total)):
            inside = some[number[rows] == index]
            for draw, one in enumerate(ratio.astype(np.float32)):
                weight = rng.exponential(size=len(inside)).astype(np.float32) / (inside @ one)
                total[index, draw] += (weight @ inside) * one
    return np.asarray(total / total.sum(-1, keepdims=True) / np.diff(population.edges))


def described(values: ArrayLike) -> str:
    """What errors say of an array: its shape, how much of it is not finite, and its range."""
    array = np.asarray(values, dtype=float)
    finite = array[np.isfinite(array)]
    extent = f", from {finite.min():.4g} to {finite.max():.4g}" if finite.size else ""
    return f"shape {array.shape}, {array.size - finite.size:,} NaN or infinite{extent}"


def checked_edges(edges: ArrayLike) -> Float[np.ndarray, " edge"]:
    """Borders of at least two cells.

    Raises:
        ValueError: Edges that are not finite, or do not increase from 0 or above.
    """
    borders = np.asarray(edges, dtype=float)
    line = borders.ravel()
    back = int((line[1:] <= line[:-1]).sum())
    if borders.ndim != 1 or line.size < 3 or not np.isfinite(line).all() or line[0] < 0 or back:
        raise ValueError(
            f"Expected at least three increasing redshifts >= 0; got {described(borders)}, {back} "
            "not above the one before. numpy.linspace(0, 1.5, 61) is such a list of edges."
        )
    return borders


def _interim(interim: ArrayLike, cells: int) -> Float[np.ndarray, " cell"]:
    share = np.asarray(interim, dtype=float)
    if share.shape != (cells,) or np.any(share < 0) or not 0 < share.sum() < np.inf:
        raise ValueError(
            f"Expected the training sample's share in each of {cells} cells, none negative, not "
            f"all zero; got {described(share)}. numpy.histogram of its redshifts gives it."
        )
    return np.asarray(share / share.sum())


def _checked_masses(masses: Any, prior: np.ndarray, edges: np.ndarray) -> Any:
    """The masses, a list as an array: finite, none negative, and where they can be used.

    Every galaxy has mass where the training sample has galaxies, and hardly any elsewhere.
    """
    masses = masses if hasattr(masses, "shape") else np.asarray(masses, dtype=float)
    if masses.shape[1:] != prior.shape or len(masses) < 1:
        raise ValueError(
            f"Expected the masses of at least one galaxy in {len(prior)} cells; got shape "
            f"{tuple(masses.shape)}. Make them with cell_masses."
        )
    filled = prior > 0
    total, lost = np.zeros(len(prior)), 0
    for rows in _chunks(len(masses), _ROWS):
        some = np.asarray(masses[rows], dtype=np.float32)
        if not (np.isfinite(some).all() and some.min() >= -_ROUNDING):
            raise ValueError(
                f"Expected finite masses, none negative; got {described(some)}, in galaxies from "
                f"{rows.start:,} on. Make them with cell_masses, of galaxies that have a p(z)."
            )
        total += some.sum(0, dtype=float)
        lost += int((some[:, filled].sum(1) <= 0).sum())
    beyond = total[~filled].sum()
    if beyond > _LEFT_OUT * total.sum():
        ends = np.flatnonzero(np.diff(np.concatenate([[False], ~filled, [False]]).astype(int)))
        where = ", ".join(f"{edges[one]:.4g} to {edges[two]:.4g}" for one, two in
                          ends.reshape(-1, 2))  # fmt: skip
        raise ValueError(
            f"Expected at most {_LEFT_OUT} of the sample's mass in cells where the training "
            f"sample has no galaxies; got {beyond / total.sum():.2g} of it at redshifts {where}. "
            "End the cells where the training sample ends, or take a model trained further."
        )
    if lost:
        raise ValueError(
            "Expected every galaxy to have mass in some cell that the training sample filled; "
            f"got {lost:,} that have none. Leave them out, or let the cells reach further."
        )
    return masses


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _root(edges: Float[np.ndarray, " edge"], length: float) -> Float[np.ndarray, "cell cell"]:
    """Root of the covariance of g at amplitude 1: Matern 5/2 in ln(1 + z)."""
    x = np.log1p(0.5 * (edges[1:] + edges[:-1]))
    apart = np.abs(x[:, None] - x) * np.sqrt(5) / length
    kernel = (1 + apart + apart**2 / 3) * np.exp(-apart)
    return np.linalg.cholesky(kernel + 1e-6 * np.eye(len(x)))


def _ratio(root: np.ndarray, prior: np.ndarray, x: np.ndarray) -> Float[np.ndarray, " cell"]:
    """n / pi of x, the white numbers behind g; 0 where pi is."""
    g = root @ x
    ratio = np.where(prior > 0, np.exp(g - g.max()), 0)
    return np.asarray(ratio / (prior @ ratio))


def _log_likelihood(masses: Any, ratio: Float[np.ndarray, "draw cell"]) -> np.ndarray:
    """The exact log-likelihood of each draw, shape (draw,)."""
    total = np.zeros(len(ratio))
    for rows in _chunks(len(masses), _ROWS):
        some = np.asarray(masses[rows], dtype=np.float32)
        for part in _chunks(len(ratio), 64):
            total[part] += np.log(some @ ratio[part].T.astype(np.float32)).sum(0, dtype=float)
    return total


def _best(
    masses: Any, prior: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, Float[np.ndarray, " cell"], Float[np.ndarray, "cell cell"]]:
    """The best root of g's covariance, the mode under it, and minus the Hessian there."""
    some = np.asarray(masses[:: max(1, len(masses) // _CHOOSING)])
    found = []
    for length in _LENGTHS:
        root = _root(edges, length)
        x, before = np.zeros(len(prior)), _AMPLITUDES[0]
        for amplitude in _AMPLITUDES:
            x, hessian, value = _mode(some, prior, amplitude * root, x * before / amplitude)
            before = amplitude
            found.append((value - 0.5 * np.linalg.slogdet(hessian)[1], amplitude * root, x))
    _, root, x = max(found, key=lambda one: one[0])
    mode, hessian, _ = _mode(masses, prior, root, x)
    return root, mode, hessian


def _mode(
    masses: Any, prior: np.ndarray, root: np.ndarray, x: np.ndarray
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, "cell cell"], float]:
    """The most probable x, minus the Hessian there and ln of the density, by Newton from x.

    The Hessian is that of the likelihood at its maximum, which is never indefinite: the scatter
    over galaxies of their posteriors over cells. Steps that do not climb are halved.
    """
    galaxies, cells = len(masses), len(prior)

    def objective(x: np.ndarray) -> float:
        fit = _log_likelihood(masses, _ratio(root, prior, x)[None])[0]
        return float(fit - 0.5 * (x**2).sum())

    value = objective(x)
    while True:
        ratio = _ratio(root, prior, x)
        mean, scatter = np.zeros(cells), np.zeros((cells, cells))
        for rows in _chunks(galaxies, _ROWS):
            own = np.asarray(masses[rows], dtype=np.float32) * ratio.astype(np.float32)
            own /= own.sum(1, keepdims=True)
            wide = own.astype(float)  # of a million galaxies single precision is not enough
            mean += wide.sum(0)
            scatter += wide.T @ wide
        scatter -= np.outer(mean, mean) / galaxies
        hessian = root.T @ scatter @ root + np.eye(cells)
        step = np.linalg.solve(hessian, root.T @ (mean - galaxies * ratio * prior) - x)
        size = 1.0
        while size > 1e-3 and not objective(x + size * step) > value:
            size /= 2
        if step @ hessian @ step < _SETTLED or size <= 1e-3:
            return x, hessian, value
        x = x + size * step
        value = objective(x)


def _expansion(
    masses: Any, ratio: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """About n / pi = ratio: that ratio, the slope there, and a root of minus the curvature."""
    cells = len(ratio)
    # The slope along the prior tells nothing, for n sums to 1, and is large: it is taken out.
    slope, curvature = -len(masses) * prior, np.zeros((cells, cells))
    for rows in _chunks(len(masses), _ROWS):
        some = np.asarray(masses[rows], dtype=np.float32)
        wide = (some / (some @ ratio.astype(np.float32))[:, None]).astype(float)
        slope += wide.sum(0)
        curvature += wide.T @ wide
    size, axes = np.linalg.eigh(curvature)
    return ratio, slope, np.sqrt(np.maximum(size, 0))[:, None] * axes.T


def _density_of_rows(data: tuple[Array, Array, Array], x: Array) -> Array:
    """ln p(x, d); the rows are divided by their likelihood at the mode."""
    root, prior, rows = data
    return jnp.log(rows @ _sampled_ratio(root, prior, x)).sum() - 0.5 * (x**2).sum()


def _density_expanded(data: tuple[Array, Array, tuple[Array, ...]], x: Array) -> Array:
    root, prior, (centre, slope, bend) = data
    away = _sampled_ratio(root, prior, x) - centre
    return slope @ away - 0.5 * ((bend @ away) ** 2).sum() - 0.5 * (x**2).sum()


def _sampled_ratio(root: Array, prior: Array, x: Array) -> Array:
    g = root @ x
    return jnp.where(prior > 0, jnp.exp(g - jax.nn.logsumexp(g, b=prior)), 0)


def _resampled(
    masses: Any, sampled: np.ndarray, expansion: tuple[np.ndarray, ...], key: Array
) -> tuple[Float[np.ndarray, "draw cell"], float]:
    """Draws of the expanded density made draws of the exact one, and the Pareto k of that."""
    centre, slope, bend = expansion
    away = sampled - centre
    expanded = away @ slope - 0.5 * ((away @ bend.T) ** 2).sum(-1)
    weights = psis(_log_likelihood(masses, sampled) - expanded)
    chance = jnp.asarray(np.exp(weights.log_weight))
    pick = np.asarray(jax.random.choice(key, len(sampled), (len(sampled),), p=chance))
    return sampled[pick], float(weights.pareto_k)
