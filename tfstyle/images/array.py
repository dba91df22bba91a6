"""`ImageArray`, an image in memory, its resizing, and its creation from NumPy arrays."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import numpy as np
from PIL import Image

from tfstyle.errors import ImageError


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        height, width = self.rgb.shape[:2]
        alpha = "" if self.alpha is None else ", with alpha"
        return f"ImageArray({width} x {height} pixels, {self.bits} bits{alpha})"

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
            factor: ratio of the new size to the current size, in 0..1.
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

    def quantized(self, bits: int = 8) -> np.ndarray:
        """Return the image as integers ``[height, width, 3]``, or ``[height, width, 4]`` with alpha.

        Args:
            bits: bits per channel: 8 gives uint8, and 16 gives uint16.
        """
        planes = [self.rgb] + ([self.alpha[..., None]] if self.alpha is not None else [])
        maximum, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
        return np.round(np.clip(np.concatenate(planes, -1), 0, 1) * maximum).astype(dtype)

    def as_pil(self) -> Image.Image:
        """Return the image as a PIL image with 8 bits per channel, in mode RGB or RGBA."""
        return Image.fromarray(self.quantized())


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


def resize_circular(array: np.ndarray, shape: tuple[int, int], *, clip: bool = True) -> np.ndarray:
    """Return an array resized like an image that tiles: its opposite borders are neighbours.

    Args:
        array, shape, clip: as for `resize`.

    Returns:
        float32 ``[*shape, channels]``; the array itself if it has this shape.

    Example:
        >>> import numpy as np
        >>> from tfstyle.images import resize_circular
        >>> image = np.random.default_rng(0).random((16, 24, 3), np.float32)
        >>> resize_circular(image, (32, 48)).shape
        (32, 48, 3)
    """
    margins, new_margins = [], []
    for length, new_length in zip(array.shape[:2], shape, strict=True):
        # The margin is a whole number of pixels before and after, and wider than the filter.
        unit = length // math.gcd(length, new_length)
        wanted = math.ceil(4 * max(1, length / new_length))
        margins.append(min(unit * math.ceil(wanted / unit), length))
        new_margins.append(margins[-1] * new_length // length)
    padded = np.pad(array, [*((margin, margin) for margin in margins), (0, 0)], mode="wrap")
    new_shape = [length + 2 * margin for length, margin in zip(shape, new_margins, strict=True)]
    resized = resize(padded, (new_shape[0], new_shape[1]), clip=clip)
    top, left = new_margins
    return resized[top : top + shape[0], left : left + shape[1]]


def from_array(array: np.ndarray) -> ImageArray:
    """Return an image from an array of pixels in any byte order.

    Args:
        array: ``[height, width]`` or ``[height, width, channels]`` of uint8, uint16, or floats in 0..1. The
            channels are grey (1), grey and alpha (2), RGB (3) or RGB and alpha (4).

    Returns:
        An `ImageArray` with 16 bits for uint16 and 8 bits for the other types.

    Raises:
        ImageError: the array has another shape or type, or values outside 0..1.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "uf" or (array.dtype.kind == "u" and array.dtype.itemsize > 2):
        raise ImageError(f"an image array has type {array.dtype}; expected uint8, uint16, or floats in 0..1")
    if array.ndim != 3 or array.shape[-1] not in (1, 2, 3, 4) or 0 in array.shape:
        hint = " with the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ImageError(f"an image array has shape {array.shape}; expected [height, width, 3]{hint}")
    if array.dtype.kind == "u":
        bits = 8 * array.dtype.itemsize
        return from_values(array.astype(np.float32) / np.float32(2**bits - 1), bits)
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise ImageError(
            f"a floating-point image has values from {array.min()} to {array.max()}; expected 0..1; "
            "for values in 0..255 use uint8"
        )
    return from_values(array.astype(np.float32), 8)


def from_values(values: np.ndarray, bits: int) -> ImageArray:
    """Return an image from float32 ``[height, width, channels]`` in 0..1 (see `from_array`)."""
    channels = values.shape[-1]
    colour = values[..., :3] if channels >= 3 else np.repeat(values[..., :1], 3, -1)
    alpha = values[..., -1] if channels in (2, 4) and values[..., -1].min() < 1 else None
    return ImageArray(np.ascontiguousarray(colour), alpha, bits=bits)


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels ``[height, width, channels]`` with an EXIF orientation, 1 to 8, applied."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    vertical, horizontal = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(
        orientation, (1, 1)
    )
    return array[::vertical, ::horizontal]
