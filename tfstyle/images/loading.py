"""Reading images from files, bytes, arrays and Pillow. Inside tfstyle an image is float32 sRGB in 0..1."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from tfstyle.errors import ImageError, RunError
from tfstyle.files import check_image_file, check_image_or_folder
from tfstyle.images.array import ImageArray, from_array
from tfstyle.images.decoding import decode, first_line, from_pillow

#: Suffixes of the files that are taken from a folder. A file that is given by its path may have any suffix.
FOLDER_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".heic", ".heif", ".hif",
    ".avif", ".bmp", ".dib", ".gif", ".tga", ".qoi", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip


def find_images(places: Iterable[Path]) -> list[Path]:
    """Return the paths of image files, with folders replaced by the image files in them.

    Args:
        places: files, which are taken regardless of suffix, and folders. Folders are searched with all their
            subfolders for files with one of `FOLDER_SUFFIXES`. Hidden files and folders, whose names begin
            with a dot, are left out.

    Returns:
        The paths in the order of the places. Those of each folder are sorted.

    Raises:
        ImageError: a file or folder does not exist, or a folder contains no image.
    """
    images: list[Path] = []
    for place in places:
        check_image_or_folder(place)
        if place.is_dir():
            files = sorted(
                path for path in place.rglob("*")
                if is_image_name(path.relative_to(place)) and path.is_file()
            )  # fmt: skip
            if not files:
                raise ImageError(
                    f"the folder {place} contains no image files; the suffixes of image files are "
                    f"{', '.join(sorted(FOLDER_SUFFIXES))}"
                )
            images += files
        else:
            images.append(place)
    return images


def is_image_name(path: PurePath) -> bool:
    """Return whether a file is taken from a folder: it is not hidden, and its suffix is that of an image.

    Args:
        path: path of the file below the folder. Neither the file nor any folder in the path may be hidden.

    Example:
        >>> from pathlib import PurePath
        >>> from tfstyle.images import is_image_name
        >>> [is_image_name(PurePath(path)) for path in ("cats/Tom.JPG", ".cache/tom.jpg", "notes.txt")]
        [True, False, False]
    """
    return not any(part.startswith(".") for part in path.parts) and path.suffix.lower() in FOLDER_SUFFIXES


def load(source: Any, max_pixels: int | None = None) -> ImageArray:
    """Read an image, apply its EXIF orientation and convert its colours to sRGB.

    Args:
        source: a path, the content of an image file as bytes, a file that is open in binary mode, a
            `PIL.Image.Image`, an `ImageArray`, or an array ``[height, width]`` or ``[height, width,
            channels]`` of uint8, uint16, or floats in 0..1. The channels are grey (1), grey and alpha (2),
            RGB (3) or RGB and alpha (4). Tensors are accepted like arrays.
        max_pixels: largest number of pixels of a file. By default it is Pillow's limit for decompression
            bombs, about 179 million.

    Returns:
        An `ImageArray`.

    Raises:
        ImageError: the file does not exist, is not an image, is damaged or is too large; the array has
            another shape or type, or values outside 0..1; or the source has another type or is a URL.
        RunError: the disk or the network drive failed while the file was read.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from tfstyle.images import load
        >>> Image.new("RGBA", (64, 48), (255, 0, 0, 128)).save("image.png")
        >>> image = load("image.png")
        >>> image.rgb.shape, image.rgb[0, 0].tolist(), image.alpha.shape
        ((48, 64, 3), [1.0, 0.0, 0.0], (48, 64))
        >>> load(np.zeros((48, 64), np.uint16)).bits
        16
        >>> with open("image.png", "rb") as file:
        ...     load(file).rgb.shape
        (48, 64, 3)
    """
    if isinstance(source, ImageArray):
        return source
    if isinstance(source, Image.Image):
        return from_pillow(source, name="the image")
    if isinstance(source, (str, os.PathLike)):
        check_image_file(source)
        return decode(_content(Path(source)), name=str(source), max_pixels=max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return decode(bytes(source), name="the image", max_pixels=max_pixels)
    if hasattr(source, "read"):
        name = str(getattr(source, "name", "the image"))
        try:
            content = source.read()
        except (OSError, ValueError) as error:  # it is closed, or open for writing
            raise ImageError(f"{name}: cannot be read ({first_line(error)}); open it in mode 'rb'") from None
        if not isinstance(content, bytes):
            raise ImageError(f"{name}: the file is open in text mode; open it in binary mode, 'rb'")
        if not content:
            raise ImageError(
                f"{name}: nothing is left to read; an open file is read from its current position"
            )
        return decode(content, name=name, max_pixels=max_pixels)
    return from_array(_as_array(source))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError:
        raise ImageError(f"{path}: no permission to read this file") from None
    except OSError as error:
        raise RunError(f"{path} could not be read: {error.strerror or error}") from error


def _as_array(source: Any) -> np.ndarray:
    """Return an array, or a tensor of any library, as a NumPy array, or raise ImageError."""
    expected = "expected a path, bytes, an open file, a PIL image or an array"
    if source is None or isinstance(source, (Iterator, Mapping, set, bool, int, float, complex)):
        raise ImageError(f"an image is of type {type(source).__name__}; {expected}")
    try:
        array = np.asarray(source)
    except Exception as error:  # for instance a torch tensor that requires gradients, or lists of lists
        raise ImageError(
            f"an image of type {type(source).__name__} cannot be converted to an array "
            f"({first_line(error)}); {expected}"
        ) from None
    if array.dtype == object:
        raise ImageError(f"an image is of type {type(source).__name__}; {expected}")
    return array
