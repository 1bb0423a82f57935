"""Untrusted bytes to pictures and back, in any of the formats.

A format is one module and one entry in `formats.catalogue`; `codec` decodes and encodes all of them.
"""

from spair_core.images.codec import DecodeLimits, decode, decode_mask, eight_bit, encode, encode_png, probe
from spair_core.images.formats.catalogue import suffixes
from spair_core.images.formats.picture import Picture, PictureError

SUFFIXES = suffixes()
"""File name endings under which pictures are looked for."""

__all__ = [
    "SUFFIXES",
    "DecodeLimits",
    "Picture",
    "PictureError",
    "decode",
    "decode_mask",
    "eight_bit",
    "encode",
    "encode_png",
    "formats",
    "probe",
]
