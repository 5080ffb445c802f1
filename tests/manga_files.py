"""LOGCUBE files built to the data model from a simulated galaxy."""

import astropy.units as u
import numpy as np
from astropy.io import fits

from probmmae.formats.manga import DRP3PIXMASK
from probmmae.spaxels import square
from probmmae.synthetic import band_weights

SIDE, FWHM = 0.5, 2.5
SPAXELS = square(8, side=SIDE * u.arcsec, psf_fwhm=FWHM * u.arcsec)


def logcube(truth, *, drop=(), quality=0, gradient=0.0) -> fits.HDUList:
    """A LOGCUBE: HDUs, keys and units of the data model; x of the array grows to the west."""
    shape = SPAXELS.grid.shape
    flux = SPAXELS.grid.image(truth.flux.T).astype("f4")
    flux *= 1 + gradient * np.arange(shape[1])
    ivar = np.full(flux.shape, (0.02 * flux.mean()) ** -2, "f4")
    mask = np.zeros(flux.shape, "i4")
    mask[:, 0, 0] = 1 << DRP3PIXMASK["NOCOV"] | 1 << DRP3PIXMASK["DONOTUSE"]
    mask[100, 3, 3] = 1 << DRP3PIXMASK["FORESTAR"]
    mask[101, 3, 3] = 1 << 20  # a bit that is none of the data model's
    ivar[102, 3, 3] = 0
    flux[103, 3, 3] = np.nan
    sky = fits.Header()
    for axis, kind, sign, at in ((1, "RA---TAN", -1, 150.0), (2, "DEC--TAN", 1, 2.0)):
        sky[f"CTYPE{axis}"], sky[f"CUNIT{axis}"], sky[f"CRVAL{axis}"] = kind, "deg", at
        sky[f"CRPIX{axis}"] = shape[axis % 2] / 2 + 1
        sky[f"CD{axis}_{axis}"] = sign * 0.000138889
    header = sky.copy()
    header["CTYPE3"], header["CUNIT3"], header["CRPIX3"] = "WAVE-LOG", "Angstrom", 1
    header["CRVAL3"], header["CD3_3"] = 3621.59598486, 0.833903304339
    primary = fits.PrimaryHDU()
    primary.header.update(
        {"PLATEIFU": "1-1901", "TELESCOP": "SDSS 2.5-M", "INSTRUME": "MaNGA", "OBJRA": 150.0,
         "OBJDEC": 2.0 + SIDE / 3600, "DRP3QUAL": quality, "GFWHM": 2.6, "RFWHM": FWHM}
    )  # fmt: skip
    unit = {"BUNIT": "1E-17 erg/s/cm^2/Angstrom/spaxel"}
    hdus = [
        primary,
        fits.ImageHDU(flux, header + fits.Header(unit), name="FLUX"),
        fits.ImageHDU(ivar, header, name="IVAR"),
        fits.ImageHDU(mask, header, name="MASK"),
        fits.ImageHDU(np.broadcast_to(truth.sigma[:, None, None], flux.shape).astype("f4"),
                      header, name="LSFPOST"),
        fits.ImageHDU(truth.wavelength.astype("f8"), name="WAVE"),
        fits.ImageHDU(truth.wavelength / truth.sigma / 2.3548, name="SPECRES"),
    ]  # fmt: skip
    y, x = np.indices(shape)
    for band in "griz":
        weights = band_weights(f"sdss2010-{band}", truth.wavelength)
        image = np.tensordot(weights, np.nan_to_num(flux), 1).astype("f4")
        hdus.append(fits.ImageHDU(image, sky, name=f"{band.upper()}IMG"))
        apart = (y - shape[0] // 2) ** 2 + (x - shape[1] // 2) ** 2
        profile = np.exp(-0.5 * apart * (SIDE * 2.3548 / 2.4) ** 2)
        hdus.append(fits.ImageHDU(profile / profile.sum(), sky, name=f"{band.upper()}PSF"))
    hdus.append(correlation(shape))
    return fits.HDUList([each for each in hdus if each.name not in drop])


def correlation(shape) -> fits.BinTableHDU:
    """GCORREL: each pair once, x and y from 0; longer along x than along y."""
    y, x = (each.ravel() for each in np.indices(shape))
    rho = np.exp(-0.5 * (((x[:, None] - x) / 0.9) ** 2 + ((y[:, None] - y) / 0.5) ** 2))
    i, j = np.nonzero(np.triu(rho > 1e-3))
    columns = {"INDXI_C1": x[i], "INDXI_C2": y[i], "INDXJ_C1": x[j], "INDXJ_C2": y[j]}
    made = [fits.Column(name, "J", array=value) for name, value in columns.items()]
    made.append(fits.Column("RHOIJ", "D", array=rho[i, j]))
    return fits.BinTableHDU.from_columns(made, name="GCORREL")
