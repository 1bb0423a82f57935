import pytest

from pipelines.benchmark import restoring
from pipelines.benchmark.restoring import RestoringConfig
from spair_core.images import encode_png


@pytest.fixture
def config(photos, tmp_path, tiny_weights):
    (tmp_path / "model").write_bytes(tiny_weights)
    (tmp_path / "night").mkdir()
    for number in range(8):
        (tmp_path / "night" / f"{number}.png").write_bytes(encode_png(photos[number % 4][:40, :48]))
    return RestoringConfig(str(tmp_path / "night"), model=str(tmp_path / "model"), cores=1, rounds=1)


def test_the_loop_restores_every_file(config, tmp_path):
    files = sorted((tmp_path / "night").iterdir())
    (tmp_path / "out").mkdir()
    frames, seconds = restoring._loop(files, config.model, str(tmp_path / "out"))
    assert frames == 8
    assert seconds > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in files}


@pytest.mark.long
@pytest.mark.cluster
def test_a_restoration_is_held_against_it(cluster, config, monkeypatch, mlflow_store):
    monkeypatch.setattr(restoring, "_apart", lambda task, config: task(config))
    loop, job, rest = restoring.measure(config)
    assert job["ratio"] == job["figure"] / loop["figure"]
    assert loop["figure"] > 0
    assert rest["unit"] == "s"


def test_what_more_files_cost_is_the_rate(config, monkeypatch):
    ran = []

    def job(limit, config):
        ran.append(limit)
        return 10 * limit, 7.0 + 0.5 * limit  # frames, seconds

    monkeypatch.setattr(restoring, "_apart", lambda task, config: task(config))
    monkeypatch.setattr(restoring, "_job", job)
    assert restoring.job_rate(config) == pytest.approx((20.0, 7.0))
    assert ran == [2, 8]
