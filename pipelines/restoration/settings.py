"""What the pixels of a restoration depend on, wherever the work is done."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.media import EncodeConfig, Encoding
from spair_core import inference
from spair_core.inference import Precision


@dataclass(frozen=True, kw_only=True)
class Settings:
    """With what is restored, and how it is written."""

    model: str = "footage-light"
    """A file, a URI, models:/spair-rain@champion, or the name of shipped weights."""
    precision: Precision = "auto"
    """Of the networks' weights and products. auto is bfloat16 where the processors (as this one's) or GPUs
    have it, which is faster, and float32 elsewhere. A job restores again what was restored in another."""
    tile: int = inference.TILE
    """Larger pictures are restored in overlapping tiles with sides of so many pixels."""
    quality: int | None = None
    """Quality of restored JPEG, WebP, AVIF and HEIC pictures, 1 to 100; by default a JPEG's own tables, and
    what gives the others about the size that they had."""
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    min_degraded: float = inference.MIN_DEGRADED
    """A picture or frame of which a smaller share is degraded is left alone (a third of it is enough where it
    is spread over the picture as rain is); an item that has none to restore is copied byte for byte, with the
    verdict passed (a table of pictures gets its column all the same)."""

    def __post_init__(self) -> None:
        inference.check_tile(self.tile)
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"quality is a number from 1 to 100, not {self.quality}")
        if not 0 <= self.min_degraded <= 1:
            raise ValueError(f"min_degraded is a share, from 0 to 1, not {self.min_degraded}")

    @property
    def encoding(self) -> Encoding:
        """How what was restored is written."""
        return Encoding(self.quality, self.encode)
