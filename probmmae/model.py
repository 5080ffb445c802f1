r"""The generative model and its guide, side by side, in Pyro.

A galaxy's tokens are split into observed O and hidden T; c = Encoder(O). The generative process is

    z           ~  p(z | c)                 redshift: mixture density on ln(1+z)   RedshiftHead
    u           ~  p(u | z, c)              latent field at the apertures          LatentPrior
    spectrum_t  ~  p(x_t | u, z)            noisy flux on the native grid          SpectrumDecoder
    image_t     ~  p(x_t | z, c)            hidden patches of every band           ImageDecoder

with the guide q(u | O, T, z), and q(z | O, T) where the redshift is unknown. Galaxies are
independent (`pyro.plate`); missing pixels have ivar 0 and fall out of every likelihood.

| variable | meaning | where |
|---|---|---|
| c | context: encoded visible tokens | `Context` |
| z | redshift | site "z" (known) or "z_hidden" |
| u | latent vectors at the apertures of the targets, (aperture, latent) flattened | site "u" |

`likelihood` chooses among three settings of the same code: "field" is the model above;
"independent" has no latent, u is a function of the context and pixels are independent Gaussians
(the likelihood of arXiv:2606.10197); "mse" has no latent and minimises squared errors (the
deterministic masked autoencoder of arXiv:2510.22527).

Axes: galaxy, spectrum (= query), latent, pixel, band, cell.
"""

from dataclasses import dataclass
from typing import Literal, cast

import pyro
import torch
from jaxtyping import Float, Int
from pyro import poutine
from pyro.distributions import Independent
from torch import BoolTensor, Tensor, nn

from probmmae.batch import Batch, Images, Spectra
from probmmae.decoders import ImageDecoder, PixelScale, SpectrumDecoder
from probmmae.encoder import Context, Encoder
from probmmae.instrument import covered, observe
from probmmae.latent import Field, LatentPrior, Recognition
from probmmae.likelihoods import LowRankNormal
from probmmae.redshift import RedshiftDensity, RedshiftHead
from probmmae.templates import load_templates
from probmmae.tokens import Tokens, band_coordinates, cell_positions, patches, tokenize

Likelihood = Literal["field", "independent", "mse"]

_MSE_REDSHIFT = 0.02
_MSE_FLUX = 0.1


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and the likelihood."""

    width: int = 128
    """Width of tokens."""
    depth: int = 4
    """Encoder blocks."""
    heads: int = 4
    """Attention heads."""
    latent: int = 20
    """Numbers in u at one position."""
    shared: int = 8
    """Global latents that correlate positions."""
    classes: int = 8
    """Galaxy-wide classes of the prior of u."""
    components: int = 8
    """Components of the redshift mixture, but for the candidates."""
    candidates: bool = True
    """Whether redshift candidates of spectra (`scan`) are components too."""
    hidden: int = 256
    """Width of the decoder's and the recognition network's layers."""
    likelihood: Likelihood = "field"
    """field, independent or mse."""

    def __post_init__(self) -> None:
        """Check the choices."""
        if self.likelihood not in ("field", "independent", "mse"):
            raise ValueError(
                f"Expected likelihood 'field', 'independent' or 'mse'; got {self.likelihood!r}."
            )
        if self.width % self.heads:
            raise ValueError(
                f"Expected a width divisible by the heads; got {self.width} and {self.heads}."
            )


@dataclass(frozen=True)
class Targets:
    """What the observed tokens are asked to predict."""

    spectra: Spectra
    """Spectra to predict: ivar > 0 where a pixel is a target."""
    recognised: Spectra
    """What the guide may read of the same apertures: everything known, targets and observed."""
    images: Images
    """Images to predict: ivar > 0 where a pixel is a target."""
    cells: Int[Tensor, " cell"]
    """The patches that are decoded."""
    decoded: Int[Tensor, " decoded"]
    """Galaxies whose spectra are decoded: a random part of the plate, weighted up."""
    z: Float[Tensor, " galaxy"]
    z_known: Tensor
    whole: Tokens | None
    """All tokens, observed and targets: read by q(z | O, T) where a redshift is unknown."""


@dataclass(frozen=True)
class KnownField:
    """p(u | z, c) at one redshift per galaxy, and the queries' hidden features."""

    field: Field
    hidden: Float[Tensor, "galaxy query width"]


def _only(galaxies: Tensor) -> poutine.mask_messenger.MaskMessenger:
    """Sites inside count for the galaxies that are True."""
    return poutine.mask(mask=cast(BoolTensor, galaxies))


class GalaxyModel(nn.Module):
    """p(z, u, x_T | O) and its guide."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.templates = load_templates()
        width, heads, hidden = config.width, config.heads, config.hidden
        classes = config.classes if config.likelihood == "field" else 1
        components = 1 if config.likelihood == "mse" else config.components
        self.encoder = Encoder(width, config.depth, heads)
        self.redshift_head = RedshiftHead(
            3 * width, 2 * width, components, candidates=config.candidates
        )
        self.recognition = Recognition(hidden, config.latent)
        self.prior = LatentPrior(width, heads, hidden, config.latent, config.shared, classes)
        self.spectrum_decoder = SpectrumDecoder(self.templates, config.latent, hidden)
        self.image_decoder = ImageDecoder(width, heads)
        self.pixel_scale = PixelScale(width) if config.likelihood == "independent" else None

    def encode(self, observed: Batch) -> Context:
        """Context of the visible data."""
        context: Context = self.encoder(tokenize(observed))
        return context

    def redshift(self, context: Context) -> RedshiftDensity:
        """p(z | c)."""
        head = self.redshift_head(context.pooled, context.colours, context.candidates)
        return self._as_configured(head)

    def redshift_of_colours(self, observed: Batch) -> RedshiftDensity:
        """p(z | photometry) without the encoder, which adds what else it has learned."""
        colours = self.encoder.read_colours(tokenize(observed))
        return self._as_configured(self.redshift_head.of_features(colours))

    def _as_configured(self, density: RedshiftDensity) -> RedshiftDensity:
        if self.config.likelihood == "mse":
            fixed = torch.full_like(density.scale, _MSE_REDSHIFT)
            return RedshiftDensity(density.logits, density.loc, fixed)
        return density

    def field(
        self, context: Context, observed: Batch, aperture: Tensor, z: Float[Tensor, "galaxy draw"]
    ) -> tuple[Field, Tensor]:
        """p(u | z, c) at the apertures for every redshift draw; see `LatentPrior`."""
        field, hidden = self.prior(context, observed.images, observed.spectra, aperture, z)
        return field, hidden

    def known_field(
        self, context: Context, observed: Batch, aperture: Tensor, z: Float[Tensor, " galaxy"]
    ) -> KnownField:
        """The field at one redshift per galaxy."""
        field, hidden = self.field(context, observed, aperture, z[:, None])
        return KnownField(field.of_draw(0), hidden[:, 0])

    def spectrum(
        self, u: Tensor, hidden: Tensor, z: Tensor, scale: Tensor, spectra: Spectra
    ) -> LowRankNormal:
        """p(noisy flux | u, z) on the grids of `spectra`; leading axes (galaxy, spectrum)."""
        z = z[:, None].expand(spectra.flux.shape[:2])
        scale = scale[:, None].expand_as(z)
        rest = self.spectrum_decoder(u, scale)
        mean = observe(self.templates, rest, z, spectra.wavelength, spectra.sigma)
        noise = 1 / spectra.ivar.clamp(min=1e-12)
        if self.config.likelihood == "field":
            variance, factor = self.spectrum_decoder.uncertainty(mean, z, spectra.wavelength)
        else:
            factor = mean.new_zeros(*mean.shape, 1)
            level = mean.abs().mean(-1, keepdim=True).detach()
            if self.pixel_scale is None:
                variance, noise = (_MSE_FLUX * level).expand_as(mean) ** 2, torch.zeros_like(noise)
            else:
                log_scale = self.pixel_scale(hidden, z, spectra.wavelength)
                variance = (torch.exp(log_scale) * level) ** 2
        mask = (spectra.ivar > 0) & covered(self.templates, z, spectra.wavelength)
        return LowRankNormal(mean, factor, variance + noise, mask)

    def image(self, context: Context, z: Tensor, images: Images, cells: Tensor) -> LowRankNormal:
        """p(noisy pixels of the patches `cells` | z, c), all bands of a galaxy jointly."""
        tokens_position, band = cell_positions(images)[:, cells], band_coordinates(images)
        redshift = self.prior.redshift_features(z)
        mean, variance, factor = self.image_decoder(context, redshift, tokens_position, band)
        ivar = patches(images.ivar)[:, :, cells]
        if self.config.likelihood == "mse":
            variance = (context.scale[:, None, None, None] / 50).expand_as(mean) ** 2
            factor, noise = torch.zeros_like(factor), torch.zeros_like(variance)
        else:
            noise = 1 / ivar.clamp(min=1e-12)
        return LowRankNormal(
            mean.flatten(1),
            factor.flatten(1, 3),
            (variance + noise).flatten(1),
            (ivar > 0).flatten(1),
        )

    def model(
        self,
        context: Context,
        observed: Batch,
        targets: Targets,
        known: KnownField | None = None,
    ) -> None:
        """p(z, u, x_T | O); `known` is the field at known redshifts, if already computed."""
        density = self.redshift(context)
        with pyro.plate("galaxy", len(observed)):
            z = targets.z
            if not bool(targets.z_known.all()):
                with _only(~targets.z_known):
                    hidden_z = pyro.sample("z_hidden", density)
                z = torch.where(targets.z_known, targets.z, hidden_z)
            with _only(targets.z_known):
                pyro.sample("z", density, obs=z)
            if known is None:
                known = self.known_field(context, observed, targets.spectra.aperture, z)
            first, hidden = known.field, known.hidden
            if self.config.likelihood == "field":
                u = pyro.sample("u", first.distribution()).to(z.dtype)
                u = u.unflatten(-1, (-1, self.config.latent))
            else:
                u = first.mean[:, :, 0]
            image = self.image(context, z, targets.images, targets.cells)
            pixels = patches(targets.images.flux)[:, :, targets.cells].flatten(1)
            pyro.sample("image", image, obs=pixels)
        part = targets.decoded
        with pyro.plate("decoded", len(observed), subsample=part):
            spectra = targets.spectra.take(part)
            spectrum = self.spectrum(u[part], hidden[part], z[part], context.scale[part], spectra)
            pyro.sample("spectrum", Independent(spectrum, 1), obs=spectra.flux)

    def guide(
        self,
        context: Context,
        observed: Batch,
        targets: Targets,
        known: KnownField | None = None,
    ) -> None:
        """q(u | O, T, z) and, where the redshift is unknown, q(z | O, T)."""
        with pyro.plate("galaxy", len(observed)):
            z = targets.z
            if not bool(targets.z_known.all()):
                assert targets.whole is not None
                with torch.no_grad():
                    full = self.redshift(self.encoder(targets.whole))
                with _only(~targets.z_known):
                    z = torch.where(targets.z_known, z, pyro.sample("z_hidden", full))
            if self.config.likelihood == "field":
                if known is None:
                    known = self.known_field(context, observed, targets.spectra.aperture, z)
                told = self.recognition(targets.recognised, z, context.scale)
                pyro.sample("u", told.update(known.field))
