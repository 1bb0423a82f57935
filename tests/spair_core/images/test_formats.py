"""What every picture format promises; a new entry is tested by being there."""

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from spair_core import images
from spair_core.images import Picture
from spair_core.images.formats.catalogue import FORMATS, format_of

LOSSY = ("JPEG", "AVIF", "HEIF", "GIF")
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(params=FORMATS, ids=lambda one: one.name)
def entry(request):
    return request.param


@pytest.fixture
def pixels(photos):
    return photos[0][100:143, 200:261]


def test_a_picture_comes_back(entry, pixels):
    data = images.encode(Picture(pixels, entry.name), quality=95)
    assert data == images.encode(Picture(pixels, entry.name), quality=95)
    again = images.decode(data)
    assert again.format == entry.name
    assert images.probe(data) == (61, 43)
    assert np.abs(again.pixels.astype(int) - pixels).mean() < (3 if entry.name in LOSSY else 1e-9)


def test_what_it_holds_is_kept_and_nothing_else(entry, pixels):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    alpha = np.arange(43 * 61, dtype=np.uint32).reshape(43, 61).astype(np.uint8)
    whole = Picture(pixels, entry.name, alpha, PROFILE, exif.tobytes())
    again = images.decode(images.encode(whole))
    assert (again.alpha is not None) == entry.alpha
    unlike = 8 if entry.name in LOSSY else 0
    seen = np.where(alpha < 128, 0, 255) if entry.name == "GIF" else alpha
    assert not entry.alpha or np.abs(again.alpha.astype(int) - seen).mean() <= unlike
    assert (again.icc_profile == PROFILE) == entry.profile
    assert (again.exif is not None and b"somebody" in again.exif) == (entry.most_exif != 0)


def test_too_long_an_exif_is_left_out(entry, pixels):
    if not entry.most_exif:
        pytest.skip("it has no bound")
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * (entry.most_exif + 1)
    assert images.decode(images.encode(Picture(pixels, entry.name, exif=exif.tobytes()))).exif is None


def test_its_names_are_its_own(entry):
    assert entry.suffixes <= images.SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in entry.suffixes)
    for other in FORMATS:
        assert other is entry or not other.suffixes & entry.suffixes
    assert all(format_of(name) is entry for name in (entry.name, *entry.taken_for_it))
