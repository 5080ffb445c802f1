"""Training: from a recipe and a table to a checkpoint folder, in minutes on a CPU.

Members are fitted by maximum likelihood of ln(1 + z), with dropout, to the galaxies as they are:
blurring their photometry by its errors would double the noise. For the map of the CDF every fold
is answered by members that were fitted to the other folds, and the law of all their PIT values is
learned, given brightness and the answer's own median and width
(`probmmae.calibration.recalibrate_local`): one law for all left bright galaxies too wide and faint
ones too narrow. The members that are kept are fitted to all folds.

Axes: galaxy.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from probmmae.calibration.recalibrate_local import LEAST_GALAXIES, fit_local
from probmmae.checkpoint import write_folder
from probmmae.inference.pit_map import TERMS
from probmmae.inference.redshifts import exact
from probmmae.photometric.answers import KIND, PhotometricModel, covariates
from probmmae.photometric.footprint import Footprint
from probmmae.photometric.network import (
    LAYERS,
    Features,
    PhotometricNetwork,
    features_of,
    mixture,
    typical_errors,
)
from probmmae.photometric.recipe import FitConfig, PhotometricRecipe
from probmmae.photometric.sample import Sample, read_sample

Watch = Callable[[int], None]
"""Called after every pass through the galaxies with how many there were."""

_WARMUP = 100
"""Steps of linear warm-up, or a tenth of all where there are few."""


def passes_of(config: FitConfig) -> int:
    """How many passes through the galaxies a training makes."""
    return 2 * config.epochs


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
        "galaxies": model.trained_on,
        "repair": None if model.pit_law is None else model.pit_law.to_dict(),
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
    config, seed = recipe.fit, recipe.fit.seed
    fold = sample.fold(recipe.catalogue.held_out, config.folds)
    filled = np.bincount(fold, minlength=config.folds)
    if filled.min() == 0:
        raise ValueError(
            f"Expected galaxies in each of {config.folds} folds; got {len(sample)} galaxies, "
            "which leave one empty. Use a larger table, or fewer folds."
        )
    typical = typical_errors(sample.table)
    features = features_of(sample.table, typical)
    others = [
        torch.from_numpy((fold != number).nonzero()[0])
        for number in range(config.folds)
        for _ in range(config.members)
    ]
    everybody = [torch.arange(len(sample))] * config.members
    kept = networks(features, sample.z, everybody, config, seed=seed, watch=watch)
    blind = networks(
        features, sample.z, others, config, seed=seed + config.members,
        watch=None if watch is None else lambda done: watch(config.epochs + done),
    )  # fmt: skip
    law = None
    if len(sample) >= LEAST_GALAXIES:
        pit, told = _out_of_fold(features, sample.z, fold, blind)
        law = fit_local(pit, told, generator=np.random.default_rng(seed), terms=TERMS)
    return PhotometricModel(
        recipe, tuple(kept), law, len(sample), tuple(typical.tolist()), Footprint.of(features)
    )


@torch.no_grad()
def _out_of_fold(
    features: Features,
    z: Float[Tensor, " galaxy"],
    fold: NDArray[np.int64],
    blind: list[PhotometricNetwork],
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """PIT and covariates of every galaxy, by the members that were fitted to other folds."""
    pit = np.zeros(len(z))
    told: dict[str, NDArray[np.float64]] = {}
    folds = int(fold.max()) + 1
    for number, members in enumerate(np.split(np.arange(len(blind)), folds)):
        rows = (fold == number).nonzero()[0]
        part = features.take(torch.from_numpy(rows))
        density = mixture([blind[one].density(part) for one in members])
        pit[rows] = exact(density).cdf(z[rows].double()).numpy()
        for name, values in covariates(part, density).items():
            told.setdefault(name, np.zeros(len(z)))[rows] = values
    return pit, told


def networks(
    features: Features,
    z: Float[Tensor, " galaxy"],
    groups: Sequence[Int[Tensor, " _"]],
    config: FitConfig,
    *,
    seed: int,
    watch: Watch | None,
) -> list[PhotometricNetwork]:
    """A network for each group of galaxies, by maximum likelihood, all of them in one go.

    Each goes `epochs` times through its galaxies in an order of its own; parameters of all stand
    side by side, so that a step is a few large products of matrices.
    """
    made = []
    for number, rows in enumerate(groups):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + number)
            made.append(PhotometricNetwork(features.visible.shape[1], config))
        made[-1].begin(features, z[rows])
    inputs = made[0].inputs(features)
    parameters, buffers = torch.func.stack_module_state(cast(list[nn.Module], made))

    def loss(
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        inputs: Tensor,
        kept: Tensor,
        z: Tensor,
    ) -> Tensor:
        density = torch.func.functional_call(made[0], (parameters, buffers), (inputs, kept))
        return -density.log_prob(z).mean()

    losses = torch.func.vmap(loss)
    learned = list(parameters.values())
    optimiser = torch.optim.AdamW(
        learned, config.rate, (0.9, 0.98), weight_decay=config.weight_decay, fused=True
    )
    generator = torch.Generator().manual_seed(seed)
    batch = min(config.batch, *(len(rows) for rows in groups))
    each = min(len(rows) for rows in groups) // batch
    masks = _masks((len(groups), LAYERS, batch, config.hidden), config.dropout, generator)
    step, steps = 0, config.epochs * each
    warmup = min(_WARMUP, steps / 10)
    for epoch in range(config.epochs):
        order = torch.stack(
            [
                rows[torch.randperm(len(rows), generator=generator)[: each * batch]]
                for rows in groups
            ]
        )
        for chosen in order.split(batch, dim=1):
            warm = min(1.0, (step + 1) / warmup)
            cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
            optimiser.param_groups[0]["lr"] = config.rate * warm * cosine
            shown = inputs.index_select(0, chosen.flatten()).unflatten(0, chosen.shape)
            total = losses(parameters, buffers, shown, next(masks), z[chosen]).sum()
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            _clip(learned)
            optimiser.step()
            step += 1
        if watch is not None:
            watch(epoch + 1)
    for number, network in enumerate(made):
        network.load_state_dict(
            {name: stacked[number].detach() for name, stacked in {**parameters, **buffers}.items()}
        )
        network.requires_grad_(False).eval()
    return made


def _masks(
    shape: tuple[int, int, int, int], dropout: float, generator: torch.Generator
) -> Iterator[Tensor]:
    """Factors of the hidden units, step by step: 0 for those left out, of mean one.

    Cut at random places from one strip of random numbers: drawing each step's anew takes as long
    as the products of matrices.
    """
    size = math.prod(shape)
    strip = (torch.rand(2 * size, generator=generator) >= dropout) / (1 - dropout)
    while True:
        start = int(torch.randint(size, (), generator=generator))
        yield strip[start : start + size].view(shape)


def _clip(learned: list[Tensor]) -> None:
    """Scale the gradient of every network to a norm of at most one."""
    gradients = [one.grad for one in learned if one.grad is not None]
    square = torch.stack([one.flatten(1).square().sum(1) for one in gradients]).sum(0)
    factor = square.clamp(min=1.0).rsqrt()
    for one in gradients:
        one.mul_(factor.reshape(-1, *(1,) * (one.dim() - 1)))
