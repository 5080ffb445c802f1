"""Three spectrographs: wavelength grids, line-spread functions, throughput and night sky.

All grids are padded to one length, so that a batch may mix instruments. The night sky is a smooth
continuum that grows to the red under a fixed list of airglow lines.

Axes: kind (DESI-like, SDSS-like, MaNGA-like), pixel.

References:
    DESI Collaboration 2022 (AJ 164, 207), Smee et al. 2013 (AJ 146, 32; SDSS), Law et al. 2016
    (AJ 152, 83; MaNGA), Osterbrock et al. 1996 (PASP 108, 277; airglow).
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probmmae.batch import NANOMAGGIE_FLAMBDA

KINDS = ("desi", "sdss", "manga")

#: Vacuum wavelength (Angstrom) and strength of airglow lines relative to 1 at the dark continuum.
_AIRGLOW = (
    (4047.8, 0.4), (4359.6, 0.7), (5462.3, 0.8), (5578.9, 14.0), (5891.6, 3.0), (5897.6, 2.0),
    (6302.0, 6.0), (6365.5, 2.0), (6500.5, 1.2), (6535.0, 1.2), (6555.9, 1.0), (6866.0, 2.5),
    (6925.0, 2.0), (7247.0, 3.0), (7278.3, 5.0), (7286.4, 4.0), (7318.2, 6.0), (7331.3, 4.0),
    (7342.9, 7.0), (7371.4, 5.5), (7404.2, 4.0), (7526.0, 2.5), (7714.0, 3.0), (7718.6, 4.0),
    (7752.6, 8.0), (7761.8, 3.0), (7782.6, 3.0), (7796.3, 9.0), (7823.3, 8.0), (7843.4, 3.0),
    (7855.4, 6.0), (7915.8, 11.0), (7923.3, 3.5), (7951.3, 5.0), (7966.8, 10.0), (7995.6, 9.0),
    (8016.2, 4.0), (8027.9, 7.0), (8064.5, 4.5), (8291.9, 4.0), (8312.7, 6.0), (8346.9, 10.0),
    (8355.0, 4.0), (8384.7, 5.0), (8401.5, 14.0), (8417.5, 6.0), (8432.5, 13.0), (8454.6, 7.0),
    (8467.7, 11.0), (8495.7, 10.0), (8507.2, 9.0), (8541.0, 4.5), (8551.1, 4.5), (8762.5, 8.0),
    (8770.1, 6.0), (8780.6, 12.0), (8793.1, 8.0), (8829.4, 16.0), (8838.7, 9.0), (8852.3, 9.0),
    (8870.1, 10.0), (8888.3, 16.0), (8905.7, 11.0), (8922.3, 15.0), (8945.9, 11.0), (8960.6, 13.0),
    (8990.8, 9.0), (9004.0, 11.0), (9040.6, 9.0), (9051.9, 6.0), (9216.8, 7.0), (9227.4, 6.0),
    (9309.6, 9.0), (9316.3, 12.0), (9326.5, 8.0), (9340.4, 14.0), (9378.6, 18.0), (9399.8, 10.0),
    (9422.3, 15.0), (9442.3, 18.0), (9461.2, 12.0), (9479.3, 16.0), (9505.3, 14.0), (9522.6, 15.0),
    (9555.1, 14.0), (9570.0, 12.0), (9610.2, 9.0), (9623.2, 10.0), (9702.1, 9.0), (9722.3, 12.0),
    (9740.0, 9.0), (9795.4, 14.0), (9802.3, 10.0), (9875.0, 15.0), (9917.5, 14.0), (9954.5, 13.0),
    (10016.2, 13.0), (10085.0, 14.0), (10127.0, 13.0), (10177.6, 12.0), (10216.0, 10.0),
    (10291.0, 14.0),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Spectrographs:
    """The stored grids of the three kinds."""

    wavelength: Float[Tensor, "kind pixel"]
    """Vacuum Angstrom; the padding repeats the last value."""
    sigma: Float[Tensor, "kind pixel"]
    """Gaussian width of the line-spread function, Angstrom."""
    width: Float[Tensor, "kind pixel"]
    """Pixel width, Angstrom."""
    throughput: Float[Tensor, "kind pixel"]
    """Relative to its maximum."""
    sky: Float[Tensor, "kind pixel"]
    """Surface brightness, 1e-17 erg/s/cm2/Angstrom/arcsec^2."""
    real: Bool[Tensor, "kind pixel"]
    """False in the padding."""


def _grids() -> list[tuple[Tensor, Tensor]]:
    """Wavelength and resolving power (FWHM) of every kind, in double precision."""
    desi = 3600 + 0.8 * torch.arange(7781, dtype=torch.float64)
    # Three arms, each with constant FWHM in Angstrom.
    arms = torch.where(desi < 5800, 1.75, torch.where(desi < 7600, 1.65, 1.75))
    count = 1 + int(torch.log10(torch.tensor(10350 / 3650, dtype=torch.float64)) * 1e4)
    sdss = 3650 * 10 ** (1e-4 * torch.arange(count, dtype=torch.float64))
    rising = 1500 + (sdss - 3800) / (9000 - 3800) * 1100
    arm = torch.where(sdss < 6150, rising + 150, rising - 120)
    manga = 10 ** (3.5589 + 1e-4 * torch.arange(4563, dtype=torch.float64))
    blue = 1450 + (manga - 3700) / 2600 * 750
    red = 1750 + (manga - 6300) / 3900 * 850
    return [(desi, desi / arms), (sdss, arm), (manga, torch.where(manga < 6150, blue, red))]


def _sky(wavelength: Tensor, sigma: Tensor) -> Tensor:
    """Dark sky of about 22.3 (4500 A) to 20.3 (9500 A) AB mag an arcsec^2 below its lines."""
    magnitude = 22.4 - 2.1 * ((wavelength - 4300) / 5200).clamp(-0.2, 1.2)
    continuum = NANOMAGGIE_FLAMBDA / wavelength**2 * 10 ** (-0.4 * (magnitude - 22.5))
    lines = torch.zeros_like(wavelength)
    for centre, strength in _AIRGLOW:
        shape = torch.exp(-0.5 * ((wavelength - centre) / sigma) ** 2)
        # Strengths are peaks at a width of 1 Angstrom.
        lines += strength * shape / sigma
    dark = NANOMAGGIE_FLAMBDA / 7000**2 * 10 ** (-0.4 * (21.3 - 22.5))
    return continuum + dark * lines


@lru_cache(maxsize=1)
def load_spectrographs() -> Spectrographs:
    """The three spectrographs on one padded pixel axis."""
    rows: dict[str, list[Tensor]] = {name: [] for name in Spectrographs.__dataclass_fields__}
    grids = _grids()
    longest = max(len(wavelength) for wavelength, _ in grids)
    for wavelength, resolution in grids:
        sigma = wavelength / resolution / 2.3548
        ends = (wavelength - wavelength[0], wavelength[-1] - wavelength)
        rise = 0.12 + 0.88 * (1 - torch.exp(-ends[0] / 500))
        fall = 0.30 + 0.70 * (1 - torch.exp(-ends[1] / 600))
        columns = {
            "wavelength": wavelength,
            "sigma": sigma,
            "width": torch.gradient(wavelength)[0],
            "throughput": rise * fall,
            "sky": _sky(wavelength, sigma),
        }
        padding = longest - len(wavelength)
        for name, column in columns.items():
            rows[name].append(torch.cat([column, column[-1:].expand(padding)]).float())
        rows["real"].append(torch.arange(longest) < len(wavelength))
    return Spectrographs(**{name: torch.stack(row) for name, row in rows.items()})
