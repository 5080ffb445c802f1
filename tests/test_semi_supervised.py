"""Galaxies without a redshift train the model too, and help it."""

from dataclasses import replace

import pytest
import torch
from toys import SMALL, toys

from probmmae.decoders import to_physical
from probmmae.latent import rest_bins
from probmmae.level import LEVEL
from probmmae.masking import hide
from probmmae.model import GalaxyModel
from probmmae.objective import ObjectiveConfig, elbo, make_targets
from probmmae.start import Apertures, begin

LABELLED, UNLABELLED, STEPS = 8, 480, 240
OBJECTIVE = ObjectiveConfig(redshift=1.0, spectrum=0.0, image=0.0, kl=1.0)
OFF = torch.zeros((), dtype=torch.bool)


def begun(made):
    """A model whose code is that of the toys' apertures, decoder and guide frozen."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GalaxyModel(SMALL)
    scale = torch.ones(made.rest.velocity.shape)
    physical = to_physical(model.templates, made.rest, scale).flatten(0, 1)
    deep = rest_bins(made.deep, made.batch.z, scale[:, 0]).flatten(0, 1)
    some = torch.ones(len(physical), dtype=torch.bool)
    apertures = Apertures(physical[:, 0] + LEVEL, physical[:, 1:], deep, deep, some)
    begin(model, apertures, rounds=100, seed=1)
    model.recognition.requires_grad_(False)
    model.spectrum_decoder.requires_grad_(False)
    return model


def terms(model, made, generator, *, spectra=OFF):
    """The bound of two spectra and the redshift, given images, photometry and spectra if so."""
    whole = made.batch
    observed = hide(whole, images=~OFF, photometry=~OFF, spectra=spectra)
    targets = make_targets(whole, observed, made.deep, 1, generator)
    return elbo(model, model.encode(observed), observed, targets)


def trained(model, labelled, unlabelled):
    """After `STEPS` steps of 16 labelled galaxies, and 16 of the others if there are any."""
    generator = torch.Generator().manual_seed(5)
    parameters = [part for part in model.parameters() if part.requires_grad]
    optimiser = torch.optim.AdamW(parameters, 2e-3, foreach=False)
    # Rooms are clipped apart, as in training: a redshift known to 1e-4 has steep gradients.
    own = {id(part) for part in model.prior.parameters()}
    rooms = [[part for part in parameters if (id(part) in own) == inside] for inside in (0, 1)]
    torch.manual_seed(5)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / STEPS)
        rows = torch.randint(LABELLED, (16,), generator=generator)
        others = torch.randint(UNLABELLED, (16,), generator=generator)
        made = taken(labelled, rows)
        if unlabelled is not None:
            more = taken(unlabelled, others)
            made = replace(
                made, batch=made.batch.join([more.batch]), deep=made.deep.join([more.deep])
            )
        # In half of the steps everything is shown: so q(z | O, T) is learned.
        loss = terms(model, made, generator, spectra=~OFF if step % 2 else OFF).loss(OBJECTIVE)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for room in rooms:
            torch.nn.utils.clip_grad_norm_(room, 1.0)
        optimiser.step()
    return model.eval()


def taken(made, rows):
    return replace(
        made, batch=made.batch.take(rows), deep=made.deep.take(rows), rest=made.rest.take(rows)
    )


@pytest.mark.slow
def test_galaxies_without_a_redshift_help():
    # ln p(z | image, photometry) of 1,024 other galaxies, paired: the mean gain is asked to exceed
    # five of its standard errors. Both models begin with the same weights, take as many steps and
    # see the same eight redshifts; the others' are not in the data.
    labelled, other, test = toys(LABELLED, seed=1), toys(UNLABELLED, seed=2), toys(1024, seed=3)
    nothing = torch.zeros(UNLABELLED, dtype=torch.bool)
    unlabelled = replace(
        other, batch=replace(other.batch, z=torch.zeros(UNLABELLED), z_known=nothing)
    )

    def score(model):
        shown = hide(test.batch, images=~OFF, photometry=~OFF, spectra=OFF)
        with torch.no_grad():
            return model.redshift(model.encode(shown)).log_prob(test.batch.z)

    with torch.random.fork_rng():
        alone = score(trained(begun(labelled), labelled, None))
        helped = score(trained(begun(labelled), labelled, unlabelled))
    gain = helped - alone
    assert float(gain.mean()) > 5 * float(gain.std()) / 1024**0.5
