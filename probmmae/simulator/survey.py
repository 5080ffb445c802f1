"""What a survey would record: from a `Scene` to a noisy `Batch` and the `Truth` behind it.

Every galaxy has its own telescope: pixel scale, seeing, depth, spectrographs, exposure times and
apertures are drawn for each, so that a model trained on the batches learns to read the conditions.
Reported inverse variances are estimated from the noisy data, as a pipeline would, so that they
tell nothing of the truth that the data do not.

Axes: galaxy, band, y, x, spectrum, pixel.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from probmmae.batch import Batch, Images, PhotometryTable, Rows, Spectra
from probmmae.instrument import RestSpectrum, observe
from probmmae.simulator.bandpasses import HSC, load_bandpasses
from probmmae.simulator.population import Population, population_photometry
from probmmae.simulator.rendering import collect, render_images
from probmmae.simulator.scene import Scene
from probmmae.simulator.spectrographs import load_spectrographs
from probmmae.templates import load_templates

PHOTOMETRY_FLOOR = 0.015
"""Relative calibration error of catalogue fluxes, part of their noise."""
DEEP = 10.0
"""How many times smaller the noise of the deep spectra is."""
EXTENT = (0.4, 6.0)
"""arcsec: apertures are scattered as if effective radii lay between these."""
CENTRAL = 0.05
"""arcsec: central apertures lie within this distance of the centre."""

#: Point-source depth relative to r and dark-sky brightness (AB mag an arcsec^2), by band letter.
_DEPTH = {"u": -0.9, "g": 0.25, "r": 0.0, "i": -0.2, "z": -0.9, "y": -1.5}
_SKY = {"u": 22.8, "g": 22.1, "r": 21.1, "i": 20.4, "z": 19.3, "y": 18.3}


@dataclass(frozen=True)
class SurveySettings:
    """What is recorded of every galaxy, and the ranges that conditions are drawn from."""

    bands: tuple[str, ...] = HSC
    """speclite names of the image and catalogue bands."""
    size: int = 48
    """Pixels a side of the images."""
    n_spectra: int = 2
    """Apertures a galaxy."""
    pixel_scale: tuple[float, float] = (0.15, 0.50)
    """Arcsec, log-uniform."""
    psf_fwhm: tuple[float, float] = (0.55, 1.40)
    """Arcsec, log-uniform."""
    depth: tuple[float, float] = (22.6, 26.0)
    """AB magnitude in r of a point source at S/N 5."""
    signal_to_noise: tuple[float, float] = (1.5, 30.0)
    """Median S/N a pixel of a spectrum, log-uniform; faint apertures stay below."""
    central: float = 0.35
    """Chance that the first aperture is on the centre; all others are scattered."""
    reach: float = 2.0
    """Effective radii out to which apertures are scattered."""
    masked: float = 0.03
    """Mean share of pixels that a spectrum loses in chunks."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.n_spectra < 1:
            raise ValueError(
                "Expected a positive image size and number of spectra; got "
                f"{self.size} and {self.n_spectra}. Use at least 1 of each."
            )
        for name in ("pixel_scale", "psf_fwhm", "depth", "signal_to_noise"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(
                    f"Expected 0 < low <= high for {name}; got {(low, high)}. Reorder the range."
                )


@dataclass(frozen=True)
class Truth(Rows):
    """What no survey knows."""

    z: Float[Tensor, " galaxy"]
    """Redshift."""
    rest: RestSpectrum
    """What each aperture collects; rows are (galaxy, spectrum)."""
    image_flux: Float[Tensor, "galaxy band y x"]
    """Noise-free images, nanomaggies per pixel."""
    photometry_flux: Float[Tensor, "galaxy band"]
    """Noise-free total fluxes, nanomaggies."""
    spectrum_flux: Float[Tensor, "galaxy spectrum pixel"]
    """Noise-free spectra, 1e-17 erg/s/cm2/Angstrom; 0 in the padding."""
    deep: Spectra
    """The same apertures and grids with `DEEP` times less noise, drawn apart."""
    log_mass: Float[Tensor, " galaxy"]
    """Decimal logarithm of the stellar mass ever formed, solar masses."""
    log_ssfr: Float[Tensor, " galaxy"]
    """Decimal logarithm of the specific star formation rate, 1/year."""
    r_eff: Float[Tensor, " galaxy"]
    """Nominal half-mass radius, arcsec."""


def observe_galaxies(
    population: Population,
    scene: Scene,
    generator: Generator,
    settings: SurveySettings | None = None,
) -> tuple[Batch, Truth]:
    """Observe every galaxy under conditions of its own.

    Args:
        population: The galaxies.
        scene: The same galaxies on the sky.
        generator: Source of randomness (on the CPU).
        settings: What is recorded.
    """
    settings = settings or SurveySettings()
    seeing, depth = _conditions(len(scene), generator, settings)
    images, image_flux = _images(scene, seeing, depth, generator, settings)
    photometry_flux = population_photometry(population, settings.bands)
    photometry = noisy_photometry(photometry_flux, generator, settings)
    aperture = _apertures(population, generator, settings)
    spectra, deep, rest, spectrum_flux = _spectra(scene, aperture, generator, settings)
    batch = Batch(
        images=images,
        photometry=photometry,
        spectra=spectra,
        z=population.z,
        z_known=torch.ones(len(scene), dtype=torch.bool),
    )
    truth = Truth(
        z=population.z,
        rest=rest,
        image_flux=image_flux,
        photometry_flux=photometry_flux,
        spectrum_flux=spectrum_flux,
        deep=deep,
        log_mass=population.log_mass,
        log_ssfr=population.log_ssfr,
        r_eff=population.r_eff,
    )
    return batch, truth


def _log_uniform(
    bounds: tuple[float, float], shape: tuple[int, ...], generator: Generator
) -> Tensor:
    low, high = math.log(bounds[0]), math.log(bounds[1])
    return torch.exp(low + (high - low) * torch.rand(shape, generator=generator))


def _conditions(n: int, generator: Generator, settings: SurveySettings) -> tuple[Tensor, Tensor]:
    """FWHM of the seeing (arcsec), flux of a 5 sigma point source (nanomaggies), by band."""
    bands = len(settings.bands)
    common = _log_uniform(settings.psf_fwhm, (n, 1), generator)
    seeing = common * torch.exp(0.08 * torch.randn(n, bands, generator=generator))
    low, high = settings.depth
    magnitude = low + (high - low) * torch.rand(n, 1, generator=generator)
    magnitude = magnitude + torch.tensor([_DEPTH[name[-1]] for name in settings.bands])
    magnitude = magnitude + 0.15 * torch.randn(n, bands, generator=generator)
    return seeing.clamp(*settings.psf_fwhm), 10 ** (-0.4 * (magnitude - 22.5))


def _images(
    scene: Scene, seeing: Tensor, depth: Tensor, generator: Generator, settings: SurveySettings
) -> tuple[Images, Tensor]:
    scale = _log_uniform(settings.pixel_scale, (len(scene),), generator)
    flux = render_images(
        scene, settings.bands, pixel_scale=scale, psf_fwhm=seeing, size=settings.size
    )
    # Noise of the sky a pixel from the depth: a point source spreads over this many pixels.
    pixels = 4 * math.pi * (seeing / 2.3548 / scale[:, None]) ** 2
    background = (depth / 5) ** 2 / pixels
    brightness = torch.tensor([_SKY[name[-1]] for name in settings.bands])
    sky = 10 ** (-0.4 * (brightness - 22.5)) * scale[:, None] ** 2

    def variance(light: Tensor) -> Tensor:
        return background[..., None, None] * (1 + light.clamp(min=0) / sky[..., None, None])

    noisy = flux + torch.randn(flux.shape, generator=generator) * variance(flux).sqrt()
    images = Images(
        flux=noisy,
        ivar=1 / variance(noisy),
        wavelength=load_bandpasses(settings.bands).wavelength.expand(len(scene), -1).contiguous(),
        psf_fwhm=seeing,
        pixel_scale=scale,
        centre=torch.zeros(len(scene), 2),
    )
    return images, flux


def noisy_photometry(
    total: Float[Tensor, "galaxy band"], generator: Generator, settings: SurveySettings
) -> PhotometryTable:
    """Catalogue fluxes: sky noise of a drawn depth and a calibration floor.

    The reported variance is sky^2 + (PHOTOMETRY_FLOOR x measured flux)^2, so that the sky's part,
    and with it the exact likelihood of any true flux, can be had back from it.
    """
    _, depth = _conditions(len(total), generator, settings)
    # An extended galaxy collects twice the noise of a point source.
    sky = (2 * depth / 5) ** 2
    noise = torch.sqrt(sky + (PHOTOMETRY_FLOOR * total) ** 2)
    flux = total + noise * torch.randn(total.shape, generator=generator)
    ivar = 1 / (sky + (PHOTOMETRY_FLOOR * flux) ** 2)
    wavelength = load_bandpasses(settings.bands).wavelength.expand(len(total), -1).contiguous()
    return PhotometryTable(flux=flux, ivar=ivar, wavelength=wavelength)


def _apertures(population: Population, generator: Generator, settings: SurveySettings) -> Tensor:
    """dx, dy, diameter, seeing (arcsec) scattered over the galaxy: (galaxy, spectrum, 4)."""
    shape = (len(population), settings.n_spectra)

    def uniform() -> Tensor:
        return torch.rand(shape, generator=generator)

    central = uniform() < settings.central
    central[:, 1:] = False
    # Uniform in radius: more in the middle than uniform in area, where the light is.
    extent = settings.reach * population.r_eff.clamp(*EXTENT)
    distance = torch.where(central, CENTRAL * uniform(), extent[:, None] * uniform())
    angle = 2 * math.pi * uniform()
    diameters = torch.tensor([1.5, 2.0, 3.0])
    chosen = diameters[torch.randint(0, 3, shape, generator=generator)]
    fwhm = 0.9 + 0.9 * uniform()
    return torch.stack(
        [distance * torch.cos(angle), distance * torch.sin(angle), chosen, fwhm], dim=-1
    )


def _spectra(
    scene: Scene, aperture: Tensor, generator: Generator, settings: SurveySettings
) -> tuple[Spectra, Spectra, RestSpectrum, Tensor]:
    """Noisy and deep spectra, what the apertures collect, and the noise-free flux."""
    stored = load_spectrographs()
    shape = aperture.shape[:2]
    kind = torch.randint(0, len(stored.wavelength), shape, generator=generator)
    wavelength, sigma, real = stored.wavelength[kind], stored.sigma[kind], stored.real[kind]
    rest = collect(scene, aperture)
    z = scene.z[:, None].expand(shape)
    flux = observe(load_templates(), rest, z, wavelength, sigma) * real
    area = math.pi / 4 * aperture[..., 2, None] ** 2
    # Variance of a unit exposure: sky and object photons, and read noise that a faint sky shows.
    sky = stored.sky[kind] * area
    throughput = stored.throughput[kind]

    def variance(light: Tensor) -> Tensor:
        return (sky + light.clamp(min=0) + 0.3 / throughput) / (throughput * stored.width[kind])

    unit = variance(flux)
    target = _log_uniform(settings.signal_to_noise, shape, generator)
    middle = slice(800, 3600)
    bright = flux[..., middle].median(-1).values.clamp(min=0.05)
    reached = bright / unit[..., middle].median(-1).values.sqrt()
    exposure = ((reached / target) ** 2)[..., None]
    unit = unit * exposure
    keep = real & ~_lost(shape, real.shape[-1], generator, settings)
    noise = torch.randn(2, *flux.shape, generator=generator) * unit.sqrt()
    noisy = flux + noise[0]
    spectra = Spectra(
        wavelength=wavelength,
        flux=noisy * keep,
        ivar=keep / (variance(noisy) * exposure),
        sigma=sigma,
        aperture=aperture,
    )
    deep = Spectra(
        wavelength=wavelength,
        flux=(flux + noise[1] / DEEP) * real,
        ivar=real * (DEEP**2 / unit),
        sigma=sigma,
        aperture=aperture,
    )
    return spectra, deep, rest, flux


def _lost(
    shape: torch.Size, pixels: int, generator: Generator, settings: SurveySettings
) -> Tensor:
    """True in chunks of bad pixels; three a spectrum, of exponential length."""
    out = torch.zeros(*shape, pixels + 1)
    for _ in range(3):
        start = torch.rand(*shape, 1, generator=generator)
        length = -torch.log(torch.rand(*shape, 1, generator=generator).clamp(min=1e-6))
        length = length * settings.masked / 3
        first = (start * pixels).long()
        last = ((start + length) * pixels).long().clamp(max=pixels)
        out.scatter_add_(-1, first, torch.ones_like(start))
        out.scatter_add_(-1, last, -torch.ones_like(start))
    return out[..., :-1].cumsum(-1) > 0.5
