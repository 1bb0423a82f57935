"""One door to the bytes of local paths and of every store that fsspec reaches.

What a store does not do at once is begun anew after a pause; an object is written whole or not at all.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipelines.services.locations import FOLDER, S3_SCHEMES, absolute, as_text, ending_of, join, resolve
from pipelines.services.store_errors import (
    NothingStoredError,
    StorageError,
    StoreUnavailableError,
    explained,
    naming_folder,
)

PAUSES = (1.0, 5.0, 15.0)
"""Seconds before what neither could do is begun anew."""
AT_ONCE = 1000
"""Objects that S3 removes at one request."""
PATIENCE = 120.0
"""Seconds after which nothing is begun anew."""
UNREADABLE = "a folder that may not be read: change its owner or mode"
NO_FILE = "is no file: a folder (or a link to one), a pipe, a socket, a device, or a link to nothing"
Result = TypeVar("Result")


@dataclass(frozen=True)
class StoredObject:
    """One object under a prefix: `key` is its name below the prefix, as text; `identity` changes with its
    content.

    `modified` is when it was last written, where the store says.
    """

    uri: str
    key: str
    size: int
    identity: str
    modified: datetime | None = None


def list_objects(uri: str) -> Iterator[StoredObject]:
    """Every object below a prefix in the order of their keys' UTF-8 bytes, as it is listed.

    Of an S3 bucket a page is in memory, elsewhere a folder; their locations are absolute. Raises
    NothingStoredError where there is no such prefix, StorageError.
    """
    uri = absolute(uri)
    filesystem, root = resolve(uri)
    with explained(uri):
        if filesystem.isfile(root):
            raise StorageError(f"{uri}: is a file; name the folder or prefix that holds it")
        if not filesystem.isdir(root):
            raise NothingStoredError(f"{uri}: nothing is there; check the bucket and the prefix")
        if uri.partition("://")[0] in S3_SCHEMES:
            yield from _pages(filesystem, root, uri)
        else:
            yield from _below(filesystem, root, uri, "")


def _pages(filesystem: fsspec.AbstractFileSystem, root: str, uri: str) -> Iterator[StoredObject]:
    """By S3's own pages, which fsspec would gather first."""
    bucket, _, prefix = root.partition("/")
    prefix = f"{prefix}/" if prefix else ""
    page: dict[str, Any] = {"NextContinuationToken": None}
    while "NextContinuationToken" in page:
        token = page["NextContinuationToken"]
        more = {"ContinuationToken": token} if token else {}
        page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        for entry in page.get("Contents", ()):
            key = entry["Key"][len(prefix) :]
            if key and not key.endswith("/"):  # else a folder marker
                size, identity = int(entry["Size"]), str(entry["ETag"]).strip('"')
                yield StoredObject(join(uri, key), key, size, identity, entry["LastModified"])


def _below(filesystem: fsspec.AbstractFileSystem, root: str, uri: str, prefix: str) -> Iterator[StoredObject]:
    folder = posixpath.join(root, prefix) if prefix else root
    try:
        entries = filesystem.ls(folder, detail=True)
    except (FileNotFoundError, PermissionError) as error:
        if not prefix:
            raise
        if isinstance(error, PermissionError):  # such as lost+found: an object that nobody can read
            yield StoredObject(join(uri, prefix), as_text(prefix), 0, "")
        return
    for entry in sorted(map(_followed, entries), key=_place):
        name = posixpath.basename(entry["name"].rstrip("/"))
        key = posixpath.join(prefix, name)
        if entry["name"].rstrip("/") == folder.rstrip("/"):
            continue  # a folder marker, which lists itself
        if entry["type"] == "directory":
            yield from _below(filesystem, root, uri, key)
        else:
            size = int(entry["size"] or 0)
            yield StoredObject(join(uri, key), as_text(key), size, _identity(entry), _modified(entry))


def _place(entry: dict[str, Any]) -> str:
    """By which the entries of a folder come in the order of the keys in it."""
    return as_text(entry["name"]).rstrip("/") + ("/" if entry["type"] == "directory" else "")


def _followed(entry: dict[str, Any]) -> dict[str, Any]:
    """Of a link, when what it leads to was written."""
    if not entry.get("islink"):
        return entry
    with suppress(OSError):
        return {**entry, "mtime": os.stat(entry["name"]).st_mtime}
    return entry


def _modified(entry: dict[str, Any]) -> datetime | None:
    changed = next(
        (entry[name] for name in ("LastModified", "mtime", "updated", "created") if name in entry), None
    )
    if isinstance(changed, int | float):
        return datetime.fromtimestamp(changed, UTC)
    if isinstance(changed, str):
        return datetime.fromisoformat(changed)
    return changed if isinstance(changed, datetime) else None


def _identity(entry: dict[str, Any]) -> str:
    mark = entry.get("ETag") or entry.get("etag") or entry.get("md5Hash")
    if mark:
        return str(mark).strip('"')
    changed = entry.get("mtime", entry.get("created", entry.get("LastModified", "")))
    return f"{entry['size']}-{changed}"


def check_source(uri: str) -> None:
    """Raises NothingStoredError where no object is below a location, StorageError where none can be seen."""
    if next(list_objects(uri), None) is None:
        raise NothingStoredError(f"{uri}: is empty; check the name, or come back when something is there")


def check_writable(uri: str) -> None:
    """Write an object below a location, and remove it. Raises StorageError with the remedy."""
    probe = join(uri, FOLDER, f"writable-{uuid.uuid4().hex}")
    try:
        write_bytes(probe, b"?")
        delete(probe)
    except StorageError as error:  # nobody knows the probe's name
        raise type(error)(str(error).replace(probe, uri)) from error
    filesystem, path = resolve(probe)
    if isinstance(filesystem, LocalFileSystem):
        with suppress(OSError):  # others have something there
            Path(path).parent.rmdir()


def read_bytes(uri: str) -> bytes:
    """The content of one object, whole. Raises StorageError."""
    filesystem, path = _to_read(uri)
    return cast(bytes, persistently(uri, lambda: filesystem.cat_file(path)))


def write_bytes(uri: str, data: bytes) -> None:
    """Write one object whole or not at all: one PUT, or a temporary file that is renamed.

    Raises StorageError.
    """
    filesystem, path = resolve(uri)
    if isinstance(filesystem, LocalFileSystem):
        with explained(uri), _replacing(Path(path)) as temporary:
            temporary.write_bytes(data)
    else:
        persistently(uri, lambda: filesystem.pipe_file(path, data))


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file to write, beside `path` and put in its place at the end; gone where the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def upload(local: Path, uri: str) -> None:
    """Copy a local file to a location, whole or not at all. Raises StorageError."""
    filesystem, path = resolve(uri)
    if isinstance(filesystem, LocalFileSystem):
        with explained(uri), _replacing(Path(path)) as temporary:
            shutil.copyfile(local, temporary)
    else:
        persistently(uri, lambda: filesystem.put_file(str(local), path))


def _to_read(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    filesystem, path = resolve(uri)
    if _is_no_file(filesystem, path):
        raise StorageError(f"{uri}: {NO_FILE}")
    return filesystem, path


def is_no_file(uri: str) -> bool:
    """Whether something is there on this machine, but no file: to read it may take for ever."""
    return _is_no_file(*resolve(uri))


def is_unreadable_folder(uri: str) -> bool:
    """Whether it is one of this machine that this process may not look into."""
    filesystem, path = resolve(uri)
    local = isinstance(filesystem, LocalFileSystem)
    return local and os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK)


def _is_no_file(filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    local = isinstance(filesystem, LocalFileSystem)
    return local and os.path.lexists(path) and not Path(path).is_file()


def download(uri: str, local: Path, size: int | None = None) -> None:
    """Copy an object to a local file, whole or not at all; of `size` bytes where that is known of it.

    Raises StorageError, which names the local folder where that is full.
    """
    filesystem, path = _to_read(uri)

    def fetched() -> int:
        with naming_folder(local.parent), _replacing(local) as temporary:
            filesystem.get_file(path, str(temporary))
            return temporary.stat().st_size

    got = persistently(uri, fetched)
    if size is not None and got != size:
        local.unlink()
        raise StorageError(
            f"{uri}: {got} bytes came, {size} were listed: it was changed meanwhile; try again"
        )


def fetch(uri: str, folder: str, size: int | None = None) -> Path:
    """Copy an object into a local folder, under a name of its own with its ending.

    Raises StorageError, also where it does not have the `size` that it was listed with.
    """
    local = Path(tempfile.mkdtemp(dir=folder)) / f"source{ending_of(uri)}"
    download(uri, local, size)
    return local


def copy(source: str, target: str) -> None:
    """Copy an object, by the store itself where both are in one. Raises StorageError."""
    (one, here), (other, there) = resolve(source), resolve(target)
    if one is other and not isinstance(one, LocalFileSystem):
        persistently(source, lambda: one.cp_file(here, there))
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "copy"
        download(source, local)
        upload(local, target)


def exists(uri: str) -> bool:
    """Whether an object or prefix is there. Raises StorageError where that cannot be known."""
    filesystem, path = resolve(uri)
    return bool(persistently(uri, lambda: filesystem.exists(path)))


def size_of(uri: str) -> int:
    """Bytes of one object. Raises StorageError."""
    filesystem, path = resolve(uri)
    return int(persistently(uri, lambda: filesystem.info(path))["size"] or 0)


def folders_in(uri: str) -> list[str]:
    """Names of the folders right below a location, sorted; none where nothing is. Raises StorageError."""
    filesystem, path = resolve(uri)
    if not exists(uri):
        return []
    found = persistently(uri, lambda: filesystem.ls(path, detail=True))
    names = {posixpath.basename(entry["name"].rstrip("/")) for entry in found if entry["type"] == "directory"}
    return sorted(names - {"", posixpath.basename(path.rstrip("/"))})


def delete(uri: str) -> None:
    """Remove one object, by its very name; nothing there is no error. Raises StorageError."""
    filesystem, path = resolve(uri)
    persistently(uri, partial(_remove, filesystem, path))


def _remove(filesystem: fsspec.AbstractFileSystem, path: str) -> None:
    with suppress(FileNotFoundError):
        filesystem.rm_file(path)  # `rm` takes a name with * or [ for a pattern


def delete_below(uri: str) -> None:
    """Remove every object below a prefix, and on this machine the folder; nothing there is no error.

    Raises StorageError.
    """
    filesystem, path = resolve(uri)
    if isinstance(filesystem, LocalFileSystem):
        with explained(uri), suppress(FileNotFoundError):
            shutil.rmtree(path)
        return
    with suppress(NothingStoredError):
        found = list_objects(uri)
        while some := list(islice(found, AT_ONCE)):
            persistently(uri, partial(_remove_all, filesystem, [resolve(item.uri)[1] for item in some]))


def _remove_all(filesystem: fsspec.AbstractFileSystem, paths: Sequence[str]) -> None:
    """In one request where the store has that."""
    if "s3" not in filesystem.protocol:
        for path in paths:
            _remove(filesystem, path)
        return
    keys = [{"Key": path.partition("/")[2]} for path in paths]
    told = {"Objects": keys, "Quiet": True}
    answer = filesystem.call_s3("delete_objects", Bucket=paths[0].partition("/")[0], Delete=told)
    for error in answer.get("Errors", ()):
        raise StorageError(f"{error['Key']}: is not removed: {error.get('Message') or error.get('Code')}")


def persistently(uri: str, attempt: Callable[[], Result]) -> Result:
    """What it gives; begun anew after a pause where the store broke off. Raises StorageError."""
    started, pauses = time.monotonic(), iter(PAUSES)
    while True:
        try:
            with explained(uri):
                return attempt()
        except StoreUnavailableError:
            pause = next(pauses, None)
            if pause is None or time.monotonic() - started > PATIENCE:
                raise
            time.sleep(pause)


@contextmanager
def open_read(uri: str) -> Iterator[BinaryIO]:
    """A seekable file that reads ranges of an object."""
    filesystem, path = _to_read(uri)
    with explained(uri), filesystem.open(path, "rb") as file:
        yield file
