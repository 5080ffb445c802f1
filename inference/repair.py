"""A model's repair: what recalibration does to its posteriors, kept beside its weights.

A repair belongs to one file of weights and is fitted on galaxies that they never saw
(`calibration/fit_repair.py`). It holds, for each kind of evidence that a galaxy may show:

- of the redshift, a law of the PIT given covariates (`pit_law.py`). The whole density changes,
  F'(z) = G(F(z)), and every drawn redshift z moves to the one with F'(z') = F(z);
- of spectra at a known redshift, factors for the deviations of their ln continuum by rest
  wavelength and the S/N of what was shown near it (`stretch.py`), then a law of the PIT of their
  level (`levels.py`). Both are those of the draws on one fixed grid, so that an answer does not
  depend on the wavelengths asked for, and multiply whole spectra by smooth curves, so that a draw
  stays one galaxy with the lines it has. Where spectra were shown they hold for the places of
  those alone: elsewhere on the galaxy draws are wide for other reasons.

Only what helps on galaxies kept for validation is in a repair. The rest stays as the network
answers, and says so.

Axes: galaxy, draw, pixel.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probmmae.batch import Batch
from probmmae.checkpoint import REPAIR
from probmmae.inference.levels import continuum, level, moved
from probmmae.inference.pit_law import LocalRecalibration
from probmmae.inference.pit_map import PitMap
from probmmae.inference.redshifts import exact
from probmmae.inference.shown import (
    KINDS,
    covariates,
    kinds,
    signal_to_noise_near,
    spectrum_covariates,
)
from probmmae.inference.stretch import LEAST_DRAWS, PixelScale, tents
from probmmae.measurements import Aperture
from probmmae.redshift import RedshiftDensity

FloatArray = NDArray[np.float64]

REFERENCE = 3650.0 * np.exp(6 * 2.302585e-4 * np.arange(754))
"""Observed wavelengths on which the continuum of draws is found, Angstrom."""
REFERENCE_RESOLUTION = 2000.0
"""R = wavelength / FWHM there."""
BINS = 24
"""Bins of `REFERENCE` in which the continuum is looked at."""
BIN_WAVELENGTH = np.exp(continuum(REFERENCE, BINS))
"""Their middles, Angstrom."""
_FORMAT = 4
_SAME = 0.25
"""Apertures that differ by less than this share of the diameter are one place."""
_ELSEWHERE = "it holds where a spectrum was shown"
_MEND = "Fit it anew with `probmmae repair`, or delete the file to do without."


@dataclass(frozen=True)
class SpectrumRepair:
    """What is done to drawn spectra shown in one kind of evidence."""

    continuum: PixelScale | None
    """First, a factor of deviations of the ln continuum; None where there is none."""
    level: LocalRecalibration | None
    """Then the law of the PIT of their level; None where ranks stay."""
    galaxies: int
    """Number of galaxies it was fitted on."""

    def of(self, batch: Batch) -> "Stretch":
        """What is done to the one galaxy of a batch, at its known redshift."""
        told = spectrum_covariates(batch)
        pit_map = None if self.level is None else self.level.pit_map(told)
        seen = batch.spectra.aperture[(batch.spectra.ivar > 0).any(-1)]
        return Stretch(
            self.continuum, pit_map, float(told["redshift"][0]),
            signal_to_noise_near(batch, BIN_WAVELENGTH)[0],
            tuple((float(x), float(y), float(wide)) for x, y, wide, _ in seen),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stretch:
    """What is done to one galaxy's drawn spectra."""

    continuum: PixelScale | None
    level: PitMap | None
    """Of one row."""
    redshift: float
    snr: FloatArray
    """Of what was shown near each of the bins, shape (bin,)."""
    places: tuple[tuple[float, float, float], ...]
    """Offset and diameter of the apertures of spectra that were shown, arcsec."""

    def holds(self, aperture: Aperture | None) -> bool:
        """Whether it holds there, or for None everywhere: no spectrum was shown, or one there."""
        if not self.places or aperture is None:
            return not self.places
        return any(
            np.hypot(aperture.dx - x, aperture.dy - y) < _SAME * wide
            and abs(aperture.diameter - wide) < _SAME * wide
            for x, y, wide in self.places
        )

    def apply(
        self, flux: FloatArray, reference: FloatArray, *, rest_wavelength: FloatArray
    ) -> FloatArray:
        """Move continuum and level of one galaxy's draws.

        Where no bin has a positive continuum in every draw, as beyond a galaxy's edge, spectra
        stay as they are.

        Args:
            flux: Any flux unit, shape (draw, pixel); a pixel that is NaN stays so.
            reference: The same draws on `REFERENCE`, shape (draw, pixel); NaN is left out.
            rest_wavelength: Of the pixels of `flux`, Angstrom, shape (pixel,).

        Returns:
            Shape of `flux`.
        """
        old = continuum(reference, BINS)
        whole = np.isfinite(old).all(axis=0)
        if not whole.any():
            return flux
        old, knots = old[:, whole], BIN_WAVELENGTH[whole] / (1 + self.redshift)
        new = old
        if self.continuum is not None:
            told = {"rest_wavelength": knots[None], "snr": self.snr[None, whole]}
            new = self.continuum.apply(old[:, None], **told)[:, 0]
        if self.level is not None:
            before = level(new)
            new = new + (moved(before, self.level) - before)[:, None]
        step = new - old
        curve = sum(
            share * step[:, knot] for knot, share in tents(np.log(rest_wavelength), np.log(knots))
        )
        return np.asarray(flux * np.exp(curve))


@dataclass(frozen=True)
class Applied:
    """What is done to one galaxy's posterior."""

    redshift: PitMap | None
    """Of one row; None where nothing is done."""
    spectrum: Stretch | None
    """None where nothing is done."""
    redshift_said: str
    """What was done to the redshift, in words."""
    spectrum_said: str
    """What was done to spectra, in words."""

    @property
    def said(self) -> str:
        """Both, as files carry it."""
        return f"redshift {self.redshift_said}; spectra {self.spectrum_said}"

    def at(self, aperture: Aperture | None) -> "Applied":
        """What is done to spectra through one aperture, or for None to those of a cube."""
        if self.spectrum is None or self.spectrum.holds(aperture):
            return self
        return replace(self, spectrum=None, spectrum_said=f"not repaired: {_ELSEWHERE}")


def untouched(why: str) -> Applied:
    """Nothing done, and why."""
    said = f"not repaired: {why}"
    return Applied(None, None, said, said)


@dataclass(frozen=True)
class Repair:
    """What is done to a model's posteriors, by kind of evidence."""

    redshift: Mapping[str, LocalRecalibration]
    spectrum: Mapping[str, SpectrumRepair]
    left_out: Mapping[str, str]
    """What was fitted and left out, as `redshift_from` and `spectra_from` call it, and why."""
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
        found, told = kinds(batch), covariates(batch, density)
        rows = []
        for row, (kind, known) in enumerate(zip(found, batch.z_known.tolist(), strict=True)):
            law, fitted = self.redshift.get(kind), self.spectrum.get(kind)
            pit_map, stretch = None, None
            redshift_said = self._why_not(redshift_from(kind), kind)
            if known:
                redshift_said = "not repaired: it was given"
            elif law is not None:
                pit_map = law.pit_map({name: at[[row]] for name, at in told.items()})
                redshift_said = f"repaired: {self._words(kind, law.galaxies)}"
            if not known:
                spectrum_said = "not repaired: the redshift is not known"
            elif fitted is None:
                spectrum_said = self._why_not(spectra_from(kind), kind)
            elif draws < LEAST_DRAWS:
                spectrum_said = f"not repaired: {draws} draws are fewer than {LEAST_DRAWS}"
            else:
                stretch = fitted.of(batch.take(slice(row, row + 1)))
                spectrum_said = f"repaired: {self._words(kind, fitted.galaxies)}"
            rows.append(Applied(pit_map, stretch, redshift_said, spectrum_said))
        return rows

    def describe(self) -> dict[str, str]:
        """What was fitted, by name, for a report."""
        said = {}
        for kind, law in self.redshift.items():
            said[redshift_from(kind)] = (
                f"a law of the PIT from {law.galaxies:,} galaxies, depending on "
                f"{', '.join(law.names)}, {_gains(law)}"
            )
        for kind, stretch in self.spectrum.items():
            parts = []
            if (scale := stretch.continuum) is not None:
                table = np.exp(np.asarray(scale.log_scale))
                parts.append(
                    f"deviations of the ln continuum times {table.min():.3f} to "
                    f"{table.max():.3f} by rest wavelength and S/N"
                )
            if (of_level := stretch.level) is not None:
                parts.append(
                    "a law of the PIT of their level, depending on "
                    f"{', '.join(of_level.names)}, {_gains(of_level)}"
                )
            said[spectra_from(kind)] = (
                f"{'; then '.join(parts)}; from {stretch.galaxies:,} galaxies at known redshifts"
            )
        return said | {name: f"left as it is: {why}" for name, why in self.left_out.items()}

    def without(self, name: str, why: str) -> "Repair":
        """The repair less one of its parts.

        Args:
            name: As `redshift_from` or `spectra_from` calls it.
            why: In words, for every output.
        """
        return replace(
            self,
            redshift={k: law for k, law in self.redshift.items() if redshift_from(k) != name},
            spectrum={k: one for k, one in self.spectrum.items() if spectra_from(k) != name},
            left_out={**self.left_out, name: why},
        )

    def _why_not(self, name: str, kind: str) -> str:
        if name in self.left_out:
            return f"not repaired: {self.left_out[name]}"
        return f"not repaired: none was fitted for {kind or 'no measurement'}"

    def _words(self, kind: str, galaxies: int) -> str:
        return f"recalibrated on {galaxies} galaxies shown as {kind} ({self.source})"


def redshift_from(kind: str) -> str:
    """What the repair of redshifts from a kind of evidence is called."""
    return f"redshift from {kind}"


def spectra_from(kind: str) -> str:
    """What the repair of spectra from a kind of evidence is called."""
    return f"spectra from {kind}"


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


def write_repair(folder: Path, repair: Repair) -> Path:
    """Write the repair into the folder of its checkpoint, whole or not at all."""
    content = {
        "weights": repair.weights,
        "source": repair.source,
        "redshift": {kind: law.to_dict() for kind, law in repair.redshift.items()},
        "spectrum": {
            kind: {
                "continuum": None if one.continuum is None else one.continuum.to_dict(),
                "level": None if one.level is None else one.level.to_dict(),
                "galaxies": one.galaxies,
            }
            for kind, one in repair.spectrum.items()
        },
        "left_out": dict(repair.left_out),
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
                None if one["continuum"] is None else PixelScale.from_dict(one["continuum"]),
                None if one["level"] is None else LocalRecalibration.from_dict(one["level"]),
                int(one["galaxies"]),
            )
            for kind, one in content["spectrum"].items()
        },
        dict(content["left_out"]),
        content["weights"],
        content["source"],
    )


def _gains(law: LocalRecalibration) -> str:
    return f"which gains {law.worth:.4f} +- {law.worth_error:.4f} nats a galaxy"


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
