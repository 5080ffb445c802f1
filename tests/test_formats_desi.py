"""DESI coadds: written to the data model, and the real ones that a package on PyPI carries."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from probmmae.batch import NANOMAGGIE_FLAMBDA
from probmmae.formats import desi, read, recognise

ARMS = {"B": (3600.0, 2751), "R": (5760.0, 2326), "Z": (7520.0, 2881)}
FRACTION = 0.75


def matrix(n_pixel, sigma, n_diagonal=11):
    """A resolution matrix as DESI stores it: every column a Gaussian of `sigma` pixels."""
    offset = n_diagonal // 2 - np.arange(n_diagonal)
    profile = np.exp(-0.5 * (offset / sigma) ** 2)
    return np.repeat((profile / profile.sum())[:, None], n_pixel, axis=1)


def write(path, *, rows=1, arms=ARMS, sigma=0.9, drop=(), **fibermap):
    """A coadd whose flux is 1 in B, 2 in R and 3 in Z, with ivar 1, 2, 3."""
    values = {
        "TARGETID": np.arange(100, 100 + rows),
        "OBJTYPE": np.array(["TGT"] * rows),
        "COADD_FIBERSTATUS": np.zeros(rows, int),
        "TARGET_RA": np.full(rows, 10.0),
        "TARGET_DEC": np.full(rows, 60.0),
        "MEAN_FIBER_RA": np.full(rows, 10.0 + 0.2 / 3600.0),
        "MEAN_FIBER_DEC": np.full(rows, 60.0 - 0.3 / 3600.0),
        "MEAN_PSF_TO_FIBER_SPECFLUX": np.full(rows, FRACTION),
        "PHOTSYS": np.array(["S"] * rows),
        "MORPHTYPE": np.array(["DEV"] * rows),
    }
    for band, flux in [("G", 1.0), ("R", 2.0), ("Z", 3.0)]:
        values[f"FLUX_{band}"] = np.full(rows, flux)
        values[f"FLUX_IVAR_{band}"] = np.full(rows, 4.0)
    values |= {name: np.asarray(value) for name, value in fibermap.items()}
    kinds = {"i": "K", "f": "D", "U": "8A"}
    hdus = [
        fits.PrimaryHDU(),
        fits.BinTableHDU.from_columns(
            [
                fits.Column(name, kinds[value.dtype.kind], array=value)
                for name, value in values.items()
                if name not in drop
            ],
            name="FIBERMAP",
        ),
    ]
    for level, (arm, (start, n)) in enumerate(arms.items(), start=1):
        ivar = np.full((rows, n), float(level))
        mask = np.zeros((rows, n), np.int32)
        mask[:, 7] = 1
        contents = {
            "WAVELENGTH": start + 0.8 * np.arange(n),
            "FLUX": np.full((rows, n), float(level)),
            "IVAR": ivar,
            "MASK": mask,
            "RESOLUTION": np.repeat(matrix(n, sigma)[None], rows, axis=0),
        }
        hdus += [
            fits.ImageHDU(value, name=f"{arm}_{name}")
            for name, value in contents.items()
            if f"{arm}_{name}" not in drop
        ]
    fits.HDUList(hdus).writeto(path)
    return path


def write_redrock(path, targets, *, zwarn=0):
    n = len(targets)
    columns = [
        fits.Column("TARGETID", "K", array=targets),
        fits.Column("Z", "D", array=0.1 * (1 + np.arange(n))),
        fits.Column("ZERR", "D", array=np.full(n, 1e-5)),
        fits.Column("ZWARN", "K", array=np.full(n, zwarn)),
        fits.Column("SPECTYPE", "6A", array=["GALAXY"] * n),
    ]
    fits.HDUList(
        [fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="REDSHIFTS")]
    ).writeto(path)
    return path


def test_arms_are_combined_on_one_grid(tmp_path):
    path = write(tmp_path / "coadd-x.fits")
    assert recognise(path) == "desi"
    (galaxy,) = read(path, fibre_flux=False)
    (spectrum,) = galaxy.spectra
    wave = spectrum.wavelength
    assert wave.size == 7781
    assert np.allclose(wave, 3600.0 + 0.8 * np.arange(7781))
    # Alone, and where two arms overlap, averaged by ivar: (1 * 1 + 2 * 2) / 3.
    assert spectrum.flux[100] == 1.0
    overlap = (wave > 5790) & (wave < 5799)
    assert np.allclose(spectrum.flux[overlap], 5.0 / 3.0)
    assert np.allclose(spectrum.ivar[overlap], 3.0)
    # Masked pixels are missing, unless another arm has them.
    assert spectrum.ivar[7] == 0.0
    assert spectrum.ivar[np.abs(wave - (5760 + 5.6)).argmin()] == 1.0
    assert np.allclose(spectrum.sigma, 0.9 * 0.8, rtol=2e-3)


def test_arms_are_kept_apart(tmp_path):
    (galaxy,) = read(write(tmp_path / "coadd-x.fits"), arms="separate")
    assert [s.name for s in galaxy.spectra] == ["desi-b", "desi-r", "desi-z"]
    assert [s.flux.size for s in galaxy.spectra] == [n for _, n in ARMS.values()]
    with pytest.raises(ValueError, match="'combined' or 'separate'; got 'one'"):
        read(tmp_path / "coadd-x.fits", arms="one")


def test_trap_flux_is_that_of_a_point_source(tmp_path):
    (galaxy,) = read(write(tmp_path / "coadd-x.fits"))
    (spectrum,) = galaxy.spectra
    assert spectrum.flux[100] == pytest.approx(FRACTION)
    assert spectrum.ivar[100] == pytest.approx(FRACTION**-2)
    # The seeing is the one in which the fibre catches that share of a point source.
    assert 1 - 2 ** -((1.5 / spectrum.aperture.seeing) ** 2) == pytest.approx(FRACTION)


def test_trap_fibre_offset_is_in_arcsec_on_the_sky(tmp_path):
    (galaxy,) = read(write(tmp_path / "coadd-x.fits"))
    aperture = galaxy.spectra[0].aperture
    assert aperture.dx == pytest.approx(0.1, abs=1e-4)  # 0.2 arcsec of right ascension at dec 60
    assert aperture.dy == pytest.approx(-0.3, abs=1e-4)


@pytest.mark.parametrize(
    ("zwarn", "trust", "known"), [(0, False, True), (4, False, False), (4, True, True)]
)
def test_trap_zwarn_0_is_good(tmp_path, zwarn, trust, known):
    path = write(tmp_path / "coadd-x.fits", rows=2)
    write_redrock(tmp_path / "redrock-x.fits", [101, 100], zwarn=zwarn)
    first, second = read(path, trust_warned_redshift=trust)
    assert first.labels["zwarn"] == str(zwarn)
    assert first.redshift == (pytest.approx(0.2) if known else None)
    assert second.redshift == (pytest.approx(0.1) if known else None)


def test_redrock_elsewhere_and_not_at_all(tmp_path):
    path = write(tmp_path / "coadd-x.fits")
    assert read(path)[0].redshift is None
    elsewhere = write_redrock(tmp_path / "z.fits", [100])
    assert read(path, redshifts=elsewhere)[0].redshift == pytest.approx(0.1)
    with pytest.raises(FileNotFoundError, match="Expected redrock's table"):
        read(path, redshifts=tmp_path / "nowhere.fits")


def test_skies_and_bad_fibres_are_left_out(tmp_path):
    path = write(
        tmp_path / "coadd-x.fits",
        rows=3,
        OBJTYPE=["TGT", "SKY", "TGT"],
        COADD_FIBERSTATUS=[0, 0, 8],
    )
    with pytest.warns(UserWarning, match="1 of 2 spectra in coadd-x.fits have a fibre status"):
        galaxies = read(path)
    assert [galaxy.id for galaxy in galaxies] == ["100"]
    assert [galaxy.id for galaxy in read(path, bad_fibres=True)] == ["100", "102"]


def test_rows_of_one_target_are_one_galaxy(tmp_path):
    galaxies = read(write(tmp_path / "spectra-x.fits", rows=3, TARGETID=[7, 8, 7]))
    assert [(g.id, len(g.spectra)) for g in galaxies] == [("7", 2), ("8", 1)]


def test_photometry_is_that_of_its_survey(tmp_path):
    ivar = {"FLUX_IVAR_G": [4.0, 0.0], "PHOTSYS": ["N", "S"]}
    north, south = read(write(tmp_path / "coadd-x.fits", rows=2, **ivar))
    assert [p.band for p in north.photometry] == ["bass-g", "bass-r", "mzls-z"]
    assert [p.band for p in south.photometry] == ["decam-r", "decam-z"]
    assert south.photometry[0].flux == 2.0


@pytest.mark.parametrize("drop", ["TARGETID", "B_IVAR", "Z_RESOLUTION"])
def test_missing_part_is_named(tmp_path, drop):
    with pytest.raises(ValueError, match=f"Expected an? (column|HDU) {drop} in"):
        read(write(tmp_path / "coadd-x.fits", drop=(drop,)))


def test_line_spread_is_that_of_the_matrix():
    """Through the sparse matrix that DESI's own documentation builds."""
    from scipy.sparse import dia_matrix

    diagonals = matrix(60, 1.3)
    n = diagonals.shape[0]
    full = dia_matrix((diagonals, n // 2 - np.arange(n)), shape=(60, 60)).toarray()
    x = np.arange(60)
    mean = full[:, 30] @ x
    width = np.sqrt(full[:, 30] @ (x - mean) ** 2)
    assert desi.line_spread(diagonals)[30] == pytest.approx(width)


@pytest.fixture
def real():
    found = find_spec("fastspecfit")
    folder = None if found is None else Path(found.origin).parent / "test" / "data"
    if folder is None or not folder.is_dir():
        pytest.skip("the package fastspecfit, which carries real DESI coadds, is not installed")
    return folder


def test_real_coadd(real):
    path = real / "coadd-4-80613-thru20210324.fits"
    assert recognise(path) == "desi"
    (galaxy,) = read(path)
    (spectrum,) = galaxy.spectra
    assert galaxy.id == "39633345008634465"
    assert galaxy.redshift == pytest.approx(0.36874, abs=1e-5)
    assert spectrum.flux.size == 7781
    assert spectrum.aperture.dx == pytest.approx(-0.024, abs=2e-3)
    assert spectrum.aperture.dy == pytest.approx(-0.013, abs=2e-3)
    resolution = spectrum.wavelength / spectrum.sigma / 2.3548
    assert 1900 < resolution[100] < 2600
    assert 4800 < resolution[-100] < 5900


def test_real_fibre_flux_is_that_of_the_imaging(real):
    """Synthetic r flux through the fibre against FIBERFLUX_R, to 10 %; without the factor 34 %."""
    filters = pytest.importorskip("speclite.filters")
    curve = filters.load_filter("BASS-r")
    path = real / "coadd-4-80613-thru20210324.fits"
    (spectrum,) = read(path)[0].spectra
    response = np.interp(spectrum.wavelength, curve.wavelength, curve.response, 0, 0)
    synthetic = (spectrum.flux * response * spectrum.wavelength).sum()
    synthetic /= (NANOMAGGIE_FLAMBDA * response / spectrum.wavelength).sum()
    with fits.open(path) as opened:
        assert synthetic == pytest.approx(opened["FIBERMAP"].data["FIBERFLUX_R"][0], rel=0.1)


def test_real_faint_target_without_photometry(real):
    (galaxy,) = read(real / "coadd-special-dark-27247.fits")
    assert galaxy.photometry == ()
    assert galaxy.redshift == pytest.approx(0.00727, abs=1e-5)
