"""Tar archives keep what their headers say, of whatever dialect."""

import subprocess
import tarfile
from pathlib import Path

import pytest

from pipelines.media.packings import tarballs
from spair_core import images
from tests.pipelines.media.samples import contents, encoded, link, restored, tar_of, tarball_header


def listed(path: Path):
    with tarfile.open(path) as archive:
        return [
            ({k: v for k, v in info.get_info().items() if k not in ("chksum", "size")}, info.pax_headers)
            for info in archive
        ]


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
