"""Effective samples per CPU second: NUTS here and Pyro's NUTS on the torch decoder, in one run.

The same galaxy at its known redshift, the same spectrum, coordinates, warmup, draws and seeds, one
chain, one thread, and NUTS with a dense mass matrix for both; what is compiled is compiled before.
"""

import time
from typing import Any

import jax
import numpy as np
import torch
from inference_galaxies import predicted, stretch, unknown
from numpyro.diagnostics import effective_sample_size
from pyro.infer import MCMC
from pyro.infer import NUTS as PyroNUTS
from report_set import REPORT_SEED, sample
from results_file import Figure, at_least, figure

from probmmae.batch import Batch
from probmmae.inference.evidence import Measured
from probmmae.inference.importance import propose
from probmmae.inference.nuts import sample as nuts
from probmmae.inference.target import Source, log_density
from probmmae.model import GalaxyModel

_STEPS = 100
"""Warmup, and draws."""


def pyro_figures(network: GalaxyModel, *, galaxies: int) -> list[Figure]:
    """The two rates and their ratio, medians of galaxies."""
    report = sample(galaxies, REPORT_SEED)
    rates = []
    for index in range(galaxies):
        rates.append(_rates(network, report.batch.take(slice(index, index + 1)), index))
    ours, theirs = np.array(rates).T
    ratio = float(np.median(ours / theirs))
    return [
        figure("cost: effective samples per CPU second of NUTS in JAX, known redshift",
               float(np.median(ours)), n=galaxies),
        figure("cost: effective samples per CPU second of Pyro's NUTS on torch, the same",
               float(np.median(theirs)), n=galaxies),
        figure("cost: effective samples per CPU second of NUTS over those of Pyro's NUTS", ratio,
               n=galaxies, goal="at least 10", met=at_least(ratio, 10)),
    ]  # fmt: skip


def _rates(network: GalaxyModel, galaxy: Batch, index: int) -> tuple[float, float]:
    """Smallest effective samples of all latents over seconds: ours, Pyro's."""
    z, _, spectrum = predicted(network, unknown(galaxy), stretch(galaxy.spectra), index)
    hidden = unknown(galaxy)
    observed = Batch(
        hidden.images, hidden.photometry, hidden.spectra, z, torch.ones_like(hidden.z_known)
    )  # fmt: skip
    evidence = Measured.of_spectra(spectrum)
    generator = torch.Generator().manual_seed(index)
    proposal = propose(network, observed, evidence=evidence, draws=300, generator=generator)
    u = proposal.u[0].double().numpy()
    centre, root = u.mean(0), np.linalg.cholesky(np.cov(u.T))
    source = Source(network, observed, network.encode(observed), evidence)
    nodes = np.log1p(z.double().numpy())
    target = source.target(nodes)

    def ours() -> Any:
        return nuts(
            log_density, target, centre=centre, root=root, start=u[:1], key=jax.random.key(index),
            draws=_STEPS, warmup=_STEPS,
        )  # fmt: skip

    ours()
    began = time.process_time()
    found = ours()
    mine = _effective(found.position) / (time.process_time() - began)

    prior = network.known_field(source.context, observed, spectrum.aperture, z)
    density, middle = prior.field.distribution(), torch.as_tensor(centre)
    scaled, flux = torch.as_tensor(root), spectrum.flux

    def potential(at: dict[str, torch.Tensor]) -> torch.Tensor:
        latent = middle + scaled @ at["y"]
        apart = latent.float()[None, None]
        told = network.spectrum(apart, prior.hidden, z, source.context.scale, spectrum)
        return -(density.log_prob(latent[None])[0] + told.log_prob(flux).sum().double())

    start = torch.linalg.solve_triangular(scaled, (torch.as_tensor(u[0]) - middle)[:, None],
                                          upper=False)[:, 0]  # fmt: skip
    kernel = PyroNUTS(potential_fn=potential, full_mass=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(index)
        chain = MCMC(
            kernel, num_samples=_STEPS, warmup_steps=_STEPS, initial_params={"y": start},
            disable_progbar=True,
        )  # fmt: skip
        began = time.process_time()
        chain.run()
        seconds = time.process_time() - began
    theirs = centre + chain.get_samples()["y"].numpy() @ root.T
    return mine, _effective(theirs[None]) / seconds


def _effective(position: np.ndarray) -> float:
    return float(np.min(effective_sample_size(position)))
