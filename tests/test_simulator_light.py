"""Populations and their light: distances, photometry, lines."""

import astropy.units as u
import numpy as np
import pytest
import speclite.filters
import torch
from astropy.cosmology import FlatLambdaCDM

from probmmae.instrument import SPEED_OF_LIGHT, RestSpectrum, observe
from probmmae.simulator.bandpasses import HSC, SDSS, load_bandpasses
from probmmae.simulator.cosmology import age_of_universe, kpc_per_arcsec, luminosity_distance
from probmmae.simulator.population import Z_MAX, Z_MIN, draw_population, population_photometry
from probmmae.templates import load_templates

TEMPLATES = load_templates()


@pytest.fixture(scope="module")
def population():
    return draw_population(3000, torch.Generator().manual_seed(5))


def still(continuum, lines):
    zero = torch.zeros(len(continuum))
    return RestSpectrum(continuum, lines, zero, zero + 80, zero + 60)


def test_distances_are_those_of_astropy():
    z = torch.tensor([0.01, 0.1, 0.3, 0.65])
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3)
    distance = cosmology.luminosity_distance(z.numpy()).to_value(u.Mpc)
    np.testing.assert_allclose(luminosity_distance(z).numpy(), distance, rtol=1e-5)
    age = cosmology.age(z.numpy()).to_value(u.yr)
    np.testing.assert_allclose(age_of_universe(z).numpy(), age, rtol=1e-4)
    scale = 1 / cosmology.arcsec_per_kpc_proper(z.numpy()).to_value(u.arcsec / u.kpc)
    np.testing.assert_allclose(kpc_per_arcsec(z).numpy(), scale, rtol=1e-5)


def test_population_is_in_range(population):
    assert float(population.z.min()) >= Z_MIN
    assert float(population.z.max()) <= Z_MAX
    assert bool((population.lines >= 0).all())
    assert bool(torch.isfinite(population.continuum).all())
    # The basis leaves an error: it must not make light negative where a spectrograph looks.
    total = population.continuum.sum(1) @ TEMPLATES.continuum
    relative = total / total.mean(1, keepdim=True)
    assert float(relative[:, TEMPLATES.wavelength > 2300].min()) > -0.005


def test_no_galaxy_is_without_h_alpha(population):
    near = (TEMPLATES.wavelength - 6564.6).abs() < 80
    level = population.continuum.sum(1) @ TEMPLATES.continuum[:, near].mean(1)
    flux = population.lines.sum(1)[:, TEMPLATES.line("H-alpha")]
    width = flux / level / (1 + population.z)
    assert 0.1 < float(width.min())
    old = width[population.log_ssfr < -12.5]
    assert 0.3 < float(old.median()) < 2.5
    young = width[population.log_ssfr > -10.5]
    assert 15 < float(young.median()) < 120


def test_quiescent_galaxies_are_red(population):
    flux = population_photometry(population, SDSS)
    colour = -2.5 * torch.log10(flux[:, 1] / flux[:, 2])
    near = (population.z > 0.05) & (population.z < 0.15)
    red = colour[near & (population.log_ssfr < -11.8)]
    blue = colour[near & (population.log_ssfr > -10.5)]
    # Real red sequence and blue cloud at z = 0.1: g - r about 0.95 and 0.3-0.7.
    assert 0.8 < float(red.median()) < 1.1
    assert 0.25 < float(blue.median()) < 0.7


@pytest.mark.parametrize("bands", [HSC, SDSS[1:]])
def test_photometry_is_that_of_the_spectrum(population, bands):
    some = population.take(slice(0, 40))
    wavelength = torch.arange(3200.0, 10950.0, 0.5).expand(40, -1)
    rest = still(some.continuum.sum(1), some.lines.sum(1))
    covered = some.z < 0.5
    flux = observe(TEMPLATES, rest, some.z, wavelength, torch.full_like(wavelength, 1.0))
    spectrum = flux.double().numpy() * 1e-17 * u.erg / u.s / u.cm**2 / u.AA
    ours = population_photometry(some, bands)
    for column, name in enumerate(bands):
        curve = speclite.filters.load_filter(name)
        if curve.wavelength[-1] > 10940:
            spectrum_here, grid = curve.pad_spectrum(
                spectrum, wavelength[0].double().numpy() * u.AA, method="edge"
            )
        else:
            spectrum_here, grid = spectrum, wavelength[0].double().numpy() * u.AA
        maggies = curve.get_ab_maggies(spectrum_here, grid)
        ratio = ours[:, column].double().numpy() / (1e9 * np.asarray(maggies))
        assert np.abs(ratio[covered.numpy()] - 1).max() < 0.01


def test_effective_wavelengths_are_those_of_the_band_table():
    from probmmae.bands import EFFECTIVE_WAVELENGTH

    ours = load_bandpasses(HSC).wavelength
    theirs = [EFFECTIVE_WAVELENGTH[f"hsc-{name[-1]}"] for name in HSC]
    # The table has the survey's newer r2 and i2 filters: i differs by 44 Angstrom.
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=6e-3)
    np.testing.assert_allclose(
        ours.numpy()[[0, 1, 3, 4]], np.array(theirs)[[0, 1, 3, 4]], rtol=1e-4
    )


def test_lines_keep_their_flux_in_an_observed_spectrum(population):
    some = population.take(slice(0, 30))
    rest = still(torch.zeros(30, len(TEMPLATES.continuum)), some.lines.sum(1))
    wavelength = torch.arange(3600.0, 9824.8, 0.8).expand(30, -1)
    flux = observe(TEMPLATES, rest, some.z, wavelength, torch.full_like(wavelength, 0.7))
    centre = TEMPLATES.line_wavelength * (1 + some.z[:, None])
    inside = (centre > 3610) & (centre < 9810)
    expected = (rest.lines * inside).sum(1)
    # Those within ten Angstrom of an end may be cut: leave out galaxies that have any.
    edge = (((centre > 3590) & (centre < 3610)) | ((centre > 9810) & (centre < 9835))).any(1)
    ratio = (flux.sum(1) * 0.8 / expected)[~edge]
    assert len(ratio) > 10
    assert float((ratio - 1).abs().max()) < 0.01


def test_velocity_moves_lines():
    lines = torch.zeros(1, len(TEMPLATES.line_name))
    lines[0, TEMPLATES.line("H-alpha")] = 100.0
    rest = still(torch.zeros(1, len(TEMPLATES.continuum)), lines)
    moved = RestSpectrum(
        rest.continuum, rest.lines, torch.tensor([300.0]), rest.sigma_star, rest.sigma_gas
    )
    wavelength = torch.arange(7000.0, 7500.0, 0.8)[None]
    flux = observe(
        TEMPLATES, moved, torch.tensor([0.1]), wavelength, torch.full_like(wavelength, 0.7)
    )
    middle = float((flux * wavelength).sum() / flux.sum())
    expected = 6564.61 * 1.1 * (1 + 300 / SPEED_OF_LIGHT)
    assert abs(middle - expected) < 0.1


def test_no_galaxies():
    with pytest.raises(ValueError, match="Expected a positive number of galaxies; got 0"):
        draw_population(0, torch.Generator())
