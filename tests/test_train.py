"""Training: resumed runs, blocks from workers, recipes, and what a checkpoint folder survives."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_model import tiny_checkpoint
from toys import SMALL, toys

from probmmae import checkpoint
from probmmae.config import DataConfig, ObjectiveConfig, Recipe, TrainingConfig, read_recipe
from probmmae.dataset import write_shards
from probmmae.feed import Block, feed
from probmmae.masking import hide, only_photometry
from probmmae.model import GalaxyModel
from probmmae.simulated import simulated_galaxies
from probmmae.train import load_state, train

ROOT = Path(__file__).parents[1]


def tiny_recipe(**training):
    """Seconds of training: a few steps of the smallest network."""
    settings = {
        "steps": 4,
        "batch": 4,
        "warmup": 2,
        "start_blocks": 1,
        "start_rounds": 1,
        "start_catalogue": 64,
    }
    return Recipe(
        training=TrainingConfig(**{**settings, **training}),
        model=SMALL,
        objective=ObjectiveConfig(redshift=4.0, decoded=0.5, cells=2),
        data=DataConfig(workers=0, spectra=1, catalogue=8, hide_redshift=0.25),
    )


class Killed(Exception):
    pass


def kill_at(last):
    def watch(step, terms):
        if step == last:
            raise Killed

    return watch


def same(first, second):
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize("skipped", [False, True])
def test_killed_and_resumed_run_equals_the_uninterrupted_one(tmp_path, monkeypatch, skipped):
    # Two states lie behind the kill: it happens at step 3, the last state is that of step 2. With
    # `skipped` the gradient of the first step is infinite, so the optimiser is a step behind.
    recipe = tiny_recipe(save_every=2, start_catalogue=0)
    clip = torch.nn.utils.clip_grad_norm_
    calls = {}

    def run(folder, watch=None):
        def infinite_at_first(*arguments, **options):
            # The start of spectra clips too, at another norm; that of redshifts is left out.
            calls[folder] = calls.get(folder, 0) + (arguments[1] == recipe.training.clip)
            norm = clip(*arguments, **options)
            return norm * float("inf") if calls[folder] == 1 else norm

        if skipped:
            monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", infinite_at_first)
        return train(recipe, folder, watch=watch)

    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", kill_at(3))
    assert checkpoint.read(tmp_path / "killed").step == 2
    resumed = run(tmp_path / "killed")
    assert same(whole.state_dict(), resumed.state_dict())
    ours, theirs = (checkpoint.read(tmp_path / name).tensors for name in ("whole", "killed"))
    assert same(ours, theirs)
    moments = load_state(tmp_path / "killed")[0].optimiser.state.values()
    assert max(float(each["step"]) for each in moments) == 4 - skipped


@pytest.mark.slow
def test_state_of_another_recipe_is_refused(tmp_path):
    train(tiny_recipe(steps=1), tmp_path)
    with pytest.raises(ValueError, match="hold a run of this recipe"):
        train(tiny_recipe(steps=2), tmp_path)
    again = train(tiny_recipe(steps=2), tmp_path, resume=False)
    assert checkpoint.read(tmp_path).step == 2
    assert same(again.state_dict(), checkpoint.load_model(tmp_path).state_dict())


def test_weights_of_one_length_are_read_as_one_length_for_all(tmp_path):
    """As those were whose field had one process for all numbers of the code."""
    stored = checkpoint.read(tiny_checkpoint(tmp_path))
    tensors = dict(stored.tensors)
    for name in ("white", "stretch.weight", "stretch.bias"):
        del tensors[f"model.prior.{name}"]
    tensors["model.prior.log_length"] = torch.tensor(-1.5)
    checkpoint.write(tmp_path, tensors, stored.recipe, stored.step, {})
    prior = checkpoint.load_model(tmp_path).prior
    assert torch.equal(prior.log_length, torch.full((6,), -1.5))
    assert float(torch.sigmoid(prior.white).max()) < 1e-12
    assert not bool(prior.stretch.weight.any())


TWO_PROCESSES = """
import sys, torch
from pathlib import Path
sys.path[:0] = {paths!r}
from test_train import tiny_recipe
from probmmae.train import train
told = []
folder = Path(sys.argv[1])
recipe = tiny_recipe(steps=3, devices=2)
model = train(recipe, folder, watch=lambda step, terms: told.append(terms["loss"]))
rank = torch.distributed.get_rank()
weights = torch.cat([part.double().flatten() for part in model.state_dict().values()])
torch.save({{"weights": weights, "loss": told}}, folder / f"rank{{rank}}.pt")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES.format(paths=[str(ROOT), str(ROOT / "tests")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / "run" / f"rank{rank}.pt") for rank in (0, 1))
    assert len(first["loss"]) == 3
    assert torch.tensor(first["loss"]).isfinite().all()
    assert torch.equal(first["weights"], second["weights"])
    alone = train(tiny_recipe(steps=3), tmp_path / "alone")
    weights = torch.cat([part.double().flatten() for part in alone.state_dict().values()])
    assert not torch.equal(first["weights"], weights)


@pytest.mark.slow
def test_dataset_on_disk_trains(tmp_path):
    write_shards(simulated_galaxies(12, 5, spectra=1), tmp_path / "data")
    recipe = tiny_recipe(steps=3, batch=4)
    recipe = replace(recipe, data=DataConfig(shards=str(tmp_path / "data"), workers=0))
    told = []
    before = GalaxyModel(SMALL)
    model = train(recipe, tmp_path / "run", watch=lambda step, terms: told.append(terms))
    assert len(told) == 3
    assert all(torch.tensor(list(terms.values())).isfinite().all() for terms in told)
    assert model.state_dict().keys() == before.state_dict().keys()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def make_block(index):
    """Block `index` of toys; at module level, for workers take it by name."""
    return Block(toys(count=2, pixels=60, seed=index).batch, None, None)


def failing_block(index):
    if index == 3:
        raise ZeroDivisionError("block three cannot be made")
    return make_block(index)


def dying_block(index):
    os._exit(7)


def test_blocks_are_the_same_made_here():
    blocks = list(feed(make_block, 2, 5, 0))
    assert len(blocks) == 3
    for index, block in enumerate(blocks, start=2):
        assert torch.equal(block.whole.z, make_block(index).whole.z)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_blocks_are_the_same_made_by_workers(workers):
    blocks = list(feed(make_block, 2, 7, workers))
    here = list(feed(make_block, 2, 7, 0))
    assert len(blocks) == len(here) == 5
    for block, other in zip(blocks, here, strict=True):
        assert torch.equal(block.whole.z, other.whole.z)
        assert torch.equal(block.whole.spectra.flux, other.whole.spectra.flux)
        assert block.deep is None


@pytest.mark.slow
def test_error_of_a_worker_is_told():
    blocks = feed(failing_block, 2, 9, 2)
    next(blocks)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: block three cannot be made"):
        list(blocks)


@pytest.mark.slow
def test_death_of_a_worker_is_told():
    with pytest.raises(RuntimeError, match="the worker ended with code 7"):
        next(feed(dying_block, 0, 3, 1))


def test_shipped_recipes_are_recipes():
    every = sorted((ROOT / "probmmae" / "recipes").glob("*.toml"))
    paths = [path for path in every if not path.name.startswith("photoz_")]
    assert len(paths) > 2
    for path in paths:
        assert read_recipe(path).training.steps > 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[training]\nsteps = 3\nstep = 4\n", r"training.step.*nexpected"),
        ("[training]\nsteps = 3\n[model]\nwide = 64\n", r"model.wide.*nexpected"),
        ("[training]\nsteps = 3\n[objective]\nkll = 1.0\n", r"objective.kll.*nexpected"),
        ("[training]\nsteps = 3\n[extra]\nx = 1\n", r"extra.*nexpected"),
        ("[training]\nsteps = 'many'\n", r"training.steps.*integer"),
        ("[training]\nsteps = 0\n", "at least 1"),
        ("[training]\nsteps = 3\n[model]\nwidth = 30\nheads = 4\n", "divisible"),
        ("[training]\nsteps = 3\n[model]\nlikelihood = 'flow'\n", "likelihood"),
        ("[training]\nsteps = 3\n[data]\nhide_redshift = 1.5\n", "between 0 and 1"),
        ("[model]\nwidth = 64\n", "training.*required"),
        ("[training\n", "Expected TOML"),
    ],
)
def test_wrong_recipe_is_refused_by_name(tmp_path, text, told):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=told) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)


def test_missing_recipe_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found nothing at .*absent\.toml"):
        read_recipe(tmp_path / "absent.toml")


def written(folder, value=1.0, step=3):
    tensors = {"model.weight": torch.full((50,), value)}
    checkpoint.write(folder, tensors, tiny_recipe(), step, {"note": "kept"})
    return folder


def weights_of(folder):
    (weights,) = folder.glob("weights-*.safetensors")
    return weights


def test_checkpoint_comes_back(tmp_path):
    stored = checkpoint.read(written(tmp_path))
    assert stored.step == 3
    assert stored.recipe == tiny_recipe()
    assert stored.info["note"] == "kept"
    assert torch.equal(stored.tensors["model.weight"], torch.ones(50))
    names = {"checkpoint.json", weights_of(tmp_path).name}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_recipe_without_the_newer_fields_is_read(tmp_path):
    index = written(tmp_path) / "checkpoint.json"
    info = json.loads(index.read_text())
    for name in ("start_blocks", "start_rounds"):
        del info["recipe"]["training"][name]
    index.write_text(json.dumps(info))
    training = checkpoint.read(tmp_path).recipe.training
    assert (training.start_blocks, training.start_rounds) == (100, 25)


@pytest.mark.parametrize("harm", ["truncated", "a changed byte"])
def test_damaged_weights_are_refused(tmp_path, harm):
    weights = weights_of(written(tmp_path))
    content = bytearray(weights.read_bytes())
    if harm == "truncated":
        content = content[:-10]
    else:
        content[-3] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"SHA-256.*damaged or was changed"):
        checkpoint.read(tmp_path)


def test_other_templates_are_refused(tmp_path, monkeypatch):
    model = GalaxyModel(SMALL)
    tensors = {f"model.{name}": part for name, part in model.state_dict().items()}
    checkpoint.write(tmp_path / "run", tensors, tiny_recipe(), 1, {})
    other = tmp_path / "templates.npz"
    other.write_bytes(b"another basis")
    monkeypatch.setattr(checkpoint, "TEMPLATES", other)
    with pytest.raises(ValueError, match="Expected the template basis"):
        checkpoint.read(tmp_path / "run")


def test_absent_files_of_a_checkpoint_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a checkpoint folder"):
        checkpoint.read(tmp_path)
    weights = weights_of(written(tmp_path))
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=weights.name):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weights": "a", "recipe": {}}'])
def test_unreadable_index_is_refused(tmp_path, text):
    (written(tmp_path) / "checkpoint.json").write_text(text)
    with pytest.raises(ValueError, match=r"checkpoint\.json"):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize("step", [3, 4])
def test_crash_between_weights_and_index_leaves_the_older_checkpoint(tmp_path, monkeypatch, step):
    written(tmp_path)
    replace_file = os.replace

    def crash(source, target):
        if Path(target).suffix == ".json":
            raise OSError("the power failed")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="the power failed"):
        written(tmp_path, value=2.0, step=step)
    monkeypatch.undo()
    stored = checkpoint.read(tmp_path)
    assert stored.step == 3
    assert torch.equal(stored.tensors["model.weight"], torch.ones(50))
    written(tmp_path, value=5.0, step=5)
    assert checkpoint.read(tmp_path).step == 5
    assert len(list(tmp_path.glob("weights-*"))) == 1


def test_only_photometry_is_the_batch_with_everything_else_hidden():
    batch = toys(count=5).batch
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = GalaxyModel(SMALL).eval()
    off, on = torch.zeros((), dtype=torch.bool), torch.ones((), dtype=torch.bool)
    full = hide(batch, images=off, photometry=on, spectra=off)
    small = only_photometry(batch.photometry, batch.z)
    value = torch.linspace(0.02, 0.6, 7)[:, None]
    with torch.no_grad():
        ours, theirs = (model.redshift(model.encode(each)) for each in (small, full))
    assert len(small) == 5
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value), atol=1e-4, rtol=1e-4)
    assert ours.log_prob(value).std() > 0.1
