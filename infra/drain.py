"""Stop the jobs of this Ray head in order and wait for their end: what a head's pod does before it goes.

    python -m infra.drain

A job keeps what is done and gives up what is in hand within 25 seconds of SIGTERM. Ray must be told to wait
so long: RAY_JOB_STOP_WAIT_TIME_S, in the head's environment.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

HEAD = "http://127.0.0.1:8265"
PATIENCE = 75.0
"""Seconds; the pod's terminationGracePeriodSeconds must be longer."""


def drain(client: Any, patience: float = PATIENCE, pause: float = 1.0) -> list[str]:
    """Stop what runs, by a JobSubmissionClient; gives the jobs that did not end in `patience` seconds."""
    open_jobs = [
        job.submission_id for job in client.list_jobs() if job.submission_id and not _ended(job.status)
    ]
    for name in open_jobs:
        client.stop_job(name)
    until = time.monotonic() + patience
    while open_jobs and time.monotonic() < until:
        time.sleep(pause)
        open_jobs = [name for name in open_jobs if not _ended(client.get_job_status(name))]
    return open_jobs


def _ended(status: Any) -> bool:
    return bool(status.is_terminal())


def main() -> None:
    """Drain the head of this pod; with --help only say what that is."""
    argparse.ArgumentParser(prog="python -m infra.drain", description=__doc__).parse_args()
    from ray.job_submission import JobSubmissionClient

    left = drain(JobSubmissionClient(HEAD))
    print(f"still running: {', '.join(left)}" if left else "drained")


if __name__ == "__main__":
    main()
