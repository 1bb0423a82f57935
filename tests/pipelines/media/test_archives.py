"""Archives keep all that was not restored."""

import io
import stat
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zstandard

from pipelines.media import EncodeConfig, Encoding, MediumError, archives, clips, medium, packings
from pipelines.media.packings import tarballs, walk, zips
from spair_core import images
from tests.pipelines.media.samples import compress, encoded, link, make_archive, tar_of, tarball_header
from tests.pipelines.media.test_clips import make_clip

ARCHIVE = medium("archive")
ENDINGS = sorted(packings.SUFFIXES)


def restored(source: Path, target: Path, change=lambda number, pixels: pixels ^ 1):
    """Restore an archive, with `change` in place of a model; what was noted of it."""
    notes, parts = [], []
    for number, piece in enumerate(ARCHIVE.read(source, None)):
        notes += piece.notes
        parts.append(ARCHIVE.write(piece.state, change(number, piece.window.pixels), Encoding()))
    return [*notes, *ARCHIVE.join(iter(parts), source, target)]


def listed(path: Path):
    with tarfile.open(path) as archive:
        return [
            ({k: v for k, v in info.get_info().items() if k not in ("chksum", "size")}, info.pax_headers)
            for info in archive
        ]


def contents(path: Path):
    """Of every regular member, in order."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return [archive.read(info) for info in archive.infolist()]
    data = io.BytesIO(path.read_bytes())
    if path.suffix.endswith("zst"):
        data = io.BytesIO(zstandard.ZstdDecompressor().stream_reader(data).read())
    with tarfile.open(fileobj=data) as archive:
        return [archive.extractfile(info).read() for info in archive if info.isfile()]


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


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_keeps_what_its_headers_say(tmp_path, small, format):
    picture = tarfile.TarInfo("deep/" * (30 if format != tarfile.USTAR_FORMAT else 5) + "1.png")
    picture.mode, picture.uid, picture.uname, picture.mtime = 0o640, 1234, "anna", 1234567890
    folder, odd = tarfile.TarInfo("deep"), tarfile.TarInfo(b"caf\xe9.txt".decode("utf-8", "surrogateescape"))
    folder.type, folder.mode = tarfile.DIRTYPE, 0o750
    if format == tarfile.PAX_FORMAT:
        picture.mtime = 1234567890.25
        picture.pax_headers = {"comment": "by hand", "SCHILY.xattr.user.x": "1"}
    source = tar_of(
        tmp_path / "a.tar",
        (folder, b""),
        (picture, encoded(small)),
        link("deep/link.png", "deep/deep/1.png"),
        link("deep/up.png", "../other.png"),
        link("hard.png", picture.name[:99], tarfile.LNKTYPE),
        (odd, b"text"),
        ("same.png", encoded(small)),
        ("same.png", encoded(small[::-1])),
        format=format,
    )
    assert restored(source, tmp_path / "b.tar") == []
    assert listed(tmp_path / "b.tar") == listed(source)
    one, two, three, four = contents(tmp_path / "b.tar")
    assert two == b"text"
    for data, pixels in ((one, small), (three, small), (four, small[::-1])):
        assert (images.decode(data).pixels == pixels ^ 1).all()
    assert (tmp_path / "b.tar").stat().st_size % tarfile.RECORDSIZE == 0


def test_a_size_that_posix_headers_say_follows(tmp_path, small):
    """As of members that are too large for octal digits."""
    data = encoded(small)
    size = tarball_header("1.png", len(data), extra={b"size": b"%d" % len(data)})
    source = tmp_path / "a.tar"
    source.write_bytes(size + data + bytes(-len(data) % 512) + bytes(1024))
    restored(source, tmp_path / "b.tar")
    (again,) = contents(tmp_path / "b.tar")
    assert (images.decode(again).pixels == small ^ 1).all()
    with tarfile.open(tmp_path / "b.tar") as archive:
        assert archive.next().pax_headers["size"] == str(len(again))


def test_sizes_beyond_octal_digits():
    block = tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)
    for size in (0, 8**11 - 1, 8**11, 1 << 50):
        assert tarfile.TarInfo.frombuf(tarballs._with_size(block, size), "utf-8", "strict").size == size


@pytest.mark.skipif(subprocess.call(["which", "tar"], stdout=subprocess.DEVNULL), reason="needs tar")
@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_sparse_files_stay_sparse(tmp_path, small, format):
    with (tmp_path / "hole.png").open("wb") as file:
        file.truncate(1 << 20)
        file.write(b"start")
        file.seek(1 << 19)
        file.write(b"middle")
    (tmp_path / "1.png").write_bytes(encoded(small))
    command = ["tar", "-S", f"--format={format}", "-cf", "a.tar", "hole.png", "1.png"]
    subprocess.run(command, cwd=tmp_path, check=True)
    (note,) = restored(tmp_path / "a.tar", tmp_path / "b.tar")
    assert note == "hole.png: copied as it was: sparse files are not read"
    assert (tmp_path / "b.tar").stat().st_size < 1 << 17
    hole, picture = contents(tmp_path / "b.tar")
    assert hole == (tmp_path / "hole.png").read_bytes()
    assert (images.decode(picture).pixels == small ^ 1).all()


class _Unseekable(io.RawIOBase):
    def __init__(self, file):
        self.file = file

    def writable(self):
        return True

    def write(self, data):
        return self.file.write(data)


def zip_of(path: Path, small, streamed=False) -> Path:
    """With all that a zip's records may say of their members."""
    with path.open("wb") as file, zipfile.ZipFile(_Unseekable(file) if streamed else file, "w") as archive:
        archive.comment = b"of the archive"
        for number, method in enumerate((0, 8, 12, 14)):
            info = zipfile.ZipInfo(f"p/{number}.png", (2020, 2, 3, 4, 5, 6))
            info.compress_type, info.comment, info.create_system = method, b"comment %d" % number, 3
            info.external_attr, info.extra = (stat.S_IFREG | 0o640) << 16, struct.pack("<2HL", 0x5455, 4, 7)
            with archive.open(info, "w", force_zip64=number == 1) as out:
                out.write(encoded(small))
        archive.writestr(zipfile.ZipInfo("p/"), b"")
        archive.writestr(zipfile.ZipInfo("note.txt"), b"text")
        archive.writestr(zipfile.ZipInfo("\u5bb6.txt"), b"utf-8")
        archive.writestr(zipfile.ZipInfo("XX.txt"), b"other")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("note.txt", b"again", zipfile.ZIP_DEFLATED)
    # Two bytes that are no UTF-8, as Japanese zips have them.
    path.write_bytes(path.read_bytes().replace(b"XX.txt", b"\x89\xc6.txt"))
    return path


@pytest.mark.parametrize("streamed", [False, True])
def test_a_zip_keeps_what_its_records_say(tmp_path, small, streamed):
    source = zip_of(tmp_path / "a.zip", small, streamed)
    restored(source, tmp_path / "b.zip", lambda number, pixels: pixels ^ (number > 0))
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(tmp_path / "b.zip") as after:
        assert after.testzip() is None
        assert after.comment == before.comment
        for one, two in zip(before.infolist(), after.infolist(), strict=True):
            for name in ("orig_filename", "compress_type", "comment", "external_attr", "date_time", "extra",
                         "create_system", "internal_attr"):  # fmt: skip
                assert getattr(one, name) == getattr(two, name), name
            if one.filename in ("p/1.png", "p/2.png", "p/3.png"):
                assert (images.decode(after.read(two)).pixels == small ^ 1).all()
            else:
                assert (after.read(two), two.flag_bits) == (before.read(one), one.flag_bits)
    assert (tmp_path / "b.zip").read_bytes().count(b"\x89\xc6.txt") == 2


def test_records_of_more_than_32_bits(tmp_path, small, monkeypatch):
    """With a limit that small files pass: every size and place is then told in 64 bits."""
    source = zip_of(tmp_path / "a.zip", small)
    monkeypatch.setattr(zips, "MAX32", 600)
    with (
        (tmp_path / "b.zip").open("wb") as out,
        source.open("rb") as file,
        zipfile.ZipFile(source) as archive,
    ):
        entries = zips._directory(file, archive)
        spans = zips._spans(file, entries, archive.start_dir)
        lines = [zips._written(file, out, entries[n], spans[n], None) for n in range(len(entries))]
        zips._close(out, lines, b"")
    monkeypatch.undo()
    # What stands for a size told elsewhere is this number in every other reader.
    data = bytearray((tmp_path / "b.zip").read_bytes())
    start = data.rindex(b"PK\5\6")
    struct.pack_into("<L", data, start + 16, 0xFFFFFFFF)
    at = data.index(b"PK\1\2")
    while data[at : at + 4] == b"PK\1\2":
        fields = zips.CENTRAL.unpack_from(data, at)
        for offset, value in ((20, fields[8]), (24, fields[9]), (42, fields[16])):
            if value == 600:
                struct.pack_into("<L", data, at + offset, 0xFFFFFFFF)
        at += zips.CENTRAL.size + sum(fields[10:13])
    (tmp_path / "c.zip").write_bytes(data)
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(tmp_path / "c.zip") as after:
        assert [after.read(info) for info in after.infolist()] == [
            before.read(info) for info in before.infolist()
        ]


def encrypted(path: Path, name: str) -> None:
    """Mark a member as if it was: nobody can read it without a password then."""
    marked(path, name, 6, 1, 8)


def marked(path: Path, name: str, local: int, value: int, central: int) -> None:
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
        at = archive.start_dir
    struct.pack_into("<H", data, info.header_offset + local, value)
    while data[at + 46 : at + 46 + len(name)] != name.encode():
        at = data.index(b"PK\1\2", at + 4)
    struct.pack_into("<H", data, at + central, value)
    path.write_bytes(data)


def test_members_that_cannot_be_read_are_copied_and_named(tmp_path, small):
    names = ["0.png", "1.png", "2.png", "3.png", "ok.png", "inner.zip", "t.parquet", "._ok.png"]
    source = make_archive(tmp_path / "a.zip", {name: encoded(np.roll(small, 1, 1)) for name in names})
    encrypted(source, "0.png")
    marked(source, "1.png", 8, 93, 10)
    with zipfile.ZipFile(source) as archive:
        start = archive.getinfo("2.png").header_offset
    data = bytearray(source.read_bytes())
    data[start + 300] ^= 255
    source.write_bytes(data)
    target = tmp_path / "b.zip"
    notes = restored(source, target, lambda number, pixels: pixels ^ 1)
    assert [note.split(": ")[:2] for note in notes] == [
        ["0.png", "copied as it was"],
        ["1.png", "copied as it was"],
        ["2.png", "copied as it was"],
        ["inner.zip", "copied as it was"],
        ["t.parquet", "copied as it was"],
    ]
    assert "encrypted" in notes[0]
    assert "method 93" in notes[1]
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target) as after:
        for one, two in zip(before.infolist(), after.infolist(), strict=True):
            raw = [
                path.read_bytes()[info.header_offset :][: 30 + len(info.filename) + info.compress_size]
                for path, info in ((source, one), (target, two))
            ]
            assert (raw[0] == raw[1]) == (one.filename not in ("3.png", "ok.png")), one.filename


def test_an_archive_of_which_nothing_can_be_read_is_refused(tmp_path, small):
    source = make_archive(tmp_path / "a.zip", {"1.png": encoded(small), "note.txt": b""})
    encrypted(source, "1.png")
    with pytest.raises(MediumError, match=r"1\.png: it is encrypted"):
        list(ARCHIVE.read(source, None))


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
