"""Columns of a table kept in HDF5: one dataset a column, all in one group, as RAIL writes them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pandas as pd


def is_hdf5(path: Path) -> bool:
    """Whether the file is one of HDF5, by its content."""
    return bool(h5py.is_hdf5(path))


def names(path: Path) -> list[str]:
    """The columns, in order; none where the file holds no table.

    Raises:
        ValueError: the file is damaged.
    """
    with _opened(path) as file:
        return list(_columns(file))


def frames(path: Path, columns: list[str], chunk: int) -> Iterator[pd.DataFrame]:
    """Pieces of at most `chunk` rows with `columns`.

    Raises:
        ValueError: the file is damaged.
    """
    with _opened(path) as file:
        there = _columns(file)
        rows = len(next(iter(there.values())))
        for start in range(0, rows, chunk):
            yield pd.DataFrame({name: there[name][start : start + chunk] for name in columns})


def _opened(path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"Expected a whole HDF5 file; got {path}, which is damaged or of another kind "
            f"({error}). Fetch it anew."
        ) from error


def _columns(file: Any) -> dict[str, Any]:
    """The datasets of the first group, the root included, that are columns of one length."""
    groups = [file, *(each for each in file.values() if isinstance(each, h5py.Group))]
    for group in groups:
        inside = {name: each for name, each in group.items() if isinstance(each, h5py.Dataset)}
        shapes = {each.shape for each in inside.values()}
        if len(shapes) == 1 and len(next(iter(shapes))) == 1:
            return inside
    return {}
