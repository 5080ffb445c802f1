"""n(z) of simulated surveys whose true n(z) is not the training one: coverage, sizes, cost.

A galaxy is a redshift and a colour; one in ten is an outlier whose colour says little and speaks
of another redshift. Its p(z | colour) is exact under the training sample's n(z), so what is wrong
with the stack of them is the prior, and nothing else.

Axes: survey, galaxy, cell (of redshift), bin (tomographic), draw.
"""

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from results_file import Figure, at_least, at_most, figure, within
from scipy import stats

from probmmae.inference.population import Population, cell_masses, infer, tomographic
from probmmae.redshift import RedshiftDensity

EDGES = np.linspace(0, 1.5, 31)
MIDDLES = 0.5 * (EDGES[1:] + EDGES[:-1])
TRAINING = stats.gamma(4.0, scale=0.11)
TRUE = stats.norm(0.72, 0.17)
SURVEYS, GALAXIES = 200, 6000
SIZES = (1_000, 10_000, 100_000, 1_000_000)
BORDERS = (0.55, 0.72, 0.89)
"""Colours between tomographic bins."""
REQUIRED = 0.001
"""Of a bin's mean redshift, over 1 + z: LSST DESC Science Requirements, year 10."""
_OUTLIERS = 0.1
_ROWS = 100_000


def _share(law: Any) -> NDArray[np.float64]:
    share = np.diff(law.cdf(EDGES))
    return np.asarray(share / share.sum())


def _another(seed: int) -> NDArray[np.float64]:
    """A true n(z) of its own for each survey: z^a exp(-(z / z0)^b), or two such parts."""
    rng = np.random.default_rng([seed, 1])
    share = np.zeros(len(MIDDLES))
    for part in range(rng.integers(1, 3)):
        a, b, mode = rng.uniform(1.5, 4), rng.uniform(1, 2.5), rng.uniform(0.3, 0.9)
        scale = mode * (b / a) ** (1 / b)
        one = MIDDLES**a * np.exp(-((MIDDLES / scale) ** b))
        share += one / one.sum() * (rng.uniform(0.1, 1) if part else 1)
    return share / share.sum()


def survey(
    seed: int, galaxies: int, masses: NDArray[np.float32], truth: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Redshifts and colours of a survey; writes the masses of p(z | colour) under `TRAINING`."""
    rng = np.random.default_rng(seed)
    prior = _share(TRAINING)
    redshift, colours = [], []
    for start in range(0, galaxies, _ROWS):
        count = min(_ROWS, galaxies - start)
        z = MIDDLES[rng.choice(len(MIDDLES), size=count, p=truth)]
        good = rng.random(count) > _OUTLIERS
        colour = np.where(
            good, rng.normal(z, 0.07 * (1 + z)), rng.normal(0.9 - 0.4 * z, 0.15)
        )  # fmt: skip
        told = (1 - _OUTLIERS) * _normal(colour, MIDDLES, 0.07 * (1 + MIDDLES))
        told += _OUTLIERS * _normal(colour, 0.9 - 0.4 * MIDDLES, 0.15)
        told *= prior
        masses[start : start + count] = told / told.sum(1, keepdims=True)
        redshift.append(z)
        colours.append(colour)
    return np.concatenate(redshift), np.concatenate(colours)


def _normal(colour: NDArray[Any], mean: Any, width: Any) -> NDArray[Any]:
    scaled = (colour[:, None] - mean) / width
    return np.asarray(np.exp(-0.5 * scaled**2) / width)


def _inferred(masses: Any, seed: int) -> Population:
    return infer(
        masses, EDGES, interim=_share(TRAINING), key=jax.random.key(seed), draws=250, warmup=200
    )


def coverage_figures(surveys: int) -> list[Figure]:
    """How often 90 % bands hold the truth: of surveys that share one n(z), and of all kinds."""
    name = f"n(z) of {surveys} surveys of {GALAXIES:,} galaxies"
    return [
        *_covered(f"{name}, of one n(z)", [_share(TRUE)] * surveys),
        *_covered(f"{name}, each of another n(z)", [_another(seed) for seed in range(surveys)]),
    ]


def _covered(name: str, truths: list[NDArray[np.float64]]) -> list[Figure]:
    """How often the 90 % band of n(z), and of its mean, hold the truth; the bias of the stack."""
    surveys, width = len(truths), np.diff(EDGES)
    inside, told, mean_inside, bias, stack = [], [], [], [], []
    masses = np.empty((GALAXIES, len(MIDDLES)), np.float32)
    for seed, truth in enumerate(truths):
        survey(seed, GALAXIES, masses, truth)
        one = _inferred(masses, seed)
        low, high = one.interval(0.9)
        inside.append((low <= truth / width) & (truth / width <= high))
        told.append(truth / width > 1e-2)
        means, true = one.mean_redshift, truth @ MIDDLES
        low_mean, high_mean = np.quantile(means, [0.05, 0.95])
        mean_inside.append(low_mean <= true <= high_mean)
        bias.append((means.mean() - true) / means.std())
        stack.append((masses.mean(0) @ MIDDLES - true) / means.std())
    each = np.array([one[some].mean() for one, some in zip(inside, told, strict=True)])
    covered, error = float(each.mean()), float(each.std() / len(each) ** 0.5)
    often = np.mean(told, axis=0) > 0.5
    of_cell = np.logical_and(inside, told).sum(0) / np.maximum(np.sum(told, 0), 1)
    least = float(of_cell[often].min())
    rate = float(np.mean(mean_inside))
    return [
        figure(f"{name}: cells in which the 90 % band holds the truth", covered,
               interval=(covered - 1.96 * error, covered + 1.96 * error), n=surveys,
               goal="0.88 to 0.92", met=within(covered, 0.88, 0.92)),
        figure(f"{name}: the same of the cell that is covered least", least,
               interval=_binomial(least, surveys), n=surveys),
        figure(f"{name}: surveys in which the 90 % interval of the mean redshift holds the truth",
               rate, interval=_binomial(rate, surveys), n=surveys),
        figure(f"{name}: mean error of the mean redshift, posterior standard deviations",
               float(np.mean(bias)), n=surveys, goal="at most 0.2 either way",
               met=within(float(np.mean(bias)), -0.2, 0.2)),
        figure(f"{name}: the same of the stack of p(z), root mean square",
               float(np.sqrt(np.mean(np.square(stack)))), n=surveys),
    ]  # fmt: skip


def _binomial(rate: float, count: int) -> tuple[float, float]:
    error = 1.96 * (rate * (1 - rate) / count) ** 0.5
    return rate - error, rate + error


def size_figures(picture: Path) -> list[Figure]:
    """Errors of tomographic mean redshifts over sample size, and the cost of the largest."""
    figures: list[Figure] = []
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            masses = np.lib.format.open_memmap(
                Path(folder) / f"{size}.npy", mode="w+", dtype=np.float32,
                shape=(size, len(MIDDLES)),
            )  # fmt: skip
            _, colour = survey(1, size, masses, _share(TRUE))
            bins = np.digitize(colour, BORDERS)
            began = time.process_time()
            one = _inferred(masses, 0)
            seconds = time.process_time() - began
            rows.append(_bins(one, masses, bins))
            if size == max(SIZES):
                figures += _scaling(size, seconds, one)
            del masses
    mean, spread, stacked = (np.array([row[k] for row in rows]) for k in range(3))
    required = REQUIRED
    for size, off, wide in zip(SIZES, mean, spread, strict=True):
        worst = float(np.abs(off).max())
        figures += [
            figure(f"n(z), {size:,} galaxies in {len(BORDERS) + 1} bins: largest posterior "
                   "standard deviation of a bin's mean redshift over 1 + z", float(wide.max()),
                   n=size),
            figure(f"n(z), {size:,} galaxies in {len(BORDERS) + 1} bins: largest error of a bin's "
                   "mean redshift over 1 + z", worst, n=size,
                   goal=f"at most {required}" if size == max(SIZES) else None,
                   met=at_most(worst, required) if size == max(SIZES) else None),
        ]  # fmt: skip
    met = [size for size, wide in zip(SIZES, spread, strict=True) if wide.max() < required]
    figures.append(
        figure("n(z): smallest size tried whose noise meets the DESC Y10 requirement in every bin",
               min(met) if met else float("nan"))
    )  # fmt: skip
    _draw(picture, np.abs(mean), spread, np.abs(stacked), met)
    return figures


def _true_bins() -> list[NDArray[np.float64]]:
    """n(z) of each tomographic bin, exactly."""
    of_colour = [np.zeros(len(MIDDLES))]
    for border in BORDERS:
        good = stats.norm.cdf(border, MIDDLES, 0.07 * (1 + MIDDLES))
        wrong = stats.norm.cdf(border, 0.9 - 0.4 * MIDDLES, 0.15)
        of_colour.append((1 - _OUTLIERS) * good + _OUTLIERS * wrong)
    of_colour.append(np.ones(len(MIDDLES)))
    shares = [_share(TRUE) * each for each in np.diff(of_colour, axis=0)]
    return [share / share.sum() for share in shares]


def _bins(
    one: Population, masses: Any, bins: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Error and scatter of each bin's mean redshift, and the error of its stack, over 1 + z."""
    few = Population(
        one.edges, one.share[:: max(1, len(one.share) // 50)], one.interim, one.r_hat,
        one.effective, one.divergences, one.pareto_k,
    )  # fmt: skip
    n = tomographic(few, masses, bins, seed=0)
    means = n @ (MIDDLES * np.diff(EDGES))
    truth = np.array([one @ MIDDLES for one in _true_bins()])
    stack = np.array(
        [np.asarray(masses[bins == index]).mean(0) @ MIDDLES for index in range(len(n))]
    )
    return (
        (means.mean(1) - truth) / (1 + truth), means.std(1) / (1 + truth),
        (stack - truth) / (1 + truth),
    )  # fmt: skip


def _scaling(size: int, seconds: float, one: Population) -> list[Figure]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    began = time.process_time()
    _densities(size)
    cut = time.process_time() - began
    return [
        figure(f"n(z), {size:,} galaxies: CPU seconds", seconds, n=1,
               goal="at most 600", met=at_most(seconds, 600)),
        figure(f"n(z), {size:,} galaxies: CPU seconds to integrate their p(z) over cells", cut,
               n=1),
        figure(f"n(z), {size:,} galaxies: peak memory of the process, GiB", peak, n=1,
               goal="at most 4", met=at_most(peak, 4)),
        figure(f"n(z), {size:,} galaxies: Pareto k of the draws", one.pareto_k or 0.0, n=size,
               goal="below 0.7", met=at_most(one.pareto_k or 0.0, 0.7)),
        figure(f"n(z), {size:,} galaxies: effective draws", one.effective, n=1,
               goal="at least 100", met=at_least(one.effective, 100)),
    ]  # fmt: skip


def _densities(size: int) -> None:
    """The masses of as many densities of eight components, a chunk at a time."""
    generator = torch.Generator().manual_seed(0)
    chunk = 50_000
    for _ in range(0, size, chunk):
        loc = 0.4 + 0.1 * torch.randn(chunk, 8, generator=generator)
        density = RedshiftDensity(torch.zeros(chunk, 8), loc, torch.full((chunk, 8), 0.05))
        cell_masses(density, EDGES)


def _draw(picture: Path, mean: Any, spread: Any, stacked: Any, met: list[int]) -> None:
    figure_, axes = plt.subplots(figsize=(7.2, 4.4), constrained_layout=True)
    for index in range(spread.shape[1]):
        colour, first = f"C{index}", index == 0
        axes.plot(SIZES, spread[:, index], "-", color=colour, label=f"bin {index + 1}: noise")
        axes.plot(SIZES, mean[:, index], "o", color=colour, ms=5,
                  label="error" if first else None)  # fmt: skip
        axes.plot(SIZES, stacked[:, index], "x", color=colour, ms=6,
                  label="error of the stack of p(z)" if first else None)  # fmt: skip
    axes.axhline(REQUIRED, color="k", ls="--", lw=1, label="DESC Y10 requirement")
    if met:
        axes.axvline(min(met), color="0.6", ls=":",
                     label=f"noise meets it from\n{min(met):,} galaxies on")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="galaxies in the survey",
             ylabel="mean redshift of a bin: error / (1 + z)")  # fmt: skip
    figure_.legend(loc="outside right upper", fontsize=9, frameon=False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    partial = picture.with_name("." + picture.name)
    figure_.savefig(partial, dpi=110, format="png")
    partial.replace(picture)
    plt.close(figure_)
