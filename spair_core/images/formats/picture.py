"""A decoded picture, and the error that says why there is none."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


class PictureError(ValueError):
    """These bytes are not a picture that can be restored; the message says why."""


@dataclass(frozen=True)
class Picture:
    """`pixels` uint8 [H, W, 3] RGB, upright; the rest is what an encoded copy must keep.

    `lossless` says whether a WebP was; `exif` has its orientation removed (it is applied). A profile
    that is not for RGB is left out, and so is EXIF that cannot be read.
    """

    pixels: NDArray[np.uint8]
    format: str
    alpha: NDArray[np.uint8] | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    lossless: bool = True

    def with_pixels(self, pixels: NDArray[np.uint8]) -> Picture:
        """The same file with other pixels. Raises ValueError where the size differs."""
        if pixels.shape != self.pixels.shape:
            raise ValueError(f"the picture is {self.pixels.shape}, its replacement {pixels.shape}")
        return replace(self, pixels=pixels)
