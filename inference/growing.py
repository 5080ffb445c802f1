"""Files that grow with the catalogue: rows are appended, and the file appears when it is whole.

A file is written under a temporary name in the same folder. It takes its own name at the end of
the `with` block; after an error, or where no row was written, nothing is left.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np

from probmmae.inference.posterior import FLUX_ATTRIBUTES, WAVELENGTH_ATTRIBUTES, Posterior


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes `path` at the end of the block.

    Raises:
        FileNotFoundError: The folder of `path` is not there.
        IsADirectoryError: `path` is a folder.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"Expected an existing folder to write into; got {path.parent}. Make it first."
        )
    if path.is_dir():
        raise IsADirectoryError(f"Expected a file to write; got the folder {path}. Name a file.")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        if partial.exists():
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def qp_file(path: Path) -> Iterator[Callable[[Any], None]]:
    """Appends `qp` ensembles of one kind and grid to an HDF5 file that `qp.read` reads.

    Densities are stored in single precision, compressed.
    """
    with whole_file(path) as partial:
        file: Any = None

        def append(ensemble: Any) -> None:
            nonlocal file
            tables = ensemble.build_tables()
            if file is None:
                file = h5py.File(partial, "w")
                for name, value in tables["meta"].items():
                    file[f"meta/{name}"] = value
            for group in ("data", "ancil"):
                for name, value in tables[group].items():
                    _append_rows(file, f"{group}/{name}", np.asarray(value))

        try:
            yield append
        finally:
            if file is not None:
                file.close()


def _append_rows(file: Any, name: str, rows: np.ndarray) -> None:
    text = rows.dtype.kind in "SUO"
    kind = h5py.string_dtype() if text else rows.dtype
    if name == "data/yvals":
        kind = np.dtype(np.float32)
    if name not in file:
        file.create_dataset(
            name,
            shape=(0, *rows.shape[1:]),
            maxshape=(None, *rows.shape[1:]),
            chunks=(256, *rows.shape[1:]),
            dtype=kind,
            compression=None if text else "gzip",
        )
    table = file[name]
    have = table.shape[0]
    table.resize(have + rows.shape[0], axis=0)
    table[have:] = rows.astype(object) if text else rows


@contextmanager
def arviz_file(
    path: Path, apertures: Sequence[Any], attributes: Mapping[str, str]
) -> Iterator[Callable[[Posterior, Sequence[Any]], None]]:
    """Appends posteriors and their `SpectrumDraws` (one an aperture) to a netCDF file for ArviZ.

    Groups and dimensions: `posterior` holds redshift (chain, draw, galaxy), `posterior_predictive`
    flux (chain, draw, galaxy, aperture, wavelength), `constant_data` the apertures and the known
    redshifts, and what repair did to each galaxy.

    Args:
        path: Where to write.
        apertures: `Aperture`s, the same for all galaxies.
        attributes: Of the file.
    """
    with whole_file(path) as partial:
        file: Any = None

        def append(posterior: Posterior, spectra: Sequence[Any]) -> None:
            nonlocal file
            if file is None:
                file = h5netcdf.File(partial, "w")
                _lay_out(file, apertures, spectra[0], attributes)
            row = file.dimensions["galaxy"].size
            file.resize_dimension("galaxy", row + 1)
            known = posterior.redshift.known
            for group in file.groups.values():
                group.variables["galaxy"][row] = posterior.galaxy.id
            file["posterior/redshift"][0, :, row] = spectra[0].z
            file["constant_data/redshift_given"][row] = np.nan if known is None else known
            for index, spectrum in enumerate(spectra):
                file["constant_data/repair"][row, index] = spectrum.repair
                file["posterior_predictive/flux"][0, :, row, index] = spectrum.flux.value

        try:
            yield append
        finally:
            if file is not None:
                file.close()


def _lay_out(
    file: Any, apertures: Sequence[Any], spectrum: Any, attributes: Mapping[str, str]
) -> None:
    draws, pixels = spectrum.flux.shape
    file.dimensions = {
        "chain": 1,
        "draw": draws,
        "galaxy": None,
        "aperture": len(apertures),
        "wavelength": pixels,
    }
    file.attrs.update({"inference_library": "probmmae", **attributes})
    sampled = {"chain": np.array([0]), "draw": np.arange(draws)}
    place = {"aperture": np.arange(len(apertures))}
    grid = {"wavelength": spectrum.wavelength.value}
    for name, coordinates in {
        "posterior": sampled,
        "posterior_predictive": {**sampled, **place, **grid},
        "constant_data": place,
    }.items():
        group = file.create_group(name)
        group.create_variable("galaxy", ("galaxy",), dtype=h5py.string_dtype(), chunks=(1024,))
        for axis, values in coordinates.items():
            group.create_variable(axis, (axis,), data=values)
    file["posterior_predictive/wavelength"].attrs.update(WAVELENGTH_ATTRIBUTES)

    redshift = file["posterior"].create_variable(
        "redshift", ("chain", "draw", "galaxy"), dtype="f4", chunks=(1, draws, 64)
    )
    redshift.attrs["long_name"] = "redshift"
    flux = file["posterior_predictive"].create_variable(
        "flux",
        ("chain", "draw", "galaxy", "aperture", "wavelength"),
        dtype="f4",
        chunks=(1, draws, 1, 1, pixels),
    )
    flux.attrs.update(FLUX_ATTRIBUTES)
    constant = file["constant_data"]
    given = constant.create_variable("redshift_given", ("galaxy",), dtype="f8", chunks=(1024,))
    given.attrs["long_name"] = "redshift taken as known; NaN where it was not"
    repair = constant.create_variable(
        "repair", ("galaxy", "aperture"), dtype=h5py.string_dtype(), chunks=(1024, len(apertures))
    )
    repair.attrs["long_name"] = "recalibration of redshift and spectra"
    for name in ("dx", "dy", "diameter", "seeing"):
        values = np.array([getattr(one, name) for one in apertures])
        constant.create_variable(name, ("aperture",), data=values).attrs["units"] = "arcsec"
