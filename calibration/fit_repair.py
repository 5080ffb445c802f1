"""Fit a model's repair: what it says of galaxies that it never saw, against what is true of them.

From a network and galaxies whose redshift, and perhaps whose noise-free spectrum, is known to a
`Repair` (`inference/repair.py`). Every galaxy is shown in each kind of evidence that it has, parts
of it hidden as in training, and asked for its redshift; some are asked for their spectrum at the
known redshift, too. What does not help on galaxies that it was not fitted on is left out
(`worth.py`), and the repair says so.

Axes: draw, galaxy, pixel.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from probmmae.batch import Batch
from probmmae.calibration.pit import pit_from_draws
from probmmae.calibration.recalibrate_local import LEAST_GALAXIES, fit_local
from probmmae.calibration.worth import (
    NO_HELP,
    continuum_scale_that_helps,
    law_helps,
    said_of,
)
from probmmae.checkpoint import Stored
from probmmae.collate import collate
from probmmae.dataset import Dataset
from probmmae.galaxy import FWHM_PER_SIGMA
from probmmae.inference.amortized import draw, spectra_at
from probmmae.inference.levels import continuum, level
from probmmae.inference.pit_law import LocalRecalibration
from probmmae.inference.redshifts import exact
from probmmae.inference.repair import (
    BIN_WAVELENGTH,
    BINS,
    REFERENCE,
    REFERENCE_RESOLUTION,
    Repair,
    SpectrumRepair,
    redshift_from,
    spectra_from,
)
from probmmae.inference.shown import covariates, kinds, signal_to_noise_near, spectrum_covariates
from probmmae.instrument import covered, observe
from probmmae.masking import Task, observe_part
from probmmae.model import GalaxyModel
from probmmae.redshift import RedshiftDensity
from probmmae.simulator.stream import BLOCK, simulate_block
from probmmae.templates import load_templates

FloatArray = NDArray[np.float64]
Watch = Callable[[int], None]
"""Told the number of galaxies done."""

SHOWN = {
    "image": (Task("image", 1.0, "all", "none", "none"),),
    "photometry": (Task("photometry", 1.0, "none", "all", "none"),),
    "spectrum": (
        Task("whole spectrum", 0.4, "none", "none", "first"),
        Task("pieces of a spectrum", 0.4, "none", "none", "random first"),
        Task("spectrum with a hole", 0.2, "none", "none", "chunk"),
    ),
    "mixture": (
        Task("image and photometry", 0.4, "all", "all", "none"),
        Task("image and spectrum", 0.4, "all", "none", "first"),
        Task("everything", 0.2, "all", "all", "first"),
    ),
}
"""What is left visible for each kind of evidence."""
SPECTRA = 1024
"""Galaxies of each kind that are asked for their spectrum, which costs ten times a redshift."""
DRAWS = 64
"""Of each spectrum."""
LEAST_SPECTRA = 100
"""With fewer of a kind spectra are left as they are."""
_CHUNK = 8
"""Galaxies whose spectra are drawn at a time."""


@dataclass(frozen=True)
class Held:
    """Galaxies that the model never saw."""

    batch: Batch
    """All that was measured of them; those without a known redshift are not used."""
    spectra: Float[Tensor, "galaxy pixel"] | None
    """Noise-free spectra through their first aperture on `REFERENCE`, 1e-17 erg/s/cm2/Angstrom,
    where they are known."""


@dataclass
class _Answers:
    """What was said so far of galaxies shown in one kind of evidence."""

    pit: list[FloatArray] = field(default_factory=list)
    told: list[dict[str, FloatArray]] = field(default_factory=list)
    continua: list[FloatArray] = field(default_factory=list)
    true_continua: list[FloatArray] = field(default_factory=list)
    rest: list[FloatArray] = field(default_factory=list)
    near: list[FloatArray] = field(default_factory=list)
    told_of_spectra: list[dict[str, FloatArray]] = field(default_factory=list)

    @property
    def spectra(self) -> int:
        """Galaxies that were asked for their spectrum."""
        return len(self.true_continua)


@torch.no_grad()
def fit_repair(
    network: GalaxyModel,
    held: Iterable[Held],
    *,
    weights: str,
    source: str,
    seed: int = 0,
    watch: Watch | None = None,
) -> Repair:
    """Fit what can be fitted: kinds of evidence with too few galaxies are left out.

    Args:
        network: The trained network.
        held: Galaxies that it never saw, in blocks.
        weights: SHA-256 of its weights.
        source: What the galaxies are, in a few words for metadata; kept in ASCII.
        seed: Of what is hidden, of the draws, landmarks and folds.
        watch: Told of progress.

    Raises:
        ValueError: No kind of evidence has enough galaxies (300 for redshifts, 100 for spectra).
    """
    generator = torch.Generator().manual_seed(seed)
    answers = {kind: _Answers() for kind in SHOWN}
    done = 0
    for block in held:
        for kind, tasks in SHOWN.items():
            _ask(network, block, kind, tasks, answers[kind], generator)
        done += len(block.batch)
        if watch is not None:
            watch(done)
    rng = np.random.default_rng(seed)
    redshift: dict[str, LocalRecalibration] = {}
    spectrum: dict[str, SpectrumRepair] = {}
    left_out: dict[str, str] = {}
    for kind, one in answers.items():
        law, stretch = _law(one, rng), _stretch(one, rng)
        if isinstance(law, str):
            left_out[redshift_from(kind)] = law
        elif law is not None:
            redshift[kind] = law
        if isinstance(stretch, str):
            left_out[spectra_from(kind)] = stretch
        elif stretch is not None:
            spectrum[kind] = stretch
    if not redshift and not spectrum and not left_out:
        raise ValueError(
            f"Expected at least {LEAST_GALAXIES} galaxies with a redshift and one kind of "
            f"evidence; got {done} galaxies. Hold out more."
        )
    said = source.encode("ascii", "replace").decode()
    return Repair(redshift, spectrum, left_out, weights, said)


def simulated_galaxies(galaxies: int, seed: int) -> Iterator[Held]:
    """Simulated galaxies and their noise-free spectra, whole blocks of them.

    Args:
        galaxies: How many, rounded up to whole blocks.
        seed: Of the stream.
    """
    for number in range(-(-galaxies // BLOCK)):
        batch, truth = simulate_block(seed, number)
        wavelength, sigma = _grid(len(batch))
        rest = truth.rest.map(lambda part: part[:, 0])
        yield Held(batch, observe(load_templates(), rest, truth.z, wavelength, sigma))


def stored_galaxies(dataset: Dataset) -> Iterator[Held]:
    """The part "recalibrate" of a dataset; its spectra are measured, so none is noise-free."""
    source = dataset.galaxies("recalibrate")
    while galaxies := list(islice(source, BLOCK)):
        yield Held(collate(galaxies), None)


def check_seed(stored: Stored, seed: int) -> None:
    """Refuse the streams that a model was trained on.

    Raises:
        ValueError: The seed is that of a stage of training.
    """
    stages = [stored.recipe.to_dict(), *(one["recipe"] for one in stored.info.get("stages", ()))]
    used = sorted({int(one["training"]["seed"]) for one in stages})
    if seed in used:
        raise ValueError(
            f"Expected a seed of galaxies that the model never saw; got {seed}, and it was "
            f"trained on {', '.join(map(str, used))}. Take another."
        )


def _ask(
    network: GalaxyModel,
    block: Held,
    kind: str,
    tasks: tuple[Task, ...],
    answers: _Answers,
    generator: torch.Generator,
) -> None:
    """Add what is said of the galaxies that have this kind of evidence."""
    shown = observe_part(block.batch, generator, tasks)
    rows = shown.z_known & torch.tensor([found == kind for found in kinds(shown)])
    if not bool(rows.any()):
        return
    shown = shown.take(rows)
    density = network.redshift(network.encode(shown))
    answers.pit.append(exact(density).cdf(shown.z.double()).numpy())
    answers.told.append(covariates(shown, density))
    if block.spectra is None or answers.spectra >= SPECTRA:
        return
    truth = block.spectra[rows].double().numpy()
    for start in range(0, len(shown), _CHUNK):
        part = slice(start, start + _CHUNK)
        some = shown.take(part)
        draws = drawn_spectra(network, some, generator, draws=DRAWS)
        for row in range(len(some)):
            both = np.concatenate([draws[:, row], truth[part][row][None]])
            continua = continuum(both, BINS)
            answers.continua.append(continua[:-1])
            answers.true_continua.append(continua[-1])
        answers.rest.append(BIN_WAVELENGTH / (1 + some.z[:, None].double().numpy()))
        answers.near.append(signal_to_noise_near(some, BIN_WAVELENGTH))
        answers.told_of_spectra.append(spectrum_covariates(some))


def drawn_spectra(
    network: GalaxyModel, shown: Batch, generator: torch.Generator, *, draws: int
) -> NDArray[np.float32]:
    """Spectra through the first aperture at the known redshifts, on `REFERENCE`.

    Args:
        network: The trained network.
        shown: What it is conditioned on.
        generator: Source of randomness.
        draws: Of each galaxy.

    Returns:
        1e-17 erg/s/cm2/Angstrom, shape (draw, galaxy, pixel); NaN where no template reaches.
    """
    context, z = network.encode(shown), shown.z
    spike = RedshiftDensity(
        torch.zeros(len(z), 1), torch.log1p(z)[:, None], torch.full((len(z), 1), 1e-5)
    )
    made = draw(network, spike, z, shown.z_known, draws, generator)
    wavelength, sigma = (part[:, None] for part in _grid(len(z)))
    where = shown.spectra.aperture[:, :1]
    flux = spectra_at(network, context, shown, made, where, wavelength, sigma)[:, :, 0]
    inside = covered(network.templates, made.z, wavelength.expand(flux.shape))
    return torch.where(inside, flux, torch.nan).transpose(0, 1).numpy()


def _grid(galaxies: int) -> tuple[Tensor, Tensor]:
    """Wavelengths and line-spread widths of the reference grid, shape (galaxy, pixel) each."""
    wavelength = torch.tensor(REFERENCE, dtype=torch.float32).expand(galaxies, -1).contiguous()
    return wavelength, wavelength / REFERENCE_RESOLUTION / FWHM_PER_SIGMA


def _law(answers: _Answers, generator: np.random.Generator) -> LocalRecalibration | str | None:
    """The law of a redshift's PIT; why it is left out; None where galaxies are too few."""
    if sum(map(len, answers.pit)) < LEAST_GALAXIES:
        return None
    law = fit_local(np.concatenate(answers.pit), _columns(answers.told), generator=generator)
    return law if law_helps(law) else f"{NO_HELP} ({said_of(law)})"


def _stretch(answers: _Answers, generator: np.random.Generator) -> SpectrumRepair | str | None:
    """What is done to spectra; why they are left as they are; None where galaxies are too few."""
    if answers.spectra < LEAST_SPECTRA:
        return None
    continua, truth = np.stack(answers.continua, axis=1), np.stack(answers.true_continua)
    told = _columns(answers.told_of_spectra)
    rest, snr = np.concatenate(answers.rest), np.concatenate(answers.near)
    scale, gain = continuum_scale_that_helps(
        continua, truth, rest_wavelength=rest, snr=snr, generator=generator
    )
    if scale is not None:
        continua = scale.apply(continua, rest_wavelength=rest, snr=snr)
    both = np.concatenate([continua, truth[None]])
    levels = np.stack([level(both[:, row]) for row in range(len(truth))], axis=1)
    law, of_level = None, "too few galaxies for a law"
    if len(truth) >= LEAST_GALAXIES:
        pit = pit_from_draws(levels[:-1], levels[-1], generator=generator)
        found = fit_local(pit, told, generator=generator)
        law, of_level = found if law_helps(found) else None, said_of(found)
    if law is None and scale is None:
        return f"{NO_HELP} (continuum: {gain}; level: {of_level})"
    return SpectrumRepair(scale, law, len(truth))


def _columns(parts: list[dict[str, FloatArray]]) -> dict[str, FloatArray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
