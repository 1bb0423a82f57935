import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipelines.services import locations, storage
from pipelines.services.storage import StorageError


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.jpg", ".jpg"),
        ("b.c/a.JPG", ".JPG"),
        ("a.b.tar.gz", ".tar.gz"),
        ("A.TAR.zst", ".TAR.zst"),
        ("...png", ".png"),
        ("..tar.gz", ".tar.gz"),
        ("b.c/a", ""),
        (".png", ""),
    ],
)
def test_the_ending_of_a_name(name, ending):
    assert locations.ending_of(f"s3://bucket/{name}") == ending


def test_names_as_those_of_files_are_each_another():
    keys = ("a/b.png", "a_b.png", "a~b.png", "a/b/c", "a~b/c", "a/b~c")
    assert len({locations.as_file_name(key) for key in keys}) == len(keys)


def test_a_long_name_is_cut_to_one_of_a_file_and_stays_its_own():
    assert locations.as_file_name("cam1/a b.png") == "cam1~a b.png"
    one, other = (locations.as_file_name("☔" * 300 + end) for end in ("a", "b"))
    assert one != other
    assert max(len(name.encode()) for name in (one, other)) <= locations.LONGEST_NAME


@pytest.mark.parametrize("key", ["/a.png", "a//b.png", "./a.png", "a/../b.png", "..", "../../a.png", "a/"])
def test_names_that_lead_elsewhere_in_folders(key):
    assert not locations.is_path(key)
    assert locations.is_path("...png")
    assert locations.is_path("a/..b/c.png")


def test_locations_that_cannot_be(s3):
    with pytest.raises(StorageError, match="scheme"):
        storage.read_bytes("s4://bucket/x")
    with pytest.raises(StorageError, match="two slashes"):
        storage.read_bytes("s3:/bucket/x")
    with pytest.raises(StorageError, match="names no bucket"):
        storage.read_bytes("s3://")
    with pytest.raises(StorageError, match="names no bucket"):
        storage.read_bytes("s3:///x")
    with pytest.raises(StorageError, match=r"an empty name; write \. for"):
        storage.read_bytes("")
    with pytest.raises(StorageError, match="github:// needs to be told more"):
        storage.read_bytes("github://a/b")
    with pytest.raises(StorageError, match=r"ftp://127\.0\.0\.1:9/x: the store cannot be reached"):
        storage.read_bytes("ftp://127.0.0.1:9/x")
    with pytest.raises(StorageError, match="no-such-bucket"):
        list(storage.list_objects("s3://no-such-bucket/x"))


def test_other_schemes_are_read_as_fsspec_does(tmp_path):
    (tmp_path / "a b.txt").write_bytes(b"hello")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("in/a.txt", b"packed")
    assert storage.read_bytes(f"zip://in/a.txt::{tmp_path}/x.zip") == b"packed"
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            place = f"http://127.0.0.1:{server.server_port}/a%20b.txt"
            assert (storage.read_bytes(place), storage.size_of(place)) == (b"hello", 5)
        finally:
            server.shutdown()


def test_an_absolute_location_is_that_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locations.absolute("raw") == f"{tmp_path}/raw"
    for uri in ("/a/b", "s3://a/b", "models:/a@b"):
        assert locations.absolute(uri) == uri
    assert locations.absolute("file:///a%20b") == "/a b"


@pytest.mark.parametrize("key", ["a#1.png", "b?x.png", "c%41.png", "%2e%2e/esc.png", "a b.png"])
def test_names_below_a_file_uri_are_those_of_files(tmp_path, key):
    place = f"file://{tmp_path}/with%20space"
    storage.write_bytes(locations.join(place, key), key.encode())
    assert (tmp_path / "with space" / key).read_bytes() == key.encode()
    assert [item.key for item in storage.list_objects(place)] == [key]
    (item,) = storage.list_objects(place)
    assert storage.read_bytes(item.uri) == key.encode()


def test_a_link_to_a_place_overlaps_it(tmp_path, s3):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    here = str(tmp_path / "in")
    for other in (tmp_path / "link", tmp_path / "link" / "sub", tmp_path / "in" / ".." / "in"):
        assert locations.overlap(here, str(other))
        assert locations.overlap(f"file://{other}", here)
    assert not locations.overlap(here, str(tmp_path / "input"))
    assert not locations.overlap(here, f"memory://{here}")
    assert locations.overlap(s3, f"{s3}/below")


def test_an_endpoint_without_a_scheme_is_named(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9")
    with pytest.raises(StorageError, match=r"AWS_ENDPOINT_URL is '127.0.0.1:9': write http://"):
        locations.resolve("s3://bucket/x")
