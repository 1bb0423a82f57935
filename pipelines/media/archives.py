"""Archives: the pictures and clips in them are restored, all else in them stays as it was.

Their members come by one after another; one at a time lies on disk, under a name of our own. What is told of
a member's name is only its ending.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipelines.media import inside, packings
from pipelines.media.inside import Inside, Part, Parts
from pipelines.media.medium import Encoding, Medium, MediumError, Piece, telling
from pipelines.media.packings import Member, MemberError, PackingError
from spair_core.footage import Reach


@dataclass(frozen=True)
class Archives:
    """What an archive does with its members, by the kinds that are handed to it."""

    medium_of: Callable[[str], Medium | None]
    medium_in: Callable[[Path], Medium]
    medium: Callable[[str], Medium]
    """Of a name, of a file, and that of which this is the kind's own name."""

    def read(self, path: Path, reach: Reach | None, encoding: Encoding | None = None) -> Iterator[Piece]:
        """The pieces of all members in order; none where no member is a picture or a clip.

        A member that cannot be read, or not be written so, is a note. Raises MediumError: no archive, damaged
        or cut short, over a limit, with names or links that lead out of it, or with no member that can be.
        """
        failed: list[str] = []
        with telling(PackingError):
            empty = True
            for piece in inside.noted(self._found(path, reach, encoding, failed)):
                empty = False
                yield piece
        if empty and failed:
            raise MediumError(f"nothing in it can be restored: {failed[0]}")

    def _found(
        self, path: Path, reach: Reach | None, encoding: Encoding | None, failed: list[str]
    ) -> Iterator[Piece | str]:
        with tempfile.TemporaryDirectory() as folder:
            for number, member in enumerate(packings.walk(path)):
                kind = self._kind(member)
                if member.note:
                    yield f"{member.name} {member.note}"
                if kind is not None and kind.collection:
                    yield f"{member.name}: copied as it was: {kind.name}s within archives are not opened"
                elif kind is not None:
                    try:
                        yield from self._pieces(number, member, Path(folder), reach, encoding)
                    except (MediumError, MemberError) as error:
                        failed += [] if failed else [f"{member.name}: {error}"]
                        yield f"{member.name}: copied as it was: {error}"

    def _kind(self, member: Member) -> Medium | None:
        name = member.name.rpartition("/")[2]
        # What macOS keeps of a picture beside it is named like it.
        return None if member.spool_to is None or name.startswith("._") else self.medium_of(name)

    def _pieces(
        self, number: int, member: Member, folder: Path, reach: Reach | None, encoding: Encoding | None
    ) -> Iterator[Piece]:
        spooled = member.spool(folder / f"member{self._ending(member)}")
        kind = self.medium_in(spooled)
        for piece in inside.pieces(number, kind, kind.read(spooled, reach, encoding)):
            notes = tuple(f"{member.name}: {note}" for note in piece.notes)
            yield Piece(piece.window, piece.state, piece.seconds, notes)

    def _ending(self, member: Member) -> str:
        kind, name = self._kind(member), member.name.lower()
        assert kind is not None
        return max((suffix for suffix in kind.suffixes if name.endswith(suffix)), key=len)

    def write(self, state: Inside, pixels: NDArray[Any], encoding: Encoding) -> bytes:
        """A part that knows its member."""
        return inside.write(state, pixels, encoding, self.medium(state.kind))

    def join(self, parts: Iterable[bytes], source: Path, target: Path) -> Sequence[str]:
        """The archive again, with what was restored; what of it could not be kept. Raises MediumError."""
        coming, notes = Parts(parts), list[str]()
        with telling(PackingError), tempfile.TemporaryDirectory() as folder:
            for number, member in enumerate(packings.walk(source, into=target)):
                told: list[str] = []
                member.restored = self._restored(coming.of(number), member, Path(folder), told)
                notes += [f"{member.name}: {note}" for note in told]
        coming.check_all_taken()
        return notes

    def _restored(self, parts: Iterator[Part], member: Member, folder: Path, notes: list[str]) -> Path | None:
        """The file that takes the place of a member, None where it stays as it was."""
        held = _Held.of(parts, folder / "parts")
        if not held.changed or not held.whole:
            return None
        target = folder / f"restored{self._ending(member)}"
        try:
            notes += [*self._joined(held, member, folder, target), *held.lost]
        except (MediumError, MemberError) as error:
            notes.append(f"copied as it was: {error}")
            return None
        return target

    def _joined(self, held: _Held, member: Member, folder: Path, target: Path) -> Sequence[str]:
        if held.error:
            raise MediumError(held.error)
        join = self.medium(held.kind).join
        if join is None:
            target.write_bytes(next(held.data()))
            return ()
        return join(held.data(), member.spool(folder / f"member{target.suffix}"), target)


@dataclass
class _Held:
    """The parts of a member, on disk until all are there."""

    path: Path
    lengths: list[int] = field(default_factory=list)
    kind: str = ""
    changed: bool = False
    whole: bool = False
    error: str = ""
    lost: dict[str, None] = field(default_factory=dict)
    """Each sentence once, in order."""

    @staticmethod
    def of(parts: Iterator[Part], path: Path) -> _Held:
        held = _Held(path)
        with path.open("wb") as file:
            for part in parts:
                held.lengths.append(file.write(part.data))
                held.kind, held.whole = part.kind, part.last
                held.changed = held.changed or part.changed
                held.error = held.error or part.error
                held.lost |= dict.fromkeys(part.lost)
        return held

    def data(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for length in self.lengths:
                yield file.read(length)


def archive(
    medium_of: Callable[[str], Medium | None],
    medium_in: Callable[[Path], Medium],
    medium: Callable[[str], Medium],
) -> Medium:
    """The kind of archives, which hold things of the kinds that these tell."""
    kind = Archives(medium_of, medium_in, medium)
    return Medium("archive", packings.SUFFIXES, kind.read, kind.write, kind.join, collection=True)
