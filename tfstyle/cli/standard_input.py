"""Standard input in place of an image file: the argument ``-``."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

from tfstyle.errors import ImageError

STANDARD_INPUT = "-"


def read_standard_input(arguments: Sequence[str]) -> list[str | BinaryIO]:
    """Return the image arguments of a command, with ``-`` replaced by the content of standard input.

    Args:
        arguments: paths of images, or ``-``.

    Returns:
        The arguments, with a file in memory named ``standard input`` in place of ``-``.

    Raises:
        ImageError: several arguments are ``-``, or standard input is a terminal, closed or empty.
    """
    if STANDARD_INPUT not in arguments:
        return list(arguments)
    if arguments.count(STANDARD_INPUT) > 1:
        raise ImageError("standard input (-) holds one image only; give a file for each of the others")
    return [_read() if argument == STANDARD_INPUT else argument for argument in arguments]


def load_standard_input(images: Sequence[str | BinaryIO], max_pixels: int | None = None) -> list[Any]:
    """Decode the file that `read_standard_input` put in place of ``-`` to an `ImageArray`.

    The file can be read only once, but a run may load an image several times.

    Args:
        images: the result of `read_standard_input`.
        max_pixels: as for `tfstyle.images.load`.

    Returns:
        The images, with an `ImageArray` in place of the file.

    Raises:
        ImageError: standard input is not an image, is damaged or is too large.
    """
    from tfstyle.images.loading import load

    return [image if isinstance(image, str) else load(image, max_pixels) for image in images]


def _read() -> BinaryIO:
    if sys.stdin is not None and sys.stdin.isatty():
        raise ImageError("standard input (-) is a terminal; pipe an image file into the command")
    content = b"" if sys.stdin is None else sys.stdin.buffer.read()
    if not content:
        raise ImageError("standard input (-) is empty; pipe an image file into the command")
    file = io.BytesIO(content)
    file.name = "standard input"
    return file
