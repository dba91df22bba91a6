"""Several images as one: strips and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfstyle.images.loading import ImageArray

GAP = 8  # pixels between images
WHITE = 1.0


def strip(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images of one height side by side.

    Args:
        images: float32 ``[height, width, 3]`` in 0..1.

    Returns:
        float32 ``[height, sum of widths and gaps, 3]``, white between them.
    """
    gap = np.full((images[0].shape[0], GAP, 3), WHITE, np.float32)
    parts = [part for image in images for part in (gap, image)][1:]
    return np.concatenate(parts, 1)


def strip_width(width: int, count: int) -> int:
    """Width in pixels of a `strip` of so many images of one width."""
    return count * width + (count - 1) * GAP


def contact_sheet(rows: Sequence[Sequence[np.ndarray | None]], side: int = 240) -> np.ndarray:
    """A table of thumbnails.

    Args:
        rows: of equal length; images float32 ``[height, width, 3]`` in 0..1, or None for a blank.
        side: of a square cell in pixels; an image is shrunk, or enlarged, to fit.

    Returns:
        float32 ``[height, width, 3]`` on white.
    """
    cell = side + GAP
    sheet = np.full((cell * len(rows) + GAP, cell * len(rows[0]) + GAP, 3), WHITE, np.float32)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            if image is None:
                continue
            thumbnail = ImageArray(image).fitted(side, enlarge=True).rgb
            height, width = thumbnail.shape[:2]
            top, left = GAP + cell * y + (side - height) // 2, GAP + cell * x + (side - width) // 2
            sheet[top : top + height, left : left + width] = thumbnail
    return sheet
