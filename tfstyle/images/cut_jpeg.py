"""Truncated JPEG files, whose last bytes are missing, for instance because a download ended too early."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

START_OF_SCAN, PROGRESSIVE_FRAME = 0xDA, 0xC2
END = b"\xff\xd9"
#: Largest number of rows that may be missing: the height of a block, at most 16 pixels, and the row above it,
#: into which the colours of the block are interpolated.
LAST_ROWS = 17
#: Largest share of the rows that may be missing.
MISSING_SHARE = 0.1
LAST_COEFFICIENT = 63  # index of the last DCT coefficient of a block


def completed(data: bytes) -> bytes | None:
    """Return a truncated JPEG file with an end marker, if no more than its last row of blocks is missing.

    The file is decoded with two different endings. The two images agree up to the position at which the data
    end.

    Args:
        data: content of the file, which must have a complete header.

    Returns:
        The completed content, or None if more is missing, such as a later scan of a progressive file.
    """
    data = data.removesuffix(b"\xff")
    if not _has_all_scans(data):
        return None
    images = [np.asarray(Image.open(io.BytesIO(data + ending + END))) for ending in (b"", b"\x55" * 64)]
    differing = (images[0] != images[1]).reshape(len(images[0]), -1).any(1)
    missing_rows = len(differing) - int(differing.argmax()) if differing.any() else 0
    is_small = missing_rows <= min(LAST_ROWS, MISSING_SHARE * len(differing))
    return data + END if is_small else None


def _has_all_scans(data: bytes) -> bool:
    """Return whether the last scan of a file has begun, so that no later scan is missing."""
    components: set[int] = set()
    precise: dict[str, set[int]] = {"DC": set(), "AC": set()}
    for marker, content in _segments(data):
        if marker == PROGRESSIVE_FRAME:
            components = set(content[6::3])
        elif marker == START_OF_SCAN and components:
            scanned = set(content[1:-3:2])
            first, last, bits = content[-3:]
            for kind in ["DC"] * (first == 0) + ["AC"] * (last == LAST_COEFFICIENT):
                precise[kind] = precise[kind] | scanned if bits & 15 == 0 else precise[kind] - scanned
    return all(components <= scanned for scanned in precise.values())


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the content of each segment. The entropy-coded data between them are skipped."""
    position = 2
    while 0 <= position < len(data) - 4:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length
        if marker == START_OF_SCAN:
            position = _next_marker(data, position)


def _next_marker(data: bytes, position: int) -> int:
    """Return the position of the next marker that is neither a stuffed byte nor a restart marker, or -1."""
    while (position := data.find(b"\xff", position)) >= 0:
        if position + 1 < len(data) and data[position + 1] not in (0, 0xFF, *range(0xD0, 0xD8)):
            return position
        position += 1
    return -1
