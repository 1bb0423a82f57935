"""What archives may not do: lead out, name devices, swell, or end before their end."""

import stat
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from pipelines.media import MediumError, medium, packings
from pipelines.media.packings import Limits, PackingError, tarballs, walk
from pipelines.media.packings.packing import Guard
from tests.pipelines.media.samples import encoded, link, make_archive, tar_of, tarball_header

ARCHIVE = medium("archive")
ENDINGS = sorted(packings.SUFFIXES)
EVIL = [
    "../evil.png",
    "/abs.png",
    "a/../../evil.png",
    "C:\\evil.png",
    "c:evil.png",
    "..\\evil.png",
    "a\\..\\b.png",
]
HOSTILE = [
    *(pytest.param(".tar", (name, b""), id=f"tar {name}") for name in EVIL),
    *(pytest.param(".zip", (name, b""), id=f"zip {name}") for name in EVIL),
    pytest.param(".tar", link("l", "/etc/passwd"), id="absolute link"),
    pytest.param(".tar", link("a/l", "../../x"), id="link upwards"),
    pytest.param(".tar", link("a/l", "b/../../../x"), id="link upwards within"),
    pytest.param(".tar", link("l", "../x", tarfile.LNKTYPE), id="hard link upwards"),
    pytest.param(".tar", link("l", "/etc/passwd", tarfile.LNKTYPE), id="absolute hard link"),
    pytest.param(".tar", link("l", "C:/x"), id="link to a drive"),
    pytest.param(".zip", link("l", "/etc/passwd"), id="absolute link in a zip"),
    pytest.param(".zip", link("a/l", "../../x"), id="link upwards in a zip"),
]


@pytest.mark.parametrize(("ending", "member"), HOSTILE)
def test_what_leads_out_is_refused(alone, small, monkeypatch, ending, member):
    (alone / "source").mkdir()
    source = alone / "source" / f"a{ending}"
    if ending == ".tar":
        tar_of(source, ("ok.png", encoded(small)), member)
    else:
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("ok.png", encoded(small))
            name, target = (
                (member[0], "") if isinstance(member[0], str) else (member[0].name, member[0].linkname)
            )
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (stat.S_IFLNK | 0o777) << 16 if target else 0
            archive.writestr(info, target)
    with pytest.raises(MediumError, match="is refused"):
        list(ARCHIVE.read(source, None))
    with pytest.raises(MediumError, match="is refused"):
        ARCHIVE.join(iter([]), source, alone / "target")
    # Nothing but the guard refuses them.
    monkeypatch.setattr(Guard, "admit", lambda *_, **__: None)
    assert len(list(ARCHIVE.read(source, None))) == 1


@pytest.mark.parametrize("type", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path, small, type, monkeypatch):
    source = tar_of(tmp_path / "a.tar", link("device", "", type), ("ok.png", encoded(small)))
    with pytest.raises(MediumError, match="device is refused"):
        list(ARCHIVE.read(source, None))
    monkeypatch.setattr(tarballs, "DEVICES", ())
    assert len(list(ARCHIVE.read(source, None))) == 1


def test_names_that_pass_through_a_link_are_refused(tmp_path, small):
    for members in ([link("d", "e"), ("D/1.png", encoded(small))], [link("d", "e"), link("d/l", "../x")]):
        with pytest.raises(MediumError, match="passes through a link"):
            list(ARCHIVE.read(tar_of(tmp_path / "a.tar", *members), None))


@pytest.mark.parametrize("key", ["path", "linkpath", "GNU.sparse.name"])
def test_no_other_header_may_name_what_the_guard_would_refuse(tmp_path, key):
    source = tmp_path / "a.tar"
    type = b"2" if key == "linkpath" else b"0"
    header = tarball_header("fine.png", 0, {key.encode(): b"../evil"}, type, "fine")
    source.write_bytes(header + bytes(1024))
    with pytest.raises(PackingError, match="is refused"):
        list(walk(source))


def test_a_header_for_all_members_may_not_name_them(tmp_path):
    source = tmp_path / "a.tar"
    with tarfile.open(source, "w", format=tarfile.PAX_FORMAT, pax_headers={"path": "x"}):
        pass
    with pytest.raises(PackingError, match="for all members"):
        list(walk(source))
    with tarfile.open(source, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as archive:
        archive.addfile(tarfile.TarInfo("x"))
    assert [member.name for member in walk(source)] == ["x"]


def test_members_of_a_zip_have_one_name_and_do_not_overlap(tmp_path, small):
    source = make_archive(tmp_path / "a.zip", {"1.png": encoded(small), "2.png": encoded(small)})
    assert len(list(walk(source))) == 2
    data = source.read_bytes()
    source.write_bytes(data.replace(b"1.png", b"3.png", 1))
    with pytest.raises(PackingError, match="two names"):
        list(walk(source))
    with zipfile.ZipFile(make_archive(source, {"1.png": b"a" * 99, "1.pnh": b"a" * 99})) as archive:
        start = archive.start_dir
    again = bytearray(source.read_bytes())
    second = again.index(b"PK\1\2", start + 4)
    struct.pack_into("<L", again, second + 42, 0)
    source.write_bytes(again)
    with pytest.raises(PackingError, match="overlaps"):
        list(walk(source))


@pytest.mark.parametrize("ending", [".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2", ".zip"])
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(members=1), "more than 1 members"),
        (Limits(member_bytes=999_999), "says it has 1,000,000 bytes"),
        (Limits(all_bytes=1_000_000), "more than 1,000,000 bytes"),
        (Limits(ratio=20, free_bytes=100_000), "as a bomb"),
        (Limits(ratio=20), None),
        (Limits(ratio=9000, free_bytes=0), None),
    ],
)
def test_bombs_are_refused(tmp_path, ending, limits, reason):
    source = make_archive(tmp_path / f"a{ending}", {"zeros.png": bytes(1_000_000), "x": b"text"})
    if reason is None:
        assert len(list(walk(source, limits=limits))) == 2
        return
    with pytest.raises(PackingError, match=reason):
        list(walk(source, limits=limits))


def test_what_xz_asks_of_memory_is_bounded(tmp_path, monkeypatch):
    source = make_archive(tmp_path / "a.tar.xz", {"note.txt": b"text"})
    assert len(list(walk(source))) == 1
    monkeypatch.setattr("pipelines.media.packings.streams.XZ_MEMORY", 1 << 20)
    with pytest.raises(PackingError, match="emory"):
        list(walk(source))


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_cut_short_is_refused(tmp_path, small, ending):
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    source = make_archive(tmp_path / f"a{ending}", {"1.png": encoded(noise), "2.png": encoded(noise)})
    data = source.read_bytes()
    for share in (0.1, 0.4, 0.5, 0.9) if ending != ".tar" else (0.1, 0.45, 0.5):
        source.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(MediumError, match=r"cut short|missing|ended"):
            list(ARCHIVE.read(source, None))


def test_a_tar_without_its_end_mark_is_cut_short(tmp_path):
    source = tmp_path / "a.tar"
    source.write_bytes(tarball_header("1.txt", 3) + b"abc" + bytes(509))
    with pytest.raises(PackingError, match="end mark"):
        list(walk(source))
