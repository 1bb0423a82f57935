"""BMP, PPM, PGM and TGA, which hold hardly more than pixels."""

from spair_core.images.formats.picture_format import PictureFormat, resolution

BMP = PictureFormat(
    "BMP",
    frozenset({".bmp"}),
    lambda picture, quality: dict(picture.kept),
    resolution,
    profile=False,
    most_exif=0,
)
PPM = PictureFormat(
    "PPM",
    frozenset({".ppm", ".pgm", ".pnm"}),
    lambda picture, quality: {},
    profile=False,
    most_exif=0,
    deep_grey=True,
)
TGA = PictureFormat(
    "TGA",
    frozenset({".tga"}),
    lambda picture, quality: dict(picture.kept),
    lambda image: {"compression": image.info["compression"]} if image.info.get("compression") else {},
    alpha=True,
    profile=False,
    most_exif=0,
)
