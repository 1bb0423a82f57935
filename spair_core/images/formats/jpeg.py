"""JPEG. A phone's file with several pictures in it (MPO) counts as its first one."""

from spair_core.images.formats.picture_format import PictureFormat

MOST_EXIF = 65_533
"""Bytes that the segment for it takes."""

JPEG = PictureFormat(
    "JPEG",
    frozenset({".jpg", ".jpeg", ".jpe"}),
    lambda picture, quality: {"quality": quality, "subsampling": 0},
    most_exif=MOST_EXIF,
    taken_for_it=("MPO",),
    several=lambda image: False,
)
