"""Redshift posteriors of real galaxies and of their simulated twins.

Every real galaxy has a twin: a simulated one near it in redshift, flux and signal-to-noise, whose
spectrum is seen with the real one's pixels, resolution and signal-to-noise. What the twins give is
what the same model does where its assumptions hold, so the distance between the two is the cost of
reality. (Twins have the real sample's redshifts, not the simulation's, so that their coverage need
not be nominal.)

Axes: galaxy, spectrum, pixel, grid.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from report_set import CHUNK, Sample, exact_evidence, joined, shown
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from probmmae.batch import Batch
from probmmae.calibration.evidence import Evidence
from probmmae.galaxy import Galaxy
from probmmae.instrument import observe
from probmmae.model import GalaxyModel
from probmmae.redshift import RedshiftDensity
from probmmae.templates import load_templates
from probmmae.tokens import galaxy_scale

GRID = np.linspace(0.0, 1.5, 6001)
"""Redshifts at which densities are drawn, or weighted."""


@dataclass(frozen=True)
class Answer:
    """p(z | what is shown) of every galaxy, and the redshifts that spectroscopy gave."""

    label: str
    density: RedshiftDensity
    """Batch axis galaxy."""
    z: np.ndarray
    """Shape (galaxy,)."""

    def evidence(self) -> Evidence:
        """Scores, PIT and coverage."""
        return exact_evidence(self.label, self.density, torch.as_tensor(self.z))


@torch.no_grad()
def answer(network: GalaxyModel, batch: Batch, what: str, *, label: str) -> Answer:
    """p(z | c) of a batch."""
    parts = [
        network.redshift(network.encode(shown(batch.take(slice(start, start + CHUNK)), what)))
        for start in range(0, len(batch), CHUNK)
    ]
    return Answer(label, joined(parts), batch.z.numpy().astype(float))


def snr(batch: Batch) -> np.ndarray:
    """Median S/N a pixel of the first spectrum, at least 0.1; 1 where there is none."""
    signal = batch.spectra.flux[:, 0] * batch.spectra.ivar[:, 0].sqrt()
    missing = batch.spectra.ivar[:, 0] <= 0
    median = signal.masked_fill(missing, float("nan")).nanmedian(1).values
    return median.nan_to_num(1.0).clamp(min=0.1).numpy()


def twins(pool: Sample, batch: Batch, what: str) -> Sample:
    """A simulated galaxy for each real one, near in z, flux and, for spectra, S/N; none twice."""

    def place(of: Batch) -> np.ndarray:
        seen = shown(of, what)
        columns = [of.z.numpy() / 0.05, torch.log(galaxy_scale(seen)).numpy()]
        if what == "spectrum":
            columns.append(2 * np.log(snr(of)))
        return np.stack(columns, axis=1)

    _, nearest = linear_sum_assignment(cdist(place(batch), place(pool.batch), "sqeuclidean"))
    index = torch.as_tensor(nearest)
    return Sample(pool.batch.take(index), pool.truth.take(index))


def seen_by(near: Sample, batch: Batch, *, seed: int, same_level: bool = False) -> Batch:
    """The twins' light on the real galaxies' pixels, with their resolution and signal-to-noise.

    Args:
        near: The twins.
        batch: The real galaxies; their first spectra are taken.
        seed: Seed of the noise.
        same_level: Scale the light to the real level, not the errors to the light's.
    """
    real = batch.spectra.map(lambda part: part[:, :1])
    rest = near.truth.rest.map(lambda part: part[:, :1])
    z = near.truth.z[:, None]
    flux = observe(load_templates(), rest, z, real.wavelength, real.sigma)
    ratio = (_mean_flux(real.flux, real.ivar) / _mean_flux(flux, real.ivar)).clamp(0.01, 100)
    flux, ivar = (flux * ratio, real.ivar) if same_level else (flux, real.ivar * ratio**2)
    noise = torch.randn(flux.shape, generator=torch.Generator().manual_seed(seed))
    flux = torch.where(ivar > 0, flux + noise * ivar.clamp(min=1e-12).rsqrt(), 0 * flux)
    return replace(batch, spectra=replace(real, flux=flux, ivar=ivar), z=near.truth.z)


def _mean_flux(flux: torch.Tensor, ivar: torch.Tensor) -> torch.Tensor:
    """Mean flux weighted by ivar, last axis kept."""
    return (flux * ivar).sum(-1, keepdim=True) / ivar.sum(-1, keepdim=True).clamp(min=1e-12)


def simulated_n_of_z(pool: Sample) -> np.ndarray:
    """p(z) of the simulation on `GRID`, a histogram with bins of 0.05."""
    edges = np.arange(0.0, 1.6, 0.05)
    density, _ = np.histogram(pool.truth.z.numpy(), bins=edges, density=True)
    return density[np.searchsorted(edges, GRID, side="right") - 1]


def without_u(galaxy: Galaxy) -> Galaxy:
    """The galaxy without u, a band that the simulated surveys lack."""
    return replace(galaxy, photometry=[p for p in galaxy.photometry if p.band != "sdss-u"])
