"""The code of an aperture's light: what u stands for, before any survey is looked at.

A variational autoencoder compresses the physical numbers of simulated apertures, relative to their
level (shape of the continuum, ln equivalent widths, motions), to a few numbers that are standard
normal over the population. Its decoder becomes the model's `SpectrumDecoder`; its encoder is only
needed until the guide has learned to read the same code off spectra. Errors are counted in
tolerances, so one nat is worth the same for a continuum and for a line; the width of the code says
how finely each number matters, and numbers that nothing needs stay pure noise.

Axes: aperture (row), relative (number), code.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probmmae.decoders import SpectrumDecoder
from probmmae.templates import Templates

CONTINUUM_TOLERANCE = 0.004
"""Of the continuum at a wavelength, over the level."""
_INDEPENDENT = 20.0
"""Independent wavelengths of a continuum."""
_MOTIONS = (0.3, 0.2, 0.2)
"""Tolerances of velocity / 100 km/s and of ln of the two dispersions."""
_BATCH = 512


def relative_metric(templates: Templates) -> Float[Tensor, "basis basis"]:
    """A root M of the metric of continuum weights: |d M|^2 is the mean square of the curve d."""
    inside = templates.wavelength > 2300
    curves = templates.continuum[:, inside].double()
    size, axes = torch.linalg.eigh(curves @ curves.T / curves.shape[1])
    return (axes * size.clamp(min=0).sqrt()).float()


def misfit(
    templates: Templates,
    metric: Float[Tensor, "basis basis"],
    error: Float[Tensor, "aperture relative"],
    truth: Float[Tensor, "aperture relative"],
) -> Float[Tensor, " aperture"]:
    """Half the squared error in tolerances: minus a log-likelihood, up to a constant.

    Args:
        templates: The templates.
        metric: `relative_metric`.
        error: Decoded less true numbers.
        truth: True numbers (`decoders.to_physical` without the level).
    """
    basis, line = templates.continuum.shape[0], templates.line_wavelength.shape[0]
    shape, strength, motion = error.split([basis, line, 3], dim=-1)
    continuum = _INDEPENDENT * ((shape @ metric) / CONTINUUM_TOLERANCE).square().sum(-1)
    # A line of many Angstrom to 3 %; one that is lost in the continuum, to within 0.3 Angstrom.
    width = torch.exp(truth[..., basis : basis + line])
    lines = (strength / (0.03 + 0.3 / (width + 0.3))).square().sum(-1)
    motions = (motion / torch.tensor(_MOTIONS)).square().sum(-1)
    return 0.5 * (continuum + lines + motions)


class Coder(nn.Module):
    """From standardised numbers to the code: a normal with the same width for every aperture."""

    def __init__(self, relative: int, code: int, hidden: int) -> None:
        super().__init__()
        self.straight = nn.Linear(relative, code)
        self.bend = nn.Sequential(
            nn.Linear(relative, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(),
            nn.Linear(hidden, code),
        )  # fmt: skip
        self.log_width = nn.Parameter(torch.full((code,), -2.0))

    def forward(self, standard: Tensor) -> Tensor:
        """Mean of the code."""
        return self.straight(standard) + self.bend(standard)


def learn_code(
    decoder: SpectrumDecoder,
    relative: Float[Tensor, "aperture relative"],
    *,
    steps: int,
    seed: int,
) -> Coder:
    """Fit the decoder, and the coder that is returned, to apertures' numbers.

    Args:
        decoder: Gets its mean, deviation, straight and bent parts.
        relative: `decoders.to_physical` of many apertures, without the level.
        steps: Optimiser steps of 512 apertures.
        seed: Of the order and the noise.

    References:
        Kingma & Welling 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114.
    """
    mean, deviation = relative.mean(0), relative.std(0).clamp(min=1e-4)
    decoder.get_buffer("mean").copy_(mean)
    decoder.get_buffer("deviation").copy_(deviation)
    standard = (relative - mean) / deviation
    metric = relative_metric(decoder.templates)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        coder = Coder(relative.shape[1], decoder.straight.in_features, decoder.hidden)
    parameters = [*coder.parameters(), *decoder.straight.parameters(), *decoder.bend.parameters()]
    optimiser = torch.optim.AdamW(parameters, 2e-3, (0.9, 0.98), weight_decay=1e-4, foreach=False)
    for step in range(steps):
        rate = 2e-3 * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.param_groups[0]["lr"] = rate
        rows = torch.randint(len(standard), (_BATCH,), generator=generator)
        code = coder(standard[rows])
        width = coder.log_width.exp()
        noisy = code + width * torch.randn(code.shape, generator=generator)
        error = (decoder.standard(noisy) - standard[rows]) * deviation
        far = 0.5 * (width**2 + code**2 - 1).sum(-1) - coder.log_width.sum()
        loss = (misfit(decoder.templates, metric, error, relative[rows]) + far).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 10.0, foreach=False)
        optimiser.step()
    return coder


def nearest_code(
    decoder: SpectrumDecoder, relative: Float[Tensor, "aperture relative"], *, steps: int = 400
) -> Float[Tensor, "aperture code"]:
    """The codes whose decoded numbers are nearest to apertures' own, by gradient descent.

    What is left then is what the code cannot say, whoever reads it.

    Args:
        decoder: A decoder that has learned its code.
        relative: `decoders.to_physical` of the apertures, without the level.
        steps: Of Adam, with a rate that falls to zero.
    """
    metric = relative_metric(decoder.templates)
    mean, deviation = decoder.get_buffer("mean"), decoder.get_buffer("deviation")
    code = torch.zeros(len(relative), decoder.straight.in_features, requires_grad=True)
    optimiser = torch.optim.Adam([code], 0.1, foreach=False)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * step / steps))
        error = mean + deviation * decoder.standard(code) - relative
        away = misfit(decoder.templates, metric, error, relative) + 0.5 * code.square().sum(-1)
        (gradient,) = torch.autograd.grad(away.sum(), code)
        code.grad = gradient
        optimiser.step()
    return code.detach()
