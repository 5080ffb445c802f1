"""What the rest of a galaxy would look like, with honest uncertainty.

One sentence carries the package: *a decoder is a module that, given a latent, returns the
distribution of one modality.* Data flow one way: files -> `Galaxy` -> batch -> tokens ->
context -> redshift and latent -> decoders -> `Posterior` -> calibration.

The public names below load on first use, so `import probmmae` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probmmae.formats import read
    from probmmae.galaxy import Aperture, BandImage, Galaxy, Photometry, Spectrum
    from probmmae.inference.posterior import Posterior
    from probmmae.loading import load
    from probmmae.simulator import simulate

__all__ = [
    "Aperture",
    "BandImage",
    "Galaxy",
    "Photometry",
    "Posterior",
    "Spectrum",
    "__version__",
    "load",
    "read",
    "simulate",
]

__version__ = "0.1.0"

_HOMES = {
    "Aperture": "probmmae.galaxy",
    "BandImage": "probmmae.galaxy",
    "Galaxy": "probmmae.galaxy",
    "Photometry": "probmmae.galaxy",
    "Posterior": "probmmae.inference.posterior",
    "Spectrum": "probmmae.galaxy",
    "load": "probmmae.loading",
    "read": "probmmae.formats",
    "simulate": "probmmae.simulator",
}


def _public(name: str) -> object:
    """The public object `name`, from the module that defines it.

    Raises:
        AttributeError: `name` is not one of the public names.
    """
    if name not in _HOMES:
        expected = ", ".join(__all__)
        raise AttributeError(
            f"Expected one of {expected}; got {name!r}. Import other names from their module."
        )
    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names beside what is loaded already."""
    return sorted({*globals(), *__all__})


# Hidden from type checkers, or they would take every misspelt name for a public one.
if not TYPE_CHECKING:
    __getattr__ = _public
