"""Photometric tables: CSV, FITS, Parquet and HDF5, one galaxy a row, read in pieces.

A `ColumnMap` says which column is what; without one `guess` takes it from names in common use.
Magnitudes are AB. A band is missing where its value or its error is not finite or a missing code
(-99, 99, ...), or where the error is not positive. A magnitude with a large error is a faint flux
and is read as one. In HDF5 the table is the first group whose datasets are columns of one length,
as RAIL writes it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from astropy import units as u

from probmmae.bands import EFFECTIVE_WAVELENGTH, effective_wavelength
from probmmae.formats import hdf5_columns
from probmmae.formats.opening import fits_file, is_fits, names_of, native, shortened
from probmmae.galaxy import Galaxy, Photometry, Scalar, sky_identity

DESCRIPTION = "photometric table (CSV, FITS, Parquet or HDF5, with a column map)"

_CSV_ENDINGS = (".csv", ".csv.gz", ".csv.bz2", ".csv.xz")
_PARQUET_ENDINGS = (".parquet", ".parq", ".pq")
#: Errors of this size, or values of this size in magnitudes, are codes in every catalogue.
_CODE = 90.0
#: Value and error, by preference: a bare letter comes last, as `z` may be the redshift.
_MAGNITUDE_PAIRS = (
    ("mag_{b}", "magerr_{b}"),
    ("mag_{b}", "mag_err_{b}"),
    ("mag_{b}", "err_{b}"),
    ("mag_auto_{b}", "magerr_auto_{b}"),
    ("mag_{b}_lsst", "mag_err_{b}_lsst"),
    ("{b}_cmodel_mag", "{b}_cmodel_magerr"),
    ("{b}_mag", "{b}_magerr"),
    ("{b}_mag", "{b}_mag_err"),
    ("{b}mag", "{b}magerr"),
    ("{b}mag", "e_{b}mag"),
    ("{b}", "{b}err"),
    ("{b}", "{b}_err"),
    ("{b}", "err_{b}"),
    ("{b}", "e_{b}"),
    ("{b}", "e{b}"),
)
_REDSHIFT_KEYS = (
    "redshift",
    "zspec",
    "z_spec",
    "specz",
    "spec_z",
    "zs",
    "zbest",
    "z_best",
    "zpec",
)
_ID_KEYS = ("id", "object_id", "objid", "objno", "targetid", "specobjid", "id_zcosmos")
_RA_KEYS, _DEC_KEYS = ("ra", "alpha", "ra_deg"), ("dec", "delta", "dec_deg")


@dataclass(frozen=True)
class ColumnMap:
    """Which column of a table is what."""

    bands: Mapping[str, tuple[str, str]]
    """Name of the band -> (column of the value, column of its standard error)."""
    kind: str = "magnitude"
    """`magnitude` (AB), or `flux` in `flux_unit`."""
    flux_unit: str = "nmgy"
    """Any flux density, such as `uJy`; for `kind` flux."""
    redshift: str | None = None
    redshift_error: str | None = None
    id: str | None = None
    """None names a galaxy by its position or, without one, by the file and the row."""
    ra: str | None = None
    """Column in degrees."""
    dec: str | None = None
    wavelength: Mapping[str, float] = field(default_factory=dict)
    """Effective wavelengths (Angstrom) of bands that the package does not know."""
    missing: tuple[float, ...] = (-99.0, -99.9, -999.0, -9999.0, 99.0, 99.9, 99.99, 999.0)
    """Values that stand for no measurement."""
    error_floor: float = 0.0
    """Relative error of the flux added in quadrature, such as 0.02."""
    largest_error: float = _CODE
    """A magnitude whose error is as large is missing; catalogues that never write codes into
    errors, but fluxes near zero as magnitudes, need more."""

    def __post_init__(self) -> None:
        """Check.

        Raises:
            ValueError: no bands, an unknown kind, band or unit.
        """
        if not self.bands:
            raise ValueError("Expected at least one band in a ColumnMap; got none. Name one.")
        if self.kind not in ("magnitude", "flux"):
            raise ValueError(
                f"Expected kind 'magnitude' or 'flux'; got {self.kind!r}. Choose one."
            )
        for band in self.bands:
            if band not in self.wavelength:
                effective_wavelength(band)
        if self.nanomaggies <= 0:
            raise ValueError(f"Expected a flux unit; got {self.flux_unit!r}. Correct it.")

    @property
    def nanomaggies(self) -> float:
        """Nanomaggies of one `flux_unit`."""
        unit = u.Unit(self.flux_unit)
        if unit.is_equivalent(u.maggy):
            return float(unit.to(u.nmgy))
        return float(unit.to(u.Jy)) / 3631e-9

    @property
    def columns(self) -> list[str]:
        """Every column that is read."""
        single = [self.redshift, self.redshift_error, self.id, self.ra, self.dec]
        pairs = [name for pair in self.bands.values() for name in pair]
        return list(dict.fromkeys([*(name for name in single if name is not None), *pairs]))


def recognise(path: Path) -> bool:
    """Whether the name ends as a table's does and, for FITS and HDF5, whether it holds one."""
    name = path.name.lower()
    if name.endswith(_CSV_ENDINGS + _PARQUET_ENDINGS):
        return True
    if hdf5_columns.is_hdf5(path):
        return bool(hdf5_columns.names(path))
    if not is_fits(path):
        return False
    with fits_file(path) as opened:
        return any(names_of(each) for each in opened)


def read(
    path: Path,
    *,
    columns: ColumnMap | Mapping[str, Any] | None = None,
    survey: str | None = None,
    chunk: int = 4096,
) -> Iterator[Galaxy]:
    """The rows of a table as galaxies, in order; a row without any measurement is kept.

    Args:
        path: CSV (also compressed), FITS, Parquet or HDF5.
        columns: the column map, or its fields as a mapping (from TOML); None guesses it.
        survey: whose bands they are, for the guess, such as `sdss`.
        chunk: rows read at once.

    Yields:
        Galaxies with photometry and, where known, redshift and position.

    Raises:
        ValueError: a damaged file, missing columns, or columns that cannot be guessed.
    """
    names = column_names(path)
    if columns is None:
        chosen = guess(names, survey=survey, source=str(path))
    else:
        chosen = columns if isinstance(columns, ColumnMap) else ColumnMap(**columns)
    absent = [name for name in chosen.columns if name not in names]
    if absent:
        raise ValueError(
            f"Expected the columns {', '.join(absent)} in {path}; got {shortened(names)}. "
            "Correct the column map."
        )
    start = 0
    for frame in _frames(path, chosen.columns, chunk):
        yield from _galaxies(frame, chosen, path.name.split(".")[0], start)
        start += len(frame)


def column_names(path: Path) -> list[str]:
    """The columns of a table, in order."""
    if is_fits(path):
        with fits_file(path) as opened:
            return list(names_of(_table(opened, path)).values())
    if hdf5_columns.is_hdf5(path):
        return hdf5_columns.names(path)
    try:
        if path.name.lower().endswith(_PARQUET_ENDINGS):
            return list(pq.read_schema(path).names)
        return [str(name) for name in pd.read_csv(path, nrows=0).columns]
    except (pa.ArrowInvalid, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise _damaged(path, error) from error
    except (UnicodeDecodeError, EOFError, OSError) as error:
        raise _damaged(path, error) from error


def guess(names: list[str], *, survey: str | None = None, source: str = "the table") -> ColumnMap:
    """A column map from column names in common use.

    Letters (u, g, r, i, z, y) say nothing of the survey, which has to be named.

    Raises:
        ValueError: no survey, or no pair of a band and its error is found.
    """
    lower = {name.lower(): name for name in names}
    own = "" if survey is None else f"{survey.strip().lower()}-"
    bands: dict[str, tuple[str, str]] = {}
    for band in EFFECTIVE_WAVELENGTH if survey is not None else ():
        letter = band.removeprefix(own)
        for value, error in _MAGNITUDE_PAIRS if band.startswith(own) else ():
            pair = value.format(b=letter), error.format(b=letter)
            if band not in bands and set(pair) <= set(lower):
                bands[band] = (lower[pair[0]], lower[pair[1]])
    if not bands:
        asked = "survey='sdss'" if survey is None else f"not {survey!r}"
        raise ValueError(
            f"Expected AB magnitudes with errors under common names in {source}; got columns "
            f"{shortened(names)}. Name the survey of the bands ({asked}), or give columns, a "
            "ColumnMap; fluxes always need one, for their unit."
        )

    def first(keys: tuple[str, ...]) -> str | None:
        return next((lower[key] for key in keys if key in lower), None)

    used = {name.lower() for pair in bands.values() for name in pair}
    redshift = first(_REDSHIFT_KEYS) or (lower["z"] if "z" in lower and "z" not in used else None)
    return ColumnMap(
        bands=bands,
        redshift=redshift,
        id=first(_ID_KEYS),
        ra=first(_RA_KEYS),
        dec=first(_DEC_KEYS),
    )


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"Expected a whole table; got {path}, which is damaged or of another kind ({error}). "
        "Fetch it anew."
    )


def _table(opened: Any, path: Path) -> Any:
    for each in opened:
        if names_of(each):
            return each
    raise ValueError(f"Expected a table in {path}; got none. Check the kind of file.")


def _frames(path: Path, columns: list[str], chunk: int) -> Iterator[pd.DataFrame]:
    """Pieces of at most `chunk` rows with the columns that are needed."""
    if is_fits(path):
        with fits_file(path) as opened:
            data = _table(opened, path).data
            for start in range(0, len(data), chunk):
                piece = data[start : start + chunk]
                yield pd.DataFrame({name: native(piece[name]) for name in columns})
        return
    if hdf5_columns.is_hdf5(path):
        yield from hdf5_columns.frames(path, columns, chunk)
        return
    try:
        if path.name.lower().endswith(_PARQUET_ENDINGS):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(chunk, columns=columns):
                    yield batch.to_pandas()
        else:
            with pd.read_csv(path, usecols=columns, chunksize=chunk) as reader:
                yield from reader
    except (
        pa.ArrowInvalid,
        pd.errors.ParserError,
        EOFError,
        OSError,
        UnicodeDecodeError,
    ) as error:
        raise _damaged(path, error) from error


def _galaxies(frame: pd.DataFrame, chosen: ColumnMap, stem: str, start: int) -> Iterator[Galaxy]:
    measured = {
        band: _fluxes(frame[value], frame[error], chosen)
        for band, (value, error) in chosen.bands.items()
    }

    def numbers(name: str | None) -> Any:
        empty = np.full(len(frame), np.nan)
        return empty if name is None else _numbers(frame[name])

    redshift, redshift_error = numbers(chosen.redshift), numbers(chosen.redshift_error)
    ra, dec = numbers(chosen.ra), numbers(chosen.dec)
    # -1 and below stand for unknown; so does what a code says.
    known = np.isfinite(redshift) & ~np.isin(redshift, chosen.missing) & (redshift > -1.0)
    placed = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90.0)
    for row in range(len(frame)):
        error = redshift_error[row]
        scalar = (
            Scalar(float(redshift[row]), float(error) if error > 0 else 0.0)
            if known[row]
            else None
        )
        place = (ra[row] * u.deg, dec[row] * u.deg) if placed[row] else (None, None)
        if chosen.id is not None:
            name = str(frame[chosen.id].iloc[row])
        else:
            name = sky_identity(*place) if placed[row] else f"{stem}-{start + row}"
        yield Galaxy(
            name,
            *place,
            photometry=tuple(
                Photometry.in_batch_units(
                    band,
                    float(flux[row]),
                    ivar=float(ivar[row]),
                    wavelength=chosen.wavelength.get(band),
                )
                for band, (flux, ivar) in measured.items()
                if ivar[row] > 0
            ),
            scalars={} if scalar is None else {"redshift": scalar},
        )


def _numbers(column: pd.Series) -> Any:
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64)


def _fluxes(value: pd.Series, error: pd.Series, chosen: ColumnMap) -> tuple[Any, Any]:
    """Nanomaggies and ivar; 0 and 0 where missing."""
    x, sigma = _numbers(value), _numbers(error)
    good = np.isfinite(x) & np.isfinite(sigma) & (sigma > 0)
    good &= ~np.isin(x, chosen.missing) & ~np.isin(sigma, chosen.missing)
    if chosen.kind == "magnitude":
        good &= (np.abs(x) < _CODE) & (sigma < chosen.largest_error)
        flux = 10.0 ** (-0.4 * (np.where(good, x, 22.5) - 22.5))
        width = flux * 0.4 * np.log(10.0) * np.where(good, sigma, 1.0)
    else:
        flux = np.where(good, x, 0.0) * chosen.nanomaggies
        width = np.where(good, sigma, 1.0) * chosen.nanomaggies
    width = np.hypot(width, chosen.error_floor * flux)
    return np.where(good, flux, 0.0), np.where(good, width**-2.0, 0.0)
