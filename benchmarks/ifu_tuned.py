"""A short fine-tune on half of Abell 478's spaxels, judged on the other half, before and after.

The galaxy comes as 24 copies of itself, each with eight spaxels of the eastern half, drawn by
chance, and the images made from the cube; the recipe is `manga`, cut short.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from ifu_real import ABELL, REDSHIFT, chapter_figures, muse_cube

from probmmae import checkpoint
from probmmae.calibration.manga_chapter import compare_cube
from probmmae.config import Recipe, read_recipe
from probmmae.dataset import write_shards
from probmmae.formats.manga import to_galaxy
from probmmae.galaxy import Galaxy, Scalar
from probmmae.inference.posterior import Model, load
from probmmae.train import train

COPIES, APERTURES, STEPS, BATCH = 24, 8, 40, 8


def tuned_part(model: Model, data: Path, folder: Path, *, draws: int) -> None:
    """Figures of the western half from the shipped model and from one that saw the eastern."""
    path = folder / "tuned.json"
    if path.is_file():
        return
    read = muse_cube(data / ABELL[0])
    east = read.offset[0] > 0
    shown = replace(
        to_galaxy(read, every=3), scalars={"redshift": Scalar(REDSHIFT)}, photometry=()
    )
    run = folder / "tuned"
    train(_recipe(shown, run), run / "model")
    alone = replace(shown, spectra=())
    figures = []
    for said, one in (("before", model), ("after", load(run / "model"))):
        judged = compare_cube(one, read, alone, draws=draws, every=3, use=~east)
        label = f"Abell 478, western half from images of the cube, {said} a fine-tune on the other"
        figures += chapter_figures(label, judged)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(figures))
    partial.rename(path)


def _recipe(galaxy: Galaxy, run: Path) -> Recipe:
    """What is trained; writes the copies to learn from."""
    rng = np.random.default_rng(0)
    eastern = [each for each in galaxy.spectra if each.aperture.dx > 0]
    copies = [
        replace(
            galaxy, id=f"abell-478-{copy}",
            spectra=tuple(eastern[k] for k in rng.choice(len(eastern), APERTURES, replace=False)),
        )
        for copy in range(COPIES)
    ]  # fmt: skip
    write_shards(copies, run / "shards")
    base = read_recipe(Path(checkpoint.__file__).parent / "recipes" / "manga.toml")
    return replace(
        base,
        data=replace(base.data, shards=str(run / "shards"), workers=0),
        objective=replace(base.objective, image=0.0, cells=1),
        training=replace(
            base.training, steps=STEPS, batch=BATCH, warmup=5, ema=0.9, save_every=STEPS
        ),
    )
