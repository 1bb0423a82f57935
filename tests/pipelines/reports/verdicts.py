"""What a night leaves."""

from pipelines.restoration.manifest import PASSED, RESTORED, Verdict


def verdict(key, outcome=RESTORED, when="2026-11-27T22:00:00.000+00:00", **values):
    done = {"width": 100, "height": 50, "frames": 2, "model_seconds": 3.0}
    values = {**(done if outcome in (RESTORED, PASSED) else {}), **values}
    return Verdict(key, "picture", outcome, finished_at=when, **values)
