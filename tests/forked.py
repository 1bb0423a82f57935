"""Workers of the session's Ray cluster, forked from a process that has imported what they all import.

Imports are most of what a worker does that lives for one test. Ray lets one say by which command it starts
its workers (`py_executable`): here by this file, which has the process of `prepared` fork a worker, and ends
when that does.
"""

import gc
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMPORTED = (
    "torch",
    "pandas",
    "pyarrow.parquet",
    "mlflow",
    "s3fs",
    "spair_core.inference.restoring",
    "spair_core.learning",
)
WORKER = "ray._private.workers.default_worker"
"""What it is told by its environment, Ray reads as it is imported; so that waits for the first worker's. Of
ray.data nothing is imported: it draws random numbers then, and all workers would go on with the same ones."""
STANDARD = (0, 1, 2)
REQUEST_BYTES = 1 << 20


@contextmanager
def prepared(folder: Path) -> Iterator[str]:
    """A process that forks workers, for as long as this lasts; gives the command that asks it for one."""
    place = folder / "socket"
    command = [sys.executable, "-m", "tests.forked", str(place)]
    # Ray gives a worker of one CPU or less this one thread, where torch is imported later than here.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, env=environment, stdin=subprocess.PIPE) as process:
        try:
            while not place.exists():
                assert process.poll() is None
                time.sleep(0.05)
            # -S and -E: who asks needs nothing that is installed, and is quick without.
            yield shlex.join([sys.executable, "-S", "-E", __file__, str(place)])
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _fork_for_all(place: str) -> None:
    """Fork a worker for each who asks, until whoever started this closes its standard input."""
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; those of BLAS allow it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    with _socket() as listening:
        listening.bind(place)
        listening.listen(64)
        for module in IMPORTED:
            importlib.import_module(module)
        while sys.stdin not in select.select([sys.stdin, listening], [], [])[0]:
            asking, _ = listening.accept()
            words, standard, _, _ = socket.recv_fds(asking, REQUEST_BYTES, len(STANDARD))
            if words:
                request = json.loads(words)
                os.environ.update(request["environment"])
                importlib.import_module(WORKER)
                gc.freeze()
                if os.fork() == 0:
                    listening.close()
                    _become(standard, **request)
            for descriptor in standard:
                os.close(descriptor)
            asking.close()


def _become(standard: list[int], words: list[str], folder: str, environment: dict[str, str]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for own, given in zip(STANDARD, standard, strict=True):
        os.dup2(given, own)
        os.close(given)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
    sys.exit()


def _ask(place: str, words: list[str]) -> None:
    request = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    with _socket() as asking:
        asking.connect(place)
        socket.send_fds(asking, [json.dumps(request).encode()], STANDARD)
        asking.recv(1)  # nothing: the worker holds the other end, and lets go of it as it ends


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        _fork_for_all(sys.argv[1])
    else:
        _ask(sys.argv[1], sys.argv[2:])
