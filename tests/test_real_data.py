"""Real galaxies as the benchmarks read them, and the judging of hidden pixels on known answers."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from probmmae.batch import NANOMAGGIE_FLAMBDA, Batch, Images, PhotometryTable, Spectra
from probmmae.collate import collate

DATA = Path(__file__).parents[1].parent / "shared" / "data"
present = pytest.mark.skipif(not DATA.is_dir(), reason="the real data are not at ../shared/data")


@pytest.fixture(scope="module")
def jobs() -> Iterator[SimpleNamespace]:
    """The benchmarks' modules, which are scripts beside the package."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import real_answers
        import real_diagnosis
        import real_hidden
        import real_set

        yield SimpleNamespace(
            set=real_set, hidden=real_hidden, answers=real_answers, diagnosis=real_diagnosis
        )
    finally:
        sys.path.remove(folder)


def spectra_of(flux: np.ndarray, ivar: np.ndarray) -> Batch:
    """A batch of spectra alone."""
    rows, pixels = flux.shape
    wavelength = torch.linspace(4000, 9000, pixels).expand(rows, 1, pixels)
    empty = torch.zeros(rows, 1, 8, 8)
    one = torch.ones(rows, 1)
    spectra = Spectra(
        wavelength=wavelength,
        flux=torch.as_tensor(flux, dtype=torch.float32)[:, None],
        ivar=torch.as_tensor(ivar, dtype=torch.float32)[:, None],
        sigma=torch.ones(rows, 1, pixels),
        aperture=torch.tensor([0.0, 0.0, 2.0, 1.5]).expand(rows, 1, 4),
    )
    images = Images(empty, empty, 6000 * one, one, one[:, 0] / 4, torch.zeros(rows, 2))
    table = PhotometryTable(0 * one, 0 * one, 6000 * one)
    return Batch(images, table, spectra, torch.full((rows,), 0.2), torch.ones(rows) > 0)


def test_straight_line_baseline_recovers_a_straight_line(jobs: SimpleNamespace) -> None:
    flux = np.linspace(1.0, 3.0, 1280)[None]
    ivar = np.ones_like(flux)
    ivar[:, 400:700] = 0
    line, width = jobs.hidden.interpolate(spectra_of(flux, ivar))
    inner = slice(64, -64)
    # Pieces that the hole cuts have their middle moved with their mean: the line stays a line.
    assert np.abs(line - flux)[:, inner].max() < 1e-3
    assert width[0] < 0.2


@pytest.mark.parametrize(("narrowed", "low", "high"), [(1.0, 0.87, 0.93), (0.4, 0.0, 0.7)])
def test_judged_pixels_are_covered_when_draws_and_noise_are_right(
    jobs: SimpleNamespace, narrowed: float, low: float, high: float
) -> None:
    """8,000 independent pixels: 0.9 +- 0.0034, so 0.03 is nearly nine deviations."""
    chance = np.random.default_rng(3)
    shape = (20, 1200)
    truth = 5 + chance.standard_normal(shape)
    ivar = np.full(shape, 4.0)
    batch = spectra_of(truth + 0.5 * chance.standard_normal(shape), ivar)
    draws = 5 + narrowed * chance.standard_normal((50, *shape))
    # Too little noise, like too narrow draws, is what a reader of these numbers has to see.
    told = batch if narrowed == 1 else spectra_of(batch.spectra.flux[:, 0].numpy(), ivar * 9)
    hidden = jobs.hidden.judge(told, draws, np.ones(shape, dtype=bool), chance)
    inside = np.abs(hidden.pit - 0.5) < 0.45
    assert low < inside.mean() < high


def test_free_polynomial_takes_smooth_misfit_away(jobs: SimpleNamespace) -> None:
    chance = np.random.default_rng(5)
    rest = np.linspace(3500, 7500, 900)[None].repeat(3, 0)
    error = np.full_like(rest, 0.1)
    residual = 0.1 * chance.standard_normal(rest.shape) + 0.5 * (rest - 5500) / 2000
    hidden = jobs.hidden.Hidden(
        rest, rest, (residual / error) ** 2, rest, residual=residual, error=error
    )
    assert hidden.chi2.mean() > 5
    assert abs(jobs.diagnosis.smoothed_chi2(hidden, degree=3).mean() - 1) < 0.15


@present
def test_boss_galaxies_have_spectra_photometry_and_redshift(jobs: SimpleNamespace) -> None:
    galaxies = jobs.set.boss(DATA)
    inside, outside = jobs.set.split_by_reach(galaxies)
    assert len(galaxies) == 124
    assert len(inside) + len(outside) == 124
    assert all(0.01 < galaxy.redshift < 0.65 for galaxy in inside)
    batch = collate(inside[:4])
    good = batch.spectra.ivar[:, 0] > 0
    assert bool((good.float().mean(1) > 0.5).all())
    resolution = batch.spectra.wavelength / batch.spectra.sigma / 2.3548
    assert 1500 < float(resolution[:, 0][good].median()) < 2600
    # The level at r through the fibre is below the galaxy's total flux, and of its order.
    wavelength = batch.spectra.wavelength[:, 0]
    window = good & (wavelength > 5600) & (wavelength < 6800)
    fibre = (batch.spectra.flux[:, 0] * window).sum(1) / window.sum(1)
    total = batch.photometry.flux[:, 2] * NANOMAGGIE_FLAMBDA / 6206.0**2
    ratio = (fibre / total).numpy()
    assert np.all((ratio > 0.03) & (ratio < 1.1))


@present
def test_hst_noise_is_that_of_binned_corners(jobs: SimpleNamespace) -> None:
    galaxies = jobs.set.triples(DATA)
    assert len(galaxies) == 27
    batch = collate(galaxies[:3])
    corner = batch.images.flux[:, 0, 5:13, 5:13] * batch.images.ivar[:, 0, 5:13, 5:13].sqrt()
    spread = 1.4826 * (corner - corner.flatten(1).median(1).values[:, None, None]).abs()
    assert 0.5 < float(spread.flatten(1).median(1).values.median()) < 2.0
