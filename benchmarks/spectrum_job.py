"""Image (and true redshift) to spectrum: features of draws, pixels, line widths, baselines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from report_set import GRID, RESOLUTION, Sample, aperture_snr, shown, true_spectra
from results_file import Figure, at_most, figure, score_figure, within

from probmmae.calibration.coverage import thirds
from probmmae.calibration.evidence import Evidence, draw_evidence, pixel_evidence
from probmmae.calibration.features import FEATURES, spectrum_features
from probmmae.calibration.line_widths import fit_line
from probmmae.calibration.pit import pit_from_draws
from probmmae.calibration.reference import neighbour_draws, residual_draws
from probmmae.calibration.scores import crps_draws
from probmmae.inference.amortized import draw, spectra_at
from probmmae.model import GalaxyModel
from probmmae.redshift import RedshiftDensity
from probmmae.tokens import CENTRAL_RADII, apertures, galaxy_scale

EDGES = (2400.0, 3700.0, 4200.0, 5200.0, 6400.0, 6700.0, 8000.0, 10300.0)
"""Bands of rest wavelength in which pixels are judged, Angstrom."""
EVERY = 12
"""Pixels kept for pixel coverage: one in so many."""


@dataclass(frozen=True)
class Answers:
    """What a method says of every galaxy's spectrum."""

    features: dict[str, np.ndarray]
    """Draws of each feature, shape (draw, galaxy)."""
    pit: np.ndarray
    """PIT of the kept pixels, shape (galaxy, pixel)."""
    crps: np.ndarray
    """CRPS of the kept pixels, relative to the galaxy's mean flux."""
    mean: np.ndarray
    """Mean of the draws, shape (galaxy, pixel) on the whole grid."""


def collect(
    sample: Sample, draws_of: Callable[[Sample, int], np.ndarray], *, seed: int, chunk: int = 16
) -> Answers:
    """Reduce draws, made a few galaxies at a time, to features and pixel statistics.

    Args:
        sample: The galaxies.
        draws_of: Gives spectra (draw, galaxy, pixel) for a piece of the sample that starts at a
            row.
        seed: Seed of the randomised ranks.
        chunk: Galaxies at a time.
    """
    generator = np.random.default_rng(seed)
    features: dict[str, list[np.ndarray]] = {name: [] for name in FEATURES}
    pits, scores, means = [], [], []
    for start, part in enumerate(sample.chunks(chunk)):
        drawn = draws_of(part, start * chunk)
        truth = true_spectra(part)
        z = part.truth.z.numpy()
        for name, values in spectrum_features(drawn, GRID.numpy(), z=z).items():
            features[name].append(values.numpy())
        level = np.abs(truth).mean(1, keepdims=True)
        kept = drawn[:, :, ::EVERY]
        pits.append(pit_from_draws(kept, truth[:, ::EVERY], generator=generator))
        scores.append(crps_draws(kept, truth[:, ::EVERY]) / level)
        means.append(drawn.mean(0))
    return Answers(
        {name: np.concatenate(parts, axis=1) for name, parts in features.items()},
        np.concatenate(pits),
        np.concatenate(scores),
        np.concatenate(means),
    )


def network_draws(
    network: GalaxyModel, what: str, draws: int, seed: int
) -> Callable[[Sample, int], np.ndarray]:
    """Draws of the first aperture's spectrum at the true redshift."""

    @torch.no_grad()
    def of(part: Sample, start: int) -> np.ndarray:
        observed = shown(part.batch, what)
        context = network.encode(observed)
        z = part.truth.z
        spike = RedshiftDensity(
            torch.zeros(len(z), 1), torch.log1p(z)[:, None], torch.full((len(z), 1), 1e-5)
        )
        generator = torch.Generator().manual_seed(seed * 100_003 + start)
        count = draws if network.config.likelihood != "mse" else 2  # equal
        made = draw(network, spike, z, torch.ones_like(z, dtype=torch.bool), count, generator)
        wavelength = GRID.expand(len(z), 1, -1).contiguous()
        sigma = wavelength / RESOLUTION / 2.3548
        where = part.batch.spectra.aperture[:, :1]
        flux = spectra_at(network, context, observed, made, where, wavelength, sigma)
        return flux[:, :, 0].transpose(0, 1).numpy()

    return of


def true_features(sample: Sample) -> dict[str, np.ndarray]:
    """Features of the noise-free spectra, each of shape (galaxy,)."""
    found = spectrum_features(true_spectra(sample), GRID.numpy(), z=sample.truth.z.numpy())
    return {name: values.numpy() for name, values in found.items()}


def image_features(sample: Sample) -> np.ndarray:
    """What a nearest neighbour compares: aperture colours, the fibre's surroundings, redshift."""
    rows = []
    for part in sample.chunks():
        observed = shown(part.batch, "image")
        scale = galaxy_scale(observed)
        where = torch.stack(
            [torch.zeros(len(scale), 2), part.batch.spectra.aperture[:, 0, :2]], dim=1
        )
        looked = apertures(observed.images, where, scale)
        asinh_flux = (
            looked[..., : 3 * len(CENTRAL_RADII)].unflatten(-1, (-1, 3))[..., 0].flatten(1)
        )
        rows.append(
            torch.cat(
                [
                    asinh_flux,
                    torch.log10(scale)[:, None],
                    3 * part.truth.z[:, None],
                    torch.log(part.batch.spectra.aperture[:, 0, 2:3]),
                ],
                dim=1,
            ).numpy()
        )
    return np.concatenate(rows)


def relative(features: Mapping[str, np.ndarray], scale: np.ndarray) -> dict[str, np.ndarray]:
    """Line fluxes in units of the galaxy's scale, so that galaxies can lend them to each other."""
    lines = ("h_alpha", "h_beta", "o_iii", "o_ii")
    return {name: v / scale if name in lines else v for name, v in features.items()}


def judge(
    label: str, answers: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], groups: dict
) -> dict[str, Evidence]:
    """Evidence on every feature."""
    return {
        name: draw_evidence(
            f"{label}: {name}",
            answers[name],
            truth=truth[name],
            generator=np.random.default_rng(1),
            groups=groups,
        )
        for name in FEATURES
    }


def feature_figures(evidence: Mapping[str, Evidence], *, goals: bool) -> list[Figure]:
    """CRPS, coverage of 50 and 90 % intervals overall, and of 90 % in each group."""
    figures = []
    for one in evidence.values():
        figures.append(score_figure(one.scores[0], name=f"{one.name} CRPS"))
        for result in one.coverage:
            if result.group == "all" and result.level in (0.5, 0.9):
                low, high = (0.46, 0.54) if result.level == 0.5 else (0.88, 0.93)
            elif result.group != "all" and result.level == 0.9:
                low, high = 0.86, 0.95
            else:
                continue
            figures.append(
                score_figure(
                    result,
                    name=f"{one.name} coverage of {result.level:.0%} intervals, {result.group}",
                    goal=f"{low} to {high}" if goals else None,
                    met=within(result.value, low, high) if goals else None,
                )
            )
    return figures


def pixel_figures(label: str, answers: Answers, sample: Sample, *, goals: bool) -> list[Figure]:
    """Coverage and CRPS of pixels in bands of rest wavelength."""
    kept = GRID.numpy()[::EVERY]
    rest = kept / (1 + sample.truth.z.numpy()[:, None])
    figures = []
    for band in pixel_evidence(answers.pit, answers.crps, rest_wavelength=rest, edges=EDGES):
        name = f"{label}: pixels {band.low:.0f}-{band.high:.0f} A"
        figures.append(score_figure(band.crps, name=f"{name} CRPS (of the mean flux)"))
        for result in band.coverage:
            if result.level in (0.5, 0.9):
                low, high = (0.46, 0.54) if result.level == 0.5 else (0.88, 0.93)
                figures.append(
                    score_figure(
                        result,
                        name=f"{name} coverage of {result.level:.0%} intervals",
                        goal=f"{low} to {high}" if goals else None,
                        met=within(result.value, low, high) if goals else None,
                    )
                )
    return figures


def width_figures(label: str, mean: np.ndarray, sample: Sample) -> list[Figure]:
    """Width of lines in the mean of the draws over their width in the truth (strong lines)."""
    figures = []
    z, grid, truth = sample.truth.z.numpy(), GRID.numpy(), true_spectra(sample)
    for line in ("h_alpha", "o_iii"):
        ours, true = (fit_line(spectra, grid, z=z, line=line) for spectra in (mean, truth))
        strong = (true.equivalent_width > 10) & ours.sigma.isfinite() & true.sigma.isfinite()
        ratio = (ours.sigma / true.sigma)[strong].numpy()
        if len(ratio) < 30:
            continue
        middle = float(np.median(ratio))
        error = 1.2533 * float(np.std(ratio)) / len(ratio) ** 0.5
        figures.append(
            figure(
                f"{label}: width of {line} in the mean of the draws over the truth, median",
                middle,
                interval=(middle - 1.96 * error, middle + 1.96 * error),
                n=len(ratio),
                goal="0.9 to 1.1",
                met=within(middle, 0.9, 1.1),
            )
        )
    return figures


def image_to_spectrum(
    network: GalaxyModel,
    baselines: Mapping[str, GalaxyModel],
    report: Sample,
    tune: Sample,
    bank: Sample,
    *,
    draws: int,
    seed: int,
) -> list[Figure]:
    """Every figure of "image and true z to spectrum through a fibre"."""
    truth = true_features(report)
    colour = truth["g_minus_r"]
    groups = {
        "snr": thirds(aperture_snr(report), name="S/N"),
        "colour": thirds(np.where(np.isfinite(colour), colour, np.nanmedian(colour)), name="g-r"),
    }
    label = "image to spectrum"
    ours = collect(report, network_draws(network, "image", draws, seed), seed=seed)
    evidence = judge(label, ours.features, truth, groups)
    figures = feature_figures(evidence, goals=True)
    figures += pixel_figures(label, ours, report, goals=True)
    figures += width_figures(label, ours.mean, report)

    rivals: dict[str, dict[str, Evidence]] = {}
    scale = galaxy_scale(shown(report.batch, "image")).numpy()
    bank_scale = galaxy_scale(shown(bank.batch, "image")).numpy()
    lent = relative(true_features(bank), bank_scale)
    near = {
        name: neighbour_draws(image_features(bank), values, image_features(report))
        for name, values in lent.items()
    }
    back = relative(near, 1 / scale)
    rivals["nearest neighbours"] = judge(f"{label}, nearest neighbours", back, truth, {})
    for name, rival in baselines.items():
        # Scores are fair for any number of draws: half of them do for a rival.
        said = collect(report, network_draws(rival, "image", draws // 2, seed), seed=seed)
        features = said.features
        if rival.config.likelihood == "mse":
            held = collect(tune, network_draws(rival, "image", 2, seed + 1), seed=seed)
            features = _with_residuals(features, held.features, report, tune, draws, seed)
        rivals[name] = judge(f"{label}, {name}", features, truth, {})
        figures += width_figures(f"{label}, {name}", said.mean, report)
        if rival.config.likelihood == "independent":
            figures += pixel_figures(f"{label}, {name}", said, report, goals=False)
    for name, theirs in rivals.items():
        figures += feature_figures(theirs, goals=False)
        for feature in FEATURES:
            both = np.isfinite(evidence[feature].crps_values) & np.isfinite(
                theirs[feature].crps_values
            )
            mine = evidence[feature].crps_values[both].mean()
            ratio = float(mine / theirs[feature].crps_values[both].mean())
            figures.append(
                figure(
                    f"{label}: {feature} CRPS over that of {name}",
                    ratio,
                    n=int(both.sum()),
                    goal="below 1",
                    met=at_most(ratio, 1.0),
                )
            )
    return figures


def _with_residuals(
    said: Mapping[str, np.ndarray],
    held: Mapping[str, np.ndarray],
    report: Sample,
    tune: Sample,
    draws: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """A deterministic prediction plus held-out galaxies' residuals, in units of their scale."""
    generator = np.random.default_rng(seed)
    scales = [galaxy_scale(shown(one.batch, "image")).numpy() for one in (report, tune)]
    prediction, other = relative(said, scales[0]), relative(held, scales[1])
    truth = relative(true_features(tune), scales[1])
    made = {}
    for name in FEATURES:
        residual = truth[name] - other[name][0]
        residual = residual[np.isfinite(residual)]
        made[name] = residual_draws(
            prediction[name][0], residual, draws=draws, generator=generator
        )
    return relative(made, 1 / scales[0])


def spectrum_to_spectrum(
    network: GalaxyModel, report: Sample, *, draws: int, seed: int
) -> list[Figure]:
    """A quarter of a spectrum's pieces (and the true z) to the whole of it."""
    label = "masked spectrum (75 %) to spectrum"
    ours = collect(report, network_draws(network, "pieces", draws, seed), seed=seed)
    truth = true_features(report)
    groups = {"snr": thirds(aperture_snr(report), name="S/N")}
    figures = feature_figures(judge(label, ours.features, truth, groups), goals=True)
    return figures + pixel_figures(label, ours, report, goals=True)


def first_aperture(sample: Sample) -> Sample:
    """The sample with its first aperture alone."""
    one = sample.batch.spectra.map(lambda part: part[:, :1])
    return replace(sample, batch=replace(sample.batch, spectra=one))
