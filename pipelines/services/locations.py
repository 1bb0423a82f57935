"""Where things lie: names of places, and the file system behind each.

A location is a path or a URI (`/data/x`, `file:///data/x`, `s3://bucket/x`, `gs://...`). Credentials
and endpoints come from the environment, as each store's own tools read them (`AWS_ENDPOINT_URL`, ...).

A store that does not answer at all is an error in seconds, found out when a process first asks it. Once it
has answered, work goes on there, and requests are patient: they are tried again with growing pauses.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from functools import lru_cache
from hashlib import sha256
from typing import cast
from urllib.parse import unquote, urlsplit

import fsspec
import pyarrow.fs
from fsspec.implementations.local import LocalFileSystem

from pipelines.services.store_errors import StorageError, explained, unreachable

S3_SCHEMES = ("s3", "s3a")
CHECKSUMS = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
PATIENT = {"connect_timeout": 5, "read_timeout": 20, "retries": {"total_max_attempts": 3, "mode": "standard"}}
"""Of a request once the store has answered: time-outs in seconds, and tries with growing pauses between."""
IMPATIENT = {
    "connect_timeout": 3,
    "read_timeout": 4,
    "retries": {"total_max_attempts": 2, "mode": "standard"},
}
"""Of a process's first request to a bucket."""
ROUNDS = 2
"""How often s3fs does what botocore has tried in vain, and reads on where a body was cut."""
MISSPELT = re.compile(r"[a-z][a-z0-9+]+:/?(?!/)")
"""The beginning of a URI with fewer than two slashes after its scheme."""
TAR = ".tar"
NO_TEXT = "its name is not UTF-8: rename it"
NO_PATH = "a folder cannot keep its name (an empty part, . or ..)"
LONGEST_NAME = 200
"""Bytes; file systems take 255, of which something may be added to it."""
FOLDER = "_spair"
"""Below a destination: what is kept there beside the output."""


def join(uri: str, *parts: str) -> str:
    """A location below another. A slash that a name begins with is the name's: buckets have such.

    Below `file://` it is a path: in a URI the names' own %, # and ? would be read as the URI's.
    """
    return "/".join([_path(uri).rstrip("/"), *(part.rstrip("/") for part in parts)])


def _path(uri: str) -> str:
    """A location on this machine without its scheme; any other as it is."""
    return unquote(urlsplit(uri).path) if uri.startswith("file://") else uri


def name_of(uri: str) -> str:
    """The last part of a location."""
    return posixpath.basename(uri.rstrip("/"))


def ending_of(uri: str) -> str:
    """The ending of its name, with its dot, such as .jpg or .tar.gz; empty where it has none."""
    stem, dot, last = name_of(uri).rpartition(".")
    before = stem[-len(TAR) :] if stem.lower().endswith(TAR) else ""
    return before + dot + last if stem else ""


def as_file_name(key: str) -> str:
    """An object's name as that of a file, without an ending, no two alike: `~` stands for `/`, and what has
    one of its own, or is cut because it is too long for a file, is told apart by its digest."""
    name = key.replace("/", "~")
    if "~" not in key and len(name.encode()) <= LONGEST_NAME:
        return name
    digest = sha256(key.encode()).hexdigest()[:16]
    return f"{name.encode()[: LONGEST_NAME - 1 - len(digest)].decode(errors='ignore')}-{digest}"


def folder_of(uri: str) -> str:
    """The location that an object lies in; `.` for a name alone."""
    return uri.rstrip("/").rpartition("/")[0] or ("/" if uri.startswith("/") else ".")


def absolute(uri: str) -> str:
    """The same location for processes that work in another folder, as those of a cluster do."""
    uri = _path(uri)
    return uri if "://" in uri or MISSPELT.match(uri) else os.path.abspath(uri)


def resolve(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a location and its path there.

    Raises StorageError for an unknown scheme, StoreUnavailableError for a store that does not answer.
    """
    scheme, _, rest = uri.partition("://")
    if MISSPELT.match(uri) and "://" not in uri:
        raise StorageError(f"{uri}: a URI has two slashes after its scheme: {uri.partition(':')[0]}://...")
    if not uri:
        raise StorageError("an empty name; write . for the folder that you are in")
    if "://" not in uri:
        return _filesystem("file"), os.path.abspath(uri)
    if scheme == "file":
        return _filesystem("file"), _path(uri)
    if not (rest.partition("/")[0] if scheme in S3_SCHEMES else rest.strip("/")):
        raise StorageError(f"{uri}: names no bucket; write {scheme}://BUCKET/PREFIX")
    try:
        if scheme not in S3_SCHEMES:
            with explained(uri):
                return cast(tuple[fsspec.AbstractFileSystem, str], fsspec.url_to_fs(uri))
        _check_endpoint()
        if not _in_ray_worker():
            _ask(scheme, rest.partition("/")[0])
        return _filesystem(scheme), rest.rstrip("/")
    except ValueError as error:
        raise StorageError(
            f"{uri}: the scheme {scheme}:// is unknown; use a path, file:// or s3://"
        ) from error
    except TypeError as error:
        raise StorageError(f"{uri}: {scheme}:// needs to be told more than its URIs do: {error}") from error
    except ImportError as error:
        raise StorageError(f"{uri}: {scheme}:// needs another package: {error}") from error


@lru_cache(maxsize=8)
def _filesystem(scheme: str) -> fsspec.AbstractFileSystem:
    if scheme not in S3_SCHEMES:
        return fsspec.filesystem(scheme)
    filesystem = fsspec.filesystem(scheme, config_kwargs={**CHECKSUMS, **PATIENT}, use_listings_cache=False)
    filesystem.retries = ROUNDS
    return filesystem


def _check_endpoint() -> None:
    """Raises StorageError where the environment names a server as no URI does."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if (told := os.environ.get(name)) and not told.startswith(("http://", "https://")):
            raise StorageError(f"{name} is {told!r}: write http://HOST:PORT or https://HOST")


def _in_ray_worker() -> bool:
    """There work goes on already, and a hiccup should not end it."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().get_task_id() is not None


@lru_cache(maxsize=64)
def _ask(scheme: str, bucket: str) -> None:
    """Raises StorageError where no such bucket is there or nobody answers; any other answer will do."""
    filesystem = fsspec.filesystem(
        scheme, config_kwargs={**CHECKSUMS, **IMPATIENT}, use_listings_cache=False, skip_instance_cache=True
    )
    filesystem.retries = 1
    with explained(f"{scheme}://{bucket}"):
        try:
            filesystem.call_s3("head_bucket", Bucket=bucket)
        except FileNotFoundError as error:
            raise StorageError(
                f"{scheme}://{bucket}: there is no such bucket at {filesystem.s3.meta.endpoint_url}; "
                "make it, or check its name and AWS_ENDPOINT_URL"
            ) from error
        except OSError as error:
            if isinstance(error, unreachable()):
                raise


def is_local(uri: str) -> bool:
    """Whether a location is in this machine's file system. Raises StorageError."""
    return isinstance(resolve(uri)[0], LocalFileSystem)


def overlap(uri: str, other: str) -> bool:
    """Whether one of two locations is the other or lies below it, links on this machine followed.

    Raises StorageError.
    """
    (store, a), (another, b) = _real(uri), _real(other)
    return store is another and (a.startswith(b) or b.startswith(a))


def _real(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    filesystem, path = resolve(uri)
    real = os.path.realpath(path) if isinstance(filesystem, LocalFileSystem) else path
    return filesystem, f"{real.rstrip('/')}/"


def is_text(name: str) -> bool:
    """Whether a name is Unicode: those of files may be any bytes, which Python keeps as lone surrogates."""
    return as_text(name) == name


def as_text(name: str) -> str:
    """A name as it can be written down and shown."""
    return name.encode(errors="backslashreplace").decode()


def is_path(key: str) -> bool:
    """Whether a folder can keep an object's name, each its own: none of its parts is empty, . or .. then."""
    return not {"", ".", ".."}.intersection(key.split("/"))


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The same location for pyarrow, Ray Data and Ray Train.

    Through fsspec also for S3: pyarrow's own client writes folder markers that small servers choke on.
    """
    filesystem, path = resolve(uri)
    if isinstance(filesystem, LocalFileSystem):
        return pyarrow.fs.LocalFileSystem(), path
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)), path
