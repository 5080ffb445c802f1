"""What is hidden: from a whole batch to the observed batch, one task per galaxy.

Hiding is setting ivar and flux to zero. Every galaxy of a batch draws its own task, so that one
model learns every conditional that users ask for: images to spectrum, spectrum to images,
photometry alone, a spectrum with holes, the random 75 % of a masked autoencoder.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from probmmae.batch import Batch, Images, PhotometryTable, Spectra
from probmmae.tokens import PATCH, PIECE


@dataclass(frozen=True)
class Task:
    """How often each state of each modality is drawn; the states of one task belong together."""

    name: str
    weight: float
    images: str
    """none, all, random (a quarter of the patches)."""
    photometry: str
    """none or all."""
    spectra: str
    """none, first, random (a quarter of the pieces), random first (of the first alone), chunk (the
    first with a hole), rest (all but the first)."""


TASKS = (
    Task("image to all", 0.34, "all", "none", "none"),
    Task("image and photometry to all", 0.08, "all", "all", "none"),
    Task("photometry to all", 0.10, "none", "all", "none"),
    Task("spectrum to all", 0.10, "none", "none", "first"),
    Task("image and spectrum to all", 0.07, "all", "none", "first"),
    Task("random tokens", 0.08, "random", "none", "random"),
    Task("random spectra", 0.03, "none", "none", "random"),
    Task("random spectrum", 0.10, "none", "none", "random first"),
    Task("spectrum with a hole", 0.06, "none", "none", "chunk"),
    Task("all but one spectrum", 0.04, "all", "all", "rest"),
)
"""The mixture that the shipped model is trained on."""
SPECTRUM_TASKS = tuple(task for task in TASKS if task.spectra != "none")
"""Those that show something of a spectrum."""

_DROP_BANDS = 0.3
"""Share of galaxies that also lose a random subset of their bands."""


def observe_part(
    batch: Batch, generator: torch.Generator, tasks: tuple[Task, ...] = TASKS
) -> Batch:
    """A copy of `batch` in which every galaxy hides what its task hides.

    Args:
        batch: The whole of every galaxy.
        generator: Source of randomness.
        tasks: The mixture of tasks; weights need not sum to one.
    """
    galaxies = len(batch)
    weights = torch.tensor([task.weight for task in tasks])
    chosen = torch.multinomial(weights, galaxies, replacement=True, generator=generator)

    def state(kind: str, value: str) -> Tensor:
        table = torch.tensor([getattr(task, kind) == value for task in tasks])
        return table[chosen]

    keep_bands = _bands(batch.images.flux.shape[1], galaxies, generator)
    patches = _image_patches(batch, generator)
    images = state("images", "all")[:, None, None, None] | (
        state("images", "random")[:, None, None, None] & patches
    )
    images = images & keep_bands[:, :, None, None]
    catalogue = state("photometry", "all")[:, None] & _bands(
        batch.photometry.flux.shape[1], galaxies, generator
    )
    spectra = _spectrum_pixels(batch, generator, state)
    return hide(batch, images=images, photometry=catalogue, spectra=spectra)


def hide(batch: Batch, *, images: Tensor, photometry: Tensor, spectra: Tensor) -> Batch:
    """A copy of `batch` that keeps only what the boolean masks keep (broadcast to the data)."""
    return replace(
        batch,
        images=replace(
            batch.images, flux=batch.images.flux * images, ivar=batch.images.ivar * images
        ),
        photometry=replace(
            batch.photometry,
            flux=batch.photometry.flux * photometry,
            ivar=batch.photometry.ivar * photometry,
        ),
        spectra=replace(
            batch.spectra, flux=batch.spectra.flux * spectra, ivar=batch.spectra.ivar * spectra
        ),
    )


def only_photometry(photometry: PhotometryTable, z: Tensor) -> Batch:
    """A batch that holds nothing but photometry; the unused tables are as small as can be."""
    count = len(z)

    def filled(value: float, *shape: int) -> Tensor:
        return torch.full((count, *shape), value, device=z.device)

    nothing = filled(0.0, 1, PATCH, PATCH)
    images = Images(
        nothing, nothing, filled(6000.0, 1), filled(1.0, 1), filled(0.25), filled(0.0, 2)
    )
    pixels = filled(0.0, 1, PIECE)
    grid = filled(6000.0, 1, PIECE)
    spectra = Spectra(grid, pixels, pixels, grid / 4000, filled(1.0, 1, 4))
    return Batch(images, photometry, spectra, z, torch.ones_like(z, dtype=torch.bool))


def drop_bands(batch: Batch, generator: torch.Generator) -> Batch:
    """A copy of `batch` in which some galaxies lose some bands of their photometry."""
    galaxies, bands = batch.photometry.flux.shape
    keep = _bands(bands, galaxies, generator).to(batch.z.device)
    every = torch.ones((), dtype=torch.bool, device=batch.z.device)
    return hide(batch, images=every, photometry=keep, spectra=every)


def _bands(bands: int, galaxies: int, generator: torch.Generator) -> Tensor:
    keep = torch.rand(galaxies, bands, generator=generator) < 0.6
    always = torch.randint(bands, (galaxies,), generator=generator)
    keep[torch.arange(galaxies), always] = True
    whole = torch.rand(galaxies, generator=generator) >= _DROP_BANDS
    return keep | whole[:, None]


def _image_patches(batch: Batch, generator: torch.Generator) -> Tensor:
    galaxies, bands, height, width = batch.images.flux.shape
    keep = torch.rand(galaxies, 1, height // PATCH, width // PATCH, generator=generator) < 0.25
    return keep.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3).expand(-1, bands, -1, -1)


def _spectrum_pixels(
    batch: Batch, generator: torch.Generator, state: Callable[[str, str], Tensor]
) -> Tensor:
    galaxies, spectra, pixels = batch.spectra.flux.shape
    pieces = -(-pixels // PIECE)
    random = torch.rand(galaxies, spectra, pieces, generator=generator) < 0.25
    random = random.repeat_interleave(PIECE, 2)[..., :pixels]
    first = torch.zeros(1, spectra, 1, dtype=torch.bool)
    first[:, :1] = True
    # A hole of log-uniform length between 2 and 60 % of the grid, anywhere.
    length = 0.02 * 30 ** torch.rand(galaxies, 1, 1, generator=generator)
    start = torch.rand(galaxies, 1, 1, generator=generator) * (1 - length)
    along = torch.linspace(0, 1, pixels)
    hole = (along > start) & (along < start + length)

    def of(value: str) -> Tensor:
        return state("spectra", value)[:, None, None]

    return (
        (of("first") & first)
        | (of("random") & random)
        | (of("random first") & first & random)
        | (of("chunk") & first & ~hole)
        | (of("rest") & ~first)
    )
