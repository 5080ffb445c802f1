"""The spectrum's density in JAX: from a trained network's arrays to pure functions for samplers.

What depends on the latent u and the redshift z is written once more here, as functions of arrays
that are taken from the torch modules: u to a rest-frame spectrum to flux on a pixel grid, the
model's own uncertainty, the low-rank normal likelihood, p(z | c) and p(u | z, c). Every function
speaks of one galaxy and one aperture, has static shapes, and is made for `jax.jit` and `jax.vmap`
over galaxies, apertures and chains. The formulas are those of `instrument`, `decoders`,
`likelihoods`, `evidence`, `redshift` and `latent`.

Axes: latent, layer, relative (numbers relative to the level), basis, line, rung, wave (rest-frame
grid), knot, mode, factor, pixel, class, joint (aperture and latent flattened), component.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from jaxtyping import Bool, Float, Int

from probmmae.batch import Spectra
from probmmae.decoders import KNOT_RANGE, KNOTS, LINE_FLOOR, MODES
from probmmae.inference.evidence import Filters, Lines
from probmmae.instrument import RUNGS, SPEED_OF_LIGHT, blurred, pixel_widths
from probmmae.latent import Field
from probmmae.level import LEVEL
from probmmae.model import GalaxyModel
from probmmae.redshift import RedshiftDensity
from probmmae.tokens import SPECTRAL_UNIT

_Kind = TypeVar("_Kind")
_WIDEST_GAS = 100 * math.exp(2)
"""km/s: the largest dispersion of the gas that the decoder answers with."""
_PADDING = 0.01
"""Angstrom: pixels narrower than this are padding."""
_REACH = 32
"""A reach is rounded up to a multiple of this: galaxies alike share one compiled program."""


def pytree(kind: type[_Kind]) -> type[_Kind]:
    """Let JAX look into a frozen dataclass; fields whose metadata say "static" are compiled in.

    It is rebuilt without its constructor: JAX also fills it with what is not an array.
    """
    names = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    static = [one.name for one in fields(kind) if one.metadata.get("static")]  # type: ignore[arg-type]
    leaves = [name for name in names if name not in static]

    def flatten(tree: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return (
            tuple(getattr(tree, name) for name in leaves),
            tuple(getattr(tree, name) for name in static),
        )

    def rebuild(fixed: Any, children: Any) -> Any:
        made = object.__new__(kind)
        pairs = (*zip(leaves, children, strict=True), *zip(static, fixed, strict=True))
        for name, value in pairs:
            object.__setattr__(made, name, value)
        return made

    jax.tree_util.register_pytree_node(kind, flatten, rebuild)
    return kind


@pytree
@dataclass(frozen=True)
class DecoderArrays:
    """The weights of a `SpectrumDecoder` and the templates it speaks in."""

    mean: Float[Array, " relative"]
    deviation: Float[Array, " relative"]
    straight: Float[Array, "relative code"]
    weights: tuple[Array, ...]
    """Of the three layers of the nonlinear part, each (out, in)."""
    biases: tuple[Array, ...]
    log_intrinsic: Float[Array, " knot"]
    log_calibration: Float[Array, " mode"]
    ladder: Float[Array, "rung wave basis"]
    """The templates' curves blurred to each rung."""
    wave: Float[Array, " wave"]
    """Rest wavelength of the curves, Angstrom."""
    line: Float[Array, " line"]
    """Rest wavelength of the lines, Angstrom."""
    step: float = field(metadata={"static": True})
    """Step of ln(wave)."""
    template_sigma: float = field(metadata={"static": True})
    """Width that the curves carry, km/s."""


@pytree
@dataclass(frozen=True)
class PixelArrays:
    """Measured spectra on their grids; leading axes are for `vmap`."""

    wavelength: Float[Array, "*rows pixel"]
    """Angstrom."""
    width: Float[Array, "*rows pixel"]
    """Of a pixel, Angstrom."""
    sigma: Float[Array, "*rows pixel"]
    """Width of the line-spread function, Angstrom."""
    flux: Float[Array, "*rows pixel"]
    """1e-17 erg/s/cm2/Angstrom."""
    ivar: Float[Array, "*rows pixel"]
    """Inverse variance of `flux`; 0 is missing."""
    reach: int = field(metadata={"static": True})
    """Pixels to either side of its centre that the widest line touches."""


@pytree
@dataclass(frozen=True)
class FilterArrays:
    """Fluxes through filters; leading axes are for `vmap`."""

    pixels: PixelArrays
    """The grid on which a filter is integrated; its flux and ivar mean nothing."""
    weight: Float[Array, "*rows pixel"]
    """Nanomaggies per 1e-17 erg/s/cm2/Angstrom."""
    flux: Float[Array, "*rows"]
    """Nanomaggies."""
    variance: Float[Array, "*rows"]


@pytree
@dataclass(frozen=True)
class LineArrays:
    """Fluxes of lines; leading axes are for `vmap`."""

    which: Int[Array, "*rows"]
    """In the templates' list."""
    flux: Float[Array, "*rows"]
    """1e-17 erg/s/cm2."""
    variance: Float[Array, "*rows"]


@pytree
@dataclass(frozen=True)
class RestArrays:
    """`RestSpectrum` of one aperture."""

    continuum: Float[Array, " basis"]
    lines: Float[Array, " line"]
    velocity: Float[Array, ""]
    sigma_star: Float[Array, ""]
    sigma_gas: Float[Array, ""]


@pytree
@dataclass(frozen=True)
class RedshiftArrays:
    """p(z | c): a mixture on ln(1 + z), each component truncated to z > 0."""

    log_weight: Float[Array, "*galaxy component"]
    loc: Float[Array, "*galaxy component"]
    scale: Float[Array, "*galaxy component"]


@pytree
@dataclass(frozen=True)
class FieldArrays:
    """p(u | z, c) at given apertures: a mixture of normals."""

    log_weight: Float[Array, "*galaxy class"]
    mean: Float[Array, "*galaxy class joint"]
    whitener: Float[Array, "*galaxy class joint joint"]
    """Inverse of the lower root of the covariance: lower, made in double precision."""


def _array(tensor: Any) -> Array:
    return jnp.asarray(tensor.detach().cpu().numpy())


def decoder_arrays(network: GalaxyModel) -> DecoderArrays:
    """The arrays of a network's spectrum decoder, in the network's precision.

    Raises:
        ValueError: The network has no latent: its likelihood is not "field".
    """
    if network.config.likelihood != "field":
        raise ValueError(
            "Expected a network with the likelihood 'field'; got "
            f"{network.config.likelihood!r}, which has no latent to infer. Load another."
        )
    decoder, templates = network.spectrum_decoder, network.templates
    layers = [decoder.bend[index] for index in (0, 2, 4)]
    like = decoder.straight.weight
    return DecoderArrays(
        mean=_array(decoder.get_buffer("mean")),
        deviation=_array(decoder.get_buffer("deviation")),
        straight=_array(like),
        weights=tuple(_array(layer.weight) for layer in layers),
        biases=tuple(_array(layer.bias) for layer in layers),
        log_intrinsic=_array(decoder.log_intrinsic),
        log_calibration=_array(decoder.log_calibration),
        ladder=_array(blurred(templates).to(like).transpose(1, 2)),
        wave=_array(templates.wavelength.to(like)),
        line=_array(templates.line_wavelength.to(like)),
        step=templates.step,
        template_sigma=templates.template_sigma,
    )


def pixel_arrays(spectra: Spectra) -> PixelArrays:
    """Measured spectra of any leading axes, (galaxy, spectrum) as a rule."""
    width = pixel_widths(spectra.wavelength)
    gas = _WIDEST_GAS / SPEED_OF_LIGHT * spectra.wavelength
    widest = 5 * (gas**2 + spectra.sigma**2).sqrt() / width
    real = width > _PADDING
    reach = int(widest[real].max()) if bool(real.any()) else 0
    return PixelArrays(
        wavelength=_array(spectra.wavelength),
        width=_array(width),
        sigma=_array(spectra.sigma),
        flux=_array(spectra.flux),
        ivar=_array(spectra.ivar),
        reach=min(-(-(reach + 2) // _REACH) * _REACH, spectra.wavelength.shape[-1]),
    )


def filter_arrays(filters: Filters) -> FilterArrays:
    """Fluxes through filters, of any number of galaxies."""
    nothing = torch.zeros_like(filters.wavelength)
    aperture = nothing.new_zeros(*nothing.shape[:-1], 4)
    grid = Spectra(filters.wavelength, nothing, nothing, nothing, aperture)
    told = (_array(part) for part in (filters.weight, filters.flux, filters.variance))
    return FilterArrays(pixel_arrays(grid), *told)


def line_arrays(lines: Lines) -> LineArrays:
    """Fluxes of lines, of any number of galaxies."""
    return LineArrays(*(_array(part) for part in (lines.which, lines.flux, lines.variance)))


def redshift_arrays(density: RedshiftDensity) -> RedshiftArrays:
    """p(z | c) of any number of galaxies."""
    return RedshiftArrays(*(_array(p) for p in (density.log_weight, density.loc, density.scale)))


def field_arrays(prior: Field) -> FieldArrays:
    """p(u | z, c) of any leading axes (galaxy, and redshift where there are several)."""
    mixture = prior.distribution()
    root = mixture.component_distribution.scale_tril.detach().cpu().numpy()
    return FieldArrays(
        log_weight=_array(mixture.mixture_distribution.logits),
        mean=_array(mixture.component_distribution.mean),
        whitener=jnp.asarray(np.tril(np.linalg.inv(root))),
    )


def _dot(first: Array, second: Array) -> Array:
    """A matrix product in full precision on every device."""
    return jnp.matmul(first, second, precision="highest")


def light(
    decoder: DecoderArrays, u: Float[Array, " latent"], scale: Float[Array, ""]
) -> RestArrays:
    """What an aperture with latent u collects.

    Args:
        decoder: The decoder.
        u: The latent.
        scale: The galaxy's flux scale, nanomaggies.
    """
    hidden = u[1:]
    for weight, bias in zip(decoder.weights[:-1], decoder.biases[:-1], strict=True):
        hidden = jax.nn.gelu(_dot(weight, hidden) + bias, approximate=False)
    bent = _dot(decoder.weights[-1], hidden) + decoder.biases[-1]
    relative = decoder.mean + decoder.deviation * (_dot(decoder.straight, u[1:]) + bent)
    basis, lines = decoder.ladder.shape[-1], decoder.line.shape[0]
    shape, strength, rest = jnp.split(relative, [basis, basis + lines])
    level = jnp.exp(jnp.clip(u[0] - LEVEL, -12, 8)) * scale * SPECTRAL_UNIT
    return RestArrays(
        continuum=shape * level,
        lines=jnp.maximum(jnp.exp(jnp.clip(strength, -8, 9)) - LINE_FLOOR, 0) * level,
        velocity=rest[0] * 100,
        sigma_star=100 * jnp.exp(jnp.clip(rest[1], -3, 2)),
        sigma_gas=100 * jnp.exp(jnp.clip(rest[2], -3, 2)),
    )


def observe(
    decoder: DecoderArrays, rest: RestArrays, z: Float[Array, ""], pixels: PixelArrays
) -> Float[Array, " pixel"]:
    """Flux of `rest` at redshift z on the pixels of one spectrum, 1e-17 erg/s/cm2/Angstrom."""
    shift = (1 + z) * (1 + rest.velocity / SPEED_OF_LIGHT)
    return _add_lines(decoder, rest, shift, pixels, _continuum(decoder, rest, shift, pixels))


def _continuum(
    decoder: DecoderArrays, rest: RestArrays, shift: Array, pixels: PixelArrays
) -> Array:
    rungs, waves, basis = decoder.ladder.shape
    squares = jnp.asarray(RUNGS, pixels.sigma.dtype) ** 2
    instrument = pixels.sigma**2 + jnp.minimum(pixels.width, 1e3) ** 2 / 12
    needed = jnp.clip(
        (SPEED_OF_LIGHT / pixels.wavelength) ** 2 * instrument
        + rest.sigma_star**2
        - decoder.template_sigma**2,
        0.0,
        RUNGS[-1] ** 2 - 1,
    )
    rung = jnp.clip(
        jnp.searchsorted(squares, needed, side="right", method="compare_all") - 1, 0, rungs - 2
    )
    upper = (needed - squares[rung]) / (squares[rung + 1] - squares[rung])
    position = jnp.clip(
        jnp.log(pixels.wavelength / shift / decoder.wave[0]) / decoder.step, 0.0, waves - 1.001
    )
    left = jnp.floor(position)
    weight = position - left
    # Only the four curves' values around each pixel are weighted, not whole blurred spectra.
    index = rung * waves + left.astype(rung.dtype)
    flat = decoder.ladder.reshape(rungs * waves, basis)
    corners = jnp.stack([index, index + 1, index + waves, index + waves + 1])
    a, b, c, d = _dot(flat[corners], rest.continuum)
    low, high = a + weight * (b - a), c + weight * (d - c)
    return low + upper * (high - low)


def _add_lines(
    decoder: DecoderArrays, rest: RestArrays, shift: Array, pixels: PixelArrays, flux: Array
) -> Array:
    wavelength, count = pixels.wavelength, pixels.wavelength.shape[0]
    centre = decoder.line * shift
    middle = jnp.clip(jnp.searchsorted(wavelength, centre, method="compare_all"), 0, count - 1)
    gas = rest.sigma_gas / SPEED_OF_LIGHT * centre
    scale = jnp.sqrt(gas**2 + pixels.sigma[middle] ** 2)[:, None] * 2**0.5
    raw = middle[:, None] + jnp.arange(-pixels.reach, pixels.reach + 1)
    inside = (centre > wavelength[0]) & (centre < wavelength[-1])
    valid = (raw >= 0) & (raw < count) & inside[:, None]
    index = jnp.clip(raw, 0, count - 1)
    across = pixels.width[index]
    distance = wavelength[index] - centre[:, None]
    share = 0.5 * (
        jax.scipy.special.erf((distance + across / 2) / scale)
        - jax.scipy.special.erf((distance - across / 2) / scale)
    )
    value = jnp.where(valid, rest.lines[:, None] * share / across, 0.0)
    return flux.at[index].add(value)


def uncertainty(
    decoder: DecoderArrays,
    mean: Float[Array, " pixel"],
    z: Float[Array, ""],
    wavelength: Float[Array, " pixel"],
) -> tuple[Float[Array, " pixel"], Float[Array, "pixel mode"]]:
    """Intrinsic variance per pixel, and the flux-calibration factors."""
    first, last = math.log(KNOT_RANGE[0]), math.log(KNOT_RANGE[1])
    rest = jnp.log(wavelength) - jnp.log1p(z)
    place = jnp.clip((rest - first) / (last - first) * (KNOTS - 1), 0, KNOTS - 1.001)
    left = jnp.floor(place)
    index = left.astype(int)
    before, after = decoder.log_intrinsic[index], decoder.log_intrinsic[index + 1]
    own = jnp.exp(before + (place - left) * (after - before))
    return (jnp.maximum(own, 1e-3) * mean) ** 2, mean[:, None] * _calibration(decoder, wavelength)


def _calibration(decoder: DecoderArrays, wavelength: Array) -> Array:
    """Fractional errors of flux calibration at observed wavelengths; a last axis mode is added."""
    low, high = math.log(3600.0), math.log(10400.0)
    x = jnp.clip((jnp.log(wavelength) - low) / (high - low) * 2 - 1, -1.5, 1.5)
    modes = jnp.stack([jnp.ones_like(x), x, 2 * x**2 - 1], axis=-1)[..., :MODES]
    return modes * jnp.exp(decoder.log_calibration)


def low_rank_log_prob(
    residual: Float[Array, " pixel"],
    factor: Float[Array, "pixel factor"],
    variance: Float[Array, " pixel"],
    mask: Bool[Array, " pixel"],
) -> Float[Array, ""]:
    """ln of the normal density with covariance F F^T + diag(variance), at the masked pixels."""
    weight = mask / variance
    residual = jnp.where(mask, residual, 0.0)
    weighted = weight[:, None] * factor
    inner = _dot(factor.T, weighted) + jnp.eye(factor.shape[1], dtype=factor.dtype)
    root = jnp.linalg.cholesky(inner)
    solved = jax.scipy.linalg.solve_triangular(root, _dot(residual, weighted), lower=True)
    each = jnp.where(mask, jnp.log(2 * math.pi * variance), 0.0)
    squares = (weight * residual**2).sum() - (solved**2).sum()
    return -0.5 * (squares + each.sum()) - jnp.log(jnp.diagonal(root)).sum()


def spectrum_log_prob(
    decoder: DecoderArrays,
    u: Float[Array, " latent"],
    z: Float[Array, ""],
    scale: Float[Array, ""],
    pixels: PixelArrays,
) -> Float[Array, ""]:
    """ln p(x | u, z) of one measured spectrum.

    Args:
        decoder: The decoder.
        u: The latent at the spectrum's aperture.
        z: The redshift.
        scale: The galaxy's flux scale, nanomaggies.
        pixels: The spectrum, no leading axes.
    """
    mean = observe(decoder, light(decoder, u, scale), z, pixels)
    variance, factor = uncertainty(decoder, mean, z, pixels.wavelength)
    rest = pixels.wavelength / (1 + z)
    mask = (pixels.ivar > 0) & (rest > decoder.wave[0]) & (rest < decoder.wave[-1])
    noise = 1 / jnp.maximum(pixels.ivar, 1e-12)
    return low_rank_log_prob(pixels.flux - mean, factor, variance + noise, mask)


def filter_log_prob(
    decoder: DecoderArrays,
    u: Float[Array, " latent"],
    z: Float[Array, ""],
    scale: Float[Array, ""],
    told: FilterArrays,
) -> Float[Array, ""]:
    """ln p(flux | u, z) of one filter; other arguments as in `spectrum_log_prob`."""
    mean = observe(decoder, light(decoder, u, scale), z, told.pixels)
    variance, factor = uncertainty(decoder, mean, z, told.pixels.wavelength)
    own = told.variance + (told.weight**2 * variance).sum()
    own = own + (_dot(told.weight, factor) ** 2).sum()
    return _normal(told.flux - _dot(told.weight, mean), own)


def line_log_prob(
    decoder: DecoderArrays,
    u: Float[Array, " latent"],
    z: Float[Array, ""],
    scale: Float[Array, ""],
    told: LineArrays,
) -> Float[Array, ""]:
    """ln p(flux | u, z) of one line; other arguments as in `spectrum_log_prob`."""
    mean = light(decoder, u, scale).lines[told.which]
    factor = mean * _calibration(decoder, decoder.line[told.which] * (1 + z))
    return _normal(told.flux - mean, told.variance + (factor**2).sum())


def _normal(residual: Array, variance: Array) -> Array:
    return -0.5 * (residual**2 / variance + jnp.log(2 * math.pi * variance))


def redshift_log_prob(density: RedshiftArrays, z: Float[Array, ""]) -> Float[Array, ""]:
    """ln p(z | c) of one galaxy, per unit redshift; minus infinity below zero."""
    x = jnp.log1p(jnp.maximum(z, -0.99))
    inside = 0.5 * jax.scipy.special.erfc(-density.loc / density.scale / math.sqrt(2))
    standard = (x - density.loc) / density.scale
    normal = jnp.log(density.scale * jnp.maximum(inside, 1e-12)) + 0.5 * math.log(2 * math.pi)
    each = density.log_weight - 0.5 * standard**2 - normal
    return jnp.where(z >= 0, jax.nn.logsumexp(each) - x, -jnp.inf)


def field_log_prob(prior: FieldArrays, u: Float[Array, " joint"]) -> Float[Array, ""]:
    """ln p(u | z, c) of one galaxy at one redshift; u of all apertures, flattened."""
    white = jnp.einsum("kij,kj->ki", prior.whitener, u - prior.mean, precision="highest")
    diagonal = jnp.diagonal(prior.whitener, axis1=-2, axis2=-1)
    each = jnp.log(diagonal).sum(-1) - 0.5 * (white**2).sum(-1)
    each = each - 0.5 * u.shape[0] * math.log(2 * math.pi)
    return jax.nn.logsumexp(prior.log_weight + each)
