"""Make the sheet of the method neighbours again: ``python examples/gallery/neighbours.py [WEIGHTS]``.

A row shows the content image, the result with the default options, and results with the method neighbours and
with the self-similarity loss. The script stores the sheet as ``docs/neighbours.jpg``. It takes about five
minutes on two cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import tfstyle
from tfstyle.images import load

ROOT = Path(__file__).parents[2]
CAT, EVENING = ROOT / "tfstyle" / "data" / "cat.jpg", ROOT / "examples" / "evening.jpg"
PAIRS = ((CAT, EVENING), (ROOT / "examples" / "village.jpg", EVENING), (EVENING, CAT))
#: The options of each column after the content image.
COLUMNS = (
    {},
    {"method": "neighbours"},
    {"method": "neighbours", "content_loss": ("self_similarity",)},
    {"content_loss": ("self_similarity",)},
)
SIDE, GAP = 256, 6


def side_by_side(images: list[np.ndarray]) -> np.ndarray:
    """Return images of the same height as one image, with white gaps between them."""
    gap = np.ones((images[0].shape[0], GAP, 3))
    return np.concatenate([part for image in images for part in (image, gap)][:-1], 1)


def main(weights: str = "auto") -> None:
    """Make the results and their sheet."""
    rows = []
    for content, style in PAIRS:
        results = [
            tfstyle.stylize(content, style, weights=weights, size=SIDE, **options).image
            for options in COLUMNS
        ]
        rows.append([load(content).fitted(SIDE).rgb, *results])
    sheet = np.concatenate(
        [np.pad(side_by_side(row), ((0, GAP), (0, 0), (0, 0)), constant_values=1) for row in rows]
    )
    image = Image.fromarray((255 * sheet[:-GAP] + 0.5).astype("uint8"))
    image.save(ROOT / "docs" / "neighbours.jpg", quality=85, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
