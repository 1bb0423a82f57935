"""What stores and disks raise, turned into errors that name the location and the remedy."""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.exceptions

from pipelines.services.faults import NothingThereError, UnavailableError

CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for a store of your own)"
PERMISSIONS = "s3:ListBucket, s3:GetObject and, where something is written, s3:PutObject and s3:DeleteObject"
OTHER_REGION = "the bucket is in another region: set AWS_DEFAULT_REGION (and AWS_ENDPOINT_URL) to its"
EXPIRED = "the credentials have expired: get new ones, and set AWS_SESSION_TOKEN with them"
ANSWERS = {
    "InvalidObjectState": "it is archived (as S3 Glacier does): have the store bring it back first "
    "(`aws s3api restore-object`), and start again when it is there",
    "RequestTimeTooSkewed": "the clock of {machine} is wrong, which the store does not take: set it",
    "ExpiredToken": EXPIRED,
    "TokenRefreshRequired": EXPIRED,
    "InvalidToken": "AWS_SESSION_TOKEN is not one that belongs to AWS_ACCESS_KEY_ID",
    "InvalidAccessKeyId": "the store knows no such AWS_ACCESS_KEY_ID; is it of another (AWS_ENDPOINT_URL)?",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is not that of AWS_ACCESS_KEY_ID",
    "PermanentRedirect": OTHER_REGION,
    "AuthorizationHeaderMalformed": OTHER_REGION,
    "IllegalLocationConstraintException": OTHER_REGION,
    "KMS.DisabledException": "its key in KMS is disabled: have it enabled",
    "QuotaExceeded": "the bucket's quota is used up: have it raised, or name another place",
}
"""What to do by the codes of S3's errors, where these say more than that access was refused."""
REMEDIES = {
    errno.ENOSPC: "no space left at {place}: free some, or name another place",
    errno.EDQUOT: "the quota at {place} is used up: free some of it, or name another place",
    errno.EFBIG: "a file would be too large at {place}: look at `ulimit -f`, or name another place",
    errno.EROFS: "{place} is on a read-only file system: mount it for writing, or name another place",
    errno.EACCES: "{user} may not do this at {place}: change its owner or mode, or name another place",
    errno.EPERM: "{user} may not do this at {place}: change its owner or mode, or name another place",
    errno.EEXIST: "{place} is a file where a folder is needed: name another place",
    errno.ENOTDIR: "{place} is below a file, where a folder is needed: name another place",
}
"""For errors of local file systems."""
LOCAL_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Of these, the ones that no S3 client raises."""


class StorageError(RuntimeError):
    """A location cannot be used; the message names it and what to do."""


class StoreUnavailableError(StorageError, UnavailableError):
    """A store does not answer."""


class NothingStoredError(StorageError, NothingThereError):
    """Nothing lies at a location or below it."""


def unreachable() -> tuple[type[Exception], ...]:
    """What s3fs and what is below it raise where a store does not answer, or not to the end.

    Of aiohttp, a tenth of a second to import, what has it asked already.
    """
    asking = [sys.modules["aiohttp"].ClientError] if "aiohttp" in sys.modules else []
    client = (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError)
    return (*client, *asking, TimeoutError, ConnectionError)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what a store raises into a StorageError that names the location and the remedy."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"{uri}: not found; check the bucket and the name") from error
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as error:
        raise StorageError(f"{uri}: no credentials; {CREDENTIALS}") from error
    except unreachable() as error:
        raise StoreUnavailableError(
            f"{uri}: the store cannot be reached ({error}); check AWS_ENDPOINT_URL and the network"
        ) from error
    except botocore.exceptions.BotoCoreError as error:
        raise StorageError(f"{uri}: {error}; {CREDENTIALS}") from error
    except OSError as error:
        if _overloaded(error):
            raise StoreUnavailableError(
                f"{uri}: the store is not able to ({error}); try again later"
            ) from error
        if (remedy := ANSWERS.get(_code(error))) is not None:
            raise StorageError(f"{uri}: {remedy.format(machine=platform.node())}") from error
        if isinstance(error, PermissionError) and error.errno is None:
            raise StorageError(
                f"{uri}: the store refused access ({error}); check the credentials: {CREDENTIALS}; they need "
                f"the permissions {PERMISSIONS}"
            ) from error
        raise StorageError(_remedy(error, uri)) from error


@contextmanager
def naming_folder(folder: Path) -> Iterator[None]:
    """Where a local folder is full while an object is copied there, the error is about the folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in LOCAL_ONLY:
            raise
        told = f"{_remedy(error, str(folder))} (TMPDIR does, for temporary files)"
        raise StorageError(told) from error


def _remedy(error: OSError, place: str) -> str:
    if error.errno not in REMEDIES:
        return f"{place}: {error}"
    return REMEDIES[error.errno].format(place=place, user=f"user {os.geteuid()}")


def _overloaded(error: OSError) -> bool:
    """Whether a store answered with a fault of its own: 500, 503 (SlowDown) and the like."""
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500


def _code(error: OSError) -> str:
    """That of S3's error; empty where it is none."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def _answer(error: OSError) -> dict[str, Any]:
    """What the store answered, where s3fs has translated it."""
    cause = error.__cause__ or error.__context__
    return dict(cause.response) if isinstance(cause, botocore.exceptions.ClientError) else {}
