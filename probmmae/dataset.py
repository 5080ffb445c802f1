"""Galaxies on disk: Parquet shards, one row a galaxy with nested columns, and the split inside.

Writing and reading hold one group of rows in memory, whatever the size of the whole. A galaxy's
part of the split follows from its name alone: it is the same in every dataset it occurs in.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy import units as u

from probmmae.galaxy import Aperture, BandImage, Galaxy, Photometry, Scalar, Spectrum

Split = Literal["train", "tune", "recalibrate", "report"]

#: Upper end of each part, as a fraction of the hash.
_ENDS: Final[tuple[tuple[Split, float], ...]] = (
    ("train", 0.80),
    ("tune", 0.88),
    ("recalibrate", 0.94),
    ("report", 1.0),
)
_MANIFEST = "dataset.json"
_ROWS_PER_GROUP = 64

_NUMBERS = pa.list_(pa.float32())
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        (
            "images",
            pa.list_(
                pa.struct(
                    {
                        "band": pa.string(),
                        "height": pa.int32(),
                        "flux": _NUMBERS,
                        "ivar": _NUMBERS,
                        "pixel_scale": pa.float64(),
                        "psf_fwhm": pa.float64(),
                        "wavelength": pa.float64(),
                        "dx": pa.float64(),
                        "dy": pa.float64(),
                    }
                )
            ),
        ),
        (
            "photometry",
            pa.list_(
                pa.struct(
                    {
                        "band": pa.string(),
                        "flux": pa.float64(),
                        "ivar": pa.float64(),
                        "wavelength": pa.float64(),
                    }
                )
            ),
        ),
        (
            "spectra",
            pa.list_(
                pa.struct(
                    {
                        "name": pa.string(),
                        "wavelength": pa.list_(pa.float64()),
                        "flux": _NUMBERS,
                        "ivar": _NUMBERS,
                        "sigma": _NUMBERS,
                        "dx": pa.float64(),
                        "dy": pa.float64(),
                        "diameter": pa.float64(),
                        "seeing": pa.float64(),
                    }
                )
            ),
        ),
        (
            "scalars",
            pa.list_(
                pa.struct({"name": pa.string(), "value": pa.float64(), "error": pa.float64()})
            ),
        ),
        ("labels", pa.list_(pa.struct({"name": pa.string(), "value": pa.string()}))),
    ],
    metadata={
        "units": "nanomaggies; 1e-17 erg/s/cm2/Angstrom; Angstrom (vacuum); arcsec; degrees; "
        "ivar = 0 is missing"
    },
)


def split_of(galaxy_id: str) -> Split:
    """The part that a galaxy belongs to: 80 % train, 8 % tune, 6 % recalibrate, 6 % report.

    Example:
        >>> split_of("39633345008634465")
        'train'
    """
    fraction = hash_fraction(galaxy_id)
    return next(part for part, end in _ENDS if fraction < end or end == 1.0)


def hash_fraction(galaxy_id: str) -> float:
    """A number from 0 to 1 that follows from the name alone, uniform over names."""
    digest = hashlib.sha256(galaxy_id.encode()).digest()
    return int.from_bytes(digest[:8]) / 2.0**64


def write_shards(
    galaxies: Iterable[Galaxy], folder: str | os.PathLike[str], *, rows_per_shard: int = 4096
) -> "Dataset":
    """Write a dataset, one shard after the other, in bounded memory.

    A shard appears under its name when it is whole, and the manifest when all of them are.

    Args:
        galaxies: consumed once.
        folder: made where it is not there; must hold no dataset.
        rows_per_shard: galaxies in a file.

    Returns:
        The dataset.

    Raises:
        ValueError: the folder holds a dataset, no galaxies, or rows_per_shard < 1.
    """
    folder = Path(folder)
    if rows_per_shard < 1:
        raise ValueError(
            f"Expected at least 1 row per shard; got {rows_per_shard}. Correct the argument."
        )
    if folder.exists() and (list(folder.glob("*.parquet")) or (folder / _MANIFEST).exists()):
        raise ValueError(
            f"Expected a folder without a dataset; got {folder}, which holds one. "
            "Name another folder, or remove it first."
        )
    folder.mkdir(parents=True, exist_ok=True)
    source = iter(galaxies)
    shards: list[dict[str, Any]] = []
    while (first := next(source, None)) is not None:
        name = f"shard-{len(shards):05d}.parquet"
        shards.append({"name": name, **_write_shard(first, source, folder / name, rows_per_shard)})
    if not shards:
        raise ValueError("Expected at least one galaxy to write; got none. Check the source.")
    partial = folder / f"{_MANIFEST}.tmp"
    partial.write_text(json.dumps({"shards": shards}, indent=1))
    partial.replace(folder / _MANIFEST)
    return Dataset(folder)


class Dataset:
    """A folder of shards; iterating over it gives its galaxies in order.

    Args:
        folder: what `write_shards` wrote.

    Raises:
        ValueError: the folder holds no whole dataset, or a shard is missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        manifest = self.folder / _MANIFEST
        if not manifest.is_file():
            raise ValueError(
                f"Expected a dataset ({_MANIFEST} and shards) in {self.folder}; got none, or one "
                "whose writing was cut short. Write it with probmmae.dataset.write_shards."
            )
        self._shards: list[dict[str, Any]] = json.loads(manifest.read_text())["shards"]
        absent = [s["name"] for s in self._shards if not (self.folder / s["name"]).is_file()]
        if absent:
            raise ValueError(
                f"Expected the shard {absent[0]} in {self.folder}; got {len(absent)} missing. "
                "Copy the whole folder."
            )

    def __len__(self) -> int:
        return self.count()

    def __iter__(self) -> Iterator[Galaxy]:
        return self.galaxies()

    def count(self, split: Split | None = None) -> int:
        """Galaxies in a part of the split, or in all of it; reads no shard."""
        parts = get_args(Split) if split is None else (_checked_split(split),)
        return sum(shard["rows"].get(part, 0) for shard in self._shards for part in parts)

    def galaxies(
        self,
        split: Split | None = None,
        *,
        seed: int | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Galaxy]:
        """Stream the galaxies, a group of rows in memory.

        Args:
            split: one part; None is all.
            seed: shuffles the shards, the groups in each and the rows in each group; None keeps
                the order. Give every pass over the data its own.
            part: (index, number of parts): every number-th group, for several readers.

        Yields:
            Galaxies.

        Raises:
            ValueError: an unknown split or part, or a damaged shard.
        """
        if split is not None:
            _checked_split(split)
        if not 0 <= part[0] < part[1]:
            raise ValueError(f"Expected part as (index, number); got {part}. Count from 0.")
        rng = None if seed is None else np.random.default_rng(seed)
        for group in self._groups(rng)[part[0] :: part[1]]:
            yield from self._read_group(*group, split=split, rng=rng)

    def _groups(self, rng: np.random.Generator | None) -> list[tuple[str, int]]:
        shards = list(self._shards)
        if rng is not None:
            rng.shuffle(shards)
        groups: list[tuple[str, int]] = []
        for shard in shards:
            inside = [(shard["name"], group) for group in range(shard["groups"])]
            if rng is not None:
                rng.shuffle(inside)
            groups += inside
        return groups

    def _read_group(
        self, name: str, group: int, *, split: Split | None, rng: np.random.Generator | None
    ) -> Iterator[Galaxy]:
        try:
            with pq.ParquetFile(self.folder / name) as file:
                table = file.read_row_group(group)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(
                f"Expected a whole shard; got {self.folder / name}, which is damaged ({error}). "
                "Copy or write the dataset anew."
            ) from error
        parts = table["split"].to_pylist()
        rows = [row for row, part in enumerate(parts) if split is None or part == split]
        if rng is not None:
            rng.shuffle(rows)
        (batch,) = table.combine_chunks().to_batches()
        columns = {name: batch.column(name) for name in batch.schema.names}
        for row in rows:
            yield _galaxy(columns, row)


def _checked_split(split: str) -> Split:
    for part in get_args(Split):
        if part == split:
            return part
    raise ValueError(
        f"Expected a split among {', '.join(get_args(Split))}; got {split!r}. Choose one."
    )


def _write_shard(first: Galaxy, source: Iterator[Galaxy], path: Path, rows: int) -> dict[str, Any]:
    """One file of at most `rows` galaxies; returns what the manifest says of it."""
    counts: dict[str, int] = {}
    groups = written = 0
    partial = path.with_name(path.name + ".tmp")
    with pq.ParquetWriter(partial, _SCHEMA, compression="zstd") as writer:
        pending = [first]
        while pending:
            while len(pending) < min(_ROWS_PER_GROUP, rows - written):
                if (following := next(source, None)) is None:
                    break
                pending.append(following)
            writer.write_batch(_record_batch(pending), row_group_size=_ROWS_PER_GROUP)
            for galaxy in pending:
                counts[split_of(galaxy.id)] = counts.get(split_of(galaxy.id), 0) + 1
            groups, written = groups + 1, written + len(pending)
            pending = []
            if written < rows and (following := next(source, None)) is not None:
                pending = [following]
    partial.replace(path)
    return {"rows": counts, "groups": groups}


def _record_batch(galaxies: Sequence[Galaxy]) -> pa.RecordBatch:
    """Galaxies as rows; pixels go over as whole arrays."""
    columns = {
        "id": [galaxy.id for galaxy in galaxies],
        "split": [split_of(galaxy.id) for galaxy in galaxies],
        "ra": [None if g.ra is None else float(g.ra.value) for g in galaxies],
        "dec": [None if g.dec is None else float(g.dec.value) for g in galaxies],
        "images": [[_image_row(image) for image in g.images] for g in galaxies],
        "photometry": [
            [
                {name: getattr(p, name) for name in ("band", "flux", "ivar", "wavelength")}
                for p in g.photometry
            ]
            for g in galaxies
        ],
        "spectra": [[_spectrum_row(spectrum) for spectrum in g.spectra] for g in galaxies],
        "scalars": [
            [{"name": n, "value": s.value, "error": s.error} for n, s in g.scalars.items()]
            for g in galaxies
        ],
        "labels": [[{"name": n, "value": v} for n, v in g.labels.items()] for g in galaxies],
    }
    return pa.record_batch(
        [pa.array(columns[field.name], type=field.type) for field in _SCHEMA], schema=_SCHEMA
    )


def _image_row(image: BandImage) -> dict[str, Any]:
    return {
        "band": image.band,
        "height": image.flux.shape[0],
        "flux": image.flux.ravel(),
        "ivar": image.ivar.ravel(),
        "pixel_scale": image.pixel_scale,
        "psf_fwhm": image.psf_fwhm,
        "wavelength": image.wavelength,
        "dx": image.centre[0],
        "dy": image.centre[1],
    }


def _spectrum_row(spectrum: Spectrum) -> dict[str, Any]:
    place = spectrum.aperture
    return {
        "name": spectrum.name,
        "wavelength": spectrum.wavelength,
        "flux": spectrum.flux,
        "ivar": spectrum.ivar,
        "sigma": spectrum.sigma,
        "dx": place.dx,
        "dy": place.dy,
        "diameter": place.diameter,
        "seeing": place.seeing,
    }


def _structs(column: Any, row: int) -> Iterator[dict[str, Any]]:
    """The structs in one row; lists of numbers as arrays without a copy, the rest as Python."""
    inside = column[row].values
    for index in range(0 if inside is None else len(inside)):
        fields: dict[str, Any] = {}
        for field in inside.type:
            value = inside.field(field.name)[index]
            is_list = pa.types.is_list(field.type)
            fields[field.name] = (
                value.values.to_numpy(zero_copy_only=True) if is_list else value.as_py()
            )
        yield fields


def _galaxy(columns: dict[str, Any], row: int) -> Galaxy:
    ra, dec = columns["ra"][row].as_py(), columns["dec"][row].as_py()
    images = []
    for one in _structs(columns["images"], row):
        shape = (one.pop("height"), -1)
        centre = (one.pop("dx"), one.pop("dy"))
        flux, ivar = (one.pop(name).reshape(shape) for name in ("flux", "ivar"))
        images.append(BandImage.in_batch_units(flux=flux, ivar=ivar, centre=centre, **one))
    spectra = []
    for one in _structs(columns["spectra"], row):
        place = {name: one.pop(name) for name in ("dx", "dy", "diameter", "seeing")}
        spectra.append(Spectrum.in_batch_units(aperture=Aperture.in_batch_units(**place), **one))
    return Galaxy(
        columns["id"][row].as_py(),
        ra=None if ra is None else ra * u.deg,
        dec=None if dec is None else dec * u.deg,
        images=tuple(images),
        photometry=tuple(
            Photometry.in_batch_units(**one) for one in _structs(columns["photometry"], row)
        ),
        spectra=tuple(spectra),
        scalars={
            one["name"]: Scalar(one["value"], one["error"])
            for one in _structs(columns["scalars"], row)
        },
        labels={one["name"]: one["value"] for one in _structs(columns["labels"], row)},
    )
