from dataclasses import replace

import numpy as np
import pytest

from pipelines.benchmark import coding
from pipelines.benchmark.coding import CodingConfig
from tests.pipelines.media.test_clips import make_clip, times


@pytest.fixture
def clip(photos, tmp_path):
    return make_clip(tmp_path / "drive.mp4", [np.roll(photos[0][:48, :64], k, axis=1) for k in range(40)])


def test_cores_are_what_a_frame_costs_times_the_rate(clip):
    one, other, cores = coding.measure(CodingConfig(str(clip), rate=30))
    assert min(one["figure"], other["figure"]) > 0
    assert cores["figure"] == pytest.approx(30 * (one["figure"] + other["figure"]) / 1000)


def test_every_frame_is_read_and_written_once(clip, monkeypatch):
    kind, written, shown = coding.medium_in(clip), [], []

    def write(state, pixels, encoding):
        written.append(len(pixels))
        return kind.write(state, pixels, encoding)

    def join(parts, source, target):
        notes = kind.join(parts, source, target)
        shown.append(times(target))
        return notes

    monkeypatch.setattr(coding, "medium_in", lambda _: replace(kind, write=write, join=join))
    coding.seconds_a_frame(clip)
    assert sum(written) == 40
    assert shown == [times(clip)]
