"""Drawn maps held against true or observed ones: spaxel by spaxel, and integrals over a galaxy.

From `GalaxyMaps` to scores. A spaxel tests the marginal distributions, an integral the joint one:
totals, gradients and galaxy-means come out of each draw's own map. Noise of observed maps is added
to the draws before anything is compared, with the correlation of the spaxels in it, so that every
rank, coverage and chi-square honours the covariance.

Axes: galaxy, quantity, draw, spaxel, zone, mode (eigenvector of the correlation).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from probmmae.calibration.coverage import Coverage, clustered_coverage, coverage
from probmmae.calibration.pit import pit_from_draws
from probmmae.calibration.scores import crps_draws
from probmmae.spectral_maps import QUANTITIES

#: Rings around the centre, half-light radii.
ZONES = ((0.0, 0.5), (0.5, 1.0), (1.0, 2.0))
#: What is computed over a whole galaxy, and its unit.
INTEGRALS: dict[str, str] = {
    "total H-alpha inside 1 R_e": "1e-17 erg/s/cm2",
    "total H-alpha inside 2 R_e": "1e-17 erg/s/cm2",
    "gradient of H-alpha EW": "Angstrom per R_e",
    "gradient of D4000": "per R_e",
    "mean log [O III]/H-beta": "dex",
}
LEVELS = (0.5, 0.9)
_OUTER = ZONES[-1][1]
_SHARE = 0.02
"""Modes of a correlation with less of a spaxel's variance than this are rounding, not noise."""
_LEAST_WIDTH = 1.0
"""Angstrom: decimal logarithms of H-alpha are compared where its equivalent width exceeds this."""
_LEAST_SPAXELS = 8


@dataclass(frozen=True, eq=False)
class GalaxyMaps:
    """The maps of one galaxy."""

    name: str
    drawn: Float[np.ndarray, "quantity draw spaxel"]
    """`QUANTITIES` of noise-free draws."""
    known: Float[np.ndarray, "quantity spaxel"]
    """True or observed; NaN is missing."""
    error: Float[np.ndarray, "quantity spaxel"]
    """Standard error of what is observed; 0 of a truth."""
    radius: Float[np.ndarray, " spaxel"]
    """From the centre, half-light radii."""
    correlation: Float[np.ndarray, "spaxel spaxel"] | None = None
    """Of the noise; None where spaxels are independent."""

    def noisy(self, generator: np.random.Generator) -> Self:
        """With noise of the observation in every draw, so that draws and data are alike."""
        _, draws, spaxels = self.drawn.shape
        white = generator.standard_normal((len(QUANTITIES), draws, spaxels))
        if self.correlation is not None:
            share, mode = np.linalg.eigh(self.correlation)
            white = white @ (mode * np.sqrt(np.maximum(share, 0.0))).T
        noise = white * np.nan_to_num(self.error)[:, None]
        return replace(self, drawn=(self.drawn + noise).astype(np.float32))

    def quantity(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Draws and what is known of one quantity."""
        index = list(QUANTITIES).index(name)
        return self.drawn[index], self.known[index].astype(np.float64)

    def zone(self, low: float, high: float) -> NDArray[np.bool_]:
        """Spaxels of a ring."""
        return (self.radius >= low) & (self.radius < high)


def integrals(
    maps: Float[np.ndarray, "quantity *draw spaxel"], radius: Float[np.ndarray, " spaxel"]
) -> dict[str, Float[np.ndarray, "*draw"]]:
    """`INTEGRALS` of maps; NaN spaxels do not count.

    Totals are sums over the spaxels given, gradients the slopes of straight lines through the
    spaxels inside 2 R_e, and the mean ratio is that of the summed fluxes there.

    Args:
        maps: `QUANTITIES` of spaxels.
        radius: Of the spaxels, half-light radii.
    """
    names = list(QUANTITIES)
    alpha, beta, oxygen, width, break_ = (
        maps[names.index(name)].astype(np.float64)
        for name in ("h_alpha", "h_beta", "o_iii", "h_alpha_ew", "d4000")
    )
    outer = radius < _OUTER
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log10(np.nansum(oxygen[..., outer], -1) / np.nansum(beta[..., outer], -1))
    values = (
        np.nansum(alpha[..., radius < 1.0], -1),
        np.nansum(alpha[..., outer], -1),
        _slope(width[..., outer], radius[outer]),
        _slope(break_[..., outer], radius[outer]),
        ratio,
    )
    return {name: np.asarray(one) for name, one in zip(INTEGRALS, values, strict=True)}


def _slope(values: NDArray[np.float64], radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares over the finite values of each row; NaN where there are fewer than three."""
    good = np.isfinite(values)
    count = good.sum(-1)
    values = np.where(good, values, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = (good * radius).sum(-1) / count
        away = good * (radius - middle[..., None])
        slope = (away * values).sum(-1) / (away**2).sum(-1)
    return np.where(count >= 3, slope, np.nan)


@dataclass(frozen=True)
class ZoneScore:
    """One quantity in one ring, over all galaxies."""

    quantity: str
    zone: tuple[float, float]
    coverage: tuple[Coverage, ...]
    """Of single spaxels, one a level of `LEVELS`; intervals count galaxies."""
    crps: float
    """Mean over spaxels, in the quantity's unit."""
    bias: float
    """Median of (median of the draws less what is known); of H-alpha and the continuum in dex."""
    scatter: float
    """1.4826 times the median absolute deviation of the same."""
    spaxels: int


def zone_scores(
    galaxies: Sequence[GalaxyMaps], quantities: Sequence[str], *, seed: int = 0
) -> list[ZoneScore]:
    """Coverage, CRPS, bias and scatter by ring; galaxies come with noise in their draws.

    Args:
        galaxies: Of any number of spaxels each.
        quantities: Of `QUANTITIES`.
        seed: Of the randomised ranks.
    """
    found = []
    for name in quantities:
        for zone in ZONES:
            generator = np.random.default_rng(seed)
            ranks, scores, away = [], [], []
            for one in galaxies:
                drawn, known = one.quantity(name)
                inside = one.zone(*zone) & np.isfinite(known) & np.isfinite(drawn).all(0)
                if not inside.any():
                    continue
                drawn, known = drawn[:, inside], known[inside]
                ranks.append(pit_from_draws(drawn, known, generator=generator))
                scores.append(crps_draws(drawn, known))
                away.append(_departure(one, name, inside))
            if not ranks:
                continue
            longest = max(map(len, ranks))
            padded = np.full((len(ranks), longest), np.nan)
            for row, each in zip(padded, ranks, strict=True):
                row[: len(each)] = each
            apart = np.concatenate(away)
            apart = apart[np.isfinite(apart)]
            middle = float(np.median(apart)) if len(apart) else np.nan
            found.append(
                ZoneScore(
                    name, zone, clustered_coverage(padded, levels=LEVELS, group=name),
                    float(np.mean(np.concatenate(scores))), middle,
                    1.4826 * float(np.median(np.abs(apart - middle))) if len(apart) else np.nan,
                    int(np.isfinite(padded).sum()),
                )
            )  # fmt: skip
    return found


def _departure(one: GalaxyMaps, name: str, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Median of the draws less what is known; decimal logarithms of fluxes."""
    drawn, known = one.quantity(name)
    middle, known = np.median(drawn[:, inside], axis=0).astype(np.float64), known[inside]
    if name not in ("h_alpha", "continuum"):
        return np.asarray(middle - known)
    width = one.quantity("h_alpha_ew")[1][inside]
    use = (middle > 0) & (known > 0) & ((width > _LEAST_WIDTH) | (name == "continuum"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(use, np.log10(middle / known), np.nan))


def map_correlation(galaxies: Sequence[GalaxyMaps], name: str) -> Float[np.ndarray, " galaxy"]:
    """Pearson's correlation of the median map and the known one inside 2 R_e, galaxy by galaxy.

    Of H-alpha and the continuum in decimal logarithms. NaN where fewer than 8 spaxels tell.
    """
    found = []
    for one in galaxies:
        drawn, known = one.quantity(name)
        use = one.zone(0.0, _OUTER) & np.isfinite(known) & np.isfinite(drawn).all(0)
        middle, known = np.median(drawn[:, use], axis=0), known[use]
        if name in ("h_alpha", "continuum"):
            both = (middle > 0) & (known > 0)
            if name == "h_alpha":
                both &= one.quantity("h_alpha_ew")[1][use] > _LEAST_WIDTH
            middle, known = np.log10(middle[both]), np.log10(known[both])
        enough = len(known) >= _LEAST_SPAXELS and np.ptp(known) > 0 and np.ptp(middle) > 0
        found.append(float(np.corrcoef(middle, known)[0, 1]) if enough else np.nan)
    return np.array(found)


@dataclass(frozen=True, eq=False)
class IntegralScore:
    """One integral over all galaxies."""

    name: str
    pit: Float[np.ndarray, " galaxy"]
    coverage: tuple[Coverage, ...]
    """One a level of `LEVELS`; empty where not one galaxy has it."""
    known: Float[np.ndarray, " galaxy"]
    middle: Float[np.ndarray, " galaxy"]
    """Median of the draws."""
    spread: Float[np.ndarray, " galaxy"]
    """Half the width of their central 68 %."""


def integral_scores(galaxies: Sequence[GalaxyMaps], *, seed: int = 0) -> list[IntegralScore]:
    """Ranks and coverage of `INTEGRALS`; galaxies come with noise in their draws.

    Args:
        galaxies: One value of each integral comes from each.
        seed: Of the randomised ranks.
    """
    generator = np.random.default_rng(seed)
    pairs = []
    for one in galaxies:
        # A spaxel that is missing in the data is missing in the draws.
        drawn = np.where(np.isfinite(one.known)[:, None], one.drawn, np.nan)
        pairs.append((integrals(drawn, one.radius), integrals(one.known, one.radius)))
    found = []
    for name in INTEGRALS:
        drawn = np.stack([each[name] for each, _ in pairs], axis=1)
        known = np.array([float(each[name]) for _, each in pairs])
        pit = pit_from_draws(drawn, known, generator=generator)
        known_in_all = np.isfinite(pit)
        told = coverage(pit, levels=LEVELS) if known_in_all.any() else ()
        low, middle, high = np.nanquantile(
            np.where(np.isfinite(drawn).any(0), drawn, 0.0), [0.16, 0.5, 0.84], axis=0
        )
        found.append(IntegralScore(name, pit, told, known, middle, (high - low) / 2))
    return found


def chi_square_of_draws(
    one: GalaxyMaps, name: str, *, with_draws: bool = True
) -> tuple[float, int]:
    """Chi-square of a map about the mean of its draws, and its degrees of freedom.

    The covariance is that of the noise, whose modes with at least 2 % of a spaxel's variance
    count, and that of the draws, shrunk towards independent spaxels as far as the number of draws
    leaves it uncertain (Schaefer & Strimmer 2005, https://doi.org/10.2202/1544-6115.1175).

    Args:
        one: A galaxy whose draws are free of noise.
        name: Of `QUANTITIES`.
        with_draws: False takes the mean of the draws as if it were certain.

    Raises:
        ValueError: Not one spaxel has an error.
    """
    drawn, known = one.quantity(name)
    error = one.error[list(QUANTITIES).index(name)]
    use = np.isfinite(known) & np.isfinite(drawn).all(0) & (np.nan_to_num(error) > 0)
    if not use.any():
        raise ValueError(
            f"Expected at least one spaxel with an error of {name}; got none. A truth has no "
            "chi-square."
        )
    scaled = drawn[:, use].astype(np.float64) / error[use]
    away = known[use] / error[use] - scaled.mean(0)
    share, mode = np.ones(int(use.sum())), np.eye(int(use.sum()))
    if one.correlation is not None:
        share, mode = np.linalg.eigh(one.correlation[np.ix_(use, use)])
    kept = share > _SHARE
    total = np.diag(share[kept])
    if with_draws:
        total = total + mode[:, kept].T @ _covariance(scaled) @ mode[:, kept]
    away = away @ mode[:, kept]
    return float(away @ np.linalg.solve(total, away)), int(kept.sum())


def _covariance(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of draws (draw, spaxel); what is off the diagonal is shrunk by its sampling error."""
    count, away = len(draws), draws - draws.mean(0)
    product = away.T @ away
    covariance = product / (count - 1)
    squares = (away**2).T @ away**2
    variance = (squares - product**2 / count) * count / (count - 1) ** 3
    beside = ~np.eye(len(product), dtype=bool)
    shrink = variance[beside].sum() / max(float((covariance[beside] ** 2).sum()), 1e-300)
    return np.where(beside, covariance * (1 - min(1.0, float(shrink))), covariance)
