"""Where an untrained model begins: from simulated apertures to a decoder and a guide that agree.

The decoder starts on the principal axes of many apertures' physical numbers, and the recognition
network is taught, for a minute, to read those axes off low-noise spectra (maximum likelihood of
the true coordinates). Without it the first thousand steps of the ELBO go into finding any code at
all.

Axes: aperture (row), latent, feature.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from probmmae.config import Recipe
from probmmae.decoders import summarise, to_physical
from probmmae.instrument import RestSpectrum
from probmmae.latent import Recognition, rest_bins
from probmmae.model import GalaxyModel
from probmmae.simulator.stream import simulate_block
from probmmae.templates import load_templates
from probmmae.tokens import galaxy_scale

_FIRST_BLOCK = 1 << 30
"""Blocks of the start are numbered from the far end of the seed."""
_BATCH = 256


@dataclass(frozen=True)
class Apertures:
    """What the start is fitted to."""

    rest: RestSpectrum
    scale: Tensor
    """Flux scale of the aperture's galaxy, nanomaggies, shape (aperture,)."""
    features: Tensor
    """`rest_bins` of the low-noise spectrum, shape (aperture, feature)."""


def apertures(seed: int, blocks: int) -> Apertures:
    """Simulated apertures that no training block holds.

    A galaxy's scale depends on what is observed of it: here it is scattered by 30 %.
    """
    rests, scales, features = [], [], []
    generator = torch.Generator().manual_seed(seed)
    for block in range(_FIRST_BLOCK, _FIRST_BLOCK + blocks):
        batch, truth = simulate_block(seed, block)
        scale = galaxy_scale(batch)
        scale = scale * torch.exp(0.3 * torch.randn(scale.shape, generator=generator))
        rests.append(truth.rest.map(lambda part: part.flatten(0, 1)))
        scales.append(scale.repeat_interleave(truth.rest.velocity.shape[1]))
        features.append(rest_bins(truth.deep, truth.z, scale).flatten(0, 1))
    return Apertures(rests[0].join(rests[1:]), torch.cat(scales), torch.cat(features))


def new_model(recipe: Recipe) -> GalaxyModel:
    """An untrained model at its starting point; the same recipe gives the same weights."""
    seed = recipe.training.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GalaxyModel(recipe.model)
    made = apertures(seed, recipe.training.start_blocks)
    summary = summarise(load_templates(), made.rest, made.scale, recipe.model.latent)
    model.spectrum_decoder.set_summary(summary)
    standard = (to_physical(load_templates(), made.rest, made.scale) - summary.mean) / (
        summary.deviation
    )
    code = standard @ summary.axes / summary.axes.square().sum(0)
    rounds = recipe.training.start_rounds
    _teach(model, made.features, code, standard, rounds=rounds, seed=seed)
    return model


def _teach(
    model: GalaxyModel, features: Tensor, code: Tensor, standard: Tensor, *, rounds: int, seed: int
) -> None:
    """Fit the guide's factor to the code, and the decoder's bend to what the axes leave out."""
    recognition, decoder = model.recognition, model.spectrum_decoder
    parameters = [*recognition.parameters(), *decoder.bend.parameters()]
    steps = rounds * (len(code) // _BATCH)
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, foreach=False)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=max(2, steps))
    generator = torch.Generator().manual_seed(seed)
    axes = decoder.get_buffer("axes")
    for _ in range(rounds):
        order = torch.randperm(len(code), generator=generator)
        for start in range(0, len(code) - _BATCH + 1, _BATCH):
            rows = order[start : start + _BATCH]
            unlikely = -_log_factor(recognition, features[rows], code[rows]).mean()
            missed = standard[rows] - code[rows] @ axes.T - decoder.bend(code[rows])
            loss = unlikely + 10 * missed.square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 10.0, foreach=False)
            optimiser.step()
            schedule.step()


def _log_factor(recognition: Recognition, features: Tensor, code: Tensor) -> Tensor:
    """Log-density of the true code under the guide's factor alone, shape (aperture,)."""
    mean, root = recognition.factor(features)
    spread = ((code - mean)[..., None, :] @ root)[..., 0, :]
    return root.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * spread.square().sum(-1)
