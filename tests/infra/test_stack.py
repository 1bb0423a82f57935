"""The development stack: it works, keeps to loopback and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import s3fs

from infra.stack import StackError, object_store, server

ROOT = Path(__file__).parents[2]


def client(store: dict[str, str], **other: str) -> s3fs.S3FileSystem:
    keys = {"key": store["AWS_ACCESS_KEY_ID"], "secret": store["AWS_SECRET_ACCESS_KEY"]} | other
    return s3fs.S3FileSystem(**keys, endpoint_url=store["AWS_ENDPOINT_URL"], skip_instance_cache=True)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(what: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.1)
    return what()


def test_object_store_keeps_what_is_written(tmp_path: Path) -> None:
    with object_store(tmp_path / "buckets", buckets=("one",)) as store:
        client(store).pipe_file("one/a/b.bin", b"\x00\x01")
        assert client(store).find("one") == ["one/a/b.bin"]
    assert (tmp_path / "buckets/one/a/b.bin").read_bytes() == b"\x00\x01"


def test_object_store_refuses_a_wrong_secret(tmp_path: Path) -> None:
    with object_store(tmp_path / "buckets", buckets=("one",)) as store, pytest.raises(PermissionError):
        client(store, secret="wrong").ls("one")


def test_object_store_is_on_loopback_and_gone_after_an_error(
    tmp_path: Path, listening: Callable[[int], set[str]], family: Callable[[int], set[int]]
) -> None:
    before = family(os.getpid())
    with suppress(InterruptedError), object_store(tmp_path / "buckets"):
        (started,) = family(os.getpid()) - before
        assert listening(started) == {"127.0.0.1"}
        raise InterruptedError
    assert not alive(started)


def test_a_secret_is_not_on_the_command_line(tmp_path: Path, family: Callable[[int], set[int]]) -> None:
    before = family(os.getpid())
    with object_store(tmp_path / "buckets") as store:
        (started,) = family(os.getpid()) - before
        assert store["AWS_SECRET_ACCESS_KEY"] not in Path(f"/proc/{started}/cmdline").read_text()


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    broken = server(
        [sys.executable, "-c", "raise SystemExit('no luck')"], "http://127.0.0.1:9", tmp_path / "log", {}
    )
    with pytest.raises(StackError, match="no luck"), broken:
        pass


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs a Linux process attribute")
def test_a_server_ends_with_an_owner_that_is_killed(
    tmp_path: Path, family: Callable[[int], set[int]]
) -> None:
    code = "import sys, time, pathlib; from infra.stack import object_store\n"
    code += "with object_store(pathlib.Path(sys.argv[1])): print('up', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(tmp_path / "buckets")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        (started,) = family(owner.pid) - {owner.pid}
        owner.kill()
    assert wait_until(lambda: not alive(started))


@pytest.mark.long
@pytest.mark.cluster
def test_the_whole_stack_runs_a_submitted_job_and_stops(
    tmp_path: Path,
    empty_mlflow: Path,
    listening: Callable[[int], set[str]],
    family: Callable[[int], set[int]],
) -> None:
    (tmp_path / "stack").mkdir()
    shutil.copy(empty_mlflow, tmp_path / "stack" / "mlflow.db")  # as one that was started before has it
    script = tmp_path / "work" / "job.py"
    script.parent.mkdir()
    script.write_text(
        "import os, mlflow; print('tracked at', mlflow.get_tracking_uri(), os.environ['AWS_ENDPOINT_URL'])"
    )
    command = [sys.executable, "-m", "infra.stack", "--folder", str(tmp_path / "stack"), "--cpus", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as stack:
        assert stack.stdout is not None
        exports = {}
        for line in stack.stdout:
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").strip().partition("=")
                exports[name] = value
            if "Ctrl-C" in line:
                break
        submit = ["ray", "job", "submit", "--working-dir", str(script.parent), "--", "python", script.name]
        submitted = subprocess.run(
            [str(Path(sys.executable).with_name(submit[0])), *submit[1:]],
            env={**os.environ, **exports},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (
            f"tracked at {exports['MLFLOW_TRACKING_URI']} {exports['AWS_ENDPOINT_URL']}" in submitted.stdout
        )
        assert listening(stack.pid) == {"127.0.0.1"}
        started = family(stack.pid)
        stack.send_signal(signal.SIGTERM)
        assert stack.wait(60) == 0
    assert len(started) > 5
    assert wait_until(lambda: not any(alive(process) for process in started))
