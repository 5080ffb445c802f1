"""From files to galaxies: one module a format, each recognised from what the file holds.

A format is a module with `DESCRIPTION`, `recognise(path)` and `read(path, **options)`; adding one
is adding one module and its name to `FORMATS`.
"""

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

from probmmae.formats import cutouts, desi, galaxiesml, manga, manga_maps, sdss, tables
from probmmae.formats.opening import checked_path
from probmmae.galaxy import Galaxy

__all__ = ["FORMATS", "read", "recognise", "stream"]

#: By name, in the order in which they are asked; tables last, since other formats hold tables too.
FORMATS: dict[str, ModuleType] = {
    "sdss": sdss,
    "desi": desi,
    "galaxiesml": galaxiesml,
    "manga": manga,
    "manga_maps": manga_maps,
    "cutouts": cutouts,
    "tables": tables,
}


def recognise(path: str | PathLike[str]) -> str:
    """The name of the format of a file.

    Raises:
        ValueError: no format knows it; the message lists those there are.
        FileNotFoundError, IsADirectoryError: there is no such file.
    """
    return _recognised(checked_path(path))


def _recognised(checked: Path) -> str:
    for name, module in FORMATS.items():
        if module.recognise(checked):
            return name
    known = "; ".join(module.DESCRIPTION for module in FORMATS.values())
    raise ValueError(
        f"Expected a file of a known format ({known}); got {checked}. "
        "Convert it, or build a probmmae.Galaxy from its arrays."
    )


def stream(
    path: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    format: str | None = None,
    **options: Any,
) -> Iterator[Galaxy]:
    """The galaxies of one file or several, one at a time, in bounded memory.

    Args:
        path: a file, or several. Several cutouts are bands of one galaxy.
        format: one of `FORMATS`; None recognises it from the file.
        options: of the format's own `read`.

    Yields:
        Galaxies, in the order of the file.

    Raises:
        ValueError: an unknown format, a damaged file; and what the format's `read` raises.
        TypeError: an option that the format does not have.
    """
    paths = [path] if isinstance(path, str | PathLike) else list(path)
    if not paths:
        raise ValueError("Expected at least one file; got none. Name a file.")
    if format is not None and format not in FORMATS:
        raise ValueError(
            f"Expected a format among {', '.join(FORMATS)}; got {format!r}. "
            "Leave it out to have it recognised."
        )
    checked = [checked_path(each) for each in paths]
    formats = [format or _recognised(each) for each in checked]
    if len(checked) > 1 and set(formats) == {"cutouts"}:
        yield cutouts.read_bands(checked, **options)
        return
    for each, name in zip(checked, formats, strict=True):
        yield from FORMATS[name].read(each, **options)


def read(
    path: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    format: str | None = None,
    **options: Any,
) -> list[Galaxy]:
    """The galaxies of one file or several, all at once; `stream` gives them one at a time.

    Takes and raises what `stream` does.
    """
    return list(stream(path, format=format, **options))
