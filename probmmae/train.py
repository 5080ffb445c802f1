"""Training: from a recipe to a checkpoint, by stochastic variational inference.

Every random choice of step i (galaxies, what is hidden, draws of the guide) is a function of the
seed and of i, so a run that is killed resumes from its last state to the same weights, bit for bit
on a CPU.
"""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probmmae import checkpoint
from probmmae.batch import Batch
from probmmae.config import Recipe
from probmmae.encoder import Context
from probmmae.feed import Block, feed
from probmmae.footprint import Footprint
from probmmae.masking import drop_bands, observe_part, only_photometry
from probmmae.model import GalaxyModel
from probmmae.objective import elbo, make_targets
from probmmae.sources import block_maker, footprint
from probmmae.start import new_model

_FASTER = 20.0
"""Learning rate of the field's laws over that of weights."""

Watch = Callable[[int, dict[str, float]], None]
"""Called after every step with the step and its terms."""


@dataclass
class State:
    """Everything that a resumed run needs."""

    model: GalaxyModel
    averaged: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int
    footprint: Footprint | None
    """Where on galaxies the apertures lie that it learns from, and learned from before."""


class Step(nn.Module):
    """The loss of one block: the unit that is compiled, or wrapped for several processes."""

    def __init__(self, model: GalaxyModel, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe

    def forward(self, block: Block, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss; the mean of every term of the bound and of the catalogue's ln p(z)."""
        objective = self.recipe.objective
        whole = _withhold(block.whole, self.recipe.data.hide_redshift, generator)
        observed = observe_part(whole, generator)
        targets = make_targets(
            whole, observed, block.deep, objective.cells, generator, decoded=objective.decoded
        )
        terms = elbo(self.model, self._encode(observed), observed, targets)
        loss = terms.loss(objective)
        told = {name: part.detach().mean() for name, part in vars(terms).items()}
        if block.catalogue is not None:
            photometry, z = block.catalogue
            alone = drop_bands(only_photometry(photometry, z), generator)
            catalogue = self.model.redshift(self._encode(alone)).log_prob(z).mean()
            loss = loss - self.recipe.data.catalogue_weight * objective.redshift * catalogue
            told["catalogue"] = catalogue.detach()
        return {"loss": loss, **told}

    def _encode(self, batch: Batch) -> Context:
        """The context; on a GPU the transformer runs in bfloat16, everything after it does not."""
        device = batch.z.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            context = self.model.encode(batch)
        return context.map(lambda part: part.float() if part.is_floating_point() else part)


def _withhold(batch: Batch, share: float, generator: torch.Generator) -> Batch:
    if share == 0:
        return batch
    kept = (torch.rand(len(batch), generator=generator) >= share).to(batch.z.device)
    return replace(batch, z_known=batch.z_known & kept, z=batch.z * kept)


def rate_at(step: int, recipe: Recipe) -> float:
    """Learning rate: linear warm-up, then a cosine to zero."""
    training = recipe.training
    warm = min(1.0, (step + 1) / max(1, training.warmup))
    through = min(1.0, step / (training.decay or training.steps))
    cosine = 0.5 * (1 + float(torch.cos(torch.tensor(through * torch.pi, dtype=torch.float64))))
    return training.rate * warm * cosine


def new_state(recipe: Recipe) -> State:
    """A model that begins: untrained (`start.new_model`), or on top of an earlier run."""
    training, seen = recipe.training, footprint(recipe)
    if training.start_from is None:
        model = new_model(recipe)
    else:
        shipped = training.start_from == "shipped"
        earlier = checkpoint.read(checkpoint.SHIPPED if shipped else Path(training.start_from))
        model = _continued(recipe, earlier)
        seen = earlier.footprint if seen is None else seen.joined(earlier.footprint)
    return State(model, _copy(model), _optimiser(model, recipe), 0, seen)


def _continued(recipe: Recipe, earlier: checkpoint.Stored) -> GalaxyModel:
    """The averaged weights of an earlier run; parts it lacks, or has in another shape, are new."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        model = GalaxyModel(recipe.model)
    own = model.state_dict()
    weights = {name: earlier.tensors.get(f"model.{name}") for name in own}
    fitting = {
        name: part
        for name, part in weights.items()
        if part is not None and part.shape == own[name].shape
    }
    if not any(name.startswith("encoder.blocks.") for name in fitting):
        raise ValueError(
            f"Expected an earlier run with an encoder of width {recipe.model.width}; found width "
            f"{earlier.recipe.model.width}. Use the same width."
        )
    model.load_state_dict(fitting, strict=False)
    return model


def load_state(folder: Path) -> tuple[State, Recipe]:
    """The state of an interrupted run."""
    stored = checkpoint.read(folder)
    model = GalaxyModel(stored.recipe.model)
    part = {
        kind: {
            name.removeprefix(f"{kind}."): tensor
            for name, tensor in stored.tensors.items()
            if name.startswith(f"{kind}.")
        }
        for kind in ("raw", "model", "first", "second", "steps")
    }
    model.load_state_dict(part["raw"])
    optimiser = _optimiser(model, stored.recipe)
    for name, parameter in model.named_parameters():
        if name in part["first"]:
            optimiser.state[parameter] = {
                "step": part["steps"].get(name, torch.tensor(float(stored.step))),
                "exp_avg": part["first"][name],
                "exp_avg_sq": part["second"][name],
            }
    state = State(model, part["model"], optimiser, stored.step, stored.footprint)
    return state, stored.recipe


def save_state(folder: Path, state: State, recipe: Recipe) -> None:
    """Write everything that `load_state` needs."""
    tensors = {f"raw.{name}": part for name, part in state.model.state_dict().items()}
    tensors |= {f"model.{name}": part for name, part in state.averaged.items()}
    for name, parameter in state.model.named_parameters():
        moments = state.optimiser.state.get(parameter)
        if moments:
            tensors[f"first.{name}"] = moments["exp_avg"]
            tensors[f"second.{name}"] = moments["exp_avg_sq"]
            # Less than state.step where a step with an infinite gradient was left out.
            tensors[f"steps.{name}"] = moments["step"]
    tensors = {name: part.detach().cpu().clone() for name, part in tensors.items()}
    seen = None if state.footprint is None else state.footprint.to_dict()
    checkpoint.write(folder, tensors, recipe, state.step, {"resumable": True, "footprint": seen})


def train(
    recipe: Recipe, folder: Path, *, resume: bool = True, watch: Watch | None = None
) -> GalaxyModel:
    """Train to the recipe's last step, saving resumable states, and return the averaged model.

    Args:
        recipe: What to train; a state in `folder` made with another recipe is refused.
        folder: Receives checkpoint.json, weights, and metrics.jsonl.
        resume: Go on from the state in `folder` if there is one.
        watch: Told the terms of every step (for a progress bar).

    Raises:
        ValueError: The state in `folder` comes from another recipe.
    """
    from lightning_fabric import Fabric  # it sets environment variables when imported

    training = recipe.training
    fabric = Fabric(
        accelerator="auto",
        devices=training.devices,
        strategy="ddp_find_unused_parameters_true" if training.devices > 1 else "auto",
    )
    fabric.launch()
    state = _start(recipe, folder, resume=resume)
    state.model.train().to(fabric.device)
    state.averaged = {name: part.to(fabric.device) for name, part in state.averaged.items()}
    step_module: Any = Step(state.model, recipe)
    if fabric.device.type == "cuda":
        state.model.encoder.compile(dynamic=True)
    wrapped, optimiser = fabric.setup(step_module, state.optimiser)
    rank, world = fabric.global_rank, fabric.world_size
    maker = block_maker(recipe, rank, world)
    waited, began = 0.0, time.monotonic()
    with ExitStack() as stack:
        blocks = stack.enter_context(
            closing(feed(maker, state.step, training.steps, recipe.data.workers))
        )
        log = None
        if rank == 0:
            path = folder / "metrics.jsonl"
            log = stack.enter_context(path.open("a", buffering=1))
        for step in range(state.step, training.steps):
            asked = time.monotonic()
            block = next(blocks)
            waited += time.monotonic() - asked
            for group in optimiser.param_groups:
                group["lr"] = group["faster"] * rate_at(step, recipe)
            seed = training.seed * 1_000_003 + step * world + rank
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                generator = torch.Generator().manual_seed(seed)
                told = wrapped(_to(block, fabric.device), generator)
                optimiser.zero_grad(set_to_none=True)
                fabric.backward(told["loss"])
            norms = [
                float(nn.utils.clip_grad_norm_(group["params"], training.clip, foreach=False))
                for group in optimiser.param_groups
            ]
            if all(norm == norm and norm != float("inf") for norm in norms):
                optimiser.step()
            state.step = step + 1
            _average(state, training.ema)
            if log is not None:
                terms = {name: float(part.detach()) for name, part in told.items()} | {
                    "gradient": norms[0],
                    "waiting": waited / max(1e-9, time.monotonic() - began),
                    "rate": rate_at(step, recipe),
                }
                log.write(json.dumps({"step": state.step, "time": time.time(), **terms}) + "\n")
                if watch is not None:
                    watch(state.step, terms)
            if rank == 0 and (
                state.step % training.save_every == 0 or state.step == training.steps
            ):
                save_state(folder, state, recipe)
    state.model.load_state_dict(state.averaged)
    return state.model.eval().cpu()


def _start(recipe: Recipe, folder: Path, *, resume: bool) -> State:
    if resume and (folder / "checkpoint.json").is_file():
        state, older = load_state(folder)
        if older != recipe:
            raise ValueError(
                f"Expected {folder} to hold a run of this recipe; it holds another one's. "
                "Choose another folder, or train without resuming."
            )
        return state
    folder.mkdir(parents=True, exist_ok=True)
    return new_state(recipe)


def _optimiser(model: GalaxyModel, recipe: Recipe) -> torch.optim.Optimizer:
    # Rooms are clipped apart: likelihoods of thousands of pixels, the density of a sharp u: steep.
    rooms: list[list[nn.Module]] = [
        [model.prior], [model.spectrum_decoder, model.recognition], [model.image_decoder]
    ]  # fmt: skip
    groups = [[part for module in room for part in module.parameters()] for room in rooms]
    # A number that all galaxies share has far to go, and every galaxy says where.
    laws = {id(part) for part in model.prior.laws()}
    groups[0] = [part for part in groups[0] if id(part) not in laws]
    taken = {id(part) for group in groups for part in group} | laws
    rest = [part for part in model.parameters() if id(part) not in taken]
    if recipe.training.frozen:
        for name, part in model.named_parameters():
            part.requires_grad_(not name.startswith(recipe.training.frozen))
    return torch.optim.AdamW(
        [
            *({"params": group, "faster": 1.0} for group in [rest, *groups]),
            {"params": model.prior.laws(), "faster": _FASTER, "weight_decay": 0.0},
        ],
        lr=recipe.training.rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.training.weight_decay,
        foreach=False,
    )


def _copy(model: GalaxyModel) -> dict[str, Tensor]:
    return {name: part.detach().clone() for name, part in model.state_dict().items()}


@torch.no_grad()
def _average(state: State, decay: float) -> None:
    decay = min(decay, (1 + state.step) / (10 + state.step))
    for name, part in state.model.state_dict().items():
        if part.is_floating_point():
            state.averaged[name].lerp_(part, 1 - decay)


def _to(block: Block, device: torch.device) -> Block:
    if device.type == "cpu":
        return block
    catalogue = block.catalogue
    return Block(
        block.whole.to(device),
        None if block.deep is None else block.deep.to(device),
        None if catalogue is None else (catalogue[0].to(device), catalogue[1].to(device)),
    )
