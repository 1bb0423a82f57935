"""BMP, which holds nothing but pixels."""

from spair_core.images.formats.picture_format import PictureFormat

BMP = PictureFormat("BMP", frozenset({".bmp"}), lambda picture, quality: {}, profile=False, most_exif=0)
