"""The start: a code that keeps what matters, and readers that find it in spectra."""

import pytest
import torch

from probmmae.code import misfit, nearest_code, relative_metric
from probmmae.masking import only_photometry
from probmmae.model import GalaxyModel, ModelConfig
from probmmae.simulator.stream import simulate_catalogue
from probmmae.start import apertures, begin, begin_redshifts
from probmmae.templates import load_templates

CONFIG = ModelConfig(width=32, depth=1, heads=2, latent=12, shared=2, classes=2, hidden=128)
TEMPLATES = load_templates()


def test_metric_is_the_mean_square_of_the_curve():
    weights = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    inside = TEMPLATES.wavelength > 2300
    curve = weights @ TEMPLATES.continuum[:, inside]
    length = (weights @ relative_metric(TEMPLATES)).square().sum(-1)
    assert torch.allclose(length, curve.square().mean(-1), rtol=1e-3)


def test_misfit_counts_in_tolerances():
    metric = relative_metric(TEMPLATES)
    truth = torch.zeros(1, 107)
    truth[0, 64 + 25] = 3.0  # H-alpha of 20 Angstrom
    error = torch.zeros(1, 107)
    assert float(misfit(TEMPLATES, metric, error, truth)) == 0.0
    width = torch.exp(torch.tensor(3.0))
    error[0, 64 + 25] = 0.03 + 0.3 / (width + 0.3)
    assert float(misfit(TEMPLATES, metric, error, truth)) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.slow
def test_the_code_keeps_level_colour_and_lines():
    # A small start (2,560 apertures); apertures of another seed are read off their deep spectra
    # and decoded. Untaught, the level is off by 1 and the line by 1.3.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GalaxyModel(CONFIG)
    begin(model, apertures(1, 20), rounds=60, seed=1)
    other = apertures(2, 4)
    with torch.no_grad():
        mean, root = model.recognition.factor(other.deep.float())
        precision = root @ root.mT
        total = precision + torch.eye(CONFIG.latent)
        u = torch.linalg.solve(total, (precision @ mean[..., None]))[..., 0]
        decoder = model.spectrum_decoder
        decoded = decoder.get_buffer("mean") + decoder.get_buffer("deviation") * decoder.standard(
            u[:, 1:]
        )
    assert float((u[:, 0] - other.level).abs().median()) < 0.03
    error = (decoded - other.relative)[:, :64] @ TEMPLATES.continuum
    assert float(error.square().mean(-1).sqrt().median()) < 0.05
    h_alpha = 64 + 25
    nearest = decoder.standard(nearest_code(decoder, other.relative)).detach()
    best = decoder.get_buffer("mean") + decoder.get_buffer("deviation") * nearest
    left = ((best - other.relative)[:, :64] @ TEMPLATES.continuum).square().mean(-1).sqrt()
    # What no reader can get back is less than what this one misses.
    assert float(left.median()) < float(error.square().mean(-1).sqrt().median())
    strong = other.relative[:, h_alpha] > 1.0
    assert int(strong.sum()) > 50
    assert float((decoded - other.relative)[strong, h_alpha].abs().median()) < 0.4


@pytest.mark.slow
def test_colours_tell_redshifts_before_anything_else_is_trained():
    # 40,000 galaxies, 235 steps. On galaxies of another seed ln p(z | five bands) beats that of
    # the best density that looks at nothing, their own histogram, by 0.3 nats (measured 0.8); and
    # the whole model, encoder and all, says the same as the colours alone.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GalaxyModel(CONFIG)
    begin_redshifts(model, galaxies=40_000, seed=1)
    table, z = simulate_catalogue(2, 0, 4_000)
    shown = only_photometry(table, z)
    with torch.no_grad():
        told = model.redshift_of_colours(shown).log_prob(z)
        whole = model.redshift(model.encode(shown)).log_prob(z)
    share = torch.histc(z, 50, 0.0, 1.0) / len(z)
    blind = (share * 50)[(z * 50).long()].log().mean()
    assert float(told.mean() - blind) > 0.3
    assert torch.allclose(told, whole, atol=1e-5)
