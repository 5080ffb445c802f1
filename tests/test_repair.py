"""A model's repair: fitted on galaxies of its own, kept beside the weights, told in every output.

The world is the tiny model itself: redshifts and spectra are drawn from its own posteriors, so it
is exact, and a copy is wrong by a known amount: its densities are narrowed and shifted, and its
latents scatter too little. False-alarm budget: seeds are fixed; a coverage of n galaxies after a
repair fitted on m others may leave its band of 3.5 standard errors of both with probability 5e-4.
"""

import copy
import json
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.io import fits
from tiny_model import CONFIG, some_galaxy, tiny_checkpoint, tiny_network
from typer.testing import CliRunner

import probmmae
from probmmae import checkpoint
from probmmae.batch import Batch
from probmmae.calibration import fit_repair, held_out
from probmmae.calibration.coverage import coverage
from probmmae.calibration.fit_repair import Held, check_seed, stored_galaxies
from probmmae.calibration.pit import pit_from_draws, pit_result
from probmmae.cli import app
from probmmae.collate import collate
from probmmae.dataset import Dataset, split_of, write_shards
from probmmae.galaxy import Aperture
from probmmae.inference.catalog import photoz, spectra
from probmmae.inference.levels import continuum, level
from probmmae.inference.posterior import Model, Posterior
from probmmae.inference.redshifts import ensemble, exact
from probmmae.inference.repair import BINS, REFERENCE, joined, read_repair, write_repair
from probmmae.inference.shown import kinds
from probmmae.masking import only_photometry
from probmmae.model import GalaxyModel
from probmmae.redshift import RedshiftDensity
from probmmae.simulator.stream import simulate_catalogue
from probmmae.unbatch import unbatch

FITTED, TESTED, SPECTRA, TRIED, DRAWS = 1200, 1200, 200, 100, 30
GRID = np.arange(5000.0, 7000.0, 40.0) * u.AA
NETWORK = tiny_network()


def wrong(density: RedshiftDensity) -> RedshiftDensity:
    """Narrowed by 30 % about its mean in ln(1 + z), and shifted."""
    weight = density.log_weight.exp()
    centre = (weight * density.loc).sum(-1, keepdim=True)
    return RedshiftDensity(
        density.logits, centre + 0.03 + 0.7 * (density.loc - centre), 0.7 * density.scale
    )


def broken() -> GalaxyModel:
    """A model that is wrong on purpose."""
    network = copy.deepcopy(NETWORK)
    network.redshift = lambda context: wrong(NETWORK.redshift(context))
    number = CONFIG.classes * CONFIG.latent
    with torch.no_grad():
        network.prior.head[-1].bias[number : 2 * number] += np.log(0.3)
    return network


def galaxies(count: int, seed: int, *, with_spectra: bool = False) -> Held:
    """Photometry, redshifts and spectra, of which the exact model's posteriors are true."""
    generator = torch.Generator().manual_seed(seed)
    table, _ = simulate_catalogue(seed, 0, count)
    batch = only_photometry(table, torch.zeros(count))
    with torch.no_grad():
        density = NETWORK.redshift(NETWORK.encode(batch))
        batch = replace(batch, z=density.draw(torch.Size(), generator))
        true = None
        if with_spectra:
            rows = [batch.take(slice(k, k + 20)) for k in range(0, count, 20)]
            parts = [torch.tensor(drawn_once(row, generator)) for row in rows]
            true = torch.cat(parts)
    return Held(batch, true)


def drawn_once(batch: Batch, generator: torch.Generator) -> np.ndarray:
    """A true spectrum: a draw of the exact model, the first of two."""
    return fit_repair.drawn_spectra(NETWORK, batch, generator, draws=2)[0]


@pytest.fixture(scope="module")
def worlds() -> list[Held]:
    """To fit: galaxies with spectra, then more without; to test: the same of other seeds."""
    return [
        galaxies(SPECTRA, 101, with_spectra=True), galaxies(FITTED - SPECTRA, 102),
        galaxies(TRIED, 103, with_spectra=True), galaxies(TESTED, 104),
    ]  # fmt: skip


def fitted(network: GalaxyModel, held: list[Held]):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_repair, "DRAWS", DRAWS)
        return fit_repair.fit_repair(network, held, weights="0", source="a toy, seed 101", seed=1)


@pytest.fixture(scope="module")
def model(worlds) -> Model:
    """The wrong model and its repair."""
    network = broken()
    return Model(network, fitted(network, worlds[:2]))


def near(value: float, tested: int, fitted: int) -> bool:
    return abs(value - 0.9) < 3.5 * np.sqrt(0.09 * (1 / tested + 1 / fitted))


def redshift_pits(model: Model, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """PIT of the true redshifts before and after repair."""
    hidden = replace(batch, z_known=torch.zeros_like(batch.z_known))
    with torch.no_grad():
        density = model.network.redshift(model.network.encode(hidden))
    before = exact(density).cdf(batch.z.double()).numpy()
    applied = model.applied(hidden, density, draws=2, repair=True)
    return before, joined(applied).cdf(before[:, None])[:, 0]


def spectrum_answers(model: Model, held: Held, *, repair: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draws (draw, galaxy) and truths of the mean flux between 5000 and 7000 Angstrom."""
    part = (REFERENCE >= 5000) & (REFERENCE < 7000)
    grid = REFERENCE[part] * u.AA
    said = []
    for galaxy in unbatch(held.batch, [f"toy {row}" for row in range(len(held.batch))]):
        posterior = model.condition(galaxy, draws=DRAWS, repair=repair)
        where = Aperture.in_batch_units(1.0, 1.0, diameter=1.0, seeing=1.0)
        flux = posterior.spectrum(grid, where).flux.value
        said.append(flux.mean(axis=1))
    return np.stack(said, axis=1), held.spectra[:, part].double().numpy().mean(axis=1)


def test_a_wrong_redshift_is_repaired_on_galaxies_never_seen(model, worlds) -> None:
    before, after = redshift_pits(model, worlds[3].batch)
    count = len(before)
    assert pit_result(before).p_value < 1e-6
    assert not near(coverage(before, levels=[0.9])[0].value, count, FITTED)
    assert near(coverage(after, levels=[0.9])[0].value, count, FITTED)
    # The 99.9 % band of the test sample, widened by that of the fit.
    assert pit_result(after).distance < 1.95 * np.sqrt(1 / count + 1 / FITTED)


def test_what_is_exact_is_left_as_it_is_and_said(worlds, galaxy) -> None:
    repaired = Model(NETWORK, fitted(NETWORK, worlds[:2]))
    assert not repaired.repair.redshift
    assert not repaired.repair.spectrum
    said = repaired.repair.describe()
    for name, unit in (
        ("redshift from photometry", "nats a galaxy"),
        ("spectra from photometry", "of the CRPS"),
    ):
        assert "left as it is: it did not help on galaxies" in said[name]
        assert unit in said[name]
    hidden, known = (
        conditioned(repaired, galaxy, use_redshift=use_redshift).repair
        for use_redshift in (False, True)
    )
    assert hidden.redshift_said.startswith("not repaired: it did not help")
    assert known.spectrum_said.startswith("not repaired: it did not help")
    assert hidden.redshift is None
    assert known.spectrum is None


def test_a_part_that_does_not_help_is_taken_out(model, galaxy) -> None:
    less = Model(model.network, model.repair.without("spectra from photometry", "a reason"))
    assert set(less.repair.redshift) == {"photometry"}
    assert not less.repair.spectrum
    assert conditioned(less, galaxy).repair.spectrum_said == "not repaired: a reason"


@pytest.mark.slow
def test_too_narrow_spectra_are_repaired_on_galaxies_never_seen(model, worlds) -> None:
    rng = np.random.default_rng(5)
    (old, truth), (new, _) = (
        spectrum_answers(model, worlds[2], repair=repair) for repair in (False, True)
    )
    covered = [
        coverage(pit_from_draws(draws, truth, generator=rng), levels=[0.9])[0].value
        for draws in (old, new)
    ]
    assert not near(covered[0], TRIED, SPECTRA)
    assert near(covered[1], TRIED, SPECTRA)
    # The level moves by its law, which keeps the order of the draws.
    assert np.median([np.corrcoef(*both)[0, 1] for both in zip(old.T, new.T, strict=True)]) > 0.95


@pytest.fixture(scope="module")
def galaxy(worlds):
    (found,) = unbatch(worlds[3].batch.take(slice(0, 1)), ["one"])
    return found


def conditioned(model: Model, galaxy, **options) -> Posterior:
    return model.condition(galaxy, draws=options.pop("draws", 40), **options)


def test_density_draws_and_quantiles_are_repaired_together(model, galaxy) -> None:
    plain = conditioned(model, galaxy, draws=2000, use_redshift=False, repair=False).redshift
    found = conditioned(model, galaxy, draws=2000, use_redshift=False).redshift
    levels = np.array([0.05, 0.5, 0.95])
    assert np.abs(found.quantiles(levels) - plain.quantiles(levels)).max() > 0.01
    np.testing.assert_allclose(found.cdf(found.quantiles(levels)), levels, atol=1e-6)
    step = 1e-6
    z = found.quantiles(np.linspace(0.05, 0.95, 19))
    slope = (found.cdf(z + step) - found.cdf(z - step)) / (2 * step)
    np.testing.assert_allclose(found.pdf(z), slope, rtol=1e-4)
    # A draw keeps its place among the draws and takes the repaired density's redshift there.
    np.testing.assert_allclose(
        found.cdf(found.samples), plain.cdf(plain.samples), atol=1e-4
    )  # fmt: skip


def test_a_repaired_draw_does_not_depend_on_what_else_is_asked(model, galaxy) -> None:
    posterior = conditioned(model, galaxy)
    whole = posterior.spectrum(GRID).flux.value
    np.testing.assert_allclose(posterior.spectrum(GRID, draws=3).flux.value, whole[:3], rtol=1e-5)
    part = posterior.spectrum(GRID[10:40]).flux.value
    np.testing.assert_allclose(part[:, 1:-1], whole[:, 11:39], rtol=1e-3)
    plain = conditioned(model, galaxy, repair=False).spectrum(GRID).flux.value
    assert whole.std(axis=0).mean() > 1.1 * plain.std(axis=0).mean()
    # Each draw is mostly its old self.
    spectra = [
        conditioned(model, galaxy, repair=repair).spectrum(REFERENCE * u.AA).flux.value
        for repair in (False, True)
    ]
    close = np.corrcoef(*(level(continuum(flux, BINS)) for flux in spectra))[0, 1]
    assert close > 0.95


def test_evidence_that_nothing_was_fitted_for_is_left_and_said(model) -> None:
    seen = some_galaxy()
    assert kinds(collate([seen, replace(seen, images=(), spectra=())])) == [
        "mixture",
        "photometry",
    ]
    found, plain = (conditioned(model, seen, repair=repair) for repair in (True, False))
    assert found.repair.said == (
        "redshift not repaired: none was fitted for mixture; "
        "spectra not repaired: the redshift is not known"
    )
    np.testing.assert_array_equal(found.redshift.samples, plain.redshift.samples)
    assert plain.repair.redshift_said == "not repaired: it was not asked for"
    unrepaired = conditioned(Model(NETWORK), seen)
    assert unrepaired.repair.redshift_said == "not repaired: the model has no repair"


def test_every_output_says_what_was_done(model, galaxy, tmp_path) -> None:
    import qp
    import xarray

    hidden = conditioned(model, galaxy, use_redshift=False)
    known = conditioned(model, galaxy)
    assert hidden.repair.redshift_said.startswith(f"repaired: recalibrated on {FITTED} galaxies")
    assert known.repair.redshift_said == "not repaired: it was given"
    assert "a toy, seed 101" in known.repair.spectrum_said
    few = conditioned(model, galaxy, draws=5)
    assert few.repair.spectrum_said == "not repaired: 5 draws are fewer than 12"

    made = ensemble([hidden.redshift, known.redshift])
    said = [one.decode() for one in made.ancil["repair"]]
    assert said == [hidden.repair.redshift_said, known.repair.redshift_said]
    np.testing.assert_allclose(
        made.ancil["z_median"], [hidden.redshift.median, known.redshift.median], rtol=1e-6
    )
    drawn = known.spectrum(GRID)
    assert drawn.repair == known.repair.said
    assert drawn.to_specutils().meta["repair"] == known.repair.said
    drawn.to_fits(tmp_path / "s.fits")
    assert fits.getheader(tmp_path / "s.fits")["REPAIR"] == known.repair.said
    assert known.to_arviz(GRID).attrs["repair"] == known.repair.said

    used = photoz(model, [galaxy], tmp_path / "z.hdf5")
    assert hidden.repair.redshift_said in used.describe()
    row = qp.read(str(tmp_path / "z.hdf5")).ancil
    assert row["repair"][0].decode() == hidden.repair.redshift_said
    assert row["z_median"][0] == pytest.approx(hidden.redshift.median, abs=1e-5)
    used = photoz(model, [galaxy], tmp_path / "plain.hdf5", repair=False)
    assert "it was not asked for" in used.describe()

    used, _ = spectra(
        model, [galaxy], tmp_path / "s.nc", wavelength=GRID, apertures=[Aperture()], draws=20
    )
    assert known.repair.said in used.describe()
    with xarray.open_datatree(tmp_path / "s.nc", engine="h5netcdf") as tree:
        assert str(tree["constant_data/repair"].values[0, 0]) == known.repair.said


@pytest.fixture
def kept(model, tmp_path):
    """A checkpoint folder with a repair of its weights."""
    folder = tiny_checkpoint(tmp_path / "tiny")
    weights = checkpoint.read(folder).info["sha256"]
    write_repair(folder, replace(model.repair, weights=weights))
    return folder


def test_a_repair_survives_its_file(model, kept, galaxy) -> None:
    weights = checkpoint.read(kept).info["sha256"]
    assert probmmae.load(kept).repair == replace(model.repair, weights=weights)
    assert not list(kept.glob("*.partial"))
    posterior = probmmae.load(kept).condition(galaxy, draws=3, use_redshift=False)
    assert posterior.repair.redshift_said.startswith("repaired")


def damaged(content: dict) -> str:
    content["repair"]["redshift"]["photometry"]["intercept"][0] += 1e-6
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(damaged, "Expected a repair with SHA-256 .* has .*damaged", id="changed"),
        pytest.param(lambda _: "{", "Expected the JSON of a repair in .* got", id="not JSON"),
        pytest.param(lambda _: "[1]", "Expected the JSON of a repair in .* got", id="a list"),
        pytest.param(lambda c: json.dumps({**c, "format": 7}), "format 4 .* got 7", id="format"),
    ],
)
def test_a_bad_file_is_refused(kept, change, message) -> None:
    path = kept / checkpoint.REPAIR
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(ValueError, match=message):
        probmmae.load(kept)


def test_the_repair_of_other_weights_is_refused(model, kept) -> None:
    write_repair(kept, replace(model.repair, weights="f00"))
    with pytest.raises(ValueError, match=r"Expected the repair of the weights in .* \(f00\)"):
        probmmae.load(kept)


def test_an_unknown_kind_is_refused(model) -> None:
    with pytest.raises(ValueError, match=r"kinds image, photometry, .* got cube"):
        replace(model.repair, spectrum={"cube": model.repair.spectrum["photometry"]})


def test_new_weights_take_the_repair_away(kept) -> None:
    tiny_checkpoint(kept, seed=5)
    assert read_repair(kept) is None


def test_the_seed_of_training_is_refused(kept) -> None:
    stored = checkpoint.read(kept)
    with pytest.raises(ValueError, match="got 0, and it was trained on 0"):
        check_seed(stored, stored.recipe.training.seed)
    check_seed(stored, 3)


def call(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_too_few_galaxies_are_refused_and_nothing_is_written(tmp_path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    names = [name for name in map(str, range(400)) if split_of(name) == "recalibrate"][:5]
    write_shards([some_galaxy(name, z=0.2) for name in names], tmp_path / "data")
    result = call("repair", folder, tmp_path / "data")
    assert result.exit_code == 2
    assert "Expected at least 300 galaxies" in " ".join(result.stderr.split())
    assert not (folder / checkpoint.REPAIR).exists()


def named(part: str, count: int) -> list[str]:
    return [name for name in map(str, range(200 * count)) if split_of(name) == part][:count]


@pytest.mark.slow
def test_a_dataset_repairs_and_the_report_shows_both(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(held_out, "DRAWS", 12)
    folder = tiny_checkpoint(tmp_path / "tiny")
    names = named("recalibrate", 310) + named("report", 40) + named("train", 3)
    batch = galaxies(len(names), 105).batch
    batch = replace(batch, z=batch.z + 0.04)  # the model is exact without this
    write_shards(unbatch(batch, names), tmp_path / "data")
    held = list(stored_galaxies(Dataset(tmp_path / "data")))
    assert sum(len(one.batch) for one in held) == 310
    assert all(one.spectra is None for one in held)
    result = call("repair", folder, tmp_path / "data")
    assert result.exit_code == 0, result.output
    assert "redshift from photometry: a law of the PIT from 310" in " ".join(result.stdout.split())
    result = call("calibrate", folder, tmp_path / "data", "-o", tmp_path / "report.html")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "report.json").read_text())
    (job,) = content["jobs"]
    assert job["before"]["galaxies"] == job["after"]["galaxies"] == 40
    assert job["repair"]["galaxies"] == 0
    assert job["repair"]["source"] == "Kept with the model, fitted on part recalibrate of data."
    crps = [job[when]["scalars"][0]["scores"][0]["value"] for when in ("before", "after")]
    assert crps[0] != crps[1]
    assert content["provenance"]["repair"].endswith("part recalibrate of data")
    assert "Kept with the model" in (tmp_path / "report.html").read_text()
