"""Zip archives keep what their records say, and members that cannot be read."""

import io
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.media import MediumError, medium
from pipelines.media.packings import zips
from spair_core import images
from tests.pipelines.media.samples import encoded, make_archive, restored


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
        list(medium("archive").read(source, None))
