"""Workers of the session's Ray cluster, forked from a process that has imported what they all import.

Imports are most of what a worker does that lives for one test. Ray starts each by a script of its own, which
imports all of Ray to set up a worker's environment; here this file is that script, has the process of
`prepared` fork the worker, and ends when that does.
"""

import gc
import importlib
import json
import os
import runpy
import select
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
"""Ray reads its job from the environment, once, as this is imported; so that waits for the first worker's. Of
ray.data nothing is imported: it draws random numbers then, and all workers would go on with the same ones."""
FIRST_JOB = "01000000"
"""The session's own, of which all workers are forked."""
PLACE = "SPAIR_TESTS_FORKED"
STANDARD = (0, 1, 2)
REQUEST_BYTES = 1 << 20


@contextmanager
def prepared(folder: Path) -> Iterator[str]:
    """A process that forks workers, for as long as this lasts; gives what `PLACE` is to be in the environment
    of the node whose workers are to be so."""
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
            yield str(place)
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
                _import_worker(request["environment"])
                if os.fork() == 0:
                    listening.close()
                    _become(standard, **request)
            for descriptor in standard:
                os.close(descriptor)
            asking.close()


def _import_worker(environment: dict[str, str]) -> None:
    if WORKER not in sys.modules:
        os.environ.update(environment)
        importlib.import_module(WORKER)
        gc.freeze()


def _become(standard: list[int], words: list[str], folder: str, environment: dict[str, str]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for own, given in zip(STANDARD, standard, strict=True):
        os.dup2(given, own)
        os.close(given)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = _set_up(words)
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit()


def _set_up(words: list[str]) -> list[str]:
    """What Ray's own script does with the environment that a worker is asked for with."""
    from ray._private.utils import update_envs
    from ray._private.workers import setup_worker

    options, others = setup_worker.parser.parse_known_args(words)
    context = setup_worker.RuntimeEnvContext.deserialize(options.serialized_runtime_env_context or "{}")
    assert context.py_executable == sys.executable
    update_envs(context.env_vars)
    return others


def _ask(words: list[str]) -> None:
    if os.environ.get("RAY_JOB_ID") != FIRST_JOB:  # of another job, or of none, such as those that spill
        os.execv(sys.executable, [sys.executable, str(Path(words[0]).with_name("setup_worker.py")), *words])
    request = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    with _socket() as asking:
        asking.connect(os.environ[PLACE])
        socket.send_fds(asking, [json.dumps(request).encode()], STANDARD)
        asking.recv(1)  # nothing: the worker holds the other end, and lets go of it as it ends


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        _fork_for_all(sys.argv[1])
    else:
        _ask(sys.argv[1:])
