"""Small made-up galaxies for tests of the model: no simulator, exact truth."""

from dataclasses import dataclass

import torch

from probmmae.batch import Batch, Images, PhotometryTable, Spectra
from probmmae.decoders import to_physical
from probmmae.instrument import RestSpectrum, observe
from probmmae.model import GalaxyModel, ModelConfig
from probmmae.templates import load_templates

SMALL = ModelConfig(
    width=32, depth=1, heads=2, latent=6, shared=2, classes=2, components=3, hidden=32
)


@dataclass(frozen=True)
class Toys:
    batch: Batch
    deep: Spectra
    rest: RestSpectrum


def toys(count=6, spectra=2, pixels=900, seed=0):
    """Galaxies of two populations, with images, photometry and spectra of 3700-7300 Angstrom."""
    templates = load_templates()
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    z = 0.03 + 0.4 * uniform(count)
    old = templates.stellar_continuum[3, -2, 1]
    young = templates.stellar_continuum[3, 5, 0]
    level = templates.continuum.mean(1)
    share = uniform(count, spectra, 1)
    mix = share * old / (old @ level) + (1 - share) * young / (young @ level)
    bright = torch.exp(normal(count, 1, 1) * 0.5)
    rest = RestSpectrum(
        continuum=mix * bright,
        lines=(5 * (1 - share) * bright + 0.05)
        * torch.exp(0.2 * normal(count, spectra, len(templates.line_name))),
        velocity=50 * normal(count, spectra),
        sigma_star=100 + 40 * uniform(count, spectra),
        sigma_gas=70 + 30 * uniform(count, spectra),
    )
    wavelength = torch.linspace(3700, 7300, pixels).expand(count, spectra, pixels).contiguous()
    sigma = wavelength / 4700
    flux = observe(templates, rest, z[:, None].expand(count, spectra), wavelength, sigma)
    ivar = torch.full_like(flux, 100.0)
    ivar[..., 200:230] = 0
    aperture = torch.cat([2 * normal(count, spectra, 2), torch.full((count, spectra, 2), 1.5)], -1)

    def seen(factor):
        noisy = flux + normal(*flux.shape) / (ivar.clamp(min=1) * factor).sqrt()
        return Spectra(wavelength, noisy * (ivar > 0), ivar * factor, sigma, aperture)

    band = torch.tensor([4800.0, 6200.0, 7700.0]).expand(count, 3).contiguous()
    truth = bright[:, 0] * (1 + z[:, None] * torch.tensor([-1.0, 0.2, 0.8]))
    y, x = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(24) - 11.5, indexing="ij")
    shape = torch.exp(-0.5 * (x**2 + y**2) / 9) / (2 * torch.pi * 9)
    images = Images(
        flux=truth[..., None, None] * shape + 1e-3 * normal(count, 3, 24, 24),
        ivar=torch.full((count, 3, 24, 24), 1e6),
        wavelength=band,
        psf_fwhm=torch.full((count, 3), 0.8),
        pixel_scale=torch.full((count,), 0.25),
        centre=torch.zeros(count, 2),
    )
    photometry = PhotometryTable(
        truth + 0.02 * normal(count, 3), torch.full((count, 3), 2500.0), band
    )
    known = torch.ones(count, dtype=torch.bool)
    batch = Batch(images, photometry, seen(1.0), z, known)
    return Toys(batch, seen(100.0), rest)


def small_model(made, likelihood="field", seed=0):
    """An untrained small network whose decoder is placed on the toys' principal axes."""
    from dataclasses import replace

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = GalaxyModel(replace(SMALL, likelihood=likelihood))
    # The decoder is placed on the principal axes of the toys' numbers.
    rest = made.rest.map(lambda part: part.flatten(0, 1))
    numbers = to_physical(model.templates, rest, torch.ones(rest.velocity.shape))[:, 1:].double()
    mean, deviation = numbers.mean(0), numbers.std(0).clamp(min=1e-4)
    _, size, axes = torch.linalg.svd((numbers - mean) / deviation, full_matrices=False)
    decoder = model.spectrum_decoder
    code = model.config.latent - 1
    with torch.no_grad():
        decoder.get_buffer("mean").copy_(mean)
        decoder.get_buffer("deviation").copy_(deviation)
        decoder.straight.weight.copy_(axes[:code].T * size[:code] / len(numbers) ** 0.5)
        decoder.bend[-1].weight.mul_(0.01)
        decoder.bend[-1].bias.zero_()
    return model
