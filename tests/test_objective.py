from dataclasses import replace

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from toys import small_model, toys

from probmmae.masking import TASKS, hide, observe_part
from probmmae.objective import ObjectiveConfig, elbo, iwae, make_targets


def prepared(likelihood="field", known=True, deep=True):
    made = toys()
    whole = made.batch
    if not known:
        half = torch.arange(len(whole)) % 2 == 0
        whole = replace(whole, z_known=half, z=whole.z * half)
    model = small_model(made, likelihood)
    generator = torch.Generator().manual_seed(1)
    observed = observe_part(whole, generator)
    targets = make_targets(whole, observed, made.deep if deep else None, 5, generator)
    return model, model.encode(observed), observed, targets


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("deep", [True, False])
def test_terms_sum_to_pyros_elbo(known, deep):
    model, context, observed, targets = prepared(known=known, deep=deep)
    torch.manual_seed(7)
    mine = elbo(model, context, observed, targets).bound.sum()
    torch.manual_seed(7)
    theirs = -Trace_ELBO().loss(model.model, model.guide, context, observed, targets)
    assert float(mine.detach()) == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("likelihood", ["field", "independent", "mse"])
def test_every_used_parameter_gets_a_gradient(likelihood):
    made = toys(count=24)
    model = small_model(made, likelihood)
    torch.nn.init.normal_(model.redshift_head.pooled[-1].weight, std=1e-3)  # zero when new
    generator = torch.Generator().manual_seed(1)
    observed = observe_part(made.batch, generator)
    targets = make_targets(made.batch, observed, made.deep, 5, generator)
    elbo(model, model.encode(observed), observed, targets).loss(ObjectiveConfig()).backward()
    silent = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0)
    }
    latent_only = {"log_intrinsic", "log_calibration", "log_length", "log_nugget", "class_head"}
    latent_only |= {"prior.white", "prior.stretch"}
    expected = set()
    if likelihood != "field":
        expected = {
            name
            for name in silent
            if any(part in name for part in latent_only) or name.startswith("recognition.")
        }
    assert silent == expected


def test_gradient_is_finite_when_a_modality_is_missing():
    made = toys()
    model = small_model(made)
    generator = torch.Generator().manual_seed(1)
    off = torch.zeros((), dtype=torch.bool)
    for keep in ("images", "photometry", "spectra"):
        masks = {name: off for name in ("images", "photometry", "spectra")} | {keep: ~off}
        observed = hide(made.batch, **masks)
        targets = make_targets(made.batch, observed, made.deep, 5, generator)
        model.zero_grad()
        loss = elbo(model, model.encode(observed), observed, targets).loss(ObjectiveConfig())
        loss.backward()
        total = sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None)
        assert total == total
        assert total < float("inf")


def test_hidden_values_do_not_reach_the_context():
    made = toys()
    model = small_model(made)
    observed = observe_part(made.batch, torch.Generator().manual_seed(3))
    # The same hiding of other values: contexts must be equal bit for bit.
    generator = torch.Generator().manual_seed(9)
    changed = replace(
        made.batch,
        images=replace(
            made.batch.images,
            flux=torch.where(
                observed.images.ivar > 0,
                made.batch.images.flux,
                torch.randn(made.batch.images.flux.shape, generator=generator),
            ),
        ),
    )
    again = observe_part(changed, torch.Generator().manual_seed(3))
    assert torch.equal(model.encode(observed).tokens, model.encode(again).tokens)


def test_padding_and_company_do_not_change_a_galaxy():
    made = toys()
    model = small_model(made).eval()
    observed = observe_part(made.batch, torch.Generator().manual_seed(3))
    together = model.redshift(model.encode(observed)).log_prob(made.batch.z)
    for row in range(len(observed)):
        one = observed.take(slice(row, row + 1))
        alone = model.redshift(model.encode(one)).log_prob(one.z)
        assert torch.allclose(alone, together[row], atol=1e-4)


def test_iwae_is_above_the_elbo_and_grows():
    model, context, observed, targets = prepared()
    with torch.no_grad():
        torch.manual_seed(0)
        tight, loose = iwae(model, context, observed, targets, 16)
    assert torch.all(tight >= loose)
    assert float((tight - loose).mean()) > 0


def test_every_task_shows_and_hides_something():
    made = toys(count=64)
    generator = torch.Generator().manual_seed(0)
    for task in TASKS:
        observed = observe_part(made.batch, generator, (task,))
        shown = sum(
            float((part.ivar > 0).sum())
            for part in (observed.images, observed.photometry, observed.spectra)
        )
        whole = sum(
            float((part.ivar > 0).sum())
            for part in (made.batch.images, made.batch.photometry, made.batch.spectra)
        )
        assert 0 < shown < whole
        assert bool((observed.images.flux[observed.images.ivar == 0] == 0).all())


def test_pyro_plate_is_the_batch():
    model, context, observed, targets = prepared()
    trace = pyro.poutine.trace(model.guide).get_trace(context, observed, targets)
    assert trace.nodes["u"]["fn"].batch_shape == (len(observed),)


def test_density_alone_is_the_joint_one_of_a_single_aperture():
    made = toys(spectra=1)
    model = small_model(made)
    generator = torch.Generator().manual_seed(1)
    observed = observe_part(made.batch, generator)
    targets = make_targets(made.batch, observed, made.deep, 2, generator)
    known = model.known_field(
        model.encode(observed), observed, targets.spectra.aperture, targets.z
    )
    u = torch.randn(len(made.batch), 1, 6, generator=generator, dtype=torch.float64)
    joint = known.field.distribution().log_prob(u.flatten(1))
    assert torch.allclose(known.field.alone().log_prob(u)[:, 0], joint)
