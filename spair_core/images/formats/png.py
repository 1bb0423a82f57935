"""PNG."""

from spair_core.images.formats.picture_format import PictureFormat

PNG = PictureFormat("PNG", frozenset({".png"}), lambda picture, quality: {"compress_level": 4}, alpha=True)
