"""The manifest: one verdict for every item at a destination, and the order in which a run is committed.

It lies in parts, `_spair/manifest/*.parquet`, each sorted by key and all of them in order; the index
`_spair/manifest.json` names those that count, with how many rows of which verdict each has. While a run goes
on, its verdicts are journalled (`_spair/journal/*.parquet`). A commit merges them into the parts whose keys
are near theirs, replaces the index in one write, and only then removes the journal. A run that was killed
leaves its journal: the next run reads it, so nothing that was finished is done again. Readers follow the
manifest and never list the destination; a part that a commit has replaced stays until the next one.

Whatever the number of items, memory holds one part and the verdicts since the last commit.
"""

from __future__ import annotations

import json
import uuid
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.services import locations, storage, tracking
from pipelines.services.storage import StorageError, StoredObject

FOLDER = locations.FOLDER
EARLIER = "manifest.parquet"
"""The whole manifest, as version 0.1.0 wrote it; the first commit replaces it."""
PART_ROWS = 50_000
RESTORED, PASSED, REJECTED, FAILED, IGNORED = "restored", "passed", "rejected", "failed", "ignored"
OTHER = "other"
"""The kind of what is no medium of ours; those have their own names."""
VERDICTS = (RESTORED, PASSED, REJECTED, FAILED, IGNORED)
DONE = (RESTORED, PASSED)
"""The verdicts of what is at its destination."""


@dataclass(frozen=True)
class Verdict:
    """What became of one item.

    `restored`; `passed`: nothing was found to restore, and it was copied; `rejected`: its bytes are bad, or a
    clip's container cannot hold the codec that was asked for, for good; `failed`: worth another try;
    `ignored`: nothing that can be restored, by its name. `reason` says why for all but the first two;
    `notes`, a sentence a line, what of a finished item was damaged or missing and what could not be kept.
    """

    key: str
    kind: str
    verdict: str
    reason: str = ""
    source_uri: str = ""
    source_identity: str = ""
    source_digest: str = ""
    output_uri: str = ""
    output_digest: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    degraded_share: float = 0.0
    model_seconds: float = 0.0
    model_digest: str = ""
    options: str = ""
    notes: str = ""
    finished_at: str = ""

    def settles(self, identity: str, model_digest: str, options: str) -> bool:
        """Whether an item with this content, model and options needs no more work."""
        return self.source_identity == identity and self.settled_with(model_digest, options)

    def settled_with(self, model_digest: str, options: str) -> bool:
        """Whether it was settled, whatever its content, with this model and these options."""
        same = (self.model_digest, self.options) == (model_digest, options)
        return same and self.verdict in (*DONE, REJECTED)


SCHEMA = pa.schema(
    [
        pa.field(f.name, {"int": pa.int64(), "float": pa.float64()}.get(str(f.type), pa.string()))
        for f in fields(Verdict)
    ]
)


@dataclass(frozen=True)
class Part:
    """A file of the manifest: its first key and how many rows of which verdict it has."""

    file: str
    first: str
    verdicts: Mapping[str, int] = field(default_factory=dict)


class Manifest:
    """The verdicts at a destination: those committed, and the journal of the run at hand."""

    def __init__(self, destination: str) -> None:
        """Reads the index, and the journal of a broken run. Raises StorageError."""
        self.folder = locations.join(destination, FOLDER)
        self.uri = locations.join(self.folder, "manifest.json")
        self._journal = locations.join(self.folder, "journal")
        self._parts = self._indexed()
        self._replaced: list[Part] = []
        self._pending: list[Verdict] = []
        self._fresh: dict[str, Verdict | None] = {}
        # What has another ending was being written when its process was killed.
        found = [item for item in self._journalled() if item.key.endswith(".parquet")]
        for item in found:
            self._fresh |= {verdict.key: verdict for verdict in _read(item.uri)}
        self.recovered = len(found)

    def _journalled(self) -> Iterator[StoredObject]:
        return storage.list_objects(self._journal) if storage.exists(self._journal) else iter(())

    def get(self, key: str) -> Verdict | None:
        """The verdict on an item, if there is one."""
        if key in self._fresh:
            return self._fresh[key]
        place = bisect_right(self._parts, key, key=lambda part: part.first) - 1
        rows = self._rows(self._parts[max(place, 0)]) if self._parts else ()
        return next((verdict for verdict in rows if verdict.key == key), None)

    def __iter__(self) -> Iterator[Verdict]:
        """All of them by key, read part by part; those that are added meanwhile may or may not be there."""
        committed = (verdict for part in list(self._parts) for verdict in self._rows(part))
        return _merged(committed, sorted(self._fresh.items()))

    def counts(self) -> Counter[str]:
        """Items committed, by verdict."""
        return sum((Counter(part.verdicts) for part in self._parts), Counter())

    def add(self, verdict: Verdict) -> None:
        """Take a verdict down; `flush` makes it last, `commit` publishes it."""
        self._fresh[verdict.key] = verdict
        self._pending.append(verdict)

    def drop(self, key: str) -> None:
        """Forget an item, at the next commit."""
        self._fresh[key] = None

    def flush(self) -> None:
        """Journal the verdicts taken down since the last time."""
        if self._pending:
            name = f"{tracking.now().replace(':', '')}-{uuid.uuid4().hex}.parquet"
            _write(locations.join(self._journal, name), self._pending)
            self._pending = []

    def commit(self) -> None:
        """Publish all verdicts taken down, then remove the journal."""
        self.flush()
        kept: list[Part] = []
        replaced: list[Part] = []
        for part, fresh in self._shared(sorted(self._fresh.items())):
            if part is not None and not fresh:
                kept.append(part)
                continue
            kept += self._written(_merged(self._rows(part) if part else iter(()), fresh))
            replaced += [part] if part else []
        index = {"version": 1, "parts": [asdict(part) for part in kept]}
        storage.write_bytes(self.uri, json.dumps(index, indent=1).encode())
        self._clean(kept, replaced)
        self._parts, self._replaced, self._fresh = kept, replaced, {}

    def part_uris(self) -> list[str]:
        """Where the committed parts are, in order."""
        return [locations.join(self.folder, part.file) for part in self._parts]

    def _clean(self, kept: Sequence[Part], replaced: Sequence[Part]) -> None:
        """Remove the journal, and what no reader of this index or the one before it can want."""
        storage.delete_below(self._journal)
        wanted = {part.file for part in (*kept, *replaced)}
        there = locations.join(self.folder, "manifest")
        if storage.exists(there):
            for item in list(storage.list_objects(there)):
                if f"manifest/{item.key}" not in wanted:
                    storage.delete(item.uri)
        if EARLIER not in wanted:
            storage.delete(locations.join(self.folder, EARLIER))

    def _shared(
        self, fresh: Sequence[tuple[str, Verdict | None]]
    ) -> Iterator[tuple[Part | None, Sequence[tuple[str, Verdict | None]]]]:
        """Each part with what is new between its first key and the next part's."""
        if not self._parts:
            yield from [(None, fresh)] if fresh else []
            return
        start = 0
        ends = [bisect_left(fresh, part.first, key=_key) for part in self._parts[1:]]
        for part, end in zip(self._parts, [*ends, len(fresh)], strict=True):
            yield part, fresh[start:end]
            start = end

    def _written(self, verdicts: Iterator[Verdict]) -> Iterator[Part]:
        while chunk := list(islice(verdicts, PART_ROWS)):
            name = f"manifest/{uuid.uuid4().hex}.parquet"
            _write(locations.join(self.folder, name), chunk)
            yield Part(name, chunk[0].key, dict(Counter(verdict.verdict for verdict in chunk)))

    def _rows(self, part: Part) -> Iterator[Verdict]:
        return _read(locations.join(self.folder, part.file))

    def _indexed(self) -> list[Part]:
        if storage.exists(self.uri):
            try:
                index = json.loads(storage.read_bytes(self.uri))
                return [Part(**part) for part in index["parts"]]
            except (ValueError, KeyError, TypeError) as error:
                raise StorageError(_damaged(self.uri, error)) from error
        earlier = locations.join(self.folder, EARLIER)
        return [Part(EARLIER, "")] if storage.exists(earlier) else []


def _key(pair: tuple[str, Verdict | None]) -> str:
    return pair[0]


def _merged(old: Iterator[Verdict], new: Iterable[tuple[str, Verdict | None]]) -> Iterator[Verdict]:
    """Both by key; what is new counts, and None takes away."""
    held = next(old, None)
    for key, verdict in new:
        while held is not None and held.key < key:
            yield held
            held = next(old, None)
        if held is not None and held.key == key:
            held = next(old, None)
        if verdict is not None:
            yield verdict
    if held is not None:
        yield held
    yield from old


def _write(uri: str, verdicts: Sequence[Verdict]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([asdict(verdict) for verdict in verdicts], schema=SCHEMA), sink)
    storage.write_bytes(uri, sink.getvalue().to_pybytes())


def _read(uri: str) -> Iterator[Verdict]:
    try:
        file = pq.ParquetFile(pa.BufferReader(storage.read_bytes(uri)))
        names = [f.name for f in fields(Verdict) if f.name in file.schema_arrow.names]
        for batch in file.iter_batches(1000, columns=names):
            yield from (Verdict(**row) for row in batch.to_pylist())
    except (pa.ArrowInvalid, OSError, TypeError) as error:
        raise StorageError(_damaged(uri, error)) from error


def _damaged(uri: str, error: Exception) -> str:
    return f"{uri}: is damaged ({error}); remove it, and its items are done again"
