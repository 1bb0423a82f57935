"""Crops from shards and a real, tiny Ray Train run, broken off and resumed."""

import itertools
import json
import threading
import time
from dataclasses import asdict, replace
from unittest.mock import Mock

import mlflow
import numpy as np
import pandas as pd
import pytest
import ray
import torch

from pipelines.data import crop_stream, shards
from pipelines.data.crop_stream import epoch_batches, plan_epoch
from pipelines.data.shards import RowGroup
from pipelines.services import cluster, models, storage, tracking
from pipelines.services.storage import StorageError
from pipelines.training import worker
from pipelines.training.settings import TrainConfig
from pipelines.training.train import _begin, _publish, train
from spair_core import images, network, weights
from spair_core.images import encode_png
from spair_core.learning import CropConfig, LearningConfig
from spair_core.masks import mask_from_pair
from tests.pipelines.data.test_shards import row

GROUPS = [RowGroup("a", i, 16) for i in range(5)]


def test_the_plan_is_a_function_of_seed_and_epoch():
    plan = plan_epoch(GROUPS, 1, 2, crops=100, crops_per_picture=1)
    assert plan == plan_epoch(GROUPS, 1, 2, crops=100, crops_per_picture=1)
    assert plan != plan_epoch(GROUPS, 1, 3, crops=100, crops_per_picture=1)
    assert sum(visit.group.rows for visit in plan) >= 100
    assert {visit.group.index for visit in plan[:5]} == {0, 1, 2, 3, 4}
    assert len({visit.seed for visit in plan}) == len(plan)


def test_the_plan_gives_every_worker_its_crops():
    """However unequal the groups are, and whatever the number of workers."""
    groups = [*GROUPS, RowGroup("a", 5, 5), RowGroup("a", 6, 1)]
    for world, epoch in itertools.product((1, 2, 4, 7, 16), range(20)):
        how = {"crops": 60, "crops_per_picture": 2, "world": world}
        plans = [plan_epoch(groups, 0, epoch, rank=rank, **how) for rank in range(world)]
        for plan in plans:
            assert sum(2 * visit.group.rows for visit in plan[:-1]) < 60
            assert sum(2 * visit.group.rows for visit in plan) >= 60
        dealt = [visit for turn in itertools.zip_longest(*plans) for visit in turn]
        together = plan_epoch(groups, 0, epoch, crops=60 * world, crops_per_picture=2)
        fewest = min(map(len, plans)) * world
        assert dealt[:fewest] == together[:fewest]


def test_no_pictures_no_plan():
    with pytest.raises(ValueError, match="no pictures"):
        plan_epoch([], 0, 0, crops=1, crops_per_picture=1)
    with pytest.raises(ValueError, match="no pictures"):
        plan_epoch([RowGroup("a", 0, 0)], 0, 0, crops=1, crops_per_picture=1)


@pytest.fixture
def data(photos, s3):
    """Two sets of shards: pairs for training, and clean pictures for validation."""
    pairs = [row(str(i), photos[i % 3][40 * i : 40 * i + 40, :48]) for i in range(6)]
    pairs[2]["target"] = b"broken since"
    clean = [row("v", photos[3][:40, :48], input=None, split="val")]
    for name, rows in (("train", pairs), ("val", clean)):
        shards.commit(f"{s3}/{name}", [shards.write_shard(f"{s3}/{name}", rows)], {})
    return s3


def mlflow_run(store, name):
    client = mlflow.MlflowClient(store)
    (experiment,) = client.search_experiments(filter_string="name = 'spair-training'")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}[name]


@pytest.mark.cluster
def test_batches_are_the_same_every_time(cluster, data):
    groups = shards.list_row_groups([f"{data}/train"])
    config = CropConfig(crop_size=24, crops_per_picture=2, mask_threshold=0.1, seed=5)

    def batches(epoch):
        return list(epoch_batches(groups, config, epoch, batch_size=2, steps=3))

    first, again, other = batches(0), batches(0), batches(1)
    assert len(first) == 3
    assert all(torch.equal(a.degraded, b.degraded) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.degraded, b.degraded) for a, b in zip(first, other, strict=True))
    for batch in first:
        assert batch.degraded.shape == (2, 3, 24, 24)
        pair = [
            (t.permute(0, 2, 3, 1) * 255).round().byte().numpy()[0] for t in (batch.degraded, batch.clean)
        ]
        assert (batch.mask[0, 0].bool().numpy() == mask_from_pair(*pair, 0.1)).all()


@pytest.mark.cluster
def test_workers_that_are_more_than_the_shards_row_groups_all_read(cluster, data):
    (group,) = shards.list_row_groups([f"{data}/train"])
    config = CropConfig(crop_size=24, seed=5)
    for rank in (0, 3):
        batches = list(epoch_batches([group], config, 0, batch_size=4, steps=2, rank=rank, world=4))
        assert [batch.degraded.shape for batch in batches] == [(1, 3, 24, 24)] * 2


@pytest.mark.cluster
def test_what_an_epoch_waits_for_is_told(cluster, data, monkeypatch, capfd):
    monkeypatch.setattr(crop_stream, "LATE_SECONDS", 0.5)
    everything = ray.cluster_resources()["CPU"]
    busy = ray.remote(num_cpus=everything)(type("Busy", (), {"there": lambda self: True})).remote()
    assert ray.get(busy.there.remote())
    config = CropConfig(crop_size=24, seed=5)
    groups = shards.list_row_groups([f"{data}/train"])
    batches, first = epoch_batches(groups, config, 0, batch_size=2, steps=1), []
    reading = threading.Thread(target=lambda: first.append(next(batches)))
    reading.start()
    told = ""
    while "no crop has come" not in told and reading.is_alive():
        time.sleep(0.1)
        told += capfd.readouterr().out
    ray.kill(busy)
    reading.join(60)
    assert f"of the cluster's {everything:g} 0 are free" in told
    assert len(first) == 1


@pytest.mark.long
@pytest.mark.cluster
def test_a_resumed_run_ends_where_an_unbroken_one_does(cluster, data, mlflow_store):
    config = TrainConfig(
        data=(f"{data}/train",),
        storage=f"{data}/runs",
        name="whole",
        validation=(f"{data}/val",),
        preset="light",
        localize_epochs=1,
        restore_epochs=2,
        joint=True,
        epoch_steps=2,
        batch_size=2,
        crops=CropConfig(crop_size=16, seed=3),
        learning=LearningConfig(ema=0.5),
        validate_every=1,
        cpus_per_worker=0.5,
    )
    whole = storage.read_bytes(train(config))
    # Ended after its second epoch, and started again under its name.
    train(replace(config, name="broken", restore_epochs=1))
    resumed = storage.read_bytes(train(replace(config, name="broken")))

    (a, card), (b, _) = weights.load(whole), weights.load(resumed)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert card.provenance["data"] == "train"

    client = mlflow.MlflowClient(mlflow_store)
    run = mlflow_run(mlflow_store, "whole")
    assert run.data.params["learning.ema"] == "0.5"
    assert {"train_bce", "train_l1", "val_psnr_y"} <= run.data.metrics.keys()
    assert any(f.path.startswith("panels/epoch") for f in client.list_artifacts(run.info.run_id, "panels"))

    resolved = models.resolve("models:/spair-rain/1")
    assert resolved.data == whole
    version = client.get_model_version("spair-rain", "1")
    assert version.tags["data"] == f"{data}/train {shards.digest(f'{data}/train', 'train')}"
    assert float(version.tags["metric.val_psnr_y"]) == pytest.approx(run.data.metrics["val_psnr_y"], abs=1e-4)
    start = replace(config, start_from="models:/spair-rain/1").start()
    assert start is not None
    assert start.data == whole

    picture = encode_png(np.zeros((20, 30, 3), np.uint8))
    mlflow.set_tracking_uri(mlflow_store)
    served = mlflow.pyfunc.load_model("models:/spair-rain/1").predict(pd.DataFrame({"picture": [picture]}))
    assert images.decode(served["restored"][0]).pixels.shape == (20, 30, 3)
    assert 0 <= served["degraded_share"][0] <= 1


def test_a_start_from_another_network_is_refused(data):
    config = TrainConfig(data=(data,), storage=data, name="z", preset="full", start_from="rain-light")
    with pytest.raises(models.ModelError, match="another network than preset full"):
        config.start()


@pytest.mark.parametrize("flags", [{"references": True}, {"squeeze": True}, {}])
def test_a_start_that_sees_more_than_the_network_is_refused(flags):
    config = TrainConfig(("x",), "y", "z", start_from="footage-light", **flags)
    with pytest.raises(models.ModelError, match="--references, --squeeze"):
        config.start()


@pytest.mark.parametrize("size", [0, 100])
def test_crops_must_fit_the_networks_coarsest_level(size):
    with pytest.raises(ValueError, match=f"crop_size must be a multiple of 8, not {size}"):
        TrainConfig(("x",), "y", "z", crops=CropConfig(crop_size=size))


@pytest.mark.parametrize("counts", [{"workers": 9}, {"workers": 0}, {"workers": 2, "min_workers": 3}])
def test_every_worker_needs_a_crop(counts):
    with pytest.raises(ValueError, match="must ascend from 1"):
        TrainConfig(data=("x",), storage="y", name="z", batch_size=8, **counts)


TINY = {
    "preset": "light",
    "localize_epochs": 1,
    "restore_epochs": 0,
    "epoch_steps": 2,
    "batch_size": 3,
    "crops": CropConfig(crop_size=16, seed=3),
    "cpus_per_worker": 0.5,
}


@pytest.mark.long
@pytest.mark.cluster
def test_workers_share_a_batch_that_does_not_divide(cluster, data, mlflow_store):
    # Without a step worth speaking of, a run that starts from a model ends at that model.
    still = LearningConfig(learning_rate=1e-9)
    both = replace(TrainConfig((f"{data}/train",), f"{data}/runs", "two", **TINY), workers=2, min_workers=1)
    config = replace(both, learning=still, restore_epochs=1, keep_localizers=(1,), start_from="rain-light")
    model, card = weights.load(storage.read_bytes(train(config)))
    kept, _ = weights.load(storage.read_bytes(f"{data}/runs/two/localizer-1.safetensors"))
    start, _ = weights.load(weights.shipped("rain-light"))
    for mine, theirs in zip(model.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
    trained, after = (one.localizer.state_dict() for one in (kept, model))
    assert all(torch.equal(values, after[name]) for name, values in trained.items())
    assert card.provenance["started from"] == "rain-light"
    assert "train_seconds_data" in mlflow_run(mlflow_store, "two").data.metrics


@pytest.mark.long
@pytest.mark.cluster
def test_a_loss_that_is_no_number_ends_the_run_and_is_told(cluster, data, mlflow_store):
    wild = LearningConfig(learning_rate=1e30)
    config = TrainConfig((f"{data}/train",), f"{data}/runs", "wild", learning=wild, ablation=3, **TINY)
    with pytest.raises(
        FloatingPointError, match=r"run 'wild' stopped: epoch 0, step 1: .*lower the learning"
    ):
        train(config)


@pytest.fixture
def ready(data, mlflow_store, monkeypatch):
    """A training that would start now, and ends instead."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(cluster, "connect", lambda **how: None)
    monkeypatch.setattr(tracking, "run", Mock(side_effect=InterruptedError("started")))
    return TrainConfig((f"{data}/train",), f"{data}/runs", "again", **TINY)


def test_a_run_goes_on_with_the_network_it_began_with(ready):
    for _ in range(2):
        with pytest.raises(InterruptedError, match="started"):
            train(ready)
    for other in ({"preset": "full"}, {"squeeze": True}, {"task": "shadow"}, {"ablation": 3}):
        with pytest.raises(ValueError, match=r"run 'again' in s3://.* another network or task.* --name"):
            train(replace(ready, **other))
    with pytest.raises(InterruptedError, match="started"):
        train(replace(ready, name="anew", preset="full"))


def test_a_run_of_an_earlier_version_goes_on(ready):
    """Its network had fewer fields; what is no such file is another's."""
    known = asdict(ready.network())
    del known["sure"]
    begun = f"{ready.storage}/{ready.name}/begun.json"
    storage.write_bytes(begun, json.dumps({"task": ready.task, "network": known}).encode())
    with pytest.raises(InterruptedError, match="started"):
        train(ready)
    storage.write_bytes(begun, b'{"task": "rain"}')
    with pytest.raises(ValueError, match="another network or task"):
        train(ready)


def test_a_run_that_goes_on_without_its_start_keeps_its_thresholds(ready):
    begun = replace(ready, start_from="footage-light", references=True, squeeze=True)
    start = begun.start()
    trained = begun.trained(start)
    assert trained != begun.network()
    assert (
        _begin(begun, start)
        == _begin(replace(begun, start_from=None), None)
        == _begin(begun, start)
        == trained
    )


def test_thresholds_are_those_of_the_weights_it_starts_from(tmp_path, monkeypatch):
    config = TrainConfig(
        ("x",), str(tmp_path), "z", start_from="footage-light", references=True, squeeze=True
    )
    start = config.start()
    learnt = network.grown(start.build(), config.network())
    assert learnt.config == config.trained(start) == start.card.network != config.network()
    assert config.trained(None) == config.network()

    monkeypatch.setattr(worker, "read_checkpoint", lambda checkpoint: {"best": learnt.state_dict()})
    monkeypatch.setattr(shards, "digest", lambda uri, split: "")
    registered = Mock(return_value="1")
    monkeypatch.setattr(models, "register", registered)
    location = _publish(config, config.trained(start), None, {}, [], Mock())
    assert weights.read_card(storage.read_bytes(location)).network == start.card.network


def test_gpus_that_are_not_there_are_told_before_a_training(ready):
    with pytest.raises(ValueError, match=r"the cluster has 0 GPUs; --no-gpu computes on its CPUs"):
        train(replace(ready, gpu=True))


@pytest.mark.parametrize("name", ["layers", "shadow_masks", "shakes"])
def test_material_that_is_not_there_is_told_before_a_training(ready, name):
    with pytest.raises(StorageError, match="nowhere"):
        train(replace(ready, crops=replace(ready.crops, **{name: f"{ready.storage}/nowhere"})))


def test_validation_looks_at_every_set_and_beyond_what_broke(photos, tiny_config, tmp_path, monkeypatch):
    rows = [row(str(k), photos[0][:16, k : k + 16], split="val", set=name) for k in range(6) for name in "ab"]
    rows[2]["target"] = b"broken since"
    folder = str(tmp_path / "val")
    shards.commit(folder, [shards.write_shard(folder, [r for r in rows if r["set"] == n]) for n in "ab"], {})
    config = TrainConfig(("x",), "y", "z", validation_limit=4)
    monkeypatch.setattr(worker, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(worker, "prepare_model", lambda module, **how: module)
    monkeypatch.setattr(
        ray.train, "get_context", lambda: Mock(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    )
    run = Mock()
    one = worker._Worker(config, GROUPS, shards.list_row_groups([folder], "val"), run, tiny_config, None)
    scores = one._validate(one._enter("localize"), 0)
    assert scores.keys() == {"val_mask_precision", "val_mask_recall", "val_density"}
    panels = [call.args[0] for call in run.log_panel.call_args_list]
    assert panels == [f"epoch0000-{name}" for name in ("a~0", "b~0", "b~1", "a~2")]
    monkeypatch.setattr(worker, "rows_in_turn", lambda groups: iter(rows[2:3]))
    assert one._validate(one._enter("localize"), 0) == {}


def test_a_picture_that_broke_is_passed_over(data):
    groups = shards.list_row_groups([f"{data}/train"])
    assert len(list(crop_stream.read_examples(groups[0]))) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"ablation": 9},
        lambda: {"learning": LearningConfig(ema=2.0)},
        lambda: {"learning": LearningConfig(learning_rate=-1.0)},
    ],
)
def test_what_cannot_be_learnt_with_is_told_at_once(wrong):
    with pytest.raises(ValueError, match=r"ablation|ema at least 0"):
        TrainConfig(("x",), "y", "z", **wrong() if callable(wrong) else wrong)
