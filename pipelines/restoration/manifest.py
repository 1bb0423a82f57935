"""The manifest: one verdict for every item of a run, and the order in which a run is committed.

While a run goes on, its verdicts are journalled in parts (`_spair/journal/*.parquet`). At its end the
parts and the earlier manifest are merged into `_spair/manifest.parquet`, one row a key, and only then
are the parts removed. A run that was killed leaves its parts: the next run reads them, so nothing
that was finished is done again. Readers follow the manifest and never list the destination.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.services import storage, tracking
from pipelines.services.storage import StorageError

FOLDER = "_spair"
RESTORED, PASSED, REJECTED, FAILED, IGNORED = "restored", "passed", "rejected", "failed", "ignored"
OTHER = "other"
"""The kind of what is no medium of ours; those have their own names."""
VERDICTS = (RESTORED, PASSED, REJECTED, FAILED, IGNORED)
DONE = (RESTORED, PASSED)
"""The verdicts of what is at its destination."""


@dataclass(frozen=True)
class Verdict:
    """What became of one item.

    `restored`; `passed`: nothing was found to restore, and it was copied; `rejected`: its bytes are bad, for
    good; `failed`: worth another try; `ignored`: neither a picture nor a clip by its name. `reason` says why
    for all but the first two; `notes`, a sentence a line, what of a finished item was damaged or missing and
    what of it could not be kept.
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
        same = (self.source_identity, self.model_digest, self.options) == (identity, model_digest, options)
        return same and self.verdict in (*DONE, REJECTED)


SCHEMA = pa.schema(
    [
        pa.field(f.name, {"int": pa.int64(), "float": pa.float64()}.get(str(f.type), pa.string()))
        for f in fields(Verdict)
    ]
)


class Manifest:
    """The verdicts at a destination: those committed, and the journal of the run at hand."""

    def __init__(self, destination: str) -> None:
        """Reads what is there, parts of a broken run included. Raises StorageError."""
        self.uri = storage.join(destination, FOLDER, "manifest.parquet")
        self._journal = storage.join(destination, FOLDER, "journal")
        self._pending: list[Verdict] = []
        self._verdicts: dict[str, Verdict] = {}
        parts = (
            [item.uri for item in storage.list_objects(self._journal)]
            if storage.exists(self._journal)
            else []
        )
        committed = [self.uri] if storage.exists(self.uri) else []
        for uri in committed + parts:
            self._verdicts |= {verdict.key: verdict for verdict in _read(uri)}
        self.recovered = len(parts)

    def get(self, key: str) -> Verdict | None:
        """The verdict on an item, if there is one."""
        return self._verdicts.get(key)

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self._verdicts.values())

    def add(self, verdict: Verdict) -> None:
        """Take a verdict down; `flush` makes it last."""
        self._verdicts[verdict.key] = verdict
        self._pending.append(verdict)

    def flush(self) -> None:
        """Write the verdicts taken down since the last time as one part."""
        if self._pending:
            _write(
                storage.join(self._journal, f"{tracking.now().replace(':', '')}-{uuid.uuid4().hex}.parquet"),
                self._pending,
            )
            self._pending = []

    def commit(self) -> None:
        """Publish all verdicts as the manifest, then remove the parts."""
        self.flush()
        _write(self.uri, sorted(self._verdicts.values(), key=lambda verdict: verdict.key))
        storage.delete(self._journal)


def _write(uri: str, verdicts: list[Verdict]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([asdict(verdict) for verdict in verdicts], schema=SCHEMA), sink)
    storage.write_bytes(uri, sink.getvalue().to_pybytes())


def _read(uri: str) -> list[Verdict]:
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
    except pa.ArrowInvalid as error:
        raise StorageError(f"{uri}: is damaged ({error}); remove it, and its items are done again") from error
    names = {f.name for f in fields(Verdict)}
    return [Verdict(**{k: v for k, v in row.items() if k in names}) for row in table.to_pylist()]
