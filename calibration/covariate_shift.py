"""Density ratios between two samples: how much more often the target has a galaxy of this kind.

From covariates of a calibration sample (such as galaxies with spectroscopic redshifts) and of a
target sample (the photometric catalogue) to the weights that weighted conformal intervals need.

Axes: galaxy, covariate.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import spatial

FloatArray = NDArray[np.float64]


def density_ratio(
    at: ArrayLike, *, calibration: ArrayLike, target: ArrayLike, neighbours: int = 50
) -> FloatArray:
    """Target density over calibration density by counting neighbours.

    Within the distance to the k-th nearest calibration galaxy there are c target galaxies; the
    ratio is (c / n_target) / (k / n_calibration). Covariates are standardised by the calibration
    sample. Where the calibration sample is sparse the ball is wide and the ratio is smoothed; far
    from it no estimate can help: leave such galaxies out.

    Args:
        at: Where to estimate it, shape (galaxy, covariate). A calibration galaxy counts itself.
        calibration: Shape (calibration, covariate).
        target: Shape (target, covariate).
        neighbours: The k above.

    Returns:
        Ratios, shape (galaxy,), 0 where no target galaxy is near.

    Raises:
        ValueError: The numbers of covariates disagree, a value is not finite, or there are fewer
            calibration galaxies than neighbours.

    References:
        Lima et al. 2008, "Estimating the redshift distribution of photometric galaxy samples",
        equation 20 ff., https://arxiv.org/abs/0801.3822
    """
    where, own, other = (np.asarray(a, dtype=np.float64) for a in (at, calibration, target))
    if not where.ndim == own.ndim == other.ndim == 2 or len(
        {where.shape[1], own.shape[1], other.shape[1]}
    ) != 1:  # fmt: skip
        raise ValueError(
            "Expected at, calibration and target of shape (galaxy, covariate) with the same "
            f"covariates; got {where.shape}, {own.shape} and {other.shape}. Stack covariates "
            "along the last axis."
        )
    if not all(np.isfinite(part).all() for part in (where, own, other)):
        raise ValueError(
            "Expected finite covariates; got NaN or infinity. Fill what is missing with a "
            "constant and add a column that says so."
        )
    if not 1 <= neighbours <= len(own) or len(other) == 0:
        raise ValueError(
            f"Expected at least {neighbours} calibration galaxies and one target galaxy; got "
            f"{len(own)} and {len(other)}. Lower `neighbours`."
        )
    centre, width = own.mean(axis=0), own.std(axis=0)
    width = np.where(width > 0, width, 1.0)
    where, own, other = ((part - centre) / width for part in (where, own, other))
    distance, _ = spatial.cKDTree(own).query(where, k=[neighbours])
    counts = spatial.cKDTree(other).query_ball_point(where, distance[:, 0], return_length=True)
    return np.asarray(counts / len(other) * len(own) / neighbours)
