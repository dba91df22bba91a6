"""Where the tiles of a picture lie: insides side by side, each in a crop as wide as what its features see."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tfstyle.errors import ConfigError
from tfstyle.layers import NETWORKS, Layer
from tfstyle.network import CUSTOM_MODEL, Encoder


class ReceptiveField(NamedTuple):
    """How the layers of an encoder see a picture.

    Attributes:
        strides: layer -> pixels from one of its positions to the next.
        halo: how many pixels beyond its own the deepest layer's position sees, rounded up to a multiple of
            the largest stride, which tiles are aligned to.
        around: whether what lies beyond a border is the opposite one.
    """

    strides: dict[str, int]
    halo: int
    around: bool

    @property
    def alignment(self) -> int:
        """The largest stride."""
        return max(self.strides.values())


def receptive_field(encoder: Encoder) -> ReceptiveField:
    """Of VGG: each convolution sees one position further, and each pooling makes positions twice as wide.

    Raises:
        ConfigError: a network of the user's own, of which this is not known.
    """
    if encoder.network == CUSTOM_MODEL:
        raise ConfigError(
            f"tile needs a network whose layers' fields of view are known, vgg19 or vgg16, not "
            f"{encoder.weights.source}; use tile=off"
        )
    layers = [Layer.parse(name) for name in encoder.layers]
    margin = sum(layer.stride for layer in NETWORKS[encoder.network] if layer <= layers[-1])
    alignment = layers[-1].stride
    strides = {layer.name: layer.stride for layer in layers}
    return ReceptiveField(strides, -(-margin // alignment) * alignment, encoder.padding == "circular")


class Span(NamedTuple):
    """A tile along one axis, in pixels: its inside, and the crop around that; ends are exclusive.

    The crop may begin below 0 or end beyond the picture where the borders are joined.
    """

    begin: int
    end: int
    crop_begin: int
    crop_end: int


class Tile(NamedTuple):
    """A tile's rows and columns."""

    rows: Span
    columns: Span

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Its crop of ``[1, height, width, channels]``."""
        for axis, span in ((1, self.rows), (2, self.columns)):
            places: slice | np.ndarray = slice(span.crop_begin, span.crop_end)
            if span.crop_begin < 0 or span.crop_end > picture.shape[axis]:
                places = np.arange(span.crop_begin, span.crop_end) % picture.shape[axis]
            picture = picture[:, places] if axis == 1 else picture[:, :, places]
        return picture

    def add(self, values: np.ndarray, total: np.ndarray) -> None:
        """Add the values of a crop to the picture where they belong, in place."""
        _, height, width, _ = total.shape
        for rows, down in _pieces(self.rows, height):
            for columns, right in _pieces(self.columns, width):
                total[:, rows, columns] += values[:, down, right]


def _pieces(span: Span, side: int) -> Iterator[tuple[slice, slice]]:
    """The parts of a crop that lie together in the picture: where there, and where in the crop."""
    for turn in (-side, 0, side):
        begin, end = max(span.crop_begin - turn, 0), min(span.crop_end - turn, side)
        if begin < end:
            offset = turn - span.crop_begin
            yield slice(begin, end), slice(begin + offset, end + offset)


def tiles(shape: Sequence[int], side: int | Sequence[int], view: ReceptiveField) -> list[Tile]:
    """Cut a picture into tiles, row by row.

    Crops have the same size but for the last ones, which end where the picture does: at most two different
    sizes along each axis.

    Args:
        shape: height and width of the picture.
        side: of a tile's inside in pixels, or two, down and across; rounded up to `Reach.alignment`.
        view: of `reach`.

    Raises:
        ConfigError: borders are joined, and a side that is cut is no multiple of the alignment.
    """
    down, across = (side, side) if isinstance(side, int) else side
    return [
        Tile(rows, columns)
        for rows in _spans(shape[0], down, view)
        for columns in _spans(shape[1], across, view)
    ]


def _spans(length: int, side: int, view: ReceptiveField) -> list[Span]:
    step = -(-side // view.alignment) * view.alignment
    crop = step + 2 * view.halo
    begins = range(0, length, step)
    ends = [min(begin + step, length) for begin in begins]
    if crop >= length:
        return [Span(begin, end, 0, length) for begin, end in zip(begins, ends, strict=True)]
    if view.around:
        if length % view.alignment:
            raise ConfigError(
                f"tiles with circular padding need sides that are multiples of {view.alignment} pixels, not "
                f"{length}; use another size or tile=off"
            )
        return [
            Span(begin, end, begin - view.halo, begin - view.halo + crop)
            for begin, end in zip(begins, ends, strict=True)
        ]
    last = (length - crop) // view.alignment * view.alignment
    spans = []
    for begin, end in zip(begins, ends, strict=True):
        first = min(max(begin - view.halo, 0), last)
        spans.append(Span(begin, end, first, length if first == last else first + crop))
    return spans


def layer_positions(span: Span, length: int, stride: int) -> tuple[int, int, int]:
    """Of a layer along one axis: where a tile's inside begins in its crop, how many positions it has, and how
    many the whole picture has.
    """
    end = length // stride if span.end == length else span.end // stride
    begin = span.begin // stride
    return (span.begin - span.crop_begin) // stride, max(end - begin, 0), length // stride


def margin_overhead(shape: Sequence[int], side: int | Sequence[int], view: ReceptiveField) -> float:
    """Pixels of all crops over those of the picture."""
    cut = tiles(shape, side, view)
    area = sum(
        (t.rows.crop_end - t.rows.crop_begin) * (t.columns.crop_end - t.columns.crop_begin) for t in cut
    )
    return area / (shape[0] * shape[1])


def even_tile_sides(shape: Sequence[int], side: int, view: ReceptiveField) -> tuple[int, int]:
    """Sides no larger than this with which the last tiles are about as large as the others."""
    down, across = (
        -(-length // (math.ceil(length / side) * view.alignment)) * view.alignment for length in shape
    )
    return down, across
