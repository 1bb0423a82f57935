"""One way to reach Ray: the cluster that the environment names, or one embedded in this process."""

from __future__ import annotations

import logging
import os

import ray
import ray.data


def connect(num_cpus: int | None = None, *, worker_output: bool = False) -> None:
    """Attach to the cluster in RAY_ADDRESS (set in every submitted job), else start one on loopback.

    An embedded cluster has `num_cpus` CPUs (default: the machine's) and no dashboard. `worker_output`
    prints here what the workers print.
    Raises ConnectionError where RAY_ADDRESS names a cluster that does not answer.
    """
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING, log_to_driver=worker_output)
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            logging_level=logging.WARNING,
            log_to_driver=worker_output,
        )
    quieten()


def quieten() -> None:
    """Ray Data's bars and progress logs off: the pipelines print their own."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
