"""The latent field: p(u(s) | z, c) over sky positions s, and the guide q(u | O, T, z).

u(s) is a vector of a few tens of numbers that carries what the observed tokens leave open about
the spectrum at the sky position (aperture) s. Its conditional prior is a mixture over a few
galaxy-wide classes k of Gaussian fields:

    u(s) | k  =  mu_k(s) + sigma_k(s) * ( G(s) g  +  L(s) e(s)  +  nu n(s) )

with g ~ N(0, 1) a handful of global latents, e(s) Gaussian processes on the sky of unit variance
(a squared-exponential part, whose length goes with the galaxy, and a white one, in learned shares,
because some numbers of the code follow the galaxy and others are noise) and n(s) white. mu, sigma,
G and L are functions of the context around s and of z. The joint density of u at any list of
apertures is exact, so apertures of one galaxy are correlated by structure and by what
multi-aperture galaxies teach; class, g and e(.) drawn once make one coherent galaxy at every
position.

The level u[0] is known far better than the population's spread, so it is told as a small departure
from what is measured (`level`): from the flux of the images through the aperture, at the rest
wavelengths of the level; and where a spectrum is visible, the prior's Gaussian of the level is
multiplied with what a linear fit of its continuum measures.

The guide reads a Gaussian pseudo-measurement of u off each spectrum in its rest frame: where
there is a spectrum q is that times the code's population, N(0, 1); where there is none it is the
prior's conditional, and adds nothing to the KL.

Axes: galaxy, draw, query (aperture), spectrum, class, latent, shared (global latents), bin.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from pyro.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch import Tensor, nn

from probmmae.batch import Images, Spectra, spectrum_level
from probmmae.continuum import FEATURES, fit
from probmmae.encoder import BandSum, Block, Context, fourier
from probmmae.level import LEVEL, MeasuredLevel, level_of_images
from probmmae.tokens import (
    APERTURE_FEATURES,
    SPECTRAL_UNIT,
    apertures,
    band_coordinates,
)

REST_RANGE = (2200.0, 10600.0)
"""Rest wavelengths that the recognition network bins, Angstrom."""
REST_BINS = 768
_AROUND = 21
"""Bins that a line is seen against."""
_SHIFT = 0.1
"""Unit of the departure of the level from what is measured, in ln."""
_MODEL_ERROR, _APART_ERROR = 0.003, 0.5
"""Error in ln of the level of a spectrum, of its own aperture and of one a diameter apart, before
training."""
PER_DRAW = ("logits", "mean", "spread", "shared", "local", "kernel")


@dataclass(frozen=True)
class Field:
    """The conditional prior of u over a list of queries (leading axes: galaxy, maybe draw)."""

    logits: Float[Tensor, "*galaxy class"]
    mean: Float[Tensor, "*galaxy query class latent"]
    spread: Float[Tensor, "*galaxy query class latent"]
    shared: Float[Tensor, "*galaxy query latent shared"]
    local: Float[Tensor, "*galaxy query latent latent"]
    """Lower-triangular factor of the local covariance."""
    kernel: Float[Tensor, "*galaxy latent query query"]
    """Correlation of each unit Gaussian process between queries."""
    nugget: Float[Tensor, " latent"]
    length: Float[Tensor, "galaxy latent"]
    """Of the smooth part of each process, arcsec; the same in all draws."""
    white: Float[Tensor, " latent"]
    """Share of each process's variance that no two queries have in common."""

    def of_draw(self, draw: int) -> "Field":
        """The field of one redshift draw (leading axes galaxy, draw become galaxy)."""
        parts = {name: getattr(self, name)[:, draw] for name in PER_DRAW}
        return replace(self, **parts)

    def _common(self) -> Float[Tensor, "*galaxy joint joint"]:
        """Covariance of (query, latent) in units of the spread, which all classes share."""
        shared, local = self.shared.double(), self.local.double()
        outer = torch.einsum("...qis,...pjs->...qipj", shared, shared)
        moved = torch.einsum("...sqp,...pjs->...qpjs", self.kernel.double(), local)
        outer = outer + torch.einsum("...qis,...qpjs->...qipj", local, moved)
        joint = outer.shape[-4] * outer.shape[-3]
        outer = outer.reshape(*outer.shape[:-4], joint, joint)
        queries = self.shared.shape[-3]
        return outer + torch.diag(self.nugget.double().repeat(queries) ** 2 + 1e-6)

    def _spreads(self) -> Float[Tensor, "*galaxy class joint"]:
        return self.spread.double().transpose(-3, -2).flatten(-2)

    def covariance(self) -> Float[Tensor, "*galaxy class joint joint"]:
        """Covariance of (query, latent) within each class, double precision."""
        spread = self._spreads()
        return self._common()[..., None, :, :] * spread[..., :, None] * spread[..., None, :]

    def alone(self) -> MixtureSameFamily:
        """The density of u at every query by itself: batch axes (*galaxy, query)."""
        shared, local = self.shared.double(), self.local.double()
        inner = shared @ shared.mT + local @ local.mT
        inner = inner + torch.diag(self.nugget.double() ** 2 + 1e-6)
        root = torch.linalg.cholesky(inner)[..., None, :, :]
        logits = self.logits.double()[..., None, :].expand(self.mean.shape[:-1])
        return MixtureSameFamily(
            Categorical(logits=logits, validate_args=False),
            MultivariateNormal(
                self.mean.double(),
                scale_tril=self.spread.double()[..., None] * root,
                validate_args=False,
            ),
            validate_args=False,
        )

    def means(self) -> Float[Tensor, "*galaxy class joint"]:
        """Mean of (query, latent) within each class, double precision."""
        return self.mean.double().transpose(-3, -2).flatten(-2)

    def distribution(self) -> MixtureSameFamily:
        """The exact joint density of u at all queries."""
        root = torch.linalg.cholesky(self._common())
        return MixtureSameFamily(
            Categorical(logits=self.logits.double(), validate_args=False),
            MultivariateNormal(
                self.means(),
                scale_tril=self._spreads()[..., None] * root[..., None, :, :],
                validate_args=False,
            ),
            validate_args=False,
        )

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (*galaxy, joint) and covariance (*galaxy, joint, joint) of the mixture."""
        weight = torch.softmax(self.logits.double(), -1)
        means = self.means()
        mean = (weight[..., None] * means).sum(-2)
        offset = means - mean[..., None, :]
        weighted = weight[..., None] * offset
        between = torch.einsum("...ki,...kj->...ij", weighted, offset)
        spread = self._spreads()
        within = torch.einsum("...ki,...kj->...ij", weight[..., None] * spread, spread)
        return mean, self._common() * within + between


@dataclass(frozen=True)
class PseudoMeasurement:
    """What one spectrum says of u at its aperture: a Gaussian factor."""

    mean: Float[Tensor, "*galaxy spectrum latent"]
    root_precision: Float[Tensor, "*galaxy spectrum latent latent"]
    """Lower-triangular root of the precision; zero where there is no spectrum."""

    def update(self, field: Field) -> MultivariateNormal:
        """q(u): where there is a spectrum, what it says of the code; elsewhere p(u | u there).

        The code is standard normal over the population (`code`), so a spectrum's own posterior is
        its factor times N(0, 1). Where the spectrum leaves the code open q is N(0, 1) too, which
        holds p(u | z, c) to the region that the decoder knows. One joint normal of all queries.
        """
        mean, covariance = (part.detach() for part in field.moments())
        prior = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        root = self.root_precision.double()
        factor = root @ root.transpose(-1, -2)
        latent = factor.shape[-1]
        identity = torch.eye(latent, dtype=factor.dtype, device=factor.device)
        present = (root.diagonal(dim1=-2, dim2=-1) > 0).flatten(-2).to(factor.dtype)
        # The prior's own say where there is a spectrum is taken out: inverse of that block.
        both = present[..., :, None] * present[..., None, :]
        own = covariance * both + torch.diag_embed(1 - present)
        own = torch.cholesky_inverse(torch.linalg.cholesky(own)) * both
        blocks = torch.zeros_like(prior)
        pull = (factor @ self.mean.double()[..., None])[..., 0].flatten(-2)
        for index in range(factor.shape[-3]):
            part = slice(index * latent, (index + 1) * latent)
            there = present[..., part, None]
            blocks[..., part, part] = factor[..., index, :, :] + identity * there
        lower = torch.linalg.cholesky(prior - own + blocks)
        pulled = ((prior - own) @ mean[..., None])[..., 0] + pull
        centre = torch.cholesky_solve(pulled[..., None], lower)[..., 0]
        # The root of the covariance from the root of the precision: (L L^T)^-1 = L^-T L^-1.
        whole = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
        inverse = torch.linalg.solve_triangular(lower, whole.expand_as(lower), upper=False)
        spread = inverse.transpose(-1, -2) @ inverse
        return MultivariateNormal(
            centre, scale_tril=torch.linalg.cholesky(spread), validate_args=False
        )


def rest_bins(
    spectra: Spectra, z: Float[Tensor, "galaxy"], scale: Float[Tensor, " galaxy"]
) -> Float[Tensor, "galaxy spectrum feature"]:
    """Spectra averaged (by ivar) in fixed rest-frame ln-wavelength bins: values and reliabilities.

    Values are asinh of flux over the spectrum's own level; the last feature is ln of that level
    over the galaxy's scale. Bins without data are exactly zero.
    """
    level, present = spectrum_level(spectra)
    low, high = math.log(REST_RANGE[0]), math.log(REST_RANGE[1])
    rest = torch.log(spectra.wavelength) - torch.log1p(z)[:, None, None]
    index = ((rest - low) / (high - low) * REST_BINS).floor().long()
    inside = (index >= 0) & (index < REST_BINS)
    index = index.clamp(0, REST_BINS - 1)
    weight = spectra.ivar * level[..., None] ** 2 * inside
    empty = weight.new_zeros(*weight.shape[:-1], REST_BINS)
    total = empty.scatter_add(-1, index, weight)
    value = empty.scatter_add(-1, index, weight * spectra.flux / level[..., None])
    value = value / total.clamp(min=1e-12)
    reliability = total / (1 + total)
    against = torch.log(level / (scale[:, None] * SPECTRAL_UNIT)).clamp(-8, 8) * present
    return torch.cat(
        [reliability * torch.asinh(value), torch.log1p(total) / 10, against[..., None]], dim=-1
    )


def _with_lines(bins: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows wider"]:
    """`rest_bins` and, amplified, what stands out of their surroundings: lines and breaks."""
    value, depth = bins[..., :REST_BINS], bins[..., REST_BINS : 2 * REST_BINS]
    total = torch.expm1(10 * depth)
    reliability = total / (1 + total)

    def smooth(part: Tensor) -> Tensor:
        rows = torch.nn.functional.avg_pool1d(
            part.reshape(-1, 1, REST_BINS), _AROUND, 1, _AROUND // 2, count_include_pad=False
        )
        return rows.reshape(part.shape)

    local = reliability * smooth(value) / smooth(reliability).clamp(min=1e-3)
    return torch.cat([bins, torch.asinh(8 * (value - local))], dim=-1)


class Recognition(nn.Module):
    """From a spectrum in its rest frame to features, and to a pseudo-measurement of u."""

    def __init__(self, hidden: int, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.layers = nn.Sequential(
            nn.Linear(3 * REST_BINS + 1, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()
        )
        self.mean = nn.Linear(hidden, latent)
        self.root = nn.Linear(hidden, latent * (latent + 1) // 2)
        nn.init.normal_(self.root.weight, std=1e-3)
        nn.init.zeros_(self.root.bias)
        self.register_buffer("_rows", torch.tril_indices(latent, latent), persistent=False)

    def read(self, spectra: Spectra, z: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """What a spectrum says: the mean of its factor, and features that tell how to trust it.

        Shapes (galaxy, spectrum, latent) and (galaxy, spectrum, hidden + 2 latent).
        """
        bins = rest_bins(spectra, z, scale)
        mean, root = self.factor(bins)
        sharp = root.diagonal(dim1=-2, dim2=-1).log()
        return mean, torch.cat([self.layers(_with_lines(bins)), mean, sharp], dim=-1)

    def factor(self, bins: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and lower root of the precision that rest-frame bins (last axis) give."""
        hidden = self.layers(_with_lines(bins))
        flat = self.root(hidden)
        root = flat.new_zeros(*flat.shape[:-1], self.latent, self.latent)
        rows, columns = self.get_buffer("_rows")
        root[..., rows, columns] = flat
        diagonal = torch.exp(root.diagonal(dim1=-2, dim2=-1).clamp(-8, 8) + 1.0)
        # The level of the spectrum itself is the first guess of the level of its continuum.
        level = torch.cat(
            [bins[..., -1:] + LEVEL, torch.zeros_like(flat[..., 1 : self.latent])], -1
        )
        return self.mean(hidden) + level, root.tril(-1) + torch.diag_embed(diagonal)

    def forward(self, spectra: Spectra, z: Tensor, scale: Tensor) -> PseudoMeasurement:
        """The factor of each spectrum; nothing where a spectrum has no pixel."""
        mean, root = self.factor(rest_bins(spectra, z, scale))
        present = (spectra.ivar > 0).any(-1)
        return PseudoMeasurement(mean, root * present[..., None, None])


@dataclass(frozen=True)
class _Levels:
    """What is measured of u[0], and the network's departure from it."""

    imaged: MeasuredLevel
    spectral: MeasuredLevel
    departure: Float[Tensor, "galaxy draw query 2 class"]

    def told(self, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of u[0] by class, from those without a measurement."""
        seen = torch.isfinite(self.imaged.error)[..., None]
        shift, width = self.departure.clamp(-5, 5).unbind(-2)
        error = torch.where(seen, self.imaged.error[..., None], 1.0)
        mean = torch.where(seen, self.imaged.mean[..., None] + _SHIFT * shift, mean)
        deviation = torch.where(seen, error * torch.exp(width), deviation)
        return self.spectral.combined(mean, deviation)


class LatentPrior(nn.Module):
    """p(u | z, c): what context, image under the aperture and nearest spectrum say of u."""

    def __init__(
        self, width: int, heads: int, hidden: int, latent: int, shared: int, classes: int
    ) -> None:
        super().__init__()
        self.latent, self.shared, self.classes = latent, shared, classes
        # Its own reader: the guide's is tuned to all that is known, and amplifies noise.
        self.reader = Recognition(hidden, latent)
        self.under = BandSum(APERTURE_FEATURES, 3, 3 * width, width)
        self.position = nn.Linear(4 + 2 * 2 * 6, width)
        self.redshift = nn.Sequential(nn.Linear(13, width), nn.GELU(), nn.Linear(width, width))
        self.nearest = nn.Sequential(
            nn.Linear(hidden + 2 * latent + 4, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.continuum = nn.Sequential(
            nn.Linear(FEATURES + 4, 2 * width), nn.GELU(), nn.Linear(2 * width, width + 3)
        )
        self.departure = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(),
            nn.Linear(2 * width, 2 * classes),
        )  # fmt: skip
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(2)])
        per_query = (2 * classes + shared + 1) * latent + latent * (latent + 1) // 2
        self.head = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, per_query),
        )
        self.class_head = nn.Sequential(
            nn.Linear(4 * width, width), nn.GELU(), nn.Linear(width, classes)
        )
        self.log_length = nn.Parameter(torch.full((latent,), 0.7))
        self.white = nn.Parameter(torch.full((latent,), -1.0))
        # Large galaxies are alike over longer ways.
        self.stretch = nn.utils.skip_init(nn.Linear, 3 * width, 1)
        self.log_nugget = nn.Parameter(torch.full((latent,), -3.0))
        self.register_buffer("_rows", torch.tril_indices(latent, latent), persistent=False)
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(self.stretch.weight)
        nn.init.zeros_(self.stretch.bias)
        with torch.no_grad():
            last.bias.zero_()
            last.bias[: classes * latent] = 0.3 * torch.randn(classes * latent)
        for told in (self.continuum[-1], self.departure[-1]):
            assert isinstance(told, nn.Linear)
            nn.init.normal_(told.weight, std=1e-3)
            nn.init.zeros_(told.bias)

    def laws(self) -> list[nn.Parameter]:
        """How positions are alike, the same for all galaxies."""
        return [self.log_length, self.white, self.log_nugget]

    def redshift_features(self, z: Tensor) -> Tensor:
        """Embedding of z, last axis width."""
        x = torch.log1p(z)[..., None]
        embedded: Tensor = self.redshift(torch.cat([x, fourier(x, 1.4, 0.03, 6)], dim=-1))
        return embedded

    def forward(
        self,
        context: Context,
        images: Images,
        spectra: Spectra,
        aperture: Float[Tensor, "galaxy query 4"],
        z: Float[Tensor, "galaxy draw"],
    ) -> tuple[Field, Tensor]:
        """The field at the queries for each redshift draw, and the queries' hidden features.

        Both carry the leading axes (galaxy, draw).
        """
        draws = z.shape[1]
        queries = aperture.shape[1]
        seen = (images.ivar > 0).flatten(2).any(-1)
        band = band_coordinates(images)
        looked = apertures(images, aperture[..., :2], context.scale).transpose(1, 2)
        under = self.under(looked, band, seen[..., None].expand(*seen.shape, queries))
        shape = torch.log(aperture[..., 2:].clamp(min=0.05))
        place = torch.cat(
            [aperture[..., :2] / 5, shape, fourier(aperture[..., :2], 40.0, 1.5, 6)], dim=-1
        )
        here = under * seen.any(1)[:, None, None] + self.position(place)
        redshift = self.redshift_features(z)
        hidden = here[:, None] + redshift[:, :, None]
        near, told, level = self._from_spectra(spectra, aperture, z, context.scale)
        hidden = hidden + told
        flat = hidden.flatten(1, 2)
        for block in self.blocks:
            flat = block(flat, context.tokens, context.visible)
        hidden = flat.unflatten(1, (draws, queries))
        pooled = context.pooled[:, None].expand(-1, draws, -1)
        logits = self.class_head(torch.cat([pooled, redshift], dim=-1))
        imaged = level_of_images(images, aperture, z, context.scale)
        levels = _Levels(imaged, level, self.departure(hidden).unflatten(-1, (2, -1)))
        length = torch.exp(self.log_length + self.stretch(context.pooled).clamp(-3, 3))
        field = self._field(self.head(hidden), near, levels, logits, aperture[..., :2], length)
        return field, hidden

    def _from_spectra(
        self,
        spectra: Spectra,
        aperture: Tensor,
        z: Tensor,
        scale: Tensor,
    ) -> tuple[Tensor, Tensor, MeasuredLevel]:
        """u as read off the nearest visible spectrum of each query, features of it, and its level.

        Shapes (galaxy, draw, query, latent) and (galaxy, draw, query, width); zero where no
        spectrum is visible.
        """
        present = (spectra.ivar > 0).any(-1)
        galaxies, draws = z.shape
        if not bool(present.any()):
            nothing = z.new_zeros(galaxies, draws, aperture.shape[1], 1)
            empty = nothing[..., 0]
            return nothing, nothing, MeasuredLevel(empty, torch.full_like(empty, torch.inf))
        gap = aperture[:, :, None, :2] - spectra.aperture[:, None, :, :2]
        distance = gap.square().sum(-1) + 1e6 * (~present)[:, None]
        nearest = distance.argmin(-1)
        rows = torch.arange(galaxies, device=z.device)[:, None]
        repeated = spectra.map(lambda part: part.repeat_interleave(draws, 0))
        both = self.reader.read(repeated, z.flatten(), scale.repeat_interleave(draws))
        mean, read = (
            part.unflatten(0, (galaxies, draws)).transpose(1, 2)[rows, nearest] for part in both
        )
        chosen = spectra.aperture[rows, nearest]
        offset = torch.cat(
            [
                (aperture[..., :2] - chosen[..., :2]) / 3,
                torch.log(aperture[..., 2:].clamp(min=0.05) / chosen[..., 2:].clamp(min=0.05)),
            ],
            dim=-1,
        )[:, :, None].expand(-1, -1, draws, -1)
        told: Tensor = self.nearest(torch.cat([read, offset], dim=-1))
        fitted = fit(spectra, z)
        features, height, error = (
            part.transpose(1, 2)[rows, nearest]
            for part in (fitted.features, fitted.level, fitted.error)
        )
        added, moved = self.continuum(torch.cat([features, offset], dim=-1)).split(
            [told.shape[-1], 3], dim=-1
        )
        shift, own, other = moved.clamp(-5, 5).unbind(-1)
        any_spectrum = present.any(1)[:, None, None]
        measured = torch.log(height / (scale[:, None, None] * SPECTRAL_UNIT)).clamp(-12, 8)
        apart = offset[..., :2].norm(dim=-1) + offset[..., 2:].abs().sum(-1)
        squared = (
            error**2
            + (_MODEL_ERROR * torch.exp(own)) ** 2
            + (_APART_ERROR * apart * torch.exp(other)) ** 2
        )
        level = MeasuredLevel(
            mean=(measured + LEVEL + _SHIFT * shift).transpose(1, 2),
            error=torch.where(any_spectrum, squared.sqrt(), torch.inf).transpose(1, 2),
        )
        shown = any_spectrum[..., None]
        return (mean * shown).transpose(1, 2), ((told + added) * shown).transpose(1, 2), level

    def _field(
        self,
        raw: Tensor,
        near: Tensor,
        levels: "_Levels",
        logits: Tensor,
        position: Tensor,
        length: Tensor,
    ) -> Field:
        latent, shared, classes = self.latent, self.shared, self.classes
        triangle = latent * (latent + 1) // 2
        mean, spread, common, trust, lower = raw.split(
            [classes * latent, classes * latent, latent * shared, latent, triangle], dim=-1
        )
        # What the nearest spectrum says, number by number, as far as it is trusted.
        mean = mean.unflatten(-1, (classes, latent)) + (torch.sigmoid(trust) * near)[..., None, :]
        local = raw.new_zeros(*raw.shape[:-1], latent, latent)
        rows, columns = self.get_buffer("_rows")
        local[..., rows, columns] = lower
        diagonal = torch.exp(local.diagonal(dim1=-2, dim2=-1).clamp(-6, 4) - 0.3)
        shared_factor = common.unflatten(-1, (latent, shared)) * 3
        local = local.tril(-1) + torch.diag_embed(diagonal)
        nugget = torch.exp(self.log_nugget.clamp(-5, 1))
        spread = torch.exp(spread.clamp(-4, 3)).unflatten(-1, (classes, latent))
        # How the level goes with the other numbers stays.
        unit = shared_factor[..., 0, :].square().sum(-1) + local[..., 0, 0] ** 2 + nugget[0] ** 2
        unit = unit.sqrt()[..., None]
        centre, deviation = levels.told(mean[..., 0], spread[..., 0] * unit)
        mean = torch.cat([centre[..., None], mean[..., 1:]], dim=-1)
        spread = torch.cat([(deviation / unit)[..., None], spread[..., 1:]], dim=-1)
        apart = (position[:, :, None] - position[:, None]).square().sum(-1)
        white = torch.sigmoid(self.white)
        smooth = torch.exp(-0.5 * apart[:, None] / length[..., None, None] ** 2)
        every = torch.eye(apart.shape[-1], dtype=apart.dtype, device=apart.device)
        share = white[:, None, None]
        kernel = (1 - share) * smooth + share * every
        return Field(
            logits=logits,
            mean=mean,
            spread=spread,
            shared=shared_factor,
            local=local,
            kernel=kernel[:, None].expand(*raw.shape[:2], -1, -1, -1),
            nugget=nugget,
            length=length,
            white=white,
        )
