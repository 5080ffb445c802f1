"""Pictures of a cube predicted and observed: maps side by side, and the spectra of two spaxels.

Spaxels are squares where they lie, north up and east left, so that grids with holes and lists of
apertures are drawn alike.

Axes: quantity, draw, spaxel, pixel.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from probmmae.calibration.manga_chapter import ChapterGalaxy
from probmmae.inference.figures import POSTERIOR, TRUTH, draw_lines
from probmmae.spectral_maps import QUANTITIES

_ROWS = {
    "h_alpha": "H\u03b1 flux", "h_alpha_ew": "H\u03b1 equivalent width",
    "velocity": "velocity of the gas", "stellar_velocity": "velocity of the stars",
    "d4000": "D4000",
}  # fmt: skip
_LOGARITHMIC = ("h_alpha",)


def chapter_figure(judged: ChapterGalaxy) -> Figure:
    """A row a quantity: predicted, observed, their difference in sigma; then two spectra.

    The prediction is the median of the draws as they came; the difference is that of the mean
    with the level fitted, over the spread of the draws and the error of the data together.
    """
    rows = [name for name in _ROWS if _told(judged, name)]
    marked = _marked(judged) if judged.spectra is not None else []
    height = 2.3 * len(rows) + 1.5 * len(marked) + 0.3
    figure = Figure(figsize=(9.0, height), layout="constrained", dpi=120)
    parts = figure.subfigures(
        2 if marked else 1, 1, squeeze=False,
        height_ratios=[2.3 * len(rows), 1.5 * len(marked)] if marked else [1.0],
    )[:, 0]  # fmt: skip
    axes = parts[0].subplots(len(rows), 3, squeeze=False)
    for row, name in zip(axes, rows, strict=True):
        _draw_row(row, judged, name)
    if marked:
        panels = parts[1].subplots(len(marked), 1, squeeze=False, sharex=True)[:, 0]
        for axis, spaxel in zip(panels, marked, strict=True):
            _draw_spectrum(axis, judged, spaxel)
        panels[0].legend(fontsize=6, ncols=3, frameon=False, loc="upper right")
        panels[-1].set_xlabel("observed wavelength (vacuum) [\u00c5]", fontsize=8)
    return figure


def _told(judged: ChapterGalaxy, name: str) -> bool:
    drawn, known = judged.maps.quantity(name)
    return bool((np.isfinite(known) & np.isfinite(drawn).any(0)).sum() >= 3)


def _marked(judged: ChapterGalaxy) -> list[int]:
    """The spaxel in the middle, and one near the half-light radius."""
    away = judged.maps.radius
    return list(dict.fromkeys([int(away.argmin()), int(np.abs(away - 1).argmin())]))


def _draw_row(row: Any, judged: ChapterGalaxy, name: str) -> None:
    drawn, known = judged.maps.quantity(name)
    error = np.nan_to_num(judged.maps.error[list(QUANTITIES).index(name)])
    fitted = judged.calibrated().quantity(name)[0]
    with np.errstate(all="ignore"):
        middle = np.nanmedian(drawn, 0)
        apart = known - np.nanmean(fitted, 0)
        apart = apart / np.sqrt(np.nanvar(fitted, 0) + error**2)
        if name in _LOGARITHMIC:
            middle, known = (np.log10(np.where(one > 0, one, np.nan)) for one in (middle, known))
    both = np.concatenate([middle, known])
    both = both[np.isfinite(both)]
    low, high = np.percentile(both, [3, 97]) if len(both) else (0.0, 1.0)
    colours = "viridis"
    if "velocity" in name:
        high = max(abs(low), abs(high))
        low, colours = -high, "RdBu_r"
    unit = f"log {QUANTITIES[name]}" if name in _LOGARITHMIC else QUANTITIES[name]
    for axis, values, title, label, scale in (
        (row[0], middle, f"{_ROWS[name]}, predicted", unit, (colours, low, high)),
        (row[1], known, f"{_ROWS[name]}, observed", unit, (colours, low, high)),
        (row[2], apart, "observed less predicted", "sigma", ("RdBu_r", -4.0, 4.0)),
    ):
        _draw_map(axis, judged, values, title, label, scale)


def _draw_map(
    axis: Any,
    judged: ChapterGalaxy,
    values: NDArray[Any],
    title: str,
    label: str,
    scale: tuple[str, float, float],
) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    half = judged.side / 2
    seen = np.isfinite(values)
    squares = [
        Rectangle((x - half, y - half), judged.side, judged.side)
        for x, y in judged.place[seen]
    ]  # fmt: skip
    shown = PatchCollection(squares, cmap=scale[0], linewidths=0)
    shown.set_array(values[seen])
    shown.set_clim(scale[1], scale[2])
    axis.add_collection(shown)
    reach = np.abs(judged.place).max() + judged.side
    axis.set(xlim=(reach, -reach), ylim=(-reach, reach), aspect="equal")
    axis.set_facecolor("0.92")
    axis.set_title(title, fontsize=8)
    axis.tick_params(labelsize=6)
    bar = axis.figure.colorbar(shown, ax=axis, shrink=0.85)
    bar.ax.tick_params(labelsize=6)
    bar.set_label(label, fontsize=6)


def _draw_spectrum(axis: Any, judged: ChapterGalaxy, spaxel: int) -> None:
    at, drawn = judged.cube.wavelength, judged.cube.draws[:, spaxel]
    low, middle, high = np.nanquantile(drawn, [0.05, 0.5, 0.95], axis=0)
    assert judged.spectra is not None
    seen = judged.spectra[spaxel]
    axis.plot(at, seen, color=TRUTH, lw=0.4, alpha=0.8, label="observed")
    axis.fill_between(at, low, high, color=POSTERIOR, alpha=0.3, lw=0, label="draws, 90 %")
    axis.plot(at, middle, color=POSTERIOR, lw=0.6, label="median of the draws")
    both = np.concatenate([seen[np.isfinite(seen)], middle[np.isfinite(middle)]])
    if both.size:
        top = float(np.percentile(both, 99.5))
        axis.set_ylim(min(0.0, float(np.percentile(both, 0.5))), 1.5 * top)
    axis.set_xlim(at[0], at[-1])
    x, y = judged.place[spaxel]
    axis.set_title(f"({x:+.1f}, {y:+.1f}) arcsec", fontsize=7, loc="left")
    axis.tick_params(labelsize=6)
    draw_lines(axis, float(np.median(judged.cube.z)))
