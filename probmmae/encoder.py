"""The encoder: from tokens to a context, computed on visible tokens only.

Tokens are embedded, packed so that the visible ones come first, cut at the longest galaxy of the
batch, and passed through a pre-norm transformer. Bands that see the same patch of sky are fused
into one token by a sum of per-band embeddings, each modulated by its continuous band coordinates:
any set of bands, in any order, gives a valid token, and a colour is a linear function away.

Axes: galaxy, band, token, width.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from probmmae.batch import Rows
from probmmae.scan import Candidates
from probmmae.tokens import APERTURE_FEATURES, PATCH, PHOTOMETRY_FEATURES, PIECE, Tokens

SUMMARY_TOKENS = 3
"""The first tokens of every context: summary, central apertures, photometry."""


@dataclass(frozen=True)
class Context(Rows):
    """What the encoder makes of the observed tokens."""

    tokens: Float[Tensor, "galaxy token width"]
    visible: Bool[Tensor, "galaxy token"]
    scale: Float[Tensor, " galaxy"]
    """Flux scale of the galaxy, nanomaggies."""
    colours: Float[Tensor, "galaxy feature"]
    """The photometry, read apart for the redshift: colours pass the attention of all modalities
    only roughly, and photometric redshifts need them to a hundredth of a magnitude."""
    candidates: Candidates
    """Redshifts at which the visible spectra fit."""

    @property
    def pooled(self) -> Float[Tensor, "galaxy pooled"]:
        """The summary, central and photometry tokens side by side."""
        return self.tokens[:, :SUMMARY_TOKENS].flatten(1)


def fourier(value: Tensor, longest: float, shortest: float, count: int) -> Tensor:
    """Sines and cosines of `value` at `count` periods, `longest` to `shortest`; last axis."""
    exponent = torch.linspace(0, 1, count, dtype=value.dtype, device=value.device)
    period = longest * (shortest / longest) ** exponent
    angle = 2 * math.pi * value[..., None] / period
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class BandSum(nn.Module):
    """A sum over bands of modulated linear embeddings, then a nonlinearity."""

    def __init__(self, values: int, coordinates: int, hidden: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(values, hidden)
        self.modulate = nn.Sequential(
            nn.Linear(coordinates + 8, 64), nn.GELU(), nn.Linear(64, 2 * hidden)
        )
        self.out = nn.Sequential(
            nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, width)
        )

    def forward(self, values: Tensor, band: Tensor, visible: Tensor) -> Tensor:
        """Fuse the bands.

        Shapes: values (galaxy, band, *cell, feature), band (galaxy, band, coordinate), visible
        (galaxy, band, *cell).
        """
        coordinates = torch.cat([band, fourier(band[..., :1], 4.0, 0.25, 4)], dim=-1)
        gain, offset = self.modulate(coordinates).chunk(2, dim=-1)
        between = visible.dim() - 2
        gain, offset = (
            part.reshape(*part.shape[:2], *(1,) * between, part.shape[-1])
            for part in (gain, offset)
        )
        each = self.embed(values) * (1 + gain) + offset
        return self.out((each * visible[..., None]).sum(1) / math.sqrt(5.0))


class Block(nn.Module):
    """Pre-norm attention (on itself, or on a context) and a feed-forward layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_hidden = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.merge = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor, context: Tensor | None, visible: Tensor) -> Tensor:
        """Tokens (galaxy, token, width); `context` (galaxy, key, width), None: self-attention."""
        normed = self.norm_query(tokens)
        source = normed if context is None else context
        query = self.query(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        pair = self.key_value(source).unflatten(-1, (2, self.heads, -1))
        key, value = pair[:, :, 0].transpose(1, 2), pair[:, :, 1].transpose(1, 2)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None, None])
        tokens = tokens + self.merge(mixed.transpose(1, 2).flatten(-2))
        return tokens + self.feed(self.norm_hidden(tokens))


class Encoder(nn.Module):
    """Tokens to context."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cells = BandSum(PATCH**2 + 3, 3, 2 * width, width)
        self.central = BandSum(APERTURE_FEATURES, 3, 3 * width, width)
        self.photometry = BandSum(PHOTOMETRY_FEATURES, 1, 3 * width, width)
        self.colours = BandSum(PHOTOMETRY_FEATURES, 1, 2 * width, 2 * width)
        self.cell_position = nn.Linear(2 * 2 * 6 + 2, width)
        self.pieces = nn.Linear(2 * PIECE, width)
        self.piece_position = nn.Sequential(
            nn.Linear(8 + 2 * 16, width), nn.GELU(), nn.Linear(width, width)
        )
        self.piece_out = nn.Sequential(nn.GELU(), nn.Linear(width, width))
        self.summary = nn.Sequential(nn.Linear(1 + 8, width), nn.GELU(), nn.Linear(width, width))
        self.kinds = nn.Parameter(0.02 * torch.randn(5, width))
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)

    def embed(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Every token and whether it is visible, before packing."""
        galaxies = tokens.scale.shape[0]
        log_scale = torch.log10(tokens.scale.clamp(min=1e-6))
        summary = self.summary(
            torch.cat([log_scale[:, None], fourier(log_scale[:, None], 8.0, 1.0, 4)], dim=-1)
        )
        band_seen = tokens.cell_visible.any(-1)
        central = self.central(tokens.central, tokens.band, band_seen)
        photometry = self.photometry(
            tokens.photometry_values, tokens.photometry_band, tokens.photometry_visible
        )
        cells = self.cells(
            torch.cat([tokens.cell_values, tokens.cell_summary], dim=-1),
            tokens.band,
            tokens.cell_visible,
        )
        cells = cells + self.cell_position(
            torch.cat([tokens.cell_position / 5, fourier(tokens.cell_position, 40.0, 1.5, 6)], -1)
        )
        values, coordinates, piece_seen = _pack_pieces(tokens)
        where = torch.cat([coordinates, fourier(coordinates[..., :1], 4.0, 0.004, 16)], dim=-1)
        pieces = self.piece_out(self.pieces(values) + self.piece_position(where))
        kinds = self.kinds
        every = torch.cat(
            [
                (summary + kinds[0])[:, None],
                (central + kinds[1])[:, None],
                (photometry + kinds[2])[:, None],
                cells + kinds[3],
                pieces + kinds[4],
            ],
            dim=1,
        )
        visible = torch.cat(
            [
                torch.ones(galaxies, 1, dtype=torch.bool, device=every.device),
                band_seen.any(-1)[:, None],
                tokens.photometry_visible.any(-1)[:, None],
                tokens.cell_visible.any(1),
                piece_seen,
            ],
            dim=1,
        )
        return every, visible

    def forward(self, tokens: Tokens) -> Context:
        """The context of a batch; its length is that of the galaxy with most visible tokens."""
        every, visible = self.embed(tokens)
        # The summary tokens keep their places, shown or not; the rest is packed.
        order = torch.argsort((~visible[:, SUMMARY_TOKENS:]).to(torch.int8), dim=1, stable=True)
        length = int(visible[:, SUMMARY_TOKENS:].sum(1).max())
        keep = order[:, :length] + SUMMARY_TOKENS
        head = torch.arange(SUMMARY_TOKENS, device=keep.device).expand(len(keep), -1)
        keep = torch.cat([head, keep], dim=1)
        packed = every.gather(1, keep[..., None].expand(-1, -1, every.shape[-1]))
        shown = visible.gather(1, keep)
        packed = self._transform(packed * shown[..., None], shown)
        return Context(
            tokens=self.norm(packed) * shown[..., None],
            visible=shown,
            scale=tokens.scale,
            colours=self.read_colours(tokens),
            candidates=tokens.candidates,
        )

    def read_colours(self, tokens: Tokens) -> Float[Tensor, "galaxy feature"]:
        """`Context.colours`; zero where there is no photometry."""
        seen = tokens.photometry_visible
        read: Tensor = self.colours(tokens.photometry_values, tokens.photometry_band, seen)
        return read * seen.any(-1, keepdim=True)

    def _transform(self, packed: Tensor, shown: Tensor) -> Tensor:
        """The blocks, on groups of galaxies of similar length: little padding is computed on."""
        count = shown.shape[1] - shown.flip(1).to(torch.int8).argmax(1)
        order = torch.argsort(count)
        parts = []
        for rows in order.tensor_split([int(f * len(order)) for f in (0.25, 0.6, 0.85)]):
            if len(rows) == 0:
                continue
            length = int(count[rows].max())
            part, seen = packed[rows, :length], shown[rows, :length]
            for block in self.blocks:
                part = block(part, None, seen)
            parts.append(nn.functional.pad(part, (0, 0, 0, packed.shape[1] - length)))
        return torch.cat(parts)[torch.argsort(order)]


def _pack_pieces(tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    """The visible pieces of spectra first, cut at the galaxy that has most of them."""
    seen = tokens.piece_visible
    keep = torch.argsort((~seen).to(torch.int8), dim=1, stable=True)[:, : int(seen.sum(1).max())]
    index = keep[..., None]
    values, coordinates = tokens.piece_values, tokens.piece_coordinates
    return (
        values.gather(1, index.expand(-1, -1, values.shape[-1])),
        coordinates.gather(1, index.expand(-1, -1, coordinates.shape[-1])),
        seen.gather(1, keep),
    )
