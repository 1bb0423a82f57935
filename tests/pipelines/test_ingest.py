import json

import numpy as np
import pytest

from pipelines import shards, storage
from pipelines.ingest import IngestConfig, ingest
from pipelines.storage import StorageError
from spair_core.images import encode_png

pytestmark = pytest.mark.cluster


@pytest.fixture
def source(photos, s3):
    photo = photos[0][:40, :50]
    files = {
        **{f"{side}/{i}.png": encode_png(photo // (i + 1)) for i in range(4) for side in ("input", "target")},
        "mask/0.png": encode_png(np.eye(40, 50, dtype=bool)),
        "input/lonely.png": encode_png(photo),
        "input/broken.png": encode_png(photo)[:200],
        "target/broken.png": encode_png(photo),
        "input/odd.png": encode_png(photo[:30]),
        "target/odd.png": encode_png(photo),
        "input/twin.png": encode_png(photo),
        "input/twin.jpg": encode_png(photo),
        "target/twin.png": encode_png(photo),
        "input/notes.txt": b"hello",
    }
    for key, data in files.items():
        storage.write_bytes(storage.join(s3, "pairs", key), data)
    return f"{s3}/pairs"


def test_pairs_become_shards_and_the_rest_is_named(cluster, source, s3):
    config = IngestConfig(source, f"{s3}/shards", validation_share=0.3, set="tiny")
    report = ingest(config)
    assert sum(report.rows.values()) == 4
    reasons = dict(report.left_out)
    assert "no partner" in reasons["input/lonely.png"]
    assert "cut short" in reasons["broken"]
    assert "50x30" in reasons["odd"]
    assert {"input/twin.png", "input/twin.jpg", "target/twin.png"} <= reasons.keys()
    assert "not a picture" in reasons["input/notes.txt"]
    assert all(name in report.summary() for name in reasons)

    rows = [row for group in shards.list_row_groups([f"{s3}/shards"]) for row in shards.read_row_group(group)]
    by_key = {row["key"]: row for row in rows}
    assert by_key.keys() == {"0", "1", "2", "3"}
    assert by_key["0"]["mask"] is not None
    assert (by_key["1"]["width"], by_key["1"]["height"], by_key["1"]["set"]) == (50, 40, "tiny")
    record = json.loads(storage.read_bytes(f"{s3}/shards/_dataset.json"))
    assert record["rows"] == report.rows

    before = sorted(item.key for item in storage.list_objects(f"{s3}/shards"))
    ingest(config)
    assert sorted(item.key for item in storage.list_objects(f"{s3}/shards")) == before


def test_clean_pictures(cluster, source, s3):
    report = ingest(IngestConfig(f"{source}/target", f"{s3}/clean", kind="clean", limit=2))
    assert report.rows == {"train": 2}
    (group,) = shards.list_row_groups([f"{s3}/clean"])
    assert all(row["input"] is None for row in shards.read_row_group(group))


def test_wrong_places_fail_before_anything_starts(source, s3):
    with pytest.raises(StorageError, match="pairs are expected as"):
        ingest(IngestConfig(f"{source}/target", f"{s3}/x"))
    with pytest.raises(StorageError, match="nothing is there"):
        ingest(IngestConfig(f"{s3}/nowhere", f"{s3}/x"))
    with pytest.raises(StorageError, match="no-such-bucket"):
        ingest(IngestConfig(source, "s3://no-such-bucket/x"))
    with pytest.raises(ValueError, match="validation_share"):
        IngestConfig(source, f"{s3}/x", validation_share=1.5)
