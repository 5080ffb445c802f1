"""FlexZBoost, through RAIL, on the photometry of the same galaxies.

Runs in the peers' own environment (RAIL pins its own versions and brings 1.2 GB), so it imports
nothing of probmmae and exchanges npz files:

    peers/bin/python benchmarks/peers_photoz.py --train train.npz --test test.npz -o flexzboost.npz

`train.npz` holds `mag` (n, band), `mag_err` (n, band), `z` (n,) and `bands`, a string or list of
one name a band, bluest first ("grizy" by default); `test.npz` the same, `z` not needed. A
magnitude that is not finite is a non-detection: it becomes the faintest magnitude of the training
set in its band with error 1, as RAIL does with its limits.

Two variants: "default", RAIL's own settings but for the bands and the range of redshift; and
"tuned", with 80 basis functions, errors as inputs, and ln(1 + z) in place of z.
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


def flexzboost(train: Table, test: Table, *, zmax: float, points: int, tuned: bool) -> Array:
    """Densities of the test galaxies on `points` equidistant redshifts from 0 to `zmax`.

    Returns:
        Densities per unit redshift, shape (galaxy, points), normalised by the trapezoid rule.
    """
    # RAIL is only in the peers' environment.
    from rail.estimation.algos.flexzboost import FlexZBoostEstimator, FlexZBoostInformer

    name = "tuned" if tuned else "default"
    limits = np.nanmax(np.where(np.isfinite(train.mag), train.mag, np.nan), axis=0)
    shared: dict[str, Any] = {
        "hdf5_groupname": "",
        "bands": [f"mag_{band}" for band in train.bands],
        "err_bands": [f"mag_err_{band}" for band in train.bands],
        "ref_band": f"mag_{'i' if 'i' in train.bands else train.bands[len(train.bands) // 2]}",
        "mag_limits": {f"mag_{b}": float(m) for b, m in zip(train.bands, limits, strict=True)},
        "nondetect_val": float("nan"),
        "zmin": 0.0,
        "zmax": float(np.log1p(zmax)) if tuned else zmax,
        "nzbins": points,
        "include_mag_err": tuned,
        "output_mode": "return",
    }
    training = train.columns(limits)
    if tuned:
        training["redshift"] = np.log1p(training["redshift"])
    informer = FlexZBoostInformer.make_stage(
        name=f"inform_{name}",
        redshift_col="redshift",
        max_basis=80 if tuned else 35,
        **shared,
    )
    model = informer.inform(training)
    estimator = FlexZBoostEstimator.make_stage(
        name=f"estimate_{name}", model=model, redshift_col="redshift", **shared
    )
    ensemble = estimator.estimate(test.columns(limits)).data
    grid = np.linspace(0.0, zmax, points)
    if tuned:
        density = np.asarray(ensemble.pdf(np.log1p(grid))) / (1 + grid)
    else:
        density = np.asarray(ensemble.pdf(grid))
    total = np.asarray(np.trapezoid(density, grid, axis=1))
    return np.asarray(density / total[:, None])


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
    content: dict[str, Any] = {"grid": np.linspace(0.0, options.zmax, options.points)}
    for variant in options.variants:
        wall, cpu = time.perf_counter(), time.process_time()
        density = flexzboost(
            train, test, zmax=options.zmax, points=options.points, tuned=variant == "tuned"
        )
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        suffix = "" if variant == "default" else f"_{variant}"
        content[f"pdf{suffix}"] = density.astype(np.float32)
        content[f"seconds{suffix}"], content[f"cpu_seconds{suffix}"] = wall, cpu
        print(f"FlexZBoost {variant}: {wall:.0f} s wall, {cpu:.0f} s CPU", flush=True)
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
    at_truth = np.array([np.interp(z[i], grid, density[i]) for i in rows])
    loss = np.mean(np.trapezoid(density**2, grid, axis=1) - 2 * at_truth)
    steps = np.arange(len(z) + 1) / len(z)
    distance = max((steps[1:] - pit).max(), (pit - steps[:-1]).max())
    return f"NMAD of the mode {nmad:.4f}, CDE loss {loss:.2f}, PIT KS {distance:.3f}, n {len(z)}"


if __name__ == "__main__":
    main()
