"""The border for units: what a Galaxy accepts, converts, and refuses."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from astropy import units as u
from hypothesis import given
from hypothesis import strategies as st

from probmmae.bands import EFFECTIVE_WAVELENGTH, band_name, effective_wavelength
from probmmae.galaxy import Aperture, BandImage, Galaxy, Photometry, Scalar, Spectrum
from probmmae.quantities import FLUX_DENSITY

N = 5
WAVE = np.linspace(4000.0, 5000.0, N) * u.AA


def image(**changes):
    arguments = {
        "band": "hsc-g",
        "flux": np.ones((3, 4)) * u.nmgy,
        "ivar": np.full((3, 4), 4.0) * u.nmgy**-2,
        "pixel_scale": 0.168 * u.arcsec,
        "psf_fwhm": 0.7 * u.arcsec,
    }
    return BandImage(**(arguments | changes))


def spectrum(**changes):
    arguments = {
        "wavelength": WAVE,
        "flux": np.ones(N) * FLUX_DENSITY,
        "ivar": np.ones(N) * FLUX_DENSITY**-2,
        "sigma": 1.0 * u.AA,
    }
    return Spectrum(**(arguments | changes))


def photometry(**changes):
    arguments = {"band": "sdss-r", "flux": 2.0 * u.nmgy, "ivar": 4.0 * u.nmgy**-2}
    return Photometry(**(arguments | changes))


def galaxy(**changes):
    return Galaxy(**({"id": "a"} | changes))


ERRORS = {
    "bare image flux": (image, {"flux": np.ones((3, 4))}, TypeError, "flux of the image 'hsc-g'"),
    "bare ivar": (image, {"ivar": np.ones((3, 4))}, TypeError, "Multiply it by its astropy unit"),
    "bare pixel scale": (image, {"pixel_scale": 0.168}, TypeError, "pixel scale .* in arcsec"),
    "bare centre": (image, {"centre": (0.0, 0.0)}, TypeError, "centre of the image"),
    "image in f_lambda": (
        image,
        {"flux": np.ones((3, 4)) * FLUX_DENSITY},
        u.UnitConversionError,
        "convertible to nmgy; got",
    ),
    "ivar in flux units": (
        image,
        {"ivar": np.ones((3, 4)) * u.nmgy},
        u.UnitConversionError,
        "square root of 1 / ivar",
    ),
    "PSF in metres": (image, {"psf_fwhm": 1.0 * u.m}, u.UnitConversionError, "PSF FWHM"),
    "shapes": (
        image,
        {"ivar": np.ones((4, 3)) * u.nmgy**-2},
        ValueError,
        r"\(3, 4\) and \(4, 3\)",
    ),
    "empty image": (
        image,
        {"flux": np.ones((0, 4)) * u.nmgy, "ivar": np.ones((0, 4)) * u.nmgy**-2},
        ValueError,
        "empty array",
    ),
    "cube for an image": (
        image,
        {"flux": np.ones((2, 3, 4)) * u.nmgy, "ivar": np.ones((2, 3, 4)) * u.nmgy**-2},
        ValueError,
        r"array \(y, x\)",
    ),
    "all missing": (
        image,
        {"ivar": np.zeros((3, 4)) * u.nmgy**-2},
        ValueError,
        "ivar > 0; got none. Leave out",
    ),
    "all NaN": (image, {"flux": np.full((3, 4), np.nan) * u.nmgy}, ValueError, "got none"),
    "negative ivar": (
        image,
        {"ivar": np.full((3, 4), -1.0) * u.nmgy**-2},
        ValueError,
        "ivar >= 0 .* got -1",
    ),
    "pixel scale 0": (image, {"pixel_scale": 0.0 * u.arcsec}, ValueError, "one positive finite"),
    "unknown band": (image, {"band": "hsc-q"}, ValueError, "known band .* got 'hsc-q'"),
    "no band": (image, {"band": ""}, TypeError, "band of an image as a non-empty string"),
    "negative wavelength": (
        spectrum,
        {"wavelength": WAVE - 4500 * u.AA},
        ValueError,
        "positive finite wavelengths",
    ),
    "decreasing": (spectrum, {"wavelength": WAVE[::-1]}, ValueError, "increasing wavelengths"),
    "repeated": (spectrum, {"wavelength": np.ones(N) * u.AA}, ValueError, "step of 0 Angstrom"),
    "NaN wavelength": (spectrum, {"wavelength": WAVE * np.nan}, ValueError, "Cut the padding"),
    "wavelength in seconds": (
        spectrum,
        {"wavelength": WAVE.value * u.s},
        u.UnitConversionError,
        "convertible to Angstrom; got s",
    ),
    "lengths": (spectrum, {"wavelength": WAVE[:-1]}, ValueError, "of equal length; got"),
    "empty spectrum": (
        spectrum,
        {"wavelength": [] * u.AA, "flux": [] * FLUX_DENSITY, "ivar": [] * FLUX_DENSITY**-2},
        ValueError,
        "at least one pixel",
    ),
    "no resolution": (spectrum, {"sigma": None}, ValueError, "got neither"),
    "both resolutions": (spectrum, {"resolution": 2000.0}, ValueError, "got both"),
    "resolution 0": (spectrum, {"sigma": None, "resolution": 0.0}, ValueError, "line-spread"),
    "resolution per arm": (
        spectrum,
        {"sigma": None, "resolution": 2000.0 * u.AA},
        u.UnitConversionError,
        "resolution of the spectrum",
    ),
    "bare sigma": (spectrum, {"sigma": 1.0}, TypeError, "line-spread width"),
    "wrong sigmas": (spectrum, {"sigma": np.ones(3) * u.AA}, ValueError, "one a pixel"),
    "aperture a tuple": (spectrum, {"aperture": (0, 0)}, TypeError, "as an Aperture; got tuple"),
    "spectrum in nmgy": (
        spectrum,
        {"flux": np.ones(N) * u.m},
        u.UnitConversionError,
        "the flux of the spectrum",
    ),
    "photometry array": (
        photometry,
        {"flux": np.ones(2) * u.nmgy, "ivar": np.ones(2) * u.nmgy**-2},
        ValueError,
        "one flux",
    ),
    "photometry missing": (photometry, {"ivar": 0.0 * u.nmgy**-2}, ValueError, "Leave out"),
    "bare aperture": (Aperture, {"dx": 1.0}, TypeError, "offset dx .* in arcsec"),
    "diameter 0": (Aperture, {"diameter": 0 * u.arcsec}, ValueError, "diameter"),
    "scalar NaN": (Scalar, {"value": np.nan}, ValueError, "Leave an unknown scalar out"),
    "scalar error": (Scalar, {"value": 1.0, "error": -1.0}, ValueError, "error >= 0"),
    "no id": (galaxy, {"id": ""}, TypeError, "id of a galaxy"),
    "bare ra": (galaxy, {"ra": 10.0, "dec": 1.0}, TypeError, "ra of galaxy 'a' as a Quantity"),
    "ra alone": (galaxy, {"ra": 10.0 * u.deg}, ValueError, "both ra and dec"),
    "dec 100": (galaxy, {"ra": 1 * u.deg, "dec": 100 * u.deg}, ValueError, "between -90 and 90"),
    "array for an image": (galaxy, {"images": (np.ones((3, 3)),)}, TypeError, "got ndarray"),
    "band twice": (galaxy, {"photometry": (photometry(),) * 2}, ValueError, "sdss-r more than"),
    "bare scalar": (galaxy, {"scalars": {"redshift": 0.1}}, TypeError, r"Scalar\(value, error\)"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_refused_is_said(case):
    build, changes, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message) as raised:
        build(**changes)
    text = str(raised.value)
    assert text.startswith("Expected ")
    assert "; got " in text
    assert text.endswith(".")


def test_nan_and_infinite_pixels_are_missing():
    flux = np.ones((2, 3))
    ivar = np.full((2, 3), 4.0)
    flux[0, 0], flux[0, 1], ivar[0, 2], ivar[1, 0], ivar[1, 1] = np.nan, np.inf, np.nan, np.inf, 0
    found = image(flux=flux * u.nmgy, ivar=ivar * u.nmgy**-2)
    assert np.array_equal(found.ivar, [[0, 0, 0], [0, 0, 4]])
    assert np.array_equal(found.flux, [[0, 0, 0], [0, 0, 1]])


@given(flux=st.floats(-1e4, 1e4), sigma=st.floats(1e-3, 1e3))
def test_photometry_means_the_same_in_every_unit(flux, sigma):
    """A nanomaggie is 3.631 microjansky."""
    ours = photometry(flux=flux * u.nmgy, ivar=sigma**-2 * u.nmgy**-2)
    for unit, factor in [(u.uJy, 3.631), (u.Jy, 3.631e-6), (u.maggy, 1e-9)]:
        theirs = photometry(flux=flux * factor * unit, ivar=(sigma * factor * unit) ** -2)
        assert theirs.flux == pytest.approx(ours.flux, rel=1e-6)
        assert theirs.ivar == pytest.approx(ours.ivar, rel=1e-6)


def test_spectrum_means_the_same_in_every_unit():
    ours = spectrum(resolution=2000.0, sigma=None)
    per_hertz = (np.ones(N) * FLUX_DENSITY).to(u.uJy, u.spectral_density(WAVE))
    theirs = spectrum(
        wavelength=WAVE.to(u.um),
        flux=per_hertz,
        ivar=per_hertz**-2,
        sigma=None,
        resolution=np.full(N, 2000.0) * u.dimensionless_unscaled,
    )
    assert np.allclose(theirs.wavelength, ours.wavelength, rtol=1e-12)
    assert np.allclose(theirs.flux, 1.0, rtol=1e-6)
    assert np.allclose(theirs.ivar, 1.0, rtol=1e-6)
    assert np.allclose(theirs.sigma, ours.sigma)
    # R is wavelength over FWHM.
    assert np.allclose(ours.sigma * 2.354820 * 2000.0, WAVE.value)


def test_in_batch_units_is_the_same_object_without_the_units():
    ours = image(centre=(1.0 * u.arcsec, -0.5 * u.arcsec))
    theirs = BandImage.in_batch_units(
        "hsc-g",
        np.ones((3, 4)),
        ivar=np.full((3, 4), 4.0),
        pixel_scale=0.168,
        psf_fwhm=0.7,
        centre=(1.0, -0.5),
    )
    for name in ["band", "pixel_scale", "psf_fwhm", "wavelength", "centre"]:
        assert getattr(theirs, name) == getattr(ours, name)
    assert np.array_equal(theirs.flux, ours.flux)
    assert np.array_equal(theirs.ivar, ours.ivar)
    with pytest.raises(ValueError, match="ivar > 0; got none"):
        BandImage.in_batch_units("hsc-g", [[1.0]], ivar=[[0.0]], pixel_scale=1, psf_fwhm=1)
    assert Aperture() == Aperture.in_batch_units(0.0, 0.0, diameter=1.5, seeing=1.0)


def test_what_is_kept_cannot_change():
    flux = np.ones((3, 4))
    kept = image(flux=flux * u.nmgy)
    flux[:] = 7.0
    assert np.all(kept.flux == 1.0)
    with pytest.raises(ValueError, match="read-only"):
        kept.flux[0, 0] = 2.0
    with pytest.raises(FrozenInstanceError):
        kept.band = "hsc-r"
    with pytest.raises(TypeError):
        galaxy(scalars={"redshift": Scalar(0.1)}).scalars["redshift"] = Scalar(0.2)


def test_galaxy_without_a_modality_keeps_the_rest():
    whole = galaxy(
        ra=-10 * u.deg,
        dec=5 * u.deg,
        images=[image()],
        spectra=[spectrum()],
        photometry=[photometry()],
        scalars={"redshift": Scalar(0.25, 1e-4)},
        labels={"class": "GALAXY"},
    )
    assert whole.redshift == 0.25
    assert galaxy().redshift is None
    without = replace(whole, spectra=(), scalars={})
    assert without.spectra == ()
    assert without.redshift is None
    assert without.images == whole.images
    assert without.ra == 350 * u.deg


def test_description_states_what_there_is():
    text = str(
        galaxy(
            ra=10 * u.deg,
            dec=5 * u.deg,
            images=[image()],
            spectra=[spectrum()],
            photometry=[photometry()],
            scalars={"redshift": Scalar(0.25, 1e-4)},
        )
    )
    for part in [
        "galaxy a at (10.00000, +5.00000) deg",
        "4 x 3 pixels of 0.168 arcsec, PSF 0.70 arcsec, 4844 Angstrom, sum 12 nanomaggies",
        "sdss-r: 2 +/- 0.5 nanomaggies",
        "4000-5000 Angstrom, 5 pixels",
        "fibre 1.5 arcsec at (+0.00, +0.00) arcsec",
        "redshift: 0.25 +/- 0.0001",
    ]:
        assert part in text


@pytest.mark.parametrize(
    ("band", "curve"),
    [
        ("hsc-g", "hsc2017-g"),
        ("hsc-y", "hsc2017-y"),
        ("sdss-u", "sdss2010-u"),
        ("decam-z", "decamDR1-z"),
        ("bass-r", "BASS-r"),
        ("mzls-z", "MzLS-z"),
        ("lsst-i", "lsst2023-i"),
        ("bessell-v", "bessell-V"),
    ],
)
def test_effective_wavelength_is_that_of_the_curve(band, curve):
    filters = pytest.importorskip("speclite.filters")
    curve_wavelength = filters.load_filter(curve).effective_wavelength.to_value(u.AA)
    assert effective_wavelength(band) == pytest.approx(curve_wavelength, abs=1.0)


def test_bands_go_by_one_name():
    assert all(name == name.lower() for name in EFFECTIVE_WAVELENGTH)
    assert band_name("ACS", " F606W ") == "hst-f606w"
    assert effective_wavelength("HSC2017-G") == effective_wavelength("hsc-g")
