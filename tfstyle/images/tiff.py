"""TIFF files, decoded by tifffile.

tifffile decodes uncompressed, Deflate and PackBits data by itself, and other compressions and depths with the
package imagecodecs, which the extra ``tfstyle[tiff]`` installs. Pillow decodes TIFF files as well, but its
results are often wrong for separate planes, WhiteIsZero, premultiplied alpha and 16 bits.
"""

from __future__ import annotations

import io
import math

import numpy as np
import tifffile
from PIL import Image

from tfstyle.errors import ImageError
from tfstyle.images.array import ImageArray, from_values
from tfstyle.images.profiles import to_srgb, values_to_srgb

#: Photometric interpretation -> number of its colour channels.
COLOUR_CHANNELS = {"MINISWHITE": 1, "MINISBLACK": 1, "RGB": 3, "PALETTE": 1, "SEPARATED": 4}
#: Photometric interpretations that only Pillow converts to RGB.
PILLOW_ONLY = ("YCBCR", "CIELAB")
PREMULTIPLIED, STRAIGHT = 1, 2  # values of the TIFF tag ExtraSamples
UNCOMPRESSED = 1  # value of the TIFF tag Compression
CMYK = 1  # value of the TIFF tag InkSet
SAMPLE_FORMATS = (1, 3)  # unsigned integers and floats: values of the TIFF tag SampleFormat
MAX_SAMPLES = 64


class NotDecodedError(ImageError):
    """tifffile does not decode a file: imagecodecs is not installed, or the colours are YCbCr or CIELAB."""


def first_page(data: bytes) -> tifffile.TiffPage:
    """Return the first page of a TIFF file. Its pixels are not decoded yet."""
    return tifffile.TiffFile(io.BytesIO(data)).pages[0]


def pillow_reads(page: tifffile.TiffPage, mode: str) -> bool:
    """Return whether Pillow correctly reads a file that tifffile does not decode, with 8 or more bits.

    Args:
        page: the page of the file.
        mode: mode in which Pillow opens the file.
    """
    unsigned, interleaved = page.sampleformat == 1, page.planarconfig == 1
    return unsigned and interleaved and (page.bitspersample <= 8 or mode in ("RGB", "RGBA", "CMYK"))


def read_page(page: tifffile.TiffPage, name: str) -> ImageArray:
    """Return the image of a TIFF page in sRGB. Its orientation is not applied.

    Unsigned integers of n bits are divided by 2ⁿ - 1. Premultiplied alpha is divided out, WhiteIsZero grey is
    inverted, palettes are applied, and extra channels other than alpha are dropped.

    Args:
        page: the page of the file.
        name: name of the file for error messages.

    Raises:
        NotDecodedError: imagecodecs is needed, or the colours are YCbCr or CIELAB.
        ImageError: the samples or the channels are of a kind that is not supported, or damaged.
    """
    photometric = getattr(page.photometric, "name", str(page.photometric))
    samples, ink_set = page.samplesperpixel, page.tags.valueof("InkSet", CMYK)
    count = COLOUR_CHANNELS.get(photometric, 0)
    if "DNGVersion" in page.tags:
        raise ImageError(f"{name}: camera raw files are not supported; convert it to a TIFF or PNG file")
    if photometric in PILLOW_ONLY:
        raise NotDecodedError(f"{name}: TIFF with {photometric} colours is not supported; save it as RGB")
    if not 0 < count <= samples <= MAX_SAMPLES or (photometric == "SEPARATED" and ink_set != CMYK):
        raise ImageError(
            f"{name}: TIFF with {samples} channels of photometric interpretation {photometric} is not "
            "supported; save it as RGB"
        )
    if page.sampleformat not in SAMPLE_FORMATS or page.dtype is None:
        raise ImageError(
            f"{name}: TIFF with samples that are neither unsigned integers nor floats is not supported; "
            "save it with 8 or 16 bits per channel"
        )
    return _image(_decoded(page, name), page, photometric, name)


def _decoded(page: tifffile.TiffPage, name: str) -> np.ndarray:
    """Return the samples ``[height, width, samples]``."""
    size, lengths = page.parent.filehandle.size, page.databytecounts
    if any(length == 0 or offset + length > size for offset, length in zip(page.dataoffsets, lengths)):
        raise ImageError(f"{name}: damaged or truncated (the file ends after {size} bytes)")
    bits = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample
    too_short = page.compression == UNCOMPRESSED and 8 * sum(lengths) < bits
    too_few = len(page.dataoffsets) < math.prod(page.chunked)
    if too_short or too_few:  # tifffile would fill the rest with zeros
        raise ImageError(f"{name}: damaged or truncated (the data of some rows are missing)")
    try:
        array = page.asarray(squeeze=False, maxworkers=1)
    except Exception as error:  # each decoder has exceptions of its own
        # Where imagecodecs is missing, some of tifffile's own decoders raise NotImplementedError.
        if "imagecodecs" in str(error) or isinstance(error, NotImplementedError):
            depth = f"{page.bitspersample} bits and compression {getattr(page.compression, 'name', '?')}"
            raise NotDecodedError(
                f"{name}: TIFF with {depth} needs the package imagecodecs; pip install 'tfstyle[tiff]'"
            ) from None
        raise
    planes, depth, height, width, interleaved = array.shape
    if depth != 1:
        raise ImageError(
            f"{name}: volumetric TIFF ({depth} slices) is not supported; save one slice as an image"
        )
    return np.moveaxis(array[:, 0], 0, -2).reshape(height, width, planes * interleaved)


def _image(array: np.ndarray, page: tifffile.TiffPage, photometric: str, name: str) -> ImageArray:
    """Return the image with the samples ``[height, width, samples]`` of a page."""
    count, profile = COLOUR_CHANNELS[photometric], page.tags.valueof("InterColorProfile")
    bits = 16 if page.bitspersample > 8 else 8
    if photometric == "PALETTE":
        values = _scaled(array[..., 1:], page, name)
        palette = np.asarray(page.colormap)
        colours = palette.T[array[..., 0]] / np.float32(255 if palette.max() < 256 else 65535)
        values = np.concatenate([colours.astype(np.float32), values], -1)
        count = 3
    else:
        values = _scaled(array, page, name)
    colour, extra = values[..., :count], list(page.extrasamples) or [STRAIGHT]
    alpha = None
    for index, kind in enumerate(extra[: values.shape[-1] - count]):
        if kind in (PREMULTIPLIED, STRAIGHT):
            alpha = values[..., count + index, None]
            if kind == PREMULTIPLIED:
                colour = np.clip(colour / np.maximum(alpha, 1e-6), 0, 1)
            break
    if photometric == "MINISWHITE":
        colour = 1 - colour
    if photometric == "SEPARATED":
        inks = Image.fromarray(np.round(colour * 255).astype(np.uint8), "CMYK")
        colour = np.asarray(to_srgb(inks, profile, name=name), np.float32) / 255
    else:
        colour = values_to_srgb(colour, profile, name=name)
    return from_values(colour if alpha is None else np.concatenate([colour, alpha], -1), bits)


def _scaled(array: np.ndarray, page: tifffile.TiffPage, name: str) -> np.ndarray:
    """Return samples as float32 in 0..1."""
    if array.dtype.kind == "u":
        wide = array.astype(np.float32 if page.bitspersample <= 16 else np.float64)
        return (wide / (2**page.bitspersample - 1)).astype(np.float32)
    if array.size and not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise ImageError(
            f"{name}: floating-point TIFF has values from {array.min()} to {array.max()}; expected 0..1"
        )
    return array.astype(np.float32)
