"""Untrusted bytes to pictures and back.

A format is one module and one entry in `formats.FORMATS`; `codec` decodes and encodes all of them.
"""

from spair_core.images.codec import (
    SUFFIXES,
    DecodeLimits,
    Picture,
    PictureError,
    decode,
    decode_mask,
    encode,
    encode_png,
    probe,
)

__all__ = [
    "SUFFIXES",
    "DecodeLimits",
    "Picture",
    "PictureError",
    "decode",
    "decode_mask",
    "encode",
    "encode_png",
    "probe",
]
