"""A tiny untrained model and galaxies of every kind, for tests of what users call."""

from pathlib import Path

import numpy as np
import torch

from probmmae import checkpoint
from probmmae.config import Recipe, TrainingConfig
from probmmae.galaxy import Aperture, BandImage, Galaxy, Photometry, Scalar, Spectrum
from probmmae.model import GalaxyModel, ModelConfig

CONFIG = ModelConfig(width=32, depth=1, heads=2, latent=6, shared=2, classes=2, hidden=32)


def tiny_network(seed: int = 0) -> GalaxyModel:
    """An untrained network whose decoder answers with a flat continuum, and scatter.

    Its redshifts depend on everything that is shown.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GalaxyModel(CONFIG)
        head = network.redshift_head
        torch.nn.init.normal_(head.pooled[-1].weight, std=0.1)  # zero when new
        head.judge[-1].bias.data[:2] = -8.0  # candidates of flat spectra are nothing to go by
        network.prior.white.data.fill_(-5.0)  # neighbours are alike
        decoder = network.spectrum_decoder
        mean = decoder.get_buffer("mean")
        mean.zero_()
        mean[0] = 1.0  # the first continuum curve
        decoder.get_buffer("deviation").fill_(0.2)
        torch.nn.init.normal_(decoder.straight.weight)
        torch.nn.init.zeros_(decoder.bend[-1].weight)
        torch.nn.init.zeros_(decoder.bend[-1].bias)
    return network.requires_grad_(False).eval()


def tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    """That network as a checkpoint folder."""
    recipe = Recipe(training=TrainingConfig(steps=1), model=CONFIG)
    tensors = {f"model.{name}": part for name, part in tiny_network(seed).state_dict().items()}
    checkpoint.write(folder, tensors, recipe, 0, {})
    return folder


def some_image(band: str = "hsc-g", *, scale: float = 0.2, seed: int = 0) -> BandImage:
    """A round blob in noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48] - 23.5
    blob = 0.3 * np.exp(-0.5 * (x**2 + y**2) * (scale / 1.2) ** 2)
    return BandImage.in_batch_units(
        band,
        blob + rng.normal(0, 0.02, blob.shape),
        ivar=np.full(blob.shape, 0.02**-2),
        pixel_scale=scale,
        psf_fwhm=0.8,
    )


def some_spectrum(*, seed: int = 0, dx: float = 0.0) -> Spectrum:
    """A noisy flat spectrum on a logarithmic grid."""
    rng = np.random.default_rng(seed)
    wavelength = 3800 * np.exp(2.3026e-4 * np.arange(3800))
    return Spectrum.in_batch_units(
        wavelength,
        10 + rng.normal(0, 1, wavelength.shape),
        ivar=np.ones(wavelength.shape),
        sigma=wavelength / 2000 / 2.3548,
        aperture=Aperture.in_batch_units(dx, 0.0, diameter=2.0),
        name="sdss",
    )


def some_photometry(seed: int = 0) -> tuple[Photometry, ...]:
    """Five bands."""
    rng = np.random.default_rng(seed)
    return tuple(
        Photometry.in_batch_units(f"hsc-{band}", 10 + 3 * k + rng.normal(), ivar=4.0)
        for k, band in enumerate("grizy")
    )


def some_galaxy(name: str = "one", *, z: float | None = None, seed: int = 0) -> Galaxy:
    """Images in two bands, photometry, a spectrum, and a redshift if one is given."""
    return Galaxy(
        name,
        images=(some_image("hsc-g", seed=seed), some_image("hsc-i", seed=seed + 1)),
        photometry=some_photometry(seed),
        spectra=(some_spectrum(seed=seed),),
        scalars={} if z is None else {"redshift": Scalar(z)},
    )
