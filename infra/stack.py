"""The development stack without containers: an object store, a Ray head and an MLflow server.

    python -m infra.stack

runs all three on loopback, prints what to export, and stops them on Ctrl-C. `object_store`,
`ray_head` and `mlflow_server` are context managers for programs that need one of them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro

from infra import processes

LOOPBACK = "127.0.0.1"

NEXT = """
In a shell with these exports:
  ray job submit --working-dir . -- python jobs/nightly_derain.py --help
MLflow is at {mlflow}; buckets, database and logs are kept in {folder}. Ctrl-C stops everything."""


class StackError(RuntimeError):
    """A server did not start; the message says which and what it printed last."""


@dataclass(frozen=True)
class StackConfig:
    """What the stack keeps and where."""

    folder: Path = Path(".stack")
    """Buckets, MLflow's database and the servers' logs; kept between runs."""
    buckets: tuple[str, ...] = ("spair", "mlflow")
    """Buckets that are made if they are missing; `mlflow` holds MLflow's files."""
    cpus: int | None = None
    """CPUs that Ray may give to jobs; all of the machine's if not said."""


@contextmanager
def object_store(folder: Path, *, buckets: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    """Serve a folder as S3 on loopback while the block runs: each of its subfolders is a bucket.

    Yields the environment variables with which every S3 client here reaches it. Write to the folder
    only through S3: the server caches its listings.
    """
    for bucket in buckets:
        (folder / bucket).mkdir(parents=True, exist_ok=True)
    key, secret, port = "spair", secrets.token_hex(16), free_port()
    endpoint = f"http://{LOOPBACK}:{port}"
    command = [program("rclone"), "--config", os.devnull, "serve", "s3", "--addr", f"{LOOPBACK}:{port}"]
    command += ["--vfs-cache-mode", "off", "--dir-cache-time", "24h", str(folder)]
    # The secret goes through the environment, where other users of the machine cannot read it.
    with server(command, endpoint, folder.with_suffix(".log"), {"RCLONE_AUTH_KEY": f'"{key},{secret}"'}):
        yield {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            # Checksums in trailers, which small servers do not read.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            "MLFLOW_S3_ENDPOINT_URL": endpoint,
        }


@contextmanager
def mlflow_server(folder: Path, environment: Mapping[str, str], artifacts: str) -> Iterator[dict[str, str]]:
    """An MLflow server on loopback: its database in a folder, its files at a URI. Yields its variables."""
    port = free_port()
    uri = f"http://{LOOPBACK}:{port}"
    command = [program("mlflow"), "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder.resolve()}/mlflow.db"]
    command += ["--artifacts-destination", artifacts]
    # Its job execution is a feature of ours to spare: two gigabytes and ten seconds.
    lean = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with server(command, f"{uri}/health", folder / "mlflow.log", {**environment, **lean}):
        yield {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}


@contextmanager
def ray_head(
    folder: Path, environment: Mapping[str, str], cpus: int | None = None
) -> Iterator[dict[str, str]]:
    """A Ray head on loopback that takes submitted jobs, which inherit `environment`. Yields its variables."""
    port = free_port()
    uri = f"http://{LOOPBACK}:{port}"
    with ray_on_loopback() as private:
        command = [program("ray"), "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--temp-dir", private["RAY_TMPDIR"], "--port", str(free_port())]
        command += ["--dashboard-host", LOOPBACK, "--dashboard-port", str(port)]
        # Ports of the system's choice in place of fixed ones, which another service may hold.
        command += ["--min-worker-port", "0", "--max-worker-port", "0", "--dashboard-agent-listen-port", "0"]
        command += ["--ray-client-server-port", str(free_port())]
        command += [] if cpus is None else ["--num-cpus", str(cpus)]
        # Jobs say "python" and mean this one.
        path = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
        with server(command, f"{uri}/api/version", folder / "ray.log", {**environment, **private, **path}):
            access = {name: private[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
            yield {"RAY_API_SERVER_ADDRESS": uri, **access}


@contextmanager
def ray_on_loopback() -> Iterator[dict[str, str]]:
    """Variables under which a Ray cluster of one machine keeps to itself while the block runs."""
    with tempfile.TemporaryDirectory(prefix="spair-", ignore_cleanup_errors=True) as folder:
        yield {
            # By default Ray listens on every interface, even where it is told an address on loopback.
            # This is its switch for systems that have no clusters; it holds on Linux as well.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
        }


@contextmanager
def server(
    command: list[str], answers_at: str, log: Path, environment: Mapping[str, str], patience: float = 90
) -> Iterator[None]:
    """Run a server while the block runs: it answers HTTP at a URL before, and is gone after.

    It has a process group of its own, so that Ctrl-C reaches only its owner, which stops it in order.
    Raises StackError where it ends or does not answer in `patience` seconds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = processes.start(
            command, environment, signal.SIGTERM, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        _wait_for(process, answers_at, log, patience)
        yield
    finally:
        processes.stop(process, signal.SIGTERM)


def task(command: list[str], environment: Mapping[str, str], folder: Path) -> int:
    """Run a program in a folder to its end, and give its exit status.

    Where the wait is broken off, by Ctrl-C say, the program is interrupted and ended first.
    """
    process = processes.start(command, environment, signal.SIGINT, cwd=folder)
    try:
        return process.wait()
    finally:
        processes.stop(process, signal.SIGINT)


def _wait_for(process: subprocess.Popen[bytes], url: str, log: Path, patience: float) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:
        try:
            direct.open(url, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return  # an answer all the same: S3 refuses whoever does not sign
        except OSError:
            time.sleep(0.1)
    raise StackError(f"a server did not start; {log} ends with:\n{log.read_text(errors='replace')[-1000:]}")


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """The path of a program that a package brought: beside this Python, else on the PATH."""
    here = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join([here, os.environ.get("PATH", "")]))
    if not found:
        raise StackError(f"{name} is not installed; install this project with its demo extra")
    return found


def stop_on_signals() -> None:
    """Make SIGTERM and SIGHUP end the program as Ctrl-C does: through its finally blocks."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup asked for that
            signal.signal(number, signal.default_int_handler)


def main() -> None:
    """Run the stack until Ctrl-C."""
    config = tyro.cli(StackConfig, description=__doc__)
    stop_on_signals()
    try:
        _serve(config)
    except StackError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\nstopped", flush=True)


def _serve(config: StackConfig) -> None:
    folder = config.folder.resolve()
    with object_store(folder / "buckets", buckets=config.buckets) as storage:
        print("starting MLflow and Ray (half a minute) ...", flush=True)
        with (
            mlflow_server(folder, storage, "s3://mlflow/files") as tracking,
            ray_head(folder, {**storage, **tracking}, config.cpus) as cluster,
        ):
            for name, value in {**storage, **tracking, **cluster}.items():
                print(f"export {name}={value}")
            print(NEXT.format(mlflow=tracking["MLFLOW_TRACKING_URI"], folder=config.folder), flush=True)
            threading.Event().wait()


if __name__ == "__main__":
    main()
