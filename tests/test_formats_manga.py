"""MaNGA cubes built to the data model from a simulated galaxy, and real DAP maps."""

import gzip
import shutil

import numpy as np
import pytest
from astropy.io import fits
from manga_files import FWHM, SPAXELS, logcube
from simulated_cube import simulated_scene, true_cube

from probmmae.correlation import chi_square
from probmmae.formats import read, recognise
from probmmae.formats.manga import BAD, read_cube
from probmmae.formats.manga_maps import DAPPIXMASK, read_correlation, read_maps
from probmmae.spaxels import equivalent_aperture
from probmmae.spectral_maps import Measure
from probmmae.synthetic import band_weights


@pytest.fixture(scope="module")
def truth():
    return true_cube(simulated_scene(60), 8, SPAXELS)


@pytest.fixture(scope="module")
def path(truth, tmp_path_factory):
    file = tmp_path_factory.mktemp("manga") / "manga-1-1901-LOGCUBE.fits"
    logcube(truth).writeto(file)
    return file


def test_cube_to_the_data_model(path, truth):
    assert recognise(path) == "manga"
    cube = read_cube(path)
    assert cube.name == "manga-1-1901"
    assert np.allclose(cube.wavelength, truth.wavelength)
    assert cube.side == pytest.approx(0.5, rel=1e-4)
    flux = SPAXELS.grid.image(truth.flux.T)
    assert np.allclose(cube.flux[cube.ivar > 0], flux[cube.ivar > 0])
    assert np.allclose(cube.sigma[:, 2, 2], truth.sigma)
    assert cube.image_psf == pytest.approx({"g": 2.6, "r": 2.5, "i": 2.4, "z": 2.4}, abs=0.4)
    assert set(cube.correlation) == {"g"}


def test_trap_bits_and_missing_pixels(path):
    cube = read_cube(path)
    assert not cube.ivar[:, 0, 0].any()
    assert (cube.ivar[100:104, 3, 3] > 0).tolist() == [False, True, False, False]
    assert np.all(np.isfinite(cube.flux))
    assert BAD == 1 + 2 + 4 + 8 + 1024


def test_trap_wavelengths_are_those_of_wave_and_columns_grow_to_the_west(path, truth):
    (galaxy,) = read(path, every=1, redshift=truth.z)
    assert galaxy.redshift == pytest.approx(truth.z)
    assert len(galaxy.spectra) == 63
    assert np.allclose(galaxy.spectra[0].wavelength, truth.wavelength)
    cube = read_cube(path)
    assert cube.offset[0, 0, 0] > cube.offset[0, 0, -1]
    # The galaxy lies one spaxel north of the IFU's centre.
    assert cube.offset[:, 4, 4] == pytest.approx([0, -0.5], abs=1e-3)
    assert cube.offset[:, 5, 3] == pytest.approx([0.5, 0], abs=1e-3)


def test_spaxels_are_spectra_through_their_apertures(path, truth):
    (galaxy,) = read(path)
    assert len(galaxy.spectra) == 4 - 1  # 2 arcsec apart, and the corner has no data
    cube = read_cube(path)
    diameter, seeing, share = equivalent_aperture(cube.side, FWHM)
    one = next(each for each in galaxy.spectra if abs(each.aperture.dx) < 0.1)
    assert one.aperture.diameter == pytest.approx(diameter)
    assert one.aperture.seeing == pytest.approx(seeing)
    assert one.aperture.dy in (pytest.approx(-0.5, abs=1e-3), pytest.approx(-2.5, abs=1e-3))
    row = 4 if one.aperture.dy > -1 else 0
    assert np.allclose(one.flux * share, cube.flux[:, row, 4], rtol=1e-5)
    assert np.allclose(one.ivar / share**2, cube.ivar[:, row, 4], rtol=1e-5)


def test_images_are_turned_to_the_east(truth, tmp_path):
    file = tmp_path / "LOGCUBE.fits"
    logcube(truth, gradient=1.0).writeto(file)  # brighter to the west
    (galaxy,) = read(file)
    assert [image.band for image in galaxy.images] == [f"sdss-{band}" for band in "griz"]
    image = galaxy.images[1]
    assert image.flux[:, 0].sum() > 3 * image.flux[:, -1].sum()  # x grows to the east
    # The middle of the frame is half a spaxel east and south of pixel (4, 4).
    assert image.centre == pytest.approx((0.25, -0.75), abs=1e-3)
    assert image.psf_fwhm == 2.5
    good = image.ivar > 0
    assert good.sum() == 63
    cube = read_cube(file)
    weights = band_weights("sdss2010-r", cube.wavelength)
    expected = ((weights**2)[:, None] / cube.ivar[:, 2, 2][:, None]).sum() ** -1
    assert np.median(image.ivar[good]) == pytest.approx(expected, rel=1e-3)


def test_correlated_noise_is_honoured(path):
    """400 maps of the file's own noise: the mean of chi-square over its freedom is 1 to 3 %."""
    cube = read_cube(path)
    known = cube.correlation["g"]
    matrix = known.between(np.arange(64))
    place = 3 * 8 + 3
    assert matrix[place, place + 1] > matrix[place, place + 8]  # along x
    share, mode = np.linalg.eigh(matrix)
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(400, 64)) @ (mode * np.sqrt(np.maximum(share, 0))).T
    ivar = np.broadcast_to(cube.ivar[50], (400, 8, 8))
    residual = np.where(ivar > 0, noise.reshape(-1, 8, 8) / np.sqrt(np.maximum(ivar, 1e-9)), 0)
    value, freedom = chi_square(residual, ivar, known)
    assert freedom <= 63
    assert value.mean() / freedom == pytest.approx(1, abs=4 * np.sqrt(2 / freedom / 400))


def test_cube_is_measured_as_the_truth_is(path, truth):
    cube = read_cube(path)
    measure = Measure(cube.wavelength, cube.sigma[:, 4, 4], z=truth.z)
    rows = (slice(3, 5), slice(3, 5))
    observed = measure(
        np.moveaxis(cube.flux, 0, -1)[rows], ivar=np.moveaxis(cube.ivar, 0, -1)[rows]
    )
    true = measure(np.moveaxis(SPAXELS.grid.image(truth.flux.T), 0, -1)[rows])
    assert np.allclose(observed["h_alpha"], true["h_alpha"], rtol=0.05)


@pytest.mark.parametrize("drop", ["IVAR", "MASK", "WAVE"])
def test_without_a_part_it_is_another_file(truth, tmp_path, drop):
    file = tmp_path / "a.fits"
    logcube(truth, drop=(drop,)).writeto(file)
    assert recognise(file) != "manga"
    with pytest.raises(ValueError, match=f"Expected an HDU {drop}"):
        read(file, format="manga")


def test_damaged_and_foreign_files(path, truth, tmp_path):
    content = path.read_bytes()
    for share in (0.3, 0.8):
        cut = tmp_path / "cut.fits"
        cut.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match="Expected a whole FITS file"):
            read(cut)
    packed = tmp_path / "cut.fits.gz"
    packed.write_bytes(gzip.compress(content[:200_000])[:-2000])
    with pytest.raises(ValueError, match="Expected a whole compressed file"):
        read(packed)
    short = logcube(truth)
    short["WAVE"].data = short["WAVE"].data[:-1]
    short.writeto(tmp_path / "short.fits")
    with pytest.raises(ValueError, match=r"Expected FLUX, IVAR, integer MASK"):
        read(tmp_path / "short.fits")
    other = logcube(truth)
    other["GCORREL"].data["INDXI_C1"] += 40
    other.writeto(tmp_path / "other.fits")
    with pytest.raises(ValueError, match="grid of 8 x 8"):
        read(tmp_path / "other.fits")
    turned = logcube(truth)
    turned["FLUX"].header["CD1_1"] *= -1
    turned.writeto(tmp_path / "turned.fits")
    with pytest.raises(ValueError, match="north up and east left"):
        read(tmp_path / "turned.fits")
    with pytest.raises(ValueError, match="every >= 1"):
        read(path, every=0)


def test_unusable_cube_warns(truth, tmp_path):
    file = tmp_path / "a.fits"
    logcube(truth, quality=1 << 30 | 1 << 9).writeto(file)
    with pytest.warns(UserWarning, match="BADPSF, CRITICAL"):
        (galaxy,) = read(file)
    assert galaxy.labels["drp3qual"] == "BADPSF CRITICAL"


MAPS = "manga/manga-7815-3702-MAPS-HYB10-GAU-MILESHC.fits.gz"


def test_real_maps(shared_data):
    file = shared_data / MAPS
    assert recognise(file) == "manga_maps"
    maps = read_maps(file)
    assert maps.redshift == pytest.approx(0.0294, abs=1e-4)
    assert maps.effective_radius == pytest.approx(3.775, abs=1e-2)
    alpha = maps.map("EMLINE_GFLUX", "Ha-6564")
    assert alpha.unit == "1E-17 erg/s/cm^2/spaxel"
    good = alpha.ivar > 0
    assert 700 < good.sum() < 800
    assert np.array_equal(np.isfinite(alpha.value), good | (np.isfinite(alpha.value) & ~good))
    with fits.open(file) as opened:
        header = opened["EMLINE_GFLUX"].header
        channel = next(i for i in range(1, 23) if header[f"C{i:02d}"] == "Ha-6564") - 1
        bits = opened["EMLINE_GFLUX_MASK"].data[channel]
        assert not good[bits >> DAPPIXMASK["DONOTUSE"] & 1 > 0].any()
        assert np.array_equal(alpha.value[good], opened["EMLINE_GFLUX"].data[channel][good])
    spin = maps.map("STELLAR_VEL").value
    assert np.nanmax(np.abs(spin)) < 500
    with pytest.raises(ValueError, match="channel of EMLINE_GFLUX among OII-3727"):
        maps.map("EMLINE_GFLUX", "Ha-6563")
    with pytest.raises(ValueError, match="map among SPX_SKYCOO"):
        maps.map("EMLINE_FLUX", "Ha-6564")


def test_real_maps_as_a_galaxy(shared_data):
    (galaxy,) = read(shared_data / MAPS)
    assert galaxy.id == "manga-7815-3702"
    assert galaxy.ra.value == pytest.approx(317.9032, abs=1e-4)
    (image,) = galaxy.images
    assert image.band == "sdss-g"
    assert image.psf_fwhm == pytest.approx(2.65, abs=0.01)
    # A galaxy of some 16 mag in g.
    assert 22.5 - 2.5 * np.log10(image.flux.sum()) == pytest.approx(16.0, abs=1.0)
    y, x = np.unravel_index(image.flux.argmax(), image.flux.shape)
    middle = (np.array(image.flux.shape) - 1) / 2
    peak = np.array(image.centre) + (np.array([x, y]) - middle[::-1]) * image.pixel_scale
    assert np.hypot(*peak) < 1


def test_real_correlations_lie_on_the_spaxels_of_the_maps(shared_data):
    maps = read_maps(shared_data / MAPS)
    covered = maps.map("SPX_SNR").value > 0
    known = read_correlation(shared_data / "manga/manga-7815-3702-SNRG.fits.gz", covered.shape)
    on = known.matrix.diagonal().reshape(covered.shape) > 0
    with fits.open(shared_data / MAPS) as opened:
        assert np.array_equal(on, opened["SPX_SNR"].data > 0)
    residual = np.where(on, 1.0, 0.0)
    value, freedom = chi_square(residual, on.astype(float), known)
    # 37 fibres and three dithers make 111 independent numbers of 863 spaxels.
    assert 100 < freedom < 150
    assert value < on.sum() / 3


def test_damaged_maps(shared_data, tmp_path):
    plain = tmp_path / "manga-MAPS.fits"
    with gzip.open(shared_data / MAPS) as packed, plain.open("wb") as out:
        shutil.copyfileobj(packed, out)
    content = plain.read_bytes()
    plain.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="Expected a whole FITS file"):
        read(plain)
