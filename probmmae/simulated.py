"""Simulated galaxies as files and users hold them, made by several processes, in order.

Galaxy number i of a seed is the same whatever the number of processes.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from probmmae.galaxy import Galaxy, Scalar
from probmmae.simulator.stream import BLOCK, stream
from probmmae.simulator.survey import SurveySettings
from probmmae.unbatch import unbatch


def simulated_galaxies(
    n: int, seed: int, *, spectra: int = 2, workers: int = 0
) -> Iterator[Galaxy]:
    """`n` galaxies with images, photometry, `spectra` spectra and true scalars.

    The scalars are redshift, log_mass (decimal logarithm of solar masses) and log_ssfr (of
    1/year).

    Args:
        n: Number of galaxies.
        seed: The same seed gives the same galaxies.
        spectra: Apertures per galaxy.
        workers: Processes that simulate; 0 simulates in this one.

    Raises:
        ValueError: `n` or `spectra` below 1, `seed` or `workers` below 0.
    """
    if n < 1 or spectra < 1 or seed < 0 or workers < 0:
        raise ValueError(
            "Expected n >= 1, spectra >= 1, seed >= 0 and workers >= 0; "
            f"got {n}, {spectra}, {seed} and {workers}. Correct the numbers."
        )
    settings = SurveySettings(n_spectra=spectra)
    blocks = islice(stream(seed, processes=workers, settings=settings), -(-n // BLOCK))
    for index, (batch, truth) in enumerate(blocks):
        first = index * BLOCK
        names = [
            f"simulated-{seed}-{number:07d}" for number in range(first, min(n, first + BLOCK))
        ]
        for row, galaxy in enumerate(unbatch(batch.take(slice(0, len(names))), names)):
            known = {
                "log_mass": Scalar(float(truth.log_mass[row])),
                "log_ssfr": Scalar(float(truth.log_ssfr[row])),
            }
            yield replace(galaxy, scalars={**galaxy.scalars, **known})
