"""Many galaxies to one file: rows in order, bounded memory, nothing half written."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
import qp
import xarray
from tiny_model import some_galaxy, some_photometry, tiny_network

from probmmae.galaxy import Aperture, Galaxy, Scalar
from probmmae.inference.catalog import photoz, spectra
from probmmae.inference.posterior import Model

GRID = np.arange(4000.0, 7000.0, 10.0) * u.AA
PLACES = [Aperture(), Aperture(1 * u.arcsec, -1 * u.arcsec)]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny_network())


def rows(count: int) -> list[Galaxy]:
    """Photometry of every galaxy, a redshift for every other."""
    return [
        Galaxy(
            f"galaxy {row}",
            photometry=some_photometry(row)[: 1 + row % 5],
            scalars={"redshift": Scalar(0.1 + 0.01 * row)} if row % 2 else {},
        )
        for row in range(count)
    ]


def test_photoz_rows_are_the_galaxies(model: Model, tmp_path: Path) -> None:
    galaxies = rows(11)
    used = photoz(model, galaxies, tmp_path / "photoz.hdf5", batch_size=4)
    ensemble = qp.read(str(tmp_path / "photoz.hdf5"))
    assert ensemble.npdf == used.galaxies == 11
    assert [name.decode() for name in ensemble.ancil["id"]] == [one.id for one in galaxies]
    true = [np.nan if one.redshift is None else one.redshift for one in galaxies]
    np.testing.assert_allclose(ensemble.ancil["z_true"], true, equal_nan=True)
    z = np.linspace(0.01, 1.2, 200)
    for row in (0, 6, 10):
        one = model.condition(galaxies[row], draws=1, use_redshift=False).redshift
        np.testing.assert_allclose(ensemble.pdf(z)[row], one.pdf(z), atol=3e-3 * one.pdf(z).max())
        assert ensemble.ancil["z_median"][row] == pytest.approx(one.median, abs=1e-4)


def test_photoz_does_not_look_at_the_redshift(model: Model, tmp_path: Path) -> None:
    (galaxy,) = rows(1)
    for name, z in (("low", 0.01), ("high", 0.9)):
        told = replace(galaxy, scalars={"redshift": Scalar(z)})
        photoz(model, [told], tmp_path / f"{name}.hdf5")
    low, high = (qp.read(str(tmp_path / f"{name}.hdf5")) for name in ("low", "high"))
    np.testing.assert_array_equal(low.ancil["z_median"], high.ancil["z_median"])


def test_batches_do_not_matter(model: Model, tmp_path: Path) -> None:
    for size in (1, 5, 64):
        photoz(model, rows(7), tmp_path / f"{size}.hdf5", batch_size=size)
    one, *rest = (qp.read(str(tmp_path / f"{size}.hdf5")) for size in (1, 5, 64))
    for other in rest:
        np.testing.assert_allclose(other.ancil["z_median"], one.ancil["z_median"], atol=1e-5)


def test_no_more_than_a_batch_is_held(model: Model, tmp_path: Path) -> None:
    # The source notes how far it was read when each batch is reported done.
    taken = 0

    def source() -> Iterator[Galaxy]:
        nonlocal taken
        for galaxy in rows(40):
            taken += 1
            yield galaxy

    ahead: list[int] = []
    photoz(
        model, source(), tmp_path / "photoz.hdf5", batch_size=8,
        watch=lambda done: ahead.append(taken - done),
    )  # fmt: skip
    assert len(ahead) == 5
    assert max(ahead) == 0


def test_a_grid_too_short_is_told(model: Model, tmp_path: Path) -> None:
    used = photoz(model, rows(3), tmp_path / "short.hdf5", z_max=0.2)
    assert used.beyond == 3
    assert "beyond the grid: 3" in used.describe()


def test_galaxies_without_measurements_are_left_out_and_told(model: Model, tmp_path: Path) -> None:
    bare = Galaxy("bare", scalars={"redshift": Scalar(0.3)})
    used = photoz(model, [bare, *rows(2), Galaxy("void")], tmp_path / "photoz.hdf5")
    assert (used.galaxies, used.left_out) == (2, 2)
    assert "nothing was measured of them: 2" in used.describe()
    assert "photometry hsc-r (1 of 2)" in used.describe()
    assert qp.read(str(tmp_path / "photoz.hdf5")).npdf == 2


def test_spectra_file(model: Model, tmp_path: Path) -> None:
    galaxies = [*rows(3), some_galaxy("four")]
    path = tmp_path / "posterior.nc"
    used, kept = spectra(
        model, galaxies, path, wavelength=GRID, apertures=PLACES, draws=4, batch_size=3, keep=2
    )
    assert used.redshifts == 1
    assert [posterior.galaxy.id for posterior, _ in kept] == ["galaxy 0", "galaxy 1"]
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        flux = tree["posterior_predictive/flux"]
        assert dict(flux.sizes) == {
            "chain": 1, "draw": 4, "galaxy": 4, "aperture": 2, "wavelength": len(GRID),
        }  # fmt: skip
        assert flux.attrs["units"] == "1e-17 erg/s/cm2/Angstrom"
        assert tree["posterior_predictive/wavelength"].attrs["units"] == "Angstrom"
        assert list(tree["posterior/galaxy"].values) == [one.id for one in galaxies]
        np.testing.assert_allclose(
            tree["constant_data/redshift_given"].values, [np.nan, 0.11, np.nan, np.nan], rtol=1e-6
        )
        np.testing.assert_array_equal(tree["constant_data/dx"].values, [0.0, 1.0])
        # Every row is the posterior of that galaxy alone, and an aperture that aperture.
        alone = model.condition(galaxies[3], draws=4)
        np.testing.assert_allclose(
            tree["posterior/redshift"].sel(galaxy="four").values[0], alone.redshift.samples,
            rtol=1e-4,
        )  # fmt: skip
        expected = alone.spectrum(GRID, PLACES[1]).flux.value
        stored = flux.sel(galaxy="four", aperture=1).values[0]
        np.testing.assert_allclose(stored, expected, rtol=0.02)


def test_arviz_reads_the_spectra(model: Model, tmp_path: Path) -> None:
    import arviz

    spectra(model, rows(2), tmp_path / "p.nc", wavelength=GRID, apertures=PLACES[:1], draws=3)
    data = arviz.from_netcdf(str(tmp_path / "p.nc"))
    assert {"posterior", "posterior_predictive", "constant_data"} <= set(data.groups())


class _LostError(Exception):
    pass


def _breaks() -> Iterator[Galaxy]:
    yield from rows(5)
    raise _LostError


@pytest.mark.parametrize("verb", ["photoz", "spectra"])
def test_a_failure_leaves_the_older_file(model: Model, tmp_path: Path, verb: str) -> None:
    path = tmp_path / "out"
    path.write_text("older")

    def run(galaxies: Iterator[Galaxy]) -> None:
        if verb == "photoz":
            photoz(model, galaxies, path, batch_size=2)
        else:
            spectra(
                model, galaxies, path, wavelength=GRID, apertures=PLACES, draws=2, batch_size=2
            )

    with pytest.raises(_LostError):
        run(_breaks())
    with pytest.raises(ValueError, match="at least one galaxy with a measurement; got none of 1"):
        run(iter([Galaxy("void")]))
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"z_step": 0.0}, "0 < z_step < z_max"),
        ({"z_max": -1.0}, "0 < z_step < z_max"),
        ({"batch_size": 0}, "at least 1 galaxy in a batch"),
    ],
)
def test_photoz_refuses(model: Model, tmp_path: Path, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        photoz(model, rows(2), tmp_path / "photoz.hdf5", **options)


def test_the_folder_must_be_there(model: Model, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="existing folder"):
        photoz(model, rows(2), tmp_path / "nowhere" / "photoz.hdf5")
    with pytest.raises(IsADirectoryError, match="got the folder"):
        photoz(model, rows(2), tmp_path)
