"""A job with a cluster of its own that is asked to end: its last words, its exit code, and nothing left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
JOB = '''
"""Works for minutes."""
import time
from dataclasses import dataclass
import ray
from jobs.entry import run
from pipelines.services import cluster

@dataclass(frozen=True)
class Config:
    stage: str

def main(config):
    if config.stage == "starting":
        print("there", flush=True)
    if config.stage in ("starting", "working"):
        cluster.connect(1)
    try:
        if config.stage == "working":
            naps = [ray.remote(num_cpus=0)(lambda: time.sleep(300)).remote() for _ in range(2)]
            print("there", flush=True)
            ray.get(naps)
        print("there", flush=True)
        time.sleep(300)
    finally:
        print("cleaned up", flush=True)
        if config.stage == "stubborn":
            time.sleep(300)

if __name__ == "__main__":
    run(main, Config, __doc__)
'''


def of_session(session: int) -> list[int]:
    """Processes that run in it, but for dead ones that nobody has waited for."""
    listed = subprocess.run(["ps", "-eo", "pid=,sid=,stat="], capture_output=True, text=True, check=True)
    rows = (line.split() for line in listed.stdout.splitlines())
    return [int(pid) for pid, sid, state in rows if int(sid) == session and not state.startswith("Z")]


@pytest.fixture
def started(tmp_path):
    """Starts the job in a session of its own, and gives it once it is there."""
    (tmp_path / "job.py").write_text(JOB)
    jobs = []

    def start(stage):
        command = [sys.executable, str(tmp_path / "job.py"), "--stage", stage]
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {
            "PYTHONPATH": str(PROJECT)
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        job = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
        jobs.append(job)
        assert job.stdout.readline() == "there\n", job.stderr.read()
        return job

    yield start
    for job in jobs:
        for pid in of_session(job.pid):
            os.kill(pid, signal.SIGKILL)
        job.communicate()


@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "number", "code"),
    [("working", signal.SIGTERM, 143), ("starting", signal.SIGTERM, 143)],
)
def test_a_job_that_is_asked_to_end_does(started, stage, number, code):
    job = started(stage)
    if stage == "starting":
        time.sleep(1)  # Ray's own handler is in place meanwhile
    job.send_signal(number)
    shown, said = job.communicate(timeout=240)
    assert job.returncode == code, said
    assert shown == ("cleaned up\n" if stage == "working" else "")
    lines = [line for line in said.splitlines() if "RAY_BACKEND_LOG_LEVEL" not in line]
    assert lines == [f"stopped by {number.name}; start the job again to go on"]
    gone_by = time.monotonic() + 120
    while of_session(job.pid) and time.monotonic() < gone_by:
        time.sleep(0.2)
    assert of_session(job.pid) == []


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_a_job_clean_up(started, number, code):
    job = started("alone")
    job.send_signal(number)
    shown, said = job.communicate(timeout=240)
    assert (job.returncode, shown) == (code, "cleaned up\n")
    assert said == f"stopped by {number.name}; start the job again to go on\n"


def test_a_second_signal_ends_it_at_once(started):
    job = started("stubborn")
    job.send_signal(signal.SIGTERM)
    assert job.stdout.readline() == "cleaned up\n"
    job.send_signal(signal.SIGTERM)
    assert job.communicate(timeout=240) == ("", "")
    assert job.returncode == -signal.SIGTERM
