"""The simulated population beside real galaxies: colours and magnitudes over redshift, one figure.

    python benchmarks/population_figure.py MAIN_SAMPLE.csv.gz BOSS.csv.gz

The real tables are the SDSS main galaxy sample (r below 17.8) and BOSS (red and massive by
selection); the simulator is limited at r about 20.5 without a colour cut. So its colours should
cover the main sample's blue cloud and red sequence, and its red sequence should run through BOSS;
the numbers printed are medians and scatters of the simulated galaxies that pass a similar cut.
"""

import argparse
import itertools
import os
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from probmmae.simulator.bandpasses import SDSS
from probmmae.simulator.population import draw_population, population_photometry

BANDS = "ugriz"


def read(path: Path) -> dict[str, Any]:
    """Magnitudes (n, 5) and redshifts of a catalogue, whichever names its columns have."""
    table = pd.read_csv(path)
    columns = {name.lower(): name for name in table.columns}

    def column(*names: str) -> Any:
        found = [columns[name] for name in names if name in columns]
        if not found:
            raise ValueError(
                f"Expected one of {names}; got {list(table.columns)}. Check the table."
            )
        return table[found[0]].to_numpy(float)

    z = column("zs", "z_spec", "redshift", "z")
    named = [(f"mag_{band}", band) for band in BANDS]
    return {"magnitude": np.stack([column(*names) for names in named], axis=1), "z": z}


def quantiles(name: str, sample: dict[str, Any], edges: Any) -> None:
    """Print the 5, 50 and 95 % points of the colours in redshift bins."""
    magnitude, z = sample["magnitude"], sample["z"]
    for low, high in itertools.pairwise(edges):
        inside = (z > low) & (z < high)
        if inside.sum() < 30:
            continue
        parts = []
        for i in range(4):
            colour = magnitude[inside, i] - magnitude[inside, i + 1]
            points = np.nanpercentile(colour, [5, 25, 50, 75, 95])
            parts.append(f"{BANDS[i]}-{BANDS[i + 1]} " + " ".join(f"{x:5.2f}" for x in points))
        print(f"{name:>10} {low:.2f}-{high:.2f} n={inside.sum():5d}  " + " | ".join(parts))


def main() -> None:
    """Draw, compare, write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("main_sample", type=Path)
    parser.add_argument("boss", type=Path)
    parser.add_argument("-n", type=int, default=100_000)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/figures/population.png"))
    options = parser.parse_args()

    generator = torch.Generator().manual_seed(11)
    population = draw_population(options.n, generator)
    flux = population_photometry(population, SDSS)
    magnitude = (22.5 - 2.5 * torch.log10(flux.clamp(min=1e-6))).numpy()
    simulated = {"magnitude": magnitude, "z": population.z.numpy()}
    bright = {name: value[magnitude[:, 2] < 17.8] for name, value in simulated.items()}
    r, i = magnitude[:, 2], magnitude[:, 3]
    red = (i < 19.9) & (magnitude[:, 1] - i > 1.6)
    cut = {name: value[red] for name, value in simulated.items()}
    real, boss = read(options.main_sample), read(options.boss)
    print(f"r magnitude of all simulated, 5 50 95 %: {np.percentile(r, [5, 50, 95]).round(2)}")
    quantiles("real MGS", real, np.array([0.02, 0.06, 0.1, 0.15, 0.2]))
    quantiles("sim r<17.8", bright, np.array([0.02, 0.06, 0.1, 0.15, 0.2]))
    quantiles("BOSS", boss, np.array([0.2, 0.3, 0.4, 0.5, 0.6]))
    quantiles("sim red", cut, np.array([0.2, 0.3, 0.4, 0.5, 0.6]))

    figure, axes = plt.subplots(2, 3, figsize=(13, 7.5), constrained_layout=True)
    show = slice(0, 8000)
    for row, (real_one, like, label, z_max) in enumerate(
        ((real, bright, "SDSS main sample", 0.25), (boss, cut, "BOSS", 0.65))
    ):
        for axis, (first, second) in zip(axes[row, :2], ((1, 2), (2, 3)), strict=True):
            for sample, colour, name in (
                (simulated, "0.75", "simulated, all"),
                (like, "tab:blue", "simulated, similar cut"),
                (real_one, "tab:orange", label),
            ):
                m = sample["magnitude"][show]
                axis.plot(
                    sample["z"][show],
                    m[:, first] - m[:, second],
                    ".",
                    ms=1.2,
                    c=colour,
                    label=name,
                )
            axis.set(xlim=(0, z_max), ylim=(-0.2, 2.2 if first == 1 else 1.4), xlabel="redshift")
            axis.set_ylabel(f"{BANDS[first]} - {BANDS[second]} (AB mag)")
        axes[row, 0].legend(markerscale=8, loc="upper left", fontsize=8)
    bins = np.linspace(14, 24, 60)
    axes[0, 2].hist(r, bins, histtype="step", color="0.4", label="simulated", density=True)
    axes[0, 2].hist(
        real["magnitude"][:, 2], bins, histtype="step", label="main sample", density=True
    )
    axes[0, 2].hist(boss["magnitude"][:, 2], bins, histtype="step", label="BOSS", density=True)
    axes[0, 2].set(xlabel="r (AB mag)", ylabel="density")
    axes[0, 2].legend()
    bins = np.linspace(0, 0.7, 60)
    for sample, label in ((simulated, "simulated"), (real, "main sample"), (boss, "BOSS")):
        axes[1, 2].hist(sample["z"], bins, histtype="step", density=True, label=label)
    axes[1, 2].set(xlabel="redshift", ylabel="density")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    partial = options.output.with_name("." + options.output.name)
    figure.savefig(partial, dpi=110, format="png")
    os.replace(partial, options.output)


if __name__ == "__main__":
    main()
