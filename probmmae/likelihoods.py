"""Distributions of what is measured: a noise-free quantity with structure, plus measurement noise.

`LowRankNormal` is a normal distribution over the pixels of one spectrum, or of all hidden patches
of a galaxy's images, with covariance F F^T + diag: the factors F hold what pixels share (flux
calibration, a brighter galaxy), the diagonal what they do not, the measurement's 1/ivar included.
Pixels whose mask is False contribute nothing.

Axes: row (any leading axes), pixel, factor.
"""

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class LowRankNormal(TorchDistribution):
    """Normal over masked pixels with covariance factor factor^T + diag(variance).

    Args:
        loc: Mean, shape (*row, pixel).
        factor: Covariance factor, shape (*row, pixel, factor).
        variance: Independent variance of every pixel, positive, shape (*row, pixel).
        mask: False where a pixel is missing, shape (*row, pixel).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Float[Tensor, "*row pixel"],
        factor: Float[Tensor, "*row pixel factor"],
        variance: Float[Tensor, "*row pixel"],
        mask: Bool[Tensor, "*row pixel"],
    ) -> None:
        self.loc, self.factor, self.diagonal, self.present = loc, factor, variance, mask
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "LowRankNormal":
        """The same distribution for more rows."""
        shape = torch.Size(batch_shape) + self.loc.shape[-1:]
        return LowRankNormal(
            self.loc.expand(shape),
            self.factor.expand(*shape, self.factor.shape[-1]),
            self.diagonal.expand(shape),
            self.present.expand(shape),
        )

    def log_prob(self, value: Float[Tensor, "*row pixel"]) -> Float[Tensor, "*row"]:
        """Exact log-density of the present pixels (Woodbury identity)."""
        weight = self.present / self.diagonal
        residual = torch.where(self.present, value - self.loc, torch.zeros_like(self.loc))
        weighted = weight[..., None] * self.factor
        inner = self.factor.transpose(-1, -2) @ weighted
        inner = inner + torch.eye(inner.shape[-1], dtype=inner.dtype, device=inner.device)
        shared = (residual[..., None] * weighted).sum(-2)
        root = torch.linalg.cholesky(inner)
        solved = torch.linalg.solve_triangular(root, shared[..., None], upper=False)[..., 0]
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        each = self.present * torch.log(2 * math.pi * self.diagonal)
        squares = (weight * residual**2).sum(-1) - (solved**2).sum(-1)
        return -0.5 * (squares + each.sum(-1) + log_det)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws of all pixels, the masked ones too."""
        shape = torch.Size(sample_shape) + self.loc.shape
        factors = torch.Size(sample_shape) + self.batch_shape + self.factor.shape[-1:]
        common = torch.randn(factors, dtype=self.loc.dtype, device=self.loc.device)
        own = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.factor @ common[..., None])[..., 0] + self.diagonal.sqrt() * own
