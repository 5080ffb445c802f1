"""The model on real data, never trained on: redshifts and masked spectra, beside simulated twins.

Results come as they are; `real_diagnosis` asks where the misfit comes from.

Axes: draw, galaxy, pixel.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from real_answers import GRID, answer, seen_by, simulated_n_of_z, twins, without_u
from real_diagnosis import redshift_diagnosis, residual_diagnosis
from real_hidden import HOLES, Hidden, galaxy_means, reconstruct, together
from real_set import REACH, boss, desi, sdss, split_by_reach, triples
from report_set import REPORT_SEED, Sample, sample
from results_file import Figure, figure, score_figure
from spectrum_job import EDGES

from probmmae.calibration.evidence import Evidence, density_evidence, pixel_evidence
from probmmae.calibration.scores import mean_score, ratio_of_means
from probmmae.collate import collate
from probmmae.galaxy import Galaxy
from probmmae.model import GalaxyModel

POOL = 512
"""Simulated galaxies among which twins are sought."""
PIXEL_DRAWS = 48
"""Draws of hidden pixels, at most: ranks are exact for any number."""
DESI_MASKS = 8
"""Masks of each of the few DESI galaxies, which stay one galaxy in the counts."""
_LEAST = 10
"""Galaxies that a rest band needs."""


def scores(evidence: Evidence) -> list[Figure]:
    """CRPS, NMAD, outliers, PIT distance and coverage of 50 and 90 % intervals."""
    name = evidence.name
    found = [
        score_figure(score, name=f"{name}: {score.name}")
        for score in evidence.scores
        if score.name != "CDE loss"
    ]
    limit = f"{name}: PIT KS distance (99 % band {evidence.pit.limit:.3f})"
    found.append(figure(limit, evidence.pit.distance, n=evidence.pit.n))
    found += [
        score_figure(evidence.at(level), name=f"{name}: coverage of {level:.0%} intervals")
        for level in (0.5, 0.9)
    ]
    return found


def redshift_part(
    network: GalaxyModel, galaxies: Sequence[Galaxy], what: str, pool: Sample, *, label: str
) -> list[Figure]:
    """Redshifts of real galaxies within reach beside those of their twins, and of the others."""
    inside, outside = split_by_reach(galaxies)
    batch = collate(inside)
    figures = scores(answer(network, batch, what, label=label).evidence())
    near = twins(pool, batch, what)
    like_batch = seen_by(near, batch, seed=0) if what == "spectrum" else near.batch
    like = answer(network, like_batch, what, label=f"{label}, simulated twins").evidence()
    figures += scores(like)
    same = np.repeat(simulated_n_of_z(pool)[None], len(inside), 0)
    marginal = density_evidence(
        "marginal",
        same,
        grid=GRID,
        truth=batch.z.numpy().astype(float),
        generator=np.random.default_rng(0),
    )
    name = f"{label}: CRPS of the simulation's n(z) as everybody's posterior"
    figures.append(score_figure(marginal.scores[0], name=name))
    if len(outside) > 1:
        far = answer(network, collate(outside), what, label=label).evidence()
        name = f"{label}, beyond the simulator's z = {REACH[0]} to {REACH[1]}"
        figures.append(score_figure(far.at(0.9), name=f"{name}: coverage of 90% intervals"))
        figures.append(score_figure(far.scores[0], name=f"{name}: CRPS"))
    return figures


def hidden_figures(label: str, ours: Hidden, line: Hidden) -> list[Figure]:
    """Coverage and CRPS of measured pixels by rest band, chi2, and the baseline's beside them.

    Bands that fewer than `_LEAST` galaxies reach stand only in the whole.
    """
    figures = []
    every = (("all", (0.0, 2e4)), *(("", pair) for pair in pairwise(EDGES)))
    for whole, (low, high) in every:
        reached = np.isfinite(ours.pit) & (ours.rest >= low) & (ours.rest < high)
        if not whole and reached.any(1).sum() < _LEAST:
            continue
        name = f"{label}: pixels " + (whole or f"{low:.0f}-{high:.0f} A")
        for said, whose in ((ours, name), (line, f"{name}, straight line between visible pieces")):
            if said is line and not whole:
                continue
            bands = pixel_evidence(
                said.pit, said.crps, rest_wavelength=said.rest, edges=(low, high)
            )
            for band in bands:
                figures.append(score_figure(band.crps, name=f"{whose} CRPS (of the mean flux)"))
                figures += [
                    score_figure(one, name=f"{whose} coverage of {one.level:.0%} intervals")
                    for one in band.coverage
                    if one.level in (0.5, 0.9)
                ]
    for said, whose in ((ours, label), (line, f"{label}, straight line between visible pieces")):
        chi2 = galaxy_means(said.chi2)
        chi2 = chi2[np.isfinite(chi2)]
        name = f"{whose}: chi2 a pixel, median of the galaxies"
        figures.append(figure(name, float(np.median(chi2)), n=len(chi2)))
    pair = galaxy_means(ours.crps), galaxy_means(line.crps)
    use = np.isfinite(pair[0]) & np.isfinite(pair[1])
    if use.sum() < 2:
        return figures
    ratio = ratio_of_means("ratio", pair[0][use], pair[1][use])
    figures.append(score_figure(ratio, name=f"{label}: CRPS over that of the straight line"))
    # A perfect prediction of the noise-free flux still has the noise's own CRPS, sigma / sqrt(pi).
    floor = mean_score("floor", galaxy_means(ours.error)[use] / np.pi**0.5)
    figures.append(
        score_figure(floor, name=f"{label}: CRPS of the noise alone (of the mean flux)")
    )
    return figures


def real_figures(network: GalaxyModel, data: Path, *, draws: int, seed: int) -> list[Figure]:
    """Every figure on real galaxies.

    Args:
        network: The trained network.
        data: Folder with one folder a set.
        draws: Draws a galaxy for the hidden parts of spectra.
        seed: Seed of masks, draws and noise.
    """
    pool = sample(POOL, REPORT_SEED)
    found = boss(data)
    parts = (
        ("BOSS spectrum to redshift", found, "spectrum"),
        ("SDSS spectrum to redshift", sdss(data), "spectrum"),
        (
            "BOSS photometry (griz) to redshift",
            [without_u(galaxy) for galaxy in found],
            "photometry",
        ),
        ("HST images to redshift", triples(data), "image"),
    )
    figures: list[Figure] = []
    for label, galaxies, what in parts:
        figures += redshift_part(network, galaxies, what, pool, label=label)
    inside = collate(split_by_reach(found)[0])
    surveys = {
        "BOSS spectrum": (inside, 1),
        "simulated twins of BOSS": (
            seen_by(twins(pool, inside, "spectrum"), inside, seed=seed),
            1,
        ),
        "DESI spectrum": (collate(split_by_reach(desi(data))[0]), DESI_MASKS),
    }
    said: dict[str, Hidden] = {}
    for survey, (batch, masks) in surveys.items():
        for what, kind in HOLES.items():
            pairs = [
                reconstruct(network, batch, kind, draws=min(draws, PIXEL_DRAWS), seed=seed + mask)
                for mask in range(masks)
            ]
            ours, line = (together(each, axis=1) for each in zip(*pairs, strict=True))
            said[f"{survey}, {what}"] = ours
            figures += hidden_figures(f"{survey}, {what}", ours, line)
    for what in HOLES:
        label = f"BOSS spectrum, {what}"
        twin = said[f"simulated twins of BOSS, {what}"]
        figures += residual_diagnosis(label, said[label], twin)
    return figures + redshift_diagnosis(network, data, pool, seed=seed)
