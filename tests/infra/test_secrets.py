"""What a job is told in secret is not in what it says, logs or writes."""

from __future__ import annotations

import os

import pytest

from pipelines.restoration import restore
from pipelines.restoration.restore import RestoreConfig
from pipelines.services import storage, tracking
from spair_core.images import encode_png

FAKES = {
    "MLFLOW_TRACKING_TOKEN": "fake-token-of-mlflow-5c1e",
    "AWS_SESSION_TOKEN_OF_ANOTHER": "fake-session-token-77aa",
    "DATABASE_PASSWORD": "fake-password-31f0",
}


@pytest.mark.cluster
def test_a_restoration_keeps_the_keys_of_its_environment_to_itself(
    cluster, photos, s3, tiny_weights, mlflow_store, tmp_path, monkeypatch, capfd
):
    for name, value in FAKES.items():
        monkeypatch.setenv(name, value)
    storage.write_bytes(f"{s3}/model", tiny_weights)
    storage.write_bytes(f"{s3}/raw/a.png", encode_png(photos[0][:32, :48]))
    storage.write_bytes(f"{s3}/raw/broken.jpg", b"\xff\xd8\xff nonsense")
    print(restore.restore(RestoreConfig(f"{s3}/raw", f"{s3}/dry", model=f"{s3}/model")))

    said = "".join(capfd.readouterr()).encode()
    logged = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    written = b"".join(storage.read_bytes(item.uri) for item in storage.list_objects(f"{s3}/dry"))
    assert f"{s3}/raw".encode() in logged  # what is logged is found
    for secret in (*FAKES.values(), os.environ["AWS_SECRET_ACCESS_KEY"]):
        for where, text in (("said", said), ("logged", logged), ("written", written)):
            assert secret.encode() not in text, f"a secret is {where}"


def test_a_password_in_mlflows_address_is_not_told(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:fake-password@127.0.0.1:1")
    with pytest.raises(tracking.TrackingError, match=r"127\.0\.0\.1:1") as raised:
        tracking.check()
    assert "fake-password" not in str(raised.value)
