"""Recognising files, and what is said of those that are broken or unknown."""

import gzip

import h5py
import numpy as np
import pytest
from astropy.io import fits

from probmmae.formats import FORMATS, read, recognise, stream


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_same_shape(name):
    module = FORMATS[name]
    assert isinstance(module.DESCRIPTION, str)
    assert "\n" not in module.DESCRIPTION
    assert callable(module.recognise)
    assert callable(module.read)


@pytest.mark.parametrize("content", [b"hello", b"SIMPLE  =                    T", b"\x00" * 4000])
@pytest.mark.parametrize("name", ["a.txt", "a.npy"])
def test_unknown_file_lists_the_formats(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="Expected a file of a known format") as raised:
        recognise(tmp_path / name)
    assert all(module.DESCRIPTION in str(raised.value) for module in FORMATS.values())


def test_fits_without_anything_known_lists_the_formats(tmp_path):
    fits.PrimaryHDU(np.ones((3, 3))).writeto(tmp_path / "a.fits")
    with pytest.raises(ValueError, match="Expected a file of a known format"):
        read(tmp_path / "a.fits")


def test_other_hdf5_lists_the_formats(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["other"] = 1
    with pytest.raises(ValueError, match="Expected a file of a known format"):
        read(tmp_path / "a.hdf5")


def test_empty_folder_and_absent(tmp_path):
    (tmp_path / "empty.fits").touch()
    with pytest.raises(ValueError, match="which is empty"):
        read(tmp_path / "empty.fits")
    with pytest.raises(IsADirectoryError, match="got the folder"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="which is not there"):
        read(tmp_path / "nothing.fits")
    with pytest.raises(ValueError, match="at least one file; got none"):
        read([])


@pytest.fixture
def big(tmp_path):
    """A valid spec file, several FITS blocks long."""
    n = 4000
    columns = [
        fits.Column(name, "E", array=np.linspace(3.5, 3.9, n))
        for name in ["flux", "loglam", "ivar"]
    ]
    table = fits.BinTableHDU.from_columns(columns, name="COADD")
    path = tmp_path / "spec-1-2-3.fits"
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    assert recognise(path) == "sdss"
    return path


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_fits_is_said_to_be_damaged(tmp_path, big, share, compressed):
    content = gzip.compress(big.read_bytes()) if compressed else big.read_bytes()
    path = tmp_path / ("cut.fits.gz" if compressed else "cut.fits")
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"Expected a whole .*file; got .*cut\.fits"):
        read(path)


def test_text_called_fits_is_said_to_be_damaged(tmp_path):
    (tmp_path / "a.fits").write_text("not a fits file\n" * 300)
    with pytest.raises(ValueError, match="Expected a whole FITS file"):
        read(tmp_path / "a.fits")


def test_truncated_tables_and_hdf5(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="Expected a whole table"):
        read(tmp_path / "a.parquet")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" * 9999)[:40])
    with pytest.raises(ValueError, match="Expected a whole compressed file"):
        read(tmp_path / "a.csv.gz")
    with h5py.File(tmp_path / "whole.hdf5", "w") as file:
        file["image"], file["spectrum/flux"] = np.ones((9, 5, 64, 64)), np.ones((9, 5))
    content = (tmp_path / "whole.hdf5").read_bytes()
    (tmp_path / "cut.hdf5").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="Expected a whole HDF5 file"):
        read(tmp_path / "cut.hdf5")


def test_unknown_format_and_option(big):
    with pytest.raises(ValueError, match=r"Expected a format among sdss, desi, .*; got 'sdsss'"):
        read(big, format="sdsss")
    with pytest.raises(TypeError, match="colour"):
        read(big, colour="red")


def test_several_files_are_read_in_turn(big):
    assert [galaxy.id for galaxy in stream([big, str(big)])] == ["spec-1-2-3"] * 2
