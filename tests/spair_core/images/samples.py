"""Files of pictures, and what comes of them."""

import io
import struct

from spair_core import images

TOWN = b"8BIM\x04\x04\0\0" + struct.pack(">I", 4) + b"town"
THUMBNAIL = b"8BIM\x04\x0c\0\0" + struct.pack(">I", 6) + b"before"
"""Resources of Photoshop's: one to keep, and one that would show the picture as it was."""


def saved(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def again(data):
    """A file decoded, changed everywhere and encoded."""
    picture = images.decode(data, deep=True)
    return images.encode(picture.with_pixels(picture.pixels ^ picture.pixels.dtype.type(1)))


def lost(data):
    return " ".join(images.decode(data, deep=True).lost)
