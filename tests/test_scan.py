"""Redshift candidates: the linear model's likelihood is exact, and its peaks are the redshifts."""

from dataclasses import replace

import pytest
import torch

from probmmae.batch import Spectra
from probmmae.masking import Task, observe_part
from probmmae.scan import (
    CANDIDATES,
    EVIDENCE,
    STEP,
    candidates,
    eigenspectra,
    log_likelihood,
    rest_wavelength,
)
from probmmae.simulator.stream import simulate_block
from probmmae.simulator.survey import SurveySettings


def made_of_eigenspectra(shift: int, *, noise: float, seed: int) -> Spectra:
    """Four spectra on the scan's own bins, seen at z = exp(shift STEP) - 1."""
    generator = torch.Generator().manual_seed(seed)
    basis = eigenspectra()
    weights = torch.randn(4, len(basis), generator=generator)
    weights[:, 0] = 1.0
    rest = weights @ basis
    observed = rest_wavelength() * torch.exp(torch.tensor(STEP * shift))
    inside = (observed > 3700) & (observed < 9800)
    flux = rest[:, inside] + noise * torch.randn(4, int(inside.sum()), generator=generator)
    wavelength = observed[inside].expand(4, -1)
    ivar = torch.full_like(flux, noise**-2)
    alone = (part[:, None] for part in (wavelength, flux, ivar, wavelength / 4700))
    return Spectra(*alone, torch.ones(4, 1, 4))


def test_likelihood_is_that_of_the_linear_model():
    # Beside the density of a multivariate normal, written out, at three shifts.
    spectra = made_of_eigenspectra(300, noise=0.3, seed=0).take(slice(0, 1))
    told = log_likelihood(spectra)[0, 0].double()
    basis = eigenspectra().double()
    level = float((spectra.flux.mean() ** 2 + 0.3**2 / spectra.flux.numel()).sqrt())
    place = ((spectra.wavelength[0, 0].double().log() - torch.tensor(3500.0).log()) / STEP).floor()
    weight = (level / 0.3) ** 2 / (1 + 0.05**2 * (level / 0.3) ** 2)
    exact = []
    for shift in (250, 300, 310):
        curve = basis[:, (place + 1340 - shift).long()]
        covariance = curve.T @ curve + torch.eye(curve.shape[1]) / weight
        value = spectra.flux[0, 0].double() / level
        normal = torch.distributions.MultivariateNormal(torch.zeros_like(value), covariance)
        exact.append(normal.log_prob(value))
    expected = torch.stack(exact) - exact[0]
    found = told[[250, 300, 310]] - told[250]
    assert torch.allclose(found, expected, rtol=1e-3, atol=0.5)


def test_spectra_made_of_eigenspectra_are_found_to_a_bin():
    for shift in (20, 700, 1300):
        spectra = made_of_eigenspectra(shift, noise=0.5, seed=shift)
        found = candidates(spectra)
        assert float((found.log1p_z[:, 0] - STEP * shift).abs().max()) < STEP


@pytest.mark.parametrize("state", ["first", "random first", "random"])
def test_redshifts_of_simulated_spectra_are_among_the_candidates(state):
    # 64 galaxies; measured on 256: all of whole spectra, 99 % of a quarter of one. At 95 % right,
    # fewer than 54 of 64 has probability 3e-4.
    batch, truth = simulate_block(5, 0, settings=SurveySettings(size=8))
    task = Task("one", 1.0, "none", "none", state)
    shown = observe_part(batch, torch.Generator().manual_seed(0), (task,))
    found = candidates(shown.spectra)
    assert found.evidence.shape == (64, CANDIDATES, EVIDENCE)
    error = (found.log1p_z - torch.log1p(truth.z)[:, None]).abs()
    assert int((error[found.seen].amin(1) < 2e-3).sum()) >= 54
    best = error[found.seen, 0]
    assert float(best.median()) < 2e-4


def test_hidden_pixels_leak_nothing_and_no_spectrum_is_said_to_be_none():
    batch, _ = simulate_block(6, 0, size=4, settings=SurveySettings(size=8))
    spectra = batch.spectra
    ivar = spectra.ivar.clone()
    ivar[:, :, 500:900] = 0
    ivar[0] = 0
    first = candidates(replace(spectra, ivar=ivar))
    changed = torch.where(ivar > 0, spectra.flux, torch.full_like(spectra.flux, 1e3))
    second = candidates(replace(spectra, ivar=ivar, flux=changed))
    assert torch.equal(first.log1p_z, second.log1p_z)
    assert torch.equal(first.evidence, second.evidence)
    assert first.seen.tolist() == [False, True, True, True]
    assert bool(first.evidence.isfinite().all())


def test_the_scale_of_a_spectrum_does_not_matter():
    spectra = simulate_block(7, 0, size=4, settings=SurveySettings(size=8))[0].spectra
    brighter = replace(spectra, flux=1e3 * spectra.flux, ivar=1e-6 * spectra.ivar)
    first, second = candidates(spectra), candidates(brighter)
    assert torch.allclose(first.log1p_z, second.log1p_z, atol=1e-5)
