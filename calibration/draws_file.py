"""Answers of any model in one NumPy archive: what its keys are, and what is wrong with it.

From `draws.npz` to the jobs of a report. Arrays share their galaxies, in one order:

| key | shape | what |
|---|---|---|
| `z_true` | (galaxy,) | true redshifts |
| `z_draws` | (draw, galaxy) | draws of the redshift; or, instead, |
| `z_pdf`, `z_grid` | (galaxy, grid), (grid,) | its density on an increasing grid |
| `spectrum_true` | (galaxy, quantity) | true spectra, or any vectors, in comparable units |
| `spectrum_draws` | (draw, galaxy, quantity) | draws of them |
| `rest_wavelength` | (galaxy, quantity) | Angstrom, where they are spectra (optional) |
| `feature_NAME_true` | (galaxy,) | a number made from the spectrum; NaN where it has none |
| `feature_NAME_draws` | (draw, galaxy) | draws of it |
| `condition_NAME` | (galaxy,) | what was observed: numbers (NaN is missing) or labels |
| `split` | (galaxy,) | "recalibrate" fits a repair, "report" is reported; without it all are |

Redshift or spectra or features are enough. Conditions must not be made from the truths.

Axes: draw, galaxy, quantity, grid.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probmmae.calibration.answers import Drawn, Gridded, Job, Scalar, Vectors

Arrays = dict[str, NDArray[Any]]

_PLAIN = (
    "z_true", "z_draws", "z_pdf", "z_grid", "spectrum_true", "spectrum_draws", "rest_wavelength",
    "split",
)  # fmt: skip


def read_draws(path: Path) -> tuple[Job, ...]:
    """The jobs that an archive holds answers on.

    Args:
        path: An .npz file with the keys above.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no archive; a key is unknown or lacks its partner; shapes disagree; a
            number is NaN or infinite where it may not be; too few galaxies or draws.
    """
    arrays = _load(path)
    unknown = [name for name in arrays if not _known(name)]
    if unknown:
        raise ValueError(
            f"Expected the keys {', '.join(_PLAIN)}, feature_NAME_true, feature_NAME_draws and "
            f"condition_NAME in {path.name}; got {', '.join(unknown)}. Rename them."
        )
    redshift, vectors, features = _redshift(arrays), _vectors(arrays), _features(arrays)
    if redshift is None and vectors is None and not features:
        raise ValueError(
            f"Expected z_true with z_draws or z_pdf, or spectrum_true with spectrum_draws, or "
            f"features, in {path.name}; got {', '.join(arrays) or 'nothing'}. Add draws and truth."
        )
    first = next(one for one in (redshift, vectors, *features) if one is not None)
    conditions = {
        name.removeprefix("condition_"): values
        for name, values in arrays.items()
        if name.startswith("condition_")
    }
    for_repair = _for_repair(arrays.get("split"), first.truth.shape[0])
    jobs = []
    if redshift is not None:
        jobs.append(Job("redshift", (redshift,), None, conditions, for_repair))
    if vectors is not None or features:
        jobs.append(Job("spectra", features, vectors, conditions, for_repair))
    return tuple(jobs)


def _load(path: Path) -> Arrays:
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("a single array")
        with archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Expected an archive of plain arrays (numpy.savez) in {path}; got: {error}. Save "
            "numbers and strings, no objects."
        ) from error


def _known(name: str) -> bool:
    feature = name.startswith("feature_") and name.endswith(("_true", "_draws"))
    return name in _PLAIN or feature or name.startswith("condition_")


def _redshift(arrays: Arrays) -> Scalar | None:
    if not {"z_true", "z_draws", "z_pdf", "z_grid"} & set(arrays):
        return None
    if ("z_draws" in arrays) == ("z_pdf" in arrays):
        raise ValueError(
            "Expected z_draws or z_pdf; got "
            f"{'both' if 'z_draws' in arrays else 'neither'}. Give one of them with z_true."
        )
    truth = _finite(arrays, "z_true")
    if "z_draws" in arrays:
        return Drawn("redshift", _finite(arrays, "z_draws"), truth)
    grid, pdf = _finite(arrays, "z_grid"), _finite(arrays, "z_pdf")
    return Gridded.from_pdf("redshift", pdf, grid=grid, truth=truth)


def _vectors(arrays: Arrays) -> Vectors | None:
    if not {"spectrum_true", "spectrum_draws", "rest_wavelength"} & set(arrays):
        return None
    rest = _finite(arrays, "rest_wavelength") if "rest_wavelength" in arrays else None
    draws = _finite(arrays, "spectrum_draws", keep=True)
    return Vectors("spectrum", draws, _finite(arrays, "spectrum_true"), rest)


def _features(arrays: Arrays) -> tuple[Drawn, ...]:
    names = dict.fromkeys(
        name.removeprefix("feature_").removesuffix("_true").removesuffix("_draws")
        for name in arrays
        if name.startswith("feature_")
    )
    return tuple(
        Drawn(
            name,
            _numbers(arrays, f"feature_{name}_draws"),
            _numbers(arrays, f"feature_{name}_true"),
        )
        for name in names
    )


def _for_repair(split: NDArray[Any] | None, galaxies: int) -> NDArray[np.bool_]:
    if split is None:
        return np.zeros(galaxies, dtype=np.bool_)
    labels = split.astype(str)
    others = sorted(set(labels.ravel().tolist()) - {"recalibrate", "report"})
    if labels.ndim != 1 or others:
        raise ValueError(
            f'Expected split as "recalibrate" or "report" for each galaxy; got shape '
            f"{labels.shape} with {', '.join(others[:3]) or 'these'}. Leave other galaxies out."
        )
    return np.asarray(labels == "recalibrate")


def _numbers(arrays: Arrays, name: str, *, keep: bool = False) -> NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"Expected the key {name}; got {', '.join(arrays)}. Add it.")
    values = arrays[name]
    if values.dtype.kind not in "fiu":
        raise ValueError(f"Expected numbers in {name}; got {values.dtype}. Save floats.")
    return values if keep and values.dtype.kind == "f" else values.astype(np.float64)


def _finite(arrays: Arrays, name: str, *, keep: bool = False) -> NDArray[Any]:
    values = _numbers(arrays, name, keep=keep)
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise ValueError(
            f"Expected finite numbers in {name}; got {bad} of {values.size} NaN or infinite. "
            "Leave these galaxies out of every array."
        )
    return values
