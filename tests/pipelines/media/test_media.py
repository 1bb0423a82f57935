"""What every kind of medium promises; a new entry, or a new ending of one, is tested by being there."""

import numpy as np
import pytest

from pipelines.media import (
    MEDIA,
    EncodeConfig,
    Encoding,
    Medium,
    MediumError,
    catalogue,
    medium,
    medium_in,
    medium_of,
    packed,
    unpacked,
)
from pipelines.media.video import CONTAINERS, container_of
from spair_core.footage import Reach
from tests.pipelines.media import samples

QUICK = Encoding(clips=EncodeConfig(preset="ultrafast"))
"""x264 looks ahead with bits that are not always the same on frames this small; not so with this preset."""
ENDINGS = [(one, suffix) for one in MEDIA for suffix in sorted(one.suffixes)]


@pytest.fixture(params=ENDINGS, ids=lambda entry: entry[1])
def entry(request):
    return request.param


@pytest.fixture
def sample(entry, tmp_path, photos):
    """A file of that ending, with frames 64x48, and these."""
    one, suffix = entry
    path = tmp_path / f"source{suffix}"
    return path, samples.sample(one, path, photos[0])


def test_what_is_read_is_written_again(entry, sample, tmp_path):
    (one, suffix), (source, frames) = entry, sample
    pieces = list(one.read(source, None))
    parts = [one.write(piece.state, piece.window.pixels, Encoding()) for piece in pieces]
    target = tmp_path / f"target{suffix}"
    if one.join:
        one.join(iter(parts), source, target)
    else:
        (whole,) = parts
        target.write_bytes(whole)
    beside = 2 if one is medium("table") else 1  # it has what was restored beside what was not
    again = np.concatenate([piece.window.pixels for piece in one.read(target, None)])[beside - 1 :: beside]
    before = np.concatenate([piece.window.pixels for piece in pieces])
    assert again.shape == before.shape == (len(frames), 48, 64, 3)
    assert np.abs(again.astype(float) - before).mean() < 4


@pytest.mark.long
def test_a_reach_changes_nothing_of_what_is_restored(entry, sample):
    (one, _), (source, _) = entry, sample
    for bare, wide in zip(one.read(source, None), one.read(source, Reach()), strict=True):
        assert (wide.window.pixels[list(wide.window.own)] == bare.window.pixels).all()


def test_pieces_travel_as_columns(entry, sample):
    (one, _), (source, _) = entry, sample
    for piece in one.read(source, Reach()):
        again = unpacked(packed(piece))
        assert (again.window.pixels == piece.window.pixels).all()
        assert (again.window.own, again.window.neighbours) == (piece.window.own, piece.window.neighbours)
        pixels = piece.window.pixels[list(piece.window.own)]
        assert one.write(again.state, pixels, QUICK) == one.write(piece.state, pixels, QUICK)


def test_what_is_not_what_it_says_is_told(entry, tmp_path):
    one, suffix = entry
    for name, data in (("empty", b""), ("text", b"neither this nor that " * 99)):
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(data)
        with pytest.raises(MediumError):
            list(one.read(path, None))


def test_kinds_follow_the_name():
    assert [medium_of(key) for key in ("a/B.JPG", "x.MP4", "y.txt", "z")] == [
        medium("picture"),
        medium("clip"),
        None,
        None,
    ]
    with pytest.raises(KeyError):
        medium("sculpture")


def test_where_kinds_share_an_ending_the_bytes_decide(tmp_path, monkeypatch):
    thick = Medium(
        "thick",
        frozenset({".jpg"}),
        medium("picture").read,
        medium("picture").write,
        holds=lambda path: path.stat().st_size > 9,
    )
    monkeypatch.setattr(catalogue, "MEDIA", (thick, *MEDIA))
    for size, kind in ((9, medium("picture")), (10, thick)):
        (tmp_path / "a.JPG").write_bytes(bytes(size))
        assert medium_in(tmp_path / "a.JPG") is kind
    assert medium_of("a.jpg") is medium("picture")
    with pytest.raises(KeyError):
        medium_in(tmp_path / "a.txt")


def test_an_ending_is_entered_once():
    endings = [suffix for one in MEDIA if one.holds is None for suffix in one.suffixes]
    assert len(endings) == len(set(endings))
    assert sum(len(one.suffixes) for one in CONTAINERS) == len(medium("clip").suffixes)
    assert container_of(".MKV") is container_of(".mkv")
