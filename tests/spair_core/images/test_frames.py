"""Files of several frames or pages, through reading, coding and putting together."""

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from spair_core import images
from spair_core.images import DecodeLimits, PictureError
from spair_core.images.formats.png import chunk

SHOWN = [40, 80, 120, 200]


@pytest.fixture
def shots(photos):
    """Four pictures 80x60 of a camera that turns."""
    return [Image.fromarray(np.roll(photos[0][:60, :80], 5 * k, axis=1)) for k in range(4)]


def seen_through(shots):
    """The same, of which a moving part can be seen."""
    for k, shot in enumerate(shots):
        alpha = np.zeros((60, 80), np.uint8)
        alpha[10:50, 10 + 6 * k : 50 + 6 * k] = 255
        shot.putalpha(Image.fromarray(alpha))
    return shots


def saved(shots, format, **options):
    stream = io.BytesIO()
    shots[0].save(stream, format, save_all=True, append_images=shots[1:], **options)
    return stream.getvalue()


def brighter(pixels):
    return np.minimum(pixels, 245) + pixels.dtype.type(10)


def again(data, target, changed=lambda number: True):
    """(what was read, changed where asked for; the file that was written of it; what was lost)."""
    before, coded = [], []
    for number, frame in enumerate(images.frames(data, deep=True)):
        picture = frame.picture
        if changed(number):
            picture = picture.with_pixels(brighter(picture.pixels))
        frame = replace(frame, picture=picture)
        before.append(frame)
        coded.append(images.encode_frame(frame, unchanged=not changed(number)))
    lost = images.put_together(coded, data, target)
    return before, target.read_bytes(), lost


def shown(data):
    """(what players show of each frame as RGBA, for how long)."""
    with Image.open(io.BytesIO(data)) as image:
        for number in range(image.n_frames):
            image.seek(number)
            pixels = np.asarray(image.convert("RGBA")).astype(int)
            yield pixels, image.info["duration"]


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF"])
def test_an_animation_keeps_its_frames_times_and_loops(shots, format, tmp_path):
    data = saved(shots, format, duration=SHOWN, loop=3)
    assert images.holds_several(data)
    assert images.is_footage(data)
    before, after, lost = again(data, tmp_path / "after")
    assert [frame.seconds for frame in before] == pytest.approx([0, 0.04, 0.12, 0.24])
    frames = list(shown(after))
    assert [milliseconds for _, milliseconds in frames] == SHOWN
    for frame, (pixels, _) in zip(before, frames, strict=True):
        assert np.abs(pixels[..., :3] - frame.picture.pixels).mean() < (0 if format == "PNG" else 4) + 1e-9
    assert lost == ()
    if format != "AVIF":  # Pillow does not tell
        assert Image.open(io.BytesIO(after)).info["loop"] == 3


@pytest.mark.parametrize(
    ("format", "options"), [("GIF", {"disposal": 2}), ("PNG", {}), ("WEBP", {}), ("AVIF", {})]
)
def test_what_can_be_seen_through_stays_so(shots, format, options, tmp_path):
    data = saved(seen_through(shots), format, duration=50, **options)
    _, after, _ = again(data, tmp_path / "after", changed=lambda number: False)
    for (one, _), (other, _) in zip(shown(data), shown(after), strict=True):
        assert ((one[..., 3] > 127) == (other[..., 3] > 127)).all()
        assert np.abs(one - other)[one[..., 3] > 127].mean() < (4 if format in ("WEBP", "AVIF") else 1e-9)


def test_frames_of_a_webp_with_loss_that_can_be_seen_through(photos, tmp_path):
    """Those that are all of the canvas stand in the file as they are where nothing was found."""
    pixels = photos[0][:60, :80]
    alpha = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (60, 1))
    shots = [
        Image.fromarray(np.dstack([np.roll(pixels, 5 * k, axis=1), np.roll(alpha, 9 * k, axis=1)]))
        for k in range(3)
    ]
    data = saved(shots, "WEBP", duration=50, quality=80)
    assert all(frame.coded is not None for frame in images.frames(data))
    _, after, _ = again(data, tmp_path / "after", changed=lambda number: number == 1)
    same = [(one == other).all() for (one, _), (other, _) in zip(shown(data), shown(after), strict=True)]
    assert same == [True, False, True]


def test_an_animation_in_grey_of_16_bit_with_a_clear_level(tmp_path):
    """Its frames are of one depth, and what was clear stays so."""
    grey = np.arange(80 * 60, dtype=np.uint16).reshape(60, 80) * 13
    shots = [Image.fromarray(grey), Image.fromarray(grey[::-1].copy())]
    data = saved(shots, "PNG", duration=50, transparency=int(grey[5, 6]))
    before, after, _ = again(data, tmp_path / "after")
    assert "16 bit" in before[0].picture.lost[0]
    for frame, (pixels, _) in zip(before, shown(after), strict=True):
        assert (pixels[..., :3] == frame.picture.pixels).all()
    assert (next(shown(after))[0][..., 3] == np.where(grey == grey[5, 6], 0, 255)).all()


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_unchanged_frames_between_others_are_equal(shots, format, options, tmp_path):
    data = saved(shots, format, duration=50, **options)
    _, after, _ = again(data, tmp_path / "after", changed=lambda number: number == 1)
    same = [(one == other).all() for (one, _), (other, _) in zip(shown(data), shown(after), strict=True)]
    assert same == [True, False, True, True]


@pytest.mark.parametrize(
    ("format", "options", "apart"),
    [("GIF", {}, False), ("PNG", {}, False), ("WEBP", {"lossless": True}, True)],
)
def test_a_still_background_is_written_once(photos, format, options, apart, tmp_path):
    scene = Image.fromarray(photos[0][:60, :80]).quantize(200)
    shots = [scene.copy() for _ in range(5)]
    for k, shot in enumerate(shots):
        shot.paste(0, (10 * k, 20, 10 * k + 10, 30))
        if apart:  # what lies between the two did not change either
            shot.paste(1, (10 * k, 2, 10 * k + 3, 4))
    data = saved(shots, format, duration=50, **options)
    _, after, _ = again(data, tmp_path / "after", changed=lambda number: False)
    alone = saved([scene if format == "GIF" else scene.convert("RGB")], format, **options)
    assert len(after) < 1.5 * len(alone)
    assert all((one == other).all() for (one, _), (other, _) in zip(shown(data), shown(after), strict=True))


def test_what_did_not_change_in_a_gif_keeps_its_colours(photos, tmp_path):
    shots = [Image.fromarray(photos[k][:60, :80]) for k in (0, 1)]
    data = saved(shots, "GIF", duration=50)
    coded = []
    for frame, photo in zip(images.frames(data), photos, strict=False):
        pixels = frame.picture.pixels.copy()
        pixels[40:] = photo[40:60, :80]
        coded.append(images.encode_frame(replace(frame, picture=frame.picture.with_pixels(pixels))))
    images.put_together(coded, data, tmp_path / "after")
    for (one, _), (other, _) in zip(shown(data), shown((tmp_path / "after").read_bytes()), strict=True):
        assert (one[:40] == other[:40]).all()
        assert 0 < np.abs(one[40:] - other[40:]).mean() < 6


def test_an_animation_that_is_shown_once(shots, tmp_path):
    _, after, _ = again(saved(shots, "GIF", duration=50), tmp_path / "after")
    assert "loop" not in Image.open(io.BytesIO(after)).info


def test_a_still_before_an_animation(shots, tmp_path):
    data = saved(shots, "PNG", duration=50, default_image=True, loop=1)
    before, after, _ = again(data, tmp_path / "after")
    image = Image.open(io.BytesIO(after))
    assert image.info["default_image"]
    assert image.n_frames == len(before) == 4
    assert (np.asarray(image) == before[0].picture.pixels).all()


@pytest.mark.parametrize(("format", "turned"), [("WEBP", 6), ("AVIF", 1)])
def test_frames_are_turned_once(shots, format, turned, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    if turned != 1:  # Pillow crashes where it turns an AVIF of several frames
        exif[ExifTags.Base.Orientation] = turned
    data = saved(shots, format, duration=50, exif=exif.tobytes(), xmp=b"<x:xmpmeta/>")
    _, after, _ = again(data, tmp_path / "after")
    image = Image.open(io.BytesIO(after))
    assert image.size == ((80, 60) if turned == 1 else (60, 80))
    assert image.getexif()[ExifTags.Base.Artist] == "somebody"
    assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert image.info["xmp"] == b"<x:xmpmeta/>"


def test_pages_of_a_tiff_keep_size_mode_depth_and_tags(shots, tmp_path):
    wide = np.asarray(shots[0].convert("L")).astype(np.uint16) * 257
    pages = [
        shots[0],
        shots[1].convert("L").resize((50, 30)),
        Image.fromarray(wide),
        shots[2].convert("CMYK"),
        shots[3].convert("1"),
    ]
    for number, page in enumerate(pages):
        page.encoderinfo = {"description": f"page {number}"}
    data = saved(pages, "TIFF", compression="tiff_lzw")
    assert not images.is_footage(data)
    before, after, _ = again(data, tmp_path / "after", changed=lambda number: number < 3)
    image = Image.open(io.BytesIO(after))
    found = []
    for number, frame in enumerate(images.frames(after, deep=True)):
        image.seek(number)
        found.append((image.mode, image.size, image.info["compression"]))
        assert image.tag_v2[270] == f"page {number}"
        assert (frame.picture.pixels == before[number].picture.pixels).all()
    modes = [(page.mode, page.size, "tiff_lzw") for page in pages]
    assert found == modes


def test_unchanged_pages_of_a_lossy_tiff_are_equal(shots, tmp_path):
    data = saved(shots, "TIFF", compression="jpeg")
    before, after, _ = again(data, tmp_path / "after", changed=lambda number: number == 0)
    pages = list(images.frames(after))
    assert np.abs(pages[0].picture.pixels.astype(int) - before[0].picture.pixels).mean() < 3
    assert all((pages[k].picture.pixels == before[k].picture.pixels).all() for k in (1, 2, 3))
    assert len(after) < 1.3 * len(data)


def test_pages_of_16_bit(shots, tmp_path):
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for shot in shots:
            writer.write(np.asarray(shot).astype(np.uint16) * 257, photometric="rgb", tile=(16, 16))
    before, after, _ = again(stream.getvalue(), tmp_path / "after", changed=lambda number: number > 1)
    pages = list(images.frames(after, deep=True))
    assert pages[0].picture.pixels.dtype == np.uint16
    assert all(
        (one.picture.pixels == other.picture.pixels).all() for one, other in zip(before, pages, strict=True)
    )


def test_pictures_of_an_mpo_keep_their_tables_and_their_places(shots, tmp_path):
    data = saved(shots[:2], "MPO", quality=60) + b"behind"
    before, after, lost = again(data, tmp_path / "after", changed=lambda number: number == 0)
    source, image = (Image.open(io.BytesIO(one)) for one in (data, after))
    assert image.n_frames == 2
    for number in (0, 1):
        source.seek(number)
        image.seek(number)
        assert image.quantization == source.quantization
        assert np.abs(np.asarray(image).astype(int) - before[number].picture.pixels).mean() < 4
    assert (np.asarray(image) == np.asarray(source)).all()
    assert after.endswith(b"behind")
    assert lost == ()
    assert images.decode(data).format == "JPEG"  # a reader of stills gets the first


def test_pictures_of_a_heic(shots, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    data = saved(shots, "HEIF", primary_index=2, exif=exif.tobytes(), quality=80)
    before, after, lost = again(data, tmp_path / "after")
    image = Image.open(io.BytesIO(after))
    assert (image.n_frames, image.tell()) == (4, 2)
    assert image.getexif()[ExifTags.Base.Artist] == "somebody"
    pages = list(images.frames(after))
    for one, other in zip(before, pages, strict=True):
        assert np.abs(one.picture.pixels.astype(int) - other.picture.pixels).mean() < 8
    assert "all together" in lost[0]


def test_too_many_frames_are_refused(shots):
    data = saved(shots, "GIF", duration=50)
    for limits in (DecodeLimits(max_frames=3), DecodeLimits(max_frames_pixels=4 * 80 * 60 - 1)):
        with pytest.raises(PictureError, match="over"):
            list(images.frames(data, limits))
    with pytest.raises(PictureError, match="more pixels than the limit"):
        list(images.frames(data, DecodeLimits(max_pixels=1000)))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_what_is_cut_short_is_told(shots, format):
    data = saved(shots, format)
    with pytest.raises(PictureError):
        list(images.frames(data[: len(data) * 6 // 10]))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "JPEG", "HEIF"])
def test_stills_hold_one(shots, format):
    stream = io.BytesIO()
    shots[0].save(stream, format)
    assert not images.holds_several(stream.getvalue())
    assert not images.holds_several(b"no picture at all")


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_damaged_bytes_give_frames_or_a_reason(shots, format, tmp_path):
    """Never another exception, be it on reading or on putting together what was read."""
    data = saved(shots[:2], format, **({} if format in ("MPO", "TIFF") else {"duration": 50}))
    rng = np.random.default_rng(0)
    limits = DecodeLimits(max_pixels=1_000_000, max_frames=50)
    refused = 0
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, rng.choice([60, len(data)]), 3):
            damaged[place] = rng.integers(256)
        damaged = bytes(damaged)
        if not images.holds_several(damaged):
            continue
        try:
            coded = [images.encode_frame(frame) for frame in images.frames(damaged, limits)]
            images.put_together(coded, damaged, tmp_path / "after")
        except PictureError:
            refused += 1
    assert refused > 0


def test_the_shape_of_an_animations_pixels(shots, tmp_path):
    data = saved(shots, "GIF", duration=SHOWN)
    assert again(data[:12] + bytes([49]) + data[13:], tmp_path / "copy")[1][12] == 49
    data = saved(shots, "PNG", duration=SHOWN)
    wide = chunk(b"pHYs", struct.pack(">IIB", 16, 11, 0))
    copy = again(data[:33] + wide + data[33:], tmp_path / "copy")[1]
    assert copy.count(wide) == copy.count(b"pHYs") == 1
