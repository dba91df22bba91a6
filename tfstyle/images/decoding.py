"""Decoding of image files.

tifffile decodes TIFF, TensorFlow decodes PNG with 16 bits per channel, and Pillow decodes everything else.
If a decoder raises an exception for a damaged file, whatever its class, the caller gets an `ImageError`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf
import tifffile
from PIL import Image, UnidentifiedImageError

from tfstyle.errors import ImageError, TfstyleError
from tfstyle.images import cut_jpeg, tiff
from tfstyle.images.array import ImageArray, from_array, from_values, upright
from tfstyle.images.profiles import to_srgb, values_to_srgb

log = logging.getLogger(__name__)
# Without a handler, Python would print the decoders' messages on stderr. The errors raised here contain them.
for decoder in ("PIL", "tifffile"):
    logging.getLogger(decoder).addHandler(logging.NullHandler())

ORIENTATION = 0x0112  # EXIF and TIFF tag of the orientation
TIFF_STARTS = (b"II", b"MM")
#: Major brands of HEIC files, which are at bytes 8 to 12. Those of AVIF files differ.
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
#: Pillow's modes of grey images with 16 bits.
GREY_16_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
BITS_PER_SAMPLE, PHOTOMETRIC, ZERO_IS_WHITE = 258, 262, 0  # TIFF tags, and a value of the second
#: Formats in which Pillow's mode "I" holds values of 16 bits. In other formats its range is not known.
MODE_I_HAS_16_BITS = ("PNG", "PPM")
_pillow_limit_lock = threading.Lock()
_stderr_lock = threading.Lock()


def decode(data: bytes, *, name: str, max_pixels: int | None = None) -> ImageArray:
    """Return the image in an image file, upright and in sRGB.

    Args:
        data: content of the file.
        name: name of the file for messages.
        max_pixels: largest number of pixels; None for Pillow's limit for decompression bombs.

    Raises:
        ImageError: the data are not an image, are damaged or too large, or have a format that is not
            supported.
    """
    if not data:
        raise ImageError(f"{name}: not an image that can be read (the file is empty)")
    with _errors_named(name):
        return _decode(data, name, max_pixels)


def from_pillow(image: Image.Image, *, name: str) -> ImageArray:
    """Return a Pillow image as an `ImageArray`, upright and in sRGB.

    Args:
        image: the image. Its pixels need not be loaded yet.
        name: name of the image for messages.

    Raises:
        ImageError: the file that Pillow opened is damaged; the mode is ``I``, whose range is not known, or
            ``F`` with values outside 0..1; or the file is a TIFF file that Pillow reads wrongly.
    """
    with _errors_named(name):
        return _from_pillow(image, name)


@contextlib.contextmanager
def _errors_named(name: str) -> Iterator[None]:
    """Turn every exception of a decoder into an ImageError that begins with the name of the image."""
    try:
        yield
    except TfstyleError as error:
        message = str(error)
        raise error if message.startswith(f"{name}: ") else ImageError(f"{name}: {message}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image that can be read (its format is unknown)") from None
    except Exception as error:  # each decoder has exceptions of its own
        raise ImageError(f"{name}: damaged or truncated ({first_line(error)})") from None


def _decode(data: bytes, name: str, max_pixels: int | None) -> ImageArray:
    page = tiff.first_page(data) if data[:2] in TIFF_STARTS else None
    try:
        with _decoders_silenced(data):
            image = open_image(io.BytesIO(data))
    except UnidentifiedImageError:
        if page is not None:
            _check_size(page.imagewidth, page.imagelength, name, max_pixels)
            return _from_tiff(page, name)
        if data[4:8] != b"ftyp" or data[8:12] not in HEIC_BRANDS:
            raise
        with _decoders_silenced(data):
            image = _open_heic(data, name)
    with image:
        _check_size(image.width, image.height, name, max_pixels)
        if page is not None:
            return _from_tiff_or_pillow(page, image, data, name)
        if image.format == "PNG":
            return _from_png(data, image, name)
        try:
            with _decoders_silenced(data):
                image.load()
            return _from_pillow(image, name)
        except OSError:
            completed = cut_jpeg.completed(data) if image.format == "JPEG" else None
            if completed is None:
                raise
    log.warning("%s: the last bytes of the file are missing; pixels at its bottom may be grey", name)
    return _from_pillow(open_image(io.BytesIO(completed)), name)


def _check_size(width: int, height: int, name: str, max_pixels: int | None) -> None:
    limit = _pillow_limit() if max_pixels is None else max_pixels
    if width * height > limit:
        raise ImageError(
            f"{name}: {width} x {height} pixels are more than the limit of {limit}; "
            "raise it with max_pixels if you trust the file"
        )


def open_image(file: Path | BinaryIO) -> Image.Image:
    """Return an image opened by Pillow without its limit on the number of pixels.

    Args:
        file: path of the file, or the open file. The caller checks the size before it reads the pixels.
    """
    with _pillow_limit_lock:
        previous_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = previous_limit


def _pillow_limit() -> int:
    """Return the number of pixels above which Pillow refuses an image, which `open_image` suspends."""
    with _pillow_limit_lock:
        return 2 * (Image.MAX_IMAGE_PIXELS or 2**40)


def _open_heic(data: bytes, name: str) -> Image.Image:
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(
            f"{name}: HEIC needs the package pillow-heif; pip install 'tfstyle[heic]', or convert the file "
            "to JPEG"
        ) from None
    pillow_heif.register_heif_opener()
    return open_image(io.BytesIO(data))


def exif_tag(image: Image.Image, tag: int) -> Any:
    """Return an EXIF tag of an image, or None if there is no such tag or the metadata are damaged.

    Args:
        image: the image.
        tag: number of the tag.
    """
    try:
        return image.getexif().get(tag)
    except Exception as error:  # Pillow raises various exceptions for metadata that are not EXIF
        log.debug("the EXIF metadata are ignored (%s)", first_line(error))
        return None


def _upright(image: ImageArray, orientation: Any) -> ImageArray:
    alpha = None if image.alpha is None else upright(image.alpha, orientation)
    return ImageArray(np.ascontiguousarray(upright(image.rgb, orientation)), alpha, bits=image.bits)


def _from_tiff(page: tifffile.TiffPage, name: str) -> ImageArray:
    return _upright(tiff.read_page(page, name), page.tags.valueof(ORIENTATION))


def _from_tiff_or_pillow(page: tifffile.TiffPage, image: Image.Image, data: bytes, name: str) -> ImageArray:
    try:
        return _from_tiff(page, name)
    except tiff.NotDecodedError as error:
        if not tiff.pillow_reads(page, image.mode):
            raise
        if page.bitspersample > 8:
            log.warning("%s: read with 8 bits per channel (%s)", name, error)
    with _decoders_silenced(data):
        image.load()
    return _from_pillow(image, name)


def _from_png(data: bytes, image: Image.Image, name: str) -> ImageArray:
    """Return the image of a PNG file, decoded by TensorFlow if it has 16 bits per channel."""
    depth, key = data[24], image.info.get("transparency")
    if depth < 16:
        # Pillow scales the pixels to 8 bits, but not the transparent value.
        if isinstance(key, int) and key < 2**depth < 256:
            image.info["transparency"] = key * 255 // (2**depth - 1)
        return _from_pillow(image, name)
    array = tf.io.decode_png(data, dtype=tf.uint16).numpy()
    if key is not None:
        opaque = (array != np.array(key, np.uint16)).any(-1, keepdims=True)
        array = np.concatenate([array, opaque * np.uint16(65535)], -1)
    return _from_16_bits(array, image, name)


def _from_16_bits(array: np.ndarray, image: Image.Image, name: str) -> ImageArray:
    """Return an image from uint16 pixels, with the orientation and the profile that Pillow read."""
    values = array.astype(np.float32) / np.float32(65535)
    colours = values.shape[-1] - (values.shape[-1] in (2, 4))
    converted = values_to_srgb(values[..., :colours], image.info.get("icc_profile"), name=name)
    values = np.concatenate([converted, values[..., colours:]], -1)
    return _upright(from_values(values, 16), exif_tag(image, ORIENTATION))


def _from_pillow(image: Image.Image, name: str) -> ImageArray:
    image.load()
    if image.mode in GREY_16_BITS and image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if tags.get(PHOTOMETRIC) == ZERO_IS_WHITE or tags.get(BITS_PER_SAMPLE) == (12,):
            raise ImageError(
                f"{name} is a TIFF file whose tones Pillow reads wrongly; give the path of the file"
            )
    if image.mode == "F":
        return _upright(from_array(np.asarray(image)), exif_tag(image, ORIENTATION))
    if image.mode == "I" and image.format not in MODE_I_HAS_16_BITS:
        raise ImageError(
            f"{name} has mode I, whose largest value is unknown; give an array of uint8 or uint16"
        )
    if image.mode == "I" or image.mode in GREY_16_BITS:
        array = np.asarray(image).clip(0, 65535).astype(np.uint16)
        return _from_16_bits(array[..., None], image, name)
    if image.mode == "La":  # Pillow converts it to no mode but LA
        image = image.convert("LA")
    alpha = None
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        alpha = with_alpha.getchannel("A")
        if image.mode == "P":  # Pillow warns if it drops the transparency of a palette
            image = with_alpha
    colour = to_srgb(image, image.info.get("icc_profile"), name=name)
    planes = [np.asarray(colour)] + ([np.asarray(alpha)[..., None]] if alpha is not None else [])
    return _upright(from_array(np.concatenate(planes, -1)), exif_tag(image, ORIENTATION))


@contextlib.contextmanager
def _decoders_silenced(data: bytes) -> Iterator[None]:
    """Discard what the decoders of TIFF, AVIF and HEIC write to the process's stderr about damaged files.

    Args:
        data: content of the file. For other formats nothing is done, because their decoders write nothing.
    """
    if data[:2] not in TIFF_STARTS and data[4:8] != b"ftyp":
        yield
        return
    with _stderr_lock:
        try:
            stderr = os.dup(2)
        except OSError:  # stderr is closed
            yield
            return
        with open(os.devnull, "wb") as sink:
            os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def first_line(error: BaseException, path: Path | None = None) -> str:
    """Return the first line of the message of an error, for another message.

    Args:
        error: the exception. If its message is empty, the name of its class is returned.
        path: path of a file. Where the message quotes the path, "it" is inserted instead.
    """
    line = str(error).split("\n")[0].replace(repr(str(path)), "it").strip()
    return line[:160] or type(error).__name__
