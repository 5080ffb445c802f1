"""Times and answers of sbi.diagnostics on arrays from a file; runs in the peers' environment.

`python peers_sbi.py --arrays arrays.npz -o out.npz`: draws (draw, galaxy, quantity), truth and
references (galaxy, quantity), the last in units that make distances Euclidean.
"""

import argparse
import time

import numpy as np
import torch
from sbi.diagnostics import sbc, tarp


def main() -> None:
    """Ranks and expected coverage, and the seconds of CPU that each took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arrays", required=True)
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(options.arrays) as stored:
        draws, truth, points = (
            torch.tensor(stored[name]) for name in ("draws", "truth", "references")
        )
    began = time.process_time()
    nothing = torch.zeros(len(truth), 1)
    ranks = sbc._run_sbc(truth, nothing, draws, show_progress_bar=False)
    middle = time.process_time()
    coverage, level = tarp._run_tarp(draws, truth, points, num_bins=50)
    end = time.process_time()
    np.savez(
        options.output,
        ranks=ranks.numpy(),
        coverage=coverage.numpy(),
        level=level.numpy(),
        seconds=np.array([middle - began, end - middle]),
    )


if __name__ == "__main__":
    main()
