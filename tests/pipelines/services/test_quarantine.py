"""Work that kills its process, on a real cluster."""

import os
import re
import signal
import time

import pytest
import ray

from pipelines.services import quarantine
from pipelines.services.quarantine import DEATHS, GivenUpError, Quarantine, QuarantinedError, unforeseen


@pytest.mark.cluster
def test_work_that_ends_may_be_done_again_and_again(cluster):
    held = Quarantine()
    for _ in range(DEATHS + 2):
        with held.hold("a"):
            pass
        with pytest.raises(ValueError, match="its own"), held.hold("a"):
            raise ValueError("its own")


@pytest.mark.cluster
def test_what_one_stream_did_last_is_no_death_in_another(cluster):
    for _ in range(DEATHS + 2):
        with Quarantine().hold("a"):
            pass


@pytest.mark.cluster
def test_deadly_work_is_left_alone_after_two_deaths(cluster, tmp_path):
    held = Quarantine()

    @ray.remote(max_retries=-1, num_cpus=0.5)
    def deadly():
        with held.hold("deadly"):
            (tmp_path / str(os.getpid())).touch()
            time.sleep(0.2)  # what is in hand is told without waiting
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(QuarantinedError, match="died 2 times"):
        ray.get(deadly.remote())
    assert len(list(tmp_path.iterdir())) == DEATHS
    with held.hold("something else"):
        pass


@pytest.mark.cluster
def test_what_takes_too_long_is_ended_once(cluster, tmp_path):
    patient, held = Quarantine(seconds=600), Quarantine(seconds=0.5)

    @ray.remote(max_retries=-1, num_cpus=0.5)
    def endless():
        with patient.hold("what came before in the same process"):
            time.sleep(0.1)
        with held.hold("endless"):
            (tmp_path / str(os.getpid())).touch()
            time.sleep(60)

    with pytest.raises(QuarantinedError, match=r"longer than 0\.5 s"):
        ray.get(endless.remote())
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.cluster
def test_a_stream_that_is_to_stop_begins_nothing(cluster):
    stopped, other = Quarantine(), Quarantine()
    stopped.give_up()
    with pytest.raises(GivenUpError), stopped.hold("a"):
        pytest.fail("was begun")
    with stopped.hold("b", to_the_end=True), other.hold("a"):
        pass


@pytest.mark.cluster
def test_the_same_name_in_hand_at_once_is_no_death(cluster, tmp_path):
    held = Quarantine()

    @ray.remote(num_cpus=0)
    def hold(number):
        with held.hold("a picture that three folders have"):
            (tmp_path / str(number)).touch()
            deadline = time.monotonic() + 240
            while len(list(tmp_path.iterdir())) < DEATHS + 1:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    ray.get([hold.remote(number) for number in range(DEATHS + 1)])


@pytest.mark.cluster
def test_streams_share_one_process_to_keep_their_books(cluster):
    assert Quarantine()._registers is Quarantine()._registers


@pytest.mark.cluster
def test_a_large_cluster_has_several_books(cluster, monkeypatch):
    monkeypatch.setattr(quarantine, "CPUS_A_REGISTER", 1)
    quarantine._registers.cache_clear()
    try:
        several = Quarantine()
        assert len(several._registers) > 1
        with several.hold("a"):
            pass
        several.give_up()
        for owner in ("b", "c", "d", "e"):  # whichever book an owner is in, it is told
            assert ray.get(several._register_of(owner).left.remote(owner, several._stream)) == ({}, True)
    finally:
        quarantine._registers.cache_clear()


def test_what_nobody_foresaw_is_told_with_its_place_and_the_clusters_errors_are_not():
    with pytest.raises(KeyError) as caught:
        {}["x"]
    told = unforeseen(caught.value)
    assert re.fullmatch(r"unforeseen KeyError: 'x' \(test_quarantine\.py, line \d+\); please report .*", told)
    gone = ray.exceptions.ActorDiedError()
    with pytest.raises(ray.exceptions.ActorDiedError):
        unforeseen(gone)
