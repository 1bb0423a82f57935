"""One way to reach Ray: the cluster that the environment names, or one embedded in this process."""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import Literal

import grpc
import ray
import ray.data

from pipelines.services import faults
from pipelines.services.faults import UnavailableError

BLOCK_BYTES = 48 << 20
"""Rows of pictures travel in blocks of about this size: one run of frames."""
BLOCKS = 512
"""Most blocks that a list of items is cut into; more only cost scheduling."""
TASK_ITEMS, TASK_BYTES = 16, 4 << 20
"""A task is given at most so many items, or so many bytes of them: small ones would only cost scheduling."""
CPUS_AN_ITEM = 16
"""And on large clusters an item for so many CPUs: some 60 tasks a second are handed out, however many end."""
PATIENCE = 6.0
"""Seconds that the head of a cluster may take to answer."""


def connect(num_cpus: int | None = None, *, worker_output: bool = False) -> None:
    """Attach to the cluster in RAY_ADDRESS (set in every submitted job), else start one on loopback.

    An embedded cluster has `num_cpus` CPUs (default: the machine's) and no dashboard. `worker_output`
    prints here what the workers print.
    Raises UnavailableError where RAY_ADDRESS names a cluster that does not answer, or where none can be
    started here at the second try.
    """
    if ray.is_initialized():
        return
    with faults.own_signals():
        if address := os.environ.get("RAY_ADDRESS"):
            _attach(address, worker_output)
        else:
            _embed(num_cpus, worker_output)
    quieten()


def _attach(address: str, worker_output: bool) -> None:
    check_answers(address)
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=worker_output)
    except (ConnectionError, ValueError) as error:
        raise UnavailableError(_no_cluster(address, str(error))) from error


def _embed(num_cpus: int | None, worker_output: bool) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # By default workers give way to whatever else runs on the machine; here they are the job itself.
    os.environ.setdefault("RAY_worker_niceness", "0")
    for attempts_left in (1, 0):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                logging_level=logging.ERROR,
                log_to_driver=worker_output,
            )
            return
        except Exception as error:  # Ray has no class for it: on a busy machine its processes come too late
            ray.shutdown()
            if not attempts_left:
                raise UnavailableError(_none_started(error)) from error


def _none_started(error: Exception) -> str:
    return (
        f"no Ray cluster could be started on this machine: {' '.join(str(error).split())} Is it busy, or "
        "short of memory? Ray's own words are in /tmp/ray/session_latest/logs; start again, or set "
        "RAY_ADDRESS to a cluster that runs"
    )


def check_answers(address: str | None = None) -> None:
    """Ask the head at an address, by default RAY_ADDRESS where that is set: `ray.init` would for minutes.

    Raises UnavailableError.
    """
    address = address or os.environ.get("RAY_ADDRESS", "")
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return  # auto, or local
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE / 2).close()
    except OSError as error:
        raise UnavailableError(_no_cluster(address, str(error))) from error
    if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
        _shake_hands(address, f"{host}:{port}")


def _shake_hands(address: str, target: str) -> None:
    """Heads and Ray Client's servers speak gRPC; what else listens there would be waited for."""
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=PATIENCE)
        except grpc.FutureTimeoutError as error:
            raise UnavailableError(_no_cluster(address, "what listens there is no Ray head")) from error


def _no_cluster(address: str, reason: str) -> str:
    return (
        f"Ray at {address}: no head answers ({reason}); check RAY_ADDRESS (HOST:6379 of a cluster that "
        "runs), or unset it to work on this machine alone"
    )


def quieten() -> None:
    """Ray Data's bars and progress logs off: the pipelines print their own."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def cpu_shares(actors: int, *, gpus: float) -> tuple[float, float]:
    """CPUs of an actor and of a task: reading must never wait for a CPU that the actors hold.

    The two are never equal: Ray fuses stages of equal needs, and decoding would move into the actors.
    Raises ValueError where the actors' GPUs would be waited for in vain (`check_gpus`).
    """
    if gpus:
        check_gpus(gpus)
        return 0.0, 1.0
    total = cpus()
    actor = min(1.0, total / (2 * actors))
    return actor, min(0.9, 0.3 * (total - actor * actors))


def actors(wanted: int | Literal["auto"], *, gpus: float) -> int:
    """How many actors: one a CPU of the cluster, or as many as its GPUs hold. Raises ValueError where there
    is no GPU."""
    if wanted != "auto":
        return wanted
    if not gpus:
        return max(1, int(cpus()))
    if (there := _gpus()) < gpus:
        raise ValueError(_too_few(there, "--num-gpus 0"))
    return max(1, int(there / gpus))


def check_actors(number: int, gpus: float) -> None:
    """Raises ValueError for so many actors, with so many GPUs each, as there cannot be."""
    if number < 1 or gpus < 0:
        raise ValueError(f"actors must be at least 1 and num_gpus at least 0, not {number} and {gpus:g}")


def check_gpus(wanted: float, instead: str = "--num-gpus 0") -> None:
    """Raises ValueError, with the flags to use instead, where this machine alone is the cluster and has fewer
    GPUs than wanted; another may bring up a node that has them, for which it says that it waits."""
    there = _gpus()
    if there >= wanted:
        return
    if not os.environ.get("RAY_ADDRESS"):
        raise ValueError(_too_few(there, instead))
    print(f"waiting for a node with a GPU: {_too_few(there, instead)}", file=sys.stderr, flush=True)


def _gpus() -> float:
    return float(ray.cluster_resources().get("GPU", 0))


def _too_few(there: float, instead: str) -> str:
    return f"the cluster has {there:g} GPUs; {instead} computes on its CPUs"


def cpus() -> float:
    """Of the cluster that this process is attached to; 1 where it is to none."""
    return float(ray.cluster_resources().get("CPU", 1)) if ray.is_initialized() else 1.0


def tasks_of(sizes: Sequence[int]) -> Iterator[slice]:
    """Items of so many bytes in runs, each for one task; where there are few, every CPU gets some."""
    total = cpus()
    share = math.ceil(len(sizes) / (4 * total))
    larger = max(1.0, total / CPUS_AN_ITEM / TASK_ITEMS)
    most, start, held = max(1, min(int(larger * TASK_ITEMS), share)), 0, 0
    for place, size in enumerate(sizes):
        if place > start and (place - start >= most or held + size > larger * TASK_BYTES):
            yield slice(start, place)
            start, held = place, 0
        held += size
    if start < len(sizes):
        yield slice(start, len(sizes))
