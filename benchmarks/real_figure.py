"""A few real cases and all real redshifts: docs/figures/real.png.

    python benchmarks/real_figure.py --data DATA [--checkpoint RUN]

Axes: draw, galaxy, pixel.
"""

import argparse
import os
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from real_answers import GRID, Answer, answer
from real_hidden import predict
from real_set import boss, sdss, split_by_reach, triples
from report_set import on_grid

from probmmae import checkpoint
from probmmae.batch import Batch
from probmmae.collate import collate
from probmmae.model import GalaxyModel

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "real.png"
_SMOOTH = 9
"""Pixels over which the plotted data are averaged."""
_SEED = 4


def draw_redshifts(axes: Axes, answers: list[Answer]) -> None:
    """Median and central 90 % interval against the spectroscopic redshift."""
    for index, one in enumerate(answers):
        low, middle, high = one.density.icdf(torch.tensor([[0.05], [0.5], [0.95]])).numpy()
        axes.errorbar(
            one.z, middle, yerr=(middle - low, high - middle), fmt="o", markersize=3,
            linewidth=0.7, color=f"C{index}", label=f"{one.label} ({len(one.z)})",
        )  # fmt: skip
    axes.plot([0, 0.7], [0, 0.7], color="black", linewidth=0.7)
    axes.set(xlabel="spectroscopic redshift", ylabel="median and 90 % interval")
    axes.set(xlim=(0, 0.7), ylim=(0, 1.0))
    axes.legend(fontsize=7)


def draw_spectrum(axes: Axes, network: GalaxyModel, batch: Batch, name: str) -> None:
    """Measured pixels, shown and hidden, under the 5-95 % band and three draws of the spectrum."""
    generator = torch.Generator().manual_seed(_SEED)
    flux, judged, _ = predict(network, batch, "random", draws=48, generator=generator)
    wavelength = batch.spectra.wavelength[0, 0].numpy()
    ivar = batch.spectra.ivar[0, 0].numpy()
    weight = np.convolve(ivar, np.ones(_SMOOTH), mode="same")
    data = np.convolve(batch.spectra.flux[0, 0].numpy() * ivar, np.ones(_SMOOTH), mode="same")
    data = np.where(weight > 0, data / np.maximum(weight, 1e-12), np.nan)
    use = ivar > 0
    low, high = np.quantile(flux[:, 0], (0.05, 0.95), axis=0)
    axes.fill_between(wavelength[use], low[use], high[use], color="C1", alpha=0.35, linewidth=0)
    for spectrum in flux[:3, 0]:
        axes.plot(wavelength[use], spectrum[use], color="C1", linewidth=0.4)
    hidden = judged[0]
    axes.plot(wavelength, np.where(hidden, data, np.nan), color="0.5", linewidth=0.6)
    axes.plot(wavelength, np.where(hidden, np.nan, data), color="black", linewidth=0.8)
    top = 1.5 * float(np.nanquantile(data[use], 0.99))
    axes.set(ylim=(min(0.0, float(np.nanquantile(data[use], 0.01))), top))
    axes.set_title(
        f"{name}, z = {float(batch.z[0]):.3f}: shown (black), hidden (grey)", fontsize=8
    )
    axes.set(xlabel="observed wavelength, Angstrom", ylabel="1e-17 erg/s/cm2/Angstrom")


def draw_image(axes: Axes, one: Answer, batch: Batch, row: int) -> None:
    """p(z | two HST images) with the image as an inset."""
    pdf, _ = on_grid(one.density, GRID)
    axes.plot(GRID, pdf[row], color="C2")
    axes.axvline(one.z[row], color="black", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 0.9), ylim=(0, None), xlabel="redshift", ylabel="density")
    axes.set_title("HST F606W + F814W to redshift (dotted: Keck spectrum)", fontsize=8)
    inset = axes.inset_axes((0.62, 0.5, 0.36, 0.46))
    inset.imshow(np.arcsinh(batch.images.flux[row, 1].numpy() / 0.02), origin="lower", cmap="gray")
    inset.set(xticks=[], yticks=[])


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=None, help="default: the shipped one")
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data")
    parser.add_argument("--out", type=Path, default=FIGURE)
    options = parser.parse_args()
    matplotlib.use("Agg")
    network = checkpoint.load_model(options.checkpoint)
    found = [split_by_reach(each(options.data))[0] for each in (boss, sdss, triples)]
    batches = [collate(galaxies) for galaxies in found]
    asked = (
        ("BOSS spectra", "spectrum"), ("SDSS spectra", "spectrum"), ("HST images", "image"),
    )  # fmt: skip
    answers = [
        answer(network, batch, what, label=label)
        for batch, (label, what) in zip(batches, asked, strict=True)
    ]
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), layout="constrained")
    draw_redshifts(axes[0, 0], answers)
    draw_image(axes[0, 1], answers[2], batches[2], 6)
    for place, which, name in ((axes[1, 0], 0, "BOSS"), (axes[1, 1], 1, "SDSS")):
        signal = batches[which].spectra.flux[:, 0] * batches[which].spectra.ivar[:, 0].sqrt()
        # A case of the middle of the sample, not one that came out well.
        row = int(signal.mean(1).argsort()[len(signal) // 2])
        draw_spectrum(place, network, batches[which].take(slice(row, row + 1)), name)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    partial = options.out.with_name(f".{options.out.name}.partial")
    figure.savefig(partial, dpi=110, format="png")
    os.replace(partial, options.out)


if __name__ == "__main__":
    main()
