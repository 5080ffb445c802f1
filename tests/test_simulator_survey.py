"""What surveys record: the contract of `Batch`, reproducibility, noise that ivar describes."""

import itertools
from dataclasses import fields

import pytest
import torch

from probmmae.batch import Batch
from probmmae.simulator import simulate, stream
from probmmae.simulator.spectrographs import load_spectrographs
from probmmae.simulator.survey import DEEP, SurveySettings


@pytest.fixture(scope="module")
def simulated():
    return simulate(64, 11)


def tensors(table):
    for field in fields(table):
        value = getattr(table, field.name)
        if isinstance(value, torch.Tensor):
            yield field.name, value
        else:
            yield from tensors(value)


def same(first, second):
    pairs = zip(tensors(first), tensors(second), strict=True)
    return all(torch.equal(a, b) for (_, a), (_, b) in pairs)


def test_batch_keeps_its_contract(simulated):
    batch, truth = simulated
    assert isinstance(batch, Batch)
    assert len(batch) == 64
    for name, value in itertools.chain(tensors(batch), tensors(truth)):
        assert bool(torch.isfinite(value).all()), name
    for table in (batch.images, batch.photometry, batch.spectra, truth.deep):
        assert bool((table.ivar >= 0).all())
        assert bool((table.flux[table.ivar == 0] == 0).all())
    assert bool((batch.spectra.wavelength.diff(dim=-1) >= 0).all())
    assert bool((batch.spectra.sigma > 0).all())
    missing = float((batch.spectra.ivar == 0)[load_real(batch)].float().mean())
    assert 0.005 < missing < 0.08


def load_real(batch):
    wavelength = batch.spectra.wavelength
    return wavelength.diff(dim=-1, prepend=wavelength[..., :1] - 1) > 0


def test_a_longer_run_begins_with_a_shorter_one():
    long, short = simulate(70, 3), simulate(65, 3)
    for one, other in zip(long, short, strict=True):
        assert same(one.take(slice(0, 65)), other)
    assert not torch.equal(simulate(4, 3)[0].z, simulate(4, 4)[0].z)


def test_stream_begins_where_it_is_told():
    blocks = list(itertools.islice(stream(3, block_size=8), 3))
    later = next(stream(3, block_size=8, start_block=2))
    assert same(blocks[2][0], later[0])
    assert same(blocks[2][1], later[1])


@pytest.mark.slow
def test_processes_change_nothing():
    alone = list(itertools.islice(stream(5, block_size=4), 3))
    source = stream(5, block_size=4, processes=2)
    together = list(itertools.islice(source, 3))
    source.close()
    assert all(same(a[0], b[0]) and same(a[1], b[1]) for a, b in zip(alone, together, strict=True))


def test_deep_noise_is_what_ivar_says(simulated):
    # Independent Gaussian pixels: the sum of squares is within 4 of its standard deviations, which
    # a right simulator fails for one seed in 16,000.
    _, truth = simulated
    good = truth.deep.ivar > 0
    pull = ((truth.deep.flux - truth.spectrum_flux) * truth.deep.ivar.sqrt())[good].double()
    assert abs(float(pull.square().sum() - len(pull))) < 4 * (2 * len(pull)) ** 0.5
    assert abs(float(pull.sum())) < 4 * len(pull) ** 0.5


def test_recorded_ivar_is_that_of_the_noise(simulated):
    # Recorded ivar counts the photons that arrived, not those expected: right to a few per cent.
    batch, truth = simulated
    for measured, exact in (
        (batch.spectra, truth.spectrum_flux),
        (batch.images, truth.image_flux),
        (batch.photometry, truth.photometry_flux),
    ):
        good = measured.ivar > 0
        pull = ((measured.flux - exact) * measured.ivar.sqrt())[good]
        # 320 catalogue fluxes scatter by 8 per cent: 4 of their standard deviations.
        slack = 0.05 if len(pull) > 1000 else 4 * (2 / len(pull)) ** 0.5
        assert abs(float(pull.square().mean()) - 1) < slack


def test_deep_spectra_are_deep(simulated):
    batch, truth = simulated
    both = (batch.spectra.ivar > 0) & (truth.deep.ivar > 0)
    ratio = (truth.deep.ivar / batch.spectra.ivar)[both].median()
    assert float(ratio) == pytest.approx(DEEP**2, rel=0.02)
    real = load_real(batch)
    assert bool((truth.deep.ivar[real] > 0).all())
    assert torch.equal(truth.deep.wavelength, batch.spectra.wavelength)


def test_spectra_are_useful(simulated):
    _, truth = simulated
    noise_free = truth.spectrum_flux * truth.deep.ivar.sqrt() / DEEP
    level = noise_free[..., 800:3600].median(-1).values
    assert 3 < float(level.median()) < 15
    assert float(level.max()) < 32


def test_spectrographs_are_what_they_say():
    stored = load_spectrographs()
    first, last = stored.wavelength[:, 0], stored.wavelength[:, -1]
    torch.testing.assert_close(first, torch.tensor([3600.0, 3650.0, 3621.6]), atol=0.5, rtol=0)
    torch.testing.assert_close(last, torch.tensor([9824.0, 10349.0, 10353.8]), atol=2.5, rtol=0)
    power = stored.wavelength / stored.sigma / 2.3548
    assert 1900 < float(power[0, 0]) < 2200
    assert 5300 < float(power[0, stored.real[0]].max()) < 5800
    assert bool(((power[1] > 1400) & (power[1] < 3000)).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "Expected a positive image size"),
        ({"depth": (26.0, 22.0)}, "Expected 0 < low <= high for depth"),
        ({"psf_fwhm": (0.0, 1.0)}, "Expected 0 < low <= high for psf_fwhm"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        SurveySettings(**change)


@pytest.mark.parametrize(("n", "seed"), [(0, 1), (1, -1)])
def test_simulate_checks_its_arguments(n, seed):
    with pytest.raises(ValueError, match="Expected n >= 1 and seed >= 0"):
        simulate(n, seed)
