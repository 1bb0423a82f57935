"""Reading and writing beside the model; what they give is tested through the whole stream."""

import pytest

from pipelines.media import EncodeConfig, Encoding
from pipelines.restoration.manifest import REJECTED, RESTORED
from pipelines.restoration.pieces import decode
from pipelines.services.quarantine import Quarantine
from tests.pipelines.media.test_clips import make_clip


@pytest.mark.cluster
def test_a_clip_that_cannot_be_written_is_rejected_before_the_model_sees_it(cluster, photos, tmp_path):
    clip = make_clip(tmp_path / "clip.webm", [photos[0][:48, :64]] * 3)
    item = {"key": "clip.webm", "uri": str(clip), "kind": "clip", "panel": False, "known_digest": ""}
    item["size"] = clip.stat().st_size
    asked = Encoding(clips=EncodeConfig(codec="prores"))
    (row,) = decode(item, asked, Quarantine())
    assert (row["verdict"], row["pixels"]) == (REJECTED, b"")
    assert row["error"].startswith(".webm cannot hold prores; --codec source keeps the clip's own")
    (row,) = decode(item, Encoding(), Quarantine())
    assert (row["verdict"], row["error"]) == (RESTORED, "")
