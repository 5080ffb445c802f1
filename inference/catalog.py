"""Many galaxies: from a stream of `Galaxy` objects to a file, a batch in memory at a time.

Every galaxy's answer depends on that galaxy, the model and the seed alone, not on its neighbours
in the batch. Galaxies that hold nothing to condition on are left out and counted.

Axes: galaxy, band, draw, aperture, wavelength.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from probmmae.galaxy import Aperture, Galaxy
from probmmae.inference.growing import arviz_file, qp_file
from probmmae.inference.posterior import Model, Posterior, observed_batch
from probmmae.inference.redshifts import default_grid, tabulate
from probmmae.inference.repair import joined

Watch = Callable[[int], None]
"""Called after every batch with the number of galaxies done."""


@runtime_checkable
class Tabulates(Protocol):
    """A model that gives nothing but p(z), such as one of photometry alone."""

    def tabulate(
        self, galaxies: Sequence[Galaxy], grid: Any, *, repair: bool, **columns: Any
    ) -> Any:
        """The `qp` ensemble of galaxies, with at least the columns of `redshifts.tabulate`."""
        ...


@dataclass
class Used:
    """What a run conditioned on, for the user to read."""

    galaxies: int = 0
    left_out: int = 0
    """Galaxies without a single measurement."""
    redshifts: int = 0
    """Galaxies whose redshift was taken as known."""
    measurements: Counter[str] = field(default_factory=Counter)
    """How many galaxies have each image, photometric band and kind of spectrum."""
    beyond: int = 0
    """Densities with more than 1 % of their probability beyond the redshift grid."""
    narrow: int = 0
    """Densities whose 90 % interval is narrower than two steps of the grid."""
    unlike: int = 0
    """Galaxies unlike the training set, of a model that says so."""
    repair: Counter[str] = field(default_factory=Counter)
    """How many galaxies each repair was, or was not, done to."""

    def add(self, galaxies: Sequence[Galaxy], *, use_redshift: bool) -> None:
        """Count what these galaxies give."""
        for one in galaxies:
            self.galaxies += 1
            self.redshifts += use_redshift and one.redshift is not None
            names = [f"image {image.band}" for image in one.images]
            names += [f"photometry {band.band}" for band in one.photometry]
            names += [f"spectrum {spectrum.name}" for spectrum in one.spectra]
            self.measurements.update(dict.fromkeys(names, 1))

    def describe(self) -> str:
        """A sentence or two."""
        parts = [
            name if count == self.galaxies else f"{name} ({count} of {self.galaxies})"
            for name, count in self.measurements.items()
        ]
        if self.redshifts:
            parts.append(f"known redshift ({self.redshifts} of {self.galaxies})")
        many = "galaxy" if self.galaxies == 1 else "galaxies"
        said = f"used of {self.galaxies} {many}: {', '.join(parts) or 'nothing'}"
        if self.left_out:
            said += f"; left out, for nothing was measured of them: {self.left_out}"
        if self.beyond:
            said += f"; with over 1 % of their probability beyond the grid: {self.beyond}"
        if self.narrow:
            said += (
                f"; narrower than the grid can show, so that their quantiles are to be used or a "
                f"smaller step: {self.narrow}"
            )
        if self.unlike:
            said += f"; unlike the training set: {self.unlike}"
        for repair, count in self.repair.items():
            said += f"; {repair}" + ("" if count == self.galaxies else f" ({count})")
        return said


def photoz(
    model: Model | Tabulates,
    galaxies: Iterable[Galaxy],
    path: Path,
    *,
    z_max: float = 1.6,
    z_step: float = 0.002,
    batch_size: int = 64,
    repair: bool = True,
    watch: Watch | None = None,
) -> Used:
    """p(z) of many galaxies to a `qp` ensemble on disk, their known redshifts not looked at.

    The file holds the densities on one grid and, in `ancil`: id, quantiles, z_true (the redshift
    that the galaxy carries, NaN where it carries none), the probability inside the grid, what
    repair did and, from a model of photometry alone, how a galaxy is unlike the training set.

    Args:
        model: The trained model.
        galaxies: Consumed once.
        path: HDF5 file to write.
        z_max: Upper end of the grid.
        z_step: Its step.
        batch_size: Galaxies in memory.
        repair: Whether the repair that is kept with the model is applied.
        watch: Told of progress.

    Raises:
        ValueError: A grid or batch size that is not positive, or not one galaxy to answer for.
    """
    if not 0 < z_step < z_max:
        raise ValueError(
            f"Expected 0 < z_step < z_max; got {z_step} and {z_max}. The usual is 0.002 and 1.6."
        )
    grid = np.arange(0.0, z_max + z_step / 2, z_step)
    used = Used()
    with qp_file(path) as append:
        for batch in _measured(galaxies, batch_size, used, use_redshift=False):
            table = _table(
                model, batch, grid, repair=repair, id=[one.id.encode() for one in batch],
                z_true=[np.nan if one.redshift is None else one.redshift for one in batch],
            )  # fmt: skip
            used.repair.update(f"redshift {one.decode()}" for one in table.ancil["repair"])
            used.unlike += int((table.ancil.get("unlike_training", np.zeros(1)) > 0).sum())
            used.beyond += int((table.ancil["inside_grid"] < 0.99).sum())
            width = table.ancil["z_upper_90"] - table.ancil["z_lower_90"]
            used.narrow += int((width < 2 * z_step).sum())
            append(table)
            if watch is not None:
                watch(used.galaxies)
        _some(used)
    return used


def _table(
    model: Model | Tabulates, batch: list[Galaxy], grid: Any, *, repair: bool, **columns: Any
) -> Any:
    """The `qp` ensemble of a batch."""
    if isinstance(model, Tabulates):
        return model.tabulate(batch, grid, repair=repair, **columns)
    with torch.no_grad():
        shown = observed_batch(batch, use_redshift=False)
        density = model.network.redshift(model.network.encode(shown))
        applied = model.applied(shown, density, draws=0, repair=repair)
    said = [one.redshift_said for one in applied]
    return tabulate(density, grid, pit_map=joined(applied), repair=said, **columns)


def spectra(
    model: Model,
    galaxies: Iterable[Galaxy],
    path: Path,
    *,
    wavelength: Any,
    apertures: Sequence[Aperture],
    resolution: float = 2000.0,
    draws: int = 100,
    seed: int = 0,
    use_redshift: bool = True,
    batch_size: int = 16,
    repair: bool = True,
    watch: Watch | None = None,
    keep: int = 0,
) -> tuple[Used, list[tuple[Posterior, list[Any]]]]:
    """Posterior spectra of many galaxies to one ArviZ netCDF file; see `growing.arviz_file`.

    Args:
        model: The trained model.
        galaxies: Consumed once.
        path: netCDF file to write.
        wavelength: Observed vacuum wavelengths, a Quantity of shape (wavelength,).
        apertures: Where to take the spectra; draws at all of them belong together.
        resolution: R = wavelength / FWHM.
        draws: Draws per galaxy.
        seed: Seed of the draws.
        use_redshift: Whether a redshift that a galaxy carries counts as known.
        batch_size: Galaxies in memory.
        repair: Whether the repair that is kept with the model is applied.
        watch: Told of progress.
        keep: The first galaxies whose posteriors and draws are returned too.

    Raises:
        ValueError: Not one galaxy to answer for; and what `Posterior.spectrum` raises.
    """
    used = Used()
    kept: list[tuple[Posterior, list[Any]]] = []
    said = {"resolution": f"R = {resolution:g}", "aperture": "offsets east and north, arcsec"}
    with arviz_file(path, apertures, said) as append:
        for batch in _measured(galaxies, batch_size, used, use_redshift=use_redshift):
            conditioned = model.condition(
                batch, draws=draws, seed=seed, use_redshift=use_redshift, repair=repair
            )
            for posterior in conditioned:
                drawn = [
                    posterior.spectrum(wavelength, aperture, resolution=resolution)
                    for aperture in apertures
                ]
                append(posterior, drawn)
                used.repair.update({one.repair for one in drawn})
                if len(kept) < keep:
                    kept.append((posterior, drawn))
            if watch is not None:
                watch(used.galaxies)
        _some(used)
    return used, kept


def hide_redshift(galaxy: Galaxy) -> Galaxy:
    """The galaxy without its redshift."""
    kept = {name: value for name, value in galaxy.scalars.items() if name != "redshift"}
    return replace(galaxy, scalars=kept)


def _measured(
    galaxies: Iterable[Galaxy], size: int, used: Used, *, use_redshift: bool
) -> Iterator[list[Galaxy]]:
    """Batches of galaxies that hold something to condition on."""
    if size < 1:
        raise ValueError(f"Expected at least 1 galaxy in a batch; got {size}. 64 is usual.")
    source = iter(galaxies)
    while batch := list(islice(source, size)):
        good = [
            one
            for one in batch
            if one.images
            or one.photometry
            or one.spectra
            or (use_redshift and one.redshift is not None)
        ]
        used.left_out += len(batch) - len(good)
        used.add(good, use_redshift=use_redshift)
        if good:
            yield good


def _some(used: Used) -> None:
    if used.galaxies == 0:
        raise ValueError(
            f"Expected at least one galaxy with a measurement; got none of {used.left_out}. "
            "probmmae info says what a file holds."
        )


__all__ = ["Used", "default_grid", "hide_redshift", "photoz", "spectra"]
