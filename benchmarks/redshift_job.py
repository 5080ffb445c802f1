"""Redshift from images, from photometry and from spectra, beside every reference."""

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from report_set import Sample, densities, exact_evidence
from results_file import Figure, at_most, figure, pit_figure, score_figure, within

from probmmae.calibration.evidence import Evidence, density_evidence
from probmmae.calibration.reference import importance_posterior, residual_draws
from probmmae.calibration.scores import crps_draws, mean_score, ratio_of_means
from probmmae.model import GalaxyModel
from probmmae.simulator.population import draw_population, population_photometry
from probmmae.simulator.survey import PHOTOMETRY_FLOOR

GRID = np.linspace(0.0, 1.0, 4001)


def evidence_of(label: str, network: GalaxyModel, sample: Sample, what: str) -> Evidence:
    """Evidence on p(z | what is shown)."""
    return exact_evidence(label, densities(network, sample, what), sample.truth.z)


def figures_of(evidence: Evidence, *, goals: bool) -> list[Figure]:
    """Scores, PIT distance and coverage."""
    name = evidence.name
    found = [score_figure(score, name=f"{name}: {score.name}") for score in evidence.scores]
    found.append(pit_figure(name, evidence.pit, goals=goals))
    for result in evidence.coverage:
        goal = "0.88 to 0.92" if goals and result.level == 0.9 else None
        found.append(
            score_figure(
                result,
                name=f"{name}: coverage of {result.level:.0%} intervals",
                goal=goal,
                met=within(result.value, 0.88, 0.92) if goal else None,
            )
        )
    return found


def marginal(train: Sample, report: Sample) -> Evidence:
    """The marginal n(z) as everybody's posterior."""
    density, _ = np.histogram(train.truth.z.numpy(), bins=np.linspace(0, 1, 101), density=True)
    pdf = np.repeat(density[np.minimum((GRID * 100).astype(int), 99)][None], len(report.batch), 0)
    return density_evidence(
        "marginal n(z)",
        pdf,
        grid=GRID,
        truth=report.truth.z.numpy(),
        generator=np.random.default_rng(0),
    )


def flexzboost(python: str, train: Sample, report: Sample) -> dict[str, Evidence]:
    """FlexZBoost of RAIL on the photometry of the same galaxies, in its own environment."""
    script = Path(__file__).parent / "peers_photoz.py"
    with tempfile.TemporaryDirectory() as folder:
        for name, one in (("train", train), ("test", report)):
            flux = one.batch.photometry.flux.numpy()
            error = one.batch.photometry.ivar.clamp(min=1e-20).rsqrt().numpy()
            positive = np.maximum(flux, 0.2 * error)
            np.savez(
                Path(folder) / f"{name}.npz",
                mag=22.5 - 2.5 * np.log10(positive),
                mag_err=np.minimum(1.0857 * error / positive, 5.0),
                z=one.truth.z.numpy(),
                names="grizy",
            )
        out = Path(folder) / "out.npz"
        command = [python, str(script), "--train", f"{folder}/train.npz"]
        command += ["--test", f"{folder}/test.npz", "-o", str(out)]
        subprocess.run([*command, "--variants", "default"], check=True)
        said = np.load(out)
        found = {}
        variants = {"": "FlexZBoost, default"}
        for suffix, name in variants.items():
            found[name] = density_evidence(
                f"photometry to redshift, {name}",
                said[f"pdf{suffix}"],
                grid=said["grid"],
                truth=report.truth.z.numpy(),
                generator=np.random.default_rng(0),
            )
    return found


def deterministic(network: GalaxyModel, report: Sample, tune: Sample, seed: int) -> list[Figure]:
    """The deterministic masked autoencoder: point redshift, alone and with residual scatter."""
    label = "image to redshift, deterministic MMAE"
    with torch.no_grad():
        point, other = (
            torch.expm1(densities(network, one, "image").loc[:, 0]).numpy()
            for one in (report, tune)
        )
    truth = report.truth.z.numpy()
    error = (point - truth) / (1 + truth)
    nmad = 1.4826 * float(np.median(np.abs(error - np.median(error))))
    residual = tune.truth.z.numpy() - other
    drawn = residual_draws(point, residual, draws=400, generator=np.random.default_rng(seed))
    with_scatter = mean_score("CRPS", crps_draws(drawn, truth))
    return [
        figure(f"{label}: sigma_NMAD", nmad, n=len(truth)),
        figure(
            f"{label}: CRPS (mean absolute error)",
            float(np.abs(point - truth).mean()),
            n=len(truth),
        ),
        score_figure(with_scatter, name=f"{label}, with held-out residuals: CRPS"),
    ]


def near_optimal(network: GalaxyModel, report: Sample, *, bank: int, seed: int) -> list[Figure]:
    """Photometry to redshift beside importance weighting of a bank of simulated galaxies."""
    fluxes, redshifts = [], []
    block = 20_000
    for index in range(bank // block):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        population = draw_population(block, generator)
        fluxes.append(population_photometry(population).numpy().astype("f4"))
        redshifts.append(population.z.numpy())
    photometry = report.batch.photometry
    flux = photometry.flux.numpy().astype(float)
    # The sky's variance is what the reported one holds beyond the calibration floor.
    sky = 1 / photometry.ivar.numpy().astype(float) - (PHOTOMETRY_FLOOR * flux) ** 2
    exact = importance_posterior(
        np.concatenate(fluxes),
        np.concatenate(redshifts),
        flux,
        1 / sky,
        truth=report.truth.z.numpy(),
        fractional_error=PHOTOMETRY_FLOOR,
    )
    ours = evidence_of("photometry", network, report, "photometry").crps_values
    usable = exact.usable()
    label = "photometry to redshift, effective sample size over 100"
    figures = [
        figure(f"{label}: share of galaxies", float(usable.mean()), n=len(usable)),
    ]
    if usable.sum() >= 30:
        ratio = ratio_of_means("ratio", ours[usable], exact.crps[usable])
        figures.append(
            score_figure(
                ratio,
                name=f"{label}: CRPS over that of the near-optimal posterior ({bank:,} galaxies)",
                goal="at most 1.05",
                met=at_most(ratio.value, 1.05),
            )
        )
    return figures


def redshift_figures(
    network: GalaxyModel,
    baselines: Mapping[str, GalaxyModel],
    report: Sample,
    tune: Sample,
    bank: Sample,
    *,
    rail: str | None,
    bank_size: int,
    seed: int,
) -> list[Figure]:
    """Every figure of redshifts."""
    figures: list[Figure] = []
    found = {}
    for what in ("image", "photometry", "spectrum", "pieces"):
        label = {"pieces": "masked spectrum (75 %)"}.get(what, what)
        found[what] = evidence_of(f"{label} to redshift", network, report, what)
        figures += figures_of(found[what], goals=True)
    figures += figures_of(marginal(bank, report), goals=False)
    for rival in baselines.values():
        if rival.config.likelihood == "mse":
            figures += deterministic(rival, report, tune, seed)
    if rail is not None:
        peers = flexzboost(rail, bank, report)
        for evidence in peers.values():
            figures += figures_of(evidence, goals=False)
        for name, evidence in peers.items():
            for what in ("image", "photometry"):
                mine, theirs = found[what].crps_values, evidence.crps_values
                ratio = ratio_of_means("ratio", mine, theirs)
                goal = "below 1" if what == "image" else None
                figures.append(
                    score_figure(
                        ratio,
                        name=f"{what} to redshift: CRPS over that of {name}",
                        goal=goal,
                        met=at_most(ratio.value, 1.0) if goal else None,
                    )
                )
    figures += near_optimal(network, report, bank=bank_size, seed=seed)
    return figures
