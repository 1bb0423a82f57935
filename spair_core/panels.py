"""Panels: what was, what was found and what became of it, side by side; sheets of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CAPTION = 22
MARK = (255, 0, 160)


def before_after(
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None = None,
    truth: NDArray[np.uint8] | None = None,
    *,
    max_width: int = 1600,
) -> NDArray[np.uint8]:
    """uint8 [H', W', 3]: before | mask over it | after | truth, captioned, at most `max_width` wide.

    All are uint8 [H, W, 3], the mask bool [H, W]. Raises ValueError where sizes differ.
    """
    parts: list[tuple[str, NDArray[np.uint8]]] = [("before", before)]
    if mask is not None:
        parts.append((f"found ({mask.mean():.1%})", overlay(before, mask)))
    parts.append(("after", after))
    if truth is not None:
        parts.append(("truth", truth))
    return side_by_side(parts, max_width=max_width)


def side_by_side(
    parts: Sequence[tuple[str, NDArray[np.uint8]]], *, max_width: int = 1600
) -> NDArray[np.uint8]:
    """uint8 [H', W', 3]: pictures uint8 [H, W, 3] with their captions, at most `max_width` wide together.

    Raises ValueError where sizes differ.
    """
    if len({part.shape for _, part in parts}) != 1:
        raise ValueError(f"panels need pictures of one size, not {[part.shape for _, part in parts]}")
    return np.concatenate([_captioned(name, part, max_width // len(parts)) for name, part in parts], axis=1)


def overlay(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture uint8 [H, W, 3], darkened, with the pixels of a mask bool [H, W] in one bright colour.

    Raises ValueError where the sizes differ.
    """
    if mask.shape != picture.shape[:2]:
        raise ValueError(f"a mask of {list(mask.shape)} does not fit a picture of {list(picture.shape)}")
    shown = picture // 2
    shown[mask] = MARK
    return shown


def contact_sheet(cells: Sequence[tuple[str, NDArray[np.uint8]]], columns: int) -> NDArray[np.uint8]:
    """uint8 [H', W', 3]: captioned pictures [H, W, 3] of one size, row by row; the last row may be short.

    Raises ValueError where sizes differ or there is no picture.
    """
    sizes = {picture.shape for _, picture in cells}
    if len(sizes) != 1:
        raise ValueError(f"a contact sheet needs pictures of one size, not {sorted(sizes)}")
    panels = [_captioned(name, picture, picture.shape[1]) for name, picture in cells]
    panels += [np.zeros_like(panels[0])] * (-len(panels) % columns)
    return np.concatenate(
        [np.concatenate(panels[i : i + columns], axis=1) for i in range(0, len(panels), columns)]
    )


def _captioned(name: str, picture: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    image = Image.fromarray(picture)
    if image.width > width:
        image = image.resize(
            (width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS
        )
    panel = Image.new("RGB", (image.width, image.height + CAPTION), "black")
    panel.paste(image, (0, CAPTION))
    ImageDraw.Draw(panel).text((6, 4), name, fill="white", font=ImageFont.load_default(13))
    return np.asarray(panel)
