import hashlib
import io
import random

import pytest

from pipelines.services import locations, remote, storage
from pipelines.services.remote import Remote
from pipelines.services.storage import StorageError

MIB = 1 << 20


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(remote, "PART", 5 * MIB)  # a store takes no smaller ones


def test_an_object_is_read_at_any_place_and_little_of_it_is_held(s3, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK", 1000)
    data = random.Random(0).randbytes(20_500)
    storage.write_bytes(f"{s3}/night/drive.mp4", data)
    source = Remote(f"{s3}/night/drive.mp4")
    assert source.suffix == ".mp4"
    for place, length in ((0, 10), (19_990, 510), (995, 20), (20_500, 5), (7_000, 1), (3, 900)):
        with source.open() as file:
            file.seek(place)
            assert file.read(length) == data[place : place + length]
    with source.open() as file:
        assert file.read() == data
        assert file.seek(-5, io.SEEK_END) == 20_495
        assert file.read() == data[-5:]
    ranges = remote._Ranges(source.uri)
    for place in range(0, 20_000, 1000):
        ranges.seek(place)
        ranges.read(1)
    assert len(ranges._blocks) == remote.HELD


def test_what_was_changed_meanwhile_is_told(s3, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK", 1000)
    storage.write_bytes(f"{s3}/a.mp4", bytes(5000))
    ranges = remote._Ranges(f"{s3}/a.mp4")
    storage.write_bytes(f"{s3}/a.mp4", bytes(2500))
    ranges.seek(2000)
    with pytest.raises(StorageError, match=r"a\.mp4: .*changed meanwhile"):
        ranges.read(1)


@pytest.mark.parametrize("size", [0, 10, 5 * MIB, 5 * MIB + 1, 17 * MIB], ids=str)
def test_an_object_is_written_as_its_bytes_come_and_begun_anew_at_its_end(s3, size):
    data = random.Random(size).randbytes(size)
    target = Remote(f"{s3}/dry/drive.mp4")
    expected = bytearray(data)
    with target.create() as file:
        for start in range(0, size, 700_001):
            file.write(data[start : start + 700_001])
        assert file.tell() == size
        if size:
            file.seek(4)
            file.write(b"length")
            expected[4:10] = b"length"
            file.seek(0, io.SEEK_END)
            file.write(b"end")
            expected += b"end"
    assert storage.read_bytes(target.uri) == bytes(expected)
    assert target.digest() == hashlib.sha256(expected).hexdigest()


@pytest.mark.long
@pytest.mark.parametrize("size", [0, 10, 5 * MIB, 5 * MIB + 1, 60 * MIB], ids=str)
def test_parts_are_sent_in_order_where_an_object_is_written_twice(s3, monkeypatch, size):
    data, sent, send = bytearray(random.Random(size).randbytes(size)), [], remote._Upload._send

    def noted(self, number, part):
        sent.append(number)
        send(self, number, part)

    def write(target):
        with target.create() as file:
            for start in range(0, size, 700_001):
                file.write(data[start : start + 700_001])
            file.seek(4)
            file.write(b"length")
        return target.suffix

    monkeypatch.setattr(remote._Upload, "_send", noted)
    assert remote.written(f"{s3}/dry/drive.mp4", write) == ".mp4"
    data[4:10] = b"length" if size else bytes(4) + b"length"
    assert storage.read_bytes(f"{s3}/dry/drive.mp4") == data
    assert sent == list(range(1, len(sent) + 1))


def test_what_comes_out_otherwise_the_second_time_is_not_written(s3):
    beginnings = [b"one", b"another"]

    def write(target):
        with target.create() as file:
            file.write(beginnings.pop())
            file.write(bytes(6 * MIB))

    with pytest.raises(StorageError, match="otherwise the second time"):
        remote.written(f"{s3}/dry/drive.mp4", write)
    assert not storage.exists(f"{s3}/dry/drive.mp4")


def test_of_what_is_broken_off_nothing_is_left(s3):
    target = Remote(f"{s3}/dry/drive.mp4")

    def broken_off():
        with target.create() as file:
            file.write(bytes(12 * MIB))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        broken_off()
    assert not storage.exists(target.uri)
    filesystem, path = locations.resolve(s3)
    begun = filesystem.call_s3("list_multipart_uploads", Bucket=path.partition("/")[0])
    assert not [one for one in begun.get("Uploads", ()) if one["Key"].endswith("dry/drive.mp4")]


def test_what_has_been_sent_cannot_be_written_again(s3):
    target = Remote(f"{s3}/dry/drive.avi")

    def late():
        with target.create() as file:
            file.write(bytes(17 * MIB))
            file.seek(5 * MIB + 10)
            file.write(b"late")

    with pytest.raises(StorageError, match="byte 5242890 cannot be written again"):
        late()
    assert not storage.exists(target.uri)
