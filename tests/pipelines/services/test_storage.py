import errno
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.services import locations, storage
from pipelines.services.storage import NothingStoredError, StorageError, StoreUnavailableError


@pytest.fixture(params=["file", "s3"])
def prefix(request, tmp_path, s3):
    return str(tmp_path / "store") if request.param == "file" else s3


def test_objects_come_back_and_are_listed_by_name(prefix):
    for key in ("b.txt", "a/2.txt", "a/1.txt", "c/d/e.txt"):
        storage.write_bytes(locations.join(prefix, key), key.encode())
    listed = list(storage.list_objects(prefix))
    assert [item.key for item in listed] == ["a/1.txt", "a/2.txt", "b.txt", "c/d/e.txt"]
    assert [storage.read_bytes(item.uri).decode() for item in listed] == [item.key for item in listed]
    assert [item.size for item in listed] == [7, 7, 5, 9]
    with storage.open_read(listed[3].uri) as file:
        file.seek(2)
        assert file.read(1) == b"d"


def test_folders_are_named_without_what_is_in_them(prefix):
    for key in ("b/x", "a/c/y", "file"):
        storage.write_bytes(f"{prefix}/{key}", b"xyz")
    assert storage.folders_in(prefix) == storage.folders_in(f"{prefix}/") == ["a", "b"]
    assert storage.folders_in(f"{prefix}/b") == storage.folders_in(f"{prefix}/nowhere") == []
    assert storage.size_of(f"{prefix}/b/x") == 3


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(StorageError, match=r"pipe\.png: is no file: .* pipe"):
        storage.fetch(str(tmp_path / "pipe.png"), str(tmp_path))
    with pytest.raises(StorageError, match="is no file"):
        storage.read_bytes(str(tmp_path / "pipe.png"))
    with pytest.raises(StorageError, match="is no file"), storage.open_read(str(tmp_path)):
        pass
    with pytest.raises(StorageError, match="not found"):
        storage.fetch(str(tmp_path / "nothing.png"), str(tmp_path))


def test_identity_follows_the_content(prefix):
    uri = locations.join(prefix, "x")
    storage.write_bytes(uri, b"one")
    first = next(storage.list_objects(prefix)).identity
    assert next(storage.list_objects(prefix)).identity == first
    storage.write_bytes(uri, b"other")
    assert next(storage.list_objects(prefix)).identity != first


def test_files_travel(prefix, tmp_path):
    local = tmp_path / "local.bin"
    local.write_bytes(b"content")
    storage.upload(local, locations.join(prefix, "sub", "remote.bin"))
    storage.download(locations.join(prefix, "sub", "remote.bin"), tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == b"content"
    storage.delete_below(locations.join(prefix, "sub"))
    assert not storage.exists(locations.join(prefix, "sub", "remote.bin"))
    storage.delete_below(locations.join(prefix, "sub"))


@pytest.mark.parametrize("folder", ["night", "night[1]", "n*"])
def test_what_is_removed_is_what_was_named(prefix, folder):
    """Names are no patterns, and of an object that others lie below only itself is removed."""
    there = locations.join(prefix, folder)
    keys = ["photo[1].png", "photo1.png", "cam*.jpg", "cam7.jpg", "sub/x?.png", "sub/xy.png"]
    for key in keys:
        storage.write_bytes(locations.join(there, key), b"x")
    storage.check_writable(there)

    def left():
        return [item.key for item in storage.list_objects(there)]

    for key in ("photo[1].png", "cam*.jpg", "sub/x?.png", "nothing[1].png"):
        storage.delete(locations.join(there, key))
    assert left() == ["cam7.jpg", "photo1.png", "sub/xy.png"]
    storage.write_bytes(locations.join(prefix, "night1", "other"), b"x")
    storage.delete_below(there)
    assert storage.exists(locations.join(prefix, "night1", "other"))
    assert not storage.exists(locations.join(there, "cam7.jpg"))


def test_two_may_remove_the_same(prefix, monkeypatch):
    uri = locations.join(prefix, "x")
    storage.write_bytes(uri, b"x")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(storage.delete, [uri] * 8)) == [None] * 8


def test_what_is_fetched_keeps_its_ending(tmp_path):
    for name, ending in (
        ("a.b.JPG", ".JPG"),
        ("x.tar.gz", ".tar.gz"),
        ("x.Tar.Zst", ".Tar.Zst"),
        ("none", ""),
    ):
        storage.write_bytes(str(tmp_path / name), b"x")
        assert storage.fetch(str(tmp_path / name), str(tmp_path)).name == f"source{ending}"


def test_copies_within_a_store_and_between_stores(prefix, tmp_path):
    storage.write_bytes(locations.join(prefix, "here"), b"content")
    for target in (locations.join(prefix, "a/there"), str(tmp_path / "elsewhere/there")):
        storage.copy(locations.join(prefix, "here"), target)
        assert storage.read_bytes(target) == b"content"
    with pytest.raises(StorageError, match="nowhere"):
        storage.copy(locations.join(prefix, "nowhere"), locations.join(prefix, "there"))


def test_a_local_write_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    target = tmp_path / "x"
    target.write_bytes(b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(StorageError, match="disk full"):
        storage.write_bytes(str(target), b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert target.read_bytes() == b"old"


def test_what_is_missing_is_named(prefix):
    with pytest.raises(StorageError, match=r"nothing/here.*not found"):
        storage.read_bytes(locations.join(prefix, "nothing/here"))
    with pytest.raises(NothingStoredError, match="nothing is there"):
        list(storage.list_objects(locations.join(prefix, "nothing")))
    storage.write_bytes(locations.join(prefix, "file.txt"), b"x")
    with pytest.raises(StorageError, match="is a file"):
        list(storage.list_objects(locations.join(prefix, "file.txt")))


def test_a_wrong_secret_is_refused_with_the_remedy(s3, monkeypatch, fresh_clients):
    storage.write_bytes(f"{s3}/x", b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    fresh_clients()
    with pytest.raises(StorageError, match=r"AWS_SECRET_ACCESS_KEY.*s3:GetObject"):
        storage.read_bytes(f"{s3}/x")


def test_no_server_is_an_error_and_no_wait(s3, monkeypatch, fresh_clients):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreUnavailableError, match="AWS_ENDPOINT_URL"):
        storage.read_bytes(f"{s3}/x")


def half_written(number):
    """What a write gives on a disk that fills up in the middle of it."""

    def write(path, data):
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(number, os.strerror(number), str(path))

    return write


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "no space left at .*: free some"),
        (errno.EDQUOT, "quota at .* is used up: free some"),
        (errno.EROFS, "read-only file system: mount it"),
        (errno.EACCES, "may not do this at .*: change its owner or mode"),
    ],
)
def test_a_destination_that_takes_nothing_says_why(tmp_path, monkeypatch, number, remedy):
    (tmp_path / "x").write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", half_written(number))
    with pytest.raises(StorageError, match=remedy):
        storage.write_bytes(str(tmp_path / "x"), b"new content")
    with pytest.raises(StorageError, match=remedy):
        storage.check_writable(str(tmp_path))
    assert (tmp_path / "x").read_bytes() == b"old"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "x"]


@pytest.fixture
def files_of_at_most_100_kb():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_breaks_off_leaves_no_half_file(tmp_path, s3, files_of_at_most_100_kb):
    """Written by the system itself, up to its limit."""
    source = tmp_path / "source"
    source.write_bytes(bytes(100_000))
    storage.write_bytes(f"{s3}/large", bytes(100_001))
    target = str(tmp_path / "out" / "x")
    for write in (
        lambda: storage.write_bytes(target, bytes(100_001)),
        lambda: storage.copy(f"{s3}/large", target),
        lambda: storage.download(f"{s3}/large", Path(target)),
    ):
        with pytest.raises(StorageError, match="too large"):
            write()
    assert list((tmp_path / "out").iterdir()) == []
    storage.upload(source, target)
    assert Path(target).read_bytes() == bytes(100_000)


def test_a_full_folder_for_temporary_files_is_not_taken_for_the_store(tmp_path, s3, monkeypatch):
    storage.write_bytes(f"{s3}/x", b"x")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(locations.resolve(s3)[0], "get_file", full)
    with pytest.raises(StorageError, match=rf"^no space left at {tmp_path}.*TMPDIR"):
        storage.fetch(f"{s3}/x", str(tmp_path))


def test_a_destination_is_tried_and_left_as_it_was(prefix):
    storage.check_writable(prefix)
    storage.write_bytes(locations.join(prefix, "x"), b"x")
    storage.check_writable(prefix)
    assert [item.key for item in storage.list_objects(prefix)] == ["x"]
    with pytest.raises(StorageError, match=r"^/dev/null is below a file"):
        storage.check_writable("/dev/null")


def test_an_empty_source_is_told_apart(prefix, tmp_path):
    storage.write_bytes(locations.join(prefix, "here", "x"), b"x")
    storage.check_source(prefix)
    with pytest.raises(NothingStoredError, match="nothing is there"):
        storage.check_source(locations.join(prefix, "nowhere"))
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    with pytest.raises(NothingStoredError, match="is empty"):
        storage.check_source(str(tmp_path / "empty"))


def test_what_is_listed_is_found_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    (found,) = storage.list_objects("raw")
    monkeypatch.chdir("/")
    assert storage.read_bytes(found.uri) == b"1"
    with pytest.raises(StorageError, match="two slashes after its scheme"):
        next(storage.list_objects("s3:bucket/x"))


def test_names_of_any_bytes_are_listed_as_text(tmp_path):
    for name in (b"caf\xe9.png", b"caf\xe9/z.png", "café.png".encode(), b"d.png"):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x")
    listed = list(storage.list_objects(str(tmp_path)))
    keys = [item.key for item in listed]
    assert keys == sorted(keys) == ["caf\\udce9.png", "caf\\udce9/z.png", "café.png", "d.png"]
    assert {storage.read_bytes(item.uri) for item in listed} == {b"x"}
    assert [locations.is_text(item.uri) for item in listed] == [False, False, True, True]


def test_a_subfolder_that_cannot_be_listed_ends_no_listing(tmp_path, monkeypatch):
    for name in ("a/x.png", "gone/x.png", "lost+found/x.png", "z.png"):
        storage.write_bytes(str(tmp_path / name), b"x")
    filesystem = locations.resolve(str(tmp_path))[0]
    ls = filesystem.ls

    def refusing(path, **options):
        if path.endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        if path.endswith("gone"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return ls(path, **options)

    monkeypatch.setattr(filesystem, "ls", refusing)
    assert [item.key for item in storage.list_objects(str(tmp_path))] == ["a/x.png", "lost+found", "z.png"]
    with pytest.raises(StorageError, match=r"lost\+found: change its owner or mode"):
        list(storage.list_objects(str(tmp_path / "lost+found")))


def test_a_link_is_as_new_as_what_it_leads_to(tmp_path):
    (tmp_path / "raw").mkdir()
    target = tmp_path / "target.png"
    target.write_bytes(b"1")
    (tmp_path / "raw" / "link.png").symlink_to(target)

    def listed():
        (item,) = storage.list_objects(str(tmp_path / "raw"))
        return item.identity, item.modified.timestamp()

    os.utime(target, (1000, 1000))
    first = listed()
    os.utime(target, (2000, 2000))
    assert (first[1], listed()[1]) == (1000, 2000)
    assert listed()[0] != first[0]
