"""Grids, bundles and lists of apertures."""

import astropy.units as u
import numpy as np
import pytest
import torch
from simulated_cube import simulated_scene

from probmmae.continuum import continuum_level
from probmmae.galaxy import Aperture
from probmmae.simulator.rendering import collect, collect_square
from probmmae.spaxels import equivalent_aperture, hexagon, of_apertures, square
from probmmae.templates import load_templates


def test_square_grid_has_the_galaxy_in_its_middle_spaxel_and_east_on_the_left():
    spaxels = square((4, 5), side=2 * u.arcsec)
    dx = spaxels.grid.image(spaxels.aperture[:, 0])
    dy = spaxels.grid.image(spaxels.aperture[:, 1])
    assert dx.shape == (4, 5)
    assert dx[0].tolist() == [4, 2, 0, -2, -4]
    assert dy[:, 0].tolist() == [-4, -2, 0, 2]


@pytest.mark.parametrize("fibres", [19, 37, 61, 91, 127])
def test_bundle_covers_the_area_of_a_hexagon_and_fits_its_frame(fibres):
    spaxels = hexagon(fibres)
    reach = 2.5 * np.sqrt((4 * fibres - 1) / 3) / 2  # corner to corner of 3 n (n + 1) + 1 fibres
    area = 1.5 * np.sqrt(3) * reach**2
    assert len(spaxels) * 0.25 == pytest.approx(area, rel=0.05)
    covered = spaxels.grid.covered
    assert not covered[[0, -1]].any()
    assert not covered[:, [0, -1]].any()


def test_image_puts_spaxels_back_and_leaves_the_rest_nan():
    spaxels = hexagon(19)
    image = spaxels.grid.image(np.ones((2, len(spaxels))))
    assert image.shape == (2, *spaxels.grid.shape)
    assert np.array_equal(np.isfinite(image[0]), spaxels.grid.covered)


@pytest.mark.parametrize(("side", "fwhm"), [(0.5, 2.5), (0.2, 0.8), (1.0, 1.0)])
def test_equivalent_aperture_blurs_as_much(side, fwhm):
    diameter, seeing, share = equivalent_aperture(side, fwhm)
    asked = side**2 / 12 + (fwhm / 2.354820045) ** 2
    assert diameter**2 / 16 + (seeing / 2.354820045) ** 2 == pytest.approx(asked, rel=1e-6)
    assert share == pytest.approx(side**2 / (np.pi * diameter**2 / 4))


def test_spaxels_hold_the_light_of_their_apertures_to_6_percent():
    scene = simulated_scene(16, seed=3)
    spaxels = square(15, side=0.5 * u.arcsec, psf_fwhm=2.5 * u.arcsec)
    aperture = torch.tensor(spaxels.aperture).float().expand(16, -1, -1)
    seeing = torch.full(aperture.shape[:2], 2.5)
    level = continuum_level(load_templates())
    true = collect_square(scene, aperture[..., :2], side=0.5, seeing=seeing).continuum @ level
    stand_in = collect(scene, aperture).continuum @ level * float(spaxels.share[0])
    bright = true > 0.1 * true.amax(1, keepdim=True)
    assert float(torch.log(stand_in / true)[bright].std()) < 0.06


def test_list_of_apertures_keeps_them():
    places = [Aperture(1 * u.arcsec, 2 * u.arcsec), Aperture(diameter=3 * u.arcsec)]
    spaxels = of_apertures(places)
    assert [spaxels.at(0), spaxels.at(1)] == places
    assert spaxels.share.tolist() == [1, 1]
    assert len(of_apertures(one for one in places)) == 2
    assert len(square(np.int64(3))) == 9


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: hexagon(20), ValueError, "bundle of 19, 37"),
        (lambda: square(0), ValueError, "1 or more"),
        (lambda: square(2.5), ValueError, "1 or more; got 2.5"),
        (lambda: square(100_000), ValueError, "at most 1,000,000 spaxels; got 10,000,000,000"),
        (lambda: hexagon(side=0.001 * u.arcsec), ValueError, "at most 1,000,000 spaxels"),
        (lambda: square(3, side=0.5), TypeError, "side of a spaxel"),
        (lambda: square(3, psf_fwhm=2 * u.AA), u.UnitConversionError, "PSF FWHM"),
        (lambda: of_apertures([]), ValueError, "at least one aperture"),
        (lambda: of_apertures([1]), TypeError, "Aperture objects; got int"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()
