"""Global repair of densities: the law of the PIT of held-out galaxies, one for all.

From PIT values of held-out galaxies to a monotone map G (`inference/pit_map.py`), and from a
posterior CDF F with density f to the recalibrated one, F'(z) = G(F(z)) with density f'(z) =
g(F(z)) f(z). With G the true law of the PIT the new PIT is uniform. `recalibrate_local.py` lets
the map depend on what was observed.

Axes: galaxy, term (k), grid.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from probmmae.calibration.pit import finite_pit
from probmmae.inference.pit_map import (
    BASIS,
    KNOT_WEIGHTS,
    TERMS,
    PitMap,
    basis_at,
    cumulate,
    log_partition,
)
from probmmae.inference.stored import check_kind

FloatArray = NDArray[np.float64]

_WIDTHS = (0.03, 0.1, 0.3, 1.0)
"""Candidate prior widths of theta_1."""
LEAST_GALAXIES = 100
"""Fewer PIT values than this are refused."""


@dataclass(frozen=True)
class GlobalRecalibration:
    """One map for all galaxies."""

    coefficients: tuple[float, ...]
    """theta, by degree: shift, width, skewness, tails and two more."""
    width: float
    """Prior width of theta_1 that the data prefer; 0 is the identity map."""
    galaxies: int
    """Number of galaxies it was fitted on."""

    def pit_map(self) -> PitMap:
        """The map, of one row."""
        return PitMap.tilted(np.asarray([self.coefficients]))

    def to_dict(self) -> dict[str, Any]:
        """Every field and the kind of map, ready for JSON."""
        return {"kind": "global", **asdict(self), "coefficients": list(self.coefficients)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The map that `to_dict` stored.

        Raises:
            ValueError: Another kind of map.
        """
        check_kind(stored, "global")
        return cls(
            tuple(float(c) for c in stored["coefficients"]),
            float(stored["width"]),
            int(stored["galaxies"]),
        )


@dataclass(frozen=True)
class RecalibratedDensity:
    """Densities after a map, on the grid they came on."""

    pdf: FloatArray
    """Per unit of the grid, shape (galaxy, grid); the trapezoid rule gives 1."""
    cdf: FloatArray
    """G(F) at the grid points, shape (galaxy, grid)."""


def fit_global(pit: ArrayLike) -> GlobalRecalibration:
    """Learn the law of the PIT from galaxies that nothing was trained on.

    Penalised maximum likelihood with theta_k normal of width tau / k around 0; tau is the one of
    greatest evidence (Laplace's approximation), among them 0: exact posteriors are mostly left as
    they are.

    Args:
        pit: PIT values of independent galaxies, any shape; NaN is left out.

    Raises:
        ValueError: A value outside [0, 1], or fewer than 100 galaxies.

    References:
        Neyman 1937, "Smooth test for goodness of fit" (the family of tilts),
        https://doi.org/10.1080/03461238.1937.10404821; Kuleshov, Fenner & Ermon 2018, "Accurate
        uncertainties for deep learning using calibrated regression" (recalibration by the law of
        the PIT), https://arxiv.org/abs/1807.00263

    Example:
        >>> exact = (np.arange(1000) + 0.5) / 1000
        >>> repair = fit_global(exact).pit_map()
        >>> bool(abs(repair.cdf(0.9) - 0.9) < 0.002)
        True
    """
    values = finite_pit(pit)
    if values.size < LEAST_GALAXIES:
        raise ValueError(
            f"Expected at least {LEAST_GALAXIES} PIT values; got {values.size}. Hold out more "
            "galaxies."
        )
    observed = basis_at(values).mean(axis=0)
    best, best_evidence, best_width = np.zeros(TERMS), 0.0, 0.0
    for width in _WIDTHS:
        theta, evidence = _most_likely(observed, values.size, width)
        if evidence > best_evidence:
            best, best_evidence, best_width = theta, evidence, width
    return GlobalRecalibration(tuple(best.tolist()), best_width, int(values.size))


def _most_likely(observed: FloatArray, galaxies: int, width: float) -> tuple[FloatArray, float]:
    """Penalised theta, and the log evidence of `width` over that of the identity map."""
    precision = (np.arange(1, TERMS + 1) / width) ** 2

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        tilted, means = log_partition(theta[None])
        value = galaxies * (tilted[0] - observed @ theta) + 0.5 * precision @ theta**2
        return float(value), galaxies * (means[0] - observed) + precision * theta

    theta = minimise(loss, np.zeros(TERMS))
    mass = PitMap.tilted(theta[None]).knot_density[0] * KNOT_WEIGHTS
    centred = BASIS - mass @ BASIS
    spread = centred.T @ (mass[:, None] * centred)
    _, volume = np.linalg.slogdet(np.eye(TERMS) + galaxies * spread / precision)
    return theta, -loss(theta)[0] - 0.5 * float(volume)


def recalibrate_density(
    pdf: ArrayLike, grid: ArrayLike, pit_map: PitMap, *, cdf: ArrayLike | None = None
) -> RecalibratedDensity:
    """Apply a map to whole densities.

    Args:
        pdf: Densities per unit of the grid, shape (galaxy, grid).
        grid: Increasing, shape (grid,).
        pit_map: For these galaxies.
        cdf: Exact CDF on the grid, shape (galaxy, grid); the trapezoid sum of `pdf` by default.
            With it the new CDF is exact on any grid; the new pdf is as good as the grid.

    Raises:
        ValueError: The shapes disagree, the grid does not increase, a density is negative, not
            finite or zero everywhere, or the map is for another number of galaxies.
    """
    density, points = np.asarray(pdf, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    if density.ndim != 2 or points.shape != density.shape[1:] or not np.all(np.diff(points) > 0):
        raise ValueError(
            "Expected a pdf of shape (galaxy, grid) on an increasing grid; got pdf "
            f"{density.shape}, grid {points.shape}. Sort the grid and put one galaxy in a row."
        )
    if not np.isfinite(density).all() or density.min() < 0 or not density.any(axis=1).all():
        raise ValueError(
            f"Expected finite densities >= 0 with some probability each; got {_range(density)}. "
            "Leave out galaxies without a posterior."
        )
    below = cumulate(density, points) if cdf is None else np.asarray(cdf, dtype=np.float64)
    if below.shape != density.shape:
        raise ValueError(
            f"Expected a cdf of the shape of the pdf, {density.shape}; got {below.shape}. "
            "Evaluate both on the grid."
        )
    below = np.clip(below, 0.0, 1.0)
    new = pit_map.density(below) * density
    total = np.asarray(np.trapezoid(new, points, axis=1))
    return RecalibratedDensity(new / total[:, None], pit_map.cdf(below))


def minimise(
    loss: Callable[[FloatArray], tuple[float, FloatArray]], start: FloatArray
) -> FloatArray:
    """The minimum of a convex loss that returns its value and gradient."""
    found = optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-10}
    )
    return np.asarray(found.x)


def _range(values: FloatArray) -> str:
    return f"{values.min()} to {values.max()}" if values.size else "nothing"
