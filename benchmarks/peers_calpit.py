"""Cal-PIT on densities from a file; runs in the peers' environment (`make .peers/.photoz`).

`python peers_calpit.py --arrays arrays.npz -o out.npz`: grid, and for "fit" and "test" features
(galaxy, feature) and densities per unit of the grid (galaxy, grid); truths of "fit". What it
writes holds the densities of "test" after recalibration, and the seconds of CPU.
"""

import argparse
import time

import numpy as np
from calpit import CalPIT, GridCDE


def main() -> None:
    """Fit with its own settings, and recalibrate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arrays", required=True)
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    with np.load(options.arrays) as stored:
        told = dict(stored)
    mean, deviation = told["fit_x"].mean(axis=0), told["fit_x"].std(axis=0)
    fit_x, test_x = ((told[f"{part}_x"] - mean) / deviation for part in ("fit", "test"))
    began = time.process_time()
    fit = CalPIT().fit(fit_x, told["fit_z"], GridCDE(told["fit_pdf"], told["grid"]))
    after = fit.transform(test_x, GridCDE(told["test_pdf"], told["grid"]))
    seconds = time.process_time() - began
    np.savez(options.output, pdf=np.asarray(after.pdf), seconds=seconds)


if __name__ == "__main__":
    main()
