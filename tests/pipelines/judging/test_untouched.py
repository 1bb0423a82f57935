"""Models on clean pictures, through the real stream."""

import numpy as np
import pytest

from pipelines.data import shards
from pipelines.judging.untouched import CLEAN_CEILING, untouched
from pipelines.services import models, storage
from spair_core import inference, metrics
from spair_core.images import encode_png
from tests.pipelines.data.test_shards import row


@pytest.mark.cluster
def test_clean_pictures_are_held_against_themselves(cluster, photos, s3, two_models):
    for i in range(3):
        clean = photos[i][:40, :60]
        storage.write_bytes(f"{s3}/folder/{i}.png", encode_png(clean))
        storage.write_bytes(f"{s3}/pairs/input/{i}.png", encode_png(clean // 2))
        storage.write_bytes(f"{s3}/pairs/target/{i}.png", encode_png(clean))
    storage.write_bytes(f"{s3}/folder/bad.png", b"nonsense")
    storage.write_bytes(f"{s3}/folder/notes.txt", b"hello")
    written = [row(str(i), photos[i][:40, :60]) for i in range(3)]
    shards.commit(f"{s3}/shards", [shards.write_shard(f"{s3}/shards", written)], {})
    contenders = [models.ResolvedModel("", name, data) for name, data in zip("ab", two_models, strict=True)]

    places = [f"{s3}/{place}" for place in ("folder", "pairs", "shards")]
    results = untouched(contenders, places)
    for found, model in zip(results, contenders, strict=True):
        by_hand = [
            metrics.psnr(inference.restore(model.build(), photo[None, :40, :60]).pixels[0], photo[:40, :60])
            for photo in photos[:3]
        ]
        assert (found.model, found.count) == (model.uri, 9)
        assert found.psnr == pytest.approx(np.mean(np.minimum(by_hand, CLEAN_CEILING)))
        assert found.worst[0].endswith(f"/{np.argmin(by_hand)}")
        assert [key for key, _ in found.unread] == ["folder/bad", "folder/notes.txt"]
        assert "not read: folder/notes.txt: not a picture by its ending" in str(found)


@pytest.mark.cluster
def test_nothing_to_see_is_an_error_with_its_reasons(cluster, s3, tiny_weights):
    storage.write_bytes(f"{s3}/bad/bad.png", b"nonsense")
    with pytest.raises(ValueError, match=r"bad/bad: .*not a picture"):
        untouched([models.ResolvedModel("", "a", tiny_weights)], [f"{s3}/bad"])
