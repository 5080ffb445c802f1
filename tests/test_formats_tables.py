"""Photometric tables: units, missing codes, and the column that is called z."""

from itertools import islice

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from probmmae.formats import read, recognise, stream
from probmmae.formats.tables import ColumnMap, guess

FRAME = pd.DataFrame(
    {
        "name": ["a", "b", "c"],
        "ra": [10.0, 20.0, np.nan],
        "dec": [1.0, -99.0, 3.0],
        "g": [22.5, 20.0, -99.0],
        "gerr": [0.1, 0.2, 0.1],
        "r": [25.0, 99.0, np.nan],
        "rerr": [0.1, 0.1, 0.1],
        "zspec": [0.5, -1.0, -99.0],
    }
)
MAP = ColumnMap(
    bands={"hsc-g": ("g", "gerr"), "hsc-r": ("r", "rerr")},
    redshift="zspec",
    id="name",
    ra="ra",
    dec="dec",
)


def write(path):
    if path.suffix == ".parquet":
        FRAME.to_parquet(path)
    elif path.suffix == ".fits":
        Table.from_pandas(FRAME).write(path)
    else:
        FRAME.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.fits"])
def test_same_galaxies_from_every_container(tmp_path, name):
    path = write(tmp_path / name)
    assert recognise(path) == "tables"
    first, second, third = read(path, columns=MAP, chunk=2)
    assert [first.id, second.id, third.id] == ["a", "b", "c"]
    g, r = first.photometry
    assert (g.band, r.band) == ("hsc-g", "hsc-r")
    assert g.flux == pytest.approx(1.0)
    assert r.flux == pytest.approx(0.1)
    # 0.1 mag is 9.2 % of the flux.
    assert g.ivar**-0.5 == pytest.approx(0.0921034, rel=1e-5)
    assert first.redshift == 0.5
    assert first.ra.value == 10.0
    assert [p.band for p in second.photometry] == ["hsc-g"]
    assert second.redshift is None
    assert second.ra is None
    # A row without any measurement keeps its place.
    assert third.photometry == ()


CODES = [-99.0, -99.9, 99.0, 99.99, -999.0, np.nan, np.inf]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("column", ["g", "gerr"])
def test_trap_codes_are_missing_in_value_and_error(tmp_path, code, column):
    frame = FRAME.copy()
    frame[column] = frame[column].astype(float)
    frame.loc[0, column] = code
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert [p.band for p in read(tmp_path / "a.csv", columns=MAP)[0].photometry] == ["hsc-r"]


def test_trap_error_of_zero_is_no_error(tmp_path):
    frame = FRAME.assign(gerr=0.0)
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert [p.band for p in read(tmp_path / "a.csv", columns=MAP)[0].photometry] == ["hsc-r"]


@pytest.mark.parametrize(
    ("unit", "factor"), [("nmgy", 1.0), ("uJy", 1 / 3.631), ("Jy", 1e6 / 3.631)]
)
def test_fluxes_in_their_unit(tmp_path, unit, factor):
    pd.DataFrame({"f": [2.0, -0.5], "e": [0.5, 0.5]}).to_csv(tmp_path / "a.csv", index=False)
    columns = {"bands": {"mine": ("f", "e")}, "kind": "flux", "flux_unit": unit}
    columns |= {"wavelength": {"mine": 5000.0}}
    first, second = read(tmp_path / "a.csv", columns=columns)
    assert first.photometry[0].flux == pytest.approx(2.0 * factor)
    assert first.photometry[0].ivar == pytest.approx(4.0 / factor**2)
    assert first.photometry[0].wavelength == 5000.0
    assert second.photometry[0].flux == pytest.approx(-0.5 * factor)


def test_error_floor_adds_in_quadrature(tmp_path):
    path = write(tmp_path / "a.csv")
    columns = ColumnMap(bands={"hsc-g": ("g", "gerr")}, error_floor=0.05)
    expected = np.hypot(0.0921034, 0.05)
    assert read(path, columns=columns)[0].photometry[0].ivar ** -0.5 == pytest.approx(expected)


@pytest.mark.parametrize(
    ("names", "value", "redshift"),
    [
        (["MAG_Z", "MAGERR_Z", "Z"], "MAG_Z", "Z"),
        (["zs", "z", "ez"], "z", "zs"),
        (["redshift", "z", "zerr"], "z", "redshift"),
        (["mag_z_lsst", "mag_err_z_lsst", "redshift"], "mag_z_lsst", "redshift"),
    ],
)
def test_trap_z_is_a_band_or_a_redshift(names, value, redshift):
    found = guess(names, survey="sdss" if "lsst" not in names[0] else "lsst")
    assert [pair[0] for pair in found.bands.values()] == [value]
    assert found.redshift == redshift


REFUSED = {
    "no bands": (lambda path: ColumnMap(bands={}), "at least one band"),
    "kind": (lambda path: ColumnMap(bands={"hsc-g": ("g", "e")}, kind="mag"), "got 'mag'"),
    "unknown band": (lambda path: ColumnMap(bands={"hsc-q": ("g", "e")}), "known band"),
    "column": (
        lambda path: read(path, columns=ColumnMap(bands={"hsc-g": ("g", "e_g")})),
        "Expected the columns e_g in .*; got name, ra",
    ),
    "nothing guessed": (lambda path: read(path), "Name the survey of the bands"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(tmp_path, case):
    build, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        build(write(tmp_path / "a.csv"))


def test_a_survey_alone_is_enough_for_common_names(tmp_path):
    galaxies = read(write(tmp_path / "a.csv"), survey="hsc")
    assert [p.band for p in galaxies[0].photometry] == ["hsc-g", "hsc-r"]
    assert galaxies[0].redshift == 0.5
    # Without a name: by position, or by file and row.
    assert [galaxy.id for galaxy in galaxies] == ["J010.0000+01.0000", "a-1", "a-2"]


@pytest.mark.parametrize(
    ("name", "survey"),
    [
        ("sdss_boss_dr10_annz.csv.gz", "sdss"),
        ("sdss_mgs_mlz.csv.gz", "sdss"),
        ("deep2_3dhst_ugrizy.csv.gz", "cfht"),
    ],
)
def test_real_tables_by_guess(shared_data, name, survey):
    path = shared_data / "photoz_catalogues" / name
    galaxies = list(islice(stream(path, survey=survey, chunk=500), 1_500))
    redshifts = [galaxy.redshift for galaxy in galaxies]
    assert None not in redshifts
    assert -0.01 < min(redshifts) < max(redshifts) < 6.0
    fluxes: dict[str, list[float]] = {}
    for galaxy in galaxies:
        for p in galaxy.photometry:
            fluxes.setdefault(p.band, []).append(p.flux)
    assert len(fluxes) == 5
    for band, values in fluxes.items():
        # Between magnitudes 11 and 28: no code is left, and no redshift is taken for a band.
        assert 1e-2 < np.median(values) < 1e4, band
        assert max(values) < 4e4, band


def test_real_table_by_map(shared_data):
    names = {f"bessell-{b}": f"ds_cfh12k.MAG{{}}_AUTO_{b.upper()}" for b in "bvri"}
    columns = ColumnMap(
        bands={band: (name.format(""), name.format("ERR")) for band, name in names.items()},
        redshift="ds_spectra.Z",
        id="ds_spectra.NUM",
        ra="ds_spectra.ALPHA",
        dec="ds_spectra.DELTA",
    )
    path = shared_data / "photoz_catalogues" / "vvds_wide.csv.gz"
    galaxies = list(islice(stream(path, columns=columns), 1_500))
    table = pd.read_csv(path, nrows=1_500)
    missing = 0
    for band, (value, error) in columns.bands.items():
        there = sum(any(p.band == band for p in galaxy.photometry) for galaxy in galaxies)
        good = table[value].between(0, 50) & table[error].between(0, 50, inclusive="right")
        assert there == good.sum()
        missing += len(table) - there
    assert missing > 100
