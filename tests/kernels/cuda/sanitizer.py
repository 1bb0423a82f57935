"""Every CUDA kernel once, emulated, with the address sanitizer compiled in.

The sanitizer has to be there when a process starts, and ends it at the first fault. So one process, this
module's own, is started with it, loads torch and forks for every run that it is asked for.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from kernels import index
from kernels.cuda import device
from tests.kernels.cuda.emulator import Emulator, Mutation, instances
from tests.kernels.cuda.everything import run_all_types


class Sanitizer:
    """The process that forks, and what to ask it for."""

    def __init__(self) -> None:
        where = ["g++", "-print-file-name=libasan.so"]
        library = subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip()
        # Python keeps memory until it ends, and torch's objects are no concern of ours: no leaks are sought.
        environment = os.environ | {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0"}
        command, root = [sys.executable, "-m", __name__], Path(__file__).parents[3]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, env=environment, cwd=root, stdin=pipe, stdout=pipe, text=True
        )

    def run(self, mutation: Mutation | None = None) -> tuple[int, str]:
        """The exit code of a run and what it printed, errors included."""
        print(json.dumps(mutation), file=self._process.stdin, flush=True)
        code, said = json.loads(self._process.stdout.readline())
        return code, said

    def close(self) -> None:
        self._process.communicate()


def serve() -> None:
    """Run everything in a fork for every line that comes: a mutation as JSON, null for none.

    Answers as `Sanitizer.run` does. The forks return from here, too, and end as any process does.
    """
    torch.set_num_threads(1)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as said:
            child = os.fork()
            if child == 0:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                run(json.loads(line))
                return
            _, status = os.waitpid(child, 0)
            said.seek(0)
            print(json.dumps([os.waitstatus_to_exitcode(status), said.read().decode()]), flush=True)


def run(mutation: list[str] | None) -> None:
    """Run everything here, a mutation in one type; the sanitizer ends the process where it finds a fault."""
    types = device.TYPES if mutation is None else {torch.float32: "float"}
    emulator = Emulator(instances(list(types.values())), "-O0", "-fsanitize=address", "-g1")
    emulator.mutation = Mutation(*mutation) if mutation else None
    device.launch, index._on_kernels = emulator.launch, lambda _: True
    run_all_types("cpu", types)
    print("every kernel ran")


if __name__ == "__main__":
    serve()
