"""A prefix of pictures and clips -> the same, restored, under the mirrored names.

    lease -> [ list beside manifest -> plan -> stream -> ledger -> commit ] a window of items at a time

The source is listed and planned as it comes (`plan`), the work is done on the cluster (`stream`), what comes
of it is journalled on the driver (`ledger`), and each window is committed to the manifest when it ends
(`manifest`). Every planned item ends in one verdict, and one job works at a destination at a time (`lease`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Any, Literal

import ray

from pipelines.restoration.lease import Lease
from pipelines.restoration.ledger import Accounts, Ledger, Summary, by_chance
from pipelines.restoration.manifest import DONE, IGNORED, OTHER, REJECTED, Manifest, Verdict
from pipelines.restoration.pieces import GIVEN_UP, UNCHANGED, UNUSABLE, Work, join
from pipelines.restoration.plan import Forecast, Planned, Selection, Terms, beside, plan
from pipelines.restoration.settings import Settings
from pipelines.restoration.stream import Stream
from pipelines.services import cluster, locations, models, storage, tracking
from pipelines.services.models import ModelError, ResolvedModel
from spair_core.inference import Chosen, chosen

FIRST_WINDOW_SECONDS = 3.0
"""For which the source is listed before work begins on what was found."""
ROW = ("key", "uri", "size", "kind", "panel", "known_digest")
"""Of an item, what its work takes."""
LOOKED_AHEAD = 1000
"""Objects that are looked at before the destination is ours: a page of a listing."""
WINDOW, WINDOW_OF_A_CPU = 50_000, 500
"""Most items that are in hand at once: so many, or on a large cluster so many for each of its CPUs."""
GRACE_SECONDS = 20.0
"""For what is in hand when a run is to stop: schedulers kill 30 s after they have said so."""
SPARE = 3
"""Items that may give a panel, for each that is kept: some of them may be broken."""


@dataclass(frozen=True)
class Route:
    """From where to where; a class of its own so that --help begins with it."""

    source: str
    """Folder or prefix of pictures and clips, such as s3://dashcams/2026-11-20."""
    destination: str
    """Where the restored ones go, under the same names."""


@dataclass(frozen=True)
class RestoreConfig(Settings, Route):
    """What to restore, with what, and where to."""

    actors: int | Literal["auto"] = "auto"
    """Processes that hold the model; auto is one a CPU of the cluster, or as many as its GPUs hold."""
    num_gpus: float = 0.0
    """GPUs of each of them (a fraction shares one); 0 computes on CPUs."""
    selection: Selection = field(default_factory=Selection)
    dry_run: bool = False
    """Only say what would be done."""
    prune: bool = False
    """At the end, remove what was restored of items that are no longer at the source; with --dry-run, list
    it."""
    wait_minutes: float = 60.0
    """How long to wait for another job that has the destination."""
    piece_minutes: float = 15.0
    """A picture, or a run of a clip's frames, that takes longer to read, restore or write is given up."""
    max_lost_share: float = 0.5
    """A larger share of rejected and failed items (of a hundred or more) stops the job while it runs, and
    makes it fail at its end; not where rejected ones are tried again."""
    panels: int = 4
    """Before/after pictures to keep."""
    experiment: str = "spair-restoration"
    """MLflow experiment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.actors != "auto" and self.actors < 1:
            raise ValueError("actors is a number, at least 1, or auto")
        if self.wait_minutes < 0 or self.piece_minutes <= 0:
            raise ValueError("wait_minutes is a time, piece_minutes one above 0")
        if self.num_gpus < 0 or self.panels < 0 or self.max_lost_share < 0:
            raise ValueError("num_gpus, panels and max_lost_share are at least 0")

    @property
    def most_lost(self) -> float:
        """The share over which too much is lost: of items that were rejected before, all may be again."""
        return 1.0 if self.selection.redrive == REJECTED else self.max_lost_share

    @property
    def options(self) -> str:
        """Everything beside model and source that the output depends on."""
        quality = self.quality or "source"
        options = (
            f"tile={self.tile} quality={quality} crf={self.encode.crf} preset={self.encode.preset} "
            f"min_degraded={self.min_degraded:g}"
        )
        if self.encode.codec != "source":
            options = f"{options} codec={self.encode.codec}"
        # Manifests from before there was a choice do not name it.
        return options if self.precision == "float32" else f"{options} precision={self.precision}"


def restore(config: RestoreConfig) -> Summary:
    """Restore all that is under `source` and has not been, and commit the manifest.

    Raises ValueError (source and destination overlap), NothingStoredError (the source is empty), ModelError,
    StorageError, TrackingError, UnavailableError and HeldError (another job has the destination) before any
    work (but ModelError with the first of it where the file is whole and its tensors are of another network),
    TooManyLostError while it goes on; what happens to single items is in the summary and, all of it, in
    the manifest. Where the run is interrupted, what is in hand is finished or given up, what is done is kept,
    and the interruption goes on to the caller.
    """
    _check_apart(config.source, config.destination)
    started = time.monotonic()
    storage.check_source(config.source)
    storage.check_writable(config.destination)
    tracking.check()
    cluster.check_answers()
    model = models.found(config.model)
    config = _decided(config)
    begin = partial(_begin, config, model)
    with Lease(config.destination).held(60 * config.wait_minutes, _tell, meanwhile=begin) as lease:
        book, work = Manifest(config.destination), _work(config, model)
        if book.recovered:
            book.commit()
        ledger = _ledger(config, model, work, book)
        windows = _windows(_planned(config, model, book), ledger)
        first = next(windows, [])
        if first:
            cluster.connect()  # beside it MLflow sets itself up
        with tracking.run(config.experiment, config.destination) as run:
            run.log_params(asdict(config) | {"model_uri": model.uri, "model_digest": model.digest})
            try:
                _restore_all(config, work, chain([first], windows), ledger, lease)
            finally:
                ledger.summary.seconds = time.monotonic() - started
                _log(ledger, run)
    return ledger.summary


def _begin(config: RestoreConfig, model: ResolvedModel) -> None:
    """Start the cluster where the first objects show that there is work: it takes seconds."""
    if any(one.todo for one in islice(_planned(config, model, Manifest(config.destination)), LOOKED_AHEAD)):
        cluster.connect()


def _ledger(config: RestoreConfig, model: ResolvedModel, work: Work, book: Manifest) -> Ledger:
    accounts = Accounts(work.destination, config.options, model.digest, config.panels, config.most_lost)
    joining = partial(join.remote, replace(work, model=b""))
    return Ledger(accounts, book, Summary(manifest=book.uri), joining)


def _log(ledger: Ledger, run: tracking.Run) -> None:
    run.log_metrics(ledger.summary.metrics())
    run.set_tags({"spair.manifest": ledger.book.uri})
    if storage.exists(ledger.book.uri):
        run.log_bytes("manifest.json", storage.read_bytes(ledger.book.uri))
    for name, png in ledger.keep_panels():
        run.log_bytes(f"panels/{name}", png)


def forecast(config: RestoreConfig) -> Forecast:
    """What `restore` would do. Raises ValueError, ModelError, StorageError."""
    _check_apart(config.source, config.destination)
    config = _decided(config)
    model = models.found(config.model)
    seen, book = Forecast(), Manifest(config.destination)
    for planned in _planned(config, model, book):
        seen.count(planned)
    return seen


def orphans(config: RestoreConfig, book: Manifest) -> Iterator[Verdict]:
    """What was restored of items that are no longer at the source."""
    source = locations.absolute(config.source)
    for item, verdict in beside(storage.list_objects(config.source), iter(book)):
        gone = verdict if item is None else None
        if gone is not None and gone.source_uri == locations.join(source, gone.key):
            yield gone


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _check_apart(source: str, destination: str) -> None:
    if locations.overlap(source, destination):
        raise ValueError(f"{source} and {destination} overlap: restored items would be read again as sources")


def _decided(config: RestoreConfig) -> RestoreConfig:
    """The same with its precision chosen: by this machine's processor, or by a GPU such as actors get."""
    if config.precision == "auto" and config.num_gpus:
        cluster.connect()
        cluster.check_gpus(config.num_gpus)
        choice = ray.get(_gpus_choice.options(num_gpus=config.num_gpus).remote())
        return replace(config, precision=choice)
    return replace(config, precision=chosen(config.precision))


@ray.remote(num_cpus=0)
def _gpus_choice() -> Chosen:
    import torch

    return chosen("auto", "cuda" if torch.cuda.is_available() else "cpu")


def _restore_all(
    config: RestoreConfig, work: Work, windows: Iterable[list[Planned]], ledger: Ledger, lease: Lease
) -> None:
    try:
        for window in windows:
            _restore_window(config, work, window, ledger, lease)
            lease.check()
            ledger.book.commit()
        if config.prune:
            _prune(config, ledger)
    finally:
        if not lease.lost:  # else the manifest is another job's, which has read this one's journal
            ledger.book.commit()
    storage.delete_below(work.staging)


def _planned(config: RestoreConfig, model: ResolvedModel, book: Manifest) -> Iterator[Planned]:
    terms = Terms(model.digest, config.options, locations.is_local(config.destination))
    return plan(storage.list_objects(config.source), iter(book), config.selection, terms)


def _windows(planned: Iterable[Planned], ledger: Ledger) -> Iterator[list[Planned]]:
    """What is to be done, as many items at once as memory allows, and at first those that are listed soon.

    What was settled before, and what is none of ours by its name, is settled on the way.
    """
    window: list[Planned] = []
    until, seen, most = time.monotonic() + FIRST_WINDOW_SECONDS, 0, _most()
    for one in planned:
        if one.settled:
            ledger.summary.already += 1
            continue
        seen += 1
        if not one.todo:
            ledger.enter(_by_name(one, ledger))
        else:
            window.append(one)
        if seen >= most or (until and window and time.monotonic() > until):
            yield window
            window, until, seen, most = [], 0.0, 0, _most()
    if seen:
        yield window


def _most() -> float:
    """Items of a window."""
    return max(WINDOW, WINDOW_OF_A_CPU * cluster.cpus())


def _by_name(one: Planned, ledger: Ledger) -> Verdict:
    """On what is not to be restored, whatever is in it."""
    item, accounts = one.item, ledger.accounts
    other = one.kind == OTHER
    return Verdict(
        item.key,
        one.kind,
        IGNORED if other else REJECTED,
        _no_medium(item.uri) if other else one.refused,
        source_uri=locations.as_text(item.uri),
        source_identity=item.identity,
        model_digest=accounts.model_digest,
        options=accounts.options,
        finished_at=tracking.now(),
    )


def _no_medium(uri: str) -> str:
    """Why an object is ignored."""
    if storage.is_unreadable_folder(uri):
        return storage.UNREADABLE
    return storage.NO_FILE if storage.is_no_file(uri) else "nothing that can be restored, by its ending"


def _work(config: RestoreConfig, model: ResolvedModel) -> Work:
    precision = config.precision
    assert precision != "auto"
    return Work(
        locations.absolute(config.destination),
        model.data,
        precision,
        config.tile,
        config.min_degraded,
        config.encoding,
        config.actors,
        config.num_gpus,
        60 * config.piece_minutes,
    )


def _restore_window(
    config: RestoreConfig, work: Work, window: list[Planned], ledger: Ledger, lease: Lease
) -> None:
    if not window:
        return
    cluster.connect()  # a later window may be the first with work
    ledger.begin(_items(window, config))
    coming = Stream(work, [{name: item[name] for name in ROW} for item in ledger.items.values()])
    try:
        for row in coming.rows():
            if row["verdict"] == UNUSABLE:
                raise ModelError(f"{config.model}: {row['error']}")
            _take(row, ledger)
            lease.check()
    except BaseException:
        _tell("stopping: what is in hand is finished or given up, what is done is kept")
        for row in coming.in_hand(GRACE_SECONDS):
            _take(row, ledger)
        ledger.finish(given_up=GRACE_SECONDS / 4)
        raise
    ledger.finish()


def _take(row: dict[str, Any], ledger: Ledger) -> None:
    if row["verdict"] == UNCHANGED:
        ledger.confirm(row["key"])
    elif row["verdict"] not in (GIVEN_UP, UNUSABLE):
        ledger.take(row)


def _items(window: list[Planned], config: RestoreConfig) -> list[dict[str, Any]]:
    """What the ledger keeps of each, and whether it may give a panel."""
    keys = sorted((one.item.key for one in window), key=by_chance)
    shown = set(keys[: SPARE * config.panels])
    return [
        {
            "key": one.item.key,
            "uri": one.item.uri,
            "size": one.item.size,
            "identity": one.item.identity,
            "kind": one.kind,
            "panel": one.item.key in shown,
            "known": one.known,
            "known_digest": one.settled_digest,
        }
        for one in window
    ]


def _prune(config: RestoreConfig, ledger: Ledger) -> None:
    anything = not locations.is_local(config.destination)
    for verdict in list(orphans(config, ledger.book)):
        _tell(f"pruned: {verdict.key}")
        # By its name, not by what a manifest says of its place: that file is anybody's to write.
        if verdict.verdict in DONE and (anything or locations.is_path(verdict.key)):
            storage.delete(locations.join(config.destination, verdict.key))
        ledger.book.drop(verdict.key)
        ledger.summary.pruned += 1
