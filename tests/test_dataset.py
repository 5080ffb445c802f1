"""Shards: what goes in comes out, in bounded memory, with the split inside."""

import json
from collections import Counter
from itertools import chain

import numpy as np
import pytest
from astropy import units as u

from probmmae.dataset import Dataset, split_of, write_shards
from probmmae.galaxy import (
    Aperture,
    BandImage,
    Galaxy,
    Photometry,
    Scalar,
    Spectrum,
    sky_identity,
)


def galaxy(i):
    """Different in everything from the next; every third one lacks something."""
    rng = np.random.default_rng(i)
    wave = 4000.0 + np.cumsum(rng.uniform(0.5, 1.0, 5 + i % 4))
    spectrum = Spectrum.in_batch_units(
        wave,
        rng.normal(size=wave.size),
        ivar=rng.uniform(1, 2, wave.size) * (np.arange(wave.size) != 1),
        sigma=rng.uniform(1, 2, wave.size),
        aperture=Aperture.in_batch_units(0.1 * i, -0.2, diameter=2.0, seeing=1.3),
        name=f"spectrograph-{i}",
    )
    images = tuple(
        BandImage.in_batch_units(
            band,
            rng.normal(size=(4, 3 + i % 2)),
            ivar=np.ones((4, 3 + i % 2)),
            pixel_scale=0.2,
            psf_fwhm=0.7,
            centre=(0.05 * i, 0.1),
        )
        for band in ["hsc-g", "hsc-r"][: 1 + i % 2]
    )
    return Galaxy(
        f"galaxy-{i}",
        ra=None if i % 3 == 0 else (10.0 + i) * u.deg,
        dec=None if i % 3 == 0 else -5.0 * u.deg,
        images=() if i % 3 == 1 else images,
        photometry=(Photometry.in_batch_units("sdss-r", 1.0 + i, ivar=4.0),),
        spectra=() if i % 3 == 2 else (spectrum,) * (1 + i % 2),
        scalars={} if i % 2 else {"redshift": Scalar(0.01 * i, 1e-4)},
        labels={"class": "GALAXY"} if i % 2 else {},
    )


def same(one, other):
    """Whether two records are equal in every field, arrays in every pixel."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Galaxy | BandImage | Photometry | Spectrum):
        return all(same(value, getattr(other, name)) for name, value in vars(one).items())
    return bool(one == other)


def test_galaxies_come_back_as_they_were(tmp_path):
    written = [galaxy(i) for i in range(150)]
    dataset = write_shards(written, tmp_path / "a", rows_per_shard=70)
    assert len(dataset) == 150
    assert [path.name for path in sorted((tmp_path / "a").glob("*.parquet"))] == [
        f"shard-0000{i}.parquet" for i in range(3)
    ]
    for one, other in zip(written, dataset, strict=True):
        assert same(one, other), one.id
    assert not same(written[0], written[1])


@pytest.mark.parametrize("rows", [1, 64, 65, 150, 1000])
def test_any_size_of_shards_holds_every_galaxy(tmp_path, rows):
    dataset = write_shards(map(galaxy, range(66)), tmp_path / "a", rows_per_shard=rows)
    assert [one.id for one in dataset] == [f"galaxy-{i}" for i in range(66)]
    assert len(list((tmp_path / "a").iterdir())) == -(-66 // rows) + 1


def test_splits_are_disjoint_and_complete(tmp_path):
    dataset = write_shards(map(galaxy, range(100)), tmp_path / "a", rows_per_shard=30)
    parts = {
        part: [one.id for one in dataset.galaxies(part)]
        for part in ["train", "tune", "recalibrate", "report"]
    }
    assert {part: len(ids) for part, ids in parts.items()} == {
        part: dataset.count(part) for part in parts
    }
    assert sorted(chain.from_iterable(parts.values())) == sorted(f"galaxy-{i}" for i in range(100))
    assert all(split_of(name) == part for part, ids in parts.items() for name in ids)


def test_split_has_its_fractions():
    """20,000 names: each fraction within 4.5 standard errors (chance 3e-5)."""
    n = 20_000
    counts = Counter(split_of(f"object {i}") for i in range(n))
    for part, share in {"train": 0.8, "tune": 0.08, "recalibrate": 0.06, "report": 0.06}.items():
        assert abs(counts[part] - share * n) < 4.5 * np.sqrt(n * share * (1 - share))


def test_split_never_changes():
    """A galaxy used in training today must not be in tomorrow's report."""
    expected = {
        **{7: "train", 1: "report", 3: "tune", 28: "recalibrate"},
        **{2: "report", 11: "tune", 31: "recalibrate", 42: "train"},
    }
    assert {i: split_of(f"galaxy-{i}") for i in expected} == expected


def test_seed_shuffles_and_repeats(tmp_path):
    dataset = write_shards(map(galaxy, range(200)), tmp_path / "a", rows_per_shard=70)
    orders = [[one.id for one in dataset.galaxies(seed=seed)] for seed in [1, 1, 2]]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(one.id for one in dataset)
    assert orders[0] != [one.id for one in dataset]


def test_parts_share_the_galaxies_out(tmp_path):
    dataset = write_shards(map(galaxy, range(200)), tmp_path / "a", rows_per_shard=70)
    parts = [[one.id for one in dataset.galaxies(seed=3, part=(i, 2))] for i in range(2)]
    assert not set(parts[0]) & set(parts[1])
    assert len(parts[0]) + len(parts[1]) == 200


def test_writing_and_reading_hold_few_galaxies(tmp_path):
    """Of 400 galaxies, never more than two groups of 64 are taken before a group is written."""
    taken = 0
    ahead = 0
    folder = tmp_path / "a"

    def source():
        nonlocal taken, ahead
        for i in range(400):
            taken += 1
            whole = len(list(folder.glob("*.parquet"))) * 64
            ahead = max(ahead, taken - whole)
            yield galaxy(i)

    dataset = write_shards(source(), folder, rows_per_shard=64)
    assert ahead <= 65
    reader = dataset.galaxies()
    assert next(reader).id == "galaxy-0"


def test_interrupted_writing_is_no_dataset(tmp_path):
    def broken():
        yield from map(galaxy, range(100))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(broken(), tmp_path / "a", rows_per_shard=30)
    with pytest.raises(ValueError, match="whose writing was cut short"):
        Dataset(tmp_path / "a")


def test_what_cannot_be_is_refused(tmp_path):
    dataset = write_shards([galaxy(0), galaxy(1)], tmp_path / "a", rows_per_shard=1)
    with pytest.raises(ValueError, match="which holds one"):
        write_shards([galaxy(0)], tmp_path / "a")
    with pytest.raises(ValueError, match="at least one galaxy to write; got none"):
        write_shards([], tmp_path / "b")
    with pytest.raises(ValueError, match="at least 1 row per shard; got 0"):
        write_shards([galaxy(0)], tmp_path / "c", rows_per_shard=0)
    with pytest.raises(ValueError, match=r"part as \(index, number\)"):
        next(dataset.galaxies(part=(2, 2)))
    (tmp_path / "a" / "shard-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="Expected a whole shard"):
        list(dataset)
    (tmp_path / "a" / "shard-00000.parquet").unlink()
    with pytest.raises(ValueError, match=r"Expected the shard shard-00000.parquet"):
        Dataset(tmp_path / "a")
    with pytest.raises(ValueError, match="Expected a dataset"):
        Dataset(tmp_path / "nowhere")


def test_manifest_counts_what_is_there(tmp_path):
    write_shards(map(galaxy, range(100)), tmp_path / "a", rows_per_shard=64)
    shards = json.loads((tmp_path / "a" / "dataset.json").read_text())["shards"]
    assert [sum(shard["rows"].values()) for shard in shards] == [64, 36]


def test_position_is_an_identity():
    assert sky_identity(10 * u.deg, 5 * u.deg) == "J010.0000+05.0000"
    assert sky_identity(370 * u.deg, 5 * u.deg) == sky_identity(10 * u.deg, 5 * u.deg)
    near = sky_identity((10 + 0.05 / 3600) * u.deg, 5 * u.deg)
    far = sky_identity((10 + 2 / 3600) * u.deg, 5 * u.deg)
    assert near == "J010.0000+05.0000" != far
