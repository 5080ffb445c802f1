"""SDSS, BOSS and SDSS-V spectra."""

import numpy as np
import pytest
from astropy.io import fits

from probmmae.batch import NANOMAGGIE_FLAMBDA
from probmmae.formats import read, recognise, sdss
from probmmae.galaxy import Aperture

N = 200
LOGLAM = 3.6 + 1e-4 * np.arange(N)


def write(path, *, upper=False, drop=(), about=None, header=None, plate=5000):
    """A spec file after the data model: wdisp one pixel, flux 2, ivar 1."""
    columns = {
        "flux": np.full(N, 2.0, ">f4"),
        "loglam": LOGLAM.astype(">f4"),
        "ivar": np.ones(N, ">f4"),
        "and_mask": np.zeros(N, ">i4"),
        "wdisp": np.ones(N, ">f4"),
    }
    columns["ivar"][3] = 0.0
    columns["flux"][4] = np.nan
    columns["and_mask"][5] = 1 << 23
    columns["wdisp"][6] = 0.0
    coadd = fits.BinTableHDU.from_columns(
        [
            fits.Column(
                name.upper() if upper else name, "J" if "mask" in name else "E", array=value
            )
            for name, value in columns.items()
            if name not in drop
        ],
        name="COADD",
    )
    primary = fits.PrimaryHDU()
    primary.header["RA"], primary.header["DEC"] = 145.9, 0.06  # the plate's
    primary.header["PLATEID"] = plate
    primary.header.update(header or {})
    values = {"PLUG_RA": 146.9, "PLUG_DEC": -0.5, "Z": 0.25, "Z_ERR": 1e-4, "ZWARNING": 0}
    values |= {"CLASS": "GALAXY", "PLATE": plate} | (about or {})
    row = fits.BinTableHDU.from_columns(
        [
            fits.Column(
                name,
                "16A" if isinstance(value, str) else "J" if isinstance(value, int) else "D",
                array=[value],
            )
            for name, value in values.items()
            if name not in drop
        ],
        name="SPALL",
    )
    fits.HDUList([primary, coadd, row]).writeto(path)
    return path


def test_file_to_the_data_model(tmp_path):
    (galaxy,) = read(write(tmp_path / "spec-5000-1-0001.fits"))
    (spectrum,) = galaxy.spectra
    assert galaxy.id == "spec-5000-1-0001"
    assert np.flatnonzero(spectrum.ivar == 0).tolist() == [3, 4, 5]
    assert np.all(spectrum.flux[spectrum.ivar == 0] == 0)
    assert np.allclose(spectrum.wavelength, 10.0**LOGLAM, rtol=1e-6)
    # One pixel of 1e-4 in log10, also where wdisp is 0.
    assert np.allclose(spectrum.sigma, 1e-4 * np.log(10) * spectrum.wavelength, rtol=1e-3)
    assert galaxy.redshift == 0.25
    assert galaxy.scalars["redshift"].error == pytest.approx(1e-4)
    assert galaxy.labels["class"] == "GALAXY"


def test_trap_the_header_position_is_the_plate(tmp_path):
    (galaxy,) = read(write(tmp_path / "spec-1.fits"))
    assert galaxy.ra.value == pytest.approx(146.9)
    assert galaxy.dec.value == pytest.approx(-0.5)


@pytest.mark.parametrize(("trust", "redshift"), [(False, None), (True, 0.25)])
def test_trap_zwarning_means_no_redshift(tmp_path, trust, redshift):
    path = write(tmp_path / "spec-1.fits", about={"ZWARNING": 4})
    (galaxy,) = read(path, trust_warned_redshift=trust)
    assert galaxy.redshift == redshift
    assert galaxy.labels["zwarning"] == "4"


def test_trap_flux_is_that_of_a_point_source(tmp_path):
    path = write(tmp_path / "spec-1.fits", header={"SEEING50": 2.0})
    (ours,), (theirs,) = read(path), read(path, fibre_flux=False)
    aperture = ours.spectra[0].aperture
    assert (aperture.diameter, aperture.seeing) == (2.0, 2.0)
    # A 2 arcsec fibre holds half of a Gaussian of FWHM 2 arcsec.
    assert ours.spectra[0].flux[0] == pytest.approx(1.0)
    assert ours.spectra[0].ivar[0] == pytest.approx(4.0)
    assert theirs.spectra[0].flux[0] == pytest.approx(2.0)


def test_point_source_fraction_is_the_integral():
    """The disc of a Gaussian, by a sum over a fine grid."""
    aperture = Aperture.in_batch_units(diameter=3.0, seeing=1.4)
    x = np.linspace(-6, 6, 1201)
    radius2 = x[:, None] ** 2 + x**2
    light = np.exp(-4 * np.log(2) * radius2 / 1.4**2)
    expected = light[radius2 < 1.5**2].sum() / light.sum()
    assert sdss.point_source_fraction(aperture) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("plate", "diameter"), [(266, 3.0), (3509, 3.0), (3510, 2.0)])
def test_fibre_diameter_follows_the_spectrograph(tmp_path, plate, diameter):
    (galaxy,) = read(write(tmp_path / "spec-1.fits", plate=plate))
    assert galaxy.spectra[0].aperture.diameter == diameter


def test_upper_case_names_of_sdss_v(tmp_path):
    about = {"FIBER_RA": 10.0, "FIBER_DEC": 20.0}
    path = write(tmp_path / "spec-1.fits", upper=True, drop=("PLUG_RA", "PLUG_DEC"), about=about)
    assert recognise(path) == "sdss"
    (galaxy,) = read(path)
    assert galaxy.ra.value == 10.0
    assert galaxy.spectra[0].flux.size == N


def test_missing_column_is_named(tmp_path):
    path = write(tmp_path / "spec-1.fits", drop=("loglam",))
    with pytest.raises(ValueError, match=r"Expected a column loglam in HDU COADD; got flux, ivar"):
        read(path, format="sdss")


def test_trap_wavelengths_are_vacuum(shared_data):
    """H-alpha of a star-forming galaxy: vacuum 6564.61 Angstrom at rest, air 1.8 less."""
    (galaxy,) = read(shared_data / "sdss_spec_fits" / "1237658802572296399.fits.gz")
    (spectrum,) = galaxy.spectra
    rest = spectrum.wavelength / (1.0 + galaxy.redshift)
    line = np.abs(rest - 6564.6) < 6.0
    excess = spectrum.flux[line] - np.median(spectrum.flux[np.abs(rest - 6564.6) < 60.0])
    centroid = (rest[line] * excess).sum() / excess.sum()
    assert centroid == pytest.approx(6564.61, abs=0.8)


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_real_file_is_read(shared_data, stride):
    files = sorted((shared_data / "sdss_spec_fits").glob("*.fits.gz"))
    files += sorted((shared_data / "boss_xxl_spectra").glob("*.fits.gz"))
    assert len(files) > 40
    for path in files[::stride]:
        (galaxy,) = read(path)
        (spectrum,) = galaxy.spectra
        assert spectrum.name == "sdss"
        with fits.open(path) as opened:
            row = opened[2].data[0]
            assert galaxy.ra.value == pytest.approx(row["PLUG_RA"])
            assert (galaxy.redshift is not None) == (row["ZWARNING"] == 0)
        assert 1300 < np.median(spectrum.wavelength / spectrum.sigma) / 2.3548 < 2700
        assert 3500 < spectrum.wavelength[0] < spectrum.wavelength[-1] < 10500
        assert np.mean(spectrum.ivar > 0) > 0.5


def test_real_fibre_flux_is_that_of_the_imaging(shared_data):
    """Synthetic r flux through the fibre against FIBER2FLUX (2 arcsec, in 2 arcsec seeing)."""
    filters = pytest.importorskip("speclite.filters")
    curve = filters.load_filter("sdss2010-r")
    ratios = []
    for path in sorted((shared_data / "boss_xxl_spectra").glob("*.fits.gz")):
        (galaxy,) = read(path, fibre_flux=False)
        (spectrum,) = galaxy.spectra
        response = np.interp(spectrum.wavelength, curve.wavelength, curve.response, 0, 0)
        weight = response * spectrum.wavelength**2
        per_nanomaggie = (response * NANOMAGGIE_FLAMBDA).sum()
        synthetic = (spectrum.flux * weight).sum() / per_nanomaggie
        # Of a point source, half is within 2 arcsec in 2 arcsec seeing.
        with fits.open(path) as opened:
            ratios.append(0.5 * synthetic / opened[2].data["FIBER2FLUX"][0][2])
    assert 0.85 < np.median(ratios) < 1.15
