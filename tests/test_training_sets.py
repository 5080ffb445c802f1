"""Training sets of the comparison: central fibres, galaxies that come back, scenes that move."""

from pathlib import Path

import pytest
import torch

from probmmae.config import DataConfig, Recipe, TrainingConfig, read_recipe
from probmmae.sources import block_maker, footprint

RECIPES = sorted((Path(__file__).parents[1] / "benchmarks" / "recipes").glob("ifu_*.toml"))


def maker(**data):
    return block_maker(Recipe(training=TrainingConfig(steps=1, batch=4), data=DataConfig(**data)))


def test_galaxies_with_several_apertures_come_back():
    block = maker(spectra=1, central=1.0, several=4, several_spectra=3)
    first, second, third = (block(index) for index in range(3))
    assert first.whole.spectra.flux.shape[:2] == first.deep.flux.shape[:2] == (4, 3)
    measured = (first.whole.spectra.ivar > 0).any(-1)
    assert measured.tolist() == [[True, False, False]] * 2 + [[True] * 3] * 2
    assert torch.equal(measured, (first.deep.ivar > 0).any(-1))
    away = first.whole.spectra.aperture[:, 0, :2].norm(dim=-1)
    assert float(away[:2].max()) <= 0.05
    # Four that come back fill two halves of a block: the third block's are the first's.
    assert torch.equal(first.whole.z[2:], third.whole.z[2:])
    assert not torch.equal(first.whole.z[2:], second.whole.z[2:])
    assert not torch.equal(first.whole.z[:2], third.whole.z[:2])
    with pytest.raises(ValueError, match="a multiple of its share of a batch, 2; got 3"):
        maker(several=3)(0)


def test_a_block_can_hold_nothing_else():
    block = maker(several=8, several_share=1.0, several_spectra=3)
    first, second, third = (block(index) for index in range(3))
    assert first.whole.spectra.flux.shape[:2] == (4, 3)
    assert torch.equal(first.whole.z, third.whole.z)
    assert not torch.equal(first.whole.z, second.whole.z)


def test_scenes_move_with_their_apertures():
    still, moved = maker(spectra=2)(0), maker(spectra=2, shift=5.0)(0)
    by = moved.whole.images.centre - still.whole.images.centre
    assert float(by.abs().max()) <= 5
    assert float(by.std()) > 1
    for one, other in ((moved.whole.spectra, still.whole.spectra), (moved.deep, still.deep)):
        apart = one.aperture[..., :2] - other.aperture[..., :2]
        assert torch.allclose(apart, by[:, None].expand_as(apart), atol=1e-5)
        assert torch.equal(one.aperture[..., 2:], other.aperture[..., 2:])
    assert torch.equal(moved.whole.images.flux, still.whole.images.flux)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_say_where_their_apertures_lie(path):
    recipe = read_recipe(path)
    seen = footprint(recipe)
    alone = path.stem in ("ifu_central", "ifu_scattered", "ifu_trunk")
    assert seen.joint != alone
    assert (seen.arcsec < 0.1) == (path.stem in ("ifu_central", "ifu_trunk"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"central": 1.5},
        {"several": -1},
        {"several_spectra": 0},
        {"several_share": 0.0},
        {"shift": -1.0},
    ],
)
def test_errors(wrong):
    with pytest.raises(ValueError, match="Expected"):
        DataConfig(**wrong)
