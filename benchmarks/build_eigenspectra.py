"""Rebuild `probmmae/data/eigenspectra.npz`: what redshifts and continua are looked for with.

`python benchmarks/build_eigenspectra.py`: apertures of the tuning seed, noise-free in their rest
frame, over their level, without centring (the mean is a direction like any other). Eigenspectra
(`scan`) are of all light at R = 2000; continua (`continuum`) of the continuum alone, kept as
weights of the template curves.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from report_set import TUNE_SEED

from probmmae.continuum import CURVES, continuum_level
from probmmae.instrument import observe
from probmmae.scan import rest_wavelength
from probmmae.simulator.stream import simulate_block
from probmmae.simulator.survey import SurveySettings
from probmmae.templates import Templates, load_templates

_COVERED = (2250.0, 10800.0)
"""Angstrom; zero outside."""
_LEVEL = (3600.0, 7000.0)
"""Angstrom that the level is the mean of."""
_CLIP = 6.0
"""Levels that a bin is cut at, so that the strongest lines do not rule."""


def main() -> None:
    """Simulate, decompose, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("-o", "--out", type=Path, default=Path("probmmae/data/eigenspectra.npz"))
    options = parser.parse_args()
    wavelength = rest_wavelength()
    covered = (wavelength > _COVERED[0]) & (wavelength < _COVERED[1])
    inside = (wavelength > _LEVEL[0]) & (wavelength < _LEVEL[1])
    templates = load_templates()
    parts, weights = [], []
    for block in range(options.blocks):
        _, truth = simulate_block(TUNE_SEED, block, settings=SurveySettings(size=8))
        rest = truth.rest.map(lambda part: part.flatten(0, 1))
        count = len(rest.velocity)
        light = observe(
            templates,
            rest,
            torch.zeros(count),
            wavelength.expand(count, -1),
            (wavelength / 2000 / 2.3548).expand(count, -1),
        )
        light = light * covered
        level = (rest.continuum @ continuum_level(templates)).clamp(min=1e-6)
        weights.append(rest.continuum / level[:, None])
        parts.append(light / light[:, inside].abs().mean(1, keepdim=True))
    every = torch.cat(parts).clamp(-_CLIP, _CLIP).double()
    _, size, directions = torch.linalg.svd(every, full_matrices=False)
    kept = directions[: options.count] * size[: options.count, None] / len(every) ** 0.5
    left = float((size[options.count :].square().sum() / size.square().sum()).sqrt())
    continua, missed = _continua(torch.cat(weights).double(), templates)
    np.savez_compressed(
        options.out,
        eigenspectra=kept.numpy().astype(np.float16),
        continua=continua.numpy().astype(np.float32),
    )
    print(
        f"{options.out}: of {len(every)} spectra {options.count} eigenspectra, {left:.1%} rms "
        f"left; {CURVES} continua, {missed:.2%}"
    )


def _continua(weights: torch.Tensor, templates: Templates) -> tuple[torch.Tensor, float]:
    """Principal directions of continua as template weights, and the relative rms left."""
    inside = (templates.wavelength > _COVERED[0]) & (templates.wavelength < _COVERED[1])
    left, size, _ = torch.linalg.svd(
        weights @ templates.continuum[:, inside].double(), full_matrices=False
    )
    missed = float((size[CURVES:].square().sum() / size.square().sum()).sqrt())
    return left[:, :CURVES].T @ weights / len(weights) ** 0.5, missed


if __name__ == "__main__":
    main()
