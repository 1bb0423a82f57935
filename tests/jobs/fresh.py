"""Programs in processes of their own that need not wait for the large packages."""

from __future__ import annotations

import multiprocessing
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

OURS = {"kernels", "spair_core", "pipelines", "jobs", "infra"}


def starter() -> type[multiprocessing.context.ForkServerProcess]:
    """Its processes have imported what takes seconds to import, and nothing of the project."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "ray.data", "ray.train.torch"])
    return context.Process


def run(command: list[str], shown: Path) -> None:
    """In such a process, what `python SCRIPT FLAGS...` does; its output goes to a file."""
    with shown.open("w") as output, redirect_stdout(output), redirect_stderr(output):
        assert not OURS & {name.partition(".")[0] for name in sys.modules}
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")
