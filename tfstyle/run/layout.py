"""How each scale of a run is evaluated: whole or in tiles, by what there is of memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError
from tfstyle.layers import NETWORKS, Layer
from tfstyle.network import CUSTOM_MODEL
from tfstyle.run.setup import TransferSetup
from tfstyle.tiling import ReceptiveField, even_tile_sides, margin_overhead, memory, tiles

log = logging.getLogger(__name__)

Shape = tuple[int, int]
ROOM = 512  # side of the tiles that L-BFGS's pairs are to leave room for


class Layout(NamedTuple):
    """How a scale is evaluated.

    Attributes:
        side: of the picture's tiles in pixels, down and across; None: the picture is taken whole.
        style_side: the same for the style images.
        history: pairs that L-BFGS keeps; None: as many as the optimiser was made for.
    """

    side: tuple[int, int] | None = None
    style_side: tuple[int, int] | None = None
    history: int | None = None


def estimated_bytes(preparation: TransferSetup, shape: Shape, layout: Layout) -> float:
    """What a step of a scale takes at most, beside what the process holds already."""
    optimizer, features = preparation.optimizer_keeping(layout.history), _features(preparation)
    if layout.side is None:
        return memory.step_bytes(shape, *features, optimizer)
    view = preparation.tiled(layout.side).receptive_field
    return memory.step_bytes(shape, *features, optimizer, max(layout.side), view)


def plan_layouts(
    config: StyleConfig,
    preparation: TransferSetup,
    shapes: Sequence[Shape],
    styles: Sequence[Sequence[Shape]],
) -> list[Layout]:
    """Of every scale, coarse to fine.

    Args:
        config: its ``tile`` and ``memory``.
        preparation: of the run.
        shapes: height and width of the picture at each scale.
        styles: the same of every style image.

    Raises:
        ConfigError: tiles are asked for, and the config has something that needs the whole picture.
    """
    if config.tile == "off":
        return [Layout()] * len(shapes)
    if config.tile != "auto":
        side = (int(config.tile), int(config.tile))
        view = preparation.tiled(side).receptive_field
        tiles(shapes[-1], side, view)  # both say whether that can be
        return [
            Layout(_where(side, [shape], view), _where(side, own, view))
            for shape, own in zip(shapes, styles, strict=True)
        ]
    limit = memory.budget(config.memory, preparation.device)
    if limit is None:
        return [Layout()] * len(shapes)
    found = [_fitting(preparation, shape, own, limit) for shape, own in zip(shapes, styles, strict=True)]
    _say(preparation, shapes[-1], found[-1], limit)
    return found


def restore_layouts(plain: Sequence[Sequence[Any]]) -> list[Layout]:
    """Layouts as JSON gives them back."""

    def side(numbers: Sequence[int] | None) -> Shape | None:
        return None if numbers is None else (numbers[0], numbers[1])

    return [Layout(side(one), side(style), history) for one, style, history in plain]


def _where(side: Shape, shapes: Sequence[Shape], view: ReceptiveField) -> Shape | None:
    """The side, if any of some pictures is larger, and if all of them can be cut."""
    if view.circular and any(n % view.alignment for shape in shapes for n in shape):
        return None
    return side if any(max(shape) > min(side) for shape in shapes) else None


def _fitting(preparation: TransferSetup, shape: Shape, styles: Sequence[Shape], limit: float) -> Layout:
    def too_large(picture: Shape) -> bool:
        return memory.step_bytes(picture, *_features(preparation), preparation.optimizer) > limit

    if preparation.encoder.network == CUSTOM_MODEL or not any(map(too_large, [shape, *styles])):
        return Layout()
    try:
        least = (memory.MIN_TILE_SIDE, memory.MIN_TILE_SIDE)
        view = preparation.tiled(least).receptive_field
        tiles(shape, least, view)
    except ConfigError as error:
        log.warning("the step may not fit into memory, and cannot be tiled: %s", error)
        return Layout()
    side = style_side = history = None
    optimizer = preparation.optimizer
    if too_large(shape):
        pairs = preparation.history
        if pairs is not None:
            with_one = preparation.optimizer_keeping(1)
            fixed = memory.step_bytes(shape, *_features(preparation), with_one, ROOM, view)
            history = memory.affordable_pairs(shape, limit - fixed, pairs)
            optimizer = preparation.optimizer_keeping(history)
        largest = memory.largest_tile_side(shape, limit, *_features(preparation), optimizer, view)
        side = even_tile_sides(shape, largest, view)
    if any(map(too_large, styles)):
        style = max(styles, key=lambda one: one[0] * one[1])
        largest = memory.largest_tile_side(style, limit, *_features(preparation), preparation.optimizer, view)
        style_side = _where(even_tile_sides(style, largest, view), styles, view)
    return Layout(side, style_side, history)


def smaller_layout(
    preparation: TransferSetup, shape: Shape, styles: Sequence[Shape], layout: Layout
) -> Layout | None:
    """What to try where a scale ran out of memory: tiles, or tiles half as large; None: they are small.

    Args:
        preparation: of the run.
        shape: height and width of the picture.
        styles: the same of every style image.
        layout: that did not fit.

    Raises:
        ConfigError: it cannot be tiled.
    """
    if layout.side is None:
        side = min(1024, max(memory.MIN_TILE_SIDE, max(shape) // 2))
    else:
        side = max(layout.side) // 2
    if side < memory.MIN_TILE_SIDE:
        return None
    view = preparation.tiled((side, side)).receptive_field
    even = even_tile_sides(shape, side, view)
    tiles(shape, even, view)
    return layout._replace(side=even, style_side=_where(even, styles, view))


def _features(preparation: TransferSetup) -> tuple[float, float]:
    """Bytes for each pixel: of what the encoder, VGG's, works with, and of the content's features."""
    encoder = preparation.encoder
    itemsize = 4 if encoder.dtype == "float32" else 2
    layers = [x for x in NETWORKS[encoder.network] if x <= Layer.parse(encoder.layers[-1])]
    content = [Layer.parse(name) for name in preparation.content_layers]
    kept = sum(itemsize * layer.filters / layer.stride**2 for layer in content)
    return memory.working_bytes([(layer.filters, layer.stride) for layer in layers], itemsize), kept


def describe_layout(preparation: TransferSetup, shape: Shape, layout: Layout) -> str:
    """What a step of a scale takes, and how it is cut, for the user."""
    about = f"a step at {shape[1]} x {shape[0]} pixels takes about"
    size = estimated_bytes(preparation, shape, layout) / 1e9
    if layout.side is None:
        return f"{about} {size:.1f} GB"
    down, across = layout.side
    share = margin_overhead(shape, layout.side, preparation.tiled(layout.side).receptive_field)
    cut = f"tiles of {across} x {down}; their halo adds {100 * (share - 1):.0f}% of work"
    return f"{about} {size:.1f} GB in {cut}"


def _say(preparation: TransferSetup, shape: Shape, layout: Layout, limit: float) -> None:
    """Log why the last scale is tiled."""
    if layout.side is None:
        return
    needed = estimated_bytes(preparation, shape, Layout())
    log.warning(
        "the step would take about %.1f GB at %d x %d pixels, and %.1f GB may be used: it is tiled",
        needed / 1e9, shape[1], shape[0], limit / 1e9,
    )  # fmt: skip
    if estimated_bytes(preparation, shape, layout) > limit:
        log.warning("in tiles too it takes more than there is: a smaller size may be needed")
    if layout.history is not None and layout.history < (preparation.history or 0):
        log.warning("L-BFGS keeps %d pairs in place of %d", layout.history, preparation.history)
