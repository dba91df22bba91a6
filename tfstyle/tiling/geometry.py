"""The positions of tiles in an image.

The insides of the tiles cover the image without overlap. The crop of a tile is its inside and a margin
around it, which contains every pixel that the features of the inside depend on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tfstyle.errors import ConfigError
from tfstyle.layers import NETWORKS, Layer
from tfstyle.network import CUSTOM_MODEL, Encoder


class ReceptiveField(NamedTuple):
    """The strides of an encoder's layers and the extent of their receptive fields.

    Attributes:
        strides: layer -> distance of neighbouring positions in pixels.
        margin: number of pixels by which the receptive field of a position in the deepest layer extends
            beyond the square of stride x stride pixels at this position, on each side. It is rounded up to a
            multiple of the largest stride.
        circular: whether the convolutions use circular padding.
    """

    strides: dict[str, int]
    margin: int
    circular: bool

    @property
    def alignment(self) -> int:
        """The largest stride in pixels. The sides of tiles are multiples of it."""
        return max(self.strides.values())


def receptive_field(encoder: Encoder) -> ReceptiveField:
    """Return the receptive field of an encoder with VGG-19 or VGG-16.

    A convolution extends the receptive field by one position of its input on each side. A pooling layer
    doubles the distance between positions.

    Args:
        encoder: an encoder with VGG-19 or VGG-16.

    Raises:
        ConfigError: the encoder has a custom model, whose receptive fields are not known.

    Example:
        >>> from tfstyle import Encoder
        >>> from tfstyle.tiling import receptive_field
        >>> field = receptive_field(Encoder(["conv1_1", "conv2_1"], "random"))
        >>> field.strides, field.margin
        ({'conv1_1': 1, 'conv2_1': 2}, 4)
    """
    if encoder.network == CUSTOM_MODEL:
        raise ConfigError(
            f"the receptive fields of the custom model {encoder.weights.source!r} are not known; "
            'use tile="off", or one of the networks vgg19 and vgg16'
        )
    layers = [Layer.parse(name) for name in encoder.layers]
    margin = sum(layer.stride for layer in NETWORKS[encoder.network] if layer <= layers[-1])
    alignment = layers[-1].stride
    strides = {layer.name: layer.stride for layer in layers}
    return ReceptiveField(strides, -(-margin // alignment) * alignment, encoder.padding == "circular")


class Span(NamedTuple):
    """The extent of a tile along one axis, in pixels.

    Attributes:
        begin, end: the inside; the end is exclusive.
        crop_begin, crop_end: the crop, likewise. With circular padding it can begin below 0 or end beyond
            the image.
    """

    begin: int
    end: int
    crop_begin: int
    crop_end: int


class Tile(NamedTuple):
    """The rows and columns of a tile."""

    rows: Span
    columns: Span

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return the tile's crop of an image ``[1, height, width, channels]``."""
        for axis, span in ((1, self.rows), (2, self.columns)):
            pixels: slice | np.ndarray = slice(span.crop_begin, span.crop_end)
            if span.crop_begin < 0 or span.crop_end > image.shape[axis]:
                pixels = np.arange(span.crop_begin, span.crop_end) % image.shape[axis]
            image = image[:, pixels] if axis == 1 else image[:, :, pixels]
        return image

    def add(self, values: np.ndarray, total: np.ndarray) -> None:
        """Add values ``[1, crop height, crop width, channels]`` to an array of the image's size in place."""
        _, height, width, _ = total.shape
        for rows, crop_rows in _split_crop(self.rows, height):
            for columns, crop_columns in _split_crop(self.columns, width):
                total[:, rows, columns] += values[:, crop_rows, crop_columns]


def _split_crop(span: Span, length: int) -> Iterator[tuple[slice, slice]]:
    """Yield the contiguous parts of a crop, each as its slice of the image and its slice of the crop."""
    for shift in (-length, 0, length):
        begin, end = max(span.crop_begin - shift, 0), min(span.crop_end - shift, length)
        if begin < end:
            offset = shift - span.crop_begin
            yield slice(begin, end), slice(begin + offset, end + offset)


def tiles(shape: Sequence[int], side: int | Sequence[int], *, receptive_field: ReceptiveField) -> list[Tile]:
    """Return the tiles of an image, row by row.

    The crops have at most two different sizes along each axis, so that few functions are compiled: only the
    crops that end at the last row or column of the image can differ from the others.

    Args:
        shape: height and width of the image in pixels.
        side: side of a tile's inside in pixels, or its height and width. It is rounded up to a multiple of
            `ReceptiveField.alignment`.
        receptive_field: the receptive field of the encoder.

    Raises:
        ConfigError: the padding is circular, and a side of the image that is cut is not a multiple of the
            alignment.

    Example:
        >>> from tfstyle.tiling import ReceptiveField, tiles
        >>> field = ReceptiveField({"conv1_1": 1, "conv2_1": 2}, margin=4, circular=False)
        >>> for tile in tiles((32, 48), (32, 16), receptive_field=field):
        ...     print(tile.columns)
        Span(begin=0, end=16, crop_begin=0, crop_end=24)
        Span(begin=16, end=32, crop_begin=12, crop_end=36)
        Span(begin=32, end=48, crop_begin=24, crop_end=48)
    """
    height, width = (side, side) if isinstance(side, int) else side
    return [
        Tile(rows, columns)
        for rows in _spans(shape[0], height, receptive_field)
        for columns in _spans(shape[1], width, receptive_field)
    ]


def _spans(length: int, side: int, receptive_field: ReceptiveField) -> list[Span]:
    alignment, margin = receptive_field.alignment, receptive_field.margin
    step = -(-side // alignment) * alignment
    crop = step + 2 * margin
    begins = range(0, length, step)
    ends = [min(begin + step, length) for begin in begins]
    if crop >= length:
        return [Span(begin, end, 0, length) for begin, end in zip(begins, ends, strict=True)]
    if receptive_field.circular:
        if length % alignment:
            raise ConfigError(
                f"a side of the image is {length} pixels, and tiles with circular padding need a multiple of "
                f'{alignment}; use another size or tile="off"'
            )
        return [
            Span(begin, end, begin - margin, begin - margin + crop)
            for begin, end in zip(begins, ends, strict=True)
        ]
    last = (length - crop) // alignment * alignment
    spans = []
    for begin, end in zip(begins, ends, strict=True):
        first = min(max(begin - margin, 0), last)
        spans.append(Span(begin, end, first, length if first == last else first + crop))
    return spans


def layer_positions(span: Span, length: int, *, stride: int) -> tuple[int, int, int]:
    """Return the positions of a tile's inside in a layer along one axis.

    Args:
        span: the extent of the tile along this axis.
        length: the image's side along this axis in pixels.
        stride: the stride of the layer in pixels.

    Returns:
        The index of the inside's first position in the crop, the number of positions of the inside, and the
        number of positions of the whole image.
    """
    end = length // stride if span.end == length else span.end // stride
    begin = span.begin // stride
    return (span.begin - span.crop_begin) // stride, max(end - begin, 0), length // stride


def margin_overhead(
    shape: Sequence[int], side: int | Sequence[int], *, receptive_field: ReceptiveField
) -> float:
    """Return the ratio of the total pixels of all crops to the pixels of the image, at least 1.

    Args:
        shape, side, receptive_field: as for `tiles`.

    Raises:
        ConfigError: as for `tiles`.
    """
    area = sum(
        (t.rows.crop_end - t.rows.crop_begin) * (t.columns.crop_end - t.columns.crop_begin)
        for t in tiles(shape, side, receptive_field=receptive_field)
    )
    return area / (shape[0] * shape[1])


def even_tile_sides(shape: Sequence[int], side: int, *, receptive_field: ReceptiveField) -> tuple[int, int]:
    """Return the height and width of tiles that divide an image into tiles of nearly equal size.

    Args:
        shape: height and width of the image in pixels.
        side: largest side of a tile's inside in pixels, before it is rounded up to a multiple of
            `ReceptiveField.alignment`.
        receptive_field: the receptive field of the encoder.

    Example:
        >>> from tfstyle.tiling import ReceptiveField, even_tile_sides
        >>> field = ReceptiveField({"conv1_1": 1, "conv3_1": 4}, margin=16, circular=False)
        >>> even_tile_sides((1100, 500), 512, receptive_field=field)
        (368, 500)
    """
    alignment = receptive_field.alignment
    height, width = (-(-length // (math.ceil(length / side) * alignment)) * alignment for length in shape)
    return height, width
