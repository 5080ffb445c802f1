"""FlexZBoost, through RAIL, on the photometry of the same galaxies.

Runs in the peers' own environment (RAIL pins its own versions and brings 1.2 GB), so it imports
nothing of probmmae and exchanges npz files:

    peers/bin/python benchmarks/peers_photoz.py --train train.npz --test test.npz -o flexzboost.npz

`train.npz` holds `mag` (n, band), `mag_err` (n, band), `z` (n,) and `bands`, a string or list of
one name a band, bluest first ("grizy" by default); `test.npz` the same, `z` not needed. A
magnitude that is not finite is a non-detection: it becomes the faintest magnitude of the training
set in its band with error 1, as RAIL does with its limits.

The variant "default" has RAIL's own settings but for the bands and the range of redshift; "tuned"
is whichever of VARIANTS has the lowest CDE loss on a fifth of the training set, refitted to all
of it: more basis functions, errors as inputs, ln(1 + z) in place of z.
"""

import argparse
import os
import platform
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Variant:
    """Settings of FlexZBoost."""

    bases: int = 35
    """Largest number of basis functions."""
    errors: bool = False
    """Errors of the colours as inputs."""
    logarithm: bool = False
    """Density of ln(1 + z) in place of z."""


VARIANTS = {
    "default": Variant(),
    "errors": Variant(bases=80, errors=True),
    "logarithm": Variant(bases=80, logarithm=True),
    "errors_logarithm": Variant(bases=80, errors=True, logarithm=True),
}


@dataclass(frozen=True)
class Table:
    """Magnitudes as RAIL wants them."""

    mag: Array
    """AB magnitudes, shape (galaxy, band); NaN is a non-detection."""
    mag_err: Array
    """Their errors, shape (galaxy, band)."""
    z: Array
    """Redshifts, shape (galaxy,)."""
    bands: tuple[str, ...]
    """Names, bluest first."""

    def take(self, rows: NDArray[np.int64]) -> "Table":
        """The galaxies `rows`."""
        return Table(self.mag[rows], self.mag_err[rows], self.z[rows], self.bands)

    def limits(self) -> Array:
        """The faintest magnitude of each band, shape (band,)."""
        return np.asarray(np.nanmax(np.where(np.isfinite(self.mag), self.mag, np.nan), axis=0))

    def columns(self, limits: Array) -> dict[str, Array]:
        """Columns by name, non-detections at `limits` with error 1."""
        seen = np.isfinite(self.mag) & np.isfinite(self.mag_err)
        mag, error = np.where(seen, self.mag, limits), np.where(seen, self.mag_err, 1.0)
        table = {f"mag_{band}": mag[:, i] for i, band in enumerate(self.bands)}
        table |= {f"mag_err_{band}": error[:, i] for i, band in enumerate(self.bands)}
        return table | {"redshift": self.z}


def read_table(path: Path) -> Table:
    """Read an npz of magnitudes.

    Raises:
        ValueError: Shapes that disagree.
    """
    with np.load(path) as file:
        mag, error = (file[key].astype(np.float64) for key in ("mag", "mag_err"))
        z = file["z"].astype(np.float64) if "z" in file else np.full(len(mag), np.nan)
        bands = tuple("".join(file["bands"].ravel().tolist()) if "bands" in file else "grizy")
    if mag.ndim != 2 or mag.shape != error.shape or mag.shape != (z.size, len(bands)):
        raise ValueError(
            f"Expected mag and mag_err of shape (galaxy, {len(bands)}) and z (galaxy,); got "
            f"{mag.shape}, {error.shape} and {z.shape}. Name one band a column in `bands`."
        )
    return Table(mag, error, z, bands)


def flexzboost(train: Table, test: Table, *, zmax: float, points: int, variant: Variant) -> Array:
    """Densities of the test galaxies on `points` equidistant redshifts from 0 to `zmax`.

    Returns:
        Densities per unit redshift, shape (galaxy, points), normalised by the trapezoid rule.
    """
    # RAIL is only in the peers' environment.
    from rail.estimation.algos.flexzboost import FlexZBoostEstimator, FlexZBoostInformer

    name = f"{variant.bases}_{variant.errors}_{variant.logarithm}_{time.monotonic_ns()}"
    limits = train.limits()
    shared: dict[str, Any] = {
        "hdf5_groupname": "",
        "bands": [f"mag_{band}" for band in train.bands],
        "err_bands": [f"mag_err_{band}" for band in train.bands],
        "ref_band": f"mag_{'i' if 'i' in train.bands else train.bands[len(train.bands) // 2]}",
        "mag_limits": {f"mag_{b}": float(m) for b, m in zip(train.bands, limits, strict=True)},
        "nondetect_val": float("nan"),
        "zmin": 0.0,
        "zmax": float(np.log1p(zmax)) if variant.logarithm else zmax,
        "nzbins": points,
        "include_mag_err": variant.errors,
        "output_mode": "return",
    }
    training = train.columns(limits)
    if variant.logarithm:
        training["redshift"] = np.log1p(training["redshift"])
    informer = FlexZBoostInformer.make_stage(
        name=f"inform_{name}",
        redshift_col="redshift",
        max_basis=variant.bases,
        **shared,
    )
    model = informer.inform(training)
    estimator = FlexZBoostEstimator.make_stage(
        name=f"estimate_{name}", model=model, redshift_col="redshift", **shared
    )
    ensemble = estimator.estimate(test.columns(limits)).data
    grid = np.linspace(0.0, zmax, points)
    if variant.logarithm:
        density = np.asarray(ensemble.pdf(np.log1p(grid))) / (1 + grid)
    else:
        density = np.asarray(ensemble.pdf(grid))
    total = np.asarray(np.trapezoid(density, grid, axis=1))
    return np.asarray(density / total[:, None])


def tune(train: Table, *, zmax: float, points: int) -> str:
    """The variant with the lowest CDE loss on the last fifth of a shuffled training set."""
    order = np.random.default_rng(0).permutation(len(train.z))
    cut = round(0.8 * len(order))
    grid = np.linspace(0.0, zmax, points)
    losses = {}
    for name, variant in VARIANTS.items():
        fit, held = train.take(order[:cut]), train.take(order[cut:])
        density = flexzboost(fit, held, zmax=zmax, points=points, variant=variant)
        losses[name] = cde_loss(grid, density, held.z)
        print(f"  {name}: CDE loss {losses[name]:.2f} held out", flush=True)
    return min(losses, key=lambda name: losses[name])


def cde_loss(grid: Array, density: Array, z: Array) -> float:
    """Mean of the integral of p^2 less 2 p(z)."""
    at_truth = np.array([np.interp(true, grid, row) for true, row in zip(z, density, strict=True)])
    return float(np.mean(np.trapezoid(density**2, grid, axis=1) - 2 * at_truth))


def main() -> None:
    """Train and answer; write densities and times, whole or not at all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--zmax", type=float, default=1.0)
    parser.add_argument("--points", type=int, default=501)
    parser.add_argument("--variants", nargs="+", default=["default", "tuned"])
    options = parser.parse_args()
    train, test = read_table(options.train), read_table(options.test)
    shape = {"zmax": options.zmax, "points": options.points}
    content: dict[str, Any] = {"grid": np.linspace(0.0, options.zmax, options.points)}
    for name in options.variants:
        wall, cpu = time.perf_counter(), time.process_time()
        chosen = tune(train, **shape) if name == "tuned" else name
        density = flexzboost(train, test, variant=VARIANTS[chosen], **shape)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        suffix = "" if name == "default" else f"_{name}"
        content |= {f"pdf{suffix}": density.astype(np.float32), f"variant{suffix}": chosen}
        content |= {f"seconds{suffix}": wall, f"cpu_seconds{suffix}": cpu}
        print(f"FlexZBoost {name} ({chosen}): {wall:.0f} s wall, {cpu:.0f} s CPU", flush=True)
        print(describe(content["grid"], density, test.z), flush=True)
    packages = ("pz-rail-base", "pz-rail-flexzboost", "flexcode", "xgboost", "qp-prob")
    content["versions"] = np.array(
        [f"python {platform.python_version()}"]
        + [f"{package} {metadata.version(package)}" for package in packages]
    )
    temporary = options.output.with_name(f".{options.output.name}.{os.getpid()}.npz")
    np.savez_compressed(temporary, **content)
    os.replace(temporary, options.output)


def describe(grid: Array, density: Array, z: Array) -> str:
    """NMAD of the mode, CDE loss and PIT KS distance in words, where truths are known."""
    if not np.isfinite(z).all():
        return "no true redshifts to compare with"
    error = (grid[density.argmax(axis=1)] - z) / (1 + z)
    nmad = 1.4826 * np.median(np.abs(error - np.median(error)))
    step = grid[1] - grid[0]
    middle = 0.5 * (density[:, 1:] + density[:, :-1]) * step
    cdf = np.concatenate([np.zeros((len(z), 1)), middle.cumsum(axis=1)], axis=1)
    rows = range(len(z))
    pit = np.sort([np.interp(z[i], grid, cdf[i]) for i in rows])
    loss = cde_loss(grid, density, z)
    steps = np.arange(len(z) + 1) / len(z)
    distance = max((steps[1:] - pit).max(), (pit - steps[:-1]).max())
    return f"NMAD of the mode {nmad:.4f}, CDE loss {loss:.2f}, PIT KS {distance:.3f}, n {len(z)}"


if __name__ == "__main__":
    main()
