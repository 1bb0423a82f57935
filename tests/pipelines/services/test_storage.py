import pytest

from pipelines.services import storage
from pipelines.services.storage import NothingStoredError, StorageError, StoreUnavailableError


@pytest.fixture(params=["file", "s3"])
def prefix(request, tmp_path, s3):
    return str(tmp_path / "store") if request.param == "file" else s3


def test_objects_come_back_and_are_listed_by_name(prefix):
    for key in ("b.txt", "a/2.txt", "a/1.txt", "c/d/e.txt"):
        storage.write_bytes(storage.join(prefix, key), key.encode())
    listed = list(storage.list_objects(prefix))
    assert [item.key for item in listed] == ["a/1.txt", "a/2.txt", "b.txt", "c/d/e.txt"]
    assert [storage.read_bytes(item.uri).decode() for item in listed] == [item.key for item in listed]
    assert [item.size for item in listed] == [7, 7, 5, 9]
    with storage.open_read(listed[3].uri) as file:
        file.seek(2)
        assert file.read(1) == b"d"


def test_identity_follows_the_content(prefix):
    uri = storage.join(prefix, "x")
    storage.write_bytes(uri, b"one")
    first = next(storage.list_objects(prefix)).identity
    assert next(storage.list_objects(prefix)).identity == first
    storage.write_bytes(uri, b"other")
    assert next(storage.list_objects(prefix)).identity != first


def test_files_travel(prefix, tmp_path):
    local = tmp_path / "local.bin"
    local.write_bytes(b"content")
    storage.upload(local, storage.join(prefix, "sub", "remote.bin"))
    storage.download(storage.join(prefix, "sub", "remote.bin"), tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == b"content"
    storage.delete(storage.join(prefix, "sub"))
    assert not storage.exists(storage.join(prefix, "sub", "remote.bin"))
    storage.delete(storage.join(prefix, "sub"))


def test_copies_within_a_store_and_between_stores(prefix, tmp_path):
    storage.write_bytes(storage.join(prefix, "here"), b"content")
    for target in (storage.join(prefix, "a/there"), str(tmp_path / "elsewhere/there")):
        storage.copy(storage.join(prefix, "here"), target)
        assert storage.read_bytes(target) == b"content"
    with pytest.raises(StorageError, match="nowhere"):
        storage.copy(storage.join(prefix, "nowhere"), storage.join(prefix, "there"))


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
        storage.read_bytes(storage.join(prefix, "nothing/here"))
    with pytest.raises(NothingStoredError, match="nothing is there"):
        list(storage.list_objects(storage.join(prefix, "nothing")))
    storage.write_bytes(storage.join(prefix, "file.txt"), b"x")
    with pytest.raises(StorageError, match="is a file"):
        list(storage.list_objects(storage.join(prefix, "file.txt")))


def test_locations_that_cannot_be(s3):
    with pytest.raises(StorageError, match="scheme"):
        storage.read_bytes("s4://bucket/x")
    with pytest.raises(StorageError, match="two slashes"):
        storage.read_bytes("s3:/bucket/x")
    with pytest.raises(StorageError, match="names no bucket"):
        storage.read_bytes("s3://")
    with pytest.raises(StorageError, match="no-such-bucket"):
        list(storage.list_objects("s3://no-such-bucket/x"))


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
