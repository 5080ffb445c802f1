"""Ask a trained model about galaxies that it was not trained on: the answers of a report.

From a model and a dataset to two jobs: images to redshift, and images with the redshift to the
spectrum. Galaxies of the part "recalibrate" fit the repair, those of the part "report" are
reported; a model that keeps a repair needs no part to fit one, and is asked twice about the
reported: without it and with it. Where a galaxy has no image its photometry is shown. The spectrum
in question is the galaxy's first. What is known of it is a measurement, so the draws, which are
noise-free, get the noise of that measurement: its pixels and features are compared with what the
model expects to be measured.

Axes: draw, galaxy, pixel, bin (of observed wavelength), grid.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import astropy.units as u
import numpy as np
import torch
from numpy.typing import NDArray

from probmmae.calibration.answers import FEWEST_GALAXIES, Drawn, Gridded, Job, Vectors
from probmmae.calibration.features import FEATURES, spectrum_features
from probmmae.calibration.repaired import Repaired
from probmmae.dataset import Dataset, Split
from probmmae.galaxy import FWHM_PER_SIGMA, BandImage, Galaxy, Photometry, Spectrum
from probmmae.inference.pit_map import PitMap
from probmmae.inference.posterior import Model, Posterior, observed_batch
from probmmae.inference.redshifts import default_grid
from probmmae.inference.repair import joined
from probmmae.inference.shown import signal_to_noise
from probmmae.redshift import RedshiftDensity
from probmmae.tokens import SPECTRAL_UNIT, galaxy_scale

FloatArray = NDArray[np.float64]
Watch = Callable[[int], None]
"""Told the number of galaxies done."""

SPLITS: tuple[Split, ...] = ("recalibrate", "report")
"""What fits the repair, and what is reported."""
DRAWS = 100
"""Of every spectrum."""
_SEED = 0
_BATCH = 16
_EDGES = np.geomspace(3000.0, 11000.0, 49)
"""Bins of observed wavelength in which spectra are compared, Angstrom."""
_SHARE = 0.9
"""A bin is used if this share of the galaxies has it, a feature likewise if 20 have it."""
_TOP = 0.9999
"""The redshift grid reaches this quantile."""


@dataclass(frozen=True)
class _Said:
    """Answers on one galaxy's spectrum."""

    features: FloatArray
    """Shape (draw, feature)."""
    true_features: FloatArray
    """Shape (feature,)."""
    bins: FloatArray
    """Shape (draw, bin); NaN where nothing was measured."""
    true_bins: FloatArray
    """Shape (bin,)."""
    noise: float
    """Of a bin, typically, over the light of the galaxy."""
    offset: float
    """Distance of the aperture from the centre of the galaxy, arcsec."""


@dataclass
class _Gathered:
    """Answers on all galaxies so far."""

    densities: list[RedshiftDensity] = field(default_factory=list)
    z: list[float] = field(default_factory=list)
    conditions: dict[str, list[Any]] = field(default_factory=dict)
    maps: list[PitMap] = field(default_factory=list)
    for_repair: list[bool] = field(default_factory=list)
    spectra: list[_Said | None] = field(default_factory=list)


def answers(
    model: Model, dataset: Dataset, *, watch: Watch | None = None
) -> tuple[tuple[Job, ...], tuple[Repaired, ...] | None]:
    """The jobs as the network answers, and after the repair that is kept with the model.

    Args:
        model: The trained model.
        dataset: Galaxies with redshifts, and images or photometry.
        watch: Told of progress.

    Returns:
        The jobs, and the same ones after repair; None where the model keeps no repair: the jobs
        then have galaxies set aside to fit one.

    Raises:
        ValueError: Fewer than 20 galaxies with a redshift to report on.
    """
    kept = model.repair
    if kept is None:
        return held_out_jobs(model, dataset, watch=watch), None
    before = held_out_jobs(model, dataset, splits=("report",), watch=watch)
    after = held_out_jobs(model, dataset, splits=("report",), repair=True, watch=watch)
    said, source = kept.describe(), f"Kept with the model, fitted on {kept.source}."
    return before, tuple(Repaired(job, said, source) for job in after)


@torch.no_grad()
def held_out_jobs(
    model: Model,
    dataset: Dataset,
    *,
    splits: tuple[Split, ...] = SPLITS,
    repair: bool = False,
    watch: Watch | None = None,
) -> tuple[Job, ...]:
    """The answers of a model on the held-out parts of a dataset.

    Args:
        model: The trained model.
        dataset: Galaxies with redshifts, and images or photometry.
        splits: The parts to ask about; "report" must be one.
        repair: Whether the repair that is kept with the model is applied.
        watch: Told of progress.

    Returns:
        The job on the redshift, and that on spectra if at least 20 galaxies have one.

    Raises:
        ValueError: Fewer than 20 galaxies with a redshift to report on.
    """
    said = _Gathered()
    generator = np.random.default_rng(_SEED)
    for split in splits:
        usable = filter(_usable, dataset.galaxies(split))
        while batch := list(islice(usable, _BATCH)):
            fits = split == "recalibrate"
            _ask(model, batch, said, generator, for_repair=fits, repair=repair)
            if watch is not None:
                watch(len(said.z))
    reported = len(said.z) - sum(said.for_repair)
    if reported < FEWEST_GALAXIES:
        raise ValueError(
            f"Expected at least {FEWEST_GALAXIES} galaxies with a redshift and images or "
            f'photometry in the "report" part of {dataset.folder}; got {reported} of '
            f"{len(dataset)} galaxies in all. Six per cent of a dataset fall in it: use a larger "
            "one."
        )
    return tuple(_jobs(said))


def _usable(galaxy: Galaxy) -> bool:
    return galaxy.redshift is not None and bool(galaxy.images or galaxy.photometry)


def _ask(
    model: Model,
    galaxies: list[Galaxy],
    said: _Gathered,
    generator: np.random.Generator,
    *,
    for_repair: bool,
    repair: bool,
) -> None:
    """Add the answers on a batch."""
    shown = [
        replace(one, spectra=(), photometry=() if one.images else one.photometry)
        for one in galaxies
    ]
    batch = observed_batch(shown, use_redshift=False)
    density = model.network.redshift(model.network.encode(batch))
    said.densities.append(density)
    said.maps.append(joined(model.applied(batch, density, draws=DRAWS, repair=repair)))
    scale = galaxy_scale(batch).double().numpy()
    seen = {
        "magnitude": (22.5 - 2.5 * np.log10(scale)).tolist(),
        "S/N": signal_to_noise(batch).tolist(),
        "colour": [_colour(one) for one in shown],
        "bands": [_bands(one) for one in shown],
    }
    for name, values in seen.items():
        said.conditions.setdefault(name, []).extend(values)
    said.z += [float(one.redshift or 0.0) for one in galaxies]
    said.for_repair += [for_repair] * len(galaxies)
    posteriors = model.condition(shown, draws=DRAWS, seed=_SEED, repair=repair)
    for one, posterior, level in zip(galaxies, posteriors, scale.tolist(), strict=True):
        spectrum = one.spectra[0] if one.spectra and one.images else None
        said.spectra.append(
            None if spectrum is None
            else _compare(posterior, spectrum, level * SPECTRAL_UNIT, generator)
        )  # fmt: skip


def _bands(shown: Galaxy) -> str:
    """The bands that a galaxy is shown in."""
    parts = shown.images or shown.photometry
    return "".join(sorted({part.band.rpartition("-")[2] for part in parts}))


def _colour(shown: Galaxy) -> float:
    """Magnitude in the bluest band less that in the reddest, of all pixels; NaN if undefined."""
    held: Sequence[BandImage | Photometry] = shown.images or shown.photometry
    parts = sorted(held, key=lambda part: part.wavelength)
    first, last = (
        float(np.sum(np.where(np.asarray(part.ivar) > 0, part.flux, 0.0)))
        for part in (parts[0], parts[-1])
    )
    if len(parts) < 2 or min(first, last) <= 0:
        return float("nan")
    return -2.5 * float(np.log10(first / last))


def _compare(
    posterior: Posterior, spectrum: Spectrum, level: float, generator: np.random.Generator
) -> _Said:
    """Draws of what is measured, and what was, as features and as bins."""
    wavelength = np.array(spectrum.wavelength, dtype=np.float64)
    power = wavelength / np.asarray(spectrum.sigma, dtype=np.float64) / FWHM_PER_SIGMA
    drawn = posterior.spectrum(wavelength * u.AA, spectrum.aperture, resolution=power).flux.value
    ivar = np.asarray(spectrum.ivar, dtype=np.float64)
    valid = (ivar > 0) & np.isfinite(drawn).all(axis=0)
    noise = np.where(valid, 1 / np.sqrt(np.where(valid, ivar, 1.0)), 0.0)
    measured = np.where(valid, drawn, 0.0) + noise * generator.normal(size=drawn.shape)
    both = np.concatenate([measured, np.where(valid, spectrum.flux, 0.0)[None]])
    z = np.array([float(posterior.observed.z[0])])
    found = spectrum_features(both[:, None], wavelength, z=z, valid=valid[None])
    features = np.stack([values.numpy()[:, 0] for _, values in found.items()], axis=1)
    weight = np.where(valid, ivar, 0.0)
    cell = np.searchsorted(_EDGES, wavelength) - 1
    inside = np.eye(len(_EDGES) - 1)[:, np.clip(cell, 0, len(_EDGES) - 2)] * (
        (cell >= 0) & (cell < len(_EDGES) - 1)
    )
    total = inside @ weight
    empty = total == 0
    bins = (both * weight) @ inside.T / np.where(empty, 1.0, total)
    # In units of what is known without the spectrum: light and noise.
    error = np.median(1 / np.sqrt(total[~empty])) if not empty.all() else 0.0
    bins = np.where(empty, np.nan, bins / np.hypot(level, error))
    offset = float(np.hypot(spectrum.aperture.dx, spectrum.aperture.dy))
    return _Said(
        features[:-1], features[-1], bins[:-1], bins[-1], float(error / level), offset
    )  # fmt: skip


def _jobs(said: _Gathered) -> Iterator[Job]:
    for_repair = np.array(said.for_repair)
    conditions = _varied(said.conditions)
    z = np.array(said.z)
    yield Job("redshift", (_redshift(said, z),), None, conditions, for_repair)
    has = np.array([one is not None for one in said.spectra])
    spectra = [one for one in said.spectra if one is not None]
    if (has & ~for_repair).sum() < FEWEST_GALAXIES:
        return
    conditions = {name: values[has] for name, values in conditions.items()} | _varied(
        {
            "redshift": z[has],
            "arcsec from the centre": [one.offset for one in spectra],
            "noise over light": [one.noise for one in spectra],
        }
    )
    reported = ~for_repair[has]
    draws = np.stack([one.features for one in spectra], axis=1)
    truth = np.stack([one.true_features for one in spectra])
    known = np.isfinite(draws).all(axis=0) & np.isfinite(truth)
    features = tuple(
        Drawn(name, draws[:, :, index], truth[:, index])
        for index, name in enumerate(FEATURES)
        if (known[reported, index]).sum() >= FEWEST_GALAXIES
    )
    vectors = _vectors(spectra, z[has], reported)
    if features or vectors is not None:
        yield Job("spectra", features, vectors, conditions, for_repair[has])


def _varied(conditions: Mapping[str, Sequence[Any] | FloatArray]) -> dict[str, NDArray[Any]]:
    """The conditions that are not the same for all galaxies."""
    found = {name: np.array(values) for name, values in conditions.items()}
    return {name: values for name, values in found.items() if np.unique(values).size > 1}


def _redshift(said: _Gathered, z: FloatArray) -> Gridded:
    density = RedshiftDensity(
        *(
            torch.cat([getattr(part, name) for part in said.densities]).double()
            for name in ("logits", "loc", "scale")
        )
    )
    top = max(float(density.icdf(torch.tensor(_TOP)).max()), float(z.max()))
    grid = default_grid(top)
    at = torch.as_tensor(grid)[:, None]
    pdf, cdf = density.log_prob(at).exp().T.numpy(), density.cdf(at).T.numpy()
    pit_map = PitMap.joined(said.maps)
    return Gridded("redshift", pit_map.density(cdf) * pdf, grid, pit_map.cdf(cdf), z)


def _vectors(spectra: list[_Said], z: FloatArray, reported: NDArray[np.bool_]) -> Vectors | None:
    """The bins that most galaxies have; None where no 20 galaxies have them all."""
    draws = np.stack([one.bins for one in spectra], axis=1).astype(np.float32)
    truth = np.stack([one.true_bins for one in spectra])
    common = np.isfinite(truth).mean(axis=0) >= _SHARE
    if not common.any():
        return None
    centre = np.sqrt(_EDGES[1:] * _EDGES[:-1])[common]
    rest = centre / (1 + z[:, None])
    found = Vectors("spectrum", draws[:, :, common], truth[:, common], rest)
    return found if (found.whole() & reported).sum() >= FEWEST_GALAXIES else None
