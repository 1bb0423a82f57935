from pipelines.media.kinds import kind_of


def test_kinds_follow_the_name():
    assert [kind_of(key) for key in ("a/B.JPG", "x.MP4", "y.txt", "z")] == [
        "picture",
        "clip",
        "other",
        "other",
    ]
