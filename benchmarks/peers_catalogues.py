r"""A peer on one table of photometry: FlexZBoost, PZFlow, GPz, nearest neighbours, Cal-PIT.

Runs in the peers' own environment, as `peers_photoz.py` does, and reads the same npz files; what
it writes holds `pdf` and `cpu` (seconds of training and answering), or `failed`, the error:

    peers/bin/python benchmarks/peers_catalogues.py GPz --train train.npz --test test.npz \
        --zmax 1.5 --points 751 -o out.npz

Magnitudes that are missing are replaced by limits, as RAIL does. FlexZBoost's variant is tuned on
at most 4,000 galaxies of the training set and fitted to all of it. Cal-PIT stands on top of
another peer, whose answers it is given: that peer is fitted once more to 80 % of the training set
(tuned FlexZBoost in the variant that was chosen, which is kept with its answers), and Cal-PIT
learns from its answers on the other 20 %.
"""

import argparse
import os
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from peers_photoz import VARIANTS, Array, Table, describe, flexzboost, read_table, tune

Answer = Callable[[Table, Table, Array], Array]
"""Training set, galaxies to answer for, grid -> densities per unit redshift, (galaxy, grid)."""
_AT_ONCE = 5000
"""Galaxies answered for at a time: PZFlow holds every point of all their grids in memory."""
_TUNED_ON = 4000
"""Galaxies of the training set on which the variant of FlexZBoost is chosen."""


def neighbours(train: Table, test: Table, grid: Array) -> Array:
    """RAIL's KNearNeigh with its own settings."""
    from rail.estimation.algos.k_nearneigh import KNearNeighEstimator, KNearNeighInformer

    return _rail(KNearNeighInformer, KNearNeighEstimator, train, test, grid)


def gpz(train: Table, test: Table, grid: Array) -> Array:
    """RAIL's GPz with its own settings but 100 iterations."""
    from rail.estimation.algos.gpz import GPzEstimator, GPzInformer

    own = {"max_iter": 100}
    return _rail(GPzInformer, GPzEstimator, train, test, grid, inform=own)


def pzflow(train: Table, test: Table, grid: Array) -> Array:
    """RAIL's PZFlow with its own settings but 30 epochs."""
    from rail.estimation.algos.pzflow_nf import PZFlowEstimator, PZFlowInformer

    names = {f"mag_err_{band}": f"mag_{band}_err" for band in train.bands}
    both = {"column_names": [f"mag_{band}" for band in train.bands], "err_names_dict": names}
    return _rail(
        PZFlowInformer, PZFlowEstimator, train, test, grid,
        inform=both | {"n_training_epochs": 30}, estimate=both,
    )  # fmt: skip


def _rail(
    informer: Any,
    estimator: Any,
    train: Table,
    test: Table,
    grid: Array,
    *,
    inform: dict[str, Any] | None = None,
    estimate: dict[str, Any] | None = None,
) -> Array:
    """Inform and estimate with RAIL's stages; settings that a stage does not have are left out."""
    limits = train.limits()
    middle = "i" if "i" in train.bands else train.bands[len(train.bands) // 2]
    shared = {
        "hdf5_groupname": "",
        "redshift_col": "redshift",
        "bands": [f"mag_{band}" for band in train.bands],
        "err_bands": [f"mag_err_{band}" for band in train.bands],
        "ref_band": f"mag_{middle}",
        "mag_limits": {f"mag_{b}": float(m) for b, m in zip(train.bands, limits, strict=True)},
        "replace_error_vals": [1.0] * len(train.bands),
        "nondetect_val": 99.0,
        "zmin": 0.0,
        "zmax": float(grid[-1]),
        "nzbins": len(grid),
        "output_mode": "return",
    }

    def stage(kind: Any, own: dict[str, Any] | None, **more: Any) -> Any:
        known = {name: value for name, value in shared.items() if name in kind.config_options}
        return kind.make_stage(
            name=f"{kind.name}_{time.monotonic_ns()}", **{**known, **(own or {})}, **more
        )

    model = stage(informer, inform).inform(train.columns(limits))
    parts = []
    for first in range(0, len(test.z), _AT_ONCE):
        some = test.take(np.arange(first, min(first + _AT_ONCE, len(test.z))))
        answered = stage(estimator, estimate, model=model).estimate(some.columns(limits))
        parts.append(np.asarray(answered.data.pdf(grid)))
    return np.concatenate(parts)


def boosted(variant: str) -> Answer:
    """FlexZBoost in one of its variants."""

    def answer(train: Table, test: Table, grid: Array) -> Array:
        shape = {"zmax": float(grid[-1]), "points": len(grid)}
        return flexzboost(train, test, variant=VARIANTS[variant], **shape)

    return answer


def best_variant(train: Table, grid: Array) -> str:
    """The variant of FlexZBoost that does best on part of some of the training set."""
    some = np.random.default_rng(1).permutation(len(train.z))[:_TUNED_ON]
    return tune(train.take(some), zmax=float(grid[-1]), points=len(grid))


PEERS: dict[str, Answer] = {
    "FlexZBoost": boosted("default"),
    "GPz": gpz,
    "neighbours": neighbours,
    "PZFlow": pzflow,
}
"""By name."""
TUNED = "FlexZBoost tuned"


def recalibrated(peer: Answer, train: Table, test: Table, grid: Array, answered: Array) -> Array:
    """Cal-PIT on top of a peer's answers to the test set.

    Its own settings but for smaller batches and more patience: by 2048 at a time, a few hundred
    galaxies are one step an epoch, and it stops before it has learned anything.
    """
    from calpit import CalPIT, GridCDE

    order = np.random.default_rng(0).permutation(len(train.z))
    cut = round(0.8 * len(order))
    fitted, held = train.take(order[:cut]), train.take(order[cut:])
    limits = train.limits()

    def features(table: Table) -> Array:
        columns = table.columns(limits)
        values = np.stack([columns[f"mag_{band}"] for band in table.bands], axis=1)
        return np.concatenate([values, np.diff(values, axis=1)], axis=1)

    told = features(held)
    mean, deviation = told.mean(axis=0), told.std(axis=0) + 1e-6
    first = GridCDE(_normalised(peer(fitted, held, grid), grid), grid)
    fit = CalPIT(batch_size=128, patience=50).fit((told - mean) / deviation, held.z, first)
    after = fit.transform((features(test) - mean) / deviation, GridCDE(answered, grid))
    return np.asarray(after.pdf)


def _normalised(density: Array, grid: Array) -> Array:
    """Finite, not negative, and of integral one."""
    density = np.maximum(np.nan_to_num(density), 1e-12)
    return np.asarray(density / np.trapezoid(density, grid, axis=1)[:, None])


def main() -> None:
    """Train and answer; write densities and the time, or why there are none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peer", choices=[*PEERS, TUNED, "Cal-PIT"])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--zmax", type=float, required=True)
    parser.add_argument("--points", type=int, required=True)
    parser.add_argument("--under", choices=[*PEERS, TUNED], help="What Cal-PIT stands on.")
    parser.add_argument("--answered", type=Path, help="What --under wrote.")
    options = parser.parse_args()
    # FlexZBoost would start processes of its own, whose time nobody counts.
    os.environ["LOKY_MAX_CPU_COUNT"] = "1"
    train, test = read_table(options.train), read_table(options.test)
    grid = np.linspace(0.0, options.zmax, options.points)
    packages = ("pz-rail-base", "pz-rail-flexzboost", "pz-rail-pzflow", "pz-rail-gpz-v1",
                "pz-rail-sklearn", "calpit", "xgboost", "qp-prob")  # fmt: skip
    content: dict[str, Any] = {
        "versions": np.array([f"{one} {metadata.version(one)}" for one in packages])
    }
    began = time.process_time()
    try:
        if options.peer == "Cal-PIT":
            with np.load(options.answered) as file:
                first = file["pdf"].astype(np.float64)
                tuned = options.under == TUNED
                peer = boosted(str(file["variant"])) if tuned else PEERS[options.under]
            density = recalibrated(peer, train, test, grid, first)
        elif options.peer == TUNED:
            content["variant"] = best_variant(train, grid)
            density = boosted(content["variant"])(train, test, grid)
        else:
            density = PEERS[options.peer](train, test, grid)
        density = _normalised(density, grid)
        content |= {"pdf": density.astype(np.float32), "cpu": time.process_time() - began}
        print(f"{options.peer}: {content['cpu']:.0f} s CPU", flush=True)
        print("  " + describe(grid, density, test.z), flush=True)
    except Exception as error:
        # A peer that fails is a result.
        content["failed"] = f"{type(error).__name__}: {error}"
        print(f"{options.peer} failed: {content['failed']}", flush=True)
    temporary = options.output.with_name(f".{os.getpid()}.{options.output.name}")
    np.savez_compressed(temporary, **content)
    os.replace(temporary, options.output)


if __name__ == "__main__":
    main()
