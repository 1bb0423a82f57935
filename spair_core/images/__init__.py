"""Untrusted bytes to pictures and back, in any of the formats.

A format is one module and one entry in `formats.catalogue`; `codec` decodes and encodes all of them,
`frames` those of several frames or pages.
"""

from spair_core.images.codec import DecodeLimits, decode, decode_mask, eight_bit, encode, encode_png, probe
from spair_core.images.formats.catalogue import several_suffixes, suffixes
from spair_core.images.formats.picture import Picture, PictureError
from spair_core.images.formats.picture_format import Coded
from spair_core.images.frames import Frame, encode_frame, frames, holds_several, is_footage, put_together

SUFFIXES = suffixes()
"""File name endings under which pictures are looked for."""

SEVERAL_SUFFIXES = several_suffixes()
"""Those of files that may hold several frames or pages."""

__all__ = [
    "SEVERAL_SUFFIXES",
    "SUFFIXES",
    "Coded",
    "DecodeLimits",
    "Frame",
    "Picture",
    "PictureError",
    "decode",
    "decode_mask",
    "eight_bit",
    "encode",
    "encode_frame",
    "encode_png",
    "formats",
    "frames",
    "holds_several",
    "is_footage",
    "probe",
    "put_together",
]
