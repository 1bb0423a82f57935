"""What a bucket holds and can be restored: its kinds, and how clips are read and written.

Pictures are `spair_core.images`' own; `video` turns a clip into runs of frames and joins them again.
"""

__all__ = ["kinds", "video"]
