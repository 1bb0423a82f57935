"""What a bucket holds and can be restored: one module and one entry a kind, behind one interface.

`medium_of` gives the kind of an object by its name, `medium_in` that of a file by its bytes too; a `Medium`
reads it in pieces and writes them restored.
"""

from pipelines.media.catalogue import MEDIA, medium, medium_in, medium_of
from pipelines.media.medium import (
    NO_PIECE,
    EncodeConfig,
    Encoding,
    Medium,
    MediumError,
    Piece,
    packed,
    unpacked,
)

__all__ = [
    "MEDIA",
    "NO_PIECE",
    "EncodeConfig",
    "Encoding",
    "Medium",
    "MediumError",
    "Piece",
    "medium",
    "medium_in",
    "medium_of",
    "packed",
    "unpacked",
]
