"""Restore pictures, animations, clips, archives and tables here and now: no cluster, no MLflow, no bucket.

    python jobs/restore.py photo.jpg                        # writes photo.restored.jpg beside it
    python jobs/restore.py drive.mp4 --compare              # and drive.compare.mp4: before and after
    python jobs/restore.py holiday/ --out dry/              # a folder with all below it, under the same names
    python jobs/restore.py *.jpg --model rain-light -q
    python jobs/restore.py s3://footage/a.mp4 --out a.mp4   # from a store, or to one

A source is never written to, and what is there already is kept, unless --force is given: started again, it
goes on where it was. Each file gets a line on the standard output, with its verdict:

    restored    what was degraded is restored
    passed      nothing was found in it; what was written is a copy
    kept        its output is there already
    rejected    its bytes are bad, or it cannot be written in --codec; the reason says how
    failed      worth another try; the reason says why
    ignored     nothing that can be restored, by its name

and more, where something of it was damaged or could not be kept. One that was rejected or failed makes the
exit code 4. How far it is goes to the standard error.

For millions of files, several machines and a manifest there is jobs/restore_bulk.py.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from jobs.entry import NOTHING_TO_DO, TOO_MANY_BAD, run
from pipelines.restoration.here import named
from pipelines.restoration.here.local import Device, Local, Outcome, Targets, Told, seconds_of
from pipelines.restoration.here.named import Named
from pipelines.restoration.manifest import FAILED, IGNORED, REJECTED, RESTORED
from pipelines.restoration.settings import Settings
from pipelines.services import locations, storage
from pipelines.services.faults import NothingThereError

KEPT = "kept"
"""The verdict of what was not touched since its output is there."""
TOLD_SECONDS = 5.0
"""Between two lines about a file that takes long, where there is no terminal."""


@dataclass(frozen=True)
class HereConfig(Settings):
    """What to restore, and where to."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Files, folders (with all below them) and URIs such as s3://footage/night/."""
    out: str | None = None
    """A file or a folder, here or at a store. By default outputs lie beside their sources, as
    NAME.restored.jpg; below a folder they keep their names."""
    force: bool = False
    """Write over outputs that are there."""
    compare: bool = False
    """Of pictures and clips also write NAME.compare.jpg, .png or .mp4: before and after side by side, with a
    clip's sound."""
    device: Device = "auto"
    """auto is the GPU where torch sees one."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Print nothing but errors."""
    in_place: bool = False
    """Refused: what was restored cannot be taken back. Name --out, and remove the sources when you have
    looked."""


def main(config: HereConfig) -> int:
    """Restore what is named; 3 where there is nothing to do, 4 where a file was rejected or failed."""
    if not config.sources:
        raise ValueError("name the files or folders to restore, such as: spair restore photo.jpg")
    if config.in_place:
        raise ValueError("a source is never written to; name another place by --out")
    found = named.find(config.sources, config.out)
    todo = [one for one in found if one.known]
    ignored = [one for one in found if not one.known]
    if not todo:
        raise NothingThereError(_nothing(config, ignored))
    targets = named.targets(todo, config.out, compare=config.compare)
    return _Run(config, _Shown(config.quiet)).all(todo, targets, ignored)


def _nothing(config: HereConfig, ignored: Sequence[Named]) -> str:
    what = ", ".join(config.sources)
    if not ignored:
        return f"{what}: holds no files"
    return f"{what}: nothing that can be restored, by its name; what can: {named.endings()}"


class _Shown:
    """Lines on the standard output; how far it is on the standard error: a bar where that is a terminal, and
    elsewhere a line now and then."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None
        self.done = 0
        """Bytes of the files that are finished."""

    def say(self, line: str, *, error: bool = False) -> None:
        """A line, of which only errors are told where it is to be quiet."""
        if self.bar is not None:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if error and self.quiet:
            print(line, file=sys.stderr, flush=True)
        elif not self.quiet:
            print(line, flush=True)

    @contextmanager
    def progress(self, size: int) -> Iterator[None]:
        """While files of so many bytes together are restored."""
        if self.quiet or not sys.stderr.isatty():
            yield
            return
        import click

        with click.progressbar(
            length=max(size, 1), file=sys.stderr, item_show_func=lambda what: what or ""
        ) as self.bar:
            self._show(0, "loading the model")
            yield
        self.bar = None

    def _show(self, at: int, what: str) -> None:
        self.bar.current_item = what
        self.bar.update(max(at - self.bar.pos, 0), what)
        self.bar.render_progress()

    @contextmanager
    def file(self, one: Named) -> Iterator[Told]:
        """While a file is restored; how far it is in it can be told of clips."""
        name, begun, shown = locations.name_of(one.uri), self.done, time.monotonic()
        length = seconds_of(Path(one.uri)) if one.local else None

        def told(frames: int, seconds: float) -> None:
            nonlocal shown
            share = min(seconds / length, 1.0) if length else 0.0
            if self.bar is not None:
                self._show(begun + int(share * one.size), f"{name}: {frames} frames")
            elif not self.quiet and frames > 1 and time.monotonic() - shown > TOLD_SECONDS:
                shown = time.monotonic()
                print(
                    f"{name}: {frames} frames{f', {share:.0%}' if length else ''}",
                    file=sys.stderr,
                    flush=True,
                )

        if self.bar is not None:
            self._show(begun, name)
        yield told
        self.done += one.size
        if self.bar is not None:
            self._show(self.done, name)


class _Run:
    """The files of a call, one after another."""

    def __init__(self, config: HereConfig, shown: _Shown) -> None:
        self.config, self.shown = config, shown
        self.counts: Counter[str] = Counter()
        self.started = time.monotonic()

    def all(self, todo: Sequence[Named], targets: Sequence[Targets], ignored: Sequence[Named]) -> int:
        for one in ignored:
            self._count(one, Outcome(IGNORED, "nothing that can be restored, by its name"), None)
        fresh = []
        for one, target in zip(todo, targets, strict=True):
            there = None if self.config.force else _there(target)
            if there is None:
                fresh.append((one, target))
            else:
                self._count(one, Outcome(KEPT, f"{there} is there; --force writes over it"), None)
        if fresh:
            self._restore(fresh)
        return self._ended(len(fresh))

    def _restore(self, fresh: Sequence[tuple[Named, Targets]]) -> None:
        with self.shown.progress(sum(one.size for one, _ in fresh)):
            local = Local(self.config, self.config.device)
            for one, target in fresh:
                with self.shown.file(one) as told:
                    outcome = _restored(local, one, target, told)
                self._count(one, outcome, target)

    def _count(self, one: Named, outcome: Outcome, target: Targets | None) -> None:
        self.counts[outcome.verdict] += 1
        for line in _lines(one, outcome, target):
            self.shown.say(line, error=outcome.verdict in (REJECTED, FAILED))

    def _ended(self, fresh: int) -> int:
        total, bad = self.counts.total(), self.counts[REJECTED] + self.counts[FAILED]
        if total > 1:
            told = ", ".join(f"{number} {verdict}" for verdict, number in self.counts.items())
            self.shown.say(f"{told}; {time.monotonic() - self.started:.1f} s")
        if bad:
            print(f"error: {bad} of {total} files could not be restored", file=sys.stderr)
        return TOO_MANY_BAD if bad else 0 if fresh else NOTHING_TO_DO


def _there(target: Targets) -> str | None:
    """Which of the outputs of a file is there, if any."""
    outputs = (one for one in (target.restored, target.comparison) if one is not None)
    return next(filter(storage.exists, outputs), None)


def _restored(local: Local, one: Named, target: Targets, told: Told) -> Outcome:
    """A file that lies elsewhere is copied here first."""
    if one.local:
        return local.restore(Path(one.uri), target, told)
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetched = storage.fetch(one.uri, folder, one.size)
        except storage.StorageError as error:
            return Outcome(FAILED, str(error))
        return local.restore(fetched, target, told)


def _lines(one: Named, outcome: Outcome, target: Targets | None) -> Iterator[str]:
    head = f"{outcome.verdict}: {one.uri}"
    if target is None or outcome.verdict in (REJECTED, FAILED):
        yield f"{head}: {outcome.reason}"
        return
    share = f"{outcome.degraded_share:.1%} of it was degraded"
    found = share if outcome.verdict == RESTORED else "nothing was found, this is a copy"
    yield f"{head} -> {target.restored}: {found}"
    yield from (f"{head}: {note}" for note in outcome.notes)
    if outcome.compared:
        yield f"compared: {one.uri} -> {target.comparison}"


if __name__ == "__main__":
    run(main, HereConfig, __doc__ or "")
