"""JPEG 2000, written without loss: its files do not say how much they lost."""

from spair_core.images.formats.picture_format import PictureFormat

JPEG2000 = PictureFormat(
    "JPEG2000",
    frozenset({".jp2", ".j2k", ".jpx"}),
    lambda picture, quality: {"irreversible": False},
    alpha=True,
    profile=False,
    most_exif=0,
)
