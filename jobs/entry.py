"""How every job starts and ends: a configuration becomes flags, an error one clear line and an exit code."""

from __future__ import annotations

import gc
import io
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

from pipelines.services import faults

Config = TypeVar("Config")

FAILED, USAGE, NOTHING_TO_DO, TOO_MANY_BAD, HELD, TRY_AGAIN = 1, 2, 3, 4, 5, 75
"""Exit codes. The last is sysexits' EX_TEMPFAIL; after a signal they are 128 and its number."""

CODES: tuple[tuple[type[Exception], int], ...] = (
    (faults.UnavailableError, TRY_AGAIN),
    (faults.NothingThereError, NOTHING_TO_DO),
    (faults.HeldError, HELD),
    (faults.TooManyLostError, TOO_MANY_BAD),
    (ValueError, USAGE),
    (RuntimeError, FAILED),
    (OSError, FAILED),
    (MemoryError, FAILED),
    (FloatingPointError, FAILED),
)
"""The code of an error, by the first kind that fits. Any other is a fault of the program's own."""

OPTIONS = (tyro.conf.OmitArgPrefixes,)
"""How tyro makes flags of configurations."""

EXITS = """Exits with 0: done, 1: failed, 2: wrong flags, 3: nothing to do, 4: too many items rejected or \
failed, 5: another job holds the destination, 75: a service does not answer, try again later, \
130 or 143: interrupted."""


def run(job: Callable[[Config], object], config: type[Config] | Config, description: str) -> NoReturn:
    """Parse this process's flags as those of `config`, run `job`, and exit as `end_with` does."""
    end_with(lambda: job(parsed(config, description)))


def end_with(work: Callable[[], object]) -> NoReturn:
    """Do some work and exit with the number that it gives (0 where it gives something else); after an error
    that its caller can mend, or a signal, with a line that says so and the code of EXITS."""
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    with faults.stopping() as received:
        try:
            outcome = work()
        except tuple(kind for kind, _ in CODES) as error:
            if isinstance(error, BrokenPipeError) and _is_unread():
                sys.exit(128 + signal.SIGPIPE)
            print(f"error: {_told(error)}", file=sys.stderr)
            sys.exit(next(code for kind, code in CODES if isinstance(error, kind)))
        except KeyboardInterrupt as end:
            number = end.number if isinstance(end, faults.Stopped) else next(iter(received), signal.SIGINT)
            print(f"stopped by {signal.Signals(number).name}; start the job again to go on", file=sys.stderr)
            sys.exit(128 + number)
        finally:
            _flush()
            gc.freeze()  # else the interpreter, as it ends, looks through all of torch once more: a second
    sys.exit(outcome if isinstance(outcome, int) else 0)


def _is_unread() -> bool:
    """Whether whoever read the output (`| head`) has enough, which is no error."""
    output = select.poll()
    output.register(1, 0)
    return any(events & select.POLLERR for _, events in output.poll(0))


def _flush() -> None:
    """Write out what was printed; where nobody reads it any more, it goes nowhere."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(error: BaseException) -> str:
    """Its message; without the traceback that Ray puts around one from another process."""
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, Exception) else error
    return str(error) or type(error).__name__


def parsed(
    config: type[Config] | Config,
    description: str,
    *,
    program: str | None = None,
    flags: Sequence[str] | None = None,
) -> Config:
    """What flags (this process's own) make of a dataclass, or of an instance whose values are the defaults.

    After --help and wrong flags it exits.
    """
    told = f"{description.rstrip()}\n\n{EXITS}"
    default: dict[str, Any] = {} if isinstance(config, type) else {"default": config}
    kind = config if isinstance(config, type) else type(config)
    return tyro.cli(kind, prog=program, args=flags, description=told, config=OPTIONS, **default)
