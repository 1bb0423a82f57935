import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from spair_core import images
from spair_core.images import DecodeLimits, PictureError


def saved(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format=format, **options)
    return stream.getvalue()


@pytest.fixture
def photo(photos):
    return Image.fromarray(photos[1][:60, :80])


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_come_back_as_they_were(photo, format, options):
    picture = images.decode(saved(photo, format, **options))
    assert (picture.pixels == np.asarray(photo)).all()
    again = images.decode(images.encode(picture))
    assert again.format == format
    assert (again.pixels == picture.pixels).all()
    assert images.encode(picture) == images.encode(picture)


def test_jpeg_stays_jpeg_and_close(photo):
    picture = images.decode(saved(photo, "JPEG", quality=95))
    again = images.decode(images.encode(picture, quality=98))
    assert again.format == "JPEG"
    assert np.abs(again.pixels.astype(int) - picture.pixels).mean() < 2


def test_alpha_profile_and_exif_are_kept(photo):
    photo.putalpha(Image.fromarray(np.tile(np.arange(80, dtype=np.uint8), (60, 1))))
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "camera", 6
    picture = images.decode(saved(photo, "PNG", icc_profile=b"profile", exif=exif.tobytes()))
    assert picture.pixels.shape == (80, 60, 3)  # upright
    again = images.decode(images.encode(picture))
    assert (again.alpha == picture.alpha).all()
    assert again.icc_profile == b"profile"
    assert Image.open(io.BytesIO(images.encode(picture))).getexif().get(0x010F) == "camera"
    assert 0x0112 not in Image.open(io.BytesIO(images.encode(picture))).getexif()


def test_other_modes_become_rgb(photo):
    grey16 = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    assert (images.decode(saved(grey16, "PNG")).pixels[..., 1] == np.asarray(photo.convert("L"))).all()
    for mode in ("L", "P", "1"):
        assert images.decode(saved(photo.convert(mode), "PNG")).pixels.shape == (60, 80, 3)
    assert images.decode(saved(photo.convert("CMYK"), "JPEG")).pixels.shape == (60, 80, 3)


def header_of(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 9) + b"IDAT"


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_cut_short(photo, format, cut):
    data = saved(photo, format)
    with pytest.raises(PictureError, match=r"cut short|not a picture"):
        images.decode(data[: int(len(data) * cut)])


def test_hostile_bytes(photo):
    with pytest.raises(PictureError, match="empty"):
        images.decode(b"")
    with pytest.raises(PictureError, match="not a picture"):
        images.decode(b"#!/bin/sh\nrm -rf /\n" * 10)
    with pytest.raises(PictureError, match="limit"):
        images.decode(header_of(60_000, 60_000))
    with pytest.raises(PictureError, match="limit"):
        images.decode(saved(photo, "PNG"), DecodeLimits(max_pixels=100))
    with pytest.raises(PictureError, match="limit"):
        images.decode(saved(photo, "PNG"), DecodeLimits(max_bytes=100))
    with pytest.raises(PictureError, match="not a picture of a known format"):
        images.decode(saved(photo.convert("P"), "GIF"))
    with pytest.raises(PictureError, match="several frames"):
        images.decode(saved(photo, "WEBP", save_all=True, append_images=[photo.rotate(90)]))


def test_probe_reads_the_header_alone():
    assert images.probe(header_of(640, 480)) == (640, 480)


def test_masks():
    mask = np.eye(9, dtype=bool)
    assert (images.decode_mask(images.encode_png(mask)) == mask).all()
