"""What someone names to be restored, and where what comes of it goes: files, folders and URIs.

`photo.jpg` becomes `photo.restored.jpg` beside it. Below a place of its own (`out`) all keep their names.
"""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.media import MEDIA, medium_of
from pipelines.restoration.here.local import Targets
from pipelines.restoration.manifest import FOLDER
from pipelines.services import locations, storage
from pipelines.services.storage import NothingStoredError

RESTORED, COMPARED = ".restored", ".compare"
"""Before the endings of what is written beside a source."""
SHOWN = (".jpg", ".jpeg", ".png")
"""Endings of pictures whose comparisons are of the same format."""
ALIKE = ({".jpg", ".jpeg"}, {".tif", ".tiff"}, {".tgz", ".tar.gz"})
"""Endings that are one and the same."""


@dataclass(frozen=True)
class Named:
    """An object to look at: where it lies, and its name below what was named."""

    uri: str
    key: str
    size: int
    alone: bool
    """Whether it was named itself, and not a folder that it is in."""

    @property
    def known(self) -> bool:
        """Whether it can be restored, by its name."""
        return medium_of(self.key) is not None

    @property
    def local(self) -> bool:
        """Whether it is a file on this machine."""
        return "://" not in self.uri


def endings() -> str:
    """Those of names that can be restored."""
    return " ".join(sorted({suffix for kind in MEDIA for suffix in kind.suffixes}))


def find(places: Sequence[str], out: str | None) -> list[Named]:
    """What is named, and what lies below a folder or prefix that is; not what came of another run.

    Raises NothingStoredError where nothing is there, or one of several places is an empty folder, such as one
    for the results; StorageError.
    """
    found = {place: list(_at(place, out)) for place in dict.fromkeys(places)}
    empty = [place for place in found if not found[place]]
    if empty and len(found) > 1:
        raise NothingStoredError(f"{empty[0]}: holds no files; --out names where results go")
    return [one for place in places for one in found[place]]


def _at(place: str, out: str | None) -> Iterator[Named]:
    filesystem, path = locations.resolve(place)
    with storage.explained(place):
        if filesystem.isfile(path):
            yield Named(place, locations.name_of(place), int(filesystem.size(path)), alone=True)
            return
        if not filesystem.exists(path):
            raise NothingStoredError(f"{place}: nothing is there; check the name")
    below, inner = list(storage.list_objects(place)), _below(out, place)
    sources = {name for item in below for name in (item.key, _split(item.key)[0])}
    for item in below:
        ours = _written_before(item.key, sources) or item.key.startswith(f"{FOLDER}/")
        if not ours and not (inner and _place(item.uri).startswith(inner)):
            uri = locations.join(place, item.key) if locations.is_text(item.uri) else item.uri
            yield Named(uri, item.key, item.size, alone=False)


def _written_before(key: str, sources: set[str]) -> bool:
    stem = _split(key)[0]
    return any(stem.endswith(mark) and stem.removesuffix(mark) in sources for mark in (RESTORED, COMPARED))


def _below(out: str | None, place: str) -> str | None:
    """The beginning of all that lies in `out`, where that is below a place."""
    inner = None if out is None else _place(out).rstrip("/") + "/"
    outer = _place(place).rstrip("/") + "/"
    return inner if inner is not None and inner != outer and inner.startswith(outer) else None


def _place(uri: str) -> str:
    return os.path.realpath(uri) if "://" not in uri else uri


def _split(key: str) -> tuple[str, str]:
    """Stem and ending, which may have two dots."""
    kind = medium_of(key)
    if kind is None:
        return posixpath.splitext(key)
    ending = kind.ending(key)
    return key[: -len(ending)], ending


def targets(found: Sequence[Named], out: str | None, *, compare: bool) -> list[Targets]:
    """Where what comes of each goes, in their order.

    Raises ValueError: two would go to one place, one would go to its source's, or `out` has another ending.
    """
    single = found[0] if len(found) == 1 and found[0].alone and out and not _is_folder(out) else None
    if single is not None and out is not None:
        places = [_as_named(single, out)]
    elif out is not None:
        places = [_below_out(out, one) for one in found]
    else:
        places = [_marked(one.uri, RESTORED) for one in found]
    beside = [
        _comparison(one, place, beside=out is None) if compare else None
        for one, place in zip(found, places, strict=True)
    ]
    _check_apart(found, places)
    _check_apart(found, beside)
    return [Targets(place, comparison) for place, comparison in zip(places, beside, strict=True)]


def _below_out(out: str, one: Named) -> str:
    if locations.is_local(out) and not locations.is_path(one.key):
        raise ValueError(f"{one.uri}: {locations.NO_PATH}; name it by itself, or a bucket with --out")
    return locations.join(out, one.key)


def _is_folder(out: str) -> bool:
    """Whether a place is one for several: it says so, it is one, or its name is no file's of ours."""
    filesystem, path = locations.resolve(out)
    with storage.explained(out):
        return out.endswith("/") or bool(filesystem.isdir(path)) or medium_of(out) is None


def _as_named(one: Named, out: str) -> str:
    theirs, ours = _split(one.key)[1].lower(), _split(out)[1].lower()
    if theirs != ours and not any({theirs, ours} <= alike for alike in ALIKE):
        raise ValueError(
            f"{out}: what is restored keeps its format; name it *{theirs}, or a folder (with a / at its end)"
        )
    return out


def _marked(uri: str, mark: str) -> str:
    stem, ending = _split(uri)
    return f"{stem}{mark}{ending}"


def _comparison(one: Named, place: str, *, beside: bool) -> str:
    """A file like the source; of a picture that is neither JPEG nor PNG (x.webp), x.webp.compare.png."""
    place, kind = one.uri if beside else place, medium_of(one.key)
    if kind is not None and kind.name == "picture" and _split(place)[1].lower() not in SHOWN:
        return f"{place}{COMPARED}.png"
    return _marked(place, COMPARED)


def _check_apart(found: Sequence[Named], places: Sequence[str | None]) -> None:
    sources = {_place(one.uri) for one in found}
    for one, place in zip(found, places, strict=True):
        if place is not None and _place(place) in sources:
            raise ValueError(
                f"{one.uri}: it would take the place of its source, or of another's; name another --out"
            )
    place, times = next(iter(Counter(filter(None, places)).most_common(1)), ("", 0))
    if times > 1:
        raise ValueError(
            f"{place}: {times} files would be written there; restore them one by one, or leave --out out"
        )
