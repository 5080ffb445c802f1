"""Redshifts from photometry alone: tables and their traps, training, answers, strangers."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import qp
import torch
from typer.testing import CliRunner

import probmmae
from probmmae.batch import PhotometryTable
from probmmae.cli import app
from probmmae.config import read_toml
from probmmae.formats import read
from probmmae.galaxy import Galaxy, Photometry
from probmmae.inference.catalog import photoz
from probmmae.inference.posterior import load as load_whole
from probmmae.photometric.answers import PhotometricModel
from probmmae.photometric.footprint import (
    UNSEEN_BANDS,
    UNSEEN_COLOUR,
    UNSEEN_MAGNITUDE,
    Footprint,
)
from probmmae.photometric.network import (
    Features,
    PhotometricNetwork,
    features_of,
    typical_errors,
)
from probmmae.photometric.recipe import PhotometricRecipe, parse_photometric
from probmmae.photometric.sample import read_sample
from probmmae.photometric.training import _masks, fit, networks, passes_of, train

RECIPES = Path(probmmae.__file__).parent / "recipes"
TABLES = {
    "sdss_boss": ("sdss_boss_dr10_annz", 22846),
    "sdss_mgs": ("sdss_mgs_mlz", 7500),
    "deep2_3dhst": ("deep2_3dhst_ugrizy", 11799),
    "zcosmos": ("zcosmos_bright_subaru", 12352),
    "vvds_wide": ("vvds_wide", 7368),
    "vvds_deep": ("vvds_deep", 4103),
    "jwst_hst": ("jwst_hst_primer_jades", 4257),
    "hdfn": ("hdfn_fs99", 94),
}
"""Recipe, file, and galaxies in it that have photometry and the redshift of a galaxy."""

BANDS = ("u", "g", "r", "i", "z")
SMALL = {"hidden": 16, "components": 3, "members": 2, "folds": 4, "epochs": 40, "batch": 64}
CONTENT = {
    "catalogue": {
        "columns": {
            "redshift": "zs",
            "bands": {f"sdss-{band}": [band, f"e{band}"] for band in BANDS},
        },
        "held_out": 0.25,
    },
    "fit": SMALL,
}


def recipe_of(name: str) -> PhotometricRecipe:
    path = RECIPES / f"photoz_{name}.toml"
    return parse_photometric(read_toml(path), str(path))


def small_recipe() -> PhotometricRecipe:
    return parse_photometric(CONTENT, "here")


def catalogue(rows: int, seed: int = 0) -> pd.DataFrame:
    """Magnitudes whose colours are a function of redshift, with errors of 0.05; some lack u."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.05, 0.8, rows)
    brightness = rng.uniform(19, 21, rows)
    slope = [1.5 - z, 1.2 * z, 0.0 * z, -0.4 * z, -0.9 * z**2]
    frame = pd.DataFrame({"zs": z})
    for band, step in zip(BANDS, slope, strict=True):
        frame[band] = brightness + step + 0.05 * rng.normal(size=rows)
        frame[f"e{band}"] = 0.05
    frame.loc[rng.random(rows) < 0.2, "u"] = -99.0
    return frame


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "table.csv"
    catalogue(800).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def trained(
    table: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PhotometricModel, Path]:
    folder = tmp_path_factory.mktemp("model")
    return train(small_recipe(), table, folder), folder


def test_shipped_recipes_are_recipes() -> None:
    paths = sorted(RECIPES.glob("photoz_*.toml"))
    assert len(paths) == 9
    for path in paths:
        recipe = parse_photometric(read_toml(path), str(path))
        assert min(recipe.catalogue.wavelengths) > 1000
        assert len(set(recipe.catalogue.wavelengths)) == len(recipe.catalogue.wavelengths)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_real_tables_are_read(shared_data: Path, name: str) -> None:
    file, galaxies = TABLES[name]
    sample = read_sample(
        recipe_of(name).catalogue, shared_data / "photoz_catalogues" / f"{file}.csv.gz"
    )
    assert len(sample) == galaxies
    assert float(sample.z.min()) > 0.001
    seen = sample.table.ivar > 0
    assert bool(seen.any(1).all())
    assert bool((sample.table.flux[~seen] == 0).all())
    # A code read as a magnitude would be a flux of 1e48 or 1e-31 nanomaggies.
    magnitude = 22.5 - 2.5 * torch.log10(sample.table.flux[seen].abs().clamp(min=1e-9))
    assert float(magnitude.min()) > 10
    assert 0.15 < np.mean(sample.held_out(0.2)) < 0.27


def some_rows(shared_data: Path, file: str, rows: str, folder: Path) -> tuple[Path, pd.DataFrame]:
    """A table of the rows of a real one that a query picks."""
    frame = pd.read_csv(shared_data / "photoz_catalogues" / f"{file}.csv.gz").query(rows)
    assert len(frame) > 30
    frame.to_csv(folder / "some.csv", index=False)
    return folder / "some.csv", frame


def test_trap_errors_of_thousands_are_faint_fluxes(shared_data: Path, tmp_path: Path) -> None:
    path, frame = some_rows(shared_data, "sdss_boss_dr10_annz", "MAGERR_U > 90", tmp_path)
    u = [one.photometry[0] for one in read(path, columns=recipe_of("sdss_boss").catalogue.columns)]
    assert {one.band for one in u} == {"sdss-u"}
    assert len(u) == len(frame)
    faint = u[int(frame["MAGERR_U"].argmax())]
    assert faint.flux * faint.ivar**0.5 < 1e-3
    # The sky of SDSS in u: about 22nd magnitude at five sigma.
    assert 0.05 < faint.ivar**-0.5 < 5


def test_trap_negative_fluxes_stay_beside_codes(shared_data: Path, tmp_path: Path) -> None:
    path, frame = some_rows(shared_data, "jwst_hst_primer_jades", "f435w < 0", tmp_path)
    sample = read_sample(recipe_of("jwst_hst").catalogue, path)
    f435w, seen = sample.table.flux[:, 0], sample.table.ivar[:, 0] > 0
    assert int((~seen).sum()) == int((frame["f435w"] == -99).sum())
    assert int((f435w < 0).sum()) == int((frame["f435w"] > -99).sum()) > 100


def test_trap_stars_are_left_out(shared_data: Path, tmp_path: Path) -> None:
    rows = "`ds_spectra.Z` < 0.1"
    path, frame = some_rows(shared_data, "vvds_deep", rows, tmp_path)
    stars = int((frame["ds_spectra.Z"] == 0).sum())
    assert stars > 400
    sample = read_sample(recipe_of("vvds_deep").catalogue, path)
    assert 0 < len(sample) <= len(frame) - stars


def test_hdf5_tables_are_read(tmp_path: Path) -> None:
    frame = catalogue(5)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name in frame:
            file[f"photometry/{name}"] = frame[name].to_numpy()
    frame.to_csv(tmp_path / "a.csv", index=False)
    config = small_recipe().catalogue
    one, other = (read_sample(config, tmp_path / f"a.{kind}") for kind in ("hdf5", "csv"))
    assert torch.equal(one.table.ivar, other.table.ivar)
    assert torch.equal(one.z, other.z)


def test_identity_does_not_depend_on_the_order_of_rows(table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table)
    frame.iloc[::-1].to_csv(tmp_path / "b.csv", index=False)
    config = small_recipe().catalogue
    one, other = read_sample(config, table), read_sample(config, tmp_path / "b.csv")
    np.testing.assert_array_equal(one.fraction, other.fraction[::-1])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda frame: frame.drop(columns="er"), "columns er"),
        (lambda frame: frame.assign(zs=np.nan), "0 have a redshift"),
        (lambda frame: frame.assign(zs=-1.0), "0 have a redshift"),
        (lambda frame: frame.assign(zs=0.0), "redshift above 0.001"),
        (lambda frame: frame.assign(**dict.fromkeys(BANDS, 99.0)), "0 a flux"),
        (lambda frame: frame.iloc[:1], "folds"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, change, told: str) -> None:
    change(catalogue(8)).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(ValueError, match=told):
        train(small_recipe(), tmp_path / "bad.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "flux", "flux_unit": "AA"}, "AA|Angstrom"),
        ({"kind": "counts"}, "kind"),
        ({"redshift": None}, "column of the redshift"),
        ({"colour": "g-r"}, "colour"),
        ({"bands": {"strange-x": ["u", "eu"]}}, "strange-x"),
    ],
)
def test_bad_recipes_are_refused(change: dict, told: str) -> None:
    columns = CONTENT["catalogue"]["columns"] | change
    with pytest.raises(ValueError, match=told):
        parse_photometric({"catalogue": {"columns": columns}}, "here")


def test_shares_that_leave_no_unit_are_refused() -> None:
    with pytest.raises(ValueError, match="dropout"):
        parse_photometric(CONTENT | {"fit": {"dropout": 1.0}}, "here")


def test_training_comes_back_from_its_folder(trained, table: Path, tmp_path: Path) -> None:
    model, folder = trained
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    again = probmmae.load(folder)
    assert isinstance(again, PhotometricModel)
    assert again.recipe == model.recipe
    assert again.pit_law == model.pit_law
    assert again.footprint == model.footprint
    galaxies = list(again.galaxies([table]))[:7]
    grid = np.linspace(0, 1.5, 301)
    one, other = (some.tabulate(galaxies, grid) for some in (model, again))
    np.testing.assert_array_equal(one.pdf(grid), other.pdf(grid))
    assert "recalibrated" in one.ancil["repair"][0].decode()
    raw = model.tabulate(galaxies, grid, repair=False)
    assert "not repaired" in raw.ancil["repair"][0].decode()
    with pytest.raises(ValueError, match="photometry alone"):
        load_whole(folder)


def test_the_same_recipe_gives_the_same_weights(trained, table: Path, tmp_path: Path) -> None:
    _, folder = trained
    train(small_recipe(), table, tmp_path)
    first, second = (
        json.loads((one / "checkpoint.json").read_text())["sha256"] for one in (folder, tmp_path)
    )
    assert first == second


def test_answers_of_held_out_galaxies(trained, table: Path) -> None:
    # Wide bounds: what is tested is that redshifts are learned and held-out galaxies answered.
    model, _ = trained
    sample = read_sample(model.recipe.catalogue, table)
    held = sample.take(sample.held_out(0.25))
    assert model.trained_on == model.pit_law.galaxies == len(sample) - len(held)
    features = model.features(held.table)
    density = model.density(features)
    error = density.icdf(torch.full((1, len(held)), 0.5))[0] - held.z
    assert float(error.abs().median()) < 0.05
    below = density.cdf(held.z).double().numpy()[:, None]
    pit = model.pit_map(features, density).cdf(below)
    assert np.mean(np.abs(pit - 0.5) < 0.45) > 0.75


def test_few_galaxies_leave_the_densities_as_they_are(table: Path, tmp_path: Path) -> None:
    recipe = small_recipe()
    few = read_sample(recipe.catalogue, table)
    few = few.take(np.arange(len(few)) < 280)
    model = fit(replace(recipe, fit=replace(recipe.fit, epochs=1)), few)
    assert model.pit_law is None
    galaxies = list(model.galaxies([table]))[:5]
    grid = np.linspace(0, 1.5, 301)
    said, raw = (model.tabulate(galaxies, grid, repair=repair) for repair in (True, False))
    np.testing.assert_array_equal(said.pdf(grid), raw.pdf(grid))
    assert "280 galaxies are too few" in said.ancil["repair"][0].decode()


def test_command_line_trains_and_answers(table: Path, tmp_path: Path) -> None:
    lines = ["[catalogue]", "held_out = 0.25", "[catalogue.columns]", 'redshift = "zs"']
    lines += ["[catalogue.columns.bands]"]
    lines += [f'sdss-{band} = ["{band}", "e{band}"]' for band in BANDS]
    lines += ["[fit]", *(f"{name} = {value}" for name, value in (SMALL | {"epochs": 1}).items())]
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("\n".join(lines))

    def call(*arguments: str | Path):
        return CliRunner().invoke(app, [str(one) for one in arguments])

    refused = call("train", recipe, "--out", tmp_path / "run")
    assert refused.exit_code == 2
    assert "--data" in refused.stderr
    assert call("train", recipe, "--data", table, "--out", tmp_path / "run").exit_code == 0
    bare = pd.read_csv(table).drop(columns="zs")
    bare.to_csv(tmp_path / "bare.csv", index=False)
    done = call("photoz", tmp_path / "bare.csv", "--checkpoint", tmp_path / "run",
                "-o", tmp_path / "out.hdf5")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "unlike_training" in done.stdout
    ensemble = qp.read(str(tmp_path / "out.hdf5"))
    assert ensemble.npdf == len(bare)
    assert np.isnan(ensemble.ancil["z_true"]).all()
    assert set(np.unique(ensemble.ancil["unlike_training"])) <= set(range(8))
    refused = call("spectrum", tmp_path / "bare.csv", "--checkpoint", tmp_path / "run",
                   "-o", tmp_path / "out.nc")  # fmt: skip
    assert refused.exit_code == 2


def test_batches_do_not_matter(trained, table: Path, tmp_path: Path) -> None:
    model, _ = trained
    for size in (1, 100):
        galaxies = list(model.galaxies([table]))[:30]
        photoz(model, galaxies, tmp_path / f"{size}.hdf5", batch_size=size)
    one, other = (qp.read(str(tmp_path / f"{size}.hdf5")) for size in (1, 100))
    np.testing.assert_allclose(one.ancil["z_median"], other.ancil["z_median"], atol=1e-5)
    np.testing.assert_array_equal(one.ancil["unlike_training"], other.ancil["unlike_training"])


def test_galaxies_made_to_be_unlike(trained, table: Path) -> None:
    model, _ = trained
    galaxies = list(model.galaxies([table]))
    usual = next(one for one in galaxies if len(one.photometry) == 5)

    def changed(factors: dict[str, float], keep: tuple[str, ...] = BANDS) -> Galaxy:
        """Fluxes times factors, signal-to-noise as it is; only the bands of `keep`."""
        return replace(
            usual,
            photometry=tuple(
                Photometry.in_batch_units(one.band, one.flux * factor, ivar=one.ivar / factor**2)
                for one in usual.photometry
                if (factor := factors.get(one.band[-1], 1.0)) and one.band[-1] in keep
            ),
        )

    bright = changed(dict.fromkeys(BANDS, 100.0))
    red = changed({"g": 0.4, "u": 0.4})
    told = model.tabulate(
        [usual, bright, red, changed({}, ("g", "z")), changed({}, ())], np.linspace(0, 1, 11)
    ).ancil["unlike_training"]
    assert told[0] == 0
    assert told[1] == UNSEEN_MAGNITUDE
    assert told[2] & UNSEEN_COLOUR
    assert told[3] & UNSEEN_BANDS
    assert told[4] == UNSEEN_BANDS
    everybody = model.footprint.unlike(model.features(model.bands.table(galaxies)))
    assert np.mean(everybody > 0) < 0.03


def test_strangers_get_no_needles() -> None:
    torch.manual_seed(0)
    network = PhotometricNetwork(5, small_recipe().fit)
    width = network.hidden[0].in_features
    with torch.no_grad():
        density = network(1e4 * torch.randn(500, width))
        highest = density.log_prob(torch.linspace(0, 2, 2001)[:, None]).max()
    # Half of a Gaussian of width 5e-3, at z = 0.
    assert float(highest) < np.log(2 / (5e-3 * np.sqrt(2 * np.pi))) + 1e-3


def test_shallow_photometry_is_unlike_and_fresh_noise_is_not() -> None:
    rng = np.random.default_rng(1)
    true = rng.uniform(5, 50, (500, 1)) * np.ones(3)

    def observed(error: float) -> Features:
        flux = torch.tensor(true + error * rng.normal(size=true.shape), dtype=torch.float32)
        wavelength = torch.tensor([4000.0, 6000.0, 8000.0]).expand_as(flux)
        table = PhotometryTable(flux, torch.full_like(flux, error**-2), wavelength)
        return features_of(table, torch.ones(3))

    seen = Footprint.of(observed(1.0))
    assert np.mean(seen.unlike(observed(1.0)) > 0) < 0.05
    assert np.mean(seen.unlike(observed(500.0)) & UNSEEN_MAGNITUDE > 0) > 0.95


def test_progress_counts_passes(table: Path) -> None:
    recipe = small_recipe()
    recipe = replace(recipe, fit=replace(recipe.fit, epochs=2))
    sample = read_sample(recipe.catalogue, table)
    told: list[int] = []
    fit(recipe, sample.take(~sample.held_out(0.25)), watch=told.append)
    assert told == list(range(1, passes_of(recipe.fit) + 1))


def test_networks_side_by_side_learn_as_they_do_alone(table: Path) -> None:
    recipe = small_recipe()
    sample = read_sample(recipe.catalogue, table)
    features = features_of(sample.table, typical_errors(sample.table))
    first, second = torch.arange(600).split(300)

    def learned(groups: list[torch.Tensor], epochs: int) -> torch.Tensor:
        # A step sees a whole group, so that the order of its galaxies does not matter.
        config = replace(recipe.fit, epochs=epochs, batch=300, dropout=0.0)
        network = networks(features, sample.z, groups, config, seed=3, watch=None)[0]
        return network.density(features).log_prob(sample.z)[first]

    alone, beside = learned([first], 60), learned([first, second], 60)
    torch.testing.assert_close(alone, beside, rtol=0.02, atol=0.02)
    assert float(alone.mean()) > float(learned([first], 1).mean()) + 0.3


def test_left_out_units_are_redrawn_and_keep_the_mean() -> None:
    masks = _masks((2, 3, 64, 32), 0.25, torch.Generator().manual_seed(0))
    first, second = next(masks), next(masks)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.unique(), torch.tensor([0.0, 4 / 3]))
    # 12,288 numbers of deviation 0.58: five times the error of their mean.
    assert abs(float(first.mean()) - 1) < 5 * 0.58 / 12288**0.5
