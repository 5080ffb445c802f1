"""The JAX decoder is the torch decoder, whatever the weights."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from test_latent import field
from tiny_model import tiny_network
from toys import small_model, toys

from probmmae.batch import Spectra
from probmmae.checkpoint import SHIPPED
from probmmae.inference import jax_decoder
from probmmae.inference.jax_decoder import (
    decoder_arrays,
    field_arrays,
    field_log_prob,
    light,
    observe,
    pixel_arrays,
    redshift_arrays,
    redshift_log_prob,
    spectrum_log_prob,
)
from probmmae.inference.posterior import load
from probmmae.instrument import observe as torch_observe
from probmmae.redshift import RedshiftDensity

TOYS = toys(count=3, spectra=2, pixels=400)
Z = TOYS.batch.z
SCALE = torch.tensor([0.8, 1.0, 1.3])


def latents(latent=6, seed=2):
    return 0.7 * torch.randn(3, 2, latent, generator=torch.Generator().manual_seed(seed))


def padded(spectra: Spectra) -> Spectra:
    """The spectra with 20 pixels of padding at the red end."""

    def grown(part, fill):
        return torch.cat([part, fill[..., -1:].expand(*part.shape[:-1], 20)], -1)

    return Spectra(
        grown(spectra.wavelength, spectra.wavelength),
        grown(spectra.flux, torch.zeros_like(spectra.flux)),
        grown(spectra.ivar, torch.zeros_like(spectra.ivar)),
        grown(spectra.sigma, spectra.sigma),
        spectra.aperture,
    )


def of_torch(model, u, z, scale, spectra):
    """Mean flux and ln p(flux | u, z)."""
    with torch.no_grad():
        rest = model.spectrum_decoder(u, scale[:, None].expand(u.shape[:2]))
        every = z[:, None].expand(u.shape[:2])
        mean = torch_observe(model.templates, rest, every, spectra.wavelength, spectra.sigma)
        density = model.spectrum(u, u, z, scale, spectra).log_prob(spectra.flux)
    return mean.numpy(), density.numpy()


@jax.jit
def _both(decoder, u, z, scale, pixels):
    def one(u, z, scale, pixels):
        mean = observe(decoder, light(decoder, u, scale), z, pixels)
        return mean, spectrum_log_prob(decoder, u, z, scale, pixels)

    apertures = jax.vmap(one, in_axes=(0, None, None, 0))
    return jax.vmap(apertures)(u, z, scale, pixels)


def of_jax(model, u, z, scale, spectra):
    arrays = (jnp.asarray(part.numpy()) for part in (u, z, scale))
    return [
        np.asarray(part) for part in _both(decoder_arrays(model), *arrays, pixel_arrays(spectra))
    ]


def shipped_network():
    if not SHIPPED.is_dir():
        pytest.skip("no model is shipped")
    return load().network


NETWORKS = {"toys": lambda: small_model(TOYS), "tiny": tiny_network, "shipped": shipped_network}


@pytest.mark.parametrize("network", NETWORKS)
def test_flux_and_likelihood_are_those_of_torch(network):
    # Galaxies of three redshifts, at two apertures each, jitted and vmapped over both.
    model = NETWORKS[network]()
    spectra, u = padded(TOYS.batch.spectra), latents(model.config.latent)
    mean, density = of_torch(model, u, Z, SCALE, spectra)
    found, found_density = of_jax(model, u, Z, SCALE, spectra)
    # Relative to the spectrum's root mean square. Single precision places a line at 7000 Angstrom
    # to 5e-4 Angstrom, so a few pixels on the flanks of lines differ by more than the formula.
    apart = np.abs(found - mean) / np.sqrt((mean**2).mean(-1, keepdims=True))
    assert np.quantile(apart, 0.9) < 1e-5
    assert apart.max() < 1e-4
    np.testing.assert_allclose(found_density, density, rtol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_in_double_precision_the_formulas_are_equal(network):
    def double(part):
        return part.double()

    model = NETWORKS[network]().double()
    spectra = padded(TOYS.batch.spectra).map(double)
    asked = [double(part) for part in (latents(model.config.latent), Z, SCALE)]
    mean, density = of_torch(model, *asked, spectra)
    with jax.enable_x64(True):
        found, found_density = of_jax(model, *asked, spectra)
    np.testing.assert_allclose(found, mean, rtol=1e-6, atol=1e-9 * np.abs(mean).max())
    np.testing.assert_allclose(found_density, density, rtol=1e-8)


def test_chains_are_one_more_axis():
    decoder = decoder_arrays(small_model(TOYS))
    pixels = jax.tree.map(lambda part: part[0, 0], pixel_arrays(TOYS.batch.spectra))
    u = jnp.asarray(latents()[:, 0].numpy())

    @jax.jit
    @jax.vmap
    def density(u):
        z = scale = jnp.float32(0.2)
        return jax.value_and_grad(spectrum_log_prob, argnums=1)(decoder, u, z, scale, pixels)

    value, slope = density(u)
    assert value.shape == (3,)
    # The gradient is that of a central difference along a random direction.
    way = jnp.asarray(latents(seed=5)[:, 1].numpy())
    ahead, behind = (density(u + sign * 1e-2 * way)[0] for sign in (1, -1))
    np.testing.assert_allclose((slope * way).sum(-1), (ahead - behind) / 2e-2, rtol=0.02)


def test_redshift_density_is_that_of_torch():
    generator = torch.Generator().manual_seed(3)
    logits, loc = torch.randn(2, 4, 3, generator=generator)
    density = RedshiftDensity(logits, 0.2 + 0.1 * loc, 0.02 + 0.1 * loc**2)
    z = torch.tensor([-0.1, 1e-4, 0.2, 0.9])
    found = jax.vmap(redshift_log_prob)(redshift_arrays(density), jnp.asarray(z.numpy()))
    np.testing.assert_allclose(found, density.log_prob(z), rtol=1e-5)


@pytest.mark.parametrize("classes", [1, 4])
def test_field_density_is_that_of_torch(classes):
    prior, _ = field(classes=classes)
    u = torch.randn(5, 1, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    arrays = jax.tree.map(lambda part: part[0], field_arrays(prior))
    found = jax.vmap(field_log_prob, in_axes=(None, 0))(arrays, jnp.asarray(u[:, 0].numpy()))
    np.testing.assert_allclose(found, prior.distribution().log_prob(u)[:, 0], rtol=1e-5)


def test_the_models_own_field_is_that_of_torch():
    model = small_model(TOYS)
    with torch.no_grad():
        context = model.encode(TOYS.batch)
        prior = model.known_field(context, TOYS.batch, TOYS.batch.spectra.aperture, Z).field
        u = latents().flatten(1)
        wanted = prior.distribution().log_prob(u.double())
    found = jax.vmap(field_log_prob)(field_arrays(prior), jnp.asarray(u.numpy()))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_network_without_latent_is_refused():
    with pytest.raises(ValueError, match="the likelihood 'field'; got 'independent'"):
        decoder_arrays(small_model(TOYS, likelihood="independent"))


def test_importing_it_leaves_jax_in_single_precision():
    code = (
        "import sys, probmmae; assert 'jax' not in sys.modules; import jax;"
        f"import {jax_decoder.__name__}; assert not jax.config.jax_enable_x64"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
