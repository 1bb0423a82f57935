"""Whether the Ray node of this container is well: what the image's HEALTHCHECK asks.

    python -m infra.health

Exits with 0 where the raylet answers, or where none is meant to run here (a job with a cluster of its own);
with 1 where a raylet runs and does not answer.
"""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

URL = "http://127.0.0.1:52365/api/local_raylet_healthz"


def runs_raylet(processes: Path = Path("/proc")) -> bool:
    """Whether a raylet is among the processes of this container."""
    for name in processes.glob("[0-9]*/comm"):
        try:
            if name.read_text().strip() == "raylet":
                return True
        except OSError:
            continue  # it ended just now
    return False


def healthy(url: str = URL, processes: Path = Path("/proc")) -> bool:
    """Whether the raylet answers, if there is one."""
    if not runs_raylet(processes):
        return True
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if healthy() else 1)
