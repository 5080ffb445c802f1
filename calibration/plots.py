"""Figures of a report, as SVG that follows the page: its text colour, light or dark, any width.

From evidence to SVG text with colours that are variables of the page's style sheet. Most curves
are drawn by the results' own `plot`; what several results share is drawn here.

Axes: galaxy, bin (of a histogram), level.
"""

import re
from collections.abc import Callable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from probmmae.calibration.conditional import Cell
from probmmae.calibration.coverage import Coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.float64]
T = TypeVar("T")
Draw = Callable[["Axes"], None]

_COLOURS = {
    "#2b6cb0": "var(--before)",
    "#c05621": "var(--after)",
    "#c53030": "var(--bad)",
    "#d9d9d9": "var(--band)",
    "#b2b2b2": "var(--band)",
    "#b3b3b3": "var(--band)",
    "#808080": "var(--muted)",
    "#000000": "currentColor",
}
"""What matplotlib writes, and what the page shows."""
_CYCLE = ("#2b6cb0", "#c05621", "#2b6cb0", "#c53030")


def svg(draw: Draw, *, name: str, size: tuple[float, float] = (3.0, 2.2)) -> str:
    """A figure of one panel as an <svg> element.

    Args:
        draw: Draws on the axes.
        name: What it shows, read out where it cannot be seen; also keeps the identifiers of
            figures on one page apart.
        size: Width and height, inches; the page scales it.
    """
    return svgs([draw], names=[name], size=size)[0]


def svgs(
    draws: Sequence[Draw], *, names: Sequence[str], size: tuple[float, float] = (3.0, 2.2)
) -> list[str]:
    """Figures to compare: the same limits on all, and a colour each. Arguments as in `svg`."""
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "font.size": 8.5,
        "axes.labelsize": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
    }
    # A result draws in the first colour of the cycle, "C0": before, then after. Names of colours
    # are looked up again when the figure is written.
    styles: list[Any] = [
        {**style, "svg.hashsalt": name, "axes.prop_cycle": cycler(color=(colour, *_CYCLE[1:]))}
        for name, colour in zip(names, _CYCLE, strict=False)
    ]
    panels = []
    for draw, own in zip(draws, styles, strict=True):
        with matplotlib.rc_context(own):
            panels.append(Figure(figsize=size, layout="constrained").subplots())
            draw(panels[-1])
    _same_limits(panels)
    found = []
    for axes, name, own in zip(panels, names, styles, strict=True):
        text = StringIO()
        with matplotlib.rc_context(own):
            assert isinstance(axes.figure, Figure)
            axes.figure.savefig(text, format="svg", transparent=True)
        found.append(_for_page(text.getvalue(), name))
    return found


def _same_limits(panels: "Sequence[Axes]") -> None:
    for axis in ("x", "y"):
        limits = [getattr(axes, f"get_{axis}lim")() for axes in panels]
        ends = [end for pair in limits for end in pair]
        falls = limits[0][0] > limits[0][1]
        shared = (max(ends), min(ends)) if falls else (min(ends), max(ends))
        for axes in panels:
            getattr(axes, f"set_{axis}lim")(*shared)


def _for_page(text: str, name: str) -> str:
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    # Names of groups repeat from figure to figure; those of clips and markers are salted.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    # A family holds double quotes as entities in some versions.
    body = re.sub(r"(font(?:-family)?:[^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1sans-serif", body)
    for written, shown in _COLOURS.items():
        body = body.replace(written, shown)
    label = name.replace("&", "and").replace('"', "'").replace("<", "below")
    return re.sub(
        r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg height="[^"]*" width="[^"]*"',
        lambda found: f'<svg role="img" aria-label="{label}" {found.group(1) or ""}',
        body,
        count=1,
    )


def pit_histogram(pit: FloatArray) -> Draw:
    """The PIT in bins over its mean, with the band that 99 % of exact bins stay in."""
    values = pit[~np.isnan(pit)]
    bins = int(np.clip(values.size // 40, 5, 20))

    def draw(axes: "Axes") -> None:
        counts, edges = np.histogram(values, bins, (0, 1))
        mean = values.size / bins
        low, high = stats.binom.ppf([0.005, 0.995], values.size, 1 / bins) / mean
        axes.axhspan(low, high, color="#d9d9d9", lw=0)
        axes.axhline(1.0, color="#808080", lw=0.8)
        axes.stairs(counts / mean, edges, color="C0", lw=1.4)
        axes.set(xlabel="PIT", ylabel="galaxies / expected", xlim=(0, 1), ylim=(0, None))

    return draw


def coverage_curve(results: Sequence[Coverage]) -> Draw:
    """Observed less nominal coverage of each level, with intervals."""

    def draw(axes: "Axes") -> None:
        level = 100 * np.array([one.level for one in results])
        value = 100 * np.array([one.value for one in results])
        ends = 100 * np.array([[one.value - one.low, one.high - one.value] for one in results]).T
        axes.axhline(0.0, color="#808080", lw=0.8)
        axes.errorbar(level, value - level, yerr=ends, fmt="o", ms=4, capsize=3, color="C0")
        reach = 1.15 * max(2.0, float(np.max(np.abs(value - level) + ends)))
        axes.set(
            xlabel="nominal coverage [%]", ylabel="observed - nominal [%]",
            xlim=(40, 100), ylim=(-reach, reach),
        )  # fmt: skip

    return draw


def coverage_rows(
    names: Sequence[str], before: Sequence[Coverage], after: Sequence[Coverage]
) -> Draw:
    """Coverage of one level, a row a quantity, before and (where there is any) after repair."""

    def draw(axes: "Axes") -> None:
        axes.axvline(100 * before[0].level, color="#808080", lw=0.8)
        for offset, label, results, colour in _sides(before, after):
            value = 100 * np.array([one.value for one in results])
            ends = [[one.value - one.low, one.high - one.value] for one in results]
            axes.errorbar(
                value, np.arange(len(names)) + offset, xerr=100 * np.array(ends).T, fmt="o",
                ms=4, color=colour, label=label,
            )  # fmt: skip
        _rows(axes, names, f"coverage of {100 * before[0].level:.0f} % intervals [%]")

    return draw


def width_rows(before: Sequence[Cell], after: Sequence[Cell], *, failing: float) -> Draw:
    """Width error of each bin, before and (where there is any) after repair.

    Args:
        before: Bins.
        after: The same ones, or none.
        failing: A bin whose corrected p-value is at most this is ringed.
    """

    def draw(axes: "Axes") -> None:
        axes.axvline(0.0, color="#808080", lw=0.8)
        for offset, label, results, colour in _sides(before, after):
            widths = [one.departure.width for one in results]
            value = 100 * np.array([one.value for one in widths])
            ends = [[one.value - one.low, one.high - one.value] for one in widths]
            place = np.arange(len(before)) + offset
            axes.errorbar(
                value, place, xerr=100 * np.array(ends).T, fmt="o", ms=4, color=colour, label=label
            )
            bad = np.array([one.adjusted <= failing for one in results])
            axes.plot(value[bad], place[bad], "o", ms=8.5, mfc="none", mec="#c53030", mew=1.3)
        names = [f"{cell.condition} {cell.label}" for cell in before]
        _rows(axes, names, "width error [%]")

    return draw


def _sides(before: Sequence[T], after: Sequence[T]) -> list[tuple[float, str, Sequence[T], str]]:
    """Where in its row a side stands, what it is called, its results and its colour."""
    if not after:
        return [(0.0, "", before, "#2b6cb0")]
    return [
        (-0.16, "before repair", before, "#2b6cb0"),
        (0.16, "after repair", after, "#c05621"),
    ]


def _rows(axes: "Axes", names: Sequence[str], label: str) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel=label, ylim=(len(names) - 0.5, -0.5))
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
