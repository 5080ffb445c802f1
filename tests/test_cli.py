"""What the user types: each verb once, and the ways it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import qp
import xarray
from tiny_model import CONFIG, some_galaxy, tiny_checkpoint
from typer.testing import CliRunner, Result

from probmmae.cli import app
from probmmae.dataset import Dataset, write_shards


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def shards(tmp_path: Path) -> str:
    write_shards([some_galaxy(f"g{k}", z=0.1 * (1 + k), seed=k) for k in range(3)], tmp_path / "d")
    return str(tmp_path / "d")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def done(*arguments: str | Path) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def test_info_describes(shards: str) -> None:
    said = done("info", shards, "--most", "1")
    assert "dataset (Parquet shards)" in said
    assert "image hsc-g: 48 x 48 pixels of 0.2 arcsec" in said
    assert "galaxy g1" not in said
    assert "galaxies: 3, 1 of them described" in said


def test_info_of_a_real_file(shared_data: Path) -> None:
    path = shared_data / "sdss_spec_fits" / "spec-0266-51602-0013.fits.gz"
    said = done("info", path)
    assert "SDSS/BOSS" in said
    assert "redshift: 0.121316" in said


def test_tables_take_reading_options(tmp_path: Path, checkpoint: str) -> None:
    table = tmp_path / "table.csv"
    lines = ["id,zs,u,g,r,i,z,eu,eg,er,ei,ez"]
    lines += [f"{k},0.{k + 1},20,19.{k},18,17.5,17.2,.1,.05,.04,.05,.06" for k in range(4)]
    table.write_text("\n".join(lines))
    refused = call("info", table)
    assert refused.exit_code == 2
    assert "survey" in refused.stderr
    assert "photometry sdss-u" in done("info", table, "--read", "survey=sdss")
    out = tmp_path / "photoz.hdf5"
    said = done("photoz", table, "-o", out, "--read", "survey=sdss", "--checkpoint", checkpoint)
    assert "used of 4 galaxies: photometry sdss-u" in said
    np.testing.assert_allclose(qp.read(str(out)).ancil["z_true"], [0.1, 0.2, 0.3, 0.4])


def test_a_column_map_comes_from_toml(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,fr,dfr,zz\na,3.5,0.5,0.2\nb,4.5,0.5,0.3\n")
    (tmp_path / "map.toml").write_text(
        'kind = "flux"\nflux_unit = "nmgy"\nredshift = "zz"\nid = "name"\n'
        '[bands]\nhsc-r = ["fr", "dfr"]\n'
    )
    said = done("info", tmp_path / "t.csv", "--read", f"columns={tmp_path / 'map.toml'}")
    assert "photometry hsc-r: 3.5 +/- 0.5 nanomaggies redshift: 0.2" in said


def test_convert(shards: str, tmp_path: Path) -> None:
    assert "3 galaxies" in done("convert", shards, "--out", tmp_path / "copy")
    assert [one.id for one in Dataset(tmp_path / "copy")] == ["g0", "g1", "g2"]


def test_photoz(shards: str, tmp_path: Path, checkpoint: str) -> None:
    out = tmp_path / "photoz.hdf5"
    said = done("photoz", shards, "-o", out, "--checkpoint", checkpoint, "--z-max", "2")
    assert "image hsc-g, image hsc-i" in said
    assert "known redshift" not in said
    assert "p(z) per unit redshift on 0 to 2 in steps of 0.002" in said
    assert qp.read(str(out)).npdf == 3


def test_spectrum(shards: str, tmp_path: Path, checkpoint: str) -> None:
    out = tmp_path / "posterior.nc"
    said = done(
        "spectrum", shards, "-o", out, "--checkpoint", checkpoint, "--at", "0,0", "--at", "1,-0.5",
        "--wavelength", "4000:6000:5", "--draws", "5",
    )  # fmt: skip
    assert "known redshift (3 of 3)" in said
    assert "1e-17 erg/s/cm2/Angstrom" in said
    assert "vacuum wavelengths in Angstrom, R = 2000, through 1.5 arcsec" in said
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    with xarray.open_datatree(out, engine="h5netcdf") as tree:
        assert tree["posterior_predictive/flux"].shape == (1, 5, 3, 2, 401)
        assert tree["constant_data/dy"].values[1] == -0.5


def test_spectrum_without_redshift_or_plot(shards: str, tmp_path: Path, checkpoint: str) -> None:
    out = tmp_path / "posterior.nc"
    said = done(
        "spectrum", shards, "-o", out, "--checkpoint", checkpoint, "--no-use-redshift",
        "--no-plot", "--wavelength", "4000:6000:50", "--draws", "3",
    )  # fmt: skip
    assert "known redshift" not in said
    assert not out.with_suffix(".png").exists()
    with xarray.open_datatree(out, engine="h5netcdf") as tree:
        assert np.ptp(tree["posterior/redshift"].values) > 0


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["photoz", "spectrum", "cube", "refine"])
def test_what_is_read_is_not_written_over(verb: str, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("id,g,eg\none,20,0.1\n")
    refused = call(verb, table, "-o", tmp_path / "." / "table.csv")
    assert refused.exit_code == 2
    assert "Expected an output other than the input" in refused.stderr
    assert table.read_text().startswith("id,g,eg")


def test_what_cannot_be_meant_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "shard-00000.fits").write_text("a shard")
    cases = (
        (("cube", data, "-o", data / "shard-00000.fits"), "no file of the folder"),
        (("cube", data, "-o", tmp_path / "c.png"), "ends with .fits"),
        (("cube", data, "-o", tmp_path / "c.fits", "--size", 2, "--fibres", 19), "got both"),
        (("calibrate", "--manga", data, "-o", data / "shard-00000.fits"), "no file of the folder"),
        (("calibrate", "--draws", data, "-o", tmp_path / "r.json"), "name for the HTML report"),
        (("calibrate", "shipped", data, "--manga", data, "-o", tmp_path / "r.html"), "Give one"),
    )
    for asked, said in cases:
        refused = call(*asked)
        assert refused.exit_code == 2, asked
        assert said in " ".join(refused.stderr.split()), asked
    assert [one.name for one in tmp_path.iterdir()] == ["data"]
    assert (data / "shard-00000.fits").read_text() == "a shard"


def test_densities_that_a_grid_cannot_show_are_told(
    shards: str, tmp_path: Path, checkpoint: str
) -> None:
    asked = ("photoz", shards, "-o", tmp_path / "z.hdf5", "--checkpoint", checkpoint)
    assert "narrower than the grid can show" not in done(*asked)
    assert "narrower than the grid can show" in done(*asked, "--z-step", "0.79")


def test_simulate_does_not_depend_on_the_processes(tmp_path: Path) -> None:
    for workers in (0, 2):
        said = done(
            "simulate", "--n", "70", "--seed", "5", "--workers", workers,
            "--out", tmp_path / f"{workers}",
        )  # fmt: skip
        assert said.startswith("70 galaxies of seed 5")
    one, two = (list(Dataset(tmp_path / name)) for name in ("0", "2"))
    assert [galaxy.id for galaxy in one] == [galaxy.id for galaxy in two]
    assert len({galaxy.id for galaxy in one}) == 70
    for left, right in zip(one, two, strict=True):
        assert left.redshift == right.redshift
        np.testing.assert_array_equal(left.images[3].flux, right.images[3].flux)
        np.testing.assert_array_equal(left.spectra[1].ivar, right.spectra[1].ivar)
    assert one[0].images[0].band == "hsc-g"
    assert {"redshift", "log_mass", "log_ssfr"} <= set(one[0].scalars)


def test_simulated_galaxies_are_the_batches_they_came_from() -> None:
    from probmmae.collate import collate
    from probmmae.simulated import simulated_galaxies
    from probmmae.simulator import simulate

    batch, _ = simulate(3, seed=2)
    again = collate(list(simulated_galaxies(3, seed=2)))
    for name in ("flux", "ivar", "wavelength", "psf_fwhm", "pixel_scale"):
        left, right = getattr(again.images, name), getattr(batch.images, name)
        np.testing.assert_allclose(left, right, rtol=1e-5)
    pixels = again.spectra.flux.shape[-1]
    for name in ("flux", "ivar", "wavelength", "sigma"):
        seen = again.spectra.ivar > 0
        left, right = getattr(again.spectra, name), getattr(batch.spectra, name)[..., :pixels]
        np.testing.assert_allclose(left[seen], right[seen], rtol=1e-5)
    np.testing.assert_allclose(again.z, batch.z)


@pytest.mark.slow
def test_train_then_answer(shards: str, tmp_path: Path) -> None:
    sizes = "\n".join(
        f"{name} = {getattr(CONFIG, name)}"
        for name in ("width", "depth", "heads", "latent", "shared", "classes", "hidden")
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"[model]\n{sizes}\n[data]\nworkers = 0\n[training]\nsteps = 2\nbatch = 4\nwarmup = 1\n"
        "start_blocks = 2\nstart_rounds = 1\nstart_catalogue = 64\n"
    )
    run = tmp_path / "run"
    assert "Trained for 2 steps" in done("train", recipe, "--out", run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert {"redshift", "spectrum", "image", "kl"} <= set(lines[0])
    assert list(run.glob("events.out.tfevents.*"))
    assert "used of 3 galaxies" in done(
        "photoz", shards, "-o", tmp_path / "p.hdf5", "--checkpoint", run
    )


@pytest.mark.parametrize("name", ["small", "galaxiesml", "shipped"])
def test_shipped_recipes_are_recipes(name: str) -> None:
    from probmmae import cli
    from probmmae.config import read_recipe

    recipe = read_recipe(Path(cli.__file__).parent / "recipes" / f"{name}.toml")
    assert recipe.training.steps > 100


@pytest.mark.slow
def test_demo(tmp_path: Path, checkpoint: str) -> None:
    said = done("demo", "--out", tmp_path, "--checkpoint", checkpoint)
    assert "90 % interval" in said
    assert (tmp_path / "simulated.png").read_bytes().startswith(b"\x89PNG")
    assert "no galaxies; name FILES, or a folder with --data" in said


@pytest.mark.slow
def test_demo_with_real_galaxies(tmp_path: Path, checkpoint: str, shared_data: Path) -> None:
    said = done("demo", "--out", tmp_path, "--checkpoint", checkpoint, "--data", shared_data)
    assert "DEEP2" in said
    assert (tmp_path / "real.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nowhere.fits"], "Expected a file; got nowhere.fits"),
        (["photoz", "nowhere.fits", "-oout", "--checkpoint", "CHECKPOINT"], "nowhere.fits"),
        (["photoz", "SHARDS", "-o", "out", "--checkpoint", "nowhere"], "checkpoint.json"),
        (["photoz", "SHARDS", "-ono/out", "--checkpoint", "CHECKPOINT"], "existing folder"),
        (["photoz", "SHARDS", "-oout", "--checkpoint", "CHECKPOINT", "--z-step", "0"],
         "z_step"),
        (["photoz", "SHARDS", "-oout", "--checkpoint", "CHECKPOINT", "--read", "survey"],
         "NAME=VALUE"),
        (["spectrum", "SHARDS", "-oout", "--checkpoint", "CHECKPOINT", "--at", "0"],
         "--at EAST,NORTH"),
        (["spectrum", "SHARDS", "-oout", "--checkpoint", "CHECKPOINT", "--wavelength", "5:4:1"],
         "increasing"),
        (["spectrum", "SHARDS", "-oout", "--checkpoint", "CHECKPOINT", "--diameter", "-1"],
         "diameter"),
        (["spectrum", "SHARDS", "-oout", "--checkpoint", "CHECKPOINT", "--resolution", "0"],
         "positive resolution"),
        (["train", "nowhere.toml", "--out", "run"], "nowhere.toml"),
        (["simulate", "--n", "4", "--seed", "-1", "--out", "sim"], "seed >= 0"),
        (["simulate", "--n", "4", "--out", "SHARDS"], "without a dataset"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_code_2(
    arguments: list[str],
    message: str,
    shards: str,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    named = {"SHARDS": shards, "CHECKPOINT": checkpoint}
    result = call(*(named.get(one, one) for one in arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = (one for one in result.stderr.splitlines() if one.startswith("probmmae: "))
    assert message in line
    assert "Traceback" not in result.stderr
    assert {one for one in tmp_path.iterdir() if one.name in ("out", "out.png")} <= before


def test_help_is_quick_and_names_the_verbs() -> None:
    said = done("--help")
    for verb in ("info", "convert", "simulate", "train", "photoz", "spectrum", "repair", "demo"):
        assert verb in said
