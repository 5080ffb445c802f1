"""p(z | c): a mixture density on ln(1 + z) with exact log-density, CDF and quantiles.

The mixture lives on x = ln(1 + z) and is truncated to x > 0: no redshift below zero is ever drawn.
A Gaussian mixture did better than a spline flow on real catalogues, and needs no solver for its
CDF.

Axes: galaxy (any leading axes), component, draw.
"""

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from probmmae.scan import EVIDENCE, Candidates

_VELOCITY = 1e-4
"""Of ln(1 + z): what no spectrum of one aperture tells, the motion of its gas and stars."""


_PARTS = 2
"""Gaussians a candidate: a core, and the tail that motions of the gas make."""


def _normal_cdf(value: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-value / math.sqrt(2))


class RedshiftDensity(TorchDistribution):
    """A truncated Gaussian mixture on ln(1 + z); every method speaks of z.

    Args:
        logits: Mixture weights before the softmax, shape (*galaxy, component).
        loc: Component means of ln(1 + z), same shape.
        scale: Component widths, same shape, positive.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "logits": constraints.real_vector,
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.positive

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor) -> None:
        inside = _normal_cdf(loc / scale).clamp(min=1e-12)
        # Each component is truncated on its own: weights keep their meaning.
        self.log_weight = torch.log_softmax(logits, dim=-1)
        self.logits, self.loc, self.scale, self._inside = logits, loc, scale, inside
        super().__init__(batch_shape=logits.shape[:-1], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "RedshiftDensity":
        """The same density for more galaxies."""
        shape = torch.Size(batch_shape) + self.loc.shape[-1:]
        return RedshiftDensity(
            self.logits.expand(shape), self.loc.expand(shape), self.scale.expand(shape)
        )

    def __getitem__(self, index: Any) -> "RedshiftDensity":
        return RedshiftDensity(self.logits[index], self.loc[index], self.scale[index])

    def log_prob(self, value: Tensor) -> Tensor:
        """ln p(z), density per unit redshift; shape of `value` broadcast with the galaxies."""
        x = torch.log1p(value.clamp(min=-0.99))[..., None]
        standard = (x - self.loc) / self.scale
        each = (
            -0.5 * standard**2 - torch.log(self.scale * self._inside) - 0.5 * math.log(2 * math.pi)
        )
        density = torch.logsumexp(self.log_weight + each, dim=-1) - x[..., 0]
        return torch.where(value >= 0, density, torch.full_like(density, -math.inf))

    def cdf(self, value: Tensor) -> Tensor:
        """P(redshift < z)."""
        x = torch.log1p(value.clamp(min=0.0))[..., None]
        below = _normal_cdf((x - self.loc) / self.scale) - _normal_cdf(-self.loc / self.scale)
        return (self.log_weight.exp() * below / self._inside).sum(-1).clamp(0.0, 1.0)

    def icdf(self, value: Tensor) -> Tensor:
        """The redshift below which lies the probability `value`, by bisection to 1e-7."""
        value = torch.as_tensor(value, dtype=self.loc.dtype, device=self.loc.device)
        low = torch.zeros(torch.broadcast_shapes(value.shape, self.batch_shape)).to(self.loc)
        high = torch.expm1((self.loc + 8 * self.scale).amax(-1).clamp(min=0.01)).expand_as(low)
        for _ in range(40):
            middle = 0.5 * (low + high)
            under = self.cdf(middle) < value
            low, high = torch.where(under, middle, low), torch.where(under, high, middle)
        return 0.5 * (low + high)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws by the inverse CDF; shape sample_shape + galaxies."""
        with torch.no_grad():
            return self.draw(torch.Size(sample_shape), None)

    def draw(self, sample_shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        """Draws with an explicit generator: a component, then its truncated normal."""
        shape = torch.Size(sample_shape) + self.batch_shape
        uniform = torch.rand(shape, generator=generator, dtype=self.loc.dtype).to(self.loc)
        weights = self.log_weight.exp().cumsum(-1)
        pick = (uniform[..., None] > weights).sum(-1).clamp(max=weights.shape[-1] - 1)[..., None]

        def of(parameter: Tensor) -> Tensor:
            return parameter.expand(*shape, parameter.shape[-1]).gather(-1, pick)[..., 0]

        mean, scale = of(self.loc).double(), of(self.scale).double()
        below = _normal_cdf(-mean / scale)
        height = torch.rand(shape, generator=generator, dtype=torch.float64).to(mean.device)
        point = (below + height * (1 - below)).clamp(1e-12, 1 - 1e-12)
        x = mean + scale * torch.special.ndtri(point)
        return torch.expm1(x.clamp(min=0.0)).to(self.loc.dtype)

    @property
    def mean(self) -> Tensor:
        """Mean redshift, by the rule of 64 equally likely quantiles."""
        levels = (torch.arange(64, dtype=self.loc.dtype) + 0.5) / 64
        return self.icdf(levels.reshape(64, *(1,) * len(self.batch_shape))).mean(0)


class RedshiftHead(nn.Module):
    """From the context to p(z | c): what all modalities say, added to what the colours do.

    The first starts at zero, so that a head that knows colours is not disturbed by an encoder that
    has learned nothing yet. Where spectra are visible, every redshift candidate (`scan`) is a
    component (a core and a tail), whose weight and width are judged in the light of all else.
    """

    def __init__(
        self, width: int, hidden: int, components: int, *, candidates: bool = True
    ) -> None:
        super().__init__()
        self.components = components
        self.pooled = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        self.layers = nn.Sequential(
            nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 3 * components)
        )
        added, last = self.pooled[-1], self.layers[-1]
        assert isinstance(added, nn.Linear)
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(added.weight)
        nn.init.zeros_(added.bias)
        nn.init.normal_(last.weight, std=0.02)
        with torch.no_grad():
            last.bias.zero_()
            # Spread over ln(1 + z) of 0.02 to 0.6 before training.
            last.bias[components : 2 * components] = torch.linspace(0.05, 0.5, components)
            last.bias[2 * components :] = math.log(0.08)
        self.judge = None
        if candidates:
            self.judge = nn.Sequential(
                nn.Linear(EVIDENCE + hidden, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(),
                nn.Linear(64, 3 * _PARTS),
            )  # fmt: skip
            judgement = self.judge[-1]
            assert isinstance(judgement, nn.Linear)
            nn.init.normal_(judgement.weight, std=0.02)
            with torch.no_grad():
                # A lone peak is right far more often than what is said without looking for one.
                judgement.bias.copy_(torch.tensor([4.0, 3.0, 0.0, 0.0, 0.0, 1.5]))

    def forward(
        self,
        pooled: Float[Tensor, "*galaxy width"],
        colours: Float[Tensor, "*galaxy hidden"],
        candidates: Candidates,
    ) -> RedshiftDensity:
        """p(z | c) of each galaxy."""
        features = self.pooled(pooled) + colours
        density = self.of_features(features)
        if self.judge is None:
            return density
        evidence = candidates.evidence
        spread = features[..., None, :].expand(*evidence.shape[:-1], -1)
        said = self.judge(torch.cat([evidence, spread], dim=-1))
        trust, shift, stretch = said.split(_PARTS, dim=-1)
        # The share of the likelihood is where the weight starts from.
        logits = trust + 4 * evidence[..., :1]
        logits = logits.masked_fill(~candidates.seen[..., None, None], -torch.inf)
        width = (candidates.width + _VELOCITY)[..., None]
        loc = candidates.log1p_z[..., None] + width * shift
        scale = width * torch.exp(stretch.clamp(-4.0, 8.0))
        return RedshiftDensity(
            torch.cat([density.logits, logits.flatten(-2)], dim=-1),
            torch.cat([density.loc, loc.flatten(-2)], dim=-1),
            torch.cat([density.scale, scale.flatten(-2)], dim=-1),
        )

    def of_features(self, features: Float[Tensor, "*galaxy hidden"]) -> RedshiftDensity:
        """p(z) from the sum of what is known, without candidates."""
        logits, mean, log_scale = self.layers(features).split(self.components, dim=-1)
        return RedshiftDensity(logits, mean, torch.exp(log_scale.clamp(-9.0, 1.0)))
