"""Cubes through FITS: our reader, specutils, spectral-cube and, where installed, Cubeviz."""

import warnings
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from tiny_model import some_galaxy, tiny_checkpoint, tiny_network
from typer.testing import CliRunner

from probmmae.formats.manga import read_cube
from probmmae.inference.cube import MANGA_WAVELENGTH, Cube, cube
from probmmae.inference.cube_figures import bpt_figure, cube_figure
from probmmae.inference.cube_fits import EXTRAPOLATED, FLUX_UNIT, write_cube
from probmmae.inference.posterior import Model
from probmmae.spaxels import hexagon, of_apertures
from probmmae.spectral_maps import QUANTITIES, SpectralMaps

SPAXELS = hexagon(19, side=1 * u.arcsec)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Cube, str]:
    galaxy = replace(some_galaxy(z=0.05), ra=150 * u.deg, dec=2 * u.deg)
    posterior = Model(tiny_network()).condition(galaxy, draws=4)
    path = tmp_path_factory.mktemp("cube") / "cube.fits"
    with pytest.warns(UserWarning, match="extrapolated"):
        answer = cube(posterior, SPAXELS, MANGA_WAVELENGTH[::3], keep=2)
    write_cube(answer, path)
    return answer, str(path)


def test_round_trip_by_our_reader(made):
    answer, path = made
    read = read_cube(fits_path(path))
    grid = SPAXELS.grid
    flux = grid.image(answer.mean.T)
    good = read.ivar > 0
    assert np.allclose(read.flux[good], flux[good], rtol=1e-6)
    assert np.allclose(read.ivar[good] ** -0.5, grid.image(answer.std.T)[good], rtol=1e-4)
    assert np.array_equal(good.any(0), grid.covered)
    assert np.allclose(read.wavelength, answer.wavelength)
    assert np.allclose(read.sigma[:, 5, 5], answer.sigma, rtol=1e-6)
    assert np.allclose(grid.image(SPAXELS.aperture[:, 0])[grid.covered],
                       read.offset[0][grid.covered], atol=1e-3)  # fmt: skip
    assert np.allclose(grid.image(SPAXELS.aperture[:, 1])[grid.covered],
                       read.offset[1][grid.covered], atol=1e-3)  # fmt: skip
    assert read.side == pytest.approx(1.0)
    assert read.psf_fwhm == 2.5


def fits_path(path):
    from pathlib import Path

    return Path(path)


def test_everything_beside_the_mean(made):
    answer, path = made
    grid = SPAXELS.grid
    with fits.open(path) as opened:
        assert opened["FLUX"].header["BUNIT"] == FLUX_UNIT
        assert np.array_equal(opened["DRAWS"].data[1], np.nan_to_num(grid.image(answer.draws[1].T),
                              nan=np.nan), equal_nan=True)  # fmt: skip
        low = grid.image(answer.quantiles[0].T)
        assert np.array_equal(opened["FLUX_Q05"].data, np.nan_to_num(low))
        maps = opened["MAPS_DRAWS"]
        assert np.array_equal(maps.data, grid.image(answer.maps), equal_nan=True)
        names = [maps.header[f"C{index:02d}"] for index in range(1, len(QUANTITIES) + 1)]
        assert names == list(QUANTITIES)
        assert maps.header["U01"] == "1e-17 erg/s/cm2/spaxel"
        assert opened["MAPS_Q50"].data.shape == (len(QUANTITIES), *grid.shape)
        assert np.allclose(opened["Z"].data["z"], answer.z)
        bits = opened["MASK"].data
        assert np.array_equal(bits[0] & 1 == 0, grid.covered)
        marked = grid.image(answer.extrapolated.astype(float)) == 1
        assert np.array_equal((bits[0] & EXTRAPOLATED > 0), marked)
        assert opened["RPSF"].data.sum() == pytest.approx(1.0, rel=1e-5)
        assert "not repaired" in str(opened[0].header["COMMENT"])


def test_third_axis_is_the_wavelengths_and_the_middle_is_the_galaxy(made):
    answer, path = made
    with fits.open(path) as opened:
        wcs = WCS(opened["FLUX"].header)
    height, width = SPAXELS.grid.shape
    steps = np.arange(len(answer.wavelength))
    ra, dec, wavelength = wcs.all_pix2world(width // 2, height // 2, steps, 0)
    assert np.allclose(wavelength * 1e10, answer.wavelength, rtol=1e-9)
    assert (ra[0], dec[0]) == pytest.approx((150, 2))


def test_opens_in_specutils(made):
    from specutils import Spectrum

    answer, path = made
    spectrum = Spectrum.read(path, format="MaNGA cube")
    assert "spaxel" in str(spectrum.flux.unit)
    assert spectrum.flux.unit.scale == pytest.approx(1e-17)
    flux = SPAXELS.grid.image(answer.mean.T)
    assert np.allclose(spectrum.flux.value, np.nan_to_num(flux))
    assert np.allclose(spectrum.spectral_axis.to_value(u.AA), answer.wavelength, rtol=1e-9)
    assert np.all(spectrum.mask[0][~SPAXELS.grid.covered])


def test_opens_in_spectral_cube(made):
    answer, path = made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from spectral_cube import SpectralCube

        opened = SpectralCube.read(path, hdu=1)
        assert np.allclose(opened.spectral_axis.to_value(u.AA), answer.wavelength, rtol=1e-9)
        flux = opened[:, 5, 5].value
    assert np.allclose(flux, np.nan_to_num(SPAXELS.grid.image(answer.mean.T)[:, 5, 5]))


@pytest.mark.slow
def test_opens_in_cubeviz(made):
    jdaviz = pytest.importorskip("jdaviz")
    answer, path = made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        viewer = jdaviz.Cubeviz()
        viewer.load_data(path)
        shapes = [each.shape for each in viewer.app.data_collection]
    whole = (*SPAXELS.grid.shape, len(answer.wavelength))
    assert sum(sorted(shape) == sorted(whole) for shape in shapes) >= 3  # flux, error, mask


def test_nothing_is_left_of_a_failed_write(made, tmp_path, monkeypatch):
    answer, _ = made
    uneven = replace(answer, wavelength=answer.wavelength + np.arange(len(answer.wavelength)) ** 2)
    with pytest.raises(ValueError, match="uniform in themselves or in their logarithm"):
        write_cube(uneven, tmp_path / "cube.fits")
    listed = replace(answer, spaxels=of_apertures([SPAXELS.at(0)]))
    with pytest.raises(ValueError, match="Expected spaxels on a grid"):
        write_cube(listed, tmp_path / "cube.fits")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("probmmae.inference.cube_fits.band_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_cube(answer, tmp_path / "cube.fits")
    assert list(tmp_path.iterdir()) == []


def test_figures_draw_every_panel(made):
    answer, _ = made
    against = SpectralMaps(answer.maps.mean(1), np.full_like(answer.maps[:, 0], np.nan))
    figure = cube_figure(
        answer, ("h_alpha", "velocity", "s_ii_ew"), against=against, spectra=answer.mean,
        marked=(3, 50), said="observed",
    )  # fmt: skip
    titles = [axes.get_title() for axes in figure.axes]
    assert "H\u03b1, observed" in titles
    assert "EW [S II], predicted" in titles
    assert titles.count("difference") == 3
    # Columns of the array grow to the west: east is left.
    left, right = next(axes for axes in figure.axes if axes.get_title() == "difference").get_xlim()
    assert left > right
    figure.canvas.draw()
    bpt_figure(answer.maps, against=against, least=0.0).canvas.draw()
    with pytest.raises(ValueError, match="at most 4 marked"):
        cube_figure(answer, marked=range(5))


def test_command_line(tmp_path):
    from probmmae.cli import app

    tiny_checkpoint(tmp_path / "model")
    path = tmp_path / "in.fits"
    header = fits.Header(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0,
         "CRPIX1": 24.5, "CRPIX2": 24.5, "CD1_1": -0.2 / 3600, "CD2_2": 0.2 / 3600,
         "CUNIT1": "deg", "CUNIT2": "deg", "BUNIT": "nanomaggies", "FILTER": "hsc-r",
         "SEEING": 0.8}
    )  # fmt: skip
    image = some_galaxy().images[0]
    fits.PrimaryHDU(image.flux[:, ::-1], header).writeto(path)
    out = tmp_path / "cube.fits"
    said = CliRunner().invoke(
        app,
        ["cube", str(path), "-o", str(out), "--draws", "2", "--size", "3",
         "--checkpoint", str(tmp_path / "model")],
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    assert "9 spaxels of 0.5 arcsec behind 2.5 arcsec, 2 draws" in said.output
    assert out.exists()
    assert out.with_suffix(".png").exists()
    wrong = CliRunner().invoke(app, ["cube", str(path), "-o", str(out), "--fibres", "20"])
    assert wrong.exit_code == 2
    assert "Expected a bundle of 19" in wrong.output
