"""Exact inference on galaxies that the model itself drew: is NUTS right, and is it needed?

The network conditions on the images of simulated galaxies and draws (z, u), then a stretch of a
spectrum, from its own predictive distribution. Of such evidence the posterior is the model's:
ranks of the truth among NUTS draws must be uniform (simulation-based calibration), and a
classifier says how far the amortised draws are from those of NUTS.

Axes: galaxy, draw, quantity (ln(1 + z), then u).
"""

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from report_set import REPORT_SEED, Sample, sample, shown
from results_file import Figure, at_least, at_most, figure

from probmmae.batch import Batch, Spectra
from probmmae.calibration.random_features import cross_fitted
from probmmae.calibration.ranks import rank_result, sbc_ranks
from probmmae.inference.evidence import Measured
from probmmae.inference.importance import TRUSTED, propose, psis
from probmmae.inference.modes import sample_modes
from probmmae.inference.target import Source
from probmmae.model import GalaxyModel

GALAXIES = 100
PIXELS = 1024
"""Of the stretch of spectrum, from 5000 Angstrom on."""
DRAWS = 200
"""Compared of each galaxy: equally likely draws of NUTS, and amortised ones."""
RANKED = 49
"""Of them that ranks are counted among: thinned, so that they are nearly independent."""
_WARMUP, _DRAWN = 100, 150
"""Steps of each of two chains."""


def unknown(batch: Batch) -> Batch:
    """The images alone, the redshift not known."""
    seen = shown(batch, "image")
    nothing = torch.zeros_like(seen.z_known)
    return Batch(
        seen.images, seen.photometry, seen.spectra, torch.zeros_like(seen.z), nothing
    )  # fmt: skip


def stretch(spectra: Spectra) -> Spectra:
    """`PIXELS` pixels of the first aperture from 5000 Angstrom on."""
    first = int((spectra.wavelength[0, 0] < 5000).sum())
    part = slice(first, first + PIXELS)
    names = ("wavelength", "flux", "ivar", "sigma")
    return Spectra(
        *(getattr(spectra, name)[:, :1, part] for name in names), spectra.aperture[:, :1]
    )


@torch.no_grad()
def predicted(
    network: GalaxyModel, observed: Batch, spectra: Spectra, seed: int
) -> tuple[torch.Tensor, torch.Tensor, Spectra]:
    """z, u and a noisy spectrum of one galaxy, drawn from what the network says of its images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        context = network.encode(observed)
        z = network.redshift(context).sample()
        known = network.known_field(context, observed, spectra.aperture, z)
        u = known.field.distribution().sample().float()
        apart = u.unflatten(-1, (1, -1))
        flux = network.spectrum(apart, known.hidden, z, context.scale, spectra).rsample()
    return z, u, Spectra(
        spectra.wavelength, flux * (spectra.ivar > 0), spectra.ivar, spectra.sigma,
        spectra.aperture,
    )  # fmt: skip


def answers(network: GalaxyModel, folder: Path, galaxies: int) -> list[dict[str, Any]]:
    """What every galaxy gave; each is kept in `folder` and not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    report: Sample | None = None
    found = []
    for index in range(galaxies):
        path = folder / f"galaxy-{index:03d}.npz"
        if not path.exists():
            report = sample(galaxies, REPORT_SEED) if report is None else report
            told = _infer(network, report.batch.take(slice(index, index + 1)), index)
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, **told)
            partial.rename(path)
            print(f"{path.name}: k {told['pareto_k']:.2f}, {told['seconds'][1]:.1f} s", flush=True)
        with np.load(path) as stored:
            found.append(dict(stored))
    return found


def _infer(network: GalaxyModel, galaxy: Batch, index: int) -> dict[str, Any]:
    observed = unknown(galaxy)
    z, u, spectrum = predicted(network, observed, stretch(galaxy.spectra), index)
    evidence = Measured.of_spectra(spectrum)
    generator = torch.Generator().manual_seed(index)
    began = time.process_time()
    proposal = propose(network, observed, evidence=evidence, draws=1000, generator=generator)
    weights = psis(proposal.log_ratio[0].numpy())
    between = time.process_time()
    source = Source(network, observed, network.encode(observed), evidence)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # told below, as R-hat and divergences
        modes = sample_modes(source, proposal, seed=index, draws=_DRAWN, warmup=_WARMUP)
    seconds = np.array([between - began, time.process_time() - between])
    every = np.column_stack([np.log1p(proposal.z[0].numpy()), proposal.u[0].numpy()])
    rng = np.random.default_rng(index)
    pick = rng.choice(len(every), DRAWS, p=np.exp(weights.log_weight))
    exact_z, exact_u = modes.draws(DRAWS, seed=index)
    chains = [one.chains for one in modes.modes]
    return {
        "truth": np.concatenate([[np.log1p(float(z))], u[0].numpy()]),
        "nuts": np.column_stack([np.log1p(exact_z), exact_u]),
        "amortised": every[:DRAWS],
        "weighted": every[pick],
        "pareto_k": weights.pareto_k,
        "log_evidence": np.array([weights.log_evidence, modes.log_evidence]),
        "log_evidence_error": np.array([weights.log_evidence_error, modes.log_evidence_error]),
        "mode_weight": modes.weight,
        "proposed_weight": np.array([one.proposed for one in modes.modes]),
        "r_hat": np.array([one.r_hat for one in chains]),
        "effective": np.array([one.effective for one in chains]),
        "diverging": np.array([one.diverging.mean() for one in chains]),
        "field_error": np.array([one.field_error for one in modes.modes]),
        "seconds": seconds,
    }


def two_sample(first: NDArray[Any], second: NDArray[Any], seed: int) -> float:
    """Accuracy with which a classifier tells draws from draws, cross-fitted; 1/2 if alike.

    A ridge discriminant on the quantities, their squares and products, all standardised.
    """
    both = np.concatenate([first, second])
    white = (both - both.mean(0)) / (both.std(0) + 1e-12)
    one, two = np.triu_indices(white.shape[1])
    columns = np.column_stack([np.ones(len(white)), white, white[:, one] * white[:, two]])
    side = np.repeat([1.0, -1.0], [len(first), len(second)])[:, None]
    told = cross_fitted(columns, side, generator=np.random.default_rng(seed))
    return float(np.mean(np.sign(told) == side))


def galaxy_figures(network: GalaxyModel, folder: Path, galaxies: int) -> list[Figure]:
    """Ranks, classifiers, evidences and costs."""
    found = answers(network, folder, galaxies)
    said = "images, then a stretch of spectrum"
    return [
        *_ranks(found, said),
        *_classifiers(found, said),
        *_quality(found, said),
        *_costs(found),
    ]


def _ranks(found: list[dict[str, Any]], said: str) -> list[Figure]:
    draws = np.stack([one["nuts"][:: DRAWS // RANKED][:RANKED] for one in found], axis=1)
    truth = np.stack([one["truth"] for one in found])
    ranks = sbc_ranks(draws, truth, generator=np.random.default_rng(0))
    confidence = 1 - 0.01 / ranks.shape[1]
    outside = [not rank_result(one, draws=RANKED, confidence=confidence).passed for one in ranks.T]
    goal = "0, each held to its share of a 99 % band"
    figures = [
        figure(
            f"SBC of NUTS, {said}: quantities of {ranks.shape[1]} (z and u) whose ranks leave "
            "their band", sum(outside), n=len(found), goal=goal, met=not any(outside),
        )
    ]  # fmt: skip
    low, high = np.quantile(np.stack([one["nuts"] for one in found], axis=1), [0.05, 0.95], axis=0)
    inside = ((low <= truth) & (truth <= high)).mean(1)
    error = inside.std() / len(inside) ** 0.5
    mean = float(inside.mean())
    figures.append(
        figure(
            f"SBC of NUTS, {said}: coverage of 90 % intervals of z and u", mean,
            interval=(mean - 1.96 * error, mean + 1.96 * error), n=len(found),
        )
    )  # fmt: skip
    return figures


def _classifiers(found: list[dict[str, Any]], said: str) -> list[Figure]:
    figures = []
    halves = {
        "amortised draws from NUTS": lambda one: (one["amortised"], one["nuts"]),
        "importance-weighted draws from NUTS": lambda one: (one["weighted"], one["nuts"]),
        "NUTS from NUTS (the control)": lambda one: (one["nuts"][::2], one["nuts"][1::2]),
    }
    for name, pair in halves.items():
        accuracy = np.array([two_sample(*pair(one), seed) for seed, one in enumerate(found)])
        low, high = np.quantile(accuracy, [0.025, 0.975])
        label = f"C2ST, {said}: {name}, median accuracy over galaxies (interval: their spread)"
        figures.append(
            figure(label, float(np.median(accuracy)), interval=(low, high), n=len(found))
        )  # fmt: skip
    return figures


def _quality(found: list[dict[str, Any]], said: str) -> list[Figure]:
    k = np.array([float(one["pareto_k"]) for one in found])
    trusted = k < TRUSTED
    r_hat = np.array([one["r_hat"].max() for one in found])
    diverging = np.array([one["diverging"].max() for one in found])
    good = (r_hat < 1.05) & (diverging < 0.01)
    figures = [
        figure(f"importance weights, {said}: share of galaxies with Pareto k below {TRUSTED}",
               float(trusted.mean()), n=len(found)),
        figure(f"importance weights, {said}: median Pareto k", float(np.median(k)), n=len(found)),
        figure(f"NUTS, {said}: share of galaxies whose chains agree (R-hat below 1.05, under 1 % "
               "divergent)", float(good.mean()), n=len(found), goal="at least 0.95",
               met=at_least(good.mean(), 0.95)),
        figure(f"NUTS, {said}: share of galaxies with several modes of redshift",
               float(np.mean([len(one["mode_weight"]) > 1 for one in found])), n=len(found)),
        figure(f"NUTS, {said}: scatter of ln p(u | z, c) from interpolation in z, 95 % quantile",
               float(np.quantile([one["field_error"].max() for one in found], 0.95)),
               n=len(found), goal="at most 0.1",
               met=at_most(np.quantile([one["field_error"].max() for one in found], 0.95), 0.1)),
    ]  # fmt: skip
    both = [one for one, fine in zip(found, trusted & good, strict=True) if fine]
    if both:
        pull = np.array(
            [
                np.diff(one["log_evidence"])[0] / np.hypot(*one["log_evidence_error"])
                for one in both
            ]
        )
        figures.append(
            figure(
                "log evidence, importance weights against bridge sampling where both are trusted: "
                "share within three of their standard errors", float(np.mean(np.abs(pull) < 3)),
                n=len(both), goal="at least 0.95", met=at_least(np.mean(np.abs(pull) < 3), 0.95),
            )
        )  # fmt: skip
    return figures


def _costs(found: list[dict[str, Any]]) -> list[Figure]:
    """Without the first galaxy, which compiles."""
    rest = found[1:]
    propose_time, nuts_time = np.array([one["seconds"] for one in rest]).T
    rate = np.array([one["effective"].sum() for one in rest]) / nuts_time
    amortised = 1000 / propose_time
    return [
        figure("cost: effective samples per CPU second of NUTS over (z, u), median of galaxies",
               float(np.median(rate)), n=len(rest)),
        figure("cost: weighed amortised draws per CPU second for the same galaxies, median",
               float(np.median(amortised)), n=len(rest)),
        figure("cost: weighed amortised draws per CPU second over effective samples per CPU "
               "second of NUTS, the same galaxies, median", float(np.median(amortised / rate)),
               n=len(rest)),
    ]  # fmt: skip
