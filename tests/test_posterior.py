"""What `probmmae.load().condition(galaxy)` promises, whatever the weights."""

import json
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from tiny_model import some_galaxy, some_image, some_spectrum, tiny_checkpoint, tiny_network

import probmmae
from probmmae.galaxy import Aperture, Galaxy, Spectrum
from probmmae.inference.posterior import Model, ensemble
from probmmae.inference.redshifts import QUANTILES

GRID = np.arange(4000.0, 8000.0, 4.0) * u.AA
NORTH = Aperture(0 * u.arcsec, 2 * u.arcsec)
WHOLE = some_galaxy()


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny_network())


@pytest.mark.parametrize(
    "galaxy",
    [
        pytest.param(replace(WHOLE, photometry=(), spectra=()), id="images"),
        pytest.param(
            replace(WHOLE, images=WHOLE.images[:1], photometry=(), spectra=()), id="band"
        ),
        pytest.param(replace(WHOLE, images=(), spectra=()), id="photometry"),
        pytest.param(
            replace(WHOLE, images=(), spectra=(), photometry=WHOLE.photometry[2:3]), id="one flux"
        ),
        pytest.param(replace(WHOLE, images=(), photometry=()), id="spectrum"),
        pytest.param(replace(WHOLE, spectra=()), id="images and photometry"),
        pytest.param(WHOLE, id="everything"),
        pytest.param(some_galaxy(z=0.2), id="everything and redshift"),
        pytest.param(
            replace(some_galaxy(z=0.2), images=(), photometry=(), spectra=()), id="redshift"
        ),
    ],
)
def test_any_mix_of_measurements_gives_a_posterior(model: Model, galaxy: Galaxy) -> None:
    posterior = model.condition(galaxy, draws=5)
    spectrum = posterior.spectrum(GRID, NORTH)
    assert spectrum.flux.shape == (5, len(GRID))
    assert np.isfinite(spectrum.flux.value[posterior.redshift.samples < 0.6]).all()
    low, high = posterior.redshift.interval(0.9)
    assert 0 <= low < posterior.redshift.median < high
    assert posterior.image("hsc-r", draws=2).flux.shape == (2, 48, 48)


def test_what_is_conditioned_on_matters(model: Model) -> None:
    # A mix is not silently ignored: each of its parts changes the density.
    parts = [WHOLE, replace(WHOLE, spectra=()), replace(WHOLE, images=()),
             replace(WHOLE, photometry=())]  # fmt: skip
    medians = [model.condition(one, draws=2).redshift.median for one in parts]
    assert len({round(median, 7) for median in medians}) == len(parts)


def test_two_calls_give_the_same_draws(model: Model) -> None:
    posterior = model.condition(WHOLE, draws=8)
    again = model.condition(WHOLE, draws=8)
    other = model.condition(WHOLE, draws=8, seed=1)
    first = posterior.spectrum(GRID).flux.value
    np.testing.assert_array_equal(first, posterior.spectrum(GRID).flux.value)
    np.testing.assert_array_equal(first, again.spectrum(GRID).flux.value)
    np.testing.assert_allclose(
        posterior.spectrum(GRID, draws=3).flux.value, first[:3], rtol=1e-5, atol=1e-6
    )
    assert not np.allclose(first, other.spectrum(GRID).flux.value, equal_nan=True)
    np.testing.assert_array_equal(posterior.image("hsc-g").flux, again.image("hsc-g").flux)


def test_the_neighbours_in_a_list_do_not_matter(model: Model) -> None:
    alone = model.condition(WHOLE, draws=4)
    listed = model.condition([some_galaxy("other", seed=5), WHOLE, some_galaxy("third")], draws=4)
    np.testing.assert_allclose(
        listed[1].redshift.samples, alone.redshift.samples, rtol=1e-4, atol=1e-5
    )


def test_a_wavelength_has_one_flux_in_every_grid(model: Model) -> None:
    # The same pixels, asked as part of a longer grid: mean, calibration modes and scatter agree.
    posterior = model.condition(WHOLE, draws=6)
    whole = posterior.spectrum(GRID).flux.value
    part = posterior.spectrum(GRID[200:700]).flux.value
    # The wing of a line that lies beyond the end of a grid is not in it: the ends are left out.
    np.testing.assert_allclose(part[:, 9:-9], whole[:, 209:691], rtol=2e-3)


def test_apertures_asked_apart_are_those_asked_together() -> None:
    import torch

    from probmmae.inference.amortized import spectra_at

    posterior = Model(tiny_network()).condition(WHOLE, draws=6)
    apart = [posterior.spectrum(GRID, at).flux.value for at in (Aperture(), NORTH)]
    pixel = torch.tensor(GRID.value, dtype=torch.float32).expand(1, 2, -1)
    where = torch.tensor([[[0.0, 0.0, 1.5, 1.0], [0.0, 2.0, 1.5, 1.0]]])
    with torch.no_grad():
        together = spectra_at(
            posterior.network, posterior.context, posterior.observed, posterior.draws,
            where, pixel, pixel / 2000 / 2.3548,
        )[0].numpy()  # fmt: skip
    for index in range(2):
        seen = np.isfinite(apart[index])
        np.testing.assert_allclose(together[:, index][seen], apart[index][seen], rtol=1e-3)
    # And they are two places, not one.
    assert not np.allclose(apart[0], apart[1], equal_nan=True)


def test_neighbouring_apertures_are_correlated_and_distant_ones_less(model: Model) -> None:
    posterior = model.condition(WHOLE, draws=200)

    def level(dx: float) -> np.ndarray:
        flux = posterior.spectrum(GRID[:50], Aperture(dx * u.arcsec, 0 * u.arcsec)).flux.value
        return np.log(np.abs(np.nanmean(flux, axis=1)))

    start = level(0.0)
    near, far = (np.corrcoef(start, level(dx))[0, 1] for dx in (0.1, 8.0))
    # 200 draws: standard error 0.07 at most; fixed seed.
    assert near > 0.9
    assert far < near - 0.1


def test_a_known_redshift_is_that_of_every_draw(model: Model) -> None:
    galaxy = some_galaxy(z=0.2)
    known = model.condition(galaxy, draws=7)
    assert known.redshift.known == pytest.approx(0.2)
    np.testing.assert_allclose(known.redshift.samples, 0.2, rtol=1e-6)
    low, high = known.redshift.interval(0.95)
    assert 0.1999 < low < 0.2 < high < 0.2001
    hidden = model.condition(galaxy, draws=7, use_redshift=False)
    assert hidden.redshift.known is None
    assert np.ptp(hidden.redshift.samples) > 0.01


def test_bands_that_share_no_grid_do_not_shift_the_names() -> None:
    odd = some_image("hsc-r", scale=0.31)
    galaxy = replace(WHOLE, images=(odd, *WHOLE.images), photometry=(), spectra=())
    with pytest.warns(UserWarning, match="hsc-r"):
        posterior = Model(tiny_network()).condition(galaxy, draws=2)
    assert posterior.bands == ("hsc-g", "hsc-i")


def test_out_of_the_templates_reach_is_nan(model: Model) -> None:
    posterior = model.condition(some_galaxy(z=0.1), draws=4)
    flux = posterior.spectrum(np.array([1500.0, 5000.0, 12500.0]) * u.AA)
    assert np.isnan(flux.flux.value[:, [0, 2]]).all()
    assert np.isfinite(flux.mean.value[1])
    assert np.isnan(flux.quantiles([0.5])[0, 0].value)


def test_density_quantiles_and_samples_agree(model: Model) -> None:
    redshift = model.condition(WHOLE, draws=2000).redshift
    z = np.linspace(0, 3, 6001)
    assert np.trapezoid(redshift.pdf(z), z) == pytest.approx(1, abs=1e-4)
    levels = np.array([0.05, 0.5, 0.95])
    np.testing.assert_allclose(redshift.cdf(redshift.quantiles(levels)), levels, atol=1e-5)
    below = np.mean(redshift.samples < redshift.median)
    # Binomial: 4 standard errors, false alarm 6e-5.
    assert abs(below - 0.5) < 4 * np.sqrt(0.25 / 2000)


def test_qp_ensemble_is_the_density(model: Model) -> None:
    posteriors = [one.redshift for one in model.condition([WHOLE, some_galaxy("b", seed=3)])]
    made = ensemble(posteriors, id=np.array(["a", "b"]))
    z = np.linspace(0.02, 1.0, 300)
    for row, one in enumerate(posteriors):
        np.testing.assert_allclose(made.pdf(z)[row], one.pdf(z), atol=2e-3 * one.pdf(z).max())
        np.testing.assert_allclose(made.cdf(z)[row], one.cdf(z), atol=1e-3)
        for name, level in QUANTILES.items():
            assert made.ancil[name][row] == pytest.approx(float(one.quantiles(level)))
    assert list(made.ancil["id"]) == ["a", "b"]


def test_qp_holds_a_spike(model: Model) -> None:
    redshift = model.condition(some_galaxy(z=0.2), draws=2).redshift
    assert np.ravel(redshift.to_qp().ppf(0.5))[0] == pytest.approx(0.2, abs=1e-6)
    wide = model.condition(WHOLE, draws=2).redshift
    assert ensemble([redshift, wide]).ppf(0.5)[0, 0] == pytest.approx(0.2, abs=1e-3)


def test_arviz_round_trip(model: Model, tmp_path) -> None:
    import xarray

    posterior = model.condition(WHOLE, draws=5)
    tree = posterior.to_arviz(GRID, NORTH, resolution=1500, draws=4)
    tree.to_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    with xarray.open_datatree(tmp_path / "posterior.nc", engine="h5netcdf") as back:
        flux = back["posterior_predictive/flux"]
        assert flux.dims == ("chain", "draw", "wavelength")
        assert flux.attrs["units"] == "1e-17 erg/s/cm2/Angstrom"
        expected = posterior.spectrum(GRID, NORTH, resolution=1500, draws=4)
        np.testing.assert_array_equal(flux.values[0], expected.flux.value)
        np.testing.assert_array_equal(back["posterior/redshift"].values[0], expected.z)
        assert float(back["constant_data/dy"]) == 2.0


def test_specutils_and_fits(model: Model, tmp_path) -> None:
    draws = model.condition(some_galaxy(z=0.1), draws=6).spectrum(GRID, NORTH)
    exported = draws.to_specutils()
    assert exported.flux.unit.is_equivalent(u.erg / u.s / u.cm**2 / u.AA)
    np.testing.assert_allclose(exported.spectral_axis.to_value(u.AA), GRID.value)
    np.testing.assert_allclose(exported.uncertainty.array, draws.std.value)
    draws.to_fits(tmp_path / "spectrum.fits")
    with fits.open(tmp_path / "spectrum.fits") as opened:
        np.testing.assert_allclose(opened["SPECTRUM"].data["mean"], draws.mean.value)
        np.testing.assert_allclose(opened["DRAWS"].data, draws.flux.value, rtol=1e-6)
        np.testing.assert_allclose(opened["Z"].data["z"], draws.z)
        assert opened["DRAWS"].header["APER_DY"] == 2.0
        assert opened["SPECTRUM"].columns["wavelength"].unit == "Angstrom"
    assert [one.name for one in tmp_path.iterdir()] == ["spectrum.fits"]


def test_resolution_broadens_and_keeps_the_flux(model: Model) -> None:
    posterior = model.condition(some_galaxy(z=0.1), draws=1)
    fine, coarse = (posterior.spectrum(GRID, resolution=r).flux.value[0] for r in (4000, 150))
    assert np.std(np.diff(coarse)) < np.std(np.diff(fine))
    assert coarse.mean() == pytest.approx(fine.mean(), rel=0.03)


def test_a_checkpoint_answers_as_its_network(model: Model, tmp_path) -> None:
    loaded = probmmae.load(tiny_checkpoint(tmp_path / "tiny"))
    np.testing.assert_array_equal(
        loaded.condition(WHOLE, draws=3).spectrum(GRID).flux.value,
        model.condition(WHOLE, draws=3).spectrum(GRID).flux.value,
    )


def test_a_checkpoint_of_another_network_is_refused(tmp_path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    index = json.loads((folder / "checkpoint.json").read_text())
    index["recipe"]["model"]["width"] = 64
    (folder / "checkpoint.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="this version's network"):
        probmmae.load(folder)


@pytest.mark.parametrize(
    ("wavelength", "options", "error", "message"),
    [
        (np.arange(4000, 5000), {}, TypeError, "as a Quantity; got a bare ndarray"),
        (GRID.value * u.s, {}, u.UnitConversionError, "unit of length .* got s"),
        (GRID[::-1], {}, ValueError, "increasing"),
        (GRID[:1], {}, ValueError, "at least two"),
        (-GRID[::-1], {}, ValueError, "positive"),
        (np.full(3, np.nan) * u.AA, {}, ValueError, "positive, increasing"),
        (GRID, {"resolution": 0}, ValueError, "positive resolution"),
        (GRID, {"resolution": np.ones(3)}, ValueError, f"each of {len(GRID)} pixels"),
        (GRID, {"resolution": 100 * u.km / u.s}, u.UnitConversionError, "pure number"),
        (GRID, {"draws": 9}, ValueError, "between 1 and 4 draws; got 9"),
        (GRID, {"draws": 0}, ValueError, "between 1 and 4 draws; got 0"),
        (GRID, {"aperture": (0, 0)}, TypeError, "as an Aperture; got tuple"),
    ],
)
def test_spectrum_refuses(model: Model, wavelength, options, error, message) -> None:
    posterior = model.condition(some_galaxy(z=0.1), draws=4)
    with pytest.raises(error, match=message):
        posterior.spectrum(wavelength, **options)


def test_other_length_units_are_welcome(model: Model) -> None:
    posterior = model.condition(some_galaxy(z=0.1), draws=2)
    np.testing.assert_allclose(
        posterior.spectrum(GRID.to(u.micron)).flux.value, posterior.spectrum(GRID).flux.value
    )


@pytest.mark.parametrize(
    ("what", "options", "error", "message"),
    [
        ("a path", {}, TypeError, "Expected a Galaxy or a list of them; got str"),
        ([], {}, ValueError, "at least one galaxy"),
        (Galaxy("void"), {}, ValueError, "'void', which has none"),
        (replace(some_galaxy(z=0.1), images=(), photometry=(), spectra=()),
         {"use_redshift": False}, ValueError, "which has none"),
        (WHOLE, {"draws": 0}, ValueError, "at least 1 draw"),
    ],
)  # fmt: skip
def test_condition_refuses(model: Model, what, options, error, message) -> None:
    with pytest.raises(error, match=message):
        model.condition(what, **options)


@pytest.mark.parametrize("level", [0.0, 1.0, 50.0, np.nan])
def test_redshift_levels_lie_between_0_and_1(model: Model, level: float) -> None:
    redshift = model.condition(WHOLE, draws=2).redshift
    with pytest.raises(ValueError, match="between 0 and 1"):
        redshift.quantiles([0.5, level])
    with pytest.raises(ValueError, match="between 0 and 1"):
        redshift.interval(level)


def test_spectra_of_a_galaxy_may_differ_in_length(model: Model) -> None:
    long = some_spectrum(dx=1.0)
    short = Spectrum.in_batch_units(
        long.wavelength[:900], long.flux[:900], ivar=long.ivar[:900], sigma=long.sigma[:900],
        aperture=long.aperture,
    )  # fmt: skip
    galaxy = replace(WHOLE, spectra=(WHOLE.spectra[0], short))
    assert model.condition(galaxy, draws=2).spectrum(GRID).flux.shape == (2, len(GRID))
