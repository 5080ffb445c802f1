"""A repair is kept only where it helps on galaxies that it was not fitted on.

False-alarm budget: seeds are fixed; an exact posterior gains three standard errors about
once in a thousand times (normal law), what is wrong gains many.
"""

import numpy as np
import pytest

from probmmae.calibration.recalibrate_local import fit_local
from probmmae.calibration.worth import (
    continuum_scale_that_helps,
    law_helps,
    said_of,
)

GALAXIES, DRAWS, PIXELS = 300, 40, 24


def spectra(width, seed):
    """Draws, truths, rest wavelengths and S/N; draws are `width` times as wide as they should."""
    rng = np.random.default_rng(seed)
    shape = (DRAWS + 1, GALAXIES, PIXELS)
    deviations = rng.normal(size=(DRAWS + 1, GALAXIES, 1)) + 0.5 * rng.normal(size=shape)
    deviations[1:] *= width
    rest = np.broadcast_to(np.linspace(4000, 7000, PIXELS), shape[1:])
    return deviations[1:], deviations[0], rest, np.exp(rng.normal(size=GALAXIES))


@pytest.mark.parametrize(
    ("width", "helps"), [(1.0, False), (1.4, True), (0.7, True), (0.25, True)]
)
def test_factors_of_the_continuum_are_kept_only_where_they_help(width, helps):
    draws, truth, rest, snr = spectra(width, seed=1)
    scale, said = continuum_scale_that_helps(
        draws, truth, rest_wavelength=rest, snr=snr, generator=np.random.default_rng(2)
    )
    assert (scale is not None) == helps
    assert said.endswith("% of the CRPS")
    assert said.isascii()  # it is written into FITS headers
    if scale is not None:
        factor = np.exp(np.mean(scale.log_scale))
        assert abs(np.log(factor * width)) < 0.1


@pytest.mark.parametrize(("power", "helps"), [(1.0, False), (1.3, True)])
def test_a_law_is_kept_only_where_it_helps(power, helps):
    rng = np.random.default_rng(3)
    pit = rng.random(1500) ** power
    law = fit_local(pit, {"m": rng.normal(size=1500)}, generator=rng)
    assert law_helps(law) == helps
    assert said_of(law).endswith("nats a galaxy")


def test_the_worth_of_a_law_is_its_gain_on_new_galaxies():
    rng = np.random.default_rng(4)
    told, power = rng.normal(size=4000), 1.25
    pit = rng.random(4000) ** power
    law = fit_local(pit[:2000], {"m": told[:2000]}, generator=rng)
    density = law.pit_map({"m": told[2000:]}).density(pit[2000:, None])
    gained = np.log(density[:, 0])
    error = np.hypot(law.worth_error, gained.std() / np.sqrt(2000))
    assert abs(gained.mean() - law.worth) < 4 * error
