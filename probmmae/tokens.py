"""Measurements as tokens: from a `Batch` to values, reliabilities and continuous coordinates.

Nothing here is learned and nothing is tied to an instrument: a patch of an image knows where on
the sky it is, the effective wavelength of its band, its pixel scale and seeing; a piece of a
spectrum knows its ln-wavelength, pixel width and resolution. Hidden data are data with ivar = 0,
so hiding happens before this module (`masking`) and a wholly hidden patch becomes an invisible
token.

Values are shrunk by their reliability w = ivar t^2 / (1 + ivar t^2), the posterior mean of a pixel
of prior width t: a missing pixel (ivar = 0) is exactly 0 and leaks nothing.

Axes: galaxy, band, cell (image patch), pixel, spectrum, piece (of a spectrum), query, radius.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probmmae.batch import (
    NANOMAGGIE_FLAMBDA,
    Batch,
    Images,
    PhotometryTable,
    Spectra,
    spectrum_level,
)
from probmmae.scan import Candidates, candidates

PATCH = 8
"""Side of an image patch, pixels."""
PIECE = 64
"""Pixels in a piece of a spectrum."""
SPECTRAL_UNIT = NANOMAGGIE_FLAMBDA / 6000.0**2
"""f_lambda (1e-17 erg/s/cm2/Angstrom) of a nanomaggie at 6000 Angstrom: one scale for all data."""
CENTRAL_RADII = (0.5, 0.9, 1.6, 2.8, 5.0)
"""Widths of the soft apertures around a position, arcsec."""
_AROUND = 41
"""Pixels that a line is seen against."""
APERTURE_FEATURES = 5 * len(CENTRAL_RADII) + 1
"""Features a band of the soft apertures (`apertures`)."""
PHOTOMETRY_FEATURES = 5
"""Features a band of the photometry (`tokenize`)."""
_COMMON_SEEING = 1.2
"""Seeing that all bands are brought to, over that of the worst one."""
_COLOUR_FLOOR = 0.015
"""Error of a flux forced on an image that its pixels do not tell: colour gradients, the wings of
the seeing. Measured on simulated images: smaller ones leave p(z | forced) too narrow."""


@dataclass(frozen=True)
class Tokens:
    """What a galaxy shows, in units of its own scale."""

    scale: Float[Tensor, " galaxy"]
    """Nanomaggies, from the visible data alone."""
    cell_values: Float[Tensor, "galaxy band cell pixel"]
    cell_summary: Float[Tensor, "galaxy band cell 3"]
    """Mean reliability, visible fraction, ln depth of the patch."""
    cell_position: Float[Tensor, "galaxy cell 2"]
    """Sky position of the patch's middle, arcsec."""
    cell_visible: Bool[Tensor, "galaxy band cell"]
    band: Float[Tensor, "galaxy band 3"]
    """`band_coordinates` of the images."""
    central: Float[Tensor, "galaxy band feature"]
    """Soft-aperture fluxes around the galaxy's centre (`apertures`)."""
    photometry_values: Float[Tensor, "galaxy phot number"]
    """asinh magnitude softened at twice the error, asinh signal-to-noise, `contrasts`."""
    photometry_band: Float[Tensor, "galaxy phot 1"]
    """ln(wavelength / 6000 A)."""
    photometry_visible: Bool[Tensor, "galaxy phot"]
    piece_values: Float[Tensor, "galaxy piece value"]
    """asinh of flux over the spectrum's level; then, amplified, what stands out of `_AROUND`."""
    piece_coordinates: Float[Tensor, "galaxy piece coordinate"]
    """ln(wavelength / 6000 A), ln pixel width, ln LSF width (relative), mean reliability, ln level
    of the spectrum against the scale, dx, dy, ln diameter."""
    piece_visible: Bool[Tensor, "galaxy piece"]
    candidates: Candidates
    """Redshifts at which the visible spectra fit."""


def apertures(
    images: Images, position: Float[Tensor, "galaxy query 2"], scale: Float[Tensor, " galaxy"]
) -> Float[Tensor, "galaxy query band feature"]:
    """Soft (Gaussian-weighted) aperture fluxes around sky positions, band by band.

    For every radius in `CENTRAL_RADII`: asinh of the flux (visible pixels stand for hidden ones)
    over 5 % of the scale, asinh of its signal-to-noise, and the share of the aperture that is
    visible; then the `contrasts` of all radii.
    """
    visible = (images.ivar > 0).to(images.flux.dtype)
    variance = visible / images.ivar.clamp(min=1e-20)
    x, y = pixel_positions(images)
    radii = torch.tensor(CENTRAL_RADII, dtype=x.dtype, device=x.device)
    along = torch.exp(-0.5 * ((x[:, None, None] - position[..., :1, None]) / radii[:, None]) ** 2)
    up = torch.exp(-0.5 * ((y[:, None, None] - position[..., 1:, None]) / radii[:, None]) ** 2)

    def window(pixels: Tensor, power: int) -> Tensor:
        rows = torch.einsum("gqrx,gbyx->gqrby", along**power, pixels)
        return torch.einsum("gqry,gqrby->gqbr", up**power, rows)

    weight = window(visible, 1)
    full = (2 * torch.pi * radii**2) / (images.pixel_scale[:, None] ** 2)
    share = (weight / full[:, None, None, :]).clamp(max=1.0)
    flux = window(images.flux * visible, 1)
    noise = window(variance, 2).clamp(min=1e-20).sqrt()
    whole = flux / share.clamp(min=0.05)
    present = share > 0.02
    features = torch.stack(
        [
            torch.asinh(whole / (0.05 * scale[:, None, None, None])) * present,
            torch.asinh(flux / noise) / 3 * present,
            share,
        ],
        dim=-1,
    )
    error = noise / share.clamp(min=0.05)
    seen = (images.ivar > 0).flatten(2).any(-1)
    by_band = (part.transpose(1, 2) for part in (whole, error, present))
    colours = contrasts(*by_band, wavelength=images.wavelength, visible=seen).transpose(1, 2)
    return torch.cat([features.flatten(-2), colours], dim=-1)


def forced_photometry(images: Images) -> PhotometryTable:
    """Fluxes of the galaxy in every band through one profile, seen at one seeing.

    Every band is smoothed to a seeing a little worse than that of the worst band, so that a colour
    is one of the galaxy and not of the atmosphere; the profile is what of their smoothed stack
    stands out of its noise, within 5 arcsec or so of the centre. The flux is the amplitude of the
    profile, and its error holds `_COLOUR_FLOOR` of it. Bands without a visible pixel have ivar 0.

    References:
        Kuijken 2008, GaaP, arXiv:astro-ph/0610606 (one aperture function at matched seeing).
    """
    seen = (images.ivar > 0).to(images.flux.dtype)
    pixels = seen.sum((-2, -1))
    visible = pixels > 0
    variance = seen / images.ivar.clamp(min=1e-20)
    x, y = pixel_positions(images)
    sigma = images.psf_fwhm / 2.3548
    worst = (_COMMON_SEEING * (sigma * visible).amax(1, keepdim=True)).clamp(min=1e-3)
    wider = (worst**2 - sigma**2).clamp(min=0).sqrt()
    wider = wider.maximum(0.3 * images.pixel_scale[:, None])
    across, up = _smoothing(x, wider), _smoothing(y, wider)
    stacked, stacked_up = _smoothing(x, worst)[:, 0], _smoothing(y, worst)[:, 0]

    weight = images.ivar.sum((-2, -1))
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-20)
    level = up @ (images.flux * seen) @ across.mT / (up @ seen @ across.mT).clamp(min=0.05)
    stack = stacked_up @ (level * weight[..., None, None]).sum(1) @ stacked.mT
    typical = (weight**2 * variance.sum((-2, -1)) / pixels.clamp(min=1)).sum(1)
    spread = stacked_up.square().sum(-1)[:, :, None] * stacked.square().sum(-1)[:, None, :]
    noise = (typical[:, None, None] * spread).sqrt()
    taper = torch.exp(-((y[:, :, None] ** 2 + x[:, None, :] ** 2) ** 2) / 5.0**4)
    profile = ((stack - noise).clamp(min=0) + 1e-3 * noise) * taper
    profile = profile / profile.sum((-2, -1), keepdim=True).clamp(min=1e-20)

    through = up.mT @ profile[:, None] @ across
    share = (through * seen).sum((-2, -1)) / through.sum((-2, -1)).clamp(min=1e-20)
    norm = profile.square().sum((-2, -1))[:, None] * share.clamp(min=1e-3)
    norm = norm.clamp(min=1e-20)
    flux = (through * images.flux * seen).sum((-2, -1)) / norm
    error = (through.square() * variance).sum((-2, -1)) / norm**2 + (_COLOUR_FLOOR * flux) ** 2
    return PhotometryTable(flux * visible, visible / error.clamp(min=1e-20), images.wavelength)


def _smoothing(
    position: Float[Tensor, "galaxy pixel"], sigma: Float[Tensor, "galaxy band"]
) -> Float[Tensor, "galaxy band pixel pixel"]:
    """Smoothing along one axis by Gaussians; every row sums to one."""
    apart = position[:, None, :, None] - position[:, None, None, :]
    return torch.softmax(-0.5 * (apart / sigma[..., None, None]) ** 2, dim=-1)


def _told_by_images(images: Images, catalogue: PhotometryTable) -> PhotometryTable:
    """The catalogue's photometry and, where it has nothing of a galaxy, that of the images.

    One embedding reads both, so that what cheap catalogues teach serves images too.
    """
    forced = forced_photometry(images)
    alone = ~(catalogue.ivar > 0).any(1, keepdim=True)
    return PhotometryTable(
        torch.cat([catalogue.flux, forced.flux * alone], dim=1),
        torch.cat([catalogue.ivar, forced.ivar * alone], dim=1),
        torch.cat([catalogue.wavelength, forced.wavelength], dim=1),
    )


def contrasts(
    flux: Float[Tensor, "galaxy band *query radius"],
    error: Float[Tensor, "galaxy band *query radius"],
    present: Bool[Tensor, "galaxy band *query radius"],
    *,
    wavelength: Float[Tensor, "galaxy band"],
    visible: Bool[Tensor, "galaxy band"],
) -> Float[Tensor, "galaxy band *query feature"]:
    """Colours of every band against the next redder visible one: where the redshift is.

    A colour is a small difference of large numbers, which a network learns late from the numbers
    alone. For every radius the difference of two asinh magnitudes (Lupton, Gunn & Szalay 1999)
    softened at twice the error, and ln of its error; last the step in ln wavelength. Zero for the
    reddest band and where something is missing.
    """
    ln = torch.log(wavelength)
    gap = ln[:, None, :] - ln[:, :, None]
    gap = torch.where((gap > 1e-4) & visible[:, None, :] & visible[:, :, None], gap, torch.inf)
    step, index = gap.min(-1)
    between = flux.dim() - 2
    index = index.reshape(*index.shape, *(1,) * between).expand(flux.shape)
    exists = torch.isfinite(step).reshape(*step.shape, *(1,) * between)
    exists = exists & present & present.gather(1, index)
    bright = torch.asinh(flux / (2 * error)) + torch.log(2 * error)
    square = error**2 / (flux**2 + 4 * error**2)
    colour = (bright.gather(1, index) - bright).clamp(-3, 3) / 0.25
    doubt = 0.25 * torch.log(square.gather(1, index) + square)
    step = torch.where(torch.isfinite(step), step, torch.zeros_like(step))
    step = 5 * step.reshape(*step.shape, *(1,) * between).expand(*flux.shape[:-1], 1)
    return torch.cat([colour * exists, doubt * exists, step], dim=-1)


def pixel_positions(images: Images) -> tuple[Tensor, Tensor]:
    """Sky x and y of the pixel columns and rows, arcsec, each of shape (galaxy, pixel)."""
    height, width = images.flux.shape[-2:]
    scale = images.pixel_scale[:, None]
    x = (torch.arange(width, device=scale.device) - (width - 1) / 2) * scale
    y = (torch.arange(height, device=scale.device) - (height - 1) / 2) * scale
    return x + images.centre[:, :1], y + images.centre[:, 1:]


def cell_positions(images: Images) -> Float[Tensor, "galaxy cell 2"]:
    """Sky positions of the middles of the patches, arcsec."""
    x, y = pixel_positions(images)
    x, y = x.unflatten(1, (-1, PATCH)).mean(-1), y.unflatten(1, (-1, PATCH)).mean(-1)
    across = x.shape[1]
    return torch.stack([x.repeat(1, y.shape[1]), y.repeat_interleave(across, dim=1)], dim=-1)


def band_coordinates(images: Images) -> Float[Tensor, "galaxy band 3"]:
    """ln(wavelength / 6000 A), ln(PSF FWHM / arcsec), ln(pixel scale / 0.25 arcsec) by band."""
    return torch.stack(
        [
            torch.log(images.wavelength / 6000),
            torch.log(images.psf_fwhm),
            torch.log(images.pixel_scale[:, None] / 0.25).expand_as(images.wavelength),
        ],
        dim=-1,
    )


def patches(pixels: Float[Tensor, "galaxy band y x"]) -> Float[Tensor, "galaxy band cell pixel"]:
    """Square patches of `PATCH` pixels, row by row."""
    galaxies, bands, height, width = pixels.shape
    split = pixels.reshape(galaxies, bands, height // PATCH, PATCH, width // PATCH, PATCH)
    return split.transpose(3, 4).reshape(galaxies, bands, -1, PATCH * PATCH)


def unpatch(cells: Float[Tensor, "*rows cell pixel"], width: int) -> Float[Tensor, "*rows y x"]:
    """The inverse of `patches` for frames `width` pixels wide."""
    across = width // PATCH
    leading = cells.shape[:-2]
    split = cells.reshape(*leading, -1, across, PATCH, PATCH).transpose(-3, -2)
    return split.reshape(*leading, -1, width)


def galaxy_scale(batch: Batch) -> Float[Tensor, " galaxy"]:
    """One flux scale per galaxy (nanomaggies) from its visible data.

    From photometry, else from images, else from spectra.
    The root of squared signal plus squared noise, so it is positive; 1 where nothing is visible.
    """
    photometry, images, spectra = batch.photometry, batch.images, batch.spectra
    shown = photometry.ivar > 0
    count = shown.sum(1).clamp(min=1)
    variance = shown / photometry.ivar.clamp(min=1e-20)
    from_photometry = ((photometry.flux * shown).sum(1) / count) ** 2 + variance.sum(1) / count**2

    seen = images.ivar > 0
    pixels = seen.flatten(1).sum(1).clamp(min=1)
    frame = images.flux[0, 0].numel()
    total = (images.flux * seen).flatten(1).sum(1) / pixels * frame
    noise = (seen / images.ivar.clamp(min=1e-20)).flatten(1).sum(1) / pixels**2 * frame**2
    from_images = total**2 + noise

    level, weight = spectrum_level(spectra)
    best = (weight * level**2).sum(1) / weight.sum(1).clamp(min=1e-20) / SPECTRAL_UNIT**2
    squared = torch.where(
        shown.any(1),
        from_photometry,
        torch.where(
            seen.flatten(1).any(1), from_images, torch.where(weight.sum(1) > 0, best, 1.0)
        ),
    )
    return squared.clamp(min=1e-12).sqrt()


def tokenize(batch: Batch) -> Tokens:
    """The tokens of a batch in which everything hidden has ivar = 0."""
    images, spectra = batch.images, batch.spectra
    scale = galaxy_scale(batch)
    prior = scale[:, None, None, None] / 50
    information = images.ivar * prior**2
    reliability = information / (1 + information)
    values = patches(reliability * torch.asinh(images.flux / prior))
    weights = patches(reliability)
    seen = patches((images.ivar > 0).to(weights.dtype))
    share = seen.mean(-1)
    depth = torch.log1p(patches(information).sum(-1) / seen.sum(-1).clamp(min=1)) / 3
    central = apertures(images, images.centre.new_zeros(len(batch), 1, 2), scale)[:, 0]

    table = _told_by_images(images, batch.photometry)
    shown = table.ivar > 0
    error = table.ivar.clamp(min=1e-20).rsqrt()
    # Absolute: a galaxy's brightness says much of its redshift.
    bright = (torch.asinh(table.flux / (2 * error)) + torch.log(2 * error) - 3) / 1.5
    total = torch.stack([bright, torch.asinh(table.flux / error) / 3], dim=-1)
    colours = contrasts(
        table.flux[..., None],
        error[..., None],
        shown[..., None],
        wavelength=table.wavelength,
        visible=shown,
    )
    piece_values, coordinates, piece_visible = _pieces(spectra, scale)
    return Tokens(
        scale=scale,
        cell_values=values,
        cell_summary=torch.stack([weights.mean(-1), share, depth * (share > 0)], dim=-1),
        cell_position=cell_positions(images),
        cell_visible=share > 0,
        band=band_coordinates(images),
        central=central,
        photometry_values=torch.cat([total, colours], dim=-1) * shown[..., None],
        photometry_band=torch.log(table.wavelength / 6000)[..., None],
        photometry_visible=shown,
        piece_values=piece_values,
        piece_coordinates=coordinates,
        piece_visible=piece_visible,
        candidates=candidates(spectra),
    )


def _pieces(spectra: Spectra, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    level, _ = spectrum_level(spectra)
    relative = spectra.ivar * level[..., None] ** 2
    reliability = relative / (1 + relative)
    values = reliability * torch.asinh(spectra.flux / level[..., None])
    lines = torch.asinh(
        4 * (values - reliability * _smooth(values) / _smooth(reliability).clamp(min=1e-4))
    )
    short = -spectra.flux.shape[-1] % PIECE

    def cut(pixels: Tensor, fill: str) -> Tensor:
        if fill == "zero":
            padded = torch.nn.functional.pad(pixels, (0, short))
        else:
            padded = torch.cat([pixels, pixels[..., -1:].expand(*pixels.shape[:-1], short)], -1)
        return padded.unflatten(-1, (-1, PIECE))

    wavelength = cut(spectra.wavelength, "edge")
    span = (wavelength[..., -1] - wavelength[..., 0]).clamp(min=1e-2) / (PIECE - 1)
    middle = 0.5 * (wavelength[..., 0] + wavelength[..., -1])
    sigma = cut(spectra.sigma, "edge").mean(-1)
    weights = cut(reliability, "zero")
    pieces = middle.shape[-1]

    def spread(per_spectrum: Tensor) -> Tensor:
        return per_spectrum[..., None].expand(*per_spectrum.shape, pieces)

    coordinates = torch.stack(
        [
            torch.log(middle / 6000),
            torch.log(span / middle * 1e4),
            torch.log((sigma / middle * 1e4).clamp(min=1e-2)),
            weights.mean(-1),
            spread(torch.log(level / (scale[:, None] * SPECTRAL_UNIT)).clamp(-8, 8)),
            spread(spectra.aperture[..., 0]),
            spread(spectra.aperture[..., 1]),
            spread(torch.log(spectra.aperture[..., 2].clamp(min=0.05))),
        ],
        dim=-1,
    )
    visible = (cut(spectra.ivar, "zero") > 0).any(-1)
    both = torch.cat([cut(values, "zero"), cut(lines, "zero")], dim=-1)
    return both.flatten(1, 2), coordinates.flatten(1, 2), visible.flatten(1)


def _smooth(pixels: Float[Tensor, "galaxy spectrum pixel"]) -> Tensor:
    wide: Tensor = torch.nn.functional.avg_pool1d(
        pixels, _AROUND, 1, _AROUND // 2, count_include_pad=False
    )
    return wide
