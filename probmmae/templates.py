"""The rest-frame spectra that everything is made of: from `data/templates.npz` to tensors.

A galaxy's continuum is a weighted sum of a few dozen curves and its lines are a list of fluxes.
The same file holds the nodes from which the simulator builds populations: the weights of single
stellar populations, with dust, and of the gas around the young ones.

Axes: basis, wave (rest-frame grid), line, metallicity, age, av (dust), u (ionisation), young (ages
that ionise gas).
"""

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Templates:
    """Continuum curves and lines, and the population nodes in terms of them."""

    step: float
    """Step of ln(wavelength)."""
    template_sigma: float
    """Gaussian width that the curves already carry, km/s."""
    line_name: tuple[str, ...]
    """Names, in the order of `line_wavelength`."""
    wavelength: Float[Tensor, " wave"]
    """Rest vacuum wavelength of the curves, Angstrom, uniform in its logarithm."""
    continuum: Float[Tensor, "basis wave"]
    """Curves whose weights are of order 1 for a spectrum of unit mean flux."""
    line_wavelength: Float[Tensor, " line"]
    """Rest vacuum wavelength, Angstrom."""
    age: Float[Tensor, " age"]
    """Middle of each age bin, years."""
    age_edges: Float[Tensor, " edge"]
    """Borders of the age bins, years."""
    metallicity: Float[Tensor, " metallicity"]
    """Solar units (0.02)."""
    dust_av: Float[Tensor, " av"]
    """Magnitudes in V; ages under 10 Myr and gas suffer 1.75 times that."""
    log_u: Float[Tensor, " u"]
    """Decimal logarithm of the ionisation parameter."""
    stellar_continuum: Float[Tensor, "metallicity age av basis"]
    """Weights that give Lsun/Angstrom per solar mass formed."""
    nebular_continuum: Float[Tensor, "metallicity u young av basis"]
    """The same of the gas around the youngest bins."""
    nebular_line: Float[Tensor, "metallicity u young av line"]
    """Lsun per solar mass formed."""

    def to(self, device: torch.device | str) -> Self:
        """Every tensor on `device`."""
        moved: dict[str, Any] = {
            field.name: getattr(self, field.name).to(device)
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def line(self, name: str) -> int:
        """The position of a line.

        Raises:
            ValueError: No line has this name.
        """
        if name not in self.line_name:
            expected = ", ".join(self.line_name)
            raise ValueError(f"Expected one of {expected}; got {name!r}. Choose one of these.")
        return self.line_name.index(name)


@lru_cache(maxsize=1)
def load_templates() -> Templates:
    """The templates that ship with the package, read once.

    Example:
        >>> templates = load_templates()
        >>> bool(abs(templates.line_wavelength[templates.line("H-alpha")] - 6564.61) < 0.02)
        True
    """
    resource = files("probmmae") / "data" / "templates.npz"
    with resource.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    start, step = float(arrays.pop("start")), float(arrays.pop("step"))
    grid = start * np.exp(step * np.arange(arrays["continuum"].shape[1]))
    names = tuple(str(name) for name in arrays.pop("line_name"))
    sigma = float(arrays.pop("template_sigma"))
    return Templates(
        step=step,
        template_sigma=sigma,
        line_name=names,
        wavelength=torch.from_numpy(grid.astype(np.float32)),
        **{name: torch.from_numpy(array) for name, array in arrays.items()},
    )
