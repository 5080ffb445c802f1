"""Broadband filters by name: where a band lies, so that an image need only say which one it is.

A band is called `survey-filter`, such as `hsc-g` or `decam-z`; the model sees nothing but the
effective wavelength.
"""

from typing import Final

#: Effective (photon-weighted) vacuum wavelengths for a flat f_nu source, Angstrom. From the curves
#: of speclite: hsc2017, sdss2010, decamDR1, BASS, MzLS, lsst2023, panstarrs, cfht_megacam, galex,
#: twomass, wise2010, Euclid. HST, JWST: pivot wavelengths of the instrument handbooks. VST/VISTA
#: (KiDS): pivot wavelengths of the surveys' papers. Johnson-Cousins: speclite's bessell.
EFFECTIVE_WAVELENGTH: Final[dict[str, float]] = {
    "hsc-g": 4843.7,
    "hsc-r": 6258.7,
    "hsc-i": 7773.8,
    "hsc-z": 8912.4,
    "hsc-y": 9786.9,
    "sdss-u": 3614.4,
    "sdss-g": 4749.2,
    "sdss-r": 6205.8,
    "sdss-i": 7525.6,
    "sdss-z": 8947.4,
    "decam-u": 3964.7,
    "decam-g": 4862.3,
    "decam-r": 6460.6,
    "decam-i": 7850.8,
    "decam-z": 9199.3,
    "decam-y": 9906.8,
    "bass-g": 4816.0,
    "bass-r": 6437.8,
    "mzls-z": 9229.7,
    "lsst-u": 3745.7,
    "lsst-g": 4846.2,
    "lsst-r": 6249.0,
    "lsst-i": 7579.0,
    "lsst-z": 8691.1,
    "lsst-y": 9766.9,
    "panstarrs-g": 4900.1,
    "panstarrs-r": 6241.3,
    "panstarrs-i": 7563.8,
    "panstarrs-z": 8690.1,
    "panstarrs-y": 9644.6,
    "cfht-u": 3817.7,
    "cfht-g": 4824.0,
    "cfht-r": 6425.5,
    "cfht-i": 7721.1,
    "cfht-z": 9004.8,
    "kids-u": 3590.0,
    "kids-g": 4804.0,
    "kids-r": 6252.0,
    "kids-i": 7687.0,
    "bessell-u": 3618.4,
    "bessell-b": 4442.2,
    "bessell-v": 5536.1,
    "bessell-r": 6648.3,
    "bessell-i": 8086.4,
    "galex-fuv": 1546.9,
    "galex-nuv": 2342.7,
    "twomass-j": 12408.0,
    "twomass-h": 16513.7,
    "twomass-ks": 21656.2,
    "wise-w1": 34002.5,
    "wise-w2": 46520.1,
    "euclid-vis": 7506.4,
    "euclid-y": 10890.1,
    "euclid-j": 13791.3,
    "euclid-h": 17859.7,
    "hst-f300w": 2994.0,
    "hst-f435w": 4330.0,
    "hst-f450w": 4557.0,
    "hst-f475w": 4747.0,
    "hst-f606w": 5921.0,
    "hst-f775w": 7693.0,
    "hst-f814w": 8047.0,
    "hst-f850lp": 9033.0,
    "hst-f105w": 10551.0,
    "hst-f125w": 12486.0,
    "hst-f140w": 13923.0,
    "hst-f160w": 15369.0,
    "jwst-f090w": 9022.0,
    "jwst-f115w": 11543.0,
    "jwst-f150w": 15007.0,
    "jwst-f200w": 19886.0,
    "jwst-f277w": 27617.0,
    "jwst-f356w": 35684.0,
    "jwst-f410m": 40822.0,
    "jwst-f444w": 44043.0,
}

#: What other files call our surveys.
_SURVEY_ALIASES: Final[dict[str, str]] = {
    "hsc2017": "hsc",
    "sdss2010": "sdss",
    "decamdr1": "decam",
    "decam2014": "decam",
    "des": "decam",
    "legacysurvey": "decam",
    "lsst2023": "lsst",
    "acs": "hst",
    "wfc3": "hst",
    "wfpc2": "hst",
    "nircam": "jwst",
}


def band_name(survey: str, filter_name: str) -> str:
    """The name of a filter of a survey in the table: `("ACS", "F606W")` is `"hst-f606w"`.

    Example:
        >>> band_name("hsc2017", "G")
        'hsc-g'
    """
    survey = survey.strip().lower()
    return f"{_SURVEY_ALIASES.get(survey, survey)}-{filter_name.strip().lower()}"


def effective_wavelength(band: str) -> float:
    """Effective wavelength of a known band, Angstrom (vacuum).

    Raises:
        ValueError: the band is not in the table.

    Example:
        >>> effective_wavelength("hsc-i")
        7773.8
    """
    survey, _, name = band.partition("-")
    wavelength = EFFECTIVE_WAVELENGTH.get(band_name(survey, name))
    if wavelength is None:
        known = ", ".join(sorted(EFFECTIVE_WAVELENGTH))
        raise ValueError(
            f"Expected a known band ({known}); got {band!r}. "
            "Name one of them, or give the effective wavelength of the band."
        )
    return wavelength
