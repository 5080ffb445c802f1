"""Pictures of posteriors: drawn spectra with what was measured, p(z), the images.

Each `draw_*` function puts one thing on given axes; `gallery` lays galaxies out, one a row: the
image, p(z), the spectrum. Figures are matplotlib's object API, without pyplot or any global state.

Axes: galaxy (row), draw, wavelength (pixel), band, y, x.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from probmmae.collate import collate
from probmmae.galaxy import Aperture, Galaxy, Spectrum
from probmmae.inference.draws import SpectrumDraws
from probmmae.inference.growing import whole_file
from probmmae.inference.posterior import Posterior
from probmmae.inference.redshifts import RedshiftPosterior

POSTERIOR = "#2b6cb0"
TRUTH = "#c05621"
MEASURED = "#4a5568"

#: Rest vacuum wavelengths of lines worth a label, Angstrom.
_LABELS = {
    "[O II]": 3728.5,
    "Ca K": 3934.8,
    "H\u03b2": 4862.7,
    "[O III]": 5008.2,
    "Mg b": 5176.0,
    "Na D": 5893.0,
    "H\u03b1": 6564.6,
    "[S II]": 6725.5,
}


@dataclass(frozen=True)
class Row:
    """One galaxy of a gallery."""

    posterior: Posterior
    draws: SpectrumDraws
    title: str
    z_true: float | None = None
    """The redshift to mark as the truth; None where there is none."""
    truth: Any = None
    """Noise-free flux on the wavelengths of `draws`, 1e-17 erg/s/cm2/Angstrom; None if unknown."""
    measured: Spectrum | None = None
    """A measured spectrum to lie under the draws."""
    hidden: list[tuple[float, float]] = field(default_factory=list)
    """Wavelength ranges, Angstrom, that the model was not shown; they are shaded."""


def gallery(rows: Sequence[Row], *, title: str | None = None) -> Figure:
    """Galaxies below each other: image, p(z), spectrum.

    Raises:
        ValueError: No rows.
    """
    if not rows:
        raise ValueError("Expected at least one galaxy to draw; got none. Give a Row.")
    figure = Figure(figsize=(11.0, 2.15 * len(rows) + 0.7), layout="constrained", dpi=130)
    axes = figure.subplots(len(rows), 3, squeeze=False, width_ratios=[1.0, 1.25, 4.2])
    for (image, redshift, spectrum), row in zip(axes, rows, strict=True):
        draw_images(image, row.posterior.galaxy, aperture=row.draws.aperture)
        draw_redshift(redshift, row.posterior.redshift, truth=row.z_true)
        draw_spectrum(
            spectrum, row.draws, truth=row.truth, measured=row.measured, hidden=row.hidden
        )
        spectrum.set_title(row.title, fontsize=9, loc="left")
        draw_lines(spectrum, row.posterior.redshift.median if row.z_true is None else row.z_true)
    axes[-1][1].set_xlabel("redshift")
    axes[-1][2].set_xlabel("observed wavelength (vacuum) [\u00c5]")
    unit = "$10^{-17}$ erg s$^{-1}$ cm$^{-2}$ \u00c5$^{-1}$"
    axes[-1][2].set_ylabel(f"flux density\n[{unit}]", fontsize=8)
    axes[0][2].legend(
        fontsize=7, loc="upper right", ncols=5, frameon=True, framealpha=0.8, edgecolor="none"
    )
    if title is not None:
        figure.suptitle(title, fontsize=11)
    return figure


def spectra_figure(answers: Sequence[tuple[Posterior, Sequence[SpectrumDraws]]]) -> Figure:
    """What `catalog.spectra` kept, a row an aperture, with the spectrum measured there if any."""
    rows = []
    for posterior, spectra in answers:
        for draws in spectra:
            place = draws.aperture
            where = f"({place.dx:+.2f}, {place.dy:+.2f})"
            near = [
                one
                for one in posterior.galaxy.spectra
                if np.hypot(one.aperture.dx - place.dx, one.aperture.dy - place.dy) < 0.1
            ]
            rows.append(
                Row(
                    posterior,
                    draws,
                    f"{posterior.galaxy.id} at {where} arcsec, {place.diameter:g} arcsec wide",
                    measured=near[0] if near else None,
                )
            )
    return gallery(rows)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")


def draw_spectrum(
    axes: Axes,
    draws: SpectrumDraws,
    *,
    truth: Any = None,
    measured: Spectrum | None = None,
    hidden: Sequence[tuple[float, float]] = (),
    shown: int = 3,
) -> None:
    """The 50 and 90 % intervals of each pixel, a few whole draws, and what is known over them.

    Args:
        axes: Where to draw.
        draws: The posterior's spectra.
        truth: Noise-free flux on the same wavelengths.
        measured: A measured spectrum, drawn below, binned to some 600 points.
        hidden: Wavelength ranges that were not conditioned on, Angstrom.
        shown: How many draws to draw.
    """
    x = draws.wavelength.to_value("Angstrom")
    low, first, third, high = draws.quantiles([0.05, 0.25, 0.75, 0.95]).value
    for start, end in hidden:
        axes.axvspan(start, end, color="#f3ede3", zorder=-5, lw=0)
    if measured is not None:
        at, flux = binned(measured)
        width = measured.aperture.diameter
        same = abs(width / draws.aperture.diameter - 1) < 0.05
        said = "measured" if same else f"measured, {width:g} arcsec wide"
        axes.plot(at, flux, color=MEASURED, lw=0.6, label=said, zorder=4)
    axes.fill_between(x, low, high, color=POSTERIOR, alpha=0.22, lw=0, label="90 %")
    axes.fill_between(x, first, third, color=POSTERIOR, alpha=0.45, lw=0, label="50 %")
    for index in range(min(shown, draws.flux.shape[0])):
        label = "draws" if index == 0 else None
        axes.plot(x, draws.flux.value[index], color=POSTERIOR, lw=0.45, alpha=0.8, label=label)
    if truth is not None:
        axes.plot(x, np.asarray(truth), color=TRUTH, lw=0.8, label="truth")
    axes.set_xlim(x[0], x[-1])
    values = [low, high] if truth is None else [low, high, np.asarray(truth)]
    if measured is not None:
        values.append(flux[(at > x[0]) & (at < x[-1])])
    axes.set_ylim(*_range(np.concatenate(values)))
    axes.tick_params(labelsize=7)


def draw_lines(axes: Axes, z: float) -> None:
    """Names of strong lines at redshift `z` along the lower edge."""
    low, high = axes.get_xlim()
    for name, rest in _LABELS.items():
        at = rest * (1 + z)
        if low < at < high:
            axes.axvline(at, ymax=0.07, color="0.5", lw=0.6)
            axes.text(
                at, 0.08, name, fontsize=5.5, color="0.4", ha="center", va="bottom",
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip


def draw_redshift(axes: Axes, redshift: RedshiftPosterior, *, truth: float | None = None) -> None:
    """p(z), its central 90 % interval shaded, and the true redshift; or the known redshift."""
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    if redshift.known is not None:
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.text(
            0.5, 0.5, f"z = {redshift.known:.4f}\ngiven", ha="center", va="center", fontsize=8,
            transform=axes.transAxes,
        )  # fmt: skip
        return
    low, high = redshift.interval(0.9)
    first, last = redshift.quantiles([0.001, 0.999])
    margin = 0.15 * (last - first)
    ends = [max(0.0, first - margin), last + margin]
    if truth is not None:
        ends = [min(ends[0], truth - margin), max(ends[1], truth + margin)]
    z = np.linspace(max(0.0, ends[0]), ends[1], 800)
    density = redshift.pdf(z)
    inside = (z >= low) & (z <= high)
    axes.plot(z, density, color=POSTERIOR, lw=1.0)
    axes.fill_between(z[inside], density[inside], color=POSTERIOR, alpha=0.3, lw=0)
    if truth is not None:
        axes.axvline(truth, color=TRUTH, lw=1.2)
    axes.set_ylim(bottom=0)
    axes.set_xlim(z[0], z[-1])
    axes.set_title(f"90 %: {low:.4g} to {high:.4g}", fontsize=8)


def draw_images(axes: Axes, galaxy: Galaxy, *, aperture: Aperture | None = None) -> None:
    """The images as the model is shown them, in one colour picture, and the aperture.

    North is up and east left, if the frame says so. Pixels are binned and cut as `collate` does.
    """
    axes.set_xticks([])
    axes.set_yticks([])
    if not galaxy.images:
        for side in axes.spines.values():
            side.set_visible(False)
        held = {"photometry": galaxy.photometry, "spectrum": galaxy.spectra}
        text = "\n".join(name for name, values in held.items() if values) + "\nonly"
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, transform=axes.transAxes)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # who conditioned on the galaxy was told
        seen = collate([galaxy]).images
    present = (seen.ivar[0] > 0).flatten(1).any(1)
    order = seen.wavelength[0].masked_fill(~present, 0.0).argsort(descending=True)
    picture = colour([seen.flux[0, band].numpy() for band in order[: int(present.sum())]])
    half = 0.5 * seen.flux.shape[-1] * float(seen.pixel_scale[0])
    dx, dy = seen.centre[0].tolist()
    extent = (dx - half, dx + half, dy - half, dy + half)
    axes.imshow(picture, origin="lower", extent=extent, interpolation="nearest")
    # x grows towards east in the data; on the sky, as astronomers draw it, east is left.
    axes.set_xlim(dx + half, dx - half)
    if aperture is not None:
        place = (aperture.dx, aperture.dy)
        axes.add_patch(Circle(place, aperture.diameter / 2, fill=False, ec="white", lw=0.8))
    names = ", ".join(image.band for image in galaxy.images)
    axes.set_xlabel(f"{names}\n{2 * half:.1f} arcsec", fontsize=6)


def colour(bands: Sequence[Float[np.ndarray, "y x"]]) -> Float[np.ndarray, "y x 3"]:
    """Red, green and blue in 0 to 1 from bands ordered from red to blue (Lupton et al. 2004)."""
    third = np.array_split(np.arange(len(bands)), 3)
    channels = []
    for group, fallback in zip(third, (0, len(bands) // 2, len(bands) - 1), strict=True):
        chosen = group if len(group) else [fallback]
        mean = np.mean([bands[index] for index in chosen], axis=0)
        level = np.percentile(mean, 99.5) - np.median(mean)
        channels.append((mean - np.median(mean)) / max(level, 1e-12))
    picture = np.stack(channels, axis=-1)
    total = picture.mean(-1, keepdims=True)
    stretched = np.arcsinh(12 * np.clip(total, 0, None)) / np.arcsinh(12.0)
    return np.clip(picture * stretched / np.where(np.abs(total) > 1e-6, total, 1.0), 0.0, 1.0)


def binned(spectrum: Spectrum, points: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Inverse-variance means of neighbouring pixels: (wavelength in Angstrom, flux)."""
    step = max(1, len(spectrum.flux) // points)
    length = len(spectrum.flux) // step * step

    def cut(values: np.ndarray) -> np.ndarray:
        return np.asarray(values[:length], dtype=float).reshape(-1, step)

    flux, ivar = cut(spectrum.flux), cut(spectrum.ivar)
    weight = ivar.sum(1)
    good = weight > 0
    mean = (flux * ivar).sum(1)[good] / weight[good]
    return cut(spectrum.wavelength).mean(1)[good], mean


def _range(values: np.ndarray) -> tuple[float, float]:
    """Limits that hold all but the wildest half percent."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(finite, [0.3, 99.7])
    margin = 0.12 * max(high - low, 1e-12)
    return float(low - 1.5 * margin), float(high + margin)
