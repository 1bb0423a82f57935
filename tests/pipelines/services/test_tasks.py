import pytest

from pipelines.services import cluster


def lengths(sizes, cpus, monkeypatch):
    monkeypatch.setattr(cluster, "cpus", lambda: float(cpus))
    tasks = list(cluster.tasks_of(sizes))
    assert [place for one in tasks for place in range(one.start, one.stop)] == list(range(len(sizes)))
    return [one.stop - one.start for one in tasks]


def test_few_items_are_shared_among_all_cpus(monkeypatch):
    assert lengths([1000] * 8, 2, monkeypatch) == [1] * 8
    assert lengths([1000] * 80, 2, monkeypatch) == [10] * 8
    assert lengths([], 2, monkeypatch) == []


def test_of_many_a_task_takes_no_more_than_its_bytes(monkeypatch):
    assert max(lengths([1000] * 1000, 2, monkeypatch)) == cluster.TASK_ITEMS
    assert lengths([1 << 20] * 100, 2, monkeypatch) == [4] * 25
    assert lengths([1 << 30] * 3, 2, monkeypatch) == [1] * 3


@pytest.mark.parametrize("cpus", [16, 256, 2048])
def test_however_large_a_cluster_is_its_tasks_can_be_handed_out(cpus, monkeypatch):
    """At 60 a second, where a core takes 0.4 s for a picture of 50 KB."""
    items = 500 * cpus
    tasks = lengths([50_000] * items, cpus, monkeypatch)
    assert len(tasks) / 60 < 0.4 * items / cpus
    assert len(tasks) >= 4 * cpus
