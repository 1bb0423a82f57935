"""Archives keep all that was not restored."""

import tarfile

import numpy as np
import pytest

from pipelines.media import EncodeConfig, Encoding, MediumError, archives, clips, medium, packings
from pipelines.media.packings import walk
from spair_core import images
from tests.pipelines.media.samples import compress, contents, encoded, make_archive, restored
from tests.pipelines.media.test_clips import make_clip

ARCHIVE = medium("archive")
ENDINGS = sorted(packings.SUFFIXES)


@pytest.mark.parametrize("ending", ENDINGS)
def test_pictures_are_restored_and_the_rest_is_copied(alone, small, ending):
    source, target = alone / "source" / f"a{ending.upper()}", alone / "target" / f"a{ending}"
    source.parent.mkdir()
    target.parent.mkdir()
    path = source.with_name(f"a{ending}")
    make_archive(path, {"x/1.png": encoded(small), "note.txt": b"text", "2.PNG": encoded(small[::-1])})
    path.rename(source)
    assert restored(source, target) == []
    first, text, second = contents(target)
    assert text == b"text"
    for data, before in ((first, small), (second, small[::-1])):
        assert (images.decode(data).pixels == before ^ 1).all()
    once = target.read_bytes()
    restored(source, target)
    assert target.read_bytes() == once


@pytest.mark.parametrize("ending", [".tar", ".zip"])
def test_where_nothing_changed_the_archive_is_the_same(tmp_path, small, ending):
    source = make_archive(tmp_path / f"a{ending}", {"1.png": encoded(small), "2.bmp": encoded(small, ".bmp")})
    restored(source, tmp_path / f"b{ending}", lambda number, pixels: pixels)
    assert (tmp_path / f"b{ending}").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("ending", [".tar", ".zip"])
def test_without_pictures_there_are_no_pieces(tmp_path, ending):
    for members in ({}, {"note.txt": b"text", "folder.png/x": b""}):
        source = make_archive(tmp_path / f"a{ending}", members)
        assert list(ARCHIVE.read(source, None)) == []


@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_clips_are_joined_where_anything_changed(tmp_path, photos, ending):
    frames = [np.roll(photos[0][:32, :48], k, axis=1) for k in range(40)]
    clip = make_clip(tmp_path / "c.mkv", frames).read_bytes()
    members = {"same.mkv": clip, "1.png": encoded(frames[0]), "one/run.MKV": clip, "cut.mkv": clip[:200]}
    source = make_archive(tmp_path / f"a{ending}", members)
    target = tmp_path / f"b{ending}"
    # Of the pieces 0 and 1 are of the first clip, 2 is the picture, 3 and 4 are of the second clip.
    notes = restored(source, target, lambda number, pixels: pixels if number != 4 else 255 - pixels)
    assert [note.split(": ")[0] for note in notes] == ["cut.mkv"]
    same, picture, changed, cut = contents(target)
    assert (same, picture, cut) == (clip, members["1.png"], clip[:200])
    (tmp_path / "again.mkv").write_bytes(changed)
    again = np.concatenate([piece.window.pixels for piece in clips.read(tmp_path / "again.mkv", None)])
    expected = np.stack([*frames[:32], *(255 - frame for frame in frames[32:])])
    assert np.abs(again.astype(float) - expected).mean() < 6


def test_a_clip_that_breaks_after_a_run_stays_as_it_was(tmp_path, photos, monkeypatch):
    frames = [np.roll(photos[0][:32, :48], k, axis=1) for k in range(70)]
    clip = make_clip(tmp_path / "c.mkv", frames, rate=25).read_bytes()
    source = make_archive(
        tmp_path / "a.zip", {"c.mkv": clip[: len(clip) * 3 // 4], "1.png": encoded(frames[0])}
    )

    def breaks(path, reach, encoding=None):
        yield from list(clips.read(tmp_path / "c.mkv", reach))[:2]
        raise MediumError("broken")

    inner = archives.Archives(
        lambda name: broken if name == "c.mkv" else medium("picture"),
        lambda path: broken if path.suffix == ".mkv" else medium("picture"),
        lambda name: {"broken": broken}.get(name, medium("picture")),
    )
    broken = clips.Medium("broken", frozenset({".mkv"}), breaks, clips.write, clips.join)
    pieces = list(inner.read(source, None))
    assert [piece.state.kind for piece in pieces] == ["broken", "picture"]
    assert [note for piece in pieces for note in piece.notes] == ["c.mkv: copied as it was: broken"]
    parts = [inner.write(piece.state, piece.window.pixels ^ 1, Encoding()) for piece in pieces]
    inner.join(iter(parts), source, tmp_path / "b.zip")
    assert contents(tmp_path / "b.zip")[0] == contents(source)[0]


def test_what_cannot_be_kept_is_told_of_what_was_restored(tmp_path, small, monkeypatch):
    source = make_archive(tmp_path / "a.tar", {"1.png": encoded(small), "2.png": encoded(small)})
    pieces = list(ARCHIVE.read(source, None))
    pieces = [
        archives.inside.replace(p, state=archives.inside.replace(p.state, lost=("no map",))) for p in pieces
    ]
    parts = [ARCHIVE.write(p.state, p.window.pixels ^ k, Encoding()) for k, p in enumerate(pieces)]
    assert list(ARCHIVE.join(iter(parts), source, tmp_path / "b.tar")) == ["2.png: no map"]


def test_what_cannot_be_written_stays_as_it_was(tmp_path, small):
    source = make_archive(tmp_path / "a.tar", {"1.bmp": encoded(small, ".bmp"), "2.png": encoded(small)})

    def deep(number, pixels):
        return pixels.astype(np.uint16) if number == 0 else pixels ^ 1

    (note,) = restored(source, tmp_path / "b.tar", deep)
    assert note.startswith("1.bmp: copied as it was: could not be written: BMP holds no 16 bit")
    one, two = contents(tmp_path / "b.tar")
    assert one == encoded(small, ".bmp")
    assert two != encoded(small)


def test_a_clip_that_cannot_be_written_stays_as_it_was_before_any_work(tmp_path, photos):
    frames = [photos[0][:32, :48]] * 3
    members = {"c.webm": make_clip(tmp_path / "c.webm", frames).read_bytes(), "1.png": encoded(frames[0])}
    source, target = make_archive(tmp_path / "a.zip", members), tmp_path / "b.zip"
    encoding = Encoding(clips=EncodeConfig(codec="prores"))
    (piece,) = ARCHIVE.read(source, None, encoding)
    assert piece.state.kind == "picture"
    (note,) = piece.notes
    assert note.startswith("c.webm: copied as it was: .webm cannot hold prores; --codec source")
    ARCHIVE.join(iter([ARCHIVE.write(piece.state, piece.window.pixels ^ 1, encoding)]), source, target)
    clip, picture = contents(target)
    assert clip == members["c.webm"]
    assert (images.decode(picture).pixels == frames[0] ^ 1).all()
    alone = make_archive(tmp_path / "c.zip", {"c.webm": members["c.webm"]})
    with pytest.raises(
        MediumError, match=r"nothing in it can be restored: c\.webm: \.webm cannot hold prores"
    ):
        list(ARCHIVE.read(alone, None, encoding))


def test_parts_of_another_archive_are_refused(tmp_path, small):
    source = make_archive(tmp_path / "a.tar", {"note.txt": b"", "1.png": encoded(small)})
    other = make_archive(tmp_path / "b.tar", {"1.png": encoded(small)})
    parts = [ARCHIVE.write(p.state, p.window.pixels, Encoding()) for p in ARCHIVE.read(source, None)]
    with pytest.raises(MediumError, match="changed meanwhile"):
        ARCHIVE.join(iter(parts), other, tmp_path / "c.tar")


def test_archives_that_follow_one_another_are_one(tmp_path, small):
    """As `cat` makes them; what is no archive stays behind it."""
    one = make_archive(tmp_path / "a.tar", {"1.png": encoded(small)}).read_bytes()
    two = make_archive(tmp_path / "b.tar", {"2.png": encoded(small)}).read_bytes()
    source = tmp_path / "c.tar"
    source.write_bytes(one + two + b"signature")
    assert restored(source, tmp_path / "d.tar") == [
        "what follows its end mark is no archive, and stays as it is"
    ]
    again = (tmp_path / "d.tar").read_bytes()
    assert again.endswith(bytes(1024) + b"signature")
    with tarfile.open(tmp_path / "d.tar", ignore_zeros=True) as archive:
        assert archive.getnames() == ["1.png", "2.png"]
        for info in archive:
            assert (images.decode(archive.extractfile(info).read()).pixels == small ^ 1).all()


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
def test_streams_that_follow_one_another_are_read_on(tmp_path, small, ending):
    """As parallel compressors write them."""
    whole = make_archive(tmp_path / "a.tar", {"1.png": encoded(small), "2.png": encoded(small)}).read_bytes()
    halves = []
    for half in (whole[:700], whole[700:]):
        path = tmp_path / f"half.tar{ending}"
        path.write_bytes(half)
        compress(path)
        halves.append(path.read_bytes())
    (tmp_path / f"b.tar{ending}").write_bytes(b"".join(halves))
    assert [member.name for member in walk(tmp_path / f"b.tar{ending}")] == ["1.png", "2.png"]


def test_the_kind_of_an_archive_follows_its_bytes(tmp_path, small):
    made = make_archive(tmp_path / "a.tar.gz", {"1.png": encoded(small)})
    for name in ("b.tar", "c.TAR.XZ"):
        made.rename(tmp_path / name)
        made = tmp_path / name
        restored(made, tmp_path / "d.tar")
        assert (tmp_path / "d.tar").read_bytes().startswith(b"\x1f\x8b")
