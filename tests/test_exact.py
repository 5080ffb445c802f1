"""Exact posteriors as users ask for them: new evidence of every kind, and coherent answers.

False-alarm budget: seeds are fixed; means are allowed five standard errors (6e-7 each).
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import xarray
from astropy import units as u
from scipy import stats
from test_nuts import source_of
from tiny_model import some_galaxy, some_spectrum, tiny_checkpoint, tiny_network
from toys import small_model, toys
from typer.testing import CliRunner

from probmmae.cli import app
from probmmae.dataset import write_shards
from probmmae.galaxy import Aperture, Spectrum
from probmmae.inference import importance
from probmmae.inference.amortized import latent_at
from probmmae.inference.bridge import log_integral
from probmmae.inference.conditioned import held_to
from probmmae.inference.evidence import Evidence, FilterFlux, LineFlux, Measured
from probmmae.inference.exact import exact_posterior, redshift_density
from probmmae.inference.modes import runs
from probmmae.inference.nuts import Chains
from probmmae.inference.posterior import Model
from probmmae.inference.target import Source, log_density

TOYS = toys(count=3, spectra=2, pixels=60)
FLUX = u.Unit(1e-17 * u.erg / u.s / u.cm**2)
THERE = Aperture(1 * u.arcsec, 0 * u.arcsec)
LINE = LineFlux("H-alpha", 20 * FLUX, 5 * FLUX)
LINE_ALONE = Evidence(lines=[LINE])


def faint_spectrum():
    """Three hundred pixels that say little."""
    whole = some_spectrum()
    part = slice(1000, 1300)
    told = (np.asarray(getattr(whole, name)[part]) for name in ("wavelength", "flux", "ivar"))
    grid, flux, ivar = told
    return Spectrum.in_batch_units(
        grid, flux, ivar=1e-3 * ivar, sigma=whole.sigma[part], aperture=whole.aperture
    )


def infrared_spectrum(first=3e4):
    """From there on, in Angstrom."""
    grid = first + 10.0 * np.arange(100)
    return Spectrum.in_batch_units(
        grid, np.ones(100), ivar=np.ones(100), sigma=np.full(100, 10.0), aperture=THERE
    )


def some_evidence():
    """A spectrum, two filters and a line; the line lies where the spectrum does not."""
    spectrum = faint_spectrum()
    return Evidence(
        spectra=(spectrum,),
        filters=(
            FilterFlux.narrow(
                6600 * u.AA, 80 * u.AA, flux=3 * u.nmgy, error=0.5 * u.nmgy,
                aperture=spectrum.aperture,
            ),
            FilterFlux.named("sdss2010-r", 2 * u.nmgy, 0.5 * u.nmgy, aperture=THERE),
        ),
        lines=(LineFlux("H-alpha", 20 * FLUX, 5 * FLUX, aperture=THERE),),
    )  # fmt: skip


def test_queries_are_the_distinct_apertures():
    told = some_evidence().measured()
    assert told.aperture.shape == (1, 2, 4)
    assert told.filters.slot.tolist() == [[0, 1]]
    assert told.lines.slot.tolist() == [[1]]
    alone = Evidence(lines=(LineFlux("H-beta", 20 * FLUX, 5 * FLUX),)).measured()
    assert alone.spectra is None
    assert alone.aperture.shape == (1, 1, 4)


def test_a_filter_weighs_a_flat_spectrum_by_its_definition():
    # A source of 1 nanomaggie at every frequency has 1 nanomaggie in every filter.
    grid, weight = FilterFlux.named("sdss2010-r", 2 * u.nmgy, 1 * u.nmgy).weights(256)
    flat = 3.631e-29 * 2.99792458e18 * 1e17 / grid**2
    assert weight @ flat == pytest.approx(1)


def test_the_jax_density_of_all_evidence_is_that_of_torch():
    network, told = tiny_network(), some_evidence().measured()
    model = Model(network)
    start = model.condition(replace(some_galaxy(z=0.1), spectra=()), draws=1, repair=False)
    source = Source(network, start.observed, start.context, told)
    generator = torch.Generator().manual_seed(1)
    latent = 0.5 * torch.randn(1, 2, 6, generator=generator)
    z = start.observed.z
    target = source.target(np.log1p(z.double().numpy()))
    with torch.no_grad():
        field, hidden = network.field(start.context, start.observed, told.aperture, z[:, None])
        prior = field.distribution().log_prob(latent.flatten(1).double()[:, None])
        likelihood = told.log_likelihood(network, latent, hidden[:, 0], z, start.context.scale)
    found = log_density(target, jnp.asarray(latent.flatten().numpy()))
    assert float(found) == pytest.approx(float(prior + likelihood), rel=1e-5)
    # And every kind adds to it.
    for kind in ("spectra", "filters", "lines"):
        less = replace(told, **{kind: None})
        with torch.no_grad():
            part = less.log_likelihood(network, latent, hidden[:, 0], z, start.context.scale)
        assert abs(float(part - likelihood)) > 0.1


def test_candidates_of_spectra_are_part_of_the_density():
    # p(z | c) of a context that saw a spectrum has components at the redshifts where it fits.
    model = small_model(TOYS).requires_grad_(False)
    batch = TOYS.batch.take(slice(1))
    observed = replace(batch, z_known=torch.zeros(1, dtype=torch.bool))
    spectra = batch.spectra.map(lambda part: part[:, :1])
    source = source_of(model, observed, spectra)
    density = model.redshift(source.context)
    assert density.loc.shape[-1] > model.config.components
    x = np.linspace(0.05, 0.2, 7)
    target = source.target(x)
    latent = jnp.zeros(6)
    z, zero = torch.expm1(torch.tensor(x)).float(), torch.zeros(7, 1, 6)
    told = Measured.of_spectra(spectra).map(lambda part: part.expand(7, *part.shape[1:]))
    with torch.no_grad():
        field, hidden = model.field(source.context, observed, spectra.aperture, z[None])
        wanted = field.distribution().log_prob(zero.flatten(1).double()[None])[0]
        wanted = wanted + density.log_prob(z) + torch.tensor(x)
        scale = source.context.scale.expand(7)
        wanted = wanted + told.log_likelihood(model, zero, hidden[0], z, scale)
    each = jax.vmap(lambda at: log_density(target, jnp.concatenate([at[None], latent])))
    np.testing.assert_allclose(each(jnp.asarray(x, jnp.float32)), wanted, rtol=1e-4)


def test_the_bridge_finds_the_integral_of_a_normal():
    rng = np.random.default_rng(0)
    root = np.tril(rng.normal(size=(5, 5))) + 2 * np.eye(5)
    draws = rng.normal(size=(2, 1000, 5)) @ root.T + 3
    law = stats.multivariate_normal(np.full(5, 3.0), root @ root.T)
    chains = Chains(draws, law.logpdf(draws) + 7.0, np.zeros((2, 1000), bool), 1.0, 1500.0)
    value, error = log_integral(_shifted, (jnp.asarray(root),), chains, key=jax.random.key(0))
    assert error < 0.05
    assert abs(value - 7.0) < 5 * error
    # Draws that stand for half of what was integrated are found out.
    half = replace(chains, log_density=chains.log_density + np.log(2))
    doubled, _ = log_integral(_shifted_twice, (jnp.asarray(root),), half, key=jax.random.key(0))
    assert doubled - value == pytest.approx(np.log(2), abs=1e-3)


def _shifted(data, y):
    white = jax.scipy.linalg.solve_triangular(data[0], y - 3, lower=True)
    size = jnp.log(jnp.abs(jnp.diagonal(data[0]))).sum() + 2.5 * jnp.log(2 * jnp.pi)
    return -0.5 * (white**2).sum() - size + 7.0


def _shifted_twice(data, y):
    return _shifted(data, y) + jnp.log(2.0)


def test_runs_are_parted_where_no_normal_leaves_a_gap():
    rng = np.random.default_rng(0)
    one = rng.normal(0.2, 1e-3, 1000)
    assert max(len(part) for part in runs(one)) > 990
    two = np.concatenate([one, rng.normal(0.25, 1e-3, 800)])
    assert [len(part) for part in runs(two) if len(part) > 10] == [1000, 800]


def test_held_draws_have_the_latents_and_the_same_galaxy_around():
    network = tiny_network()
    network.prior.white.data.fill_(-1.0)
    start = Model(network).condition(
        replace(some_galaxy(z=0.1), spectra=()), draws=1, repair=False
    )
    aperture = torch.tensor([[[0.0, 0.0, 2.0, 1.0], [0.5, 0.0, 2.0, 1.0]]])
    count = 4000
    with torch.no_grad():
        every = torch.cat([aperture, torch.tensor([[[0.3, 0.4, 2.0, 1.0]]])], 1)
        field, _ = network.field(start.context, start.observed, every, torch.full((1, 1), 0.1))
        law = field.distribution().component_distribution
        torch.manual_seed(0)
        drawn = field.distribution().sample((count,))[:, 0, 0]
    known, generator = drawn[:, :12], torch.Generator().manual_seed(0)
    held = held_to(
        network, start.context, start.observed, aperture=aperture,
        z=torch.full((count,), 0.1), u=known, generator=generator,
    )  # fmt: skip
    with torch.no_grad():
        back = latent_at(network, start.context, start.observed, held, every)[0].flatten(1)
    np.testing.assert_allclose(back[:, :12], known, atol=2e-4)
    # Held to draws of the prior, the third aperture is a draw of the prior too, with all its
    # correlations: means and covariances of (known, third) agree.
    assert law.batch_shape[-1] == 2
    apart = (back[:, 12:] - drawn[:, 12:]).mean(0)
    scatter = torch.sqrt(2 * drawn[:, 12:].var(0) / count)
    assert bool((apart.abs() < 5 * scatter).all())
    ours, theirs = np.corrcoef(back.numpy().T), np.corrcoef(drawn.numpy().T)
    # Five standard errors of a correlation, and what 128 Fourier features miss of the kernel.
    assert np.abs(ours - theirs).max() < 5 * (2 / count) ** 0.5 + 0.05


def test_a_redshift_density_through_draws_keeps_their_moments_and_modes():
    rng = np.random.default_rng(1)
    z = np.concatenate([rng.normal(0.2, 0.001, 150), rng.normal(0.5, 0.002, 50)])
    density = redshift_density(z)
    low, high = (float(part) for part in density.cdf(torch.tensor([[0.3], [0.35]]).double())[:, 0])
    assert low == high == pytest.approx(0.75)
    assert float(density.mean[0]) == pytest.approx(z.mean(), abs=2e-3)
    np.testing.assert_allclose(
        density.icdf(torch.tensor([0.1, 0.375]).double()[:, None])[:, 0],
        np.quantile(z, [0.1, 0.375]), atol=3e-4,
    )  # fmt: skip


@pytest.fixture(
    scope="module", params=["importance", pytest.param("nuts", marks=pytest.mark.slow)]
)
def exact(request):
    """A line's flux as evidence; by NUTS where no weights are trusted."""
    told = Evidence(lines=(LineFlux("H-alpha", 20 * FLUX, 15 * FLUX, aperture=THERE),))
    # An untrained network's redshifts reach down to zero, where chains stumble: one is given.
    galaxy = replace(some_galaxy(z=0.1 if request.param == "nuts" else None), spectra=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance, "TRUSTED", np.inf if request.param == "importance" else -np.inf)
        return exact_posterior(
            Model(tiny_network()), galaxy, told, draws=50, proposals=400, warmup=150
        )


def test_the_answer_is_a_posterior_like_any_other(exact, tmp_path):
    posterior = exact.posterior
    assert posterior.repair.said.count("exact density") == 2
    low, high = posterior.redshift.interval(0.9)
    assert low < np.median(posterior.redshift.samples) < high
    assert posterior.redshift.to_qp().npdf == 1
    grid = np.arange(5000, 5100, 2.0) * u.AA
    drawn = posterior.spectrum(grid)
    assert drawn.flux.shape == (50, 50)
    drawn.to_fits(tmp_path / "one.fits")
    assert posterior.to_arviz(grid)["posterior"]["redshift"].shape == (1, 50)
    assert repr(exact).startswith(f"Exact(method='{exact.method}', pareto_k=")
    assert repr(exact).endswith(", draws=50)")
    if exact.method == "nuts":
        assert exact.modes.to_arviz()["posterior"]["u"].dims == (
            "chain",
            "draw",
            "query",
            "latent",
        )
        assert exact.modes.weight.sum() == pytest.approx(1)


def test_a_line_flux_is_in_the_draws():
    # The better the line is known, the nearer are the draws' lines to it.
    galaxy, network = replace(some_galaxy(z=0.1), spectra=()), tiny_network()
    scatter = []
    for error in (100.0, 2.0):
        told = Evidence(lines=(LineFlux("H-alpha", 20 * FLUX, error * FLUX, aperture=THERE),))
        found = exact_posterior(Model(network), galaxy, told, draws=100, proposals=2000)
        posterior = found.posterior
        aperture = told.measured().aperture
        with torch.no_grad():
            latent = latent_at(
                network, posterior.context, posterior.observed, posterior.draws, aperture
            )
            scale = posterior.context.scale[:, None, None].expand(latent.shape[:-1])
            line = network.spectrum_decoder(latent, scale).lines
        values = line[0, :, 0, network.templates.line("H-alpha")].numpy()
        scatter.append(np.sqrt(np.mean((values - 20) ** 2)))
    assert scatter[1] < 0.5 * scatter[0]
    assert scatter[1] < 2 * 2.0


def test_refine_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(importance, "TRUSTED", np.inf)
    folder = tmp_path / "data"
    bare = replace(some_galaxy("two", seed=1), spectra=())
    one = replace(some_galaxy("one", z=0.1), spectra=(faint_spectrum(),))
    write_shards([one, bare], folder)
    checkpoint = tiny_checkpoint(tmp_path / "model")
    out = tmp_path / "exact.nc"
    asked = ["refine", str(folder), "-o", str(out), "--draws", "20"]
    asked += ["--checkpoint", str(checkpoint), "--wavelength", "5000:5100:5"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "1 galaxies" in done.output
    tree = xarray.open_datatree(out, engine="h5netcdf")
    assert tree["posterior"]["redshift"].dims == ("chain", "draw", "galaxy")
    assert tree["posterior_predictive"]["flux"].shape == (1, 20, 1, 21)
    assert tree["refinement"]["method"].values.tolist() == ["importance"]
    assert np.isfinite(tree["refinement"]["log_evidence"].values).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Evidence, "at least one spectrum, filter flux or line flux"),
        (lambda: LineFlux("H-omega", 1 * FLUX, 1 * FLUX), "Expected one of"),
        (lambda: LineFlux("H-alpha", 1 * FLUX, 0 * FLUX), "a positive error"),
        (
            lambda: FilterFlux(1 * u.nmgy, 1 * u.nmgy, wavelength=[2, 1] * u.AA, response=[1, 1]),
            "increasing wavelengths and as many responses",
        ),
        (
            lambda: exact_posterior(Model(tiny_network()), replace(some_galaxy(), spectra=())),
            "with a spectrum to weigh",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def filter_of(response, *, flux=3 * u.nmgy, error=1 * u.nmgy):
    return FilterFlux(flux, error, wavelength=[5000, 5500, 6000] * u.AA, response=response)


def band(centre, **asked):
    """What is asked of a galaxy, given a narrow band at that many Angstrom."""
    told = FilterFlux.narrow(centre * u.AA, 80 * u.AA, flux=3 * u.nmgy, error=1 * u.nmgy)
    return exact_of(Evidence(filters=[told]), **asked)


def exact_of(evidence=LINE_ALONE, *, model=None, galaxy=None, **asked):
    galaxy = replace(some_galaxy(), spectra=()) if galaxy is None else galaxy
    return exact_posterior(model or Model(tiny_network()), galaxy, evidence, **asked)


WRONG = {
    "an error in ABmag": lambda: filter_of([1, 1, 1], flux=20 * u.ABmag, error=0.1 * u.ABmag),
    "an error in mag": lambda: filter_of([1, 1, 1], flux=20 * u.ABmag, error=0.1 * u.mag),
    "an infinite error": lambda: LineFlux("H-alpha", 30 * FLUX, np.inf * FLUX),
    "a response at one point": lambda: filter_of([0, 1, 0]),
    "a response of NaN": lambda: filter_of([np.nan] * 3),
    "a line that stands alone": lambda: Evidence(lines=LINE),
    "the name of a line": lambda: Evidence(lines=["H-alpha"]),
    "a line among filters": lambda: Evidence(filters=[LINE]),
    "a line as evidence": lambda: exact_of(LINE),
    "several galaxies": lambda: exact_of(galaxy=[some_galaxy()]),
    "the name of a model": lambda: exact_of(model="shipped"),
    "no draws": lambda: exact_of(draws=0),
    "a filter at 600 Angstrom": lambda: band(600),
    "a filter at 6 micron": lambda: band(6e4),
    "a filter beyond a known redshift": lambda: band(1.5e4, galaxy=some_galaxy(z=0.1)),
    "a spectrum at 3 micron": lambda: exact_of(Evidence(spectra=[infrared_spectrum()])),
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_told_what_was_expected(make):
    with pytest.raises((TypeError, ValueError), match=r"Expected .*; got .*\. .*\.$"):
        make()


def test_evidence_may_overlap_with_the_templates_in_part():
    Evidence(
        filters=[filter_of([1, 1, 1])], spectra=[faint_spectrum(), infrared_spectrum(first=1.8e4)]
    ).check_reach(0.0, 0.7)


def test_units_are_asked_for():
    with pytest.raises(TypeError, match="as a Quantity"):
        LineFlux("H-alpha", 1.0, 1 * FLUX)
    with pytest.raises(TypeError, match="as an Aperture"):
        LineFlux("H-alpha", 1 * FLUX, 1 * FLUX, aperture=2)
