"""What a cube costs: spectra per second against one position at a time, and memory."""

import resource
import time
from dataclasses import replace

import numpy as np
from report_set import REPORT_SEED
from results_file import Figure, at_least, at_most, figure

from probmmae.inference.cube import MANGA_WAVELENGTH, cube, spectra
from probmmae.inference.posterior import Model
from probmmae.simulated import simulated_galaxies
from probmmae.spaxels import Spaxels, square
from probmmae.spectral_maps import QUANTITIES

FULL, DRAWS, LEVELS = 74, 200, 3
SPAXELS = 78
"""That are computed; the answer is that of all 74 x 74."""


def cost_figures(model: Model) -> list[Figure]:
    """Speed, and peak memory of 200 draws of 74 x 74 x 4563."""
    whole = next(simulated_galaxies(1, seed=REPORT_SEED, spectra=1))
    galaxy = replace(whole, spectra=(), photometry=())
    grid = square(FULL)
    middle = np.hypot(*grid.aperture[:, :2].T).argsort()[:SPAXELS]
    some = Spaxels(grid.aperture[middle], grid.share[middle], None)
    # Memory first: a process keeps its peak. What the whole answer will hold is held meanwhile.
    pixels = FULL**2 * len(MANGA_WAVELENGTH)
    held = [np.ones(pixels, np.float32) for _ in range(2 + LEVELS)]
    held.append(np.ones(len(QUANTITIES) * DRAWS * FULL**2, np.float32))
    posterior = model.condition(galaxy, draws=DRAWS)
    began = time.process_time()
    cube(posterior, some)
    spent = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    answer = sum(each.nbytes for each in held) / 2**30
    del held
    began = time.process_time()
    for _ in spectra(posterior, some):
        pass
    ours = SPAXELS * DRAWS / (time.process_time() - began)
    began, tried = time.process_time(), 12
    for spaxel in range(tried):
        one = model.condition(galaxy, draws=1)
        one.spectrum(MANGA_WAVELENGTH, some.at(spaxel % len(some)))
    alone = tried / (time.process_time() - began)
    return [
        figure("peak memory of 200 draws of 74 x 74 x 4563, the process whole (GiB)", peak, n=1,
               goal="below 2", met=at_most(peak, 2.0)),
        figure("of that the answer (GiB)", answer, n=1),
        figure("spectra of a cube per second of one core", ours, n=SPAXELS * DRAWS),
        figure("the same with statistics and maps of every draw", SPAXELS * DRAWS / spent,
               n=SPAXELS * DRAWS),
        figure("spectra per second, one position and draw at a time, the encoder run each time",
               alone, n=tried),
        figure("spectra per second of a cube over one position at a time", ours / alone, n=tried,
               goal="at least 50", met=at_least(ours / alone, 50.0)),
    ]  # fmt: skip
