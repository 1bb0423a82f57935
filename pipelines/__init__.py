"""What moves data: storage, ingest, training, restoration, tracking, evaluation."""

import gc
import os

# A thread that still waits for Ray where a job ends would start a cluster of its own for it, and say so.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

# Ray, torch and Arrow make a million objects as they are imported, and all of them stay. Every process of a
# job would look through them again and again as they come: a sixth of the time until its work begins.
gc.set_threshold(20_000, 20, 20)
