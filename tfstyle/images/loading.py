"""Reading and resizing images. Inside tfstyle an image is float32 sRGB in 0..1.

Pillow reads; 16-bit colour, which it would cut to 8 bits, goes through TensorFlow's PNG
codec and tifffile.
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

ORIENTATION = 0x0112  # EXIF and TIFF tag
_pillow_limit_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class ImageArray:
    """An image in memory.

    Attributes:
        rgb: float32 ``[height, width, 3]``, sRGB, 0..1.
        alpha: float32 ``[height, width]`` in 0..1, or None where all is opaque.
        bits: 8 or 16 per channel, as in the file that it came from; `tfstyle.images.save` writes as many.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    _: KW_ONLY
    bits: int = 8

    def fitted(self, size: int, enlarge: bool = False) -> ImageArray:
        """A copy whose longest side is ``size`` pixels; a smaller image is enlarged only on request."""
        height, width = self.rgb.shape[:2]
        factor = size / max(height, width)
        if factor >= 1 and not enlarge:
            return self
        return self.resized((max(1, round(height * factor)), max(1, round(width * factor))))

    def resized(self, shape: tuple[int, int]) -> ImageArray:
        """A copy of ``(height, width)`` pixels; transparent pixels' colours do not bleed into others'."""
        if self.alpha is None:
            return ImageArray(resize(self.rgb, shape), None, bits=self.bits)
        alpha = resize(self.alpha[..., None], shape)
        weighted = resize(self.rgb * self.alpha[..., None], shape)
        visible = weighted / np.maximum(alpha, 1e-3)
        rgb = np.where(alpha > 1e-3, np.clip(visible, 0, 1), resize(self.rgb, shape))
        return ImageArray(rgb.astype(np.float32), alpha[..., 0], bits=self.bits)

    def shrunk(self, factor: float, minimum: int = 1) -> ImageArray:
        """A copy scaled by a factor in 0..1, no side below the minimum unless it is already."""
        height, width = self.rgb.shape[:2]
        factor = max(factor, min(1.0, minimum / min(height, width)))
        return self.resized((max(1, round(height * factor)), max(1, round(width * factor))))

    def on_white(self) -> np.ndarray:
        """The colours on a white background, float32 ``[height, width, 3]``."""
        if self.alpha is None:
            return self.rgb
        return self.rgb * self.alpha[..., None] + (1 - self.alpha[..., None])


def resize(array: np.ndarray, shape: tuple[int, int], *, clip: bool = True) -> np.ndarray:
    """Antialiased (Lanczos) resampling in floating point.

    Args:
        array: float32 ``[height, width, channels]`` in 0..1.
        shape: the new ``(height, width)``.
        clip: to 0..1, which the filter's overshoot may leave.

    Returns:
        float32 ``[*shape, channels]``.
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
    """The image files among the files given and, by suffix, anywhere below the folders, in sorted order.

    Raises:
        ImageError: no such file or folder, or a folder without an image.
    """
    suffixes = Image.registered_extensions()
    images: list[Path] = []
    for place in places:
        check_image_or_folder(place)
        if place.is_dir():
            files = sorted(p for p in place.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
            if not files:
                raise ImageError(f"{place} has no picture in it")
            images += files
        else:
            images.append(place)
    return images


def load(source: Any, max_pixels: int | None = None) -> ImageArray:
    """Read an image: upright, in sRGB, its alpha channel separate.

    Args:
        source: a path, a `PIL.Image.Image`, or an array ``[height, width]`` or ``[height, width, 1,
            3 or 4]`` of uint8, uint16 or floats in 0..1.
        max_pixels: refuse files larger than this; by default Pillow's limit for decompression bombs,
            some 179 million.

    Raises:
        ImageError: missing, not an image, cut off, too large, or an array of another shape or type.
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
        raise ImageError(f"{path}: no permission to read it") from error
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error, tf.errors.OpError) as error:
        problem = "not an image that can be read" if "cannot identify" in str(error) else "damaged or cut off"
        raise ImageError(f"{path}: {problem} ({first_line(error, path)})") from error


def open_image(path: Path) -> Image.Image:
    """Open an image with Pillow, without Pillow's limit on its size: the caller checks its own."""
    with _pillow_limit_lock:
        previous_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = previous_limit


def _read_16_bit(path: Path, image: Image.Image) -> np.ndarray | None:
    """uint16 ``[height, width, channels]`` where the file has 16 bits per channel, else None."""
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
        except Exception as error:  # no decoder for its compression, or damaged tags
            log.warning("%s: read with 8 bits per channel (%s)", path, first_line(error, path))
    return None


def _from_16_bit(array: np.ndarray, pillow_image: Image.Image) -> ImageArray:
    """An image from its 16-bit pixels, and the orientation and colour profile that Pillow read."""
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
        raise ImageError(f"{name}: damaged or cut off ({first_line(error)})") from error
    planes = [np.asarray(colour)] + ([np.asarray(alpha)[..., None]] if alpha is not None else [])
    return _from_array(_upright(np.concatenate(planes, -1), orientation))


def _to_srgb(image: Image.Image, name: str) -> Image.Image:
    """Mode RGB, converted from the embedded ICC profile where there is one that works."""
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
            assert converted is not None  # it is None only when told to work in place
            return converted
        except (ImageCms.PyCMSError, OSError) as error:
            log.warning("%s: its colour profile is not usable and ignored (%s)", name, first_line(error))
    return base.convert("RGB")


def _profile_to_srgb(rgb: np.ndarray, profile: bytes) -> np.ndarray:
    """Convert floating-point colours from an ICC profile to sRGB.

    LittleCMS works on 8 bits here: the change that it makes to the nearest 8-bit colour is added to the
    exact colour.
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
        hint = "; channels come last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ImageError(f"an image array has shape {array.shape}; expected [height, width, 3]{hint}")
    if array.dtype in (np.uint8, np.uint16):
        values = array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
    elif array.dtype.kind == "f":
        values = array.astype(np.float32)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ImageError("a floating-point image holds values outside 0..1")
    else:
        raise ImageError(f"an image array is {array.dtype}; expected uint8, uint16, or floats in 0..1")
    channels = values.shape[-1]
    colour = values[..., :3] if channels >= 3 else np.repeat(values[..., :1], 3, -1)
    alpha = values[..., -1] if channels in (2, 4) and values[..., -1].min() < 1 else None
    return ImageArray(np.ascontiguousarray(colour), alpha, bits=16 if array.dtype == np.uint16 else 8)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation 1..8 of ``[height, width, channels]``."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    vertical, horizontal = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(
        orientation, (1, 1)
    )
    return array[::vertical, ::horizontal]


def first_line(error: BaseException, path: Path | None = None) -> str:
    """The first line of an error's message, without the path."""
    line = str(error).split("\n")[0].replace(repr(str(path)), "it").strip()
    return line[:160] or type(error).__name__
