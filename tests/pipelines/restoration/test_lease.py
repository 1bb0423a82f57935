import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pipelines.restoration import restore
from pipelines.restoration.lease import Lease, Pace
from pipelines.services import storage
from pipelines.services.faults import HeldError
from pipelines.services.storage import StoreUnavailableError

PACE = Pace(beat=0.1, dead=1.0, pause=0.1)


def nothing(line):
    raise AssertionError(line)


def test_one_job_at_a_time(s3):
    told = []
    with Lease(s3, PACE).held(0, nothing):
        refused = pytest.raises(HeldError, match=r"process \d+ on .* has this destination since")
        with refused, Lease(s3, PACE).held(0, told.append):
            pass
        assert len(list(storage.list_objects(f"{s3}/_spair/lease"))) == 1
    with Lease(s3, PACE).held(0, nothing) as lease:
        lease.check()
    with Lease(f"{s3}/other", PACE).held(0, nothing), Lease(f"{s3}/one", PACE).held(0, nothing):
        pass


def test_what_is_to_be_done_meanwhile_is_done_where_nobody_is_seen(tmp_path):
    done = []
    with Lease(str(tmp_path), PACE).held(0, nothing, lambda: done.append("first")):
        (ticket,) = (tmp_path / "_spair" / "lease").glob("*.json")
        assert json.loads(ticket.read_text())["holds"]
        second = Lease(str(tmp_path), PACE).held(0, nothing, lambda: done.append("second"))
        with pytest.raises(HeldError), second:
            pass
    assert done == ["first"]


def test_of_two_that_show_themselves_meanwhile_the_first_goes_on(tmp_path):
    first, other = Lease(str(tmp_path), PACE), Lease(str(tmp_path), PACE)
    first.ticket = replace(first.ticket, name="0")

    def shows_itself():  # neither saw the other as it began
        first._put(holds=True)

    with (
        pytest.raises(HeldError, match="has this destination"),
        other.held(0.2, lambda line: None, shows_itself),
    ):
        pass
    assert not other.ticket.holds


@pytest.mark.long
@pytest.mark.parametrize("looked", [True, False])
def test_jobs_that_begin_at_once_take_turns(tmp_path, monkeypatch, looked):
    """And the negative control: where they do not look for one another they do not."""
    inside, most, failed = [0], [0], []
    if not looked:
        monkeypatch.setattr(Lease, "_before", lambda *_: None)

    def job():
        try:
            with Lease(str(tmp_path), PACE).held(60, lambda line: None):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.15)
                inside[0] -= 1
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    jobs = [threading.Thread(target=job) for _ in range(5)]
    for one in jobs:
        one.start()
    for one in jobs:
        one.join()
    assert failed == []
    assert (most == [1]) == looked


@pytest.mark.long
def test_a_dead_jobs_lease_is_taken_over(tmp_path):
    with Lease(str(tmp_path), PACE).held(0, nothing):
        (ticket,) = (tmp_path / "_spair" / "lease").glob("*.json")
        left = json.loads(ticket.read_text())
    dead = tmp_path / "_spair" / "lease" / "0-dead.json"
    dead.parent.mkdir(parents=True, exist_ok=True)
    away = {"name": "0-dead", "holder": "process 7 on node-3", "machine": "another"}
    dead.write_text(json.dumps({**left, **away}))
    told = []
    with Lease(str(tmp_path), PACE).held(30, told.append):
        assert not dead.exists()
    assert told[0].startswith("waiting for process 7 on node-3")
    assert "process 7 on node-3 has given no sign" in told[1]


@pytest.mark.long
def test_one_that_was_killed_on_this_machine_is_not_waited_for(tmp_path):
    holding = "import sys, time; from pipelines.restoration.lease import Lease\n"
    holding += "with Lease(sys.argv[1]).held(0, print): print('holds', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holding, str(tmp_path)], stdout=subprocess.PIPE) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == b"holds\n"
        refused = pytest.raises(HeldError, match=f"process {job.pid} on")
        with refused, Lease(str(tmp_path), PACE).held(0, nothing):
            pass
        job.kill()
        job.wait()
        told, patient = [], replace(PACE, dead=60.0)
        with Lease(str(tmp_path), patient).held(30, told.append):
            assert [f"process {job.pid}" in line and "is no more" in line for line in told] == [True]


def test_another_with_the_number_of_one_that_ended_is_not_it(tmp_path):
    ticket = Lease(str(tmp_path)).ticket
    assert not ticket.ended
    assert replace(ticket, process=f"{os.getpid()} 1").ended  # began at another time
    assert not replace(ticket, machine="another", process="1 1").ended
    assert not replace(ticket, machine="", process="").ended  # written by what knew no machines


def test_one_that_was_taken_for_dead_learns_it(tmp_path):
    with Lease(str(tmp_path), PACE).held(0, nothing) as lease:
        lease.check()
        deadline = time.monotonic() + 20
        while lease.lost is None and time.monotonic() < deadline:
            for ticket in (tmp_path / "_spair" / "lease").glob("*.json"):
                ticket.unlink(missing_ok=True)  # a beat that has begun puts it back
            time.sleep(0.05)
        with pytest.raises(HeldError, match="took this one for dead"):
            lease.check()


def test_a_ticket_that_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch):
    """Its job may have the destination; one that is gone by then has not."""
    with Lease(str(tmp_path), PACE).held(0, nothing) as lease:
        read = storage.read_bytes

        def fails(uri):
            raise StoreUnavailableError(f"{uri}: the store cannot be reached")

        monkeypatch.setattr(storage, "read_bytes", fails)
        with pytest.raises(StoreUnavailableError), Lease(str(tmp_path), PACE).held(0, nothing):
            pass

        def gone(uri):
            storage.delete(uri)
            return read(uri)

        monkeypatch.setattr(storage, "read_bytes", gone)
        with Lease(str(tmp_path), PACE).held(0, nothing):
            pass
        assert not list((tmp_path / "_spair" / "lease").glob(f"{lease.ticket.name}.json"))


def test_a_job_that_lost_its_lease_commits_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(restore, "_restore_window", lambda *_: None)
    book = SimpleNamespace(commit=lambda: pytest.fail("another job's manifest"))
    lease = Lease(str(tmp_path), PACE)
    lease.lost = "another has it"
    config = restore.RestoreConfig(str(tmp_path / "raw"), str(tmp_path))
    with pytest.raises(HeldError, match="another has it"):
        restore._restore_all(config, None, [[]], SimpleNamespace(book=book), lease)
