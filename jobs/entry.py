"""How every job starts: a configuration becomes flags, and an error becomes one clear line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

Config = TypeVar("Config")


def run(job: Callable[[Config], object], config: type[Config] | Config, description: str) -> None:
    """Parse the flags of `config` (a dataclass, or an instance whose values are the defaults), run `job`.

    Exits with the number that `job` returns (0 where it returns something else), and with 2 after an
    error that the caller can mend.
    """
    options = (tyro.conf.OmitArgPrefixes,)
    try:
        if isinstance(config, type):
            parsed = tyro.cli(config, description=description, config=options)
        else:
            parsed = tyro.cli(type(config), default=config, description=description, config=options)
        outcome = job(parsed)
        sys.exit(outcome if isinstance(outcome, int) else 0)
    except (ValueError, RuntimeError, ConnectionError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; start the job again to go on", file=sys.stderr)
        sys.exit(130)
