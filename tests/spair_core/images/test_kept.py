"""What stands beside a picture in its file: a copy has it, or says that it has not."""

import io
import struct
import zlib

import cv2
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from spair_core import images
from tests.spair_core.images.samples import THUMBNAIL, TOWN, again, lost, saved

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def segment(kind, body):
    return struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_gain_map(photo):
    """A JPEG with a picture behind it that its index names, which is no picture to look at."""
    told = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:hdrgm='http://ns.adobe.com/hdr-gain-map/1.0/'/>"
    data = saved(photo, "MPO", save_all=True, append_images=[photo.convert("L")], quality=60)
    gain = saved(photo.convert("L"), "JPEG", extra=segment(0xE1, told + b" hdrgm:Version"))
    start = images.formats.jpeg.pictures(data)[1][0]
    return data[:start] + gain, gain


@pytest.mark.parametrize("format", ["JPEG", "PNG", "HEIF", "AVIF", "JPEG2000"])
def test_bytes_behind_a_picture(photo, format):
    film = struct.pack(">I", 24) + b"ftypmp42" + bytes(range(256)) * 40
    if format in ("HEIF", "AVIF", "JPEG2000"):
        film = struct.pack(">I4s", len(film) + 8, b"mpvd") + film  # as motion photos have it
    assert again(saved(photo, format) + film).endswith(film)
    if format in ("JPEG", "HEIF", "AVIF"):
        assert "film" in lost(saved(photo, format) + film)


def test_a_gain_map_is_kept_and_found(photo):
    data, gain = with_gain_map(photo)
    assert "gain map" in lost(data)
    copy = again(data)
    assert copy.endswith(gain)
    read = Image.open(io.BytesIO(copy))
    read.seek(1)
    assert (np.asarray(read) == np.asarray(Image.open(io.BytesIO(gain)))).all()
    entries = Image.open(io.BytesIO(copy)).mpinfo[0xB002]
    assert entries[0]["Size"] == len(copy) - len(gain)


def test_segments_of_a_jpeg(photo):
    iptc = b"Photoshop 3.0\0" + TOWN
    extra = segment(0xED, iptc + THUMBNAIL) + segment(0xE5, b"maker") + segment(0xEB, b"JP\0\x01jumb")
    extra += b"".join(
        segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(60_000)) for _ in range(9)
    )
    copy = again(saved(photo, "JPEG", extra=extra + segment(0xFE, b"first") + segment(0xFE, b"second")))
    assert len(copy) > 540_000
    assert all(body in copy for body in (segment(0xED, iptc), segment(0xE5, b"maker"), b"first", b"second"))
    assert b"before" not in copy
    assert b"jumb" not in copy
    told = lost(saved(photo, "JPEG", extra=extra))
    assert "thumbnail" in told
    assert "C2PA" in told
    assert lost(saved(photo, "JPEG")) == ""


def test_an_orientation_in_xmp_does_not_turn_twice(photo):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    xmp = b"<x:xmpmeta tiff:Orientation='6' a='b'><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"
    for format in ("JPEG", "WEBP", "HEIF"):
        copy = Image.open(io.BytesIO(again(saved(photo, format, exif=exif.tobytes(), xmp=xmp))))
        assert copy.size == (60, 80)
        assert copy.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert b"6" not in copy.info["xmp"]


def test_a_thumbnail_in_exif_is_named(photo):
    ifd1 = struct.pack("<H", 2) + struct.pack("<HHIIHHII", 0x201, 4, 1, 56, 0x202, 4, 1, 4) + bytes(4)
    ifd0 = struct.pack("<HHHI4sI", 1, 0x010F, 2, 4, b"cam\0", 26)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + ifd0 + ifd1 + b"\xff\xd8\xff\xd9"
    data = saved(photo, "JPEG", exif=exif)
    assert "thumbnail" in lost(data)
    assert Image.open(io.BytesIO(again(data))).getexif()[0x010F] == "cam"


def test_chunks_of_a_png(photo):
    data = saved(photo, "PNG")
    chunks = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"prVt", b"own") + chunk(b"caBX", b"signed")
    data = data[:33] + chunks + data[33:]
    copy = again(data)
    assert Image.open(io.BytesIO(copy)).info["gamma"] == pytest.approx(0.45455)
    assert chunk(b"prVt", b"own") in copy
    assert b"caBX" not in copy
    assert "caBX" in lost(data)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("measure", [(2835, 2835, 1), (3937, 7874, 1), (16, 11, 0)])
def test_the_resolution_of_a_png_or_the_shape_of_its_pixels(photo, deep, measure):
    pixels = np.asarray(photo)
    data = cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes() if deep else saved(photo, "PNG")
    told = chunk(b"pHYs", struct.pack(">IIB", *measure))
    copy = again(data[:33] + told + data[33:])
    assert copy.count(b"pHYs") == copy.count(told) == 1
    assert copy.index(told) < copy.index(b"IDAT")
    assert images.decode(copy, deep=True).pixels.dtype == (np.uint16 if deep else np.uint8)


@pytest.mark.parametrize("mark", [True, False], ids=["Adobe's mark", "names"])
def test_a_jpeg_of_red_green_and_blue_stays_one(photo, mark):
    data = saved(photo, "JPEG", keep_rgb=True, quality=90)
    assert data[2:4] == b"\xff\xee"
    copy = again(data if mark else data[:2] + data[18:])
    assert [number for number, *_ in Image.open(io.BytesIO(copy)).layer] == [*b"RGB"]
    assert np.abs(np.asarray(Image.open(io.BytesIO(copy))).astype(int) - np.asarray(photo)).mean() < 4
    luma = again(saved(photo, "JPEG"))
    assert [number for number, *_ in Image.open(io.BytesIO(luma)).layer] == [1, 2, 3]


def test_the_shape_of_a_jpegs_pixels(photo):
    data = saved(photo, "JPEG")
    wide = data[:13] + struct.pack(">BHH", 0, 16, 11) + data[18:]
    assert again(wide)[:20] == wide[:20]
    sharp = saved(photo, "JPEG", dpi=(300, 150))
    assert again(sharp)[:20] == sharp[:20]
    without, cut = data[:2] + data[20:], data[:2] + segment(0xE0, data[6:14]) + data[20:]
    for other in (without, cut):
        assert again(other)[13:18] == struct.pack(">BHH", 0, 1, 1)
    centimetres = data[:13] + struct.pack(">BHH", 2, 117, 59) + data[18:]
    assert again(centimetres)[:20] == centimetres[:20]


def test_the_shape_of_a_gifs_pixels(photo):
    data = saved(photo, "GIF")
    assert again(data[:12] + bytes([49]) + data[13:])[12] == 49


def test_profiles_for_other_colours_are_named(photo):
    data = saved(photo.convert("L"), "JPEG", icc_profile=PROFILE)
    assert "profile" in lost(data)
    assert lost(saved(photo, "JPEG", icc_profile=PROFILE)) == ""


def test_a_jpeg_2000_keeps_its_wavelet_its_boxes_and_its_size(photo):
    box = struct.pack(">I4s", 12, b"xml ") + b"<a/>"
    lossless = saved(photo, "JPEG2000") + box
    assert again(lossless).endswith(box)
    assert images.decode(lossless).lossless
    lossy = saved(photo, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[20])
    assert not images.decode(lossy).lossless
    assert len(again(lossy)) < 1.3 * len(lossy)
    stream = saved(photo, "JPEG2000", no_jp2=True)
    assert again(stream).startswith(b"\xff\x4f")


@pytest.mark.long
@pytest.mark.parametrize(
    ("format", "quality"), [("WEBP", 40), ("WEBP", 92), ("AVIF", 40), ("AVIF", 80), ("HEIF", 60)]
)
def test_lossy_files_keep_about_their_size(photos, format, quality):
    photo = Image.fromarray(photos[0])
    data = saved(photo, format, quality=quality)
    copy = again(data)
    assert 0.7 < len(copy) / len(data) < 1.25
    assert not images.decode(copy).lossless


def test_a_webp_without_loss_stays_one(photo):
    data = saved(photo, "WEBP", lossless=True)
    assert (np.asarray(Image.open(io.BytesIO(again(data)))) == np.asarray(photo) ^ 1).all()


def test_a_heic_is_read_and_written(photo):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist], exif[ExifTags.Base.Orientation] = "somebody", 6
    data = saved(
        photo, "HEIF", exif=exif.tobytes(), xmp=b"<x:xmpmeta/>", icc_profile=PROFILE, thumbnails=[32]
    )
    copy = Image.open(io.BytesIO(again(data)))
    assert copy.size == (60, 80)
    assert copy.getexif()[ExifTags.Base.Artist] == "somebody"
    assert (copy.info["xmp"], copy.info["icc_profile"]) == (b"<x:xmpmeta/>", PROFILE)
    assert copy.info["thumbnails"]
    turned = np.asarray(photo.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(np.asarray(copy) - turned).mean() < 8


def test_a_heic_without_loss_stays_one(photo):
    data = saved(photo, "HEIF", quality=-1, chroma=444, matrix_coefficients=0)
    assert (np.asarray(Image.open(io.BytesIO(again(data)))) == np.asarray(photo) ^ 1).all()


@pytest.mark.parametrize(("compression", "told"), [("zlib", ""), ("none", ""), ("lzw", "(tiff_lzw)")])
def test_a_deep_tiffs_compression_stays_or_is_named(photo, compression, told):
    number = {"none": 1, "lzw": 5, "zlib": 8}[compression]
    wide = np.asarray(photo)[..., ::-1].astype(np.uint16) * 257
    data = cv2.imencode(".tiff", wide, [cv2.IMWRITE_TIFF_COMPRESSION, number])[1].tobytes()
    before, after = (Image.open(io.BytesIO(file)).info["compression"] for file in (data, again(data)))
    assert ("compression" in lost(data)) == bool(told)
    assert told in lost(data)
    assert after == ("tiff_adobe_deflate" if told else before)


@pytest.mark.parametrize("clear", [False, True], ids=["opaque", "with alpha"])
def test_a_grey_avif_stays_one(photo, clear):
    grey = photo.convert("L")
    if clear:
        grey.putalpha(photo.convert("L").point(lambda level: 255 - level // 2))
    data = saved(grey, "AVIF", subsampling="4:0:0")
    copy = again(data)
    assert copy[copy.find(b"av1C") + 6] & 0x10
    assert Image.open(io.BytesIO(copy)).mode == Image.open(io.BytesIO(data)).mode
    assert lost(data) == ""


def test_an_avif_keeps_its_sampling_and_its_colours(photo):
    for sampling, flags in (("4:4:4", 0), ("4:2:2", 0x08), ("4:2:0", 0x0C)):
        data = saved(photo, "AVIF", subsampling=sampling)
        hdr = data.replace(b"colrnclx\0\x01\0\x0d", b"colrnclx\0\x09\0\x10")  # BT.2020, PQ
        copy = again(hdr)
        assert copy[copy.find(b"av1C") + 6] & 0x0C == flags
        assert b"colrnclx\0\x09\0\x10" in copy
        assert lost(data) == ""


@pytest.mark.parametrize("bits", [10, 12])
def test_a_heic_of_more_than_8_bit(photo, bits):
    wide = np.asarray(photo).astype(np.uint16) * 257
    stream = io.BytesIO()
    pillow_heif.encode("RGB;16", photo.size, wide.tobytes(), stream, bit_depth=bits, quality=90)
    picture = images.decode(stream.getvalue(), deep=True)
    assert picture.pixels.dtype == np.uint16
    assert np.abs(picture.pixels.astype(int) - wide).mean() < 257 * 8
    assert images.decode(stream.getvalue()).pixels.dtype == np.uint8
    copy = pillow_heif.open_heif(images.encode(picture), convert_hdr_to_8bit=False)
    assert copy.info["bit_depth"] == bits


@pytest.mark.parametrize("bits", [10, 12])
def test_an_avif_of_more_than_8_bit(photo, bits):
    wide = np.asarray(photo).astype(np.uint16) << (bits - 8)
    data = cv2.imencode(".avif", wide[..., ::-1].copy(), [cv2.IMWRITE_AVIF_DEPTH, bits])[1].tobytes()
    picture = images.decode(data, deep=True)
    assert picture.pixels.dtype == np.uint16
    assert picture.lost == ()
    assert np.abs(picture.pixels.astype(int) - (wide << (16 - bits))).mean() < 64 * 32
    coded = images.encode(picture, quality=95)
    copy = images.decode(coded, deep=True)
    assert np.abs(copy.pixels.astype(int) - picture.pixels).mean() < 257 * 4
    levels = cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_UNCHANGED)
    assert levels.max() >> (bits - 1) == 1


@pytest.mark.parametrize("suffix", [".ppm", ".jp2", ".png", ".tiff"])
def test_colour_of_16_bit(photo, suffix):
    wide = np.asarray(photo).astype(np.uint16) * 257 + np.arange(80, dtype=np.uint16)[:, None] % 7
    whole = {
        ".jp2": [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000],
        ".tiff": [cv2.IMWRITE_TIFF_COMPRESSION, 8],
    }
    data = cv2.imencode(suffix, wide[..., ::-1].copy(), whole.get(suffix, []))[1].tobytes()
    picture = images.decode(data, deep=True)
    assert (picture.pixels == wide).all()
    assert picture.lost == ()
    assert (images.decode(again(data), deep=True).pixels == wide ^ 1).all()


@pytest.mark.parametrize("plain", [False, True])
def test_a_ppm_with_comments_in_its_header(photo, plain):
    wide = np.asarray(photo).astype(np.uint16) * 257 + 3
    head = b"P%d # colour\n80 # wide\n#\n 60\n# of 16 bit\n65535\n" % (3 if plain else 6)
    digits = "# row by row\n" + " ".join(map(str, wide.ravel()))
    body = digits.encode() if plain else wide.astype(">u2").tobytes()
    picture = images.decode(head + body, deep=True)
    assert (picture.pixels == wide).all()
    assert picture.lost == ()
    assert (images.decode(again(head + body), deep=True).pixels == wide ^ 1).all()
    with pytest.raises(images.PictureError):
        images.decode(head + body[: len(body) // 2], deep=True)


@pytest.mark.parametrize("words", [b"70000 1 1", b"-1 1 1", b"1 1", b"1 one 1"])
def test_levels_of_a_plain_ppm_that_cannot_be(words):
    with pytest.raises(images.PictureError):
        images.decode(b"P3 1 1 65535\n" + words, deep=True)


def test_a_jpeg_2000_without_a_container_keeps_its_depth(photo):
    wide = np.asarray(photo).astype(np.uint16) * 257 + 3
    whole = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    data = cv2.imencode(".jp2", wide[..., ::-1].copy(), whole)[1].tobytes()
    stream = data[data.find(b"\xff\x4f\xff\x51") :]
    picture = images.decode(stream, deep=True)
    assert (picture.pixels == wide).all()
    assert picture.lost == ()
    copy = again(stream)
    assert copy.startswith(b"\xff\x4f")
    assert (images.decode(copy, deep=True).pixels == wide ^ 1).all()


@pytest.mark.parametrize("deep", [False, True])
def test_a_clear_level_of_grey_of_16_bit(photo, deep):
    wide = np.asarray(photo.convert("L")).astype(np.uint16) * 256 + 3
    data = saved(Image.fromarray(wide), "PNG", transparency=int(wide[5, 6]))
    picture = images.decode(data, deep=deep)
    assert picture.alpha.dtype == picture.pixels.dtype
    assert ((picture.alpha == 0) == (wide == wide[5, 6])).all()
    copy = images.decode(images.encode(picture), deep=True)
    assert (copy.pixels == picture.pixels).all()
    assert (copy.alpha == picture.alpha).all()


def test_a_clear_level_of_grey_of_few_bits_is_named():
    header = struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0\x5a")) + chunk(b"IEND", b"")
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    assert "transparency" in lost(start + chunk(b"tRNS", b"\0\5") + pixels)
    assert lost(start + pixels) == ""


def test_inks_of_16_bit_become_8(photo):
    stream = io.BytesIO()
    inks = np.asarray(photo.convert("CMYK")).astype(np.uint16) * 257
    tifffile.imwrite(stream, inks, photometric="separated")
    picture = images.decode(stream.getvalue(), deep=True)
    assert (picture.mode, picture.pixels.dtype) == ("CMYK", np.uint8)
    assert (picture.inks == inks // 257).all()
    assert "16 bit" in picture.lost[0]


def test_a_ppm_of_odd_levels(photo):
    assert "1024 levels" in lost(b"P6\n# from a camera\n4 2\n1023\n" + bytes(48))


def test_a_gif_keeps_its_colours_and_its_transparency(photos):
    photo = Image.fromarray(photos[0][:120, :160])
    few = photo.quantize(200)
    few.info["transparency"] = index = few.getpixel((5, 5))
    data = saved(few, "GIF", comment=b"from the car")
    picture = images.decode(data)
    clear = np.asarray(few) == index
    assert ((picture.alpha == 0) == clear).all()
    changed = picture.pixels.copy()
    changed[60:] = np.asarray(photo)[60:]
    copy = images.decode(images.encode(picture.with_pixels(changed)))
    assert copy.format == "GIF"
    assert ((copy.alpha == 0) == clear).all()
    assert (copy.pixels[:60][~clear[:60]] == picture.pixels[:60][~clear[:60]]).all()
    assert np.abs(copy.pixels[60:].astype(int) - changed[60:])[~clear[60:]].mean() < 12
    assert "256" in lost(data)
    assert Image.open(io.BytesIO(again(data))).info["comment"] == b"from the car"


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bit_that_were_cut_are_told_as_damaged(ending):
    colours = np.random.default_rng(0).integers(0, 65536, (40, 60, 3)).astype(np.uint16)
    data = cv2.imencode(ending, colours)[1].tobytes()
    assert images.decode(data, deep=True).pixels.dtype == np.uint16
    cut = data[: len(data) // 2]
    if ending == ".tif":  # whose directory stands behind the pixels
        stream = io.BytesIO()
        tifffile.imwrite(stream, colours, photometric="rgb")
        cut = stream.getvalue()[:-2000]
    with pytest.raises(images.PictureError, match="damaged or cut short"):
        images.decode(cut, deep=True)
