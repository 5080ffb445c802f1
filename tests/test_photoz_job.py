"""The benchmark of catalogues: answers on the same galaxies become figures, goals and failures."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from probmmae.batch import PhotometryTable
from probmmae.photometric.sample import Bands, Sample

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from photoz_job import Split, figures_of, lowest_loss, magnitudes

GALAXIES = 600


def sample(seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    flux = torch.tensor(rng.uniform(1, 50, (GALAXIES, 2)), dtype=torch.float32)
    wavelength = torch.tensor([7500.0, 4700.0]).expand_as(flux)
    table = PhotometryTable(flux, torch.full_like(flux, 4.0), wavelength)
    z = torch.tensor(rng.uniform(0.2, 0.8, GALAXIES), dtype=torch.float32)
    return Sample(Bands(("sdss-i", "sdss-g"), (7500.0, 4700.0)), table, z, rng.random(GALAXIES))


@pytest.fixture(scope="module")
def split() -> Split:
    return Split("hdfn", sample(0), sample(1))


def keep(split: Split, file: Path, scatter: float, width: float, cpu: float) -> None:
    """Gaussian answers whose centres scatter around the truth by `scatter`."""
    truth = split.test.z.double().numpy()
    centre = truth + scatter * np.random.default_rng(2).normal(size=len(truth))
    pdf = np.exp(-0.5 * ((split.grid - centre[:, None]) / width) ** 2)
    pdf /= np.trapezoid(pdf, split.grid, axis=1)[:, None]
    np.savez(file, pdf=pdf.astype(np.float32), cpu=cpu)


def test_answers_become_figures(split: Split, tmp_path: Path) -> None:
    keep(split, tmp_path / "probmmae.npz", 0.02, 0.02, 30.0)
    keep(split, tmp_path / "FlexZBoost.npz", 0.04, 0.04, 20.0)
    keep(split, tmp_path / "GPz.npz", 0.03, 0.01, 20.0)
    np.savez(tmp_path / "PZFlow.npz", failed="ValueError: no")
    named = {one["name"]: one for one in figures_of(split, tmp_path)}
    met = {name: one["met"] for name, one in named.items() if one["goal"]}
    ours = "hdfn, probmmae: "
    assert met.pop(f"{ours}CPU seconds of training and answering") is False
    assert met == dict.fromkeys(met, True)
    assert len(met) == 9
    assert all(name.startswith(ours) for name in met)
    assert named["hdfn, PZFlow: no answer (ValueError: no)"]["value"] is None
    assert "hdfn, Cal-PIT: no answer (not asked)" in named
    # Widths that are three times too small are seen.
    assert named["hdfn, GPz: PIT KS distance"]["value"] > 0.1
    assert named["hdfn, GPz: coverage of 90 % intervals"]["value"] < 0.6
    assert lowest_loss(split, tmp_path) == "FlexZBoost"


def test_alone_only_calibration_is_a_goal(split: Split, tmp_path: Path) -> None:
    keep(split, tmp_path / "probmmae.npz", 0.02, 0.02, 30.0)
    goals = [one["name"] for one in figures_of(split, tmp_path) if one["goal"]]
    assert len(goals) == 5
    assert all("PIT" in name or "coverage" in name for name in goals)
    with pytest.raises(ValueError, match="Run another first"):
        lowest_loss(split, tmp_path)


def test_peers_read_magnitudes(split: Split) -> None:
    told = magnitudes(split.train)
    flux = split.train.table.flux.double().numpy()
    np.testing.assert_allclose(told["mag"], 22.5 - 2.5 * np.log10(flux), rtol=1e-6)
    assert told["bands"] == "AB"
