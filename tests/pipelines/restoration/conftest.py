import numpy as np
import pytest

from pipelines.services import storage
from spair_core.images import encode_png
from tests.pipelines.media.test_clips import make_clip


@pytest.fixture
def footage(photos, s3, tmp_path, tiny_weights):
    frames = [np.roll(photos[0][:48, :64], i, axis=1) for i in range(40)]
    clip = make_clip(tmp_path / "clip.mp4", frames, sound=True).read_bytes()
    files = {
        "cam1/a.png": encode_png(photos[0][:40, :60]),
        "cam1/b.png": encode_png(photos[1][:33, :21]),
        "cam2/drive.mp4": clip,
        "cam2/cut.mp4": clip[:2000],
        "broken.jpg": b"\xff\xd8\xff nonsense",
        "empty.png": b"",
        "notes.txt": b"hello",
        "model": tiny_weights,
    }
    for key, data in files.items():
        prefix = s3 if key == "model" else f"{s3}/raw"
        storage.write_bytes(f"{prefix}/{key}", data)
    return s3
