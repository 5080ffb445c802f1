"""Where on galaxies the apertures of training lay: measured, recorded, and held against a cube."""

import json
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from tiny_model import some_galaxy, some_spectrum, tiny_checkpoint, tiny_network

from probmmae.config import DataConfig, Recipe, TrainingConfig
from probmmae.dataset import write_shards
from probmmae.footprint import Footprint, half_light_radius, measured
from probmmae.galaxy import BandImage, Galaxy
from probmmae.inference.cube import cube
from probmmae.inference.cube_fits import EXTRAPOLATED, write_cube
from probmmae.inference.posterior import Model, load
from probmmae.simulator.stream import simulate
from probmmae.simulator.survey import SurveySettings
from probmmae.sources import footprint
from probmmae.spaxels import square
from probmmae.unbatch import unbatch

GRID = np.arange(3700, 7600, 5.0) * u.AA


def recipe(**data) -> Recipe:
    return Recipe(training=TrainingConfig(steps=1), data=DataConfig(**data))


def blob(width: float, *, fwhm: float, scale: float = 0.3) -> Galaxy:
    y, x = np.mgrid[:48, :48] - 23.5
    total = width**2 + (fwhm / 2.3548) ** 2
    flux = np.exp(-0.5 * (x**2 + y**2) * scale**2 / total)
    image = BandImage.in_batch_units(
        "hsc-r", flux, ivar=np.ones(flux.shape), pixel_scale=scale, psf_fwhm=fwhm
    )
    return Galaxy("blob", images=(image,))


def test_half_light_radius_of_a_gaussian():
    assert half_light_radius(blob(1.5, fwhm=1.0)) == pytest.approx(1.1774 * 1.5, rel=0.08)
    assert half_light_radius(blob(0.02, fwhm=1.6, scale=0.5)) == pytest.approx(0.4)
    assert half_light_radius(replace(blob(1.0, fwhm=1.0), images=())) is None


@pytest.fixture(scope="module")
def simulated():
    return simulate(64, seed=11, settings=SurveySettings(pixel_scale=(0.4, 0.5)))


def test_half_light_radii_of_simulated_galaxies_are_near_their_nominal_ones(simulated):
    """Median ratio, of galaxies that their frames hold; nominal radii are of mass, along the
    major axis, so that light in circles is a little closer to the centre."""
    batch, truth = simulated
    true = truth.r_eff.numpy()
    found = [half_light_radius(each) for each in unbatch(batch, [str(k) for k in range(64)])]
    use = [k for k in range(64) if found[k] is not None and 1.0 < true[k] < 4.0]
    ratio = np.array([found[k] / true[k] for k in use])
    assert len(use) > 15
    assert 0.6 < np.median(ratio) < 1.2


def test_footprint_of_the_simulator_is_its_law(simulated):
    """No aperture of 64 galaxies lies beyond it, and some lie near its edge."""
    seen = footprint(recipe(spectra=2))
    assert seen == Footprint(arcsec=12.0, radii=2.0, positions=2)
    batch, truth = simulated
    place = batch.spectra.aperture[..., :2].norm(dim=-1)
    assert float(place.max()) < seen.arcsec
    relative = (place / truth.r_eff.clamp(0.4, 6.0)[:, None]).max()
    assert 0.95 * seen.radii < float(relative) < seen.radii
    assert not footprint(recipe(spectra=1)).joint


def test_footprint_of_a_dataset_is_measured(tmp_path):
    central = [replace(some_galaxy(f"c{k}"), spectra=(some_spectrum(dx=0.01),)) for k in range(40)]
    write_shards(central, tmp_path / "central")
    seen = footprint(recipe(shards=str(tmp_path / "central")))
    assert seen.arcsec == pytest.approx(0.01, abs=1e-3)
    assert seen.radii < 0.02
    assert not seen.joint
    twice = (some_spectrum(dx=-2.0), some_spectrum(dx=3.0), some_spectrum(dx=3.2))
    assert measured([replace(some_galaxy(), spectra=twice)]).positions == 2
    assert measured([replace(some_galaxy(), spectra=())]) is None


def test_what_two_stages_have_seen():
    fibres, cubes = Footprint(0.03, None, 1), Footprint(12.0, 2.5, 30)
    assert fibres.joined(cubes) == cubes.joined(fibres) == Footprint(12.0, 2.5, 30)
    assert fibres.joined(None) == fibres
    assert Footprint.from_dict(json.loads(json.dumps(cubes.to_dict()))) == cubes
    with pytest.raises(ValueError, match="Expected a footprint with arcsec"):
        Footprint.from_dict({"arcsec": 1.0})


def test_a_cube_marks_what_lies_beyond_and_says_what_is_not_claimed(tmp_path):
    """Of a model of central fibres all spaxels further out than half an aperture are marked."""
    galaxy = replace(some_galaxy(z=0.05), ra=150 * u.deg, dec=2 * u.deg)
    spaxels = square(5, side=1 * u.arcsec, psf_fwhm=1.5 * u.arcsec)
    central = Model(tiny_network(), footprint=Footprint(0.03, None, 1))
    with pytest.warns(UserWarning, match="further out than the model has learned"):
        answer = cube(central.condition(galaxy, draws=2), spaxels, GRID)
    away = np.hypot(*spaxels.aperture[:, :2].T)
    assert np.array_equal(answer.extrapolated, away > 0.03 + spaxels.aperture[:, 2] / 2)
    assert 0 < answer.extrapolated.sum() < len(spaxels)
    assert "not seen two positions" in answer.jointly
    write_cube(answer, tmp_path / "cube.fits")
    with fits.open(tmp_path / "cube.fits") as opened:
        header, bits = opened[0].header, opened["MASK"].data[100]
        assert header["JOINT"] is False
        assert header["NEXTRAP"] == answer.extrapolated.sum()
        assert "joint calibration is not claimed" in str(header["COMMENT"]).replace("\n", "")
        marked = spaxels.grid.image(answer.extrapolated.astype(float)) == 1
        assert np.array_equal(bits & EXTRAPOLATED > 0, marked)
    scattered = Model(tiny_network(), footprint=Footprint(12.0, 20.0, 2))
    near = cube(scattered.condition(galaxy, draws=2), square(3, side=1 * u.arcsec), GRID)
    assert not near.extrapolated.any()
    assert "two or more" in near.jointly
    unknown = cube(Model(tiny_network()).condition(galaxy, draws=2), square(1), GRID)
    assert "not recorded" in unknown.jointly


def test_a_checkpoint_carries_it(tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    assert load(folder).footprint is None
    content = json.loads((folder / "checkpoint.json").read_text())
    content["footprint"] = Footprint(12.0, 2.0, 2).to_dict()
    (folder / "checkpoint.json").write_text(json.dumps(content))
    assert load(folder).footprint == Footprint(12.0, 2.0, 2)
