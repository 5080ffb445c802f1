from dataclasses import replace

import pytest
import torch
from torch.distributions import MultivariateNormal

from probmmae.batch import Spectra
from probmmae.inference.amortized import Draws, field_values
from probmmae.latent import Field, PseudoMeasurement, rest_bins


def field(classes=1, queries=3, latent=2, shared=2, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    position = normal(1, queries, 2)
    apart = (position[:, :, None] - position[:, None]).square().sum(-1)
    length = torch.linspace(1.0, 2.0, latent, dtype=torch.float64)[None]
    white = torch.linspace(0.6, 0.1, latent, dtype=torch.float64)
    share = white[:, None, None]
    smooth = torch.exp(-0.5 * apart[:, None] / length[..., None, None] ** 2)
    kernel = (1 - share) * smooth + share * torch.eye(queries, dtype=torch.float64)
    made = Field(
        logits=normal(1, classes),
        mean=normal(1, queries, classes, latent),
        spread=torch.exp(0.3 * normal(1, queries, classes, latent)),
        shared=normal(1, queries, latent, shared),
        local=normal(1, queries, latent, latent).tril(),
        kernel=kernel,
        nugget=torch.full((latent,), 0.1, dtype=torch.float64),
        length=length,
        white=white,
    )
    return made, position


def factors(queries=3, seed=4):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(1, queries, 2, 2, generator=generator, dtype=torch.float64).tril(-1)
    root = root + 2 * torch.eye(2)
    return torch.randn(1, queries, 2, generator=generator, dtype=torch.float64), root


def test_guide_is_the_exact_posterior_of_the_code():
    # A linear-Gaussian twin: noisy direct measurements of a standard normal code, whose posterior
    # is known in closed form, whatever the conditional prior says.
    prior, _ = field(classes=2)
    measured, root = factors()
    q = PseudoMeasurement(measured, root).update(prior)
    noise = torch.linalg.inv(torch.block_diag(*(r @ r.T for r in root[0])))
    gain = torch.linalg.inv(torch.eye(6) + noise)
    assert torch.allclose(q.mean[0], gain @ measured[0].flatten(), atol=1e-8)
    assert torch.allclose(q.covariance_matrix[0], torch.eye(6) - gain, atol=1e-8)


def test_guide_elsewhere_is_the_priors_conditional():
    # No spectrum at the second of three apertures: there q(u) is p(u | u of the others), so the
    # joint mean and covariance follow from the regression of one on the others.
    prior, _ = field()
    measured, root = factors()
    root[:, 1] = 0
    q = PseudoMeasurement(measured, root).update(prior)
    covariance, mean = prior.covariance()[0, 0], prior.means()[0, 0]
    there, absent = [0, 1, 4, 5], [2, 3]
    noise = torch.linalg.inv(
        torch.block_diag(root[0, 0] @ root[0, 0].T, root[0, 2] @ root[0, 2].T)
    )
    gain = torch.linalg.inv(torch.eye(4) + noise)
    known, sure = gain @ measured[0, [0, 2]].flatten(), torch.eye(4) - gain
    slope = covariance[absent][:, there] @ torch.linalg.inv(covariance[there][:, there])
    left = covariance[absent][:, absent] - slope @ covariance[there][:, absent]
    assert torch.allclose(q.mean[0, there], known, atol=1e-7)
    assert torch.allclose(
        q.mean[0, absent], mean[absent] + slope @ (known - mean[there]), atol=1e-7
    )
    found = q.covariance_matrix[0]
    assert torch.allclose(found[there][:, there], sure, atol=1e-7)
    assert torch.allclose(found[absent][:, absent], left + slope @ sure @ slope.T, atol=1e-7)


def test_guide_without_a_spectrum_is_the_prior():
    prior, _ = field(classes=3)
    nothing = PseudoMeasurement(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2, 2))
    q = nothing.update(prior)
    mean, covariance = prior.moments()
    assert torch.allclose(q.mean, mean)
    assert torch.allclose(q.covariance_matrix, covariance, atol=1e-9)


def test_moments_are_those_of_draws():
    # 12 means and variances within 6 standard errors of 100,000 draws.
    prior, _ = field(classes=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = prior.distribution().sample(torch.Size((100_000,)))[:, 0]
    mean, covariance = prior.moments()
    spread = covariance[0].diagonal().sqrt()
    assert torch.all((draws.mean(0) - mean[0]).abs() < 6 * spread / 316)
    assert torch.allclose(draws.var(0), spread**2, rtol=0.05)


def test_fourier_draws_follow_the_joint_density():
    # Draws made of random features have the covariance of the field, across positions too: 21
    # entries within 6 standard errors, plus what 128 frequencies leave of the kernel (0.1).
    prior, position = field(seed=2)
    count, features = 40_000, 256
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(1, count, *shape, generator=generator, dtype=torch.float64)

    draws = Draws(
        z=torch.zeros(1, count),
        pick=torch.rand(1, count, generator=generator),
        shared=normal(2),
        weights=normal(2, features),
        seed=torch.arange(count, dtype=torch.float64)[None],
    )
    spread = Field(
        *(
            getattr(prior, name)[:, None].expand(1, count, *getattr(prior, name).shape[1:])
            for name in ("logits", "mean", "spread", "shared", "local", "kernel")
        ),
        nugget=prior.nugget,
        length=prior.length,
        white=prior.white,
    )
    u = field_values(spread, draws, position)
    found = torch.cov(u[0].flatten(1).T)
    wanted = prior.covariance()[0, 0]
    scale = (wanted.diag()[:, None] * wanted.diag()).sqrt()
    assert torch.all((found - wanted).abs() < (6 * 2**0.5 / count**0.5 + 0.1) * scale)
    assert torch.allclose(found.diag(), wanted.diag(), rtol=0.05)


def test_draws_do_not_depend_on_the_other_positions_asked():
    prior, position = field()
    generator = torch.Generator().manual_seed(1)
    draws = Draws(
        z=torch.zeros(1, 5),
        pick=torch.rand(1, 5, generator=generator),
        shared=torch.randn(1, 5, 2, generator=generator, dtype=torch.float64),
        weights=torch.randn(1, 5, 2, 256, generator=generator, dtype=torch.float64),
        seed=torch.arange(5, dtype=torch.float64)[None],
    )
    names = ("logits", "mean", "spread", "shared", "local")

    def ask(rows):
        parts = {
            name: getattr(prior, name)[:, None].expand(1, 5, *getattr(prior, name).shape[1:])
            for name in names
        }
        for name in names[1:]:
            parts[name] = parts[name][:, :, rows]
        kernel = prior.kernel[:, None, :, rows][..., rows].expand(1, 5, -1, -1, -1)
        one = replace(prior, **parts, kernel=kernel)
        return field_values(one, draws, position[:, rows])

    assert torch.allclose(ask([0, 1, 2])[:, :, 1:2], ask([1]))


def test_missing_pixels_leak_nothing_into_the_guide():
    generator = torch.Generator().manual_seed(0)
    wavelength = (3700 + 2.0 * torch.arange(2000)).expand(2, 1, -1)
    flux = 5 + torch.randn(2, 1, 2000, generator=generator)
    ivar = torch.ones(2, 1, 2000)
    ivar[..., 500:900] = 0
    aperture = torch.tensor([0.0, 0.0, 2.0, 1.0]).expand(2, 1, 4)
    z, scale = torch.tensor([0.1, 0.3]), torch.ones(2)
    first = rest_bins(Spectra(wavelength, flux, ivar, wavelength / 4000, aperture), z, scale)
    changed = torch.where(ivar > 0, flux, torch.full_like(flux, 1e3))
    second = rest_bins(Spectra(wavelength, changed, ivar, wavelength / 4000, aperture), z, scale)
    assert torch.equal(first, second)


@pytest.mark.parametrize("classes", [1, 4])
def test_density_integrates_classes(classes):
    prior, _ = field(classes=classes)
    u = torch.randn(1, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    weight = torch.softmax(prior.logits[0], -1)
    parts = [
        weight[k].log()
        + MultivariateNormal(prior.means()[0, k], prior.covariance()[0, k]).log_prob(u[0])
        for k in range(classes)
    ]
    wanted = torch.logsumexp(torch.stack(parts), 0)
    assert torch.allclose(prior.distribution().log_prob(u)[0], wanted)
