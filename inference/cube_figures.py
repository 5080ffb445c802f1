"""Pictures of cubes: maps beside what is true or was observed, spectra of spaxels, BPT diagram.

North is up and east left, as astronomers draw the sky. Figures are matplotlib's object API.

Axes: draw, spaxel, wavelength, quantity, y, x.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probmmae.inference.cube import Cube
from probmmae.inference.figures import (
    POSTERIOR,
    TRUTH,
    draw_images,
    draw_lines,
)
from probmmae.spaxels import Grid
from probmmae.spectral_maps import QUANTITIES, SpectralMaps

_LOGARITHMIC = {"h_alpha", "h_beta", "o_iii", "n_ii", "o_ii", "s_ii", "continuum"}
_NAMES = {
    "h_alpha": "H\u03b1", "h_beta": "H\u03b2", "o_iii": "[O III]", "n_ii": "[N II]",
    "o_ii": "[O II]", "s_ii": "[S II]", "d4000": "D4000", "continuum": "stellar continuum",
    "velocity": "velocity of the gas", "dispersion": "dispersion of the gas",
    "stellar_velocity": "velocity of the stars",
}  # fmt: skip
_MARKS = ("#dd6b20", "#38a169", "#805ad5", "#d53f8c")


def cube_figure(
    cube: Cube,
    quantities: Sequence[str] = ("h_alpha", "velocity", "d4000"),
    *,
    against: SpectralMaps | None = None,
    spectra: Any = None,
    marked: Sequence[int] = (),
    said: str = "true",
) -> Figure:
    """Image and maps, a row a quantity, and below them the spectra of marked spaxels.

    A row shows the median of the draws, what it is held against, and the difference of mean and
    that in standard deviations of the draws and of its error together.

    Args:
        cube: The draws' answer.
        quantities: Of `QUANTITIES`.
        against: True or observed maps of the same spaxels, measured by the same module.
        spectra: True or observed flux of the same spaxels, (spaxel, wavelength).
        marked: Spaxels whose spectra are drawn, by number; at most four.
        said: What `against` is: "true" or "observed".

    Raises:
        ValueError: Spaxels on no grid, an unknown quantity, or more than four marks.
    """
    grid = _grid(cube)
    if len(marked) > len(_MARKS):
        raise ValueError(f"Expected at most {len(_MARKS)} marked spaxels; got {len(marked)}.")
    columns = 2 if against is None else 4
    height = 2.5 * len(quantities) + 1.5 * len(marked) + 0.4
    figure = Figure(figsize=(2.9 * columns + 0.6, height), layout="constrained", dpi=130)
    upper, lower = (
        figure.subfigures(
            2, 1, squeeze=False, height_ratios=[2.5 * len(quantities), 1.5 * len(marked)]
        )[:, 0]
        if len(marked)
        else (figure, None)
    )
    axes = upper.subplots(len(quantities), columns, squeeze=False)
    draw_images(axes[0][0], cube.galaxy)
    for row in axes[1:]:
        row[0].set_axis_off()
    _mark(axes[0][0], cube, marked)
    for row, name in zip(axes, quantities, strict=True):
        _draw_row(row[1:], cube, grid, name, against, said)
        _mark(row[1], cube, marked)
    if lower is not None:
        panels = lower.subplots(len(marked), 1, squeeze=False, sharex=True)[:, 0]
        for axis, spaxel, colour in zip(panels, marked, _MARKS, strict=False):
            _draw_spaxel(axis, cube, spaxel, spectra, said)
            for side in axis.spines.values():
                side.set_color(colour)
        panels[0].legend(fontsize=6, ncols=4, frameon=False, loc="upper right")
        panels[-1].set_xlabel("observed wavelength (vacuum) [\u00c5]", fontsize=8)
    return figure


def bpt_figure(
    maps: Float[np.ndarray, "quantity draw spaxel"],
    *,
    against: SpectralMaps | None = None,
    least: float = 1.0,
) -> Figure:
    """[O III]/H-beta over [N II]/H-alpha of the spaxels, with the draws' 68 % intervals.

    Spaxels count whose median H-alpha equivalent width exceeds `least`, and whose four lines are
    positive in most draws. Curves: Kauffmann et al. 2003 (https://arxiv.org/abs/astro-ph/0304239,
    dashed) and Kewley et al. 2001 (https://arxiv.org/abs/astro-ph/0106324).

    Args:
        maps: `Cube.maps`.
        against: True or observed maps of the same spaxels.
        least: Angstrom.
    """
    figure = Figure(figsize=(4.6, 4.2), layout="constrained", dpi=130)
    axes = figure.subplots()
    x, y = _ratios(maps)
    width = maps[list(QUANTITIES).index("h_alpha_ew")]
    enough = (np.isfinite(x) & np.isfinite(y)).mean(0) > 0.5
    enough &= np.nan_to_num(np.nanmedian(np.where(np.isfinite(width), width, 0.0), 0)) > least
    if enough.any():
        across, up = (
            np.nanquantile(part[:, enough], [0.16, 0.5, 0.84], axis=0) for part in (x, y)
        )
        axes.errorbar(
            across[1], up[1], xerr=[across[1] - across[0], across[2] - across[1]],
            yerr=[up[1] - up[0], up[2] - up[1]], fmt="o", ms=2.2, lw=0.4, color=POSTERIOR,
            alpha=0.6, label="draws, 68 %",
        )  # fmt: skip
    if against is not None:
        true_x, true_y = _ratios(against.value)
        axes.plot(
            true_x[enough], true_y[enough], ".", ms=3, color=TRUTH, zorder=5, label="held against"
        )
    at = np.linspace(-2.0, 0.0, 200)
    axes.plot(at[at < -0.05], 0.61 / (at[at < -0.05] - 0.05) + 1.3, "k--", lw=0.8)
    at = np.linspace(-2.0, 0.4, 200)
    axes.plot(at, 0.61 / (at - 0.47) + 1.19, "k-", lw=0.8)
    axes.set_xlim(-1.8, 0.6)
    axes.set_ylim(-1.3, 1.4)
    axes.set_xlabel("log [N II] 6585 / H\u03b1")
    axes.set_ylabel("log [O III] 5008 / H\u03b2")
    axes.set_title(f"{int(enough.sum())} spaxels with EW(H\u03b1) > {least:g} \u00c5", fontsize=8)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False)
    return figure


def _ratios(
    maps: Float[np.ndarray, "quantity *spectrum"],
) -> tuple[Float[np.ndarray, "*spectrum"], Float[np.ndarray, "*spectrum"]]:
    names = list(QUANTITIES)
    alpha, beta, oxygen, nitrogen = (
        np.where(maps[names.index(name)] > 0, maps[names.index(name)], np.nan)
        for name in ("h_alpha", "h_beta", "o_iii", "n_ii")
    )
    return np.log10(nitrogen / alpha), np.log10(oxygen / beta)


def _grid(cube: Cube) -> Grid:
    if cube.spaxels.grid is None:
        raise ValueError(
            "Expected spaxels on a grid (spaxels.hexagon, spaxels.square); got a list of "
            "apertures. Draw their spectra with figures.gallery."
        )
    return cube.spaxels.grid


def _draw_row(
    axes: Any,
    cube: Cube,
    grid: Grid,
    name: str,
    against: SpectralMaps | None,
    said: str,
) -> None:
    """Median of the draws, what it is held against, difference in sigma."""
    drawn = cube.map(name)
    told = np.isfinite(drawn).mean(0) > 0.5
    middle, mean, spread = (np.full(drawn.shape[1], np.nan) for _ in range(3))
    middle[told] = np.nanmedian(drawn[:, told], 0)
    mean[told], spread[told] = np.nanmean(drawn[:, told], 0), np.nanstd(drawn[:, told], 0)
    scale = _scale(name, middle if against is None else np.concatenate([middle, against[name]]))
    unit = QUANTITIES[name]
    title = _NAMES.get(name, f"EW {_NAMES.get(name.removesuffix('_ew'), name)}")
    label = f"log {unit}" if name in _LOGARITHMIC else unit
    _draw_map(axes[0], grid, _shown(name, middle), f"{title}, predicted", label, scale)
    if against is None:
        return
    _draw_map(axes[1], grid, _shown(name, against[name]), f"{title}, {said}", label, scale)
    error = np.nan_to_num(against.error[list(QUANTITIES).index(name)])
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = (mean - against[name]) / np.sqrt(spread**2 + error**2)
    _draw_map(axes[2], grid, apart, "difference", "sigma", ("RdBu_r", -4.0, 4.0))


def _shown(name: str, values: np.ndarray) -> np.ndarray:
    if name not in _LOGARITHMIC:
        return values
    return np.log10(np.where(values > 0, values, np.nan))


def _scale(name: str, values: np.ndarray) -> tuple[str, float, float]:
    """Colour map and its ends: symmetric for velocities."""
    shown = _shown(name, values)
    shown = shown[np.isfinite(shown)]
    if shown.size == 0:
        return "viridis", 0.0, 1.0
    low, high = np.percentile(shown, [2, 98])
    if name.endswith("velocity"):
        reach = max(abs(low), abs(high))
        return "RdBu_r", -reach, reach
    return "viridis", float(low), float(high)


def _draw_map(
    axes: Axes,
    grid: Grid,
    values: np.ndarray,
    title: str,
    label: str,
    scale: tuple[str, float, float],
) -> None:
    height, width = grid.shape
    # Columns grow to the west: the outer edges of the frame, arcsec from the galaxy.
    west, south = ((width // 2 + 0.5) * grid.side, -(height // 2 + 0.5) * grid.side)
    extent = (west, west - width * grid.side, south, south + height * grid.side)
    shown = axes.imshow(
        grid.image(values), origin="lower", extent=extent, cmap=scale[0], vmin=scale[1],
        vmax=scale[2], interpolation="nearest",
    )  # fmt: skip
    axes.set_facecolor("0.92")
    axes.set_title(title, fontsize=8)
    axes.tick_params(labelsize=6)
    bar = axes.figure.colorbar(shown, ax=axes, shrink=0.85)
    bar.ax.tick_params(labelsize=6)
    bar.set_label(label, fontsize=6)


def _mark(axes: Axes, cube: Cube, marked: Sequence[int]) -> None:
    ends = axes.get_xlim(), axes.get_ylim()
    for spaxel, colour in zip(marked, _MARKS, strict=False):
        x, y = cube.spaxels.aperture[spaxel, :2]
        axes.plot(x, y, "s", ms=5, mfc="none", mec=colour, mew=1.3)
    axes.set(xlim=ends[0], ylim=ends[1])


def _draw_spaxel(axes: Axes, cube: Cube, spaxel: int, spectra: Any, said: str) -> None:
    """The outermost quantiles as a band, the mean, and what it is held against."""
    x, y = cube.spaxels.aperture[spaxel, :2]
    at = cube.wavelength
    if len(cube.levels) > 1:
        order = np.argsort(cube.levels)
        low, high = cube.quantiles[order[0], spaxel], cube.quantiles[order[-1], spaxel]
        share = 100 * (cube.levels[order[-1]] - cube.levels[order[0]])
        axes.fill_between(at, low, high, color=POSTERIOR, alpha=0.3, lw=0, label=f"{share:.3g} %")
    axes.plot(at, cube.mean[spaxel], color=POSTERIOR, lw=0.6, label="mean")
    top = cube.mean[spaxel]
    if spectra is not None:
        top = np.asarray(spectra)[spaxel]
        axes.plot(at, top, color=TRUTH, lw=0.6, label=said)
    finite = top[np.isfinite(top)]
    if finite.size:
        axes.set_ylim(min(0.0, float(np.percentile(finite, 0.5))), 1.6 * np.percentile(finite, 99))
    axes.set_xlim(at[0], at[-1])
    axes.set_title(f"({x:+.1f}, {y:+.1f}) arcsec", fontsize=7, loc="left")
    axes.tick_params(labelsize=6)
    draw_lines(axes, float(np.median(cube.z)))
