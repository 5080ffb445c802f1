"""Galaxies with spectra to a file of exact posteriors: weights first, NUTS where they fail.

The file is ArviZ's. Group `posterior` holds redshift (chain, draw, galaxy); `posterior_predictive`
flux (chain, draw, galaxy, wavelength) through the aperture of each galaxy's first spectrum;
`refinement` how each was inferred: method, Pareto k of the amortised draws, ln of the evidence
with its error, number of modes and, where NUTS ran, R-hat, effective draws and divergences (NaN
where it did not); `constant_data` the aperture, the redshift that was taken as known (NaN where
none was) and what repair did.

Axes: galaxy, draw, wavelength.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u

from probmmae.galaxy import Galaxy
from probmmae.inference.exact import Exact, exact_posterior
from probmmae.inference.growing import whole_file
from probmmae.inference.posterior import (
    FLUX_ATTRIBUTES,
    WAVELENGTH_ATTRIBUTES,
    Model,
    SpectrumDraws,
)

if TYPE_CHECKING:
    import xarray

_PLACE = ("dx", "dy", "diameter", "seeing")
"""Of an aperture, arcsec."""


def refine(
    model: Model,
    galaxies: Iterable[Galaxy],
    path: Path,
    *,
    wavelength: Any,
    draws: int = 200,
    seed: int = 0,
    use_redshift: bool = True,
    watch: Callable[[Exact], None] | None = None,
) -> int:
    """Infer every galaxy from its spectra, exactly, and write the file.

    Args:
        model: The trained model.
        galaxies: Consumed once. Those without a spectrum, or with nothing else, are left out.
        path: netCDF file to write.
        wavelength: Of the spectra that are drawn, a Quantity of shape (wavelength,).
        draws: Draws per galaxy.
        seed: Of all that is random.
        use_redshift: Whether a redshift that a galaxy carries counts as known.
        watch: Told of every galaxy that is done.

    Returns:
        How many galaxies were left out.

    Raises:
        ValueError: No galaxy has a spectrum and something else.

    Warns:
        UserWarning: The chains of a galaxy disagree.
    """
    rows: list[dict[str, Any]] = []
    left_out = 0
    with whole_file(path) as partial:
        for galaxy in galaxies:
            if not galaxy.spectra or not (galaxy.images or galaxy.photometry):
                left_out += 1
                continue
            one = exact_posterior(model, galaxy, draws=draws, seed=seed, use_redshift=use_redshift)
            rows.append(_row(one, one.posterior.spectrum(wavelength, galaxy.spectra[0].aperture)))
            if watch is not None:
                watch(one)
        if not rows:
            raise ValueError(
                f"Expected a galaxy with a spectrum and with images or photometry; got none of "
                f"{left_out}. Add what it lacks: here a spectrum is weighed against what images "
                "or photometry say (probmmae info says what a file holds)."
            )
        _tree(rows, wavelength.to_value(u.AA)).to_netcdf(partial, engine="h5netcdf")
    return left_out


def _row(one: Exact, spectrum: SpectrumDraws) -> dict[str, Any]:
    """What the file holds of a galaxy."""
    known = one.posterior.redshift.known
    return {
        "galaxy": one.posterior.galaxy.id,
        "redshift": spectrum.z,
        "flux": spectrum.flux.value.astype(np.float32),
        "told": _told(one),
        "constant": {
            **{name: getattr(spectrum.aperture, name) for name in _PLACE},
            "redshift_given": np.nan if known is None else known,
            "repair": spectrum.repair,
        },
    }


def _told(one: Exact) -> dict[str, Any]:
    """How a galaxy was inferred; of its chains the worst mode."""
    chains = [] if one.modes is None else [mode.chains for mode in one.modes.modes]
    return {
        "method": one.method,
        "pareto_k": one.pareto_k,
        "log_evidence": one.log_evidence,
        "log_evidence_error": one.log_evidence_error,
        "modes": len(chains),
        "r_hat": max((part.r_hat for part in chains), default=np.nan),
        "effective": min((part.effective for part in chains), default=np.nan),
        "divergences": sum(part.diverging.sum() for part in chains) if chains else np.nan,
    }


def _tree(rows: list[dict[str, Any]], wavelength: np.ndarray) -> "xarray.DataTree":
    import xarray

    names = {"galaxy": [row["galaxy"] for row in rows]}
    steps = {"chain": [0], "draw": np.arange(len(rows[0]["redshift"])), **names}
    axes = ("chain", "draw", "galaxy")
    z, flux = (
        np.stack([row[name] for row in rows], axis=1)[None] for name in ("redshift", "flux")
    )
    told = {name: ("galaxy", [row["told"][name] for row in rows]) for name in rows[0]["told"]}
    constant = {
        name: ("galaxy", [row["constant"][name] for row in rows],
               {"units": "arcsec"} if name in _PLACE else {})
        for name in rows[0]["constant"]
    }  # fmt: skip
    tree = xarray.DataTree.from_dict(
        {
            "/posterior": xarray.Dataset(
                {"redshift": (axes, z, {"long_name": "redshift"})}, coords=steps
            ),
            "/posterior_predictive": xarray.Dataset(
                {"flux": ((*axes, "wavelength"), flux, FLUX_ATTRIBUTES)},
                coords={**steps, "wavelength": ("wavelength", wavelength, WAVELENGTH_ATTRIBUTES)},
            ),
            "/refinement": xarray.Dataset(told, coords=names),
            "/constant_data": xarray.Dataset(constant, coords=names),
        }
    )
    tree.attrs = {"inference_library": "probmmae"}
    return tree
