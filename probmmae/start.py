"""Where an untrained model begins: a code for spectra, and networks that read it off them.

From simulated apertures, in minutes: the decoder and the code (`code`), then the guide, taught to
read the code off low-noise spectra, and the prior's reader, taught to read it off what a task
shows of noisy ones; and p(z | photometry) from simulated catalogues. Without it the first
thousands of steps of the ELBO go into finding any code at all, and the level of a spectrum, which
flux calibration can absorb, is never put right. What a recipe freezes (`training.frozen`) stays
as it is here.

Axes: aperture (row), latent, feature.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probmmae.batch import PhotometryTable
from probmmae.code import learn_code
from probmmae.config import Recipe
from probmmae.decoders import to_physical
from probmmae.latent import Recognition, rest_bins
from probmmae.level import LEVEL
from probmmae.masking import SPECTRUM_TASKS, drop_bands, observe_part, only_photometry
from probmmae.model import GalaxyModel
from probmmae.simulator.stream import simulate_block, simulate_catalogue
from probmmae.simulator.survey import SurveySettings
from probmmae.templates import load_templates
from probmmae.tokens import galaxy_scale

_FIRST_BLOCK = 1 << 30
"""Blocks of the start are numbered from the far end of the seed."""
_BATCH = 256
_LEVEL_WIDTH = 0.003
"""Width of the level's own code: as finely as it matters."""
_ROWS = 512
"""Galaxies of the catalogue a step."""
_CATALOGUE_ROUNDS = 3
"""Times that the start goes through the catalogue."""
_CHUNK = 20_000
"""Galaxies of the catalogue that are drawn at a time."""


@dataclass(frozen=True)
class Apertures:
    """What the start is fitted to."""

    level: Float[Tensor, " aperture"]
    """u[0]: ln of the level over the galaxy's scale, plus `LEVEL`."""
    relative: Float[Tensor, "aperture relative"]
    """The other physical numbers (`decoders.to_physical`)."""
    deep: Float[Tensor, "aperture feature"]
    """`rest_bins` of the low-noise spectrum, half precision."""
    shown: Float[Tensor, "aperture feature"]
    """`rest_bins` of what a task shows of the noisy one, half precision."""
    some: Tensor
    """Whether the task shows anything of it."""


def apertures(seed: int, blocks: int) -> Apertures:
    """Simulated apertures that no training block holds.

    The scale that levels refer to is the one of what a task shows, as in training.
    """
    templates = load_templates()
    settings = SurveySettings(size=8)
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, list[Tensor]] = {
        "level": [], "relative": [], "deep": [], "shown": [], "some": []
    }  # fmt: skip
    for block in range(_FIRST_BLOCK, _FIRST_BLOCK + blocks):
        batch, truth = simulate_block(seed, block, settings=settings)
        observed = observe_part(batch, generator, SPECTRUM_TASKS)
        scale = galaxy_scale(observed)
        physical = to_physical(
            templates, truth.rest, scale[:, None].expand(truth.rest.velocity.shape)
        ).flatten(0, 1)
        parts["level"].append(physical[:, 0] + LEVEL)
        parts["relative"].append(physical[:, 1:])
        parts["deep"].append(rest_bins(truth.deep, truth.z, scale).flatten(0, 1).half())
        parts["shown"].append(rest_bins(observed.spectra, truth.z, scale).flatten(0, 1).half())
        parts["some"].append((observed.spectra.ivar > 0).any(-1).flatten())
    return Apertures(**{name: torch.cat(rows) for name, rows in parts.items()})


def new_model(recipe: Recipe) -> GalaxyModel:
    """An untrained model at its starting point; the same recipe gives the same weights."""
    seed, rounds = recipe.training.seed, recipe.training.start_rounds
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GalaxyModel(recipe.model)
    made = apertures(seed, recipe.training.start_blocks)
    begin(model, made, rounds=rounds, seed=seed)
    begin_redshifts(model, galaxies=recipe.training.start_catalogue, seed=seed)
    return model


def begin(model: GalaxyModel, made: Apertures, *, rounds: int, seed: int) -> None:
    """Fit code, guide and reader to apertures, going `rounds` times through them."""
    decoder = model.spectrum_decoder
    steps = max(1, rounds * len(made.level) // _BATCH)
    coder = learn_code(decoder, made.relative, steps=steps, seed=seed)
    with torch.no_grad():
        mean, deviation = decoder.get_buffer("mean"), decoder.get_buffer("deviation")
        code = coder((made.relative - mean) / deviation)
        width = torch.cat([torch.tensor([_LEVEL_WIDTH]), coder.log_width.exp()])
        u = torch.cat([made.level[:, None], code], dim=-1)
    shown = made.some.nonzero()[:, 0]
    _teach(model.recognition, made.deep, u, width, steps=steps, seed=seed, standard=True)
    _teach(
        model.prior.reader,
        made.shown[shown],
        u[shown],
        width,
        steps=max(1, rounds * len(shown) // _BATCH),
        seed=seed,
        standard=False,
    )


def begin_redshifts(model: GalaxyModel, *, galaxies: int, seed: int) -> None:
    """Fit p(z | photometry) to simulated catalogue galaxies, `_CATALOGUE_ROUNDS` times each.

    Photometric redshifts are a fine function of colours that costs little to learn alone, and is
    hardly found among the gradients of images and spectra.
    """
    if galaxies == 0:
        return
    made = [
        simulate_catalogue(seed, _FIRST_BLOCK + block, min(_CHUNK, galaxies - block * _CHUNK))
        for block in range(-(-galaxies // _CHUNK))
    ]
    flux, ivar, wavelength = (
        torch.cat([getattr(table, name) for table, _ in made])
        for name in ("flux", "ivar", "wavelength")
    )
    z = torch.cat([redshift for _, redshift in made])
    parameters = [*model.encoder.colours.parameters(), *model.redshift_head.layers.parameters()]
    optimiser = torch.optim.AdamW(parameters, 3e-3, (0.9, 0.98), weight_decay=0.01, foreach=False)
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, _CATALOGUE_ROUNDS * galaxies // _ROWS)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * _falling(step, steps)
        rows = torch.randint(galaxies, (min(_ROWS, galaxies),), generator=generator)
        table = PhotometryTable(flux[rows], ivar[rows], wavelength[rows])
        shown = drop_bands(only_photometry(table, z[rows]), generator)
        loss = -model.redshift_of_colours(shown).log_prob(shown.z).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0, foreach=False)
        optimiser.step()


def _falling(step: int, steps: int) -> float:
    """Learning rate over its peak: a short warm-up, then a cosine to zero."""
    return min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _teach(
    reader: Recognition,
    features: Tensor,
    u: Tensor,
    width: Tensor,
    *,
    steps: int,
    seed: int,
    standard: bool,
) -> None:
    """Fit a reader's Gaussian factor to the code by maximum likelihood.

    The guide's factor multiplies a prior, for which a standard normal stands in (`standard`); the
    factor of the prior's own reader is all there is.
    """
    parameters = list(reader.parameters())
    optimiser = torch.optim.AdamW(parameters, 1e-3, (0.9, 0.98), weight_decay=0.01, foreach=False)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-3 * _falling(step, steps)
        rows = torch.randint(len(u), (_BATCH,), generator=generator)
        bins, code = features[rows].float(), u[rows]
        code = code + width * torch.randn(code.shape, generator=generator)
        # Another scale of the galaxy moves its level and nothing else.
        shift = 0.3 * torch.randn(len(rows), 1, generator=generator)
        bins = torch.cat([bins[:, :-1], bins[:, -1:] + shift], dim=-1)
        code = torch.cat([code[:, :1] + shift, code[:, 1:]], dim=-1)
        loss = -_log_factor(*reader.factor(bins), code, standard=standard).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 10.0, foreach=False)
        optimiser.step()


def _log_factor(mean: Tensor, root: Tensor, code: Tensor, *, standard: bool) -> Tensor:
    """Log-density of the code under the factor, times a standard normal if so; (aperture,)."""
    if standard:
        precision = root @ root.mT
        pulled = precision @ mean[..., None]
        root = torch.linalg.cholesky(precision + torch.eye(root.shape[-1]))
        mean = torch.cholesky_solve(pulled, root)[..., 0]
    spread = ((code - mean)[..., None, :] @ root)[..., 0, :]
    return root.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * spread.square().sum(-1)
