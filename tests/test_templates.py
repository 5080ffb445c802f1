"""The shipped templates against atomic physics and against their own provenance."""

import json
from importlib.resources import files

import pytest
import torch

from probmmae.templates import load_templates

TEMPLATES = load_templates()


@pytest.mark.parametrize(
    ("name", "vacuum"),
    [
        ("H-alpha", 6564.61), ("H-beta", 4862.68), ("[OIII]5008", 5008.24), ("[OII]3727", 3727.09),
        ("[OII]3730", 3729.88), ("[NII]6585", 6585.27), ("[SII]6718", 6718.29),
        ("[SII]6733", 6732.67),
        ("[SIII]9533", 9533.2), ("HeI5877", 5877.25),
    ],
)  # fmt: skip
def test_lines_are_at_vacuum_wavelengths(name, vacuum):
    # NIST; air wavelengths would be off by 1 Angstrom and more.
    assert abs(float(TEMPLATES.line_wavelength[TEMPLATES.line(name)]) - vacuum) < 0.15


@pytest.mark.parametrize("vacuum", [3934.78, 4862.68, 5891.58])
def test_stars_absorb_at_vacuum_wavelengths(vacuum):
    age = 6 if vacuum == 4862.68 else -1
    spectrum = TEMPLATES.stellar_continuum[3, age, 0] @ TEMPLATES.continuum
    near = (TEMPLATES.wavelength - vacuum).abs() < 12
    deepest = TEMPLATES.wavelength[near][spectrum[near].argmin()]
    # Na D is two lines: 5891.58 and 5897.56.
    assert abs(float(deepest) - vacuum) < (6.5 if vacuum == 5891.58 else 1.6)


def line(name, dust=0):
    return TEMPLATES.nebular_line[3, 1, 0, dust, TEMPLATES.line(name)]


def test_recombination_and_forbidden_ratios():
    assert 2.75 < float(line("H-alpha") / line("H-beta")) < 3.1  # case B
    assert float(line("[OIII]5008") / line("[OIII]4960")) == pytest.approx(2.95, abs=0.08)
    assert float(line("[NII]6585") / line("[NII]6550")) == pytest.approx(2.96, abs=0.15)


def test_dust_follows_calzetti():
    # k(H-beta) - k(H-alpha) = 4.60 - 3.33 = 1.27 and R_V = 4.05, 1.75 times A_V on gas.
    node = 3
    before, after = line("H-alpha") / line("H-beta"), line("H-alpha", node) / line("H-beta", node)
    expected = 10 ** (0.4 * 1.75 * float(TEMPLATES.dust_av[node]) * 1.27 / 4.05)
    assert float(after / before) == pytest.approx(expected, rel=0.02)


def test_break_grows_with_age():
    curves = TEMPLATES.stellar_continuum[3, :, 0] @ TEMPLATES.continuum
    wave = TEMPLATES.wavelength
    red, blue = (wave > 4000) & (wave < 4100), (wave > 3850) & (wave < 3950)
    # Balogh's D4000, f_nu.
    ratio = (curves * wave**2)[:, red].mean(1) / (curves * wave**2)[:, blue].mean(1)
    assert 0.9 < float(ratio[0]) < 1.15
    assert 1.7 < float(ratio[-1]) < 2.4
    assert bool((ratio[4:].diff() > 0).all())


def test_grid_is_uniform_in_logarithm():
    steps = torch.log(TEMPLATES.wavelength.double()).diff()
    assert float((steps / TEMPLATES.step - 1).abs().max()) < 2e-3  # float32
    assert float(TEMPLATES.wavelength[0]) == 2000
    assert 10895 < float(TEMPLATES.wavelength[-1]) <= 10900


def test_provenance_belongs_to_the_file():
    folder = files("probmmae") / "data"
    provenance = json.loads((folder / "templates.json").read_text())
    assert provenance["bytes"] == len((folder / "templates.npz").read_bytes())
    assert provenance["bytes"] < 3_000_000
    assert provenance["basis"] == len(TEMPLATES.continuum)
    assert provenance["check"]["rms_of_relative_residual"] < 2e-3


def test_unknown_line():
    with pytest.raises(ValueError, match=r"Expected one of .*H-alpha.*; got 'Halpha'\."):
        TEMPLATES.line("Halpha")


def test_moves_between_devices():
    moved = TEMPLATES.to("meta")
    assert moved.continuum.device.type == "meta"
    assert moved.line_name == TEMPLATES.line_name
