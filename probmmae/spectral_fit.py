"""Stars and lines fitted to spectra of one galaxy: from pixels to velocities, widths and fluxes.

Spectra come in units of their own level, with a precision (inverse variance) a pixel. Where all
spectra share their precision, trying a velocity is a matrix product.

Axes: spectrum, pixel, curve, line, trial (velocity or width).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probmmae.instrument import SPEED_OF_LIGHT, RestSpectrum, observe, pixel_widths
from probmmae.templates import load_templates

NEAR_LINE = 500.0
"""km/s: pixels closer to a line than this are its own and none of the stars'."""
_FITTED = (3650.0, 7000.0)
"""Rest Angstrom that the stars are fitted in."""
_STAR_SIGMA = 100.0
_STAR_VELOCITIES = torch.arange(-450.0, 451.0, 75.0)
_GAS_VELOCITIES = torch.arange(-500.0, 501.0, 25.0)
_GAS_WIDTHS = torch.tensor([15.0, 30.0, 45.0, 60.0, 80.0, 105.0, 140.0, 190.0, 260.0, 360.0])
_WINDOW = 1500.0
"""km/s to both sides of a line that are fitted with it."""
_SIGNIFICANT = 60.0
"""Lines that gain less chi-square are taken at the stars' velocity and `_ORDINARY_WIDTH`: the best
of 400 places gains 44 by chance once in a thousand spectra."""
_ORDINARY_WIDTH = 60.0


class Design:
    """All that depends on grid, line-spread function, redshift and the lines asked for alone.

    Args:
        grid: Vacuum pixel centres, Angstrom, double precision, shape (pixel,).
        sigma: Gaussian width of the line-spread function, Angstrom, shape (pixel,).
        z: Redshift.
        names: Lines of the templates that are fitted together.
    """

    def __init__(
        self, grid: Float[Tensor, " pixel"], sigma: Float[Tensor, " pixel"], z: float,
        names: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.templates = load_templates()
        self.grid, self.sigma, self.z = grid, sigma, z
        self.names = names
        rest = self.templates.line_wavelength.double()
        self.centre = torch.stack([rest[self.templates.line(name)] for name in self.names])
        own = grid / (1 + z)
        far = ((own[:, None] / rest - 1).abs() > NEAR_LINE / SPEED_OF_LIGHT).all(1)
        self.stars = torch.nonzero(far & (own > _FITTED[0]) & (own < _FITTED[1]))[:, 0]
        near = (own[:, None] / self.centre - 1).abs() < _WINDOW / SPEED_OF_LIGHT
        self.gas = torch.nonzero(near.any(1))[:, 0]
        # Of every pixel of the gas and every line: how far apart, and half the pixel, Angstrom.
        self.away = (grid[self.gas, None] - self.centre * (1 + z)).float()
        self.half = (pixel_widths(grid)[self.gas, None] / 2).float()
        reach = NEAR_LINE / SPEED_OF_LIGHT
        self.held = (self.centre * (1 - reach) > own[0]) & (self.centre * (1 + reach) < own[-1])

    @lru_cache(maxsize=32)  # noqa: B019  (one design lives as long as one cube)
    def curves(self, velocity: float) -> Float[Tensor, "curve pixel"]:
        """The continuum curves as the instrument sees them at a velocity."""
        templates = self.templates
        count = templates.continuum.shape[0]
        ones = torch.ones(count)
        light = RestSpectrum(
            continuum=torch.eye(count),
            lines=torch.zeros(count, templates.line_wavelength.shape[0]),
            velocity=velocity * ones,
            sigma_star=_STAR_SIGMA * ones,
            sigma_gas=ones,
        )
        grid = self.grid.float().expand(count, -1)
        return observe(templates, light, self.z * ones, grid, self.sigma.float().expand_as(grid))

    def lines(
        self, velocity: Float[Tensor, " spectrum"], width: Float[Tensor, " spectrum"]
    ) -> Float[Tensor, "spectrum pixel line"]:
        """Unit lines on the pixels of the gas."""
        still = self.centre * (1 + self.z)
        moved = velocity[:, None].double() / SPEED_OF_LIGHT * still
        middle = torch.searchsorted(self.grid, still + moved).clamp(max=len(self.grid) - 1)
        own = (width[:, None].double() / SPEED_OF_LIGHT * (still + moved)) ** 2
        scale = torch.rsqrt(2 * (own + self.sigma[middle] ** 2)).float()[:, None]
        away = self.away - moved.float()[:, None]
        share = torch.erf((away + self.half) * scale) - torch.erf((away - self.half) * scale)
        return share * (0.25 / self.half * self.held)


def fit_stars(
    design: Design, flux: Tensor, precision: Tensor
) -> tuple[Float[Tensor, " spectrum"], Float[Tensor, "spectrum pixel"]]:
    """The stars' velocity, km/s, and their light in every pixel."""
    # In double precision: velocities are told by small differences of a large chi-square.
    weight = precision[:, design.stars].double()
    pull = flux[:, design.stars].double() * weight
    weight = weight[:1] if _alike(weight) else weight
    trials = [
        _continuum(design.curves(float(velocity))[:, design.stars].double(), pull, weight)
        for velocity in _STAR_VELOCITIES
    ]
    gain = torch.stack([part for _, part in trials], dim=1)
    step, best, _ = _highest(gain)
    velocity = _STAR_VELOCITIES[0] + step * (_STAR_VELOCITIES[1] - _STAR_VELOCITIES[0])
    stars = torch.empty_like(flux)
    for trial in best.unique():
        rows = best == trial
        curves = design.curves(float(_STAR_VELOCITIES[trial]))
        stars[rows] = trials[trial][0][rows].float() @ curves
    return velocity.float(), stars


def _continuum(
    curves: Float[Tensor, "curve pixel"],
    pull: Float[Tensor, "spectrum pixel"],
    weight: Float[Tensor, "one_or_spectrum pixel"],
) -> tuple[Float[Tensor, "spectrum curve"], Float[Tensor, " spectrum"]]:
    """Weights of the curves, and how much they lower chi-square; prior N(0, 1) of each weight.

    Args:
        curves: Unit weight of each.
        pull: Flux times its precision.
        weight: The precision; a single row where all spectra share it.
    """
    target = pull @ curves.T
    one = torch.eye(len(curves), dtype=curves.dtype)
    normal = torch.stack([(curves * row) @ curves.T for row in weight]) + one
    root = torch.linalg.cholesky(normal)
    if len(weight) == 1:
        solved = torch.cholesky_solve(target.T, root[0]).T
    else:
        solved = torch.cholesky_solve(target[..., None], root)[..., 0]
    return solved, (target * solved).sum(1)


@dataclass(frozen=True)
class Lines:
    """Gaussians in units of the spectrum's level."""

    flux: Float[Tensor, "spectrum line"]
    covariance: Float[Tensor, "spectrum line line"]
    """Of the fluxes, that of the width in it."""
    velocity: Float[Tensor, " spectrum"]
    width: Float[Tensor, " spectrum"]
    velocity_error: Float[Tensor, " spectrum"]
    width_error: Float[Tensor, " spectrum"]
    moving: Bool[Tensor, " spectrum"]
    """The lines are strong enough to tell velocity and width, and the velocity is within reach."""


def fit_lines(design: Design, stellar: Tensor, residual: Tensor, weight: Tensor) -> Lines:
    """One velocity and width for all lines: the best of a grid, then refined in turn.

    Weak lines are taken at the stars' velocity: the best place for noise would bias their fluxes.
    """
    trials = torch.cartesian_prod(_GAS_VELOCITIES, _GAS_WIDTHS)
    gain, best = _grid(design, trials, residual, weight).max(1)
    velocity, width = trials[best].T
    moving = (gain > _SIGNIFICANT) & (velocity.abs() < _GAS_VELOCITIES[-1])
    error = residual.new_zeros(2, len(residual))
    around = torch.tensor([-1.0, 0.0, 1.0])
    for scale in (1.0, 0.25):
        steps = (scale * 12.0, scale * 0.3)
        near = [_gain(design, velocity + steps[0] * k, width, residual, weight) for k in around]
        shift, _, bent = _highest(torch.stack(near, 1))
        velocity = velocity + steps[0] * (shift - 1)
        error[0] = steps[0] / bent.clamp(min=1e-9).sqrt()
        widths = [width * (steps[1] * k).exp() for k in around]
        near = [_gain(design, velocity, one, residual, weight) for one in widths]
        shift, _, bent = _highest(torch.stack(near, 1))
        width = (width * torch.exp(steps[1] * (shift - 1))).clamp(min=5.0, max=600.0)
        error[1] = width * steps[1] / bent.clamp(min=1e-9).sqrt()
    velocity = torch.where(moving, velocity, stellar)
    width = torch.where(moving, width, _ORDINARY_WIDTH)
    flux, covariance, _ = _amplitudes(design.lines(velocity, width), residual, weight)
    broader, _, _ = _amplitudes(design.lines(velocity, 1.1 * width), residual, weight)
    doubt = (error[1] / width).clamp(max=1.0) * moving
    slope = (broader - flux) / math.log(1.1) * doubt[:, None]
    covariance = covariance + slope[:, :, None] * slope[:, None]
    return Lines(flux, covariance, velocity, width, error[0], error[1], moving)


def _grid(
    design: Design, trials: Float[Tensor, "trial 2"], residual: Tensor, weight: Tensor
) -> Float[Tensor, "spectrum trial"]:
    """How much the lines lower chi-square at every velocity and width."""
    gains = []
    for some in trials.split(32):
        units = design.lines(*some.T)
        if _alike(weight):
            root = torch.linalg.cholesky(_normal(units, weight[:1].expand(len(some), -1)))
            whitened = torch.linalg.solve_triangular(root, units.mT, upper=False)
            scores = (residual * weight) @ whitened.flatten(0, 1).T
            gains.append(scores.unflatten(1, (len(some), -1)).square().sum(2))
        else:
            told = [_amplitudes(unit.expand(len(weight), -1, -1), residual, weight)
                    for unit in units]  # fmt: skip
            gains.append(torch.stack([gain for _, _, gain in told], dim=1))
    return torch.cat(gains, dim=1)


def _alike(weight: Float[Tensor, "spectrum pixel"]) -> bool:
    """Whether all spectra have the same weights."""
    return bool((weight == weight[:1]).all())


def _normal(
    unit: Float[Tensor, "any pixel line"], weight: Float[Tensor, "any pixel"]
) -> Float[Tensor, "any line line"]:
    """Normal matrix; a line without a pixel has its own diagonal set, so that its flux is 0."""
    normal = (unit * weight[..., None]).mT @ unit
    empty = normal.diagonal(dim1=-2, dim2=-1) <= 1e-9
    return normal + torch.diag_embed(empty.float() + 1e-6)


def _gain(
    design: Design, velocity: Tensor, width: Tensor, residual: Tensor, weight: Tensor
) -> Float[Tensor, " spectrum"]:
    return _amplitudes(design.lines(velocity, width), residual, weight)[2]


def _amplitudes(
    unit: Float[Tensor, "spectrum pixel line"], residual: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Fluxes of the lines, their covariance, and how much they lower chi-square."""
    target = (unit.mT @ (residual * weight)[..., None])[..., 0]
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(_normal(unit, weight)))
    flux = (covariance @ target[..., None])[..., 0]
    return flux, covariance, (flux * target).sum(1)


def _highest(gain: Float[Tensor, "spectrum trial"]) -> tuple[Tensor, Tensor, Tensor]:
    """Where the gain is highest: in steps by a parabola, the best trial, and the curvature."""
    last = gain.shape[1] - 1
    best = gain.argmax(1)
    inner = best.clamp(1, last - 1)
    before, at, after = (gain.gather(1, (inner + k)[:, None])[:, 0] for k in (-1, 0, 1))
    bent = 2 * at - before - after
    step = 0.5 * (after - before) / bent.clamp(min=1e-9)
    return inner + step.clamp(-1, 1), best, bent
