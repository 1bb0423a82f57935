"""Animations and pages as pieces of work."""

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.media import Encoding, MediumError, medium, medium_in, packed, unpacked
from spair_core.footage import Reach


@pytest.fixture
def shots(photos):
    return [Image.fromarray(np.roll(photos[0][:60, :80], 5 * k, axis=1)) for k in range(12)]


def saved(path, shots, **options):
    shots[0].save(path, save_all=True, append_images=shots[1:], **options)
    return path


def again(path, changed, tmp_path):
    """The same file with some of its frames changed, and all sentences of what was lost."""
    kind, parts, lost, number = medium_in(path), [], [], 0
    for piece in map(unpacked, map(packed, kind.read(path, Reach()))):
        pixels = piece.window.pixels[list(piece.window.own)].copy()
        for frame in pixels:
            frame[:20, :20] += changed(number)
            number += 1
        parts.append(kind.write(piece.state, pixels, Encoding()))
        lost += piece.lost
    target = tmp_path / f"again{path.suffix}"
    return target, [*lost, *kind.join(iter(parts), path, target)]


def test_an_animation_is_footage_and_pages_are_not(shots, tmp_path):
    (run,) = medium("frames").read(saved(tmp_path / "a.gif", shots, duration=40), Reach())
    assert len(run.window.own) == 12
    assert run.window.neighbours[6]
    assert run.seconds == pytest.approx([0.04 * k for k in range(12)])
    pages = list(medium("frames").read(saved(tmp_path / "a.tif", shots), Reach()))
    assert [page.window.neighbours for page in pages] == [((),)] * 12


def test_the_bytes_decide(shots, tmp_path):
    for suffix in (".gif", ".webp", ".tif", ".png"):
        assert medium_in(saved(tmp_path / f"several{suffix}", shots)) is medium("frames")
        assert medium_in(saved(tmp_path / f"one{suffix}", shots[:1])) is medium("picture")
    (tmp_path / "bad.gif").write_bytes(b"GIF89a")
    assert medium_in(tmp_path / "bad.gif") is medium("picture")


def test_a_reader_of_stills_says_so(shots, tmp_path):
    with pytest.raises(MediumError, match="several frames"):
        list(medium("picture").read(saved(tmp_path / "a.gif", shots), None))


@pytest.mark.parametrize("suffix", [".gif", ".png", ".tif"])
def test_frames_in_which_nothing_was_found_are_equal(shots, suffix, tmp_path):
    path = saved(tmp_path / f"a{suffix}", shots)
    target, lost = again(path, lambda number: number % 2, tmp_path)
    assert bool(lost) == (suffix == ".gif")
    one, other = Image.open(path), Image.open(target)
    assert other.n_frames == 12
    for number in range(12):
        one.seek(number)
        other.seek(number)
        same = (np.asarray(one.convert("RGB")) == np.asarray(other.convert("RGB"))).all()
        assert same == (number % 2 == 0)


def test_quality_reaches_what_is_coded_when_all_is_there(shots, tmp_path):
    path = saved(tmp_path / "a.avif", shots, duration=40)
    kind = medium_in(path)
    sizes = []
    for quality in (30, 95):
        pieces = kind.read(path, None)
        parts = [kind.write(piece.state, piece.window.pixels, Encoding(quality)) for piece in pieces]
        kind.join(parts, path, tmp_path / "b.avif")
        sizes.append((tmp_path / "b.avif").stat().st_size)
    assert sizes[0] < sizes[1]


def test_long_animations_come_in_runs(photos, tmp_path):
    shots = [Image.fromarray(np.roll(photos[0][:20, :30], k, axis=1)) for k in range(40)]
    path = saved(tmp_path / "a.webp", shots, duration=40, lossless=True)
    pieces = list(medium("frames").read(path, None))
    assert [len(piece.window.own) for piece in pieces] == [32, 8]
    assert pieces[1].seconds[0] == pytest.approx(32 * 0.04)


def test_what_breaks_on_the_way_is_told(shots, tmp_path):
    stream = io.BytesIO()
    shots[0].save(stream, "TIFF", save_all=True, append_images=shots[1:])
    (tmp_path / "a.tif").write_bytes(stream.getvalue()[:40_000])
    with pytest.raises(MediumError):
        list(medium("frames").read(tmp_path / "a.tif", None))
