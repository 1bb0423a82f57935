"""What TIFFs alone have: tags, layouts and compressions of many kinds, samples that are no colours."""

import io

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, TiffImagePlugin, TiffTags

from spair_core import images
from tests.spair_core.images.samples import THUMBNAIL, TOWN, again, lost, saved


@pytest.mark.parametrize("kind", [TiffTags.BYTE, TiffTags.UNDEFINED])
def test_what_photoshop_would_show_of_a_tiff_is_gone(photo, kind):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in ((34377, TOWN + THUMBNAIL), (37724, b"Adobe Photoshop Document Data Block\0 layers")):
        tags.tagtype[tag], tags[tag] = kind, value
    data = saved(photo, "TIFF", tiffinfo=tags)
    copy = again(data)
    assert TOWN in copy
    assert b"before" not in copy
    assert b"layers" not in copy
    assert "layers" in lost(data)
    assert "thumbnail" in lost(data)
    assert lost(copy) == lost(saved(photo, "TIFF")) == ""


def test_a_tag_of_another_type_than_photoshops_does_no_harm(photo):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[34377], tags[34377] = TiffTags.SHORT, (1,)
    data = saved(photo, "TIFF", tiffinfo=tags)
    assert lost(data) == ""
    assert images.decode(again(data)).pixels.shape == (60, 80, 3)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_tags_and_compression_of_a_tiff(photo, compression, bits):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist], exif[33550] = "somebody", (10.0, 10.0, 0.0)  # GeoTIFF's scale
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.25
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    picture = images.decode(saved(photo, "TIFF", compression=compression))
    wide = picture.pixels.astype(np.uint16) * 257 if bits == 16 else picture.pixels
    data = images.encode(images.Picture(wide, "TIFF", exif=exif.tobytes(), kept=picture.kept))
    copy = Image.open(io.BytesIO(again(data)))
    if bits == 8:
        assert copy.info["compression"] == compression
    found = copy.getexif()
    assert (found[ExifTags.Base.Artist], found[33550]) == ("somebody", (10.0, 10.0, 0.0))
    assert found.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == 0.25
    assert found.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"
    assert images.decode(again(data), deep=True).pixels.dtype == wide.dtype


def with_fourth(photo, kind, samples, what):
    """A TIFF with samples beside the colours, in words of tifffile's what they are."""
    stream = io.BytesIO()
    wide = np.asarray(photo).astype(kind) * np.array(257 if kind == np.uint16 else 1, kind)
    if what == "assocalpha":
        most = np.iinfo(kind).max
        wide = (wide.astype(float) * samples[..., None] / most).round().astype(kind)
    tifffile.imwrite(stream, np.dstack([wide, samples]), photometric="rgb", extrasamples=[what])
    return stream.getvalue()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("what", ["assocalpha", "unassalpha"])
def test_the_alpha_of_a_tiff(photo, kind, what):
    most = np.iinfo(kind).max
    alpha = np.tile(np.linspace(0, most, 80).astype(kind), (60, 1))
    picture = images.decode(with_fourth(photo, kind, alpha, what), deep=True)
    assert picture.pixels.dtype == kind
    assert (picture.alpha == alpha).all()
    seen = alpha > most // 4
    straight = np.asarray(photo).astype(int) * (most // 255)
    assert np.abs(picture.pixels.astype(int) - straight)[seen].max() <= 4
    copy = images.decode(images.encode(picture), deep=True)
    assert (copy.pixels == picture.pixels).all()
    assert (copy.alpha == alpha).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_samples_beside_the_colours_are_no_alpha(photo, kind):
    data = with_fourth(photo, kind, np.asarray(photo.convert("L")).astype(kind), "unspecified")
    picture = images.decode(data, deep=True)
    assert picture.alpha is None
    assert picture.pixels.dtype == kind
    assert (picture.pixels == np.asarray(photo).astype(int) * (257 if kind == np.uint16 else 1)).all()
    assert "infrared" in lost(data)
    assert lost(images.encode(picture)) == ""


@pytest.mark.parametrize(
    "layout",
    [
        {"planarconfig": "separate"},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"tile": (32, 32)},
        {"compression": "zlib", "predictor": True},
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_layouts_of_a_tiff(photo, layout, kind):
    pixels = np.asarray(photo).astype(kind) * (257 if kind == np.uint16 else 1)
    planes = np.moveaxis(pixels, 2, 0) if "planarconfig" in layout else pixels
    stream = io.BytesIO()
    tifffile.imwrite(stream, planes, photometric="rgb", **layout)
    picture = images.decode(stream.getvalue(), deep=True)
    assert picture.pixels.dtype == kind
    assert (picture.pixels == pixels).all()
    assert (images.decode(images.encode(picture), deep=True).pixels == pixels).all()


def test_sixteen_bit_in_which_white_is_zero_is_seen_as_shown():
    shown = np.linspace(0, 65535, 40 * 60).astype(np.uint16).reshape(40, 60)
    stream = io.BytesIO()
    tifffile.imwrite(stream, 65535 - shown, photometric="miniswhite")
    picture = images.decode(stream.getvalue(), deep=True)
    assert (picture.pixels[..., 0] == shown).all()
    again = images.decode(images.encode(picture), deep=True)
    assert (again.pixels == picture.pixels).all()


def test_planes_in_a_compression_that_cannot_be_read_are_told_as_such():
    planes = np.zeros((3, 40, 60), np.uint16)
    stream = io.BytesIO()
    tifffile.imwrite(stream, planes, photometric="rgb", planarconfig="separate", compression="zlib")
    data = bytearray(stream.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        at = file.pages[0].tags["Compression"].valueoffset
    data[at : at + 2] = b"\x05\x00"  # LZW
    with pytest.raises(images.PictureError, match="planes, tiff_lzw: save it as PNG"):
        images.decode(bytes(data), deep=True)


def test_a_tiff_of_jpeg_keeps_its_colours_as_they_are_coded(photos):
    """As red, green and blue, no more bytes of JPEG give far less of a picture."""
    source = saved(
        Image.fromarray(photos[0][:96, :128]).convert("YCbCr"), "TIFF", compression="jpeg", quality=85
    )
    picture = images.decode(source)
    with Image.open(io.BytesIO(images.encode(picture))) as copy:
        tags = copy.tag_v2
        assert (copy.info["compression"], tags[ExifTags.Base.PhotometricInterpretation]) == ("jpeg", 6)
        off = np.asarray(copy.convert("RGB")).astype(float) - picture.pixels
    assert 10 * np.log10(255**2 / np.mean(off**2)) > 40
