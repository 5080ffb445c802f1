"""Image cutouts: flux scale, noise, and which way is north."""

import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.wcs import WCS

from probmmae.collate import collate
from probmmae.formats import read, recognise
from probmmae.formats.frames import edge_noise, oriented

RA, DEC = 150.0, 40.0
SCALE = 0.2


def wcs_header(shape, *, angle=0.0, flip_x=True, flip_y=False, scale=SCALE):
    """A tangent plane whose middle is (RA, DEC); angle in degrees; x grows to the west."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [RA, DEC]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    flips = np.diag([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0])
    wcs.wcs.cd = np.array([[c, -s], [s, c]]) @ flips * scale / 3600.0
    return wcs.to_header()


def sky(shape, *, sigma=0.1, seed=0):
    return np.random.default_rng(seed).normal(0.0, sigma, shape).astype(np.float32)


def write(path, flux, *, header=None, extensions=(), wcs=None):
    """A file with one image in its first HDU, and what comes with it."""
    primary = fits.PrimaryHDU(flux, header=wcs or wcs_header(np.shape(flux)[-2:]))
    primary.header.update({"INSTRUME": "HSC", "FILTER": "HSC-G", "PSF_FWHM": 0.7} | (header or {}))
    fits.HDUList([primary, *(fits.ImageHDU(v, name=k) for k, v in extensions)]).writeto(path)
    return path


def with_noise(path, flux, **arguments):
    """The same, with an inverse variance of 1, so that nothing has to be guessed."""
    return write(path, flux, extensions=[("INVVAR", np.ones(np.shape(flux)))], **arguments)


@pytest.mark.parametrize(
    ("header", "nanomaggies"),
    [
        ({"BUNIT": "nanomaggy"}, 1.0),
        ({"BUNIT": "nmgy"}, 1.0),
        ({"SURVEY": "LegacySurvey", "FILTER": "g"}, 1.0),
        ({"FLUXMAG0": 10 ** (0.4 * 27.0)}, 10 ** (-0.4 * 4.5)),
        ({"MAGZERO": 25.0}, 0.1),
        ({"BUNIT": "uJy"}, 1 / 3.631),
        ({"BUNIT": "nJy"}, 1 / 3631.0),
        ({"BUNIT": "MJy/sr"}, (SCALE / 206264.806) ** 2 * 1e6 / 3631e-9),
        # ACS F814W: AB zero point 25.95 for electrons per second.
        (
            {"BUNIT": "ELECTRONS/S", "PHOTFLAM": 7.0724e-20, "PHOTPLAM": 8045.0},
            10 ** (-0.4 * (25.940 - 22.5)),
        ),
        (
            {"BUNIT": "ELECTRONS", "PHOTFLAM": 7.0724e-20, "PHOTPLAM": 8045.0, "EXPTIME": 100.0},
            10 ** (-0.4 * (25.940 + 5.0 - 22.5)),
        ),
    ],
)
def test_flux_scale_is_read_from_the_header(tmp_path, header, nanomaggies):
    (galaxy,) = read(with_noise(tmp_path / "a.fits", np.ones((20, 20)), header=header))
    (image,) = galaxy.images
    assert image.flux[3, 3] == pytest.approx(nanomaggies, rel=2e-3)
    assert image.ivar[3, 3] == pytest.approx(nanomaggies**-2, rel=4e-3)


def test_trap_hsc_counts_are_27_mag_and_its_mask_covers_the_galaxy(tmp_path):
    mask = np.full((20, 20), 1 << 5)  # DETECTED everywhere
    mask[2, 3] |= 1 << 8
    path = tmp_path / "hsc.fits"
    header = wcs_header((20, 20), flip_x=False)
    image = fits.ImageHDU(np.full((20, 20), 63.0957), header=header, name="IMAGE")
    planes = fits.ImageHDU(mask, name="MASK")
    planes.header["HIERARCH MP_DETECTED"], planes.header["HIERARCH MP_NO_DATA"] = 5, 8
    variance = fits.ImageHDU(np.full((20, 20), 63.0957**2), name="VARIANCE")
    fits.HDUList([fits.PrimaryHDU(), image, planes, variance]).writeto(path)
    assert recognise(path) == "cutouts"
    (galaxy,) = read(path, band="hsc-i", psf_fwhm=0.6 * u.arcsec)
    (found,) = galaxy.images
    assert found.flux[0, 0] == pytest.approx(1.0, rel=1e-4)
    assert np.argwhere(found.ivar == 0).tolist() == [[2, 3]]
    assert found.ivar[0, 0] == pytest.approx(1.0, rel=1e-4)


def test_real_hsc_scene(shared_data, tmp_path):
    """Its pixels, in HSC's own layout, have colours and noise of a real sky."""
    with np.load(shared_data / "images" / "hsc_cosmos_35.npz", allow_pickle=True) as scene:
        images, variance = scene["images"], scene["variance"]
    paths = []
    for letter, flux, noise in zip("grizy", images, variance, strict=True):
        header = wcs_header(flux.shape, scale=0.168)
        hdus = [
            fits.PrimaryHDU(),
            fits.ImageHDU(flux, header=header, name="IMAGE"),
            fits.ImageHDU(np.zeros(flux.shape, np.int32), name="MASK"),
            fits.ImageHDU(noise, name="VARIANCE"),
        ]
        hdus[0].header.update(
            {"INSTRUME": "HSC", "FILTER": f"HSC-{letter.upper()}", "SEEING": 0.7}
        )
        paths.append(tmp_path / f"{letter}.fits")
        fits.HDUList(hdus).writeto(paths[-1])
    (galaxy,) = read(paths)
    assert [image.band for image in galaxy.images] == [f"hsc-{letter}" for letter in "grizy"]
    for image, flux in zip(galaxy.images, images, strict=True):
        total = flux.sum(dtype=np.float64) / 63.0957
        assert image.flux.sum(dtype=np.float64) == pytest.approx(total, rel=1e-3)
    images = collate([galaxy]).images
    assert images.flux.shape == (1, 5, 48, 48)
    assert images.pixel_scale.item() == pytest.approx(0.168, rel=1e-4)


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, -90.0, 37.0])
@pytest.mark.parametrize(("flip_x", "flip_y"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("shape", [(60, 61), (60, 90)])
def test_light_keeps_its_place_on_the_sky(tmp_path, angle, flip_x, flip_y, shape):
    """One bright pixel, through flips and turns, is where the WCS says, to a pixel."""
    flux = np.zeros(shape)
    flux[22, 41] = 100.0
    header = wcs_header(shape, angle=angle, flip_x=flip_x, flip_y=flip_y)
    ra, dec = WCS(header).all_pix2world(41, 22, 0)
    expected = ((ra - RA) * np.cos(np.radians(DEC)) * 3600, (dec - DEC) * 3600)
    frame = oriented(flux, np.ones(shape), WCS(header), name="test")
    y, x = np.unravel_index(frame.flux.argmax(), frame.flux.shape)
    height, width = frame.flux.shape
    found = ((x - (width - 1) / 2) * SCALE, (y - (height - 1) / 2) * SCALE)
    assert np.allclose(found, expected, atol=0.72 * SCALE)
    assert frame.ra == pytest.approx(RA)
    assert frame.pixel_scale == pytest.approx(SCALE)
    aligned = angle % 90 == 0
    assert np.sum(frame.ivar > 0) == pytest.approx(flux.size, rel=0 if aligned else 0.01)


def test_galaxy_off_the_middle_of_its_frame(tmp_path):
    path = with_noise(tmp_path / "a.fits", np.ones((30, 30)), header={"BUNIT": "nmgy"})
    (galaxy,) = read(path, ra=(RA + 1 / 3600) * u.deg, dec=(DEC - 2 / 3600) * u.deg)
    dx, dy = galaxy.images[0].centre
    assert dx == pytest.approx(-np.cos(np.radians(DEC)), abs=1e-3)
    assert dy == pytest.approx(2.0, abs=1e-3)


def test_unknown_noise_is_estimated_and_said(tmp_path):
    """sigma of 4,000 edge pixels by the MAD: 10 % is 6 of its standard errors."""
    flux = sky((100, 100), sigma=0.3)
    flux[40:60, 40:60] += 50.0
    path = write(tmp_path / "a.fits", flux, header={"BUNIT": "nmgy"})
    with pytest.warns(UserWarning, match=r"noise is estimated from the edge .*\(hsc-g\)"):
        (galaxy,) = read(path)
    assert galaxy.images[0].ivar[50, 50] == pytest.approx(0.3**-2, rel=0.2)


def test_edge_noise_is_robust_to_a_bright_neighbour():
    flux = sky((100, 100))
    flux[:8, 20:60] += 30.0
    assert edge_noise(flux) == pytest.approx(0.1, rel=0.1)
    assert edge_noise(np.zeros((20, 20))) == 0.0


def test_relative_weights_are_scaled_to_the_noise(tmp_path):
    weight = np.full((100, 100), 100.0)
    weight[:, 50:] = 400.0
    flux = sky((100, 100), sigma=1.0) / np.sqrt(weight)
    weight[0, 0] = 0.0
    path = write(tmp_path / "a.fits", flux, header={"BUNIT": "nmgy"}, extensions=[("WHT", weight)])
    (image,) = read(path)[0].images
    assert image.ivar[50, 10] == pytest.approx(400.0, rel=0.2)
    assert image.ivar[50, 90] == pytest.approx(100.0, rel=0.2)
    assert image.ivar[0, -1] == 0.0


REFUSED = {
    "flux scale": ({"BUNIT": "COUNTS"}, {}, r"flux scale of .*; got BUNIT 'COUNTS'.*zero_point"),
    "band": ({"BUNIT": "nmgy", "FILTER": "Q"}, {}, "tell the band .*; got .'Q'. of .'HSC'."),
    "psf": (
        {"BUNIT": "nmgy", "PSF_FWHM": 0.0},
        {"band": "bessell-v"},
        "PSF of bessell-v in the header",
    ),
    "bare psf": ({"BUNIT": "nmgy"}, {"psf_fwhm": 0.7}, "psf_fwhm as a Quantity in arcsec"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_said_is_asked_for(tmp_path, case):
    header, options, message = REFUSED[case]
    path = with_noise(tmp_path / "a.fits", np.ones((20, 20)), header=header)
    with pytest.raises((ValueError, TypeError), match=message):
        read(path, **options)


def test_frame_without_sky_coordinates(tmp_path):
    fits.PrimaryHDU(np.ones((9, 9))).writeto(tmp_path / "a.fits")
    with pytest.raises(ValueError, match=r"sky coordinates \(a celestial WCS\)"):
        read(tmp_path / "a.fits", format="cutouts", band="hsc-g", zero_point=27.0)


def test_pixels_that_are_not_square(tmp_path):
    header = wcs_header((20, 20))
    header["PC1_1"] *= 1.3
    path = with_noise(tmp_path / "a.fits", np.ones((20, 20)), wcs=header)
    with pytest.raises(ValueError, match="Expected square pixels"):
        read(path, zero_point=27.0)


def test_real_legacy_survey_cutout(shared_data):
    path = shared_data / "images" / "legacysurvey_jpgfits_test_image_astroclip.fits"
    with pytest.warns(UserWarning, match="typical of the survey"):
        (galaxy,) = read(path)
    assert [image.band for image in galaxy.images] == ["decam-g", "decam-r", "decam-z"]
    assert galaxy.ra.value == pytest.approx(357.9087, abs=1e-4)
    with fits.open(path) as opened:
        stored = opened[0].data
    for image, plane in zip(galaxy.images, stored, strict=True):
        # Nanomaggies as they are, and east to the right.
        assert np.array_equal(image.flux, plane[:, ::-1])
        assert image.pixel_scale == pytest.approx(0.262)
    # A red galaxy in the middle: brighter in z than in g.
    middle = [image.flux[108:148, 108:148].sum() for image in galaxy.images]
    assert middle[0] < middle[1] < middle[2]
    batch = collate([galaxy])
    assert torch_equal(batch.images.flux[0, 0], stored[0, 104:152, 104:152][:, ::-1])


def torch_equal(tensor, array):
    return np.array_equal(tensor.numpy(), array.astype(np.float32))


def test_real_hst_pairs(shared_data):
    """HST cutouts carry no zero point: it is asked for, and gives the galaxies' magnitudes."""
    folder = shared_data / "deep2_hst_triples"
    zero_point, bands = [26.486, 25.937], ["hst-f606w", "hst-f814w"]
    files = sorted(folder.glob("*.acs.v*.fits.gz"))
    assert len(files) == 4
    with pytest.raises(ValueError, match="Give zero_point"):
        read(files[0], band="hst-f606w")
    for path in files:
        pair = [path, path.with_name(path.name.replace(".acs.v", ".acs.i"))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            (galaxy,) = read(
                pair, band=bands, zero_point=zero_point, psf_fwhm=[0.1, 0.11] * u.arcsec
            )
        assert [image.psf_fwhm for image in galaxy.images] == [0.1, 0.11]
        images = collate([galaxy]).images
        assert images.pixel_scale.item() == pytest.approx(0.15, rel=1e-3)
        # 1.5 arcsec across, summed: between R = 18 and 24 and red, as their spectra say.
        magnitude = 22.5 - 2.5 * np.log10(images.flux[0, :, 19:29, 19:29].sum((1, 2)).numpy())
        assert np.all((magnitude > 17.5) & (magnitude < 24.0))
        assert magnitude[1] < magnitude[0]


def test_real_turned_frame_keeps_its_flux(shared_data):
    path = shared_data / "ifu_cubes" / "a478_hst_wfpc2_cutout.fits.gz"
    with pytest.warns(UserWarning, match="PSF FWHM is taken as typical"):
        (galaxy,) = read(path)
    (image,) = galaxy.images
    assert image.band == "hst-f814w"
    with fits.open(path) as opened:
        counts = opened["SCI"].data.astype(np.float64)
    # WFPC2 F814W: AB zero point 22.08 for counts per second.
    assert image.flux.sum(dtype=np.float64) == pytest.approx(
        np.nansum(counts) * 10 ** (-0.4 * (22.08 - 22.5)), rel=0.02
    )
