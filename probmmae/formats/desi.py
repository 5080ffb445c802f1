"""DESI spectra, coadded or by exposure: `coadd-*.fits`, `spectra-*.fits`, with `redrock-*.fits`.

The flux in these files is the total of a *point source* at the fibre's place; what the fibre
caught is PSF_TO_FIBER_SPECFLUX times that, and is what is read here, so that it compares with
FIBERFLUX and with surface brightness times aperture (4 % above FIBERFLUX_R for the galaxy tested).

The resolution matrix acts on a model already averaged over the pixels, as redrock applies it: the
second moment of its columns is the line-spread function without the pixel. ZWARN = 0 is good.

References:
    DESI data model, https://desidatamodel.readthedocs.io
    Guy et al. 2023, The Spectroscopic Data Processing Pipeline for DESI,
        https://arxiv.org/abs/2209.14482
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits

from probmmae.formats.opening import column, fits_file, hdu, is_fits, names_of
from probmmae.galaxy import Aperture, Galaxy, Photometry, Scalar, Spectrum

DESCRIPTION = "DESI spectra (coadd-*.fits, spectra-*.fits, with redrock-*.fits beside it)"

_ARMS = ("B", "R", "Z")
#: Step of every arm's grid, Angstrom; all three fall on one grid from 3600 Angstrom on.
_STEP = 0.8
_FIBRE_DIAMETER = 1.5


@dataclass(frozen=True)
class _Arm:
    """One spectrum on one grid, 1e-17 erg/s/cm2/Angstrom, Angstrom."""

    wavelength: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray
    sigma: np.ndarray


def recognise(path: Path) -> bool:
    """Whether this is a FITS file with a FIBERMAP and the flux of an arm."""
    if not is_fits(path):
        return False
    with fits_file(path) as opened:
        names = {each.name.upper() for each in opened}
    return "FIBERMAP" in names and bool(names & {"B_FLUX", "R_FLUX", "Z_FLUX", "BRZ_FLUX"})


def read(
    path: Path,
    *,
    redshifts: Path | None = None,
    arms: str = "combined",
    fibre_flux: bool = True,
    bad_fibres: bool = False,
    trust_warned_redshift: bool = False,
) -> Iterator[Galaxy]:
    """The targets of the file, one at a time; rows of one TARGETID are spectra of one galaxy.

    Args:
        path: the file.
        redshifts: redrock's table; None looks for it beside the file and inside it.
        arms: `combined`, one spectrum on the common 0.8 Angstrom grid, overlaps averaged by
            ivar; or `separate`, one an arm.
        fibre_flux: scale to what the fibre caught. False keeps the numbers of the file.
        bad_fibres: keep spectra whose fibre status is not 0.
        trust_warned_redshift: keep redrock's redshift where ZWARN is not 0.

    Yields:
        Galaxies with spectra, Legacy Survey photometry, redshift and class; no sky fibres.

    Raises:
        ValueError: a damaged file, a missing HDU or column, or another value of `arms`.
    """
    if arms not in ("combined", "separate"):
        raise ValueError(f"Expected arms 'combined' or 'separate'; got {arms!r}. Choose one.")
    table = _redrock(path, redshifts)
    with fits_file(path) as opened:
        fibermap = hdu(opened, "FIBERMAP")
        targets = column(fibermap, "TARGETID")
        kind = fibermap.data["OBJTYPE"] if "objtype" in names_of(fibermap) else None
        there = names_of(fibermap)
        status = next(
            (
                column(fibermap, n)
                for n in ["COADD_FIBERSTATUS", "FIBERSTATUS"]
                if n.lower() in there
            ),
            np.zeros(len(targets), int),
        )
        is_target = np.ones(len(targets), bool) if kind is None else np.asarray(kind) == "TGT"
        kept = is_target & (bad_fibres | (status == 0))
        if is_target.sum() > kept.sum():
            warnings.warn(
                f"{is_target.sum() - kept.sum()} of {is_target.sum()} spectra in {path.name} have "
                "a fibre status other than 0 and are left out; bad_fibres=True keeps them.",
                stacklevel=2,
            )
        for target in dict.fromkeys(targets[kept].tolist()):
            rows = np.flatnonzero(kept & (targets == target))
            about = fibermap.data[rows[0]]
            yield _galaxy(
                int(target),
                {name.upper(): about[name] for name in fibermap.columns.names},
                spectra=[
                    spectrum
                    for row in rows
                    for spectrum in _spectra(opened, int(row), arms=arms, fibre_flux=fibre_flux)
                ],
                redshift=table.get(int(target)),
                trust_warned=trust_warned_redshift,
            )


def line_spread(resolution: np.ndarray) -> np.ndarray:
    """Standard deviation, in pixels, of each column of a banded resolution matrix.

    Args:
        resolution: (diagonal, pixel); the offset of diagonal k is n_diagonal // 2 - k.

    Returns:
        (pixel,); NaN where a column is empty.
    """
    weight = resolution.astype(np.float64)
    offset = weight.shape[0] // 2 - np.arange(weight.shape[0])[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weight.sum(axis=0)
        mean = (weight * offset).sum(axis=0) / total
        variance = (weight * offset**2).sum(axis=0) / total - mean**2
        return np.sqrt(np.where(variance > 0, variance, np.nan))


def combine(arms: list[_Arm]) -> _Arm:
    """One spectrum on the grid that the arms share; averaged by ivar where they overlap."""
    first = min(arm.wavelength[0] for arm in arms)
    places = [np.rint((arm.wavelength - first) / _STEP).astype(int) for arm in arms]
    n = max(place[-1] for place in places) + 1
    flux, ivar, weight, sigma = (np.zeros(n) for _ in range(4))
    covered = np.zeros(n, bool)
    for arm, place in zip(arms, places, strict=True):
        covered[place] = True
        ivar[place] += arm.ivar
        flux[place] += arm.ivar * arm.flux
        # Missing pixels still have a resolution.
        weight[place] += arm.ivar + 1e-12
        sigma[place] += (arm.ivar + 1e-12) * arm.sigma
    flux = np.divide(flux, ivar, out=np.zeros(n), where=ivar > 0)
    index = np.arange(n)
    sigma = np.interp(index, index[covered], sigma[covered] / weight[covered])
    return _Arm(first + _STEP * index, flux, ivar, sigma)


def _spectra(opened: fits.HDUList, row: int, *, arms: str, fibre_flux: bool) -> Iterator[Spectrum]:
    names = {each.name.upper() for each in opened}
    read_arms = {arm: _arm(opened, arm, row) for arm in [*_ARMS, "BRZ"] if f"{arm}_FLUX" in names}
    about = hdu(opened, "FIBERMAP").data[row]
    columns = {name.upper(): about[name] for name in about.array.names}
    fraction = _first(columns, "MEAN_PSF_TO_FIBER_SPECFLUX", "PSF_TO_FIBER_SPECFLUX")
    if fraction is None or not 0.0 < fraction < 1.0:
        fraction = 1.0 - 2.0 ** -(_FIBRE_DIAMETER**2)
    aperture = _aperture(columns, fraction)
    factor = fraction if fibre_flux else 1.0
    if arms == "combined":
        read_arms = {"brz": combine(list(read_arms.values()))}
    for name, arm in read_arms.items():
        if np.any(np.isfinite(arm.flux) & (arm.ivar > 0)):
            yield Spectrum.in_batch_units(
                arm.wavelength,
                arm.flux * factor,
                ivar=arm.ivar / factor**2,
                sigma=arm.sigma,
                aperture=aperture,
                name=f"desi-{name.lower()}",
            )


def _arm(opened: fits.HDUList, arm: str, row: int) -> _Arm:
    wavelength = np.asarray(hdu(opened, f"{arm}_WAVELENGTH").data, np.float64)
    flux = np.asarray(hdu(opened, f"{arm}_FLUX").data[row], np.float64)
    ivar = np.asarray(hdu(opened, f"{arm}_IVAR").data[row], np.float64)
    bad = ~np.isfinite(flux) | ~np.isfinite(ivar)
    if any(each.name.upper() == f"{arm}_MASK" for each in opened):
        bad |= np.asarray(hdu(opened, f"{arm}_MASK").data[row]) != 0
    resolution = np.asarray(hdu(opened, f"{arm}_RESOLUTION").data[row])
    sigma = line_spread(resolution) * np.gradient(wavelength)
    good = np.isfinite(sigma)
    if not good.any():
        raise ValueError(
            f"Expected a resolution matrix in {arm}_RESOLUTION, row {row}; got zeros. "
            "Leave the arm out of the file."
        )
    index = np.arange(sigma.size)
    return _Arm(
        wavelength,
        np.where(bad, 0.0, flux),
        np.where(bad, 0.0, ivar),
        np.interp(index, index[good], sigma[good]),
    )


def _first(about: dict[str, Any], *names: str) -> float | None:
    for name in names:
        if name in about and np.isfinite(about[name]):
            return float(about[name])
    return None


def _aperture(about: dict[str, Any], fraction: float) -> Aperture:
    """Where the fibre was, from its own mean position, in the seeing that explains its loss."""
    offset = (0.0, 0.0)
    fibre = [_first(about, f"MEAN_FIBER_{axis}", f"FIBER_{axis}") for axis in ["RA", "DEC"]]
    if fibre[0] is not None and fibre[1] is not None:
        dec = float(about["TARGET_DEC"])
        turn = (fibre[0] - float(about["TARGET_RA"]) + 180.0) % 360.0 - 180.0
        offset = (
            turn * math.cos(math.radians(dec)) * 3600.0,
            (fibre[1] - dec) * 3600.0,
        )
        # Fibres that were never placed carry zeros.
        if math.hypot(*offset) > 10.0:
            offset = (0.0, 0.0)
    seeing = _FIBRE_DIAMETER / math.sqrt(-math.log2(1.0 - fraction))
    return Aperture.in_batch_units(
        *offset, diameter=_FIBRE_DIAMETER, seeing=min(max(seeing, 0.4), 4.0)
    )


def _galaxy(
    target: int,
    about: dict[str, Any],
    *,
    spectra: list[Spectrum],
    redshift: dict[str, Any] | None,
    trust_warned: bool,
) -> Galaxy:
    scalars: dict[str, Scalar] = {}
    labels: dict[str, str] = {}
    if redshift is not None:
        labels["zwarn"] = str(int(redshift["ZWARN"]))
        for name, key in [("class", "SPECTYPE"), ("subclass", "SUBTYPE")]:
            if key in redshift and str(redshift[key]).strip():
                labels[name] = str(redshift[key]).strip()
        if trust_warned or int(redshift["ZWARN"]) == 0:
            error = float(redshift["ZERR"]) if redshift["ZERR"] > 0 else 0.0
            scalars["redshift"] = Scalar(float(redshift["Z"]), error)
    if str(about.get("MORPHTYPE", "")).strip():
        labels["morphology"] = str(about["MORPHTYPE"]).strip()
    return Galaxy(
        str(target),
        ra=float(about["TARGET_RA"]) * u.deg,
        dec=float(about["TARGET_DEC"]) * u.deg,
        spectra=tuple(spectra),
        photometry=_photometry(about),
        scalars=scalars,
        labels=labels,
    )


def _photometry(about: dict[str, Any]) -> tuple[Photometry, ...]:
    """Total Legacy Survey fluxes; ivar = 0 where the target has none."""
    north = str(about.get("PHOTSYS", "")).strip() == "N"
    bands = {
        "G": "bass-g" if north else "decam-g",
        "R": "bass-r" if north else "decam-r",
        "Z": "mzls-z" if north else "decam-z",
    }
    return tuple(
        Photometry.in_batch_units(
            band, float(about[f"FLUX_{key}"]), ivar=float(about[f"FLUX_IVAR_{key}"])
        )
        for key, band in bands.items()
        if f"FLUX_{key}" in about
        and np.isfinite(about[f"FLUX_{key}"])
        and about.get(f"FLUX_IVAR_{key}", 0) > 0
    )


def _redrock(path: Path, given: Path | None) -> dict[int, dict[str, Any]]:
    """Redrock's rows by TARGETID: from the table named, the one beside the file, or none."""
    kind, _, rest = path.name.partition("-")
    beside = path.with_name(f"redrock-{rest}") if kind in ("coadd", "spectra") else None
    for candidate in [given] if given is not None else [beside, path]:
        if candidate is None or not Path(candidate).exists():
            if given is not None:
                raise FileNotFoundError(
                    f"Expected redrock's table; got {given}, which is not there. Check the path."
                )
            continue
        with fits_file(Path(candidate)) as opened:
            if given is None and not any(each.name.upper() == "REDSHIFTS" for each in opened):
                continue
            table = hdu(opened, "REDSHIFTS")
            targets = column(table, "TARGETID")
            wanted = ["Z", "ZERR", "ZWARN", "SPECTYPE", "SUBTYPE"]
            there = names_of(table)
            values = {name: column(table, name) for name in wanted if name.lower() in there}
            for name in ["Z", "ZERR", "ZWARN"]:
                column(table, name)
            return {
                int(target): {name: values[name][row] for name in values}
                for row, target in enumerate(targets)
            }
    return {}
