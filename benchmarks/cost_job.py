"""What a step and a draw cost, against a plain transformer of the same size in the same run."""

import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from report_set import sample, shown
from results_file import Figure, at_least, at_most, figure
from torch import Tensor, nn

from probmmae.config import Recipe
from probmmae.feed import feed
from probmmae.inference.amortized import draw, spectra_at
from probmmae.masking import observe_part
from probmmae.model import GalaxyModel
from probmmae.sources import block_maker
from probmmae.tokens import PATCH, PIECE, tokenize
from probmmae.train import Step


class Plain(nn.Module):
    """A masked autoencoder of stock layers: every visible token in, every hidden token out."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patch, self.piece = nn.Linear(PATCH**2, width), nn.Linear(PIECE, width)
        self.query = nn.Linear(4, width)
        layer = {
            "dim_feedforward": 4 * width,
            "batch_first": True,
            "norm_first": True,
            "dropout": 0.0,
        }
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, heads, activation="gelu", **layer),
            depth,
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(width, heads, activation="gelu", **layer), 2
        )
        self.out = nn.Linear(width, 2 * PIECE)
        self.redshift = nn.Linear(width, 24)

    def forward(self, tokens: Tensor, hidden: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Means and scales of the queried tokens; parameters of the redshift density."""
        context = self.encoder(self.piece(tokens), src_key_padding_mask=hidden)
        decoded = self.decoder(self.query(query), context, memory_key_padding_mask=hidden)
        return self.out(decoded), self.redshift(context[:, 0])


def parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(part.numel() for part in module.parameters())


def same_size(network: GalaxyModel) -> Plain:
    """The plain transformer, of equal depth and heads, whose width gives the nearest size."""
    config = network.config
    widths = range(64, 513, 8 * config.heads)
    sizes = {
        width: abs(parameters(Plain(width, config.depth, config.heads)) - parameters(network))
        for width in widths
    }
    return Plain(min(sizes, key=lambda width: sizes[width]), config.depth, config.heads)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of a call after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def training_ratio(network: GalaxyModel, recipe: Recipe, repeats: int) -> list[Figure]:
    """Training galaxies per second over those of the plain transformer on the same blocks."""
    block = block_maker(recipe)(10**9)
    ours, plain = Step(network.train(), recipe), same_size(network)
    network.requires_grad_(True)
    # Each of the two does a forward and a backward pass of the same masked galaxies.
    observed = observe_part(block.whole, torch.Generator().manual_seed(0))
    tokens = tokenize(observed)
    length = int((tokens.cell_visible.flatten(1).sum(1) + tokens.piece_visible.sum(1)).max())
    hidden_cells = recipe.objective.cells * tokens.band.shape[1]
    queried = hidden_cells + round(tokens.piece_visible.shape[1])
    galaxies = len(block.whole)
    visible = tokens.cell_visible.flatten(1).sum(1) + tokens.piece_visible.sum(1)
    padding = torch.arange(length)[None] >= visible.clamp(min=1)[:, None]
    inputs = torch.randn(galaxies, length, PIECE)
    asked, wanted = torch.randn(galaxies, queried, 4), torch.randn(galaxies, queried, PIECE)

    def our_step() -> None:
        network.zero_grad(set_to_none=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            ours(block, torch.Generator().manual_seed(0))["loss"].backward()

    def plain_step() -> None:
        plain.zero_grad(set_to_none=True)
        said, z = plain(inputs, padding, asked)
        mean, scale = said.chunk(2, dim=-1)
        loss = (((wanted - mean) / scale.exp()) ** 2 / 2 + scale).mean() + z.square().mean()
        loss.backward()

    mine, theirs = seconds(our_step, repeats), seconds(plain_step, repeats)
    ratio = theirs / mine
    extra = len(block.catalogue[1]) if block.catalogue is not None else 0
    return [
        figure("cost: parameters", parameters(network)),
        figure("cost: parameters of the plain transformer", parameters(plain)),
        figure("cost: training galaxies per second", galaxies / mine, n=repeats),
        figure("cost: catalogue galaxies trained beside each of them", extra / galaxies),
        figure(
            "cost: training galaxies per second over the plain transformer's",
            ratio,
            n=repeats,
            goal="at least 0.8",
            met=at_least(ratio, 0.8),
        ),
    ]


@torch.no_grad()
def drawing_ratio(network: GalaxyModel, repeats: int) -> list[Figure]:
    """Posterior spectra per second over the plain transformer's, decoded draw by draw."""
    network.eval()
    part = sample(4, seed=5)
    observed = shown(part.batch, "image")
    draws = 100
    plain = same_size(network).eval()
    wavelength = part.batch.spectra.wavelength[:, :1]
    sigma = part.batch.spectra.sigma[:, :1]
    pieces = -(-wavelength.shape[-1] // PIECE)
    cells = tokenize(observed).cell_visible.flatten(1).shape[1]
    inputs, padding = torch.randn(4, cells, PIECE), torch.zeros(4, cells, dtype=torch.bool)
    asked = torch.randn(4 * draws, pieces, 4)

    def ours() -> None:
        context = network.encode(observed)
        density = network.redshift(context)
        made = draw(
            network, density, part.batch.z, torch.zeros_like(part.batch.z_known), draws,
            torch.Generator().manual_seed(0),
        )  # fmt: skip
        aperture = part.batch.spectra.aperture[:, :1]
        spectra_at(network, context, observed, made, aperture, wavelength, sigma)

    def theirs() -> None:
        context = plain.encoder(plain.piece(inputs), src_key_padding_mask=padding)
        memory = context.repeat_interleave(draws, 0)
        plain.out(plain.decoder(plain.query(asked), memory))

    mine, other = seconds(ours, repeats), seconds(theirs, repeats)
    return [
        figure(
            "cost: posterior spectra drawn per second (7,781 pixels)", 4 * draws / mine, n=repeats
        ),
        figure(
            "cost: posterior draws per second over the plain transformer's",
            other / mine,
            n=repeats,
            goal="at least 0.8",
            met=at_least(other / mine, 0.8),
        ),
    ]


def waiting_share(recipe: Recipe, network: GalaxyModel, steps: int) -> list[Figure]:
    """Share of training time spent waiting for blocks that one worker simulates meanwhile."""
    step = Step(network.train(), recipe)
    waited, began = 0.0, 0.0
    source = feed(block_maker(recipe), 10**9, 10**9 + steps + 5, 1)
    for index in range(steps + 5):
        if index == 5:
            waited, began = 0.0, time.perf_counter()
        asked = time.perf_counter()
        block = next(source)
        waited += time.perf_counter() - asked
        network.zero_grad(set_to_none=True)
        step(block, torch.Generator().manual_seed(index))["loss"].backward()
    source.close()
    share = waited / (time.perf_counter() - began)
    return [
        figure(
            "cost: share of training time waiting for data (one worker simulates)",
            share,
            n=steps,
            goal="below 0.05",
            met=at_most(share, 0.05),
        )
    ]


def cost_figures(network: GalaxyModel, recipe: Recipe, *, repeats: int) -> list[Figure]:
    """Every figure of cost, with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures = training_ratio(network, recipe, repeats)
        figures += waiting_share(recipe, network, 4 * repeats)
        figures += drawing_ratio(network, repeats)
    finally:
        torch.set_num_threads(threads)
        network.requires_grad_(False).eval()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [*figures, figure("cost: peak memory of this run, GiB", peak)]
