"""Where bytes lie: one door to local paths and every store that fsspec reaches.

A location is a path or a URI (`/data/x`, `file:///data/x`, `s3://bucket/x`, `gs://...`). Credentials
and endpoints come from the environment, as each store's own tools read them (`AWS_ENDPOINT_URL`, ...).
"""

from __future__ import annotations

import os
import posixpath
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

import botocore.exceptions
import fsspec
import pyarrow.fs
from fsspec.implementations.local import LocalFileSystem

S3_OPTIONS = {
    # Bounded in time, so that a wrong endpoint is an error in seconds and a throttled one is retried.
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 60,
        "retries": {"max_attempts": 8, "mode": "standard"},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    },
    "use_listings_cache": False,
}
S3_PROTOCOLS = (("s3", "s3a"), "s3", "s3a")
CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for a store of your own)"


class StorageError(RuntimeError):
    """A location cannot be used; the message names it and what to do."""


@dataclass(frozen=True)
class StoredObject:
    """One object under a prefix: `key` is its name below the prefix; `identity` changes with its content.

    `modified` is when it was last written, where the store says.
    """

    uri: str
    key: str
    size: int
    identity: str
    modified: datetime | None = None


def join(uri: str, *parts: str) -> str:
    """A location below another."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def name_of(uri: str) -> str:
    """The last part of a location."""
    return posixpath.basename(uri.rstrip("/"))


def resolve(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a location and its path there. Raises StorageError for an unknown scheme."""
    scheme, _, rest = uri.partition("://")
    if re.match(r"[a-z][a-z0-9+]+:/?(?!/)", uri) and "://" not in uri:
        raise StorageError(f"{uri}: a URI has two slashes after its scheme: {uri.partition(':')[0]}://...")
    if not rest and "://" not in uri:
        return _filesystem("file"), os.path.abspath(uri)
    if scheme == "file":
        return _filesystem("file"), unquote(urlsplit(uri).path)
    if not rest.strip("/"):
        raise StorageError(f"{uri}: names no bucket; write {scheme}://BUCKET/PREFIX")
    try:
        return _filesystem(scheme), rest.rstrip("/") if scheme != "memory" else "/" + rest.strip("/")
    except ValueError as error:
        raise StorageError(
            f"{uri}: the scheme {scheme}:// is unknown; use a path, file:// or s3://"
        ) from error
    except ImportError as error:
        raise StorageError(f"{uri}: {scheme}:// needs another package: {error}") from error


@lru_cache(maxsize=8)
def _filesystem(scheme: str) -> fsspec.AbstractFileSystem:
    return fsspec.filesystem(scheme, **(S3_OPTIONS if scheme in ("s3", "s3a") else {}))


def list_objects(uri: str) -> Iterator[StoredObject]:
    """Every object below a prefix in the order of their keys' UTF-8 bytes, as it is listed.

    Of an S3 bucket a page is in memory, elsewhere a folder. Raises StorageError where there is no such
    prefix.
    """
    filesystem, root = resolve(uri)
    with explained(uri):
        if filesystem.isfile(root):
            raise StorageError(f"{uri}: is a file; name the folder or prefix that holds it")
        if not filesystem.isdir(root):
            raise StorageError(f"{uri}: nothing is there; check the bucket and the prefix")
        if filesystem.protocol in S3_PROTOCOLS:
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
    for entry in sorted(filesystem.ls(folder, detail=True), key=_place):
        name = posixpath.basename(entry["name"].rstrip("/"))
        key = posixpath.join(prefix, name)
        if entry["name"].rstrip("/") == folder.rstrip("/"):
            continue  # a folder marker, which lists itself
        if entry["type"] == "directory":
            yield from _below(filesystem, root, uri, key)
        else:
            yield StoredObject(
                join(uri, key), key, int(entry["size"] or 0), _identity(entry), _modified(entry)
            )


def _place(entry: dict[str, Any]) -> str:
    """By which the entries of a folder come in the order of the keys in it."""
    return str(entry["name"]).rstrip("/") + ("/" if entry["type"] == "directory" else "")


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


def read_bytes(uri: str) -> bytes:
    """The content of one object. Raises StorageError."""
    filesystem, path = resolve(uri)
    with explained(uri):
        return cast(bytes, filesystem.cat_file(path))


def write_bytes(uri: str, data: bytes) -> None:
    """Write one object whole or not at all: one PUT, or a temporary file that is renamed."""
    filesystem, path = resolve(uri)
    with explained(uri):
        if isinstance(filesystem, LocalFileSystem):
            _replace_file(Path(path), data)
        else:
            filesystem.pipe_file(path, data)


def _replace_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def upload(local: Path, uri: str) -> None:
    """Copy a local file to a location, whole or not at all."""
    filesystem, path = resolve(uri)
    with explained(uri):
        if isinstance(filesystem, LocalFileSystem):
            _replace_file(Path(path), local.read_bytes())
        else:
            filesystem.put_file(str(local), path)


def download(uri: str, local: Path) -> None:
    """Copy an object to a local file. Raises StorageError."""
    filesystem, path = resolve(uri)
    with explained(uri):
        filesystem.get_file(path, str(local))


def fetch(uri: str, folder: str) -> Path:
    """Copy an object into a local folder, under a name of its own with its ending. Raises StorageError."""
    local = Path(tempfile.mkdtemp(dir=folder)) / f"source{posixpath.splitext(uri)[1]}"
    download(uri, local)
    return local


def copy(source: str, target: str) -> None:
    """Copy an object, by the store itself where both are in one. Raises StorageError."""
    (one, here), (other, there) = resolve(source), resolve(target)
    if one is other and not isinstance(one, LocalFileSystem):
        with explained(source):
            one.cp_file(here, there)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "copy"
        download(source, local)
        upload(local, target)


def exists(uri: str) -> bool:
    """Whether an object or prefix is there. Raises StorageError where that cannot be known."""
    filesystem, path = resolve(uri)
    with explained(uri):
        return bool(filesystem.exists(path))


def delete(uri: str) -> None:
    """Remove an object, or all below a prefix; nothing there is no error."""
    filesystem, path = resolve(uri)
    with explained(uri):
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)


@contextmanager
def open_read(uri: str) -> Iterator[BinaryIO]:
    """A seekable file that reads ranges of an object."""
    filesystem, path = resolve(uri)
    with explained(uri), filesystem.open(path, "rb") as file:
        yield file


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The same location for pyarrow, Ray Data and Ray Train.

    Through fsspec also for S3: pyarrow's own client writes folder markers that small servers choke on.
    """
    filesystem, path = resolve(uri)
    if isinstance(filesystem, LocalFileSystem):
        return pyarrow.fs.LocalFileSystem(), path
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)), path


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what a store raises into a StorageError that names the location and the remedy."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"{uri}: not found; check the bucket and the name") from error
    except PermissionError as error:
        raise StorageError(
            f"{uri}: the store refused access ({error}); check the credentials: {CREDENTIALS}"
        ) from error
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as error:
        raise StorageError(f"{uri}: no credentials; {CREDENTIALS}") from error
    except (botocore.exceptions.BotoCoreError, TimeoutError, ConnectionError) as error:
        raise StorageError(
            f"{uri}: the store cannot be reached ({error}); check AWS_ENDPOINT_URL and the network"
        ) from error
    except (IsADirectoryError, NotADirectoryError, OSError) as error:
        raise StorageError(f"{uri}: {error}") from error
