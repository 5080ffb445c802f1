"""Repaired draws of spectra: calibrated where they were not, each draw still one galaxy.

Spectra are three smooth modes plus independent pixels, so the exact posterior is known. The
false-alarm budget: seeds are fixed; coverage of n galaxies after a repair fitted on m others may
leave its band of 3.5 standard errors of both with probability 1e-3; what is broken on purpose must
leave it.
"""

import json

import numpy as np
import pytest

from probmmae.calibration.conformal import fit_threshold
from probmmae.calibration.conformal_bands import (
    band_scores,
    fit_line_intervals,
    simultaneous_band,
)
from probmmae.calibration.pit import pit_from_draws
from probmmae.calibration.recalibrate_spectra import (
    PixelScale,
    PrincipalScale,
    fit_pixel_scale,
    fit_principal_scale,
)
from probmmae.calibration.scores import crps_draws

PIXELS, DRAWS, GALAXIES = 60, 40, 500
PLACE = np.linspace(0, 1, PIXELS)
MODES = np.stack([np.ones(PIXELS), 0.8 * (PLACE - 0.5), 0.5 * np.sin(6 * PLACE)])


def generator(seed):
    return np.random.default_rng(seed)


def world(rng, *, galaxies=GALAXIES, flux=1.0, blue=1.0, faint=1.0):
    """Draws, truths, rest wavelengths and S/N: spread of the draws over the true one is given."""
    snr = np.exp(2 + rng.normal(size=galaxies))

    def deviations(draws, level):
        weights = rng.normal(size=(draws, galaxies, 3))
        weights[..., 0] *= level
        return weights @ MODES + 0.3 * rng.normal(size=(draws, galaxies, PIXELS))

    mean = rng.normal(size=(galaxies, 1))
    draws = deviations(DRAWS, flux) * np.where(PLACE < 0.5, blue, 1.0)
    draws *= np.where(snr < np.exp(2), faint, 1.0)[:, None]
    rest = np.broadcast_to(3600 * 2**PLACE, (galaxies, PIXELS))
    return mean + draws, mean + deviations(1, 1.0)[0], rest, snr


def covered(draws, truth, rng):
    """Coverage of central 90 % intervals; the mean over pixels for spectra."""
    pit = pit_from_draws(draws, truth, generator=rng)
    return np.mean(np.abs(pit - 0.5) <= 0.45, axis=0)


def near(coverage, galaxies):
    return np.abs(coverage - 0.9) < 3.5 * np.sqrt(0.09 * (1 / galaxies + 1 / GALAXIES))


def fine(spectra):
    """A sum that the smooth modes hardly touch."""
    return spectra[..., ::2].mean(axis=-1) - spectra[..., 1::2].mean(axis=-1)


def test_pixel_scale_repairs_each_wavelength_and_signal_to_noise():
    rng = generator(1)
    broken = {"blue": 0.7, "faint": 0.65}
    draws, truth, rest, snr = world(rng, **broken)
    repair = fit_pixel_scale(draws, truth, rest_wavelength=rest, snr=snr)
    draws, truth, rest, snr = world(rng, **broken)
    new = repair.apply(draws, rest_wavelength=rest, snr=snr)
    before, after = (
        [
            covered(x[:, rows][..., part], truth[rows][:, part], rng).mean()
            for rows in (snr < 4, snr > 12)
            for part in (PLACE < 0.4, PLACE > 0.6)
        ]
        for x in (draws, new)
    )
    assert not any(near(np.array(before)[:3], 150))
    assert all(near(np.array(after), 150))
    assert crps_draws(new, truth).mean() < 0.99 * crps_draws(draws, truth).mean()


def test_principal_scale_repairs_the_flux_and_leaves_the_pixels():
    rng = generator(2)
    draws, truth, rest, snr = world(rng, flux=0.5)
    principal = fit_principal_scale(draws, truth)
    pixels = fit_pixel_scale(draws, truth, rest_wavelength=rest, snr=snr)
    draws, truth, rest, snr = world(rng, flux=0.5)
    new = principal.apply(draws)
    other = pixels.apply(draws, rest_wavelength=rest, snr=snr)
    flux = [covered(x.mean(axis=-1), truth.mean(axis=-1), rng).mean() for x in (draws, new)]
    assert flux[0] < 0.75
    assert near(flux[1], GALAXIES)
    assert near(covered(new, truth, rng).mean(), GALAXIES)
    detail = [covered(fine(x), fine(truth), rng).mean() for x in (new, other)]
    assert near(detail[0], GALAXIES)
    assert detail[1] > 0.96  # one factor a pixel widens what was right


@pytest.mark.parametrize("kind", ["pixel", "principal"])
def test_exact_draws_lose_at_most_two_percent(kind):
    rng = generator(3)
    draws, truth, rest, snr = world(rng)
    if kind == "pixel":
        repair = fit_pixel_scale(draws, truth, rest_wavelength=rest, snr=snr)
        draws, truth, rest, snr = world(rng)
        new = repair.apply(draws, rest_wavelength=rest, snr=snr)
    else:
        repair = fit_principal_scale(draws, truth)
        draws, truth, rest, snr = world(rng)
        new = repair.apply(draws)
    assert crps_draws(new, truth).mean() < 1.02 * crps_draws(draws, truth).mean()
    assert near(covered(new, truth, rng).mean(), GALAXIES)


def test_draws_that_are_not_normal_are_left_as_they_are():
    # Skewed and heavy-tailed: the reference is other draws, not a normal law.
    rng = generator(4)
    values = rng.gamma(2.0, size=(31, 1000, 8)) * rng.gamma(3.0, size=(31, 1000, 1))
    repair = fit_principal_scale(values[1:], values[0])
    assert np.abs(repair.log_scale).max() < 0.2
    rest, snr = np.broadcast_to(np.linspace(4000, 5000, 8), (1000, 8)), np.full(1000, 5.0)
    pixel = fit_pixel_scale(values[1:], values[0], rest_wavelength=rest, snr=snr)
    assert np.abs(pixel.log_scale).max() < 0.2


PRINCIPAL = PrincipalScale((1.0, 2.0, 8.0), (0.5, 0.1, -0.3), 100)
PIXEL = PixelScale((3600.0, 7200.0), (1.0, 10.0), ((0.4, 0.0), (0.0, -0.2)), 100)


def test_sums_over_pixels_are_mixed_as_the_draws_are():
    draws, *_ = world(generator(5), galaxies=3)
    new = PRINCIPAL.apply(draws)
    np.testing.assert_allclose(new.mean(axis=0), draws.mean(axis=0), atol=1e-12)
    for galaxy in range(3):
        old, changed = (x[:, galaxy] - x[:, galaxy].mean(axis=0) for x in (draws, new))
        mixing, *_ = np.linalg.lstsq(old.T, changed.T, rcond=1e-10)
        window = generator(6).normal(size=(PIXELS, 4))
        np.testing.assert_allclose(mixing.T @ (old @ window), changed @ window, atol=1e-8)
        # Each new draw is mostly its old self.
        assert np.all(np.argmax(np.corrcoef(old, changed)[:DRAWS, DRAWS:], axis=0) == range(DRAWS))


def test_principal_factors_multiply_the_principal_deviations():
    draws, *_ = world(generator(7), galaxies=2)
    new = PRINCIPAL.apply(draws)
    for galaxy in range(2):
        spread = draws[:, galaxy].std(axis=0, ddof=1)
        old, changed = ((x[:, galaxy] - x[:, galaxy].mean(0)) / spread for x in (draws, new))
        left, _, right = np.linalg.svd(old, full_matrices=False)
        scores = np.einsum("dk,dk->k", left, changed @ right.T)
        plain = np.einsum("dk,dk->k", left, old @ right.T)
        np.testing.assert_allclose(
            (scores / plain)[[0, 1, 7, 20]], np.exp([0.5, 0.1, -0.3, -0.3]), rtol=1e-6
        )


def test_pixel_factors_are_bilinear_and_those_of_the_edge_beyond_the_knots():
    middle = np.sqrt(3600 * 7200)
    factor = PIXEL.scale([[100.0, 3600.0, middle, 9999.0]] * 3, [0.1, np.sqrt(10), 10.0])
    expected = [[0.4, 0.4, 0.2, 0.0], [0.2, 0.2, 0.05, -0.1], [0.0, 0.0, -0.1, -0.2]]
    np.testing.assert_allclose(np.log(factor), expected, atol=1e-12)


def test_missing_pixels_stay_missing_and_do_not_spread():
    draws, truth, rest, snr = world(generator(8), galaxies=120)
    truth[:, 5], draws[3, :, 9], truth[7] = np.nan, np.nan, np.nan
    repair = fit_pixel_scale(draws, truth, rest_wavelength=rest, snr=snr)
    assert np.isfinite(repair.log_scale).all()
    assert np.isfinite(fit_principal_scale(draws, truth).log_scale).all()
    for new in (PRINCIPAL.apply(draws), repair.apply(draws, rest_wavelength=rest, snr=snr)):
        assert np.isfinite(np.delete(new, 9, axis=2)).all()
        assert np.isnan(new[3, :, 9]).all()


def test_bands_hold_whole_spectra_as_often_as_they_say():
    rng = generator(9)
    held, pointwise = [], []
    for _ in range(40):
        draws, truth, *_ = world(rng, galaxies=160, flux=0.6)
        threshold = fit_threshold(band_scores(draws[:, :80], truth[:80]), level=0.9)
        band = simultaneous_band(draws[:, 80:], threshold.at())
        held.append(np.mean(np.all((truth[80:] >= band.lower) & (truth[80:] <= band.upper), 1)))
        low, high = np.quantile(draws[:, 80:], [0.05, 0.95], axis=0)
        pointwise.append(np.mean(np.all((truth[80:] >= low) & (truth[80:] <= high), axis=1)))
    error = 3.5 * np.std(held) / np.sqrt(40)
    assert 0.9 - error < np.mean(held) < 0.9 + 1 / 81 + error
    assert np.mean(pointwise) < 0.2  # broken on purpose


def lines(rng, galaxies, narrow):
    """Draws and truths of two lines whose fluxes span orders of magnitude."""
    size = np.exp(2 * rng.normal(size=galaxies))
    draws = {name: size * narrow * rng.normal(size=(50, galaxies)) for name in ("ha", "o3")}
    return draws, {name: size * rng.normal(size=galaxies) for name in draws}


def test_line_intervals_hold_lines_as_often_as_they_say():
    rng = generator(10)
    held = []
    for _ in range(60):
        repair = fit_line_intervals(*lines(rng, 100, 0.6), level=0.9)
        draws, truth = lines(rng, 100, 0.6)
        ends = repair.apply(draws)
        held.append(
            [
                np.mean((truth[line] >= end.lower) & (truth[line] <= end.upper))
                for line, end in ends.items()
            ]
        )
    error = 3.5 * np.std(held, axis=0) / np.sqrt(60)
    assert np.all(np.abs(np.mean(held, axis=0) - 0.9 - 0.5 / 101) < error + 0.5 / 101)


def test_lines_outside_the_grid_are_left_out():
    draws, truth = lines(generator(11), 60, 1.0)
    draws["ha"][:, 3], truth["o3"][5] = np.nan, np.nan
    repair = fit_line_intervals(draws, truth, level=0.8)
    assert [one.galaxies for one in repair.thresholds.values()] == [(59,), (59,)]
    assert np.isnan(repair.apply(draws)["ha"].lower).tolist() == [i == 3 for i in range(60)]


def test_repairs_survive_json():
    repair = fit_line_intervals(*lines(generator(12), 60, 1.0), level=0.8)
    for one in (PRINCIPAL, PIXEL, repair):
        assert type(one).from_dict(json.loads(json.dumps(one.to_dict()))) == one


DRAWN, TRUE, REST, SNR = world(generator(13), galaxies=60)
LINES = lines(generator(14), 60, 1.0)


def pixel(draws=DRAWN, truth=TRUE, rest=REST, snr=SNR):
    return fit_pixel_scale(draws, truth, rest_wavelength=rest, snr=snr)


WRONG = {
    "few draws": lambda: pixel(draws=DRAWN[:11]),
    "few galaxies": lambda: fit_principal_scale(DRAWN[:, :49], TRUE[:49]),
    "no known truth": lambda: fit_principal_scale(DRAWN, np.full(TRUE.shape, np.nan)),
    "truth of another grid": lambda: fit_principal_scale(DRAWN, TRUE[:, :9]),
    "one spectrum": lambda: fit_principal_scale(DRAWN[:, 0], TRUE[0]),
    "wavelengths of another grid": lambda: pixel(rest=REST[:, :9]),
    "negative S/N": lambda: pixel(snr=-SNR),
    "NaN wavelength": lambda: pixel(rest=REST * np.nan),
    "S/N of others": lambda: pixel(snr=SNR[:9]),
    "scale of another grid": lambda: PIXEL.apply(DRAWN, rest_wavelength=REST[:, :9], snr=SNR),
    "one draw": lambda: PRINCIPAL.apply(DRAWN[:1]),
    "another kind": lambda: PixelScale.from_dict(PRINCIPAL.to_dict()),
    "band of another grid": lambda: band_scores(DRAWN, TRUE[:, :9]),
    "band of nothing": lambda: band_scores(DRAWN, TRUE * np.nan),
    "band without draws": lambda: band_scores(TRUE, TRUE),
    "thresholds of others": lambda: simultaneous_band(DRAWN, [1.0, 2.0]),
    "other lines": lambda: fit_line_intervals(LINES[0], {}, level=0.9),
    "truths of others": lambda: fit_line_intervals(
        LINES[0], {name: one[:9] for name, one in LINES[1].items()}, level=0.9
    ),
    "no line seen": lambda: fit_line_intervals(
        LINES[0], {name: one * np.nan for name, one in LINES[1].items()}, level=0.9
    ),
    "percent": lambda: fit_line_intervals(*LINES, level=90.0),
    "an unknown line": lambda: fit_line_intervals(*LINES, level=0.9).apply({"hb": [[1.0]]}),
    "a vector of draws": lambda: fit_line_intervals(*LINES, level=0.9).apply({"ha": [1.0]}),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused_with_what_was_expected(call):
    with pytest.raises(ValueError, match=r"(?s)^Expected .*; got .*\. .*\.$"):
        call()
