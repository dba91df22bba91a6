"""Where the tiles of an image lie: insides side by side, each in a crop that adds the features' margin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tfstyle.errors import ConfigError
from tfstyle.layers import NETWORKS, Layer
from tfstyle.network import CUSTOM_MODEL, Encoder


class ReceptiveField(NamedTuple):
    """The strides of an encoder's layers, and the margin of pixels that their features depend on.

    Attributes:
        strides: layer -> pixels from one of its positions to the next.
        margin: pixels that the receptive field of a position in the deepest layer extends beyond the
            position's own pixels, rounded up to a multiple of the largest stride, which tiles are aligned to.
        circular: whether the convolutions pad an image with its opposite border.
    """

    strides: dict[str, int]
    margin: int
    circular: bool

    @property
    def alignment(self) -> int:
        """The largest stride, of which the sides of tiles are multiples."""
        return max(self.strides.values())


def receptive_field(encoder: Encoder) -> ReceptiveField:
    """The receptive field of VGG: a convolution adds one position on each side, a pooling doubles their size.

    Raises:
        ConfigError: a model of the user's, whose receptive fields are not known.
    """
    if encoder.network == CUSTOM_MODEL:
        raise ConfigError(
            f"tile needs a network whose layers' receptive fields are known, vgg19 or vgg16, not "
            f"{encoder.weights.source}; use tile=off"
        )
    layers = [Layer.parse(name) for name in encoder.layers]
    margin = sum(layer.stride for layer in NETWORKS[encoder.network] if layer <= layers[-1])
    alignment = layers[-1].stride
    strides = {layer.name: layer.stride for layer in layers}
    return ReceptiveField(strides, -(-margin // alignment) * alignment, encoder.padding == "circular")


class Span(NamedTuple):
    """A tile along one axis, in pixels: its inside, and the crop around it; ends are exclusive.

    With circular padding the crop may begin below 0 or end beyond the image.
    """

    begin: int
    end: int
    crop_begin: int
    crop_end: int


class Tile(NamedTuple):
    """A tile's rows and columns."""

    rows: Span
    columns: Span

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The tile's crop of an image ``[1, height, width, channels]``."""
        for axis, span in ((1, self.rows), (2, self.columns)):
            pixels: slice | np.ndarray = slice(span.crop_begin, span.crop_end)
            if span.crop_begin < 0 or span.crop_end > image.shape[axis]:
                pixels = np.arange(span.crop_begin, span.crop_end) % image.shape[axis]
            image = image[:, pixels] if axis == 1 else image[:, :, pixels]
        return image

    def add(self, values: np.ndarray, total: np.ndarray) -> None:
        """Add the values of the tile's crop to an array of the image's size, in place."""
        _, height, width, _ = total.shape
        for rows, crop_rows in _split_crop(self.rows, height):
            for columns, crop_columns in _split_crop(self.columns, width):
                total[:, rows, columns] += values[:, crop_rows, crop_columns]


def _split_crop(span: Span, length: int) -> Iterator[tuple[slice, slice]]:
    """Yield the contiguous parts of a crop: their pixels in the image, and in the crop."""
    for shift in (-length, 0, length):
        begin, end = max(span.crop_begin - shift, 0), min(span.crop_end - shift, length)
        if begin < end:
            offset = shift - span.crop_begin
            yield slice(begin, end), slice(begin + offset, end + offset)


def tiles(shape: Sequence[int], side: int | Sequence[int], *, receptive_field: ReceptiveField) -> list[Tile]:
    """Cut an image into tiles, row by row.

    Crops have the same size but for the last ones, which end at the image's border: at most two different
    sizes along each axis.

    Args:
        shape: height and width of the image.
        side: of a tile's inside in pixels, or two, down and across; rounded up to a multiple of
            `ReceptiveField.alignment`.
        receptive_field: of the encoder, by `receptive_field`.

    Raises:
        ConfigError: padding is circular, and a side that is cut is no multiple of the alignment.
    """
    down, across = (side, side) if isinstance(side, int) else side
    return [
        Tile(rows, columns)
        for rows in _spans(shape[0], down, receptive_field)
        for columns in _spans(shape[1], across, receptive_field)
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
                f"tiles with circular padding need sides that are multiples of {alignment} pixels, not "
                f"{length}; use another size or tile=off"
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
    """The positions of a tile's inside in a layer, along one axis.

    Args:
        span: the tile along this axis.
        length: of the image, in pixels.
        stride: of the layer.

    Returns:
        Where the inside begins in the crop, its number of positions, and that of the whole image.
    """
    end = length // stride if span.end == length else span.end // stride
    begin = span.begin // stride
    return (span.begin - span.crop_begin) // stride, max(end - begin, 0), length // stride


def margin_overhead(
    shape: Sequence[int], side: int | Sequence[int], *, receptive_field: ReceptiveField
) -> float:
    """Compute the ratio of the pixels in all crops to the pixels in the image, at least 1."""
    area = sum(
        (t.rows.crop_end - t.rows.crop_begin) * (t.columns.crop_end - t.columns.crop_begin)
        for t in tiles(shape, side, receptive_field=receptive_field)
    )
    return area / (shape[0] * shape[1])


def even_tile_sides(shape: Sequence[int], side: int, *, receptive_field: ReceptiveField) -> tuple[int, int]:
    """Find sides, down and across and no larger than ``side``, with which all tiles have about one size."""
    alignment = receptive_field.alignment
    down, across = (-(-length // (math.ceil(length / side) * alignment)) * alignment for length in shape)
    return down, across
