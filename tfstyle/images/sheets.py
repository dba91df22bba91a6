"""Strips and contact sheets: images that show several images side by side or in a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfstyle.images.array import ImageArray

#: Distance in pixels between neighbouring images, and between the images and the border of a sheet.
GAP = 8
WHITE = 1.0


def strip(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return an image that shows images of the same height side by side.

    Args:
        images: float32 ``[height, width, 3]`` in 0..1, at least one.

    Returns:
        float32 ``[height, sum of widths and gaps, 3]``. The gaps are white.

    Example:
        >>> import numpy as np
        >>> from tfstyle.images import strip, strip_width
        >>> images = [np.zeros((32, 48, 3), np.float32)] * 3
        >>> strip(images).shape, strip_width(48, 3)
        ((32, 160, 3), 160)
    """
    gap = np.full((images[0].shape[0], GAP, 3), WHITE, np.float32)
    parts = [part for image in images for part in (gap, image)][1:]
    return np.concatenate(parts, 1)


def strip_width(width: int, count: int) -> int:
    """Return the width in pixels of a `strip` of images of the same width.

    Args:
        width: width of each image in pixels.
        count: number of images, at least 1.
    """
    return count * width + (count - 1) * GAP


def contact_sheet(rows: Sequence[Sequence[np.ndarray | None]], side: int = 240) -> np.ndarray:
    """Return an image that shows a table of images.

    Args:
        rows: rows of the same length. A cell is an image, float32 ``[height, width, 3]`` in 0..1, or None if
            it is to stay empty.
        side: side of the square cells in pixels. The longest side of every image is resized to it.

    Returns:
        float32 ``[height, width, 3]`` with a white background.
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
