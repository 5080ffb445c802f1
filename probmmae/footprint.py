"""Where on galaxies the apertures of training lay: what a model can have learned of positions.

A model that was trained on fibres at the centre says something of the outskirts too, and it is
wrong there; so a checkpoint records how far out its apertures lay, and a cube marks the spaxels
beyond. And what draws at two positions share can only have been learned from galaxies that were
seen at two.

Radii are half-light radii as images show them: of the growth of light in circles, less the
point-spread function in quadrature.

Axes: spaxel, y, x.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float

from probmmae.galaxy import Galaxy
from probmmae.measurements import BandImage

_SHARE = 0.99
"""Of the apertures lie within the recorded distance."""
_APART = 0.5
"""arcsec: apertures closer than this are one position."""
_RED = 6200.0
"""Angstrom: the half-light radius is that of the band closest to it."""


@dataclass(frozen=True)
class Footprint:
    """How far from the centre the middles of the apertures lay, and how many a galaxy had."""

    arcsec: float
    radii: float | None
    """In half-light radii; None where no galaxy had an image."""
    positions: int
    """Of one galaxy, more than half an arcsec apart: the most that there were."""

    @property
    def joint(self) -> bool:
        """Whether how positions vary together can have been learned."""
        return self.positions >= 2

    def beyond(
        self, aperture: Float[np.ndarray, "spaxel 4"], half_light: float | None
    ) -> Bool[np.ndarray, " spaxel"]:
        """Apertures of which no part lies where the middles of those of training lay.

        Args:
            aperture: dx, dy, diameter, seeing, arcsec.
            half_light: Radius of the galaxy, arcsec, if it is known.
        """
        reach = self.arcsec
        if self.radii is not None and half_light is not None:
            reach = min(reach, self.radii * half_light)
        x, y, diameter, _ = aperture.T
        return np.asarray(np.hypot(x, y) - diameter / 2 > reach)

    def joined(self, other: "Footprint | None") -> "Footprint":
        """What a model has seen that was trained on both."""
        if other is None:
            return self
        radii = [each for each in (self.radii, other.radii) if each is not None]
        return Footprint(
            max(self.arcsec, other.arcsec),
            max(radii, default=None),
            max(self.positions, other.positions),
        )

    def describe(self) -> str:
        """In words."""
        radii = "" if self.radii is None else f" and {self.radii:.3g} half-light radii"
        return (
            f"training apertures lay within {self.arcsec:.3g} arcsec{radii} of the centre, "
            f"up to {self.positions} a galaxy"
        )

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint's JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any] | None) -> Self | None:
        """As a checkpoint's JSON has it; None where it has none.

        Raises:
            ValueError: Something else.
        """
        if content is None:
            return None
        try:
            radii = content["radii"]
            return cls(
                float(content["arcsec"]), None if radii is None else float(radii),
                int(content["positions"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Expected a footprint with arcsec, radii and positions; got {content!r}. "
                "The checkpoint is damaged."
            ) from error


def measured(galaxies: Iterable[Galaxy]) -> Footprint | None:
    """The footprint of the spectra of some galaxies: 99 % lie within it.

    None where not one has a spectrum.
    """
    far: list[float] = []
    relative: list[float] = []
    most = 0
    for galaxy in galaxies:
        places = [(each.aperture.dx, each.aperture.dy) for each in galaxy.spectra]
        away = [math.hypot(*place) for place in places]
        far += away
        radius = half_light_radius(galaxy)
        if radius is not None:
            relative += [each / radius for each in away]
        most = max(most, _distinct(places))
    if not far:
        return None
    return Footprint(
        float(np.quantile(far, _SHARE)),
        float(np.quantile(relative, _SHARE)) if relative else None,
        most,
    )


def _distinct(places: list[tuple[float, float]]) -> int:
    found: list[tuple[float, float]] = []
    for place in places:
        if all(math.dist(place, other) > _APART for other in found):
            found.append(place)
    return len(found)


def half_light_radius(galaxy: Galaxy) -> float | None:
    """Of the galaxy's reddish image, arcsec, the point-spread function taken out.

    What is not resolved is taken as a quarter of its FWHM. None without an image that has light.
    """
    for image in sorted(galaxy.images, key=lambda each: abs(each.wavelength - _RED)):
        observed = _half_light(image)
        if observed is not None:
            # The half-light radius of a Gaussian is half its FWHM.
            square = observed**2 - (image.psf_fwhm / 2) ** 2
            return math.sqrt(max(square, (image.psf_fwhm / 4) ** 2))
    return None


def _half_light(image: BandImage) -> float | None:
    """Radius at which circles around the galaxy hold half of the most that any holds."""
    good = image.ivar > 0
    y, x = np.indices(image.flux.shape)
    height, width = image.flux.shape
    away = np.hypot(
        image.centre[0] + (x - (width - 1) / 2) * image.pixel_scale,
        image.centre[1] + (y - (height - 1) / 2) * image.pixel_scale,
    )[good]
    order = np.argsort(away)
    growth = np.cumsum(image.flux[good][order])
    if growth.size == 0 or growth.max() <= 0:
        return None
    return float(away[order][np.argmax(growth >= growth.max() / 2)])
