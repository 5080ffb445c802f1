"""Noise that spaxels share: a matrix of correlations, and chi-square with it.

Cubes are built from fibres that are larger than a spaxel, so the noise of neighbours is the same
noise. The correlation depends on where the spaxels lie and hardly on wavelength, so that at each
wavelength the covariance of two spaxels is rho_ij / sqrt(ivar_i ivar_j) (Law et al. 2016,
section 9.3, https://arxiv.org/abs/1607.08619).

Axes: spaxel, mode (eigenvector of the correlation), rows (maps, wavelengths).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

_FLOOR = 0.02
"""Modes with less of the variance than this are left out: rounding in the files, not noise."""


@dataclass(frozen=True, eq=False)
class SpaxelCorrelation:
    """Correlation of the noise of spaxels on a grid."""

    shape: tuple[int, int]
    """Of the grid, (y, x)."""
    matrix: sparse.csr_array
    """Symmetric, ones on the diagonal of spaxels with data; (spaxel, spaxel), y-major."""

    def between(self, spaxels: Int[np.ndarray, " spaxel"]) -> Float[np.ndarray, "spaxel spaxel"]:
        """The dense correlations of some spaxels, by their place in the flattened grid.

        A spaxel that the matrix does not know is independent of all others.
        """
        dense = self.matrix[spaxels][:, spaxels].toarray()
        np.fill_diagonal(dense, 1.0)
        return np.asarray(dense)

    def error_of_sum(
        self, weights: Float[np.ndarray, "y x"], ivar: Float[np.ndarray, "y x"]
    ) -> float:
        """Standard error of a weighted sum over spaxels; those with ivar 0 do not count."""
        good = np.flatnonzero((ivar.ravel() > 0) & (weights.ravel() != 0))
        scaled = weights.ravel()[good] / np.sqrt(ivar.ravel()[good])
        return float(np.sqrt(scaled @ self.between(good) @ scaled))


def from_pairs(
    first: Int[np.ndarray, "pair 2"],
    second: Int[np.ndarray, "pair 2"],
    rho: Float[np.ndarray, " pair"],
    shape: tuple[int, int],
) -> SpaxelCorrelation:
    """From a list of pairs (x, y of one spaxel; x, y of the other), each pair once.

    Raises:
        ValueError: A spaxel that is not on the grid, or a correlation beyond 1.
    """
    places = np.concatenate([first, second])
    if len(places) and (places.min() < 0 or np.any(places.max(0) >= shape[::-1])):
        raise ValueError(
            f"Expected spaxels on a grid of {shape[0]} x {shape[1]}; got {places.max(0)[::-1]}. "
            "Check which cube the correlations belong to."
        )
    if np.any(np.abs(rho) > 1 + 1e-6):
        raise ValueError(f"Expected correlations within -1 and 1; got {np.abs(rho).max():.3g}.")
    i, j = (place[:, 1] * shape[1] + place[:, 0] for place in (first, second))
    apart = i != j
    rows, columns = np.concatenate([i, j[apart]]), np.concatenate([j, i[apart]])
    values = np.concatenate([rho, rho[apart]])
    count = shape[0] * shape[1]
    return SpaxelCorrelation(shape, sparse.csr_array((values, (rows, columns)), (count, count)))


def chi_square(
    residual: Float[np.ndarray, "*rows y x"],
    ivar: Float[np.ndarray, "*rows y x"],
    correlation: SpaxelCorrelation | None,
    *,
    where: Bool[np.ndarray, "y x"] | None = None,
) -> tuple[Float[np.ndarray, "*rows"], int]:
    """Chi-square of maps whose noise is correlated, and its degrees of freedom.

    r = residual sqrt(ivar) has the covariance rho. Of rho's modes those are used that hold at
    least 2 % of a spaxel's variance: sum over modes of (v . r)^2 / eigenvalue is then chi-square
    distributed with as many degrees of freedom as modes, whatever was left out.

    Args:
        residual: Observed less predicted.
        ivar: Its inverse variance; 0 is missing.
        correlation: None takes spaxels as independent.
        where: Spaxels to use; by default all that are valid in every row.

    Raises:
        ValueError: Shapes that disagree, or not one valid spaxel.
    """
    grid = residual.shape[-2:]
    if ivar.shape != residual.shape or (correlation is not None and correlation.shape != grid):
        raise ValueError(
            "Expected residual and ivar (*rows, y, x) on the grid of the correlations; got "
            f"{residual.shape}, {ivar.shape} and {correlation and correlation.shape}."
        )
    rows = residual.shape[:-2]
    good = (ivar > 0) & np.isfinite(residual)
    usable = good.all(axis=tuple(range(len(rows))))
    spaxels = np.flatnonzero(usable if where is None else usable & where)
    if len(spaxels) == 0:
        raise ValueError("Expected at least one spaxel valid in every row; got none.")
    pixels = (*rows, grid[0] * grid[1])
    scaled = (residual.reshape(pixels) * np.sqrt(ivar.reshape(pixels)))[..., spaxels]
    scaled = scaled.astype(np.float64)
    if correlation is None:
        return np.asarray((scaled**2).sum(-1)), len(spaxels)
    share, mode = np.linalg.eigh(correlation.between(spaxels))
    kept = share > _FLOOR
    return np.asarray(((scaled @ mode[:, kept]) ** 2 / share[kept]).sum(-1)), int(kept.sum())
