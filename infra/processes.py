"""Programs that are run from here, each with all that it starts in a process group of its own."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

GRACE_SECONDS = 15
"""How long a program may take to stop before it is killed."""


def start(
    command: list[str], environment: Mapping[str, str], ending: signal.Signals, **options: Any
) -> subprocess.Popen[bytes]:
    """A process in a group of its own, that gets `ending` when its owner dies, even by SIGKILL (on Linux)."""

    def end_with_owner() -> None:
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ending)

    prepare = end_with_owner if sys.platform == "linux" else None
    environment = {**os.environ, **environment}
    return subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=prepare, **options)


def stop(process: subprocess.Popen[bytes], ending: signal.Signals, grace: float = GRACE_SECONDS) -> None:
    """End a process and whatever it started, by SIGKILL after `grace` seconds. A second Ctrl-C waits."""
    impatient = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, impatient)
    try:
        process.send_signal(ending)
        process.wait(grace)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
