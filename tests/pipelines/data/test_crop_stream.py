import io

import numpy as np
import pytest

from pipelines.data import crop_stream, shards
from pipelines.data.crop_stream import crop_example
from pipelines.data.layouts import PairFiles
from pipelines.data.pairs import read_rows
from pipelines.services import locations, storage
from pipelines.services.storage import StorageError
from spair_core.degradations.crops import Example
from spair_core.images import encode_png
from spair_core.learning import CropConfig, filmed, to_batch

CONFIG = CropConfig(crop_size=48, dry=0)


@pytest.fixture
def mixed(photos, tmp_path):
    """Row groups of a set of clean pictures, one a task."""
    folder = str(tmp_path / "mixed")
    rows = []
    for task in ("rain", "raindrop", "shadow", "blur"):
        uri = locations.join(str(tmp_path), f"{task}.png")
        storage.write_bytes(uri, encode_png(photos[0][120:200, 200:290]))
        rows += read_rows(PairFiles(task, task, "mixed", "train", uri))
    shards.commit(folder, [shards.write_shard(folder, rows)], {})
    return shards.list_row_groups([folder])


def test_clean_pictures_are_degraded_for_their_rows_task(mixed):
    found = {}
    for example, task in crop_stream.read_examples(mixed[0]):
        crops = [crop_example(example, CONFIG, np.random.default_rng(seed), task) for seed in range(12)]
        changes = np.concatenate([(c.degraded.astype(int) - c.clean)[c.mask].max(axis=1) for c in crops])
        found[task] = (changes > 0).mean()
    assert found["rain"] == 1
    assert found["shadow"] == 0
    assert 0.1 < found["raindrop"] < 0.95
    assert 0.1 < found["blur"] < 0.95


def test_a_share_of_crops_stays_clean(photos):
    example = Example(None, photos[0][120:200, 200:280])
    config = CropConfig(crop_size=16, dry=0.5)
    rng = np.random.default_rng(0)
    crops = [crop_example(example, config, rng, "shadow") for _ in range(60)]
    assert 15 < sum((crop.degraded == crop.clean).all() for crop in crops) < 45


def test_real_material_is_read_from_storage(photos, s3):
    mask = np.zeros((20, 20), bool)
    mask[:, :10] = True
    storage.write_bytes(f"{s3}/masks/a.png", encode_png(mask))
    file = io.BytesIO()
    np.savez(file, first=np.eye(15))
    storage.write_bytes(f"{s3}/kernels.npz", file.getvalue())
    example = Example(None, photos[0][120:200, 200:280])
    config = CropConfig(crop_size=48, dry=1, shadow_masks=f"{s3}/masks", shakes=f"{s3}/kernels.npz")
    for task in ("shadow", "blur"):
        crops = [crop_example(example, config, np.random.default_rng(seed), task) for seed in range(24)]
        assert 3 < sum(crop.mask.any() for crop in crops) < 20


def test_material_that_cannot_be_read_is_named(tmp_path):
    example = Example(None, np.zeros((20, 20, 3), np.uint8))

    def read(**material):
        crop_example(example, CropConfig(crop_size=8, **material), np.random.default_rng(0), "blur")

    (tmp_path / "text.npz").write_bytes(b"kernels")
    np.save(tmp_path / "array.npy", np.eye(5))
    np.savez(tmp_path / "negative.npz", -np.eye(5))
    for name in ("text.npz", "array.npy", "negative.npz"):
        with pytest.raises(StorageError, match=rf"{name}: is no NPZ file of blur kernels"):
            read(shakes=str(tmp_path / name))
    with pytest.raises(StorageError, match=r"absent\.npz"):
        read(shakes=str(tmp_path / "absent.npz"))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(b"no picture")
    with pytest.raises(StorageError, match=r"a\.png: is not a shadow mask"):
        read(shadow_masks=str(tmp_path / "masks"))


FOOTAGE = CropConfig(crop_size=48, dry=0.2, moved=1, alone=0)


def test_a_camera_makes_footage_of_clean_pictures(photos):
    example, rng = Example(None, photos[0]), np.random.default_rng(0)
    seen = filmed(example, FOOTAGE, rng, "rain+raindrop")
    crop = crop_example(seen, FOOTAGE, rng, "rain+raindrop")
    assert crop.window.pixels.shape[1:] == crop.clean.shape == (48, 48, 3)
    for task, config in (("shadow", FOOTAGE), ("rain", CropConfig(crop_size=48, moved=0))):
        assert filmed(example, config, rng, task) is example
    pair = Example(photos[0], photos[0])
    assert filmed(pair, FOOTAGE, rng, "rain") is pair


def test_crops_come_beside_their_references(mixed):
    visit = {"uri": [mixed[0].uri], "index": [0], "rows": [mixed[0].rows], "seed": [[0, 1]]}
    columns = crop_stream._crops_of_visit(visit, FOOTAGE, True)
    assert columns["references"].shape == (4, 48, 48, 6)
    batch = to_batch(columns)
    assert batch.references.shape == (4, 6, 48, 48)
    still = np.concatenate([columns["degraded"]] * 2, axis=3)
    same = (columns["references"] == still).all(axis=(1, 2, 3))
    assert same[2:].all()  # shadow and blur are of stills
    assert not same.all()
    assert "references" not in crop_stream._crops_of_visit(visit, FOOTAGE, False)
    alone = crop_stream._crops_of_visit(visit, CropConfig(crop_size=48, moved=1, alone=1), True)
    assert (alone["references"] == np.concatenate([alone["degraded"]] * 2, axis=3)).all()


def test_a_visit_without_a_readable_picture_has_all_columns(mixed, monkeypatch):
    monkeypatch.setattr(crop_stream, "read_examples", lambda group: iter([]))
    visit = {"uri": [mixed[0].uri], "index": [0], "rows": [mixed[0].rows], "seed": [[0, 1]]}
    columns = crop_stream._crops_of_visit(visit, FOOTAGE, True)
    assert {name: array.shape for name, array in columns.items()} == {
        "degraded": (0, 48, 48, 3),
        "clean": (0, 48, 48, 3),
        "mask": (0, 48, 48),
        "references": (0, 48, 48, 6),
    }
