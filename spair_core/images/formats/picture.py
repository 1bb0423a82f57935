"""A decoded picture, and the error that says why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]
"""uint8, or uint16 of 16 bit a channel."""


class PictureError(ValueError):
    """These bytes are not a picture that can be restored; the message says why."""


@dataclass(frozen=True)
class Picture:
    """`pixels` [H, W, 3] RGB, upright, uint8, or uint16 of 16 bit a channel; the rest is what an encoded
    copy must keep.

    `alpha` [H, W] is of the same type. `mode` says what the file holds: RGB, grey (L), or CMYK, whose `inks`
    uint8 [H, W, 4] are kept for the pixels that do not change. `lossless` says whether its coding was; `exif`
    has its orientation removed (it is applied). `kept` is what the format's module found in the file to save
    it by again: text, resolution, tables. `lost` says, a sentence each, what of the file no copy has, such as
    a profile for other colours, or EXIF that cannot be read.
    """

    pixels: Samples
    format: str
    alpha: Samples | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    lossless: bool = True
    mode: Literal["RGB", "L", "CMYK"] = "RGB"
    inks: NDArray[np.uint8] | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)
    lost: tuple[str, ...] = ()

    def with_pixels(self, pixels: Samples) -> Picture:
        """The same file with other pixels. Raises ValueError where size or type differ."""
        if pixels.shape != self.pixels.shape or pixels.dtype != self.pixels.dtype:
            raise ValueError(
                f"the picture is {self.pixels.dtype} {self.pixels.shape}, "
                f"its replacement {pixels.dtype} {pixels.shape}"
            )
        return replace(self, pixels=pixels)
