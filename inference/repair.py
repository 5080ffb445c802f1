"""A model's repair: what recalibration does to its posteriors, kept beside its weights.

A repair belongs to one file of weights and is fitted on galaxies that they never saw
(`calibration/fit_repair.py`). It holds, for each kind of evidence that a galaxy may show:

- of the redshift, a law of the PIT given covariates (`pit_law.py`). The whole density changes,
  F'(z) = G(F(z)), and every drawn redshift z moves to the one with F'(z') = F(z);
- of spectra at a known redshift, factors for the deviations of draws from their mean
  (`stretch.py`): first along the principal directions of the draws, then by rest wavelength and
  S/N. The directions are those of the draws on one fixed grid, so that an answer does not depend
  on the wavelengths asked for, and a draw stays one galaxy.

Where nothing was fitted for a galaxy's evidence it stays as the network answers, and says so.

Axes: galaxy, draw, pixel.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probmmae.batch import Batch, Images, PhotometryTable, Spectra
from probmmae.checkpoint import REPAIR
from probmmae.inference.pit_law import LocalRecalibration
from probmmae.inference.pit_map import PitMap
from probmmae.inference.redshifts import exact
from probmmae.inference.stretch import LEAST_DRAWS, PixelScale, PrincipalScale
from probmmae.redshift import RedshiftDensity

FloatArray = NDArray[np.float64]

KINDS = ("image", "photometry", "spectrum", "mixture")
"""Of evidence: one sort of measurement alone, or several."""
REFERENCE = 3650.0 * np.exp(6 * 2.302585e-4 * np.arange(754))
"""Observed wavelengths on which the principal directions of draws are found, Angstrom."""
REFERENCE_RESOLUTION = 2000.0
"""R = wavelength / FWHM there."""
_FORMAT = 1
_MEND = "Fit it anew with `probmmae repair`, or delete the file to do without."


@dataclass(frozen=True)
class SpectrumRepair:
    """What is done to drawn spectra."""

    principal: PrincipalScale
    """First, along the principal directions."""
    pixel: PixelScale
    """Then, by rest wavelength and S/N."""

    def apply(
        self, flux: FloatArray, reference: FloatArray, *, rest_wavelength: FloatArray, snr: float
    ) -> FloatArray:
        """Stretch one galaxy's draws about their mean.

        Args:
            flux: Any flux unit, shape (draw, pixel); a pixel that is NaN stays so.
            reference: The same draws on `REFERENCE`, shape (draw, pixel); NaN is left out.
            rest_wavelength: Of the pixels of `flux`, Angstrom, shape (pixel,).
            snr: As `signal_to_noise` gives it.

        Returns:
            Shape of `flux`; the mean is unchanged.
        """
        whole = np.isfinite(reference).all(axis=0)
        if not whole.any():
            return flux
        told = reference[:, whole]
        centre = flux.mean(axis=0)
        mixed = self.principal.mixing(told - told.mean(axis=0)) @ (flux - centre)
        factor = self.pixel.scale(rest_wavelength[None], np.array([snr]))[0]
        return np.asarray(centre + factor * mixed)


@dataclass(frozen=True)
class Applied:
    """What is done to one galaxy's posterior."""

    redshift: PitMap | None
    """Of one row; None where nothing is done."""
    spectrum: SpectrumRepair | None
    """None where nothing is done."""
    snr: float
    """Of all that the galaxy shows."""
    redshift_said: str
    """What was done to the redshift, in words."""
    spectrum_said: str
    """What was done to spectra, in words."""

    @property
    def said(self) -> str:
        """Both, as files carry it."""
        return f"redshift {self.redshift_said}; spectra {self.spectrum_said}"


def untouched(why: str) -> Applied:
    """Nothing done, and why."""
    said = f"not repaired: {why}"
    return Applied(None, None, 0.0, said, said)


@dataclass(frozen=True)
class Repair:
    """What is done to a model's posteriors, by kind of evidence."""

    redshift: Mapping[str, LocalRecalibration]
    spectrum: Mapping[str, SpectrumRepair]
    weights: str
    """SHA-256 of the weights that it belongs to."""
    source: str
    """The galaxies that it was fitted on, in words."""

    def __post_init__(self) -> None:
        strange = sorted((set(self.redshift) | set(self.spectrum)) - set(KINDS))
        if strange:
            raise ValueError(
                f"Expected repairs of the kinds {', '.join(KINDS)}; got {', '.join(strange)}. "
                "Use the version of the package that fitted them."
            )

    def applied(self, batch: Batch, density: RedshiftDensity, *, draws: int) -> list[Applied]:
        """What is done to each galaxy's posterior.

        Args:
            batch: What is conditioned on.
            density: p(z | c) of each galaxy, as the network answers.
            draws: Draws per galaxy.
        """
        found, ratios = kinds(batch), signal_to_noise(batch)
        told = covariates(batch, density)
        rows = []
        for row, (kind, known) in enumerate(zip(found, batch.z_known.tolist(), strict=True)):
            law, stretch = self.redshift.get(kind), self.spectrum.get(kind)
            of_kind = f"none was fitted for {kind or 'no measurement'}"
            pit_map, redshift_said = None, f"not repaired: {of_kind}"
            if known:
                redshift_said = "not repaired: it was given"
            elif law is not None:
                pit_map = law.pit_map({name: at[[row]] for name, at in told.items()})
                redshift_said = f"repaired: {self._words(kind, law.galaxies)}"
            if not known:
                stretch, spectrum_said = None, "not repaired: the redshift is not known"
            elif stretch is None:
                spectrum_said = f"not repaired: {of_kind}"
            elif draws < LEAST_DRAWS:
                stretch = None
                spectrum_said = f"not repaired: {draws} draws are fewer than {LEAST_DRAWS}"
            else:
                spectrum_said = f"repaired: {self._words(kind, stretch.principal.galaxies)}"
            ratio = float(ratios[row])
            rows.append(Applied(pit_map, stretch, ratio, redshift_said, spectrum_said))
        return rows

    def describe(self) -> dict[str, str]:
        """What was fitted, by name, for a report."""
        said = {}
        for kind, law in self.redshift.items():
            said[f"redshift from {kind}"] = (
                f"a law of the PIT from {law.galaxies:,} galaxies, depending on "
                f"{', '.join(law.names)}, which gains {law.gain:.4f} \u00b1 {law.gain_error:.4f} "
                "nats a galaxy"
            )
        for kind, stretch in self.spectrum.items():
            along = np.exp(np.asarray(stretch.principal.log_scale)[[0, -1]])
            table = np.exp(np.asarray(stretch.pixel.log_scale))
            said[f"spectra from {kind}, at a known redshift"] = (
                f"deviations from the mean times {along[0]:.3f} along the first principal "
                f"direction to {along[1]:.3f} along the last, then times {table.min():.3f} to "
                f"{table.max():.3f} by rest wavelength and S/N, from "
                f"{stretch.pixel.galaxies:,} galaxies"
            )
        return said

    def _words(self, kind: str, galaxies: int) -> str:
        return f"recalibrated on {galaxies} galaxies shown as {kind} ({self.source})"


def joined(applied: Sequence[Applied]) -> PitMap:
    """The maps of several galaxies' redshifts, a row each."""
    return PitMap.joined([one.redshift or PitMap.identity() for one in applied])


def repaired_redshifts(density: RedshiftDensity, pit_map: PitMap, z: Tensor) -> Tensor:
    """Redshifts drawn from one galaxy's density, moved to be draws of the repaired one.

    Args:
        density: As the network answers, one galaxy without batch axes.
        pit_map: Of one row.
        z: Draws, shape (draw,).
    """
    known = exact(density)
    below = pit_map.inverse(known.cdf(z.double()).numpy())
    return known.icdf(torch.as_tensor(below)).to(z.dtype)


def kinds(batch: Batch) -> list[str]:
    """The kind of evidence of each galaxy; "" where nothing was measured."""
    counts = _measurements(batch)
    said = []
    for row in zip(*counts.values(), strict=True):
        there = [name for name, count in zip(counts, row, strict=True) if count > 0]
        said.append("" if not there else there[0] if len(there) == 1 else "mixture")
    return said


def covariates(batch: Batch, density: RedshiftDensity) -> dict[str, FloatArray]:
    """What the law of a redshift's PIT may depend on, known without the truth.

    Args:
        batch: What is conditioned on.
        density: p(z | c) of each galaxy, as the network answers.

    Returns:
        ln S/N, ln of the number of pixels and fluxes, and median and ln of the width (half of 16
        to 84 %) of the density, each of shape (galaxy,).
    """
    levels = torch.tensor([0.16, 0.5, 0.84], dtype=torch.float64)[:, None]
    low, middle, high = exact(density).icdf(levels).numpy()
    number = np.sum(list(_measurements(batch).values()), axis=0)
    return {
        "ln S/N": np.log(signal_to_noise(batch)),
        "ln measurements": np.log(np.maximum(number, 1.0)),
        "posterior median": middle,
        "ln posterior width": np.log(np.maximum(high - low, 1e-7) / 2),
    }


def signal_to_noise(batch: Batch) -> FloatArray:
    """Root of the sum of (flux / error)^2 over all that each galaxy shows, at least 1e-3."""
    total = torch.zeros(len(batch), dtype=torch.float64)
    for part in _parts(batch).values():
        total += (part.flux.double() ** 2 * part.ivar.double()).flatten(1).sum(1)
    return np.asarray(total.sqrt().clamp(min=1e-3).numpy())


def _measurements(batch: Batch) -> dict[str, NDArray[np.int64]]:
    """Number of visible pixels and fluxes of each sort, shape (galaxy,)."""
    return {
        name: (part.ivar > 0).flatten(1).sum(1).numpy() for name, part in _parts(batch).items()
    }


def _parts(batch: Batch) -> dict[str, Images | PhotometryTable | Spectra]:
    return {"image": batch.images, "photometry": batch.photometry, "spectrum": batch.spectra}


def write_repair(folder: Path, repair: Repair) -> Path:
    """Write the repair into the folder of its checkpoint, whole or not at all."""
    content = {
        "weights": repair.weights,
        "source": repair.source,
        "redshift": {kind: law.to_dict() for kind, law in repair.redshift.items()},
        "spectrum": {
            kind: {"principal": one.principal.to_dict(), "pixel": one.pixel.to_dict()}
            for kind, one in repair.spectrum.items()
        },
    }
    path = folder / REPAIR
    partial = folder / f"{REPAIR}.partial"
    text = {"format": _FORMAT, "sha256": _digest(content), "repair": content}
    partial.write_text(json.dumps(text, allow_nan=False) + "\n")
    os.replace(partial, path)
    return path


def read_repair(folder: Path) -> Repair | None:
    """The repair in a checkpoint's folder; None where there is none.

    Raises:
        ValueError: It is damaged, of another format, or of other weights.
    """
    path = folder / REPAIR
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        number, digest, content = (stored[name] for name in ("format", "sha256", "repair"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected the JSON of a repair in {path}; got: {error!r}. {_MEND}"
        ) from error
    if number != _FORMAT:
        raise ValueError(f"Expected a repair of format {_FORMAT} in {path}; got {number}. {_MEND}")
    if (found := _digest(content)) != digest:
        raise ValueError(
            f"Expected a repair with SHA-256 {digest} in {path}; its content has {found}. The "
            f"file is damaged or was changed. {_MEND}"
        )
    weights = json.loads((folder / "checkpoint.json").read_text())["sha256"]
    if content["weights"] != weights:
        raise ValueError(
            f"Expected the repair of the weights in {folder} (SHA-256 {weights}); got that of "
            f"others ({content['weights']}) in {path}. {_MEND}"
        )
    return Repair(
        {kind: LocalRecalibration.from_dict(law) for kind, law in content["redshift"].items()},
        {
            kind: SpectrumRepair(
                PrincipalScale.from_dict(one["principal"]), PixelScale.from_dict(one["pixel"])
            )
            for kind, one in content["spectrum"].items()
        },
        content["weights"],
        content["source"],
    )


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
