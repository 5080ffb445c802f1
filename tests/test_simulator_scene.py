"""Scenes against GalSim and against themselves: one scene, many instruments, one answer."""

import galsim
import numpy as np
import pytest
import torch

from probmmae.simulator import profiles
from probmmae.simulator.bandpasses import load_bandpasses
from probmmae.simulator.population import draw_population, population_photometry
from probmmae.simulator.rendering import collect, cube, render_images
from probmmae.simulator.scene import draw_scene, rotation
from probmmae.templates import load_templates

TEMPLATES = load_templates()
RED = ("hsc2017-r",)


def make(n, seed):
    generator = torch.Generator().manual_seed(seed)
    population = draw_population(n, generator)
    return population, draw_scene(population, generator)


def test_constants_are_what_the_fit_finds():
    disk, psf, bulges = profiles.fitted()
    np.testing.assert_allclose(disk, profiles.DISK, atol=2e-4)
    np.testing.assert_allclose(psf, profiles.PSF, atol=2e-4)
    np.testing.assert_allclose(bulges, profiles.BULGE, atol=2e-3)


def mixture_image(pairs, scale, pixel, size):
    offset = (np.arange(size) - (size - 1) / 2) * pixel
    radius2 = offset[:, None] ** 2 + offset**2
    out = np.zeros((size, size))
    for width, weight in pairs:
        variance = (width * scale) ** 2 + pixel**2 / 12
        out += weight * np.exp(-0.5 * radius2 / variance) / (2 * np.pi * variance)
    return out * pixel**2


@pytest.mark.parametrize(
    ("profile", "pairs"),
    [
        (galsim.Exponential(scale_radius=1.5), [(1.5 * w, a) for w, a in profiles.DISK]),
        *(
            (
                galsim.Sersic(n=n, half_light_radius=1.2, trunc=9.6, flux_untruncated=True),
                [(1.2 * w, a) for w, a in zip(profiles.BULGE_WIDTHS, row, strict=True)],
            )
            for n, row in enumerate(profiles.BULGE, start=1)
        ),
    ],
)
def test_profiles_are_those_of_galsim_behind_seeing(profile, pairs):
    pixel, size, seeing = 0.3, 41, 0.9
    psf = galsim.Moffat(beta=3.5, fwhm=seeing)
    real = (
        galsim.Convolve(profile.withFlux(1.0), psf).drawImage(nx=size, ny=size, scale=pixel).array
    )
    total = sum(a for _, a in pairs)
    both = [
        (float(np.hypot(w, v * seeing)), a * b / total) for w, a in pairs for v, b in profiles.PSF
    ]
    ours = mixture_image(both, 1.0, pixel, size)
    assert np.abs(ours - real).max() < 0.012 * real.max()
    assert abs(ours.sum() - real.sum()) < 0.01


def test_seeing_is_a_moffat():
    # A point source: peak, and light inside one FWHM.
    real = galsim.Moffat(beta=3.5, fwhm=0.8).drawImage(nx=41, ny=41, scale=0.2).array
    ours = mixture_image(profiles.PSF, 0.8, 0.2, 41)
    assert np.abs(ours - real).max() < 0.015 * real.max()


def test_an_image_holds_the_total():
    population, scene = make(12, 1)
    total = population_photometry(population)
    image = render_images(
        scene,
        pixel_scale=(population.r_eff * 0.25).clamp(0.2, 2.0),
        psf_fwhm=torch.full((12, 5), 0.8),
        size=161,
    )
    assert float((image.sum((2, 3)) / total - 1).abs().max()) < 0.015


def test_cube_through_an_aperture_is_the_fibre():
    _, scene = make(6, 2)
    aperture = torch.tensor([[0.3, -0.2, 3.0, 1.2], [1.0, 0.5, 2.0, 1.2]]).expand(6, -1, -1)
    fibre = collect(scene, aperture)
    spaxels, where = cube(scene, side=0.1, size=60, seeing=1.2)
    for column in range(2):
        distance = (where - aperture[:, column, None, :2]).norm(dim=-1)
        inside = (distance < aperture[:, column, 2, None] / 2).float()
        added = torch.einsum("gs,gsb->gb", inside, spaxels.continuum) @ TEMPLATES.continuum
        direct = fibre.continuum[:, column] @ TEMPLATES.continuum
        error = (added - direct).abs() / direct.mean(1, keepdim=True)
        assert float(error.max()) < 0.02
        lines = torch.einsum("gs,gsl->gl", inside, spaxels.lines)
        alpha = TEMPLATES.line("H-alpha")
        assert float((lines / fibre.lines[:, column] - 1)[:, alpha].abs().max()) < 0.02
        # The mean velocity too, weighted with light.
        light = spaxels.continuum @ TEMPLATES.continuum.mean(1) * inside
        mean = (light * spaxels.velocity).sum(1) / light.sum(1)
        assert float((mean - fibre.velocity[:, column]).abs().max()) < 4.0


def test_cube_through_a_filter_is_the_image():
    _, scene = make(6, 3)
    spaxels, _ = cube(scene, side=0.3, size=24, seeing=1.0)
    through = load_bandpasses(RED).flux(scene.z, spaxels.continuum, spaxels.lines)
    image = render_images(
        scene, RED, pixel_scale=torch.full((6,), 0.3), psf_fwhm=torch.full((6, 1), 1.0), size=24
    )
    error = (through[..., 0].reshape(6, 24, 24) - image[:, 0]).abs()
    assert float((error / image[:, 0].amax((1, 2), keepdim=True)).max()) < 0.01


def test_a_wide_fibre_takes_everything():
    population, scene = make(8, 4)
    radius = population.r_eff.max()
    wide = collect(scene, torch.tensor([[[0.0, 0.0, float(24 * radius), 0.9]]]).expand(8, 1, 4))
    # The quadrature is meant for fibres: on a disc this wide only the order of things is exact.
    assert bool(torch.isfinite(wide.continuum).all())
    narrow = collect(scene, torch.tensor([[[0.0, 0.0, 1.5, 0.9]]]).expand(8, 1, 4))
    level = TEMPLATES.continuum.mean(1)
    assert bool(
        (narrow.continuum @ level < population.continuum.sum(1, keepdim=True) @ level).all()
    )


def test_rotation_is_odd_and_vanishes_face_on():
    _, scene = make(50, 6)
    x, y = torch.randn(2, 50, 20)
    torch.testing.assert_close(rotation(scene, x, y), -rotation(scene, -x, -y))
    cos_a, sin_a = (
        torch.cos(scene.position_angle)[:, None],
        torch.sin(scene.position_angle)[:, None],
    )
    along = torch.linspace(0.1, 5, 20)
    minor = rotation(scene, -sin_a * along, cos_a * along)
    assert float(minor.abs().max()) < 1e-2
    major = rotation(scene, cos_a * along, sin_a * along)
    assert bool((major.abs() <= scene.v_max.abs()[:, None] + 1e-3).all())
    assert bool((torch.sign(major[:, -1]) == torch.sign(scene.v_max)).all())


def test_off_centre_fibres_see_rotation_and_centres_broaden():
    population, scene = make(400, 7)
    disk = population.bulge_fraction < 0.3
    angle = population.position_angle
    offset = 1.2 * population.r_eff
    place = torch.stack([torch.cos(angle) * offset, torch.sin(angle) * offset], -1)
    conditions = torch.tensor([1.5, 1.0]).expand(400, 2)
    aperture = torch.stack(
        [torch.cat([place, conditions], 1), torch.cat([-place, conditions], 1)], 1
    )
    rest = collect(scene, aperture)
    fraction = (rest.velocity / scene.v_max[:, None])[disk]
    assert 0.4 < float(fraction[:, 0].median()) < 1.0
    assert -1.0 < float(fraction[:, 1].median()) < -0.4
