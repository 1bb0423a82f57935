"""The walk that finds the pairs of a data set, whatever its owners' layout."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pipelines.data.owners import LAYOUTS, Folders, Layout, LayoutName, PairList, Role
from pipelines.media import medium_of
from pipelines.services import locations, storage
from pipelines.services.storage import NothingStoredError, StorageError, StoredObject

ROLES: Mapping[Role, str] = {"input": "degraded", "target": "clean", "mask": "mask"}
PARENTS = 2
"""A source may lie so many folders below the root of its set (GoPro/train/SEQUENCE)."""
PROBED = 100
"""Files of a folder that are looked at to tell which layout would have fitted."""
ALONE: tuple[LayoutName, ...] = ("clean", "clips")
"""Layouts of what has no partners: any picture, or any clip, is one."""
SHOWN = 5
"""Names in a summary; of more there is only the number."""


@dataclass(frozen=True)
class PairFiles:
    """One pair's locations and labels; a clean picture that is yet to be degraded has no `input`."""

    key: str
    task: str
    set: str
    split: str
    target: str
    input: str | None = None
    mask: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """A file (or a line of a list) that makes no pair, why, and the set and split that it is of."""

    name: str
    reason: str
    set: str
    split: str


@dataclass(frozen=True)
class Listing:
    """The pairs of a location, what was left out, and the names of pictures outside the layout.

    `absent` are the (set, split) of the layout of which not a file is there.
    """

    pairs: list[PairFiles] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    absent: list[tuple[str, str]] = field(default_factory=list)

    def of_split(self, split: str) -> Listing:
        """What is of one split."""
        return Listing(
            [files for files in self.pairs if files.split == split],
            [item for item in self.left_out if item.split == split],
            self.others,
            [label for label in self.absent if label[1] == split],
        )

    def summary(self) -> str:
        """For people: of every set and split what is there, missing or without a partner."""
        lines = []
        for label in sorted(_labels(self.pairs, self.left_out)):
            pairs = [files for files in self.pairs if (files.set, files.split) == label]
            lines.append(f"{label[0]} {label[1]}: {_counted(pairs)}")
            bare = [files.key for files in pairs if files.mask is None]
            if 0 < len(bare) < len(pairs):
                lines.append(f"  without a mask, so it follows from the pair: {_some(bare)}")
            left = [item for item in self.left_out if (item.set, item.split) == label]
            lines += [f"  left out: {item.name}: {item.reason}" for item in left[:SHOWN]]
            lines += [f"  left out: {len(left) - SHOWN} more"] * (len(left) > SHOWN)
        lines += [f"{of_set} {split}: nothing is there" for of_set, split in self.absent]
        if self.others:
            lines.append(f"outside the layout: {len(self.others)}, such as {_some(self.others)}")
        return "\n".join(lines)


def find(
    uris: Iterable[str], name: LayoutName = "folders", *, split: str = "train", prefer: str | None = None
) -> Listing:
    """What there is of a layout below the locations: each the root of a set, above it or a folder in it.

    `split` labels the pairs of layouts that have none of their own. Of a location that has a split
    `prefer`, nothing else is taken. Folders of the same name are told apart by those above them.
    Raises StorageError for a location without a single pair, saying what was expected, what is there
    instead, and which layouts would fit.
    """
    total = Listing()
    for uri in dict.fromkeys(uri.rstrip("/") for uri in uris):
        listing = _find(uri, name, split)
        if any(files.split == prefer for files in listing.pairs):
            listing = listing.of_split(str(prefer))
        total.pairs.extend(listing.pairs)
        total.left_out.extend(listing.left_out)
        total.others.extend(listing.others)
        total.absent.extend(listing.absent)
    names = _names_apart({files.set for files in total.pairs} | {item.set for item in total.left_out})
    return Listing(
        [replace(files, set=names[files.set]) for files in total.pairs],
        [replace(item, set=names[item.set]) for item in total.left_out],
        total.others,
        total.absent,
    )


def _find(uri: str, name: LayoutName, split: str) -> Listing:
    objects = list(storage.list_objects(uri))
    unpaired: list[LeftOut] = []
    for files in _views(uri, objects):
        listing = _match(LAYOUTS[name], files, uri, split)
        if listing.pairs:
            return listing
        unpaired += listing.left_out
    kind = StorageError if objects else NothingStoredError
    raise kind(_misfit(uri, name, objects, unpaired))


def _views(uri: str, objects: Sequence[StoredObject]) -> Iterator[dict[str, StoredObject]]:
    """The objects by their paths: below the source, then as seen from the folders above it."""
    above = locations.resolve(uri)[1].strip("/").split("/")
    for depth in range(min(PARENTS, len(above)) + 1):
        start = above[len(above) - depth :]
        yield {"/".join([*start, item.key]): item for item in objects}


class _Pair(NamedTuple):
    root: str
    name: str
    items: dict[Role, StoredObject]


class _Lone(NamedTuple):
    root: str
    name: str
    reason: str


def _match(layout: Layout, files: Mapping[str, StoredObject], uri: str, split: str) -> Listing:
    pairs: list[PairFiles] = []
    used: set[str] = set()
    lone: dict[str, LeftOut] = {}
    for part in layout.parts:
        if isinstance(part, PairList):
            finds = _read_list(part, files)
        else:
            finds = _read_folders(part, files, layout.kind)
        for found in finds:
            of_set = part.set or locations.join(uri, found.root).rstrip("/")
            of_split = part.split or split
            if isinstance(found, _Lone):
                lone.setdefault(found.name, LeftOut(found.name, found.reason, of_set, of_split))
                continue
            key = found.root + found.name if part.set else found.name
            uris = {role: item.uri for role, item in found.items.items()}
            pairs.append(PairFiles(key, layout.task, of_set, of_split, **uris))
            used.update(item.key for item in found.items.values())
    # What finds no partner in one part may have one in another: HIDE keeps all clean pictures together.
    left_out = [item for name, item in lone.items() if name not in used]
    keys = (item.key for item in files.values())
    others = [key for key in keys if key not in used and key not in lone and _is_of(layout.kind, key)]
    expected = [(part.set, part.split) for part in layout.parts if part.set]
    there = _labels(pairs, left_out)
    return Listing(pairs, left_out, others, [label for label in expected if label not in there])


def _read_folders(part: Folders, files: Mapping[str, StoredObject], kind: str) -> Iterator[_Pair | _Lone]:
    groups: dict[tuple[str, str], dict[Role, list[StoredObject]]] = {}
    for role in ROLES:
        pattern = getattr(part, role)
        whole = re.compile(rf"((?:.*?/)??){pattern}", re.IGNORECASE)
        for path, item in files.items() if pattern else ():
            match = whole.fullmatch(posixpath.splitext(path)[0])
            if match and _is_of(kind, path):
                name = "".join(group or "" for group in match.groups()[1:])
                groups.setdefault((match[1], name), {}).setdefault(role, []).append(item)
            elif match:
                yield _Lone(match[1], item.key, f"not a {kind} by its ending")
    needed: list[Role] = ["input", "target"] if part.input else ["target"]
    for (root, name), found in sorted(groups.items()):
        yield from _pair(root, name, found, needed)


def _pair(
    root: str, name: str, found: Mapping[Role, list[StoredObject]], needed: Sequence[Role]
) -> Iterator[_Pair | _Lone]:
    for same in found.values():
        # Which of them was meant cannot be known, so none is taken.
        for item, other in zip(same, same[1:] + same[:1], strict=True):
            if item is not other:
                yield _Lone(root, item.key, f"shares its name with {other.key}")
    single = {role: same[0] for role, same in found.items() if len(same) == 1}
    lacking = " and ".join(ROLES[role] for role in needed if role not in single)
    if not lacking:
        yield _Pair(root, name, single)
        return
    for item in single.values():
        yield _Lone(root, item.key, f"has no partner among the {lacking} pictures")


def _read_list(part: PairList, files: Mapping[str, StoredObject]) -> Iterator[_Pair | _Lone]:
    whole = re.compile(rf"((?:.*?/)??){part.file}", re.IGNORECASE)
    for path, listed in files.items():
        match = whole.fullmatch(path)
        if match:
            lines = storage.read_bytes(listed.uri).decode(errors="replace").splitlines()
            yield from _read_lines(part, match[1], listed.key, lines, files)


def _read_lines(
    part: PairList, root: str, listed: str, lines: Sequence[str], files: Mapping[str, StoredObject]
) -> Iterator[_Pair | _Lone]:
    seen: set[str] = set()
    for number, words in enumerate(map(str.split, lines), 1):
        paths = {
            role: posixpath.normpath(word.lstrip("/"))
            for role, word in zip(part.columns, words, strict=False)
        }
        missing = [path for path in paths.values() if root + path not in files]
        if not words:
            continue
        if len(paths) < len(part.columns):
            columns = " ".join(ROLES[role] for role in part.columns)
            yield _Lone(root, f"{listed}:{number}", f"is no line of the paths: {columns}")
        elif missing:
            yield _Lone(root, f"{listed}:{number}", f"lists {' and '.join(missing)}, not there")
        elif paths["input"] in seen:
            yield _Lone(root, f"{listed}:{number}", f"lists {paths['input']} again")
        else:
            seen.add(paths["input"])
            name = posixpath.splitext(paths["input"])[0]
            yield _Pair(root, name, {role: files[root + path] for role, path in paths.items()})


def _is_of(kind: str, path: str) -> bool:
    found = medium_of(path)
    return found is not None and found.name == kind


def _misfit(uri: str, name: LayoutName, objects: Sequence[StoredObject], unpaired: Sequence[LeftOut]) -> str:
    folders: dict[str, list[StoredObject]] = {}
    for item in objects:
        folders.setdefault(posixpath.dirname(item.key), []).append(item)
    holds = f"it holds {len(objects)} files, such as {_some([items[0].key for items in folders.values()])}"
    lines = [
        f"{uri}: no pair in the layout {name}, which is {LAYOUTS[name].example}",
        holds if objects else "it holds no files",
        *(f"{item.name}: {item.reason}" for item in unpaired[:1]),
    ]
    views = list(_views(uri, [item for items in folders.values() for item in items[:PROBED]]))
    # Any picture or clip at all would do for these, so they say nothing.
    open_to_all = {name, *ALONE}
    others = [(other, layout) for other, layout in LAYOUTS.items() if other not in open_to_all]
    fits = [other for other, layout in others if any(_match(layout, files, uri, "").pairs for files in views)]
    if fits:
        lines.append(f"this looks like --layout {' or '.join(fits)}")
    elif alone := [one for one in ALONE if any(_is_of(LAYOUTS[one].kind, item.key) for item in objects)]:
        lines.append(f"what has no partners is for --layout {' or '.join(alone)}")
    return "; ".join(lines)


def _names_apart(locations: Iterable[str]) -> dict[str, str]:
    """A name a location: its last part, with as many before it as tell it from the others."""
    parts = {location: location.split("/") for location in locations}
    names = {}
    for location, own in parts.items():
        depth = 1
        while any(other[-depth:] == own[-depth:] for at, other in parts.items() if at != location):
            depth += 1
        names[location] = "/".join(own[-depth:])
    return names


def _labels(pairs: Sequence[PairFiles], left_out: Sequence[LeftOut]) -> set[tuple[str, str]]:
    return {(files.set, files.split) for files in pairs} | {(item.set, item.split) for item in left_out}


def _counted(pairs: Sequence[PairFiles]) -> str:
    degraded = sum(files.input is not None for files in pairs)
    counts = {"pair": degraded, "clean picture": len(pairs) - degraded}
    counts["mask"] = sum(files.mask is not None for files in pairs)
    return ", ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in counts.items() if n) or "no pairs"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
