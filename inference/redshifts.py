"""Redshift posteriors as users hold them: one galaxy's density, and `qp` ensembles of many.

From p(z | c), a mixture of Gaussians on ln(1 + z) whose density, CDF and quantiles are exact, so
an interval needs no Monte Carlo. A `qp` ensemble is the same density tabulated on a common grid,
each value the mean over its cell: probability is kept whatever the step, and a density narrower
than a step is stored one step wide, its exact quantiles beside it. A density after
repair (`repair.py`) is the same one with its CDF mapped.

Axes: galaxy, component, level, point (of a grid).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from probmmae.inference.pit_map import PitMap
from probmmae.redshift import RedshiftDensity

#: The quantiles stored beside every density, by name.
QUANTILES = {
    "z_lower_95": 0.025,
    "z_lower_90": 0.05,
    "z_lower_68": 0.16,
    "z_median": 0.5,
    "z_upper_68": 0.84,
    "z_upper_90": 0.95,
    "z_upper_95": 0.975,
}

_TOP = 0.9999
"""A grid reaches this quantile."""


@dataclass(frozen=True)
class RedshiftPosterior:
    """p(z | what was observed) of one galaxy: an exact density, and the posterior's own draws."""

    density: RedshiftDensity
    """As the network answers; one galaxy, no batch axes."""
    samples: np.ndarray
    """Redshifts of the posterior's draws, shape (draw,)."""
    known: float | None
    """The redshift that was given, if one was: the draws are then that number."""
    pit_map: PitMap = field(default_factory=PitMap.identity)
    """What repair does to the CDF, of one row."""
    repair: str = "not repaired"
    """The same in words."""

    def pdf(self, z: Any) -> np.ndarray:
        """Probability density at redshifts `z`, shape of `z`."""
        density = exact(self.density)
        pdf = density.log_prob(_tensor(z)).exp().numpy()
        return self.pit_map.density(density.cdf(_tensor(z)).numpy()) * pdf

    def cdf(self, z: Any) -> np.ndarray:
        """Probability below redshifts `z`, shape of `z`."""
        return self.pit_map.cdf(exact(self.density).cdf(_tensor(z)).numpy())

    def quantiles(self, levels: Any) -> np.ndarray:
        """Redshifts below which lies the probability `levels` (between 0 and 1).

        Raises:
            ValueError: A level is not between 0 and 1.
        """
        wanted = np.asarray(levels, dtype=float)
        if not np.all((wanted > 0) & (wanted < 1)):
            raise ValueError(
                f"Expected levels between 0 and 1; got {levels}. A percentage is divided by 100."
            )
        return np.asarray(exact(self.density).icdf(_tensor(self.pit_map.inverse(wanted))))

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """The central interval that holds the probability `level`.

        Raises:
            ValueError: `level` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(
                f"Expected a level between 0 and 1; got {level}. A percentage is divided by 100."
            )
        low, high = self.quantiles([0.5 - level / 2, 0.5 + level / 2])
        return float(low), float(high)

    @property
    def median(self) -> float:
        """The redshift with half of the probability below."""
        return float(self.quantiles([0.5])[0])

    def to_qp(self, grid: Any = None) -> Any:
        """A `qp` ensemble of this one density.

        Args:
            grid: Redshifts as in `ensemble`; by default `ensemble`'s and, where this density is
                narrow, steps of a quarter of its components' widths.
        """
        return ensemble([self], self._grid() if grid is None else grid)

    def _grid(self) -> Float[np.ndarray, " point"]:
        density = exact(self.density)
        heavy = density.log_weight > -9.0
        loc, scale = (part[heavy].numpy()[:, None] for part in (density.loc, density.scale))
        followed = np.expm1(np.clip(loc + scale * np.linspace(-6.0, 6.0, 49), 0.0, None))
        coarse = default_grid(float(self.quantiles([_TOP])[0]))
        # Interpolation needs distinct points, and components coincide.
        return np.unique(np.round(np.concatenate([coarse, followed.ravel()]), 8))


def ensemble(posteriors: list[RedshiftPosterior], grid: Any = None, **columns: Any) -> Any:
    """A `qp` ensemble of many densities on one grid, quantiles and repair beside them.

    Args:
        posteriors: One per galaxy.
        grid: Redshifts, increasing, shape (point,); by default steps of 0.002 to past the last
            tail.
        **columns: Ancillary columns, one value per galaxy.

    Raises:
        ValueError: No posteriors, or a grid that does not increase from 0 or above.
    """
    if not posteriors:
        raise ValueError("Expected at least one posterior; got none. Condition on a galaxy first.")
    densities = [one.density for one in posteriors]
    components = max(one.loc.shape[-1] for one in densities)
    density = RedshiftDensity(
        torch.stack([_padded(one.logits, components, -torch.inf) for one in densities]),
        torch.stack([_padded(one.loc, components, None) for one in densities]),
        torch.stack([_padded(one.scale, components, None) for one in densities]),
    )
    if grid is None:
        grid = default_grid(max(float(one.quantiles(_TOP)) for one in posteriors))
    pit_map = PitMap.joined([one.pit_map for one in posteriors])
    said = [one.repair for one in posteriors]
    return tabulate(density, grid, pit_map=pit_map, repair=said, **columns)


def tabulate(
    density: RedshiftDensity, grid: Any, *, pit_map: PitMap, repair: list[str], **columns: Any
) -> Any:
    """The `qp` ensemble of a batch of densities; other arguments and errors as in `ensemble`.

    Args:
        density: As the network answers.
        grid: Redshifts.
        pit_map: What repair does to each CDF.
        repair: The same in words, one a galaxy; a column of this name.
        **columns: Further columns.
    """
    import qp

    z = np.asarray(grid, dtype=float)
    if z.ndim != 1 or len(z) < 2 or not z[0] >= 0 or not np.all(np.diff(z) > 0):
        raise ValueError(
            f"Expected increasing redshifts >= 0 along one axis; got shape {z.shape}. "
            "numpy.arange(0, 1.5, 0.002) is such a grid."
        )
    density = exact(density)
    levels = np.array(list(QUANTILES.values()))
    below = pit_map.inverse(np.tile(levels, (len(repair), 1)))
    quantiles = density.icdf(_tensor(below.T)).numpy()
    ancil = dict(zip(QUANTILES, quantiles, strict=True))
    edges = np.concatenate([z[:1], 0.5 * (z[1:] + z[:-1]), z[-1:]])
    # A mapped CDF may fall by a rounding error where the density is all but zero.
    below = pit_map.cdf(density.cdf(_tensor(edges)[:, None]).numpy().T)
    mass = np.maximum(np.diff(below, axis=1), 0.0)
    pdf = mass / np.diff(edges)
    # A density that lies wholly beyond the grid is piled on its nearest end, where qp can hold it.
    beyond = mass.sum(1) < 1e-6
    pdf[beyond, -1] = 1.0
    ancil["z_mode"] = z[pdf.argmax(1)]
    ancil["inside_grid"] = mass.sum(1)
    ancil["repair"] = np.array([said.encode() for said in repair])
    ancil |= {name: np.asarray(values) for name, values in columns.items()}
    return qp.Ensemble(qp.interp, data={"xvals": z, "yvals": pdf}, ancil=ancil)


def default_grid(top: float) -> Float[np.ndarray, " point"]:
    """Redshifts from 0 in steps of 0.002 to the next tenth above `top`."""
    return 0.002 * np.arange(round(50 * (np.floor(10 * top) + 1)) + 1)


def _padded(values: torch.Tensor, components: int, fill: float | None) -> torch.Tensor:
    """Up to `components` of them, by `fill` or by the last value."""
    short = components - values.shape[-1]
    last = values[-1:] if fill is None else torch.full_like(values[-1:], fill)
    return torch.cat([values, last.expand(short)]).double()


def exact(density: RedshiftDensity) -> RedshiftDensity:
    """The density in double precision."""
    return RedshiftDensity(density.logits.double(), density.loc.double(), density.scale.double())


def _tensor(values: Any) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float64))
