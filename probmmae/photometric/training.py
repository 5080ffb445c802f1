"""Training: from a recipe and a table to a checkpoint folder, in minutes on a CPU.

Members are fitted by maximum likelihood of ln(1 + z) to the galaxies as they are: blurring their
photometry by its errors would double the noise. For the map of the CDF every fold is answered by
members that were fitted to the other folds, and the law of all their PIT values is learned
(`probmmae.calibration.recalibrate`); the members that are kept are fitted to all folds.

Axes: galaxy.
"""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from probmmae.calibration.recalibrate import LEAST_GALAXIES, GlobalRecalibration, fit_global
from probmmae.checkpoint import write_folder
from probmmae.inference.pit_map import TERMS
from probmmae.photometric.answers import KIND, PhotometricModel
from probmmae.photometric.footprint import Footprint
from probmmae.photometric.network import (
    Features,
    PhotometricNetwork,
    features_of,
    mixture,
    typical_errors,
)
from probmmae.photometric.recipe import FitConfig, PhotometricRecipe
from probmmae.photometric.sample import Bands, Sample, read_sample

Watch = Callable[[int], None]
"""Called after every fitted network with how many there are."""

_WARMUP = 100
"""Steps of linear warm-up."""


def networks_of(config: FitConfig) -> int:
    """How many networks a training fits."""
    return config.members * (config.folds + 1)


def train(
    recipe: PhotometricRecipe, data: Path, folder: Path, *, watch: Watch | None = None
) -> PhotometricModel:
    """Fit a model to the part of a table that is not held out, and write its checkpoint.

    Args:
        recipe: Columns of the table and settings of the fit.
        data: The table.
        folder: Receives checkpoint.json and the weights.
        watch: Told of progress.

    Raises:
        ValueError: What `read_sample` and `fit` raise.
    """
    sample = read_sample(recipe.catalogue, data)
    share = recipe.catalogue.held_out
    model = fit(recipe, sample.take(~sample.held_out(share)), watch=watch)
    tensors = {
        f"member.{index}.{name}": part
        for index, member in enumerate(model.members)
        for name, part in member.state_dict().items()
    }
    content = {
        "kind": KIND,
        "recipe": recipe.to_dict(),
        "data": data.name,
        "galaxies": model.pit_law.galaxies,
        "repair": model.pit_law.to_dict(),
        "typical_errors": list(model.typical_errors),
        "footprint": asdict(model.footprint),
    }
    write_folder(folder, tensors, "weights", content)
    return model


def fit(
    recipe: PhotometricRecipe, sample: Sample, *, watch: Watch | None = None
) -> PhotometricModel:
    """A model of the galaxies of a sample.

    Raises:
        ValueError: A fold holds no galaxy.
    """
    config, done = recipe.fit, 0
    fold = sample.fold(recipe.catalogue.held_out, config.folds)
    filled = np.bincount(fold, minlength=config.folds)
    if filled.min() == 0:
        raise ValueError(
            f"Expected galaxies in each of {config.folds} folds; got {len(sample)} galaxies, "
            "which leave one empty. Use a larger table, or fewer folds."
        )
    typical = typical_errors(sample.table)
    features = features_of(sample.table, typical)

    def members(rows: NDArray[np.bool_], first_seed: int) -> list[PhotometricNetwork]:
        nonlocal done
        index, made = torch.from_numpy(rows), []
        for number in range(config.members):
            seed = first_seed + number
            made.append(
                _network(sample.bands, features.take(index), sample.z[index], config, seed)
            )
            done += 1
            if watch is not None:
                watch(done)
        return made

    pit = np.zeros(len(sample))
    for number in range(config.folds):
        rows = fold == number
        others = members(~rows, config.seed + config.members * (number + 1))
        index = torch.from_numpy(rows)
        pit[rows] = _pit(others, features.take(index), sample.z[index])
    kept = members(np.ones(len(sample), dtype=bool), config.seed)
    law = fit_global(pit) if len(pit) >= LEAST_GALAXIES else _identity(len(pit))
    return PhotometricModel(
        recipe, tuple(kept), law, tuple(typical.tolist()), Footprint.of(features)
    )


def _identity(galaxies: int) -> GlobalRecalibration:
    """Too few galaxies to learn a law from."""
    return GlobalRecalibration((0.0,) * TERMS, 0.0, galaxies)


def _pit(
    members: list[PhotometricNetwork], features: Features, z: Float[Tensor, " galaxy"]
) -> NDArray[np.float64]:
    with torch.no_grad():
        return np.asarray(mixture([one(features) for one in members]).cdf(z).double().numpy())


def _network(
    bands: Bands, features: Features, z: Float[Tensor, " galaxy"], config: FitConfig, seed: int
) -> PhotometricNetwork:
    """Maximum likelihood, going `epochs` times through the galaxies in an order of the seed's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PhotometricNetwork(len(bands.names), config)
    network.begin(features, z)
    parameters = list(network.parameters())
    optimiser = torch.optim.AdamW(
        parameters, config.rate, (0.9, 0.98), weight_decay=config.weight_decay
    )
    generator = torch.Generator().manual_seed(seed)
    count = len(z)
    batch = min(config.batch, count)
    steps = config.epochs * (count // batch)
    for step in range(steps):
        place = step * batch % (count // batch * batch)
        if place == 0:
            order = torch.randperm(count, generator=generator)
        rows = order[place : place + batch]
        warm = min(1.0, (step + 1) / _WARMUP)
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.param_groups[0]["lr"] = config.rate * warm * cosine
        loss = -network(features.take(rows)).log_prob(z[rows]).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
    return network.requires_grad_(False).eval()
