"""The MaNGA chapter: a LOGCUBE built to the data model, a real MAPS file, the page, training."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from manga_files import SPAXELS, logcube
from simulated_cube import simulated_scene, true_cube
from tiny_model import CONFIG, tiny_checkpoint, tiny_network
from typer.testing import CliRunner

from probmmae import checkpoint
from probmmae.calibration.manga_chapter import chapter_files, extinction, judge_file
from probmmae.config import DataConfig, ObjectiveConfig, Recipe, TrainingConfig, read_recipe
from probmmae.dataset import write_shards
from probmmae.formats import read
from probmmae.inference.posterior import Model
from probmmae.spectral_maps import QUANTITIES
from probmmae.train import new_state, train

MAPS = "manga/manga-7815-3702-MAPS-HYB10-GAU-MILESHC.fits.gz"


@pytest.fixture(scope="module")
def truth():
    return true_cube(simulated_scene(60), 8, SPAXELS)


@pytest.fixture(scope="module")
def path(truth, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("manga") / "manga-1-1901-LOGCUBE.fits"
    logcube(truth).writeto(file)
    with fits.open(file) as opened:
        maps = fits.PrimaryHDU()
        maps.header["SCINPVEL"] = truth.z * 299792.458
        maps.writeto(file.parent / "manga-1-1901-MAPS-HYB10.fits")
        assert opened[0].header["PLATEIFU"] == "1-1901"
    return file


def judged(path, **asked):
    return judge_file(Model(tiny_network()), path, draws=4, every=4, **asked)


def test_a_logcube_is_a_test_by_itself(path, truth):
    one = judged(path)
    # Every fourth spaxel from the middle of 8 x 8: four, of which the corner has no data.
    assert one.maps.drawn.shape == (len(QUANTITIES), 4, 3)
    assert one.said["redshift"].startswith(f"{truth.z:.5f}, as given")
    assert "3 spaxels are worth 3" in one.said["noise"]
    assert "sdss-g" in one.said["shown"]
    place = {tuple(row) for row in np.round(one.place, 2)}
    assert place == {(0.0, -0.5), (2.0, -0.5), (0.0, -2.5)}
    known = one.maps.known[list(QUANTITIES).index("h_alpha")]
    assert np.all(np.isfinite(known))
    assert np.all(one.maps.error[list(QUANTITIES).index("h_alpha")] > 0)
    assert one.pixels is not None
    assert np.isfinite(one.pixels.pit).mean() > 0.9
    assert set(one.chi_square) >= {"h_alpha", "d4000"}
    with pytest.raises(ValueError, match="every >= 1"):
        judge_file(Model(tiny_network()), path, every=0)


def test_the_level_of_the_flux_is_fitted(path, truth, tmp_path):
    """A cube whose spectra are three times as bright as its images say; a smaller error for the
    same spectrum lets the stars' fit follow it more closely, by less than 1 %."""
    file = tmp_path / "manga-1-1901-LOGCUBE.fits"
    with fits.open(path) as opened:
        opened["FLUX"].data *= 3
        opened.writeto(file)
    once, thrice = judged(path), judged(file, redshift=truth.z)
    assert thrice.offset[1] == pytest.approx(3 * once.offset[1], rel=1e-2)
    index = list(QUANTITIES).index("continuum")
    ratio = thrice.calibrated().drawn[index] / once.calibrated().drawn[index]
    assert np.allclose(ratio, 3, rtol=1e-2)


def test_command_line(path, tmp_path):
    from probmmae.cli import app

    tiny_checkpoint(tmp_path / "model")
    out = tmp_path / "report.html"
    said = CliRunner().invoke(
        app, ["calibrate", str(tmp_path / "model"), "--manga", str(path), "-o", str(out)]
    )
    assert said.exit_code == 0, said.output
    assert "1 galaxy" in said.output
    text, numbers = out.read_text(), json.loads(out.with_suffix(".json").read_text())
    assert "data:image/png;base64," in text
    # Pictures are letters by chance: some spell anything.
    written = re.sub(r"base64,[^\"]*", "", text)
    assert "http" not in written.replace("http://www.w3.org", "")
    assert numbers["galaxies"][0]["name"] == "manga-1-1901"
    assert numbers["pixels"]
    wrong = CliRunner().invoke(app, ["calibrate", "--manga", str(tmp_path), "-o", str(out)])
    assert wrong.exit_code == 2
    assert "Expected LOGCUBE or MAPS files" in wrong.output


def test_real_maps_against_predicted_ones(shared_data):
    one = judge_file(Model(tiny_network()), shared_data / MAPS, draws=3, every=8)
    assert one.pixels is None
    assert "E(B-V) = 0.101" in one.said["Galactic dust"]
    assert one.maps.correlation is not None
    with fits.open(shared_data / MAPS) as opened:
        header, data = opened["EMLINE_GFLUX"].header, opened["EMLINE_GFLUX"].data
        channel = next(k for k in range(1, 23) if header[f"C{k:02d}"] == "Ha-6564") - 1
        sky = opened["SPX_SKYCOO"].data
    known = one.maps.known[list(QUANTITIES).index("h_alpha")]
    spaxel = int(np.nanargmax(known))
    at = np.hypot(*(sky - one.place[spaxel][:, None, None])).argmin()
    ratio = known[spaxel] / data[channel].ravel()[at]
    assert -2.5 * np.log10(ratio) == pytest.approx(2.44 * 0.101, rel=0.01)  # A(6757)/E(B-V)


def test_extinction_of_the_landmarks():
    """A(V) is 3.1 E(B-V), and A(B) one E(B-V) more (O'Donnell 1994)."""
    assert extinction(5495.0, 1.0) == pytest.approx(3.1, abs=0.02)
    assert extinction(4400.0, 1.0) == pytest.approx(4.1, abs=0.06)


def test_files_are_found_in_folders(path, tmp_path):
    assert chapter_files([path.parent]) == [path]
    with pytest.raises(ValueError, match="found none"):
        chapter_files([tmp_path])


def test_a_redshift_lies_beside_the_cube(path, truth):
    (galaxy,) = read(path)
    assert galaxy.redshift == pytest.approx(truth.z)


@pytest.mark.slow
def test_training_reads_logcubes_as_galaxies_with_many_apertures(path, tmp_path):
    """A few steps on top of a model of single central fibres; then it has seen many positions."""
    (galaxy,) = read(path)
    assert len(galaxy.spectra) == 3
    write_shards([replace(galaxy, id=f"cube-{k}") for k in range(8)], tmp_path / "shards")
    earlier = tiny_checkpoint(tmp_path / "earlier")
    recipe = Recipe(
        training=TrainingConfig(steps=2, batch=2, warmup=1, start_from=str(earlier)),
        model=CONFIG,
        objective=ObjectiveConfig(cells=1, decoded=0.05),
        data=DataConfig(shards=str(tmp_path / "shards"), workers=0),
    )
    train(recipe, tmp_path / "run")
    stored = checkpoint.read(tmp_path / "run")
    assert stored.footprint.positions == 3
    assert stored.footprint.arcsec == pytest.approx(2.5, abs=0.1)
    changed = [
        name for name, part in tiny_network().state_dict().items()
        if not torch.equal(stored.tensors[f"model.{name}"].to(part), part)
    ]  # fmt: skip
    assert changed


def test_the_recipe_goes_on_from_the_shipped_model():
    recipe = read_recipe(Path(checkpoint.__file__).parent / "recipes" / "manga.toml")
    assert recipe.training.start_from == "shipped"
    shipped = checkpoint.read(checkpoint.SHIPPED)
    assert recipe.model == shipped.recipe.model
    quick = replace(recipe, data=DataConfig())
    assert new_state(quick).footprint.joint
