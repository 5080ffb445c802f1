"""What the code cannot say: the decoder's intrinsic scatter, measured on apertures of its own.

In training the scatter also takes up what the guide's draws miss of a spectrum, which the spread
of u counts already. Here every aperture gets the code nearest to it, and what then is left of its
spectrum, as a fraction, is the intrinsic scale per rest wavelength and the flux-calibration modes.
"""

import torch
from report_set import TUNE_SEED

from probmmae.code import nearest_code
from probmmae.decoders import calibration_modes, knot_place, to_physical
from probmmae.instrument import observe
from probmmae.level import LEVEL
from probmmae.model import GalaxyModel
from probmmae.simulator.stream import simulate_block
from probmmae.simulator.survey import SurveySettings

BLOCKS = 8
_FLOOR = 1e-3


def settle(network: GalaxyModel, *, blocks: int = BLOCKS) -> dict[str, float]:
    """Set the decoder's intrinsic scale and modes; medians of what was found.

    Args:
        network: A trained model; its decoder's two scatter parameters are changed.
        blocks: Simulated blocks of the tuning seed.
    """
    decoder, templates = network.spectrum_decoder, network.templates
    knots = decoder.log_intrinsic.shape[0]
    settings = SurveySettings(size=8)
    found, sizes, places = [], [], []
    for block in range(blocks):
        batch, truth = simulate_block(TUNE_SEED, block, settings=settings)
        rest = truth.rest
        scale = torch.ones(rest.velocity.shape)
        physical = to_physical(templates, rest, scale)
        code = nearest_code(decoder, physical[..., 1:].flatten(0, 1)).unflatten(0, scale.shape)
        u = torch.cat([physical[..., :1] + LEVEL, code], dim=-1)
        spectra = batch.spectra
        z = truth.z[:, None].expand(scale.shape)
        with torch.no_grad():
            light = decoder(u, scale)
            made, true = (
                observe(templates, one, z, spectra.wavelength, spectra.sigma)
                for one in (light, rest)
            )
            # Pixels next to dark ones (deep absorption, the far blue) count by the local level.
            level = 0.5 * (true.abs() + true.abs().mean(-1, keepdim=True))
            fraction = (made - true) / level
            modes = calibration_modes(spectra.wavelength)
            real = (truth.deep.ivar > 0)[..., None]
            fit = torch.linalg.lstsq(modes * real, (fraction[..., None] * real)).solution
            found.append(fit[..., 0].flatten(0, 1))
            left = fraction - (modes @ fit)[..., 0]
            place = knot_place(z, spectra.wavelength).round().long()
            inside = real[..., 0] & (place >= 0) & (place < knots)
            sizes.append(left[inside].abs())
            places.append(place[inside])
    scatter = _by_knot(torch.cat(sizes), torch.cat(places), knots).clamp(min=_FLOOR)
    modes_scatter = torch.cat(found).square().mean(0).sqrt().clamp(min=_FLOOR)
    with torch.no_grad():
        decoder.log_intrinsic.copy_(scatter.log())
        decoder.log_calibration.copy_(modes_scatter.log())
    return {
        "intrinsic": float(scatter.median()),
        "calibration": float(modes_scatter.median()),
    }


def _by_knot(size: torch.Tensor, place: torch.Tensor, knots: int) -> torch.Tensor:
    """What 68 % of a knot's pixels stay below (few are in lines); the median if it has none."""
    at = [size[place == knot] for knot in range(knots)]
    found = [part.quantile(0.68) if len(part) > 100 else torch.tensor(torch.nan) for part in at]
    scatter = torch.stack(found)
    return torch.where(scatter.isfinite(), scatter, scatter.nanmedian())
