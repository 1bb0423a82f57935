"""Workers of the session's cluster are forked, and are as different as others."""

import os

import pytest


@pytest.mark.cluster
def test_workers_have_one_parent_and_draw_random_numbers_of_their_own(cluster: None) -> None:
    import ray

    class Drawing:
        def draw(self) -> tuple[int, int, str]:
            return os.getpid(), os.getppid(), ray.ObjectID.from_random().hex()

    actors = [ray.remote(num_cpus=0)(Drawing).remote() for _ in range(2)]
    processes, parents, numbers = zip(*ray.get([actor.draw.remote() for actor in actors]), strict=True)
    assert len(set(processes)) == len(set(numbers)) == 2
    assert len(set(parents)) == 1
    assert os.getpid() not in parents
