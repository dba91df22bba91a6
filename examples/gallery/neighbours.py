"""Make the sheet of the method neighbours again: ``python examples/gallery/neighbours.py [WEIGHTS]``.

A row shows the content image, the result with the default options, and results with the method neighbours and
with the self-similarity loss. The script stores the sheet as ``docs/neighbours.jpg``. It takes about five
minutes on two cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

import tfstyle
from tfstyle.images import contact_sheet, load

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
SIDE = 256


def main(weights: str = "auto") -> None:
    """Make the results and their sheet."""
    rows = []
    for content, style in PAIRS:
        results = [
            tfstyle.stylize(content, style, weights=weights, size=SIDE, **options).image
            for options in COLUMNS
        ]
        rows.append([load(content).fitted(SIDE).rgb, *results])
    sheet = contact_sheet(rows, side=SIDE)
    image = Image.fromarray((255 * sheet + 0.5).astype("uint8"))
    image.save(ROOT / "docs" / "neighbours.jpg", quality=85, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
