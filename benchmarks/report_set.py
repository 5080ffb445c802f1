"""Held-out simulated galaxies, and what is shown of them: shared by the parts of the main job.

Training draws from seeds 1, 21, 31, 41 and 51; a galaxy's identity is (seed, block, row), so other
seeds are other galaxies: 2 tunes and gives residuals of the baselines, 3 is kept for
recalibration, 4 is reported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from probmmae.batch import Batch, Spectra
from probmmae.calibration.evidence import Evidence, quantile_evidence
from probmmae.calibration.fit_repair import SHOWN
from probmmae.inference.redshifts import exact
from probmmae.instrument import observe
from probmmae.masking import Task, hide, observe_part
from probmmae.model import GalaxyModel
from probmmae.redshift import RedshiftDensity
from probmmae.simulator import simulate, simulate_block
from probmmae.simulator.stream import BLOCK
from probmmae.simulator.survey import Truth
from probmmae.templates import load_templates
from probmmae.tokens import PIECE

TRAIN_SEED, TUNE_SEED, RECALIBRATE_SEED, REPORT_SEED = 1, 2, 3, 4
GRID = 3650.0 * torch.exp(torch.arange(4600, dtype=torch.float32) * 2.302585e-4)
"""Wavelengths on which spectra are compared: SDSS-like, 3650-10500 Angstrom."""
RESOLUTION = 2000.0
GRID = GRID[GRID < 10350.0]
CHUNK = 64
_QUANTILES = 400


@dataclass(frozen=True)
class Sample:
    """Galaxies with their truth."""

    batch: Batch
    truth: Truth

    def chunks(self, size: int = CHUNK) -> Iterator["Sample"]:
        """Pieces of `size` galaxies."""
        for start in range(0, len(self.batch), size):
            part = slice(start, start + size)
            yield Sample(self.batch.take(part), self.truth.take(part))


def sample(galaxies: int, seed: int, *, spectra: bool = True) -> Sample:
    """Simulated galaxies of a seed.

    Args:
        galaxies: How many.
        seed: Decides which.
        spectra: Whether to keep the native spectra; without them only their apertures stay, which
            takes a tenth of the memory.
    """
    if spectra:
        return Sample(*simulate(galaxies, seed))
    blocks = [_without_spectra(*simulate_block(seed, k)) for k in range(-(-galaxies // BLOCK))]
    batches, truths = zip(*blocks, strict=True)
    batch, truth = batches[0].join(batches[1:]), truths[0].join(truths[1:])
    return Sample(batch.take(slice(0, galaxies)), truth.take(slice(0, galaxies)))


def _without_spectra(batch: Batch, truth: Truth) -> tuple[Batch, Truth]:
    def cut(table: Spectra) -> Spectra:
        return table.map(lambda part: part[..., :PIECE].clone())

    short = replace(
        truth, deep=cut(truth.deep), spectrum_flux=truth.spectrum_flux[..., :PIECE].clone()
    )
    return replace(batch, spectra=cut(batch.spectra)), short


def shown(batch: Batch, what: str) -> Batch:
    """The batch with only images, photometry, spectrum (the first), pieces (a quarter) or mixture.

    A mixture is an image and a spectrum, an image and photometry, or all that there is.
    """
    if what == "mixture":
        return observe_part(batch, torch.Generator().manual_seed(7), SHOWN[what])
    on, off = torch.ones((), dtype=torch.bool), torch.zeros((), dtype=torch.bool)
    if what == "pieces":
        generator = torch.Generator().manual_seed(5)
        task = Task("masked spectrum", 1.0, "none", "none", "random first")
        return observe_part(batch, generator, (task,))
    first = torch.zeros(1, batch.spectra.flux.shape[1], 1, dtype=torch.bool)
    first[:, 0] = what == "spectrum"
    return hide(
        batch,
        images=on if what == "image" else off,
        photometry=on if what == "photometry" else off,
        spectra=first,
    )


@torch.no_grad()
def densities(network: GalaxyModel, sample: Sample, what: str) -> RedshiftDensity:
    """p(z | what is shown) of every galaxy."""
    return joined(
        [network.redshift(network.encode(shown(one.batch, what))) for one in sample.chunks()]
    )


def joined(parts: Sequence[RedshiftDensity]) -> RedshiftDensity:
    """The densities of several batches in one."""
    return RedshiftDensity(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.loc for part in parts]),
        torch.cat([part.scale for part in parts]),
    )


@torch.no_grad()
def exact_evidence(label: str, density: RedshiftDensity, truth: Tensor) -> Evidence:
    """Evidence on exact densities, however narrow; `truth` of shape (galaxy,)."""
    known, true = exact(density), truth.double()
    level = ((torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES)[:, None]
    quantiles = known.icdf(level)
    return quantile_evidence(
        label,
        quantiles.numpy(),
        density=known.log_prob(quantiles).exp().numpy(),
        pit=known.cdf(true).numpy(),
        log_density=known.log_prob(true).numpy(),
        truth=true.numpy(),
        generator=np.random.default_rng(0),
    )


@torch.no_grad()
def on_grid(density: RedshiftDensity, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Density and CDF of every galaxy on a redshift grid, shape (galaxy, grid)."""
    at = torch.as_tensor(grid, dtype=torch.float32)[:, None]
    return density.log_prob(at).exp().T.numpy(), density.cdf(at).T.numpy()


def true_spectra(sample: Sample, slot: int = 0) -> np.ndarray:
    """Noise-free spectra through aperture `slot` on `GRID`, shape (galaxy, pixel)."""
    rest = sample.truth.rest.map(lambda part: part[:, slot])
    count = len(sample.batch)
    wavelength = GRID.expand(count, -1).contiguous()
    sigma = wavelength / RESOLUTION / 2.3548
    return observe(load_templates(), rest, sample.truth.z, wavelength, sigma).numpy()


def aperture_snr(sample: Sample, slot: int = 0) -> np.ndarray:
    """Median S/N per pixel of the simulated spectrum of aperture `slot`."""
    ivar = sample.batch.spectra.ivar[:, slot]
    signal = sample.truth.spectrum_flux[:, slot] * ivar.sqrt()
    signal = torch.where(ivar > 0, signal, torch.full_like(signal, float("nan")))
    return signal.nanmedian(1).values.numpy()
