"""The linear fit of a continuum: unbiased, with errors that hold, and blind to what is hidden."""

from dataclasses import replace

import pytest
import torch

from probmmae.continuum import FEATURES, fit
from probmmae.decoders import to_physical
from probmmae.masking import Task, observe_part
from probmmae.simulator import simulate
from probmmae.templates import load_templates
from probmmae.tokens import SPECTRAL_UNIT

GALAXIES = 256


@pytest.fixture(scope="module")
def seen():
    """Simulated galaxies that show a quarter of their first spectrum, and its true ln level."""
    batch, truth = simulate(GALAXIES, seed=77)
    task = Task("quarter", 1.0, "none", "none", "random first")
    observed = observe_part(batch, torch.Generator().manual_seed(1), (task,))
    first = truth.rest.map(lambda part: part[:, 0])
    level = to_physical(load_templates(), first, torch.ones(GALAXIES))[:, 0]
    return observed.spectra, truth.z, level + torch.log(torch.tensor(SPECTRAL_UNIT))


def test_level_of_a_quarter_of_a_spectrum(seen):
    spectra, z, true = seen
    found = fit(spectra, z[:, None])
    error = torch.log(found.level[:, 0, 0]) - true
    pull = error / found.error[:, 0, 0]
    assert error.abs().median() < 0.01
    # 256 pulls: 90 % to 5 points (2.7 standard errors), the median to .2 (2.6).
    assert (pull.abs() < 1.645).float().mean() == pytest.approx(0.9, abs=0.05)
    assert pull.median().abs() < 0.2


def test_faint_pixels_are_not_preferred():
    # Noise of the light itself, S/N 3 a pixel, and a variance told by the noisy flux: weights
    # by a pixel's own variance would find a level a tenth too low.
    _, truth = simulate(GALAXIES, seed=78)
    clean = truth.spectrum_flux[:, :1].clamp(min=1e-3)
    typical = clean.median(-1, keepdim=True).values
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    noisy = clean + noise * (clean * typical).sqrt() / 3
    variance = (noisy.clamp(min=0) + 0.1 * typical) * typical / 9
    seen = (truth.deep.ivar[:, :1] > 0).float()
    deep = truth.deep.map(lambda part: part[:, :1])
    spectra = replace(deep, flux=noisy * seen, ivar=seen / variance)
    first = truth.rest.map(lambda part: part[:, 0])
    level = to_physical(load_templates(), first, torch.ones(GALAXIES))[:, 0]
    found = fit(spectra, truth.z[:, None]).level[:, 0, 0] / SPECTRAL_UNIT
    assert (torch.log(found) - level).median().abs() < 0.01


def test_hidden_pixels_say_nothing(seen):
    spectra, z, _ = seen
    spoilt = replace(
        spectra, flux=torch.where(spectra.ivar > 0, spectra.flux, torch.full((), 1e3))
    )
    first, second = fit(spectra, z[:, None]), fit(spoilt, z[:, None])
    assert torch.equal(first.level, second.level)
    assert torch.equal(first.features, second.features)


def test_nothing_seen_is_zero_and_finite(seen):
    spectra, z, _ = seen
    dark = replace(spectra, ivar=torch.zeros_like(spectra.ivar))
    found = fit(dark, torch.stack([z, z + 3.0], dim=1))
    assert found.features.shape == (GALAXIES, 2, spectra.flux.shape[1], FEATURES)
    assert not found.seen.any()
    assert not found.features.any()
    assert torch.isfinite(found.level).all()
    assert torch.isfinite(found.error).all()


def test_brightness_does_not_matter(seen):
    spectra, z, _ = seen
    brighter = replace(spectra, flux=50 * spectra.flux, ivar=spectra.ivar / 2500)
    once, more = fit(spectra, z[:, None]), fit(brighter, z[:, None])
    ratio = (more.level / once.level)[once.seen[:, None]]
    assert torch.allclose(ratio, torch.full_like(ratio, 50.0), rtol=1e-4)
