"""Reading and resizing images. Inside tfstyle an image is float32 sRGB in 0..1.

Pillow reads the files. It would reduce 16-bit colour to 8 bits, so 16-bit PNG files are decoded by TensorFlow
and 16-bit TIFF files by tifffile.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import threading
import zlib
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tifffile
from PIL import Image, ImageCms

from tfstyle.errors import ImageError
from tfstyle.files import check_image_file, check_image_or_folder

log = logging.getLogger(__name__)

ORIENTATION = 0x0112  # EXIF and TIFF tag of the orientation
_pillow_limit_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class ImageArray:
    """An image in memory.

    Attributes:
        rgb: float32 ``[height, width, 3]``, sRGB, 0..1.
        alpha: float32 ``[height, width]`` in 0..1, or None if the image is opaque.
        bits: bits per channel of the file that the image was read from, 8 or 16. `tfstyle.images.save` writes
            the same number, if the format supports it.

    Example:
        >>> import numpy as np
        >>> from tfstyle.images import ImageArray
        >>> image = ImageArray(np.zeros((32, 64, 3), np.float32))
        >>> image.fitted(48).rgb.shape, image.bits
        ((24, 48, 3), 8)
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    _: KW_ONLY
    bits: int = 8

    def fitted(self, size: int, enlarge: bool = False) -> ImageArray:
        """Return the image, resized to a given length of its longest side in the same proportions.

        Args:
            size: length of the longest side in pixels.
            enlarge: whether a smaller image is enlarged. Otherwise it is returned unchanged.
        """
        height, width = self.rgb.shape[:2]
        factor = size / max(height, width)
        if factor >= 1 and not enlarge:
            return self
        return self.resized((max(1, round(height * factor)), max(1, round(width * factor))))

    def resized(self, shape: tuple[int, int]) -> ImageArray:
        """Return the image resized to ``(height, width)`` pixels.

        Colours are weighted by alpha, so that the colours of transparent pixels do not affect their
        neighbours.

        Args:
            shape: the new height and width in pixels.
        """
        if self.alpha is None:
            return ImageArray(resize(self.rgb, shape), None, bits=self.bits)
        alpha = resize(self.alpha[..., None], shape)
        weighted = resize(self.rgb * self.alpha[..., None], shape)
        visible = weighted / np.maximum(alpha, 1e-3)
        rgb = np.where(alpha > 1e-3, np.clip(visible, 0, 1), resize(self.rgb, shape))
        return ImageArray(rgb.astype(np.float32), alpha[..., 0], bits=self.bits)

    def shrunk(self, factor: float, minimum: int = 1) -> ImageArray:
        """Return the image reduced by a factor.

        Args:
            factor: ratio of the new size to the present one, in 0..1.
            minimum: smallest length of a side in pixels. A larger factor is used if a side would get shorter,
                and an image whose shortest side is below the minimum keeps its size.
        """
        height, width = self.rgb.shape[:2]
        factor = max(factor, min(1.0, minimum / min(height, width)))
        return self.resized((max(1, round(height * factor)), max(1, round(width * factor))))

    def on_white(self) -> np.ndarray:
        """Return the image composited on white, float32 ``[height, width, 3]`` in 0..1."""
        if self.alpha is None:
            return self.rgb
        return self.rgb * self.alpha[..., None] + (1 - self.alpha[..., None])


def resize(array: np.ndarray, shape: tuple[int, int], *, clip: bool = True) -> np.ndarray:
    """Return an array resized with the antialiased Lanczos filter in floating point.

    Args:
        array: float32 ``[height, width, channels]``.
        shape: the new ``(height, width)`` in pixels.
        clip: whether to clip the result to 0..1, because the filter overshoots at edges.

    Returns:
        float32 ``[*shape, channels]``; the array itself if it has this shape.

    Example:
        >>> import numpy as np
        >>> from tfstyle.images import resize
        >>> resize(np.ones((48, 64, 3), np.float32), (24, 32)).shape
        (24, 32, 3)
    """
    if array.shape[:2] == tuple(shape):
        return array
    planes = [
        np.asarray(Image.fromarray(plane).resize(shape[::-1], Image.Resampling.LANCZOS))
        for plane in np.moveaxis(np.ascontiguousarray(array, np.float32), -1, 0)
    ]
    resized = np.stack(planes, -1)
    return np.clip(resized, 0, 1) if clip else resized


def find_images(places: Iterable[Path]) -> list[Path]:
    """Return the paths of image files, with folders replaced by the image files in them.

    Args:
        places: files, which are taken regardless of suffix, and folders. Folders are searched with all their
            subfolders for files with the suffix of an image format.

    Returns:
        The paths in the order of the places. Those of each folder are sorted.

    Raises:
        ImageError: a file or folder does not exist, or a folder contains no image.
    """
    suffixes = Image.registered_extensions()
    images: list[Path] = []
    for place in places:
        check_image_or_folder(place)
        if place.is_dir():
            files = sorted(p for p in place.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
            if not files:
                raise ImageError(f"the folder {place} contains no image files")
            images += files
        else:
            images.append(place)
    return images


def load(source: Any, max_pixels: int | None = None) -> ImageArray:
    """Read an image, apply its EXIF orientation and convert its colours to sRGB.

    Args:
        source: a path, a `PIL.Image.Image`, an `ImageArray`, or an array ``[height, width]`` or ``[height,
            width, channels]`` of uint8, uint16, or floats in 0..1. The channels are grey (1), grey and alpha
            (2), RGB (3) or RGB and alpha (4).
        max_pixels: largest number of pixels of a file. By default it is Pillow's limit for decompression
            bombs, about 179 million.

    Returns:
        An `ImageArray`.

    Raises:
        ImageError: the file does not exist, is not an image, is damaged or is too large; or the array has
            another shape or type, or values outside 0..1.

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
    """
    if isinstance(source, ImageArray):
        return source
    if isinstance(source, Image.Image):
        return _from_pillow(source, "the image")
    if isinstance(source, (str, os.PathLike)):
        return _from_file(Path(source), max_pixels)
    return _from_array(np.asarray(source))


def _from_file(path: Path, max_pixels: int | None) -> ImageArray:
    check_image_file(path)
    try:
        with open_image(path) as image:
            limit = max_pixels or 2 * (Image.MAX_IMAGE_PIXELS or 2**40)
            if image.width * image.height > limit:
                raise ImageError(
                    f"{path}: {image.width} x {image.height} pixels are more than the limit of {limit}; "
                    "raise it with max_pixels (--max-pixels) if you trust the file"
                )
            array = _read_16_bit(path, image)
            return _from_pillow(image, str(path)) if array is None else _from_16_bit(array, image)
    except ImageError:
        raise
    except PermissionError as error:
        raise ImageError(f"{path}: no permission to read this file") from error
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error, tf.errors.OpError) as error:
        unknown = "cannot identify" in str(error)
        problem = "not an image that can be read" if unknown else "damaged or truncated"
        raise ImageError(f"{path}: {problem} ({first_line(error, path)})") from error


def open_image(path: Path) -> Image.Image:
    """Return an image file opened by Pillow without Pillow's limit on the number of pixels.

    Args:
        path: path of the file. The caller checks the size before it reads the pixels.
    """
    with _pillow_limit_lock:
        previous_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = previous_limit


def _read_16_bit(path: Path, image: Image.Image) -> np.ndarray | None:
    """Return uint16 ``[height, width, channels]`` if a file has 16 bits per channel, otherwise None."""
    if image.format == "PNG":
        with open(path, "rb") as file:
            header = file.read(26)
        if header[24] == 16:
            return tf.io.decode_png(path.read_bytes(), dtype=tf.uint16).numpy()
    if image.format == "TIFF" and set(image.tag_v2.get(258, ())) == {16}:  # type: ignore[attr-defined]
        try:
            with tifffile.TiffFile(path) as file:
                page = file.pages[0]
                array = page.asarray()
                if array.dtype == np.uint16 and page.photometric.name in ("RGB", "MINISBLACK"):
                    planar = array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in (3, 4)
                    array = np.moveaxis(array, 0, -1) if planar else array
                    return array if array.ndim == 3 else array[..., None]
        except Exception as error:  # tifffile cannot decode the compression, or the tags are damaged
            log.warning(
                "%s: read with 8 bits per channel, because tifffile cannot read it (%s); "
                "save it without compression to keep 16 bits",
                path,
                first_line(error, path),
            )
    return None


def _from_16_bit(array: np.ndarray, pillow_image: Image.Image) -> ImageArray:
    """Return an image from 16-bit pixels, with the orientation and the colour profile that Pillow read."""
    image = _from_array(_upright(array, pillow_image.getexif().get(ORIENTATION, 1)))
    profile = pillow_image.info.get("icc_profile")
    if profile and not _is_srgb(profile):
        return ImageArray(_profile_to_srgb(image.rgb, profile), image.alpha, bits=16)
    return image


def _is_srgb(profile: bytes) -> bool:
    try:
        description = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        return description.startswith("sRGB")
    except (ImageCms.PyCMSError, OSError):
        return False


def _from_pillow(image: Image.Image, name: str) -> ImageArray:
    try:
        image.load()
        if image.mode in ("F", "I", "I;16", "I;16B", "I;16L"):
            array = _upright(np.asarray(image), image.getexif().get(ORIENTATION, 1))
            return _from_array(array if image.mode == "F" else np.clip(array, 0, 65535).astype(np.uint16))
        orientation = image.getexif().get(ORIENTATION, 1)
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        colour = _to_srgb(image, name)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}: damaged or truncated ({first_line(error)})") from error
    planes = [np.asarray(colour)] + ([np.asarray(alpha)[..., None]] if alpha is not None else [])
    return _from_array(_upright(np.concatenate(planes, -1), orientation))


def _to_srgb(image: Image.Image, name: str) -> Image.Image:
    """Return an image in mode RGB, converted from its embedded ICC profile if it has a valid one."""
    profile = image.info.get("icc_profile")
    base = (
        image if image.mode in ("RGB", "L", "CMYK") else image.convert("L" if image.mode == "LA" else "RGB")
    )
    if profile:
        try:
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                base, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            assert converted is not None  # it is None only for a conversion in place
            return converted
        except (ImageCms.PyCMSError, OSError) as error:
            log.warning("%s: the colour profile is invalid and ignored (%s)", name, first_line(error))
    return base.convert("RGB")


def _profile_to_srgb(rgb: np.ndarray, profile: bytes) -> np.ndarray:
    """Return floating-point colours converted from an ICC profile to sRGB.

    Pillow converts 8-bit colours only. The change of the nearest 8-bit colour is added to the exact colour.
    """
    rounded = np.round(rgb * 255).astype(np.uint8)
    before = Image.fromarray(rounded)
    before.info["icc_profile"] = profile
    after = np.asarray(_to_srgb(before, "16-bit image"), np.float32) / 255
    return np.clip(rgb + (after - rounded / np.float32(255)), 0, 1)


def _from_array(array: np.ndarray) -> ImageArray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 2, 3, 4) or 0 in array.shape:
        hint = " with the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ImageError(f"an image array has shape {array.shape}; expected [height, width, 3]{hint}")
    if array.dtype in (np.uint8, np.uint16):
        values = array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
    elif array.dtype.kind == "f":
        values = array.astype(np.float32)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ImageError(
                f"a floating-point image has values from {values.min()} to {values.max()}; expected 0..1; "
                "for values in 0..255 use uint8"
            )
    else:
        raise ImageError(f"an image array has type {array.dtype}; expected uint8, uint16, or floats in 0..1")
    channels = values.shape[-1]
    colour = values[..., :3] if channels >= 3 else np.repeat(values[..., :1], 3, -1)
    alpha = values[..., -1] if channels in (2, 4) and values[..., -1].min() < 1 else None
    return ImageArray(np.ascontiguousarray(colour), alpha, bits=16 if array.dtype == np.uint16 else 8)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels ``[height, width, channels]`` with an EXIF orientation, 1 to 8, applied."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    vertical, horizontal = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(
        orientation, (1, 1)
    )
    return array[::vertical, ::horizontal]


def first_line(error: BaseException, path: Path | None = None) -> str:
    """Return the first line of the message of an error, for another message.

    Args:
        error: the exception. If its message is empty, the name of its class is returned.
        path: path of a file. Where the message quotes the path, "it" is inserted instead.
    """
    line = str(error).split("\n")[0].replace(repr(str(path)), "it").strip()
    return line[:160] or type(error).__name__
