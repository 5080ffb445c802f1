import pytest
import torch

from probmmae.instrument import RestSpectrum, covered, observe, pixel_widths
from probmmae.templates import load_templates

TEMPLATES = load_templates()
GRIDS = {
    "desi": 3600 + 0.8 * torch.arange(7781, dtype=torch.float64),
    "sdss": 3650 * torch.exp(torch.arange(4500, dtype=torch.float64) * 2.302585e-4),
    "coarse": 3700 + 12.0 * torch.arange(500, dtype=torch.float64),
}


def rest(lines=0.0, continuum=None, sigma=80.0):
    basis, line = TEMPLATES.continuum.shape[0], TEMPLATES.line_wavelength.shape[0]
    weights = torch.zeros(1, basis, dtype=torch.float64)
    if continuum is not None:
        weights[0] = continuum
    return RestSpectrum(
        continuum=weights,
        lines=torch.full((1, line), lines, dtype=torch.float64),
        velocity=torch.zeros(1, dtype=torch.float64),
        sigma_star=torch.full((1,), sigma, dtype=torch.float64),
        sigma_gas=torch.full((1,), sigma, dtype=torch.float64),
    )


def old_population():
    node = TEMPLATES.stellar_continuum[3, -2, 0].double()
    return node / (node @ TEMPLATES.continuum.double().mean(1))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("z", [0.02, 0.31])
def test_line_flux_is_conserved_on_every_grid(grid, z):
    wavelength = GRIDS[grid][None]
    sigma = wavelength / 2000 / 2.3548
    one = rest()
    index = TEMPLATES.line_name.index("[OIII]5008")
    one.lines[0, index] = 7.0
    flux = observe(TEMPLATES, one, torch.tensor([z], dtype=torch.float64), wavelength, sigma)
    total = (flux * pixel_widths(wavelength)).sum()
    assert float(total) == pytest.approx(7.0, rel=2e-3)
    centre = (flux * wavelength).sum() / flux.sum()
    wanted = float(TEMPLATES.line_wavelength[index]) * (1 + z)
    # A line narrower than a pixel is placed to within a part of the pixel.
    assert float(centre) == pytest.approx(wanted, abs=0.25 * float(pixel_widths(wavelength).max()))


def test_line_width_is_gas_and_instrument_in_quadrature():
    wavelength = 6400 + 0.1 * torch.arange(6000, dtype=torch.float64)[None]
    one = rest(sigma=150.0)
    one.lines[0, TEMPLATES.line_name.index("H-alpha")] = 1.0
    sigma = torch.full_like(wavelength, 1.5)
    z = torch.tensor([0.02], dtype=torch.float64)
    flux = observe(TEMPLATES, one, z, wavelength, sigma)[0]
    centre = (flux * wavelength[0]).sum() / flux.sum()
    width = ((flux * (wavelength[0] - centre) ** 2).sum() / flux.sum()).sqrt()
    wanted = ((150 / 299792.458 * float(centre)) ** 2 + 1.5**2) ** 0.5
    assert float(width) == pytest.approx(wanted, rel=5e-3)


def test_velocity_is_a_small_redshift():
    wavelength = GRIDS["desi"][None]
    sigma = wavelength / 3000 / 2.3548
    moved, still = rest(1.0, old_population()), rest(1.0, old_population())
    moved.velocity[:] = 300.0
    z = torch.tensor([0.1], dtype=torch.float64)
    same = (1 + z) * (1 + 300 / 299792.458) - 1
    a = observe(TEMPLATES, moved, z, wavelength, sigma)
    b = observe(TEMPLATES, still, same, wavelength, sigma)
    assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("width", [70.0, 130.0, 220.0, 500.0])
def test_blurring_matches_direct_convolution(width):
    # The ladder mixes two rungs of the right variance; held against a direct Gaussian convolution.
    step = 299792.458 * TEMPLATES.step
    spectrum = old_population() @ TEMPLATES.continuum.double()
    reach = int(6 * width / step) + 1
    offset = torch.arange(-reach, reach + 1, dtype=torch.float64) * step
    kernel = torch.exp(-0.5 * (offset / width) ** 2)
    wanted = torch.nn.functional.conv1d(
        spectrum[None, None], (kernel / kernel.sum())[None, None], padding=reach
    )[0, 0]
    grid = TEMPLATES.wavelength.double()[2500:6000][None]
    sigma_star = (width**2 + TEMPLATES.template_sigma**2) ** 0.5
    one = rest(0.0, old_population(), sigma_star)
    flux = observe(
        TEMPLATES, one, torch.zeros(1, dtype=torch.float64), grid, torch.full_like(grid, 1e-3)
    )
    # The pixel's own width (69 km/s wide) is added: allow what it changes.
    error = (flux[0] / wanted[2500:6000] - 1).abs()
    assert float(error.max()) < 0.02
    assert float(error.mean()) < 0.002


def test_coverage_ends_with_the_templates():
    wavelength = torch.tensor([[1500.0, 5000.0, 12000.0]])
    assert covered(TEMPLATES, torch.zeros(1), wavelength).tolist() == [[False, True, False]]
