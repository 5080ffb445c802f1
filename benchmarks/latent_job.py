"""Is the latent used, and is the bound tight?"""

from dataclasses import replace

import numpy as np
import torch
from report_set import Sample, shown
from results_file import Figure, figure
from torch import Tensor

from probmmae.calibration.features import spectrum_features
from probmmae.calibration.scores import Score, mean_score
from probmmae.instrument import observe
from probmmae.model import GalaxyModel
from probmmae.objective import elbo, iwae, make_targets


@torch.no_grad()
def latent_figures(
    network: GalaxyModel, report: Sample, *, samples: int, seed: int
) -> list[Figure]:
    """KL, IWAE minus ELBO, and the loss of NLL with u at its prior mean; image to deep spectra."""
    generator = torch.Generator().manual_seed(seed)
    kl, gap, loss, active = [], [], [], []
    level: list[np.ndarray] = []
    colour: list[np.ndarray] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in report.chunks(32):
            observed = shown(part.batch, "image")
            targets = make_targets(part.batch, observed, part.truth.deep, 1, generator)
            # Nothing of the images is asked: only the spectra's bound is judged.
            blank = replace(targets.images, ivar=torch.zeros_like(targets.images.ivar))
            targets = replace(targets, images=blank)
            context = network.encode(observed)
            terms = elbo(network, context, observed, targets)
            tight, loose = iwae(network, context, observed, targets, samples)
            known = network.known_field(context, observed, targets.spectra.aperture, targets.z)
            mean, covariance = known.field.moments()
            q = network.recognition(targets.recognised, targets.z, context.scale).update(
                known.field
            )
            u = mean.float().unflatten(-1, (-1, network.config.latent))
            fixed = network.spectrum(u, known.hidden, targets.z, context.scale, targets.spectra)
            loss.append((terms.spectrum - fixed.log_prob(targets.spectra.flux).sum(1)).numpy())
            kl.append(terms.kl.numpy())
            read = q.mean.float().unflatten(-1, (-1, network.config.latent))
            off = _reconstructed(network, read, context.scale, part)
            level.append(off[0])
            colour.append(off[1])
            gap.append((tight - loose).numpy())
            shrink = q.covariance_matrix.diagonal(dim1=-2, dim2=-1) / covariance.diagonal(
                dim1=-2, dim2=-1
            )
            active.append((shrink.mean(0) < 0.5).float().mean()[None].numpy())
    apertures = report.batch.spectra.flux.shape[1]

    def told(name: str, values: list[np.ndarray]) -> Figure:
        score: Score = mean_score(name, np.concatenate(values))
        return figure(name, score.value, interval=(score.low, score.high), n=score.n)

    return [
        told(f"latent: KL, nats per galaxy of {apertures} apertures", kl),
        told(f"latent: IWAE ({samples} samples) minus ELBO, nats per galaxy", gap),
        told("latent: NLL lost per galaxy with u at its prior mean, nats", loss),
        told("latent: share of latent numbers whose variance the guide halves", active),
        told("latent: deep spectrum through guide and decoder, ln of flux over truth", level),
        told("latent: deep spectrum through guide and decoder, g-r less truth", colour),
    ]


def _reconstructed(
    network: GalaxyModel, u: Tensor, scale: Tensor, part: Sample
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of what the decoder makes of the guide's mean: ln flux, and g - r, by aperture."""
    truth = part.truth
    light = network.spectrum_decoder(u, scale[:, None].expand(u.shape[:2]))
    spectra = truth.deep
    z = truth.z[:, None].expand(u.shape[:2])
    flux = observe(network.templates, light, z, spectra.wavelength, spectra.sigma)
    real = spectra.ivar > 0
    total = (flux * real).sum(-1) / (truth.spectrum_flux * real).sum(-1)
    grid, redshift, usable = spectra.wavelength.flatten(0, 1), z.flatten(), real.flatten(0, 1)
    made, true = (
        spectrum_features(one.flatten(0, 1), grid, z=redshift, valid=usable).g_minus_r
        for one in (flux, truth.spectrum_flux)
    )
    off = made - true
    return total.log().flatten().numpy(), off[off.isfinite()].numpy()
