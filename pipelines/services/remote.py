"""Objects of a store that are too large for a local disk: read by ranges, written as their bytes come.

What is written may go back to its beginning alone, as the muxers of most containers do when they know at
last how much has become of it. Not every store takes the first part of an upload last (rclone's gateway wants
them in order), so what is large is written twice: once for its beginning, and then it is sent (`written`).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from pipelines.services import locations, storage
from pipelines.services.storage import StorageError

Written = TypeVar("Written")

BLOCK = 8 << 20
"""Bytes of a range."""
HELD = 6
"""Ranges in memory: a file's pictures, its sound and its index are read in turn."""
LARGE = 64 << 20
"""Larger ones do not come to this machine's disk."""
PART = 32 << 20
"""Bytes of a part of an upload; S3 takes 10,000 of them."""


@dataclass(frozen=True)
class Remote:
    """An object, as a file: `open` reads it where it is, `create` writes it whole or not at all."""

    uri: str
    beginning: bytes = b""
    """Its first PART bytes as they will be, where they are known before the others: they are sent first."""

    @property
    def suffix(self) -> str:
        """The ending of its name, with its dot."""
        return locations.ending_of(self.uri)

    def open(self) -> io.BufferedReader:
        """A seekable file of the object as it is now. Raises StorageError, also while it is read."""
        return io.BufferedReader(_Ranges(self.uri), 1 << 20)

    @contextmanager
    def create(self) -> Iterator[BinaryIO]:
        """A file to write: there when the block ends, and not where it raises. Raises StorageError."""
        upload = _Upload(self.uri, self.beginning)
        try:
            yield cast(BinaryIO, upload)
            upload.finish()
        except BaseException:
            upload.abort()
            if upload.fault is not None:  # whoever writes may only know that it could not
                raise upload.fault from None
            raise

    def digest(self) -> str:
        """SHA-256 of its bytes. Raises StorageError."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def written(uri: str, write: Callable[[Remote | Beginning], Written]) -> Written:
    """What `write` gives, having written an object to the target that it is given; it is called twice, and
    must write the same. Raises StorageError, also where it does not."""
    beginning = Beginning(Remote(uri).suffix)
    with suppress(_KnownError):
        write(beginning)
    return write(Remote(uri, bytes(beginning.data)))


class _KnownError(Exception):
    """The beginning of an object is known."""


class Beginning:
    """A file of which only the first PART bytes are kept. When it has been written `create` raises an error,
    for there is no such file to go on with."""

    def __init__(self, suffix: str) -> None:
        self.suffix, self.data = suffix, bytearray()

    def open(self) -> io.BufferedReader:
        """Raises FileNotFoundError."""
        raise FileNotFoundError("of an object that is yet to be written there is nothing to read")

    @contextmanager
    def create(self) -> Iterator[BinaryIO]:
        """A file to write."""
        file = _Parts("its beginning", lambda part: None)
        yield cast(BinaryIO, file)
        self.data = file.first
        raise _KnownError


def stays(uri: str, size: int, endings: frozenset[str]) -> bool:
    """Whether an object is used where it is: it is large, elsewhere, and its name ends so."""
    return size > LARGE and Remote(uri).suffix.lower() in endings and not locations.is_local(uri)


@contextmanager
def at_hand(uri: str, size: int, endings: frozenset[str]) -> Iterator[Path | Remote]:
    """An object's file: a copy, or itself where it `stays`.

    Raises StorageError, also where it does not have the `size` that it was listed with.
    """
    if stays(uri, size, endings):
        found = storage.size_of(uri)
        if found != size:
            raise StorageError(
                f"{uri}: has {found} bytes, {size} were listed: it was changed meanwhile; try again"
            )
        yield Remote(uri)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield storage.fetch(uri, folder, size)


def writable(uri: str) -> bool:
    """Whether an object there can be written as it comes."""
    return uri.partition("://")[0] in locations.S3_SCHEMES


class _Ranges(io.RawIOBase):
    """Reads an object in ranges, the last of which are held."""

    def __init__(self, uri: str) -> None:
        self.name = uri
        self._filesystem, self._path = locations.resolve(uri)
        self._size, self._place = storage.size_of(uri), 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._place >= self._size:
            return 0
        number, start = divmod(self._place, BLOCK)
        data = self._block(number)[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start, end = number * BLOCK, min(self._size, (number + 1) * BLOCK)
            data = storage.persistently(
                self.name, lambda: self._filesystem.cat_file(self._path, start=start, end=end)
            )
            if len(data) != end - start:
                raise StorageError(
                    f"{self.name}: is shorter than it was: it was changed meanwhile; try again"
                )
            self._blocks[number] = data
            if len(self._blocks) > HELD:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]


class _Parts:
    """A file to write, of which the first PART bytes stay; what follows is given away part by part."""

    def __init__(self, name: str, give: Callable[[bytes], object]) -> None:
        self.name, self.first = name, bytearray()
        self._give = give
        self._rest, self._given_until = bytearray(), PART
        self._place = self._end = 0

    def write(self, data: bytes) -> int:
        """Take bytes. Raises StorageError, also where they are to replace what has been given away."""
        left = memoryview(data)
        while left:
            left = left[self._put(left) :]
        if len(self._rest) >= PART:
            self.give_rest()
        return len(data)

    def _put(self, data: memoryview) -> int:
        """As many as fit where they are to stand."""
        if self._place < PART:
            held, place, data = self.first, self._place, data[: PART - self._place]
        elif self._place >= self._given_until:
            held, place = self._rest, self._place - self._given_until
        else:
            raise StorageError(f"{self.name}: byte {self._place} cannot be written again: it has been sent")
        if place > len(held):
            held.extend(bytes(place - len(held)))
        held[place : place + len(data)] = data
        self._place += len(data)
        self._end = max(self._end, self._place)
        return len(data)

    def give_rest(self) -> None:
        """Give away what is held beyond the first part."""
        if self._rest:
            self._given_until += len(self._rest)
            self._give(bytes(self._rest))
            self._rest.clear()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """To where the next bytes go."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._end}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        """Where the next bytes go."""
        return self._place


class _Upload(_Parts):
    """Writes an object of an S3 store in parts: the first before the others where it is known, else last."""

    def __init__(self, uri: str, beginning: bytes) -> None:
        super().__init__(uri, self._next)
        self._filesystem, path = locations.resolve(uri)
        bucket, _, key = path.partition("/")
        self._object = {"Bucket": bucket, "Key": key}
        self._sent: list[dict[str, Any]] = []
        self.fault: StorageError | None = None
        self._beginning = beginning if len(beginning) == PART else b""
        self._id = self._ask("create_multipart_upload")["UploadId"]
        if self._beginning:
            self._send(1, self._beginning)

    def finish(self) -> None:
        """Send the rest, and make it an object."""
        self.give_rest()
        if not self._beginning:
            self._send(1, bytes(self.first))
        elif self.first != self._beginning:
            raise StorageError(f"{self.name}: its beginning came out otherwise the second time")
        parts = sorted(self._sent, key=lambda part: part["PartNumber"])
        self._ask("complete_multipart_upload", UploadId=self._id, MultipartUpload={"Parts": parts})

    def abort(self) -> None:
        """Leave nothing of it."""
        self._ask("abort_multipart_upload", UploadId=self._id)

    def _next(self, data: bytes) -> None:
        try:
            self._send(1 + max((part["PartNumber"] for part in self._sent), default=1), data)
        except StorageError as fault:
            self.fault = fault
            raise

    def _send(self, number: int, data: bytes) -> None:
        answer = self._ask("upload_part", UploadId=self._id, PartNumber=number, Body=data)
        self._sent.append({"PartNumber": number, "ETag": answer["ETag"]})

    def _ask(self, request: str, **values: Any) -> Any:
        return storage.persistently(
            self.name, lambda: self._filesystem.call_s3(request, **self._object, **values)
        )
