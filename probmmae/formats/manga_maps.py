"""MaNGA DAP MAPS files: maps of emission lines, motions and indices of one galaxy.

Channels are found by the names in the header (C01 and on): their order has changed between
releases. `DAPPIXMASK` bit 30 alone says DONOTUSE. Line fluxes are corrected for Galactic dust by
E(B-V) of the header, cubes are not. Velocities are relative to SCINPVEL, which is c z.

As a galaxy the file is its g-band image (SPX_MFLUX, the mean flux density through g), the PSF of
its header and the redshift of SCINPVEL.

References:
    Westfall et al. 2019, The Data Analysis Pipeline for the SDSS-IV MaNGA IFU Galaxy Survey:
        Overview, https://arxiv.org/abs/1901.00856

Axes: y, x; channel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from jaxtyping import Bool, Float

from probmmae.bands import effective_wavelength
from probmmae.batch import NANOMAGGIE_FLAMBDA
from probmmae.correlation import SpaxelCorrelation
from probmmae.formats.manga import correlation_table
from probmmae.formats.opening import fits_file, hdu, is_fits, native
from probmmae.galaxy import BandImage, Galaxy, Scalar

DESCRIPTION = "MaNGA DAP maps (manga-*-MAPS-*.fits)"

#: Bits of DAPPIXMASK.
DAPPIXMASK = {
    "NOCOV": 0, "LOWCOV": 1, "DEADFIBER": 2, "FORESTAR": 3, "NOVALUE": 4, "UNRELIABLE": 5,
    "MATHERROR": 6, "FITFAILED": 7, "NEARBOUND": 8, "NOCORRECTION": 9, "MULTICOMP": 10,
    "DONOTUSE": 30,
}  # fmt: skip
_LIGHT = 299792.458


@dataclass(frozen=True, eq=False)
class DapMap:
    """One channel of one map; rows to the north, columns to the west."""

    value: Float[np.ndarray, "y x"]
    ivar: Float[np.ndarray, "y x"]
    """0 is missing: masked DONOTUSE, or without a measurement. 0 everywhere where the file gives
    no inverse variance."""
    mask: Bool[np.ndarray, "y x"]
    """True is DONOTUSE."""
    unit: str


@dataclass(frozen=True, eq=False)
class DapMaps:
    """What the file holds, map by map."""

    path: Path
    name: str
    redshift: float
    """SCINPVEL / c."""
    ra: float
    dec: float
    side: float
    """arcsec."""
    psf_fwhm: float
    """In g, arcsec."""
    ebv: float
    """Galactic reddening that line fluxes are corrected for."""
    effective_radius: float
    """arcsec."""
    offset: Float[np.ndarray, "2 y x"]
    """dx (east) and dy (north) of the spaxels, arcsec."""
    bin_id: Float[np.ndarray, "y x"]
    """Spaxels of one number share their stellar fit; -1 is none."""
    channels: dict[str, tuple[str, ...]]
    """Names of the channels of each map; empty for maps of one."""

    def map(self, name: str, channel: str | None = None) -> DapMap:
        """A map, such as ("EMLINE_GFLUX", "Ha-6564") or ("STELLAR_VEL",).

        Raises:
            ValueError: The file has no such map or channel.
        """
        if name not in self.channels:
            known = ", ".join(self.channels)
            raise ValueError(f"Expected a map among {known}; got {name!r}. Choose one.")
        names = self.channels[name]
        if (channel is None) != (not names) or (names and channel not in names):
            raise ValueError(
                f"Expected a channel of {name} among {', '.join(names) or 'none'}; got "
                f"{channel!r}. Choose one."
            )
        with fits_file(self.path) as opened:
            there = {each.name for each in opened}

            def plane(suffix: str) -> np.ndarray | None:
                if name + suffix not in there:
                    return None
                data = native(opened[name + suffix].data)
                return data[names.index(channel)] if channel is not None else data

            value, ivar, bits = plane(""), plane("_IVAR"), plane("_MASK")
            unit = str(opened[name].header.get("BUNIT", ""))
        if value is None:
            raise ValueError(f"Expected the map {name} in {self.path}; got none.")
        mask = (
            np.zeros(value.shape, bool)
            if bits is None
            else (bits >> DAPPIXMASK["DONOTUSE"] & 1) > 0
        )
        weight = np.zeros_like(value) if ivar is None else ivar
        missing = mask | ~np.isfinite(value) | ~np.isfinite(weight) | (self.bin_id < 0)
        return DapMap(np.where(missing, np.nan, value), np.where(missing, 0.0, weight), mask, unit)


def recognise(path: Path) -> bool:
    """Whether this is a FITS file with BINID and maps of emission lines."""
    if not is_fits(path):
        return False
    with fits_file(path) as opened:
        return {"BINID", "EMLINE_GFLUX", "SPX_MFLUX"} <= {each.name.upper() for each in opened}


def read(path: Path) -> Iterator[Galaxy]:
    """The one galaxy of the file, with its g-band image and redshift.

    Raises:
        ValueError: a damaged file, a missing HDU.
    """
    maps = read_maps(path)
    wavelength = effective_wavelength("sdss-g")
    nanomaggies = wavelength**2 / NANOMAGGIE_FLAMBDA
    light = maps.map("SPX_MFLUX")
    # Columns grow to the west in the file, x to the east in the galaxy.
    middle = (maps.offset[:, 0, 0] + maps.offset[:, -1, -1]) / 2
    image = BandImage.in_batch_units(
        "sdss-g",
        np.nan_to_num(light.value[:, ::-1]) * nanomaggies,
        ivar=light.ivar[:, ::-1] / nanomaggies**2,
        pixel_scale=maps.side,
        psf_fwhm=maps.psf_fwhm,
        centre=(float(middle[0]), float(middle[1])),
    )
    yield Galaxy(
        maps.name,
        ra=maps.ra * u.deg,
        dec=maps.dec * u.deg,
        images=(image,),
        scalars={"redshift": Scalar(maps.redshift)},
    )


def read_maps(path: Path) -> DapMaps:
    """What a MAPS file holds; the maps themselves are read when asked for.

    Raises:
        ValueError: a damaged file, a missing HDU or key.
    """
    with fits_file(path) as opened:
        header = opened[0].header
        for key in ("SCINPVEL", "OBJRA", "OBJDEC"):
            if key not in header:
                raise ValueError(
                    f"Expected {key} in the header of {path}; got none. Fetch it anew."
                )
        offset = native(hdu(opened, "SPX_SKYCOO").data).astype(np.float64)
        # SPX_SKYCOO grows to the east.
        first = hdu(opened, "SPX_MFLUX").header
        scale = abs(float(first.get("PC2_2", first.get("CD2_2", 1.0)))) * float(
            first.get("CDELT2", 1.0)
        )
        channels = {
            each.name: _channels(each.header)
            for each in opened
            if each.is_image and each.data is not None
            and not each.name.endswith(("_IVAR", "_MASK"))
        }  # fmt: skip
        return DapMaps(
            path=path,
            name=f"manga-{str(header.get('PLATEIFU', path.name)).strip()}",
            redshift=float(header["SCINPVEL"]) / _LIGHT,
            ra=float(header["OBJRA"]),
            dec=float(header["OBJDEC"]),
            side=scale * 3600,
            psf_fwhm=float(header.get("GFWHM", 2.5)),
            ebv=float(header.get("EBVGAL", 0.0)),
            effective_radius=float(header.get("REFF", np.nan)),
            offset=offset,
            bin_id=native(hdu(opened, "BINID").data)[0].astype(np.float64),
            channels=channels,
        )


def read_correlation(path: Path, shape: tuple[int, int]) -> SpaxelCorrelation:
    """The noise correlation of the cube's spaxels from the DAP's reference file (SNRG).

    Args:
        path: manga-PLATE-IFU-SNRG.fits.gz.
        shape: (y, x) of the maps.

    Raises:
        ValueError: a damaged file, or one without CORREL.
    """
    with fits_file(path) as opened:
        return correlation_table(hdu(opened, "CORREL"), shape)


def _channels(header: Any) -> tuple[str, ...]:
    count = int(header.get("NAXIS3", 0))
    digits = 2 if "C01" in header else 1
    return tuple(
        str(header.get(f"C{index:0{digits}d}", index)).strip() for index in range(1, count + 1)
    )
