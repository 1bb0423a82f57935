"""Clips behind FFmpeg: read in runs of frames, whatever they hold and whatever has become of them.

Runs are encoded one by one, and joined with all else that the clip had.
"""

from pipelines.media.video.clip import ClipError, File
from pipelines.media.video.codecs import EncodeConfig
from pipelines.media.video.containers import CONTAINERS, container_of
from pipelines.media.video.joining import join
from pipelines.media.video.reading import read, run_length
from pipelines.media.video.writing import write

__all__ = [
    "CONTAINERS",
    "ClipError",
    "EncodeConfig",
    "File",
    "container_of",
    "join",
    "read",
    "run_length",
    "write",
]
