"""Writing image files atomically, with an sRGB profile and the settings of the run."""

from __future__ import annotations

import io
import json
import logging
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from tfstyle.errors import ImageError
from tfstyle.files import check_output, image_format, write_atomically
from tfstyle.images.array import ImageArray
from tfstyle.images.decoding import exif_tag, first_line, open_image

log = logging.getLogger(__name__)

DESCRIPTION = 0x010E  # EXIF and TIFF tag of the image description


def save(
    path: Path, image: ImageArray, *, settings: dict[str, Any] | None = None, overwrite: bool = False
) -> None:
    """Write an image file atomically, with an sRGB profile and the settings of the run.

    Args:
        path: path of the file. Its suffix determines the format: ``.png``, ``.tif`` or ``.tiff`` (with 8 or
            16 bits per channel, as given by `ImageArray.bits`), ``.jpg`` or ``.jpeg`` (with quality 95 and
            4:4:4 subsampling) or ``.webp`` (with quality 95). JPEG has no transparency, so a transparent
            image is composited on white.
        image: the image to write.
        settings: options and results of the run. They are stored as JSON: in PNG in a text chunk ``tfstyle``,
            in the other formats in the image description.
        overwrite: whether an existing file may be replaced.

    Raises:
        ImageError: the suffix is unknown, or the image is too large for the format.
        OutputError: the folder does not exist or cannot be written to, the path is that of a folder, or the
            file exists and ``overwrite`` is False.
        RunError: writing failed, for instance because the disk is full. No partial file is left.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from tfstyle.images import ImageArray, load, save
        >>> save(Path("image.tif"), ImageArray(np.zeros((32, 48, 3), np.float32), bits=16))
        >>> loaded = load("image.tif")
        >>> loaded.rgb.shape, loaded.bits
        ((32, 48, 3), 16)
    """
    check_output(path, overwrite=overwrite, shape=image.rgb.shape[:2])
    write_atomically(path, encode(image, str(path), settings=settings))


def encode(image: ImageArray, name: str, *, settings: dict[str, Any] | None = None) -> bytes:
    """Return the content of the image file that `save` writes.

    Args:
        image: the image.
        name: name of the file, whose suffix determines the format.
        settings: as for `save`.

    Raises:
        ImageError: the suffix is unknown, or the image is too large for the format.

    Example:
        >>> import numpy as np
        >>> from tfstyle.images import ImageArray, encode
        >>> encode(ImageArray(np.zeros((32, 48, 3), np.float32)), "image.png")[1:4]
        b'PNG'
    """
    kind, transparent = image_format(name, shape=image.rgb.shape[:2])
    text = json.dumps(settings or {})
    if image.alpha is not None and not transparent:
        log.warning(
            "%s: %s has no transparency, so the image is composited on white; use .png to keep it", name, kind
        )
        image = ImageArray(image.on_white(), None, bits=image.bits)
    encode_16_bits = {"PNG": _encode_16_bit_png, "TIFF": _encode_16_bit_tiff}
    if image.bits == 16 and kind in encode_16_bits:
        return encode_16_bits[kind](image.quantized(16), text)
    return _encode(image.as_pil(), kind, text)


def read_settings(source: Path | BinaryIO) -> dict[str, Any]:
    """Return the settings that `save` stored in an image file.

    Args:
        source: path of the file, or the file open in binary mode.

    Raises:
        ImageError: the file does not exist, is not an image or contains no settings of tfstyle.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from tfstyle.images import ImageArray, read_settings, save
        >>> image = ImageArray(np.zeros((32, 48, 3), np.float32))
        >>> save(Path("image.png"), image, settings={"options": {"size": 48}})
        >>> read_settings(Path("image.png"))
        {'options': {'size': 48}}
    """
    path = Path(source if isinstance(source, Path) else getattr(source, "name", "the image"))
    try:
        with open_image(source) as image:
            text = image.info.get("tfstyle") or exif_tag(image, DESCRIPTION) or ""
    except Exception as error:  # each decoder has exceptions of its own
        raise ImageError(
            f"{path}: not an image that can be read ({first_line(error, path)}); "
            "give an image that tfstyle wrote"
        ) from None
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict) or not isinstance(settings.get("options"), dict):
        raise ImageError(f"{path} contains no settings of tfstyle; give an image that tfstyle wrote")
    return settings


def _encode(image: Image.Image, kind: str, text: str) -> bytes:
    """Return an image file with 8 bits per channel, encoded by Pillow."""
    options: dict[str, Any] = {"icc_profile": srgb_profile()}
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("tfstyle", text)
    else:
        exif = Image.Exif()
        exif[DESCRIPTION] = text
        options["exif"] = exif
    options_by_kind: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"quality": 95},
        "TIFF": {"compression": "tiff_deflate"},
    }
    options |= options_by_kind.get(kind, {})
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options)
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{kind} cannot hold this image of {image.width} x {image.height} pixels "
            f"({first_line(error)}); choose another format"
        ) from None
    return buffer.getvalue()


def _encode_16_bit_png(array: np.ndarray, text: str) -> bytes:
    """Return a PNG file with 16 bits per channel, encoded by TensorFlow.

    TensorFlow writes neither a colour profile nor text. Their chunks are inserted after the header.
    """
    encoded = tf.io.encode_png(array).numpy()
    header = 8 + 25  # signature, IHDR chunk
    profile = _chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(srgb_profile()))
    settings = _chunk(b"iTXt", b"tfstyle\0\0\0\0\0" + text.encode())
    return encoded[:header] + profile + settings + encoded[header:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _encode_16_bit_tiff(array: np.ndarray, text: str) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        array,
        photometric="rgb",
        compression="zlib",
        extrasamples=["unassalpha"] if array.shape[-1] == 4 else None,
        description=text,
        metadata=None,
        iccprofile=srgb_profile(),
    )
    return buffer.getvalue()


def srgb_profile() -> bytes:
    """Return the sRGB ICC profile with a fixed creation time, so that equal images give equal files."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    created = slice(24, 36)
    return profile[: created.start] + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + profile[created.stop :]
