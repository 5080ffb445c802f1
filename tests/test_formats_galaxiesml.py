"""GalaxiesML-Spectra, written to the layout of the published file."""

import h5py
import numpy as np
import pytest

from probmmae.formats import read, recognise, stream

N = 5
WAVE = np.concatenate([3600.0 + 0.8 * np.arange(781), [0.0, 0.0]])


def write(path, *, drop=(), **changes):
    rng = np.random.default_rng(0)
    contents = {
        "image": rng.normal(0.0, 6.30957, (N, 5, 64, 64)),
        "spectrum/flux": np.ones((N, WAVE.size)),
        "spectrum/ivar": np.full((N, WAVE.size), 4.0),
        "spectrum/wave": np.tile(WAVE, (1, 1)),
        "DESI_fibermap/DESI_redshift": np.array([0.5, -0.001, 0.7, 0.2, 1.0]),
        "DESI_fibermap/MORPHTYPE": np.array([b"DEV", b"DEV", b"PSF", b"REX", b"SER"]),
        "HSC_metadata/g_cmodel_mag": np.full(N, 22.5),
        "HSC_metadata/g_cmodel_magerr": np.full(N, 0.01),
        "targetid": np.array([str(i).encode() for i in range(N)]),
        "object_id": np.arange(N),
    }
    contents |= changes
    contents["spectrum/ivar"][3] = 0.0
    contents["image"][0, 2, 10, 20] = np.nan
    with h5py.File(path, "w") as file:
        for name, value in contents.items():
            if name not in drop:
                file[name] = value
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "galaxies.hdf5")


pytestmark = pytest.mark.filterwarnings("ignore:.*image noise is estimated:UserWarning")


def test_layout(path):
    assert recognise(path) == "galaxiesml"
    first = read(path, chunk=2)[0]
    assert first.id == "0"
    assert first.redshift == 0.5
    assert [image.band for image in first.images] == [f"hsc-{letter}" for letter in "grizy"]
    # sigma 6.3 counts at 27 mag is 0.1 nanomaggies; MAD of 1,800 edge pixels: 20 % is 6 sigma.
    assert first.images[0].ivar[5, 5] == pytest.approx(100.0, rel=0.4)
    # East to the right; NaN is missing.
    assert np.argwhere(first.images[2].ivar == 0).tolist() == [[10, 63 - 20]]
    (spectrum,) = first.spectra
    assert spectrum.wavelength.size == 781  # padding is cut
    assert spectrum.flux[0] == pytest.approx(0.79)
    assert first.photometry[0].flux == pytest.approx(1.0)


def test_negative_redshifts_and_point_sources_by_option(path):
    def ids(**options):
        return [galaxy.id for galaxy in read(path, **options)]

    assert ids() == ["0", "3", "4"]
    assert ids(negative_redshifts=True) == ["0", "1", "3", "4"]
    assert ids(point_sources=True) == ["0", "2", "3", "4"]


def test_galaxy_without_a_spectrum_keeps_its_images(path):
    third = read(path)[1]
    assert third.spectra == ()
    assert len(third.images) == 5


def test_chunks_do_not_matter(path):
    for chunk in [1, 3, 100]:
        assert [str(g) for g in stream(path, chunk=chunk)] == [str(g) for g in read(path)]


def test_missing_dataset_is_named(tmp_path):
    path = write(tmp_path / "a.hdf5", drop=("spectrum/wave",))
    with pytest.raises(ValueError, match=r"Expected the dataset spectrum/wave .* Check the kind"):
        read(path)


def test_guesses_are_said(path):
    with pytest.warns(UserWarning, match="noise is estimated from the edge of each frame"):
        read(path)
