"""`probmmae demo`: posterior spectra and redshift intervals of a few galaxies, in a few minutes.

Simulated galaxies show what the model claims beside the truth: it sees the images alone. Real
galaxies show what is left of it outside the simulator: SDSS spectra of which half is hidden, their
redshift not given, HST images of DEEP2 galaxies, and whatever files are named.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from rich.console import Console
from rich.table import Table

from probmmae.batch import Batch
from probmmae.formats import stream
from probmmae.formats.cutouts import read_bands
from probmmae.galaxy import FWHM_PER_SIGMA, Aperture, Galaxy, Spectrum
from probmmae.inference.catalog import hide_redshift
from probmmae.inference.figures import Row, gallery, save
from probmmae.inference.posterior import Model
from probmmae.simulator import simulate
from probmmae.simulator.survey import Truth
from probmmae.unbatch import unbatch

DRAWS = 200
_GRID = np.arange(3700.0, 9900.0, 2.0)
_PIECE = 400.0
"""Width of the shown and of the hidden pieces of a real spectrum, Angstrom."""

#: Under the folder of real data, where there is one: files and options of their format.
_SPECTRA = (
    "sdss_spec_fits/spec-0266-51602-0013.fits.gz",
    "sdss_spec_fits/spec-0266-51602-0526.fits.gz",
    "boss_xxl_spectra/spec-4391-55866-0433.fits.lite.fits.gz",
)
_HST = "deep2_hst_triples/{name}.acs.{band}_6ac_.fits.gz"
#: DEEP2 galaxies with their redshifts, measured from Keck spectra.
_HST_REDSHIFTS = {"12012573": 0.2716, "12008179": 0.2822, "12016058": 0.4598}
#: Bands in the names of the files, ours, and the AB zero point of one count per second.
_HST_BANDS = (("v", "hst-f606w", 26.486), ("i", "hst-f814w", 25.937))


@dataclass(frozen=True)
class Shown:
    """One galaxy of the demonstration: what is drawn and what is printed."""

    row: Row
    given: str
    """What the model was shown."""


def run(
    model: Model,
    out: Path,
    *,
    files: Sequence[Path],
    data: Path | None,
    seed: int,
    console: Console,
) -> None:
    """Draw, print and save; says where the figures are.

    Args:
        model: The trained model.
        out: Folder of the figures; made where it is not there.
        files: Galaxies of the user's own.
        data: Folder of real data; what is not there is left out.
        seed: Of the simulated galaxies.
        console: Where the table goes.

    Raises:
        ValueError: A file that no format knows, or a negative seed.
    """
    out.mkdir(parents=True, exist_ok=True)
    pages = {
        "simulated": (simulated(model, seed), "Simulated galaxies, from their images alone"),
        "real": (
            [*(real(model, data) if data else []), *own(model, files)],
            "Real galaxies; the model was trained on simulations",
        ),
    }
    table = Table(title="Redshifts: nothing but what is named was shown", title_justify="left")
    for name in ("galaxy", "given", "z true", "median", "90 % interval", "holds it"):
        table.add_column(name, justify="left" if name in ("galaxy", "given") else "right")
    for shown, _ in pages.values():
        for one in shown:
            table.add_row(*_cells(one))
    console.print(table)
    for name, (shown, title) in pages.items():
        if not shown:
            console.print(f"{name}: no galaxies; name FILES, or a folder with --data.")
            continue
        path = out / f"{name}.png"
        save(gallery([one.row for one in shown], title=title), path)
        console.print(f"{path}: {title}.", soft_wrap=True)


def simulated(model: Model, seed: int, count: int = 5) -> list[Shown]:
    """Bright enough galaxies over the range of redshifts, from images in five bands.

    The spectrum is asked for through an aperture of the simulator, where the truth is known.
    """
    batch, truth = simulate(64, seed=seed)
    galaxies = unbatch(batch, [f"simulated {row}" for row in range(len(batch))])
    return [_simulated(model, galaxies[row], batch, truth, row) for row in _spread(batch, count)]


def _spread(batch: Batch, count: int) -> list[int]:
    """Rows with images of the better half, spread over redshift."""
    flux, ivar = batch.images.flux[:, 2], batch.images.ivar[:, 2]
    signal = (flux.clamp(min=0) ** 2 * ivar).sum((1, 2))
    clear = (signal > signal.median()).nonzero()[:, 0]
    order = clear[batch.z[clear].argsort()]
    chosen = np.linspace(0, len(order) - 1, count).round()
    return [int(order[int(index)]) for index in chosen]


def _simulated(model: Model, galaxy: Galaxy, batch: Batch, truth: Truth, row: int) -> Shown:
    posterior = model.condition(
        replace(galaxy, spectra=(), photometry=(), scalars={}), draws=DRAWS
    )
    fibre = galaxy.spectra[0]
    pixels = slice(0, len(fibre.wavelength))
    draws = posterior.spectrum(
        fibre.wavelength * u.AA,
        fibre.aperture,
        resolution=fibre.wavelength / fibre.sigma / FWHM_PER_SIGMA,
    )
    given = ", ".join(_listed(posterior.galaxy))
    z = float(batch.z[row])
    place = fibre.aperture
    at = f"({place.dx:+.1f}, {place.dy:+.1f}) arcsec"
    title = f"{galaxy.id}: {place.diameter:g} arcsec at {at}, drawn from the images"
    flux = truth.spectrum_flux[row, 0, pixels].numpy()
    return Shown(Row(posterior, draws, title, z_true=z, truth=flux), given)


def real(model: Model, data: Path) -> list[Shown]:
    """What is there of the known files in a folder of real data."""
    spectra = [data / name for name in _SPECTRA if (data / name).is_file()]
    shown = own(model, spectra)
    for name, z in _HST_REDSHIFTS.items():
        paths = [data / _HST.format(name=name, band=band) for band, _, _ in _HST_BANDS]
        if all(path.is_file() for path in paths):
            galaxy = read_bands(
                paths,
                band=[band for _, band, _ in _HST_BANDS],
                zero_point=[zero_point for _, _, zero_point in _HST_BANDS],
                psf_fwhm=np.array([0.1, 0.1]) * u.arcsec,
                redshift=z,
                id=f"DEEP2 {name}",
            )
            shown.append(_any(model, galaxy))
    return shown


def own(model: Model, files: Sequence[Path]) -> list[Shown]:
    """The first galaxies (at most 8) of any files."""
    galaxies: Iterable[Galaxy] = stream(list(files)) if files else []
    return [_any(model, galaxy) for galaxy, _ in zip(galaxies, range(8), strict=False)]


def _any(model: Model, galaxy: Galaxy) -> Shown:
    """A galaxy without its redshift; of its spectrum every other piece is hidden."""
    kept = hide_redshift(galaxy)
    hidden: list[tuple[float, float]] = []
    measured = None
    aperture = Aperture.in_batch_units()
    resolution = 2000.0
    if galaxy.spectra:
        measured = galaxy.spectra[0]
        part, hidden = _half(measured)
        kept = replace(kept, spectra=(part,))
        aperture = measured.aperture
        widths = measured.wavelength / measured.sigma / FWHM_PER_SIGMA
        resolution = float(np.median(widths))
    posterior = model.condition(kept, draws=DRAWS)
    draws = posterior.spectrum(_GRID * u.AA, aperture, resolution=resolution)
    given = ", ".join(_listed(kept) + ["half the spectrum"] * bool(hidden))
    title = f"{galaxy.id}: " + ("shaded parts were hidden" if hidden else f"from {given}")
    row = Row(
        posterior, draws, title, z_true=galaxy.redshift, measured=measured, hidden=hidden
    )  # fmt: skip
    return Shown(row, given)


def _half(spectrum: Spectrum) -> tuple[Spectrum, list[tuple[float, float]]]:
    """The spectrum with every other piece of `_PIECE` Angstrom missing, and where."""
    number = ((spectrum.wavelength - spectrum.wavelength[0]) // _PIECE).astype(int)
    part = Spectrum.in_batch_units(
        spectrum.wavelength,
        spectrum.flux,
        ivar=np.where(number % 2 == 0, spectrum.ivar, 0.0),
        sigma=spectrum.sigma,
        aperture=spectrum.aperture,
        name=spectrum.name,
    )
    starts = spectrum.wavelength[0] + _PIECE * np.arange(1, number[-1] + 1, 2)
    return part, [(float(start), float(start + _PIECE)) for start in starts]


def _listed(galaxy: Galaxy) -> list[str]:
    """What a galaxy holds, bands of a survey together: `sdss u g r i z photometry`."""
    listed = []
    for kind, values in (("images", galaxy.images), ("photometry", galaxy.photometry)):
        bands: dict[str, list[str]] = {}
        for value in values:
            survey, _, name = value.band.partition("-")
            bands.setdefault(survey, []).append(name)
        listed += [f"{survey} {' '.join(names)} {kind}" for survey, names in bands.items()]
    return listed


def _cells(shown: Shown) -> list[str]:
    redshift: Any = shown.row.posterior.redshift
    low, high = redshift.interval(0.9)
    true = shown.row.z_true
    holds = "" if true is None else ("yes" if low <= true <= high else "no")
    return [
        shown.row.posterior.galaxy.id,
        shown.given,
        "" if true is None else f"{true:.4f}",
        f"{redshift.median:.4f}",
        f"{low:.4f} to {high:.4f}",
        holds,
    ]
