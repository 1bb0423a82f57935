import io
import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin

from spair_core import images
from spair_core.images import DecodeLimits, Picture, PictureError
from spair_core.images.formats.jpeg import MOST_EXIF
from tests.spair_core.images.samples import saved


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
    picture = images.decode(saved(photo, "PNG", icc_profile=profile_for(b"RGB "), exif=exif.tobytes()))
    assert picture.pixels.shape == (80, 60, 3)  # upright
    again = images.decode(images.encode(picture))
    assert (again.alpha == picture.alpha).all()
    assert again.icc_profile == profile_for(b"RGB ")
    assert Image.open(io.BytesIO(images.encode(picture))).getexif().get(0x010F) == "camera"
    assert 0x0112 not in Image.open(io.BytesIO(images.encode(picture))).getexif()


@pytest.mark.parametrize("space", [b"CMYK", b"GRAY", b"Lab "])
def test_a_profile_for_other_colours_is_left_out(photo, space):
    assert images.decode(saved(photo, "JPEG", icc_profile=profile_for(space))).icc_profile is None


def test_a_lossless_webp_stays_so_behind_a_long_profile(photo):
    picture = images.decode(saved(photo, "WEBP", lossless=True, icc_profile=profile_for(b"RGB ")))
    assert picture.icc_profile is not None
    assert (images.decode(images.encode(picture)).pixels == np.asarray(photo)).all()
    assert not images.decode(saved(photo, "WEBP")).lossless


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_set_upright_and_keep_their_exif(photo, format, orientation):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x8825] = "camera", orientation, {1: "N", 2: (52.0, 30.0, 1.5)}
    options = {"lossless": True} if format == "WEBP" else {}
    data = saved(photo, format, exif=exif.tobytes(), **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    picture = images.decode(data)
    assert (picture.pixels == upright).all()
    assert images.probe(data) == (picture.pixels.shape[1], picture.pixels.shape[0])
    kept = Image.open(io.BytesIO(images.encode(picture))).getexif()
    assert kept[0x010F] == "camera"
    assert kept.get_ifd(0x8825)[2] == (52.0, 30.0, 1.5)
    assert 0x0112 not in kept


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0no tags at all", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01"],
)
def test_unreadable_exif_does_not_condemn_the_picture(photo, format, exif):
    picture = images.decode(saved(photo, format, exif=exif))
    assert picture.pixels.shape == (60, 80, 3)
    assert picture.exif is None


def test_exif_too_long_for_a_jpeg_is_left_out_of_it(photo):
    exif = Image.Exif()
    exif[0x010E] = "x" * 100_000
    whole = exif.tobytes()
    parts = (whole[6:][at : at + 60_000] for at in (0, 60_000))
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", 8 + len(part)) + b"Exif\0\0" + part for part in parts)
    data = saved(photo, "JPEG")
    picture = images.decode(data[:2] + segments + data[2:])
    assert len(picture.exif) > MOST_EXIF
    assert images.decode(images.encode(picture)).exif is None
    longest = replace(picture, exif=whole[:MOST_EXIF])
    assert images.encode(longest)


def test_tags_of_a_tiffs_layout_are_not_carried_over(photo):
    """They describe the predicted, compressed original and would spoil the copy."""
    tags = {270: "a description", 317: 2}
    data = saved(photo, "TIFF", compression="tiff_lzw", tiffinfo=tags)
    picture = images.decode(data)
    copy = Image.open(io.BytesIO(images.encode(picture)))
    assert copy.tag_v2[270] == "a description"
    assert 317 not in copy.tag_v2
    assert (np.asarray(copy) == picture.pixels).all()


def reopened(picture, **how):
    return Image.open(io.BytesIO(images.encode(picture, **how)))


@pytest.mark.parametrize(
    ("mode", "format"), [("L", "PNG"), ("LA", "PNG"), ("L", "JPEG"), ("L", "TIFF"), ("L", "BMP")]
)
def test_grey_stays_grey(photo, mode, format):
    data = saved(photo.convert(mode), format)
    again = reopened(images.decode(data))
    assert again.mode == mode
    assert np.abs(np.asarray(again).astype(int) - np.asarray(Image.open(io.BytesIO(data)))).max() <= 3


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_inks_stay_inks_where_nothing_changed(photo, format):
    rng = np.random.default_rng(0)
    inks = np.asarray(photo.convert("CMYK")).copy()
    inks[..., 3] = np.linspace(0, 90, 80).astype(np.uint8)  # black that RGB does not tell of
    inks[..., :3] -= np.minimum(inks[..., :3], rng.integers(0, 4, inks[..., :3].shape, dtype=np.uint8))
    quality = {"quality": 98, "subsampling": 0} if format == "JPEG" else {}
    data = saved(Image.fromarray(inks, "CMYK"), format, **quality)
    picture = images.decode(data)
    changed = picture.pixels.copy()
    changed[:10] = 255 - changed[:10]
    again = reopened(picture.with_pixels(changed))
    assert again.mode == "CMYK"
    before = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(np.asarray(again)[16:] - before[16:]).max() <= (12 if format == "JPEG" else 0)
    assert np.abs(np.asarray(again.convert("RGB"))[:8].astype(int) - changed[:8]).mean() < 6


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_stay_so(photo, format, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (24, 32, channels), dtype=np.uint16)
    order = deep[..., [2, 1, 0, 3][:channels]] if channels > 1 else deep
    data = cv2.imencode({"PNG": ".png", "TIFF": ".tif"}[format], order)[1].tobytes()
    picture = images.decode(data, deep=True)
    assert picture.pixels.dtype == np.uint16
    assert (picture.pixels == deep[..., :3]).all()
    again = images.decode(images.encode(picture), deep=True)
    assert (again.pixels == picture.pixels).all()
    assert channels < 4 or (again.alpha == deep[..., 3]).all()
    assert np.abs(images.decode(data).pixels.astype(int) - deep[..., :3] / 257).max() <= 1
    assert images.decode(data).pixels.dtype == np.uint8


def test_what_a_deep_picture_tells_of_itself_is_kept(photo):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = np.asarray(photo).astype(np.uint16) * 257
    for format in ("PNG", "TIFF"):
        kept = {"dpi": (300.0, 300.0)} | ({"text": {"Author": "somebody"}} if format == "PNG" else {})
        exif = Image.Exif()
        exif[ExifTags.Base.Artist] = "somebody"
        again = reopened(Picture(deep, format, icc_profile=profile, exif=exif.tobytes(), kept=kept))
        assert again.info["icc_profile"] == profile
        assert again.getexif()[ExifTags.Base.Artist] == "somebody"
        assert again.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert format == "TIFF" or again.text["Author"] == "somebody"


def test_sixteen_bit_where_a_format_has_none_are_refused():
    with pytest.raises(PictureError, match="BMP holds no 16 bit"):
        images.encode(Picture(np.zeros((4, 4, 3), np.uint16), "BMP"))


@pytest.mark.parametrize("quality", [40, 75, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_coded_as_its_source_was(photo, quality, subsampling, progressive):
    data = saved(photo, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
    source, again = Image.open(io.BytesIO(data)), reopened(images.decode(data))
    assert again.quantization == source.quantization
    assert again.layer == source.layer
    assert bool(again.info.get("progressive")) == progressive
    assert len(images.encode(images.decode(data))) < 1.1 * len(data)
    chosen = reopened(images.decode(data), quality=90)
    assert chosen.quantization == Image.open(io.BytesIO(saved(photo, "JPEG", quality=90))).quantization


def test_comments_text_and_resolution_are_kept(photo):
    told = PngImagePlugin.PngInfo()
    told.add_text("Author", "somebody")
    told.add_itxt("Title", "Regen über Köln", "de", "Titel")
    png = reopened(images.decode(saved(photo, "PNG", pnginfo=told, dpi=(144, 144))))
    assert (png.text["Author"], png.text["Title"], png.text["Title"].lang) == (
        "somebody",
        "Regen über Köln",
        "de",
    )
    assert png.info["dpi"] == pytest.approx((144, 144), abs=0.1)
    jpeg = reopened(
        images.decode(saved(photo, "JPEG", comment=b"from the car", dpi=(72, 72), xmp=b"<x:xmpmeta/>"))
    )
    assert jpeg.info["comment"] == b"from the car"
    assert jpeg.info["xmp"] == b"<x:xmpmeta/>"
    assert jpeg.info["dpi"] == (72, 72)


def test_other_modes_become_rgb(photo):
    grey = np.asarray(photo.convert("L"))
    grey16 = Image.fromarray(grey.astype(np.uint16) * 257)
    for format in ("PNG", "TIFF"):
        assert (images.decode(saved(grey16, format)).pixels == grey[..., None]).all()
    for mode in ("L", "P", "1"):
        expected = np.asarray(photo.convert(mode).convert("RGB"))
        assert (images.decode(saved(photo.convert(mode), "PNG")).pixels == expected).all()
    cmyk = images.decode(saved(photo.convert("CMYK"), "JPEG", quality=95, subsampling=0)).pixels
    assert np.abs(cmyk.astype(int) - np.asarray(photo)).mean() < 2
    palette = photo.convert("P")
    index = palette.getpixel((0, 0))
    see_through = images.decode(saved(palette, "PNG", transparency=index))
    assert ((see_through.alpha == 0) == (np.asarray(palette) == index)).all()


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_fixed_range_are_refused(photo, mode):
    with pytest.raises(PictureError, match="32 bits"):
        images.decode(saved(photo.convert(mode), "TIFF"))


def test_a_phones_jpeg_counts_as_its_first_picture(photo):
    data = saved(photo, "MPO", save_all=True, append_images=[photo.rotate(90)])
    picture = images.decode(data)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert picture.format == "JPEG"
    assert np.abs(picture.pixels.astype(int) - np.asarray(photo)).mean() < 3
    again = Image.open(
        io.BytesIO(images.encode(replace(picture, kept={**picture.kept, "progressive": True})))
    )
    beside = Image.open(io.BytesIO(data))
    for one in (beside, again):
        one.seek(1)
    assert (np.asarray(again) == np.asarray(beside)).all()


def profile_for(space):
    """An ICC profile's header for a colour space, as long as profiles are."""
    return bytes(16) + space + bytes(3000)


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


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_damaged_bytes_give_a_picture_or_a_reason(photo, format):
    """Never another exception, be it on decoding or on encoding what was decoded."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x8825] = "camera", 6, {1: "N", 2: (52.0, 30.0, 1.5)}
    data = saved(photo, format, **({} if format == "BMP" else {"exif": exif.tobytes()}))
    rng = np.random.default_rng(0)
    limits = DecodeLimits(max_pixels=1_000_000)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, rng.choice([100, len(data)]), 3):
            damaged[place] = rng.integers(256)
        try:
            images.encode(images.decode(bytes(damaged), limits))
        except PictureError:
            refused += 1
    assert refused > 0


def refused(data, limits=None):
    with pytest.raises(PictureError) as caught:
        images.decode(data, limits)
    return str(caught.value)


def test_what_is_no_picture():
    assert "empty" in refused(b"")
    for data in (
        b"#!/bin/sh\nrm -rf /\n" * 10,
        b"<svg/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"\xff\xd8",
        bytes(1000),
    ):
        assert "not a picture of a known format" in refused(data)


def test_kinds_of_a_format_that_are_not_read(photo):
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.asarray(photo).astype(np.float32), photometric="rgb")
    assert "a TIFF that is damaged, or of a kind that cannot be read" in refused(stream.getvalue())
    assert "a JPEG that is damaged" in refused(saved(photo, "JPEG")[:4] + bytes(100))


@pytest.mark.parametrize("format", ["ICO", "DDS", "SGI", "PDF"])
def test_formats_that_are_not_listed(photo, format):
    assert "not a picture of a known format" in refused(saved(photo, format))


def test_bombs_are_refused_by_their_header(photo):
    assert "8000x12501 has more pixels than the limit" in refused(header_of(8000, 12501))
    assert "limit of 100,000,000" in refused(header_of(60_000, 60_000))
    beyond = refused(header_of(60_000, 60_000), DecodeLimits(max_pixels=10**10))
    assert "limit of 178,956,970" in beyond  # Pillow's own
    assert "limit of 100" in refused(saved(photo, "PNG"), DecodeLimits(max_pixels=100))
    assert "limit of 100" in refused(saved(photo, "PNG"), DecodeLimits(max_bytes=100))
    with pytest.raises(PictureError, match="limit"):
        images.probe(header_of(60_000, 60_000))


def test_a_bomb_in_the_text_of_a_png(photo):
    text = b"zTXtname\0\0" + zlib.compress(bytes(20_000_000), 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    data = saved(photo, "PNG")
    assert "damaged" in refused(data[:33] + chunk + data[33:])


@pytest.mark.parametrize("format", ["WEBP", "PNG", "TIFF", "GIF", "AVIF", "HEIF"])
def test_several_frames_are_refused(photo, format):
    assert "several frames" in refused(saved(photo, format, save_all=True, append_images=[photo.rotate(90)]))


def test_directories_of_a_tiff_are_not_counted(monkeypatch):
    """Reading 10,000 of them would take seconds, and a file can hold millions."""
    tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1)]
    data = bytearray(b"II*\0" + struct.pack("<I", 16) + bytes(8))
    size = 2 + 12 * len(tags) + 4
    for _ in range(10_000):
        data += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in tags)
        data += struct.pack("<I", len(data) - len(tags) * 12 - 2 + size)
    read = []
    load = TiffImagePlugin.ImageFileDirectory_v2.load
    monkeypatch.setattr(
        TiffImagePlugin.ImageFileDirectory_v2, "load", lambda self, fp: (read.append(1), load(self, fp))[1]
    )
    assert "several frames" in refused(bytes(data))
    assert len(read) < 10


def test_garbage_behind_a_picture_is_ignored(photo):
    assert images.decode(saved(photo, "JPEG") + b"PK\3\4" * 500).pixels.shape == (60, 80, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_probe_sees_pictures_upright(photo, format):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = saved(photo, format, exif=exif.tobytes())
    assert images.probe(data) == (60, 80)
    assert images.decode(data).pixels.shape == (80, 60, 3)


def test_probe_reads_the_header_alone():
    assert images.probe(header_of(640, 480)) == (640, 480)


def test_pixels_of_another_size_are_refused(photo):
    picture = images.decode(saved(photo, "PNG"))
    with pytest.raises(ValueError, match="replacement"):
        picture.with_pixels(picture.pixels[:-1])


def test_masks():
    mask = np.eye(9, dtype=bool)
    assert (images.decode_mask(images.encode_png(mask)) == mask).all()
    assert not images.decode_mask(images.encode_png(np.full((3, 3), 127, np.uint8))).any()
