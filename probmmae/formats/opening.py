"""Files as every reader opens them: what is broken is said in one way, whatever library noticed.

`fits_file` is a context in which a truncated, empty or damaged FITS file becomes a ValueError that
names the file; `hdu` and `column` find the parts of it, in whatever case they are written.
"""

import gzip
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

_FITS_ENDINGS = (".fits", ".fit", ".fits.gz", ".fit.gz", ".fits.fz", ".fts")


def checked_path(path: Any) -> Path:
    """The path of an existing, non-empty file; whole, where it is compressed.

    A compressed FITS file that is cut off looks to its reader like one with fewer HDUs.

    Raises:
        FileNotFoundError: nothing is there.
        IsADirectoryError: it is a folder.
        ValueError: it is empty, or compressed and cut off.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"Expected a file; got the folder {path}. Name its files, or open a folder of shards "
            "with probmmae.dataset.Dataset."
        )
    if not path.exists():
        raise FileNotFoundError(
            f"Expected a file; got {path}, which is not there. Check the path."
        )
    if path.stat().st_size == 0:
        raise ValueError(
            f"Expected a file with content; got {path}, which is empty. Fetch it anew."
        )
    if path.suffix == ".gz":
        try:
            with gzip.open(path) as stream:
                while stream.read(1 << 22):
                    pass
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"Expected a whole compressed file; got {path}, which is damaged or cut off "
                f"({error}). Fetch it anew."
            ) from error
    return path


def is_fits(path: Path) -> bool:
    """Whether the name ends as the name of a FITS file does."""
    return path.name.lower().endswith(_FITS_ENDINGS)


@contextmanager
def fits_file(path: Path) -> Iterator[fits.HDUList]:
    """An open FITS file; closed at the end of the context.

    Raises:
        ValueError: the file, or what is read of it within the context, is damaged or cut off.
    """
    try:
        # Headers of real surveys break the standard in harmless ways; a short file does not.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", AstropyWarning)
            opened = fits.open(path, lazy_load_hdus=False)
    except (OSError, EOFError, zlib.error, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    short = [str(each.message) for each in caught if "truncated" in str(each.message)]
    if short:
        opened.close()
        raise _damaged(path, short[0])
    try:
        yield opened
    except (OSError, EOFError, zlib.error, TypeError) as error:
        # Compressed files are found to be cut off only when their pixels are read.
        raise _damaged(path, error) from error
    finally:
        opened.close()


def _damaged(path: Path, error: object) -> ValueError:
    return ValueError(
        f"Expected a whole FITS file; got {path}, which is damaged or cut off ({error}). "
        "Fetch it anew."
    )


def hdu(opened: fits.HDUList, name: str) -> Any:
    """The HDU called `name`, in any case.

    Raises:
        ValueError: there is none.
    """
    for candidate in opened:
        if candidate.name.lower() == name.lower():
            return candidate
    there = ", ".join(candidate.name or "(unnamed)" for candidate in opened)
    raise ValueError(
        f"Expected an HDU {name} in {opened.filename()}; got {there}. Check the kind of file."
    )


def names_of(table: Any) -> dict[str, str]:
    """Lower-case column names of a table HDU, each with the name as written."""
    columns = getattr(table, "columns", None)
    return {} if columns is None else {name.lower(): name for name in columns.names}


def column(table: Any, *names: str) -> np.ndarray:
    """The first of the columns `names` that the table HDU has, in native byte order.

    Raises:
        ValueError: it has none of them.
    """
    there = names_of(table)
    for name in names:
        if name.lower() in there:
            return native(table.data[there[name.lower()]])
    raise ValueError(
        f"Expected a column {' or '.join(names)} in HDU {table.name or 1}; got "
        f"{shortened(list(there.values()))}. Check the kind of file."
    )


def native(array: Any) -> np.ndarray:
    """In the byte order of this machine, which torch and pandas insist on; strings as they are."""
    array = np.asarray(array)
    return array if array.dtype.kind in "SUO" else array.astype(array.dtype.newbyteorder("="))


def shortened(names: Sequence[str], *, most: int = 12) -> str:
    """A list of names that fits into a message."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
