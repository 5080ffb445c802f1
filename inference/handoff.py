"""n(z) as cosmology pipelines take it: `qp` ensembles of draws, and arrays ready for SACC.

Per-galaxy densities and intervals are `redshifts.ensemble`; here are those of samples.

Axes: bin (tomographic), draw, cell (of redshift), edge.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from probmmae.inference.growing import qp_file
from probmmae.inference.population import checked_edges, described

_NORMALISED = 1e-3
"""How far from one the integral of n(z) may be."""


def n_of_z_ensemble(density: ArrayLike, edges: ArrayLike) -> Any:
    """A `qp` ensemble of histograms, one row a draw of a bin, the bins one after the other.

    `ancil` holds `bin` and `draw` of every row.

    Args:
        density: n(z) per unit redshift, shape (bin, draw, cell), as `population.tomographic` gives
            it; of one sample (draw, cell), as `Population.density`.
        edges: Borders of the cells, shape (edge,).

    Raises:
        ValueError: Shapes that disagree, edges that do not increase from 0 or above, nothing to
            hand over, or a density that is negative, not finite, or whose integral is not 1.
    """
    import qp

    rows, borders = _checked(density, edges)
    bins, draws, cells = rows.shape
    number, step = np.divmod(np.arange(bins * draws), draws)
    data = {"bins": borders, "pdfs": rows.reshape(-1, cells)}
    return qp.Ensemble(qp.hist, data=data, ancil={"bin": number, "draw": step})


def write_n_of_z(path: str | Path, density: ArrayLike, edges: ArrayLike) -> None:
    """Write `n_of_z_ensemble` to an HDF5 file that `qp.read` reads; arguments are its own."""
    with qp_file(Path(path)) as append:
        append(n_of_z_ensemble(density, edges))


def sacc_tracers(
    density: ArrayLike, edges: ArrayLike, *, name: str = "source"
) -> list[dict[str, Any]]:
    """What `sacc.Sacc.add_tracer("NZ", **tracer)` takes, one dictionary a bin.

    Each has the name, z (the cells' middles) and nz (the mean of the draws, per unit redshift),
    and as extra columns `error`, the standard deviation of the draws. What correlates cells and
    bins is in the draws: `n_of_z_ensemble`.

    Args:
        density: As in `n_of_z_ensemble`.
        edges: Borders of the cells.
        name: Of the sample; tracers are called name_0, name_1 and so on.

    Raises:
        ValueError: Shapes that disagree, edges that do not increase from 0 or above, nothing to
            hand over, or a density that is negative, not finite, or whose integral is not 1.
    """
    rows, borders = _checked(density, edges)
    middle = 0.5 * (borders[1:] + borders[:-1])
    return [
        {
            "name": f"{name}_{index}",
            "z": middle,
            "nz": draws.mean(0),
            "extra_columns": {"error": draws.std(0)},
        }
        for index, draws in enumerate(rows)
    ]


def _checked(
    density: ArrayLike, edges: ArrayLike
) -> tuple[Float[np.ndarray, "bin draw cell"], Float[np.ndarray, " edge"]]:
    rows, borders = np.asarray(density, dtype=float), checked_edges(edges)
    rows = rows[None] if rows.ndim == 2 else rows
    if (
        rows.ndim != 3
        or rows.size == 0
        or rows.shape[-1] != len(borders) - 1
        or not np.isfinite(rows).all()
        or (rows < 0).any()
    ):
        raise ValueError(
            "Expected n(z) of shape (bin, draw, cell) or (draw, cell), finite, none negative, and "
            f"one edge more than cells; got {described(density)}, and {len(borders)} edges. Pass "
            "population.density and population.edges."
        )
    integral = rows @ np.diff(borders)
    if np.abs(integral - 1).max() > _NORMALISED:
        raise ValueError(
            f"Expected n(z) per unit redshift, integral 1; got integrals from {integral.min():.4g}"
            f" to {integral.max():.4g}. Divide by them, and shares by the widths of the cells."
        )
    return rows, borders
