"""The layout of each scale of a run: the image is evaluated whole, or in tiles that fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError
from tfstyle.layers import NETWORKS, Layer
from tfstyle.network import CUSTOM_MODEL
from tfstyle.optim import Optimizer
from tfstyle.run.setup import Scale, Shape, TransferSetup
from tfstyle.tiling import ReceptiveField, even_tile_sides, margin_overhead, memory, tiles

log = logging.getLogger(__name__)

#: Side of tiles in pixels for which the number of L-BFGS's curvature pairs leaves enough memory.
LBFGS_TILE_SIDE = 512
#: Largest side in pixels of the first tiles that are tried after memory has run out.
LARGEST_FALLBACK = 1024


class Layout(NamedTuple):
    """The way in which a scale is evaluated: whole images or tiles, and the number of curvature pairs.

    Attributes:
        side: height and width of the tiles of the image in pixels; None if the image is evaluated whole.
        style_side: height and width of the tiles of the style images in pixels; None if they are evaluated
            whole.
        lbfgs_pairs: number of curvature pairs that L-BFGS stores; None for the number in the options.
    """

    side: Shape | None = None
    style_side: Shape | None = None
    lbfgs_pairs: int | None = None


def plan_layouts(
    config: StyleConfig,
    setup: TransferSetup,
    *,
    scales: Sequence[Scale],
    style_shapes: Sequence[Sequence[Shape]],
) -> list[Layout]:
    """Return the layout of every scale, coarse to fine.

    Args:
        config: the options ``tile`` and ``memory``.
        setup: the setup of the run.
        scales: the scales of the run.
        style_shapes: for each scale, height and width of every style image in pixels.

    Raises:
        ConfigError: ``tile`` is a number, and the options need the whole image at once.
    """
    if config.tile == "off":
        return [Layout()] * len(scales)
    if config.tile != "auto":
        side = (int(config.tile), int(config.tile))
        field = setup.tiled_objective(side).receptive_field
        tiles(scales[-1].shape, side, receptive_field=field)  # raises ConfigError if tiles are impossible
        return [
            Layout(_side_if_needed(side, [scale.shape], field), _side_if_needed(side, shapes, field))
            for scale, shapes in zip(scales, style_shapes, strict=True)
        ]
    limit = memory.budget(config.memory, setup.device)
    if limit is None:
        return [Layout()] * len(scales)
    layouts = [
        _fitting_layout(setup, scale.shape, shapes, limit)
        for scale, shapes in zip(scales, style_shapes, strict=True)
    ]
    _log_layout(setup, scales[-1].shape, layouts[-1], limit)
    return layouts


def restore_layouts(stored: Sequence[Sequence[Any]]) -> list[Layout]:
    """Return the layouts that a checkpoint stores as lists in JSON."""

    def side(numbers: Sequence[int] | None) -> Shape | None:
        return None if numbers is None else (numbers[0], numbers[1])

    return [Layout(side(image), side(style), pairs) for image, style, pairs in stored]


def smaller_layout(
    setup: TransferSetup, shape: Shape, *, style_shapes: Sequence[Shape], layout: Layout
) -> Layout | None:
    """Return the layout to try after a scale has run out of memory: with tiles, or with tiles half as large.

    Args:
        setup: the setup of the run.
        shape: height and width of the image in pixels.
        style_shapes: height and width of every style image in pixels.
        layout: the layout that ran out of memory.

    Returns:
        The next layout, or None if the tiles cannot be made smaller.

    Raises:
        ConfigError: the options need the whole image at once.
    """
    if layout.side is None:
        side = min(LARGEST_FALLBACK, max(memory.MIN_TILE_SIDE, max(shape) // 2))
    else:
        side = max(layout.side) // 2
    if side < memory.MIN_TILE_SIDE:
        return None
    field = setup.tiled_objective((side, side)).receptive_field
    even = even_tile_sides(shape, side, receptive_field=field)
    tiles(shape, even, receptive_field=field)
    return layout._replace(side=even, style_side=_side_if_needed(even, style_shapes, field))


def estimated_bytes(setup: TransferSetup, shape: Shape, *, layout: Layout) -> float:
    """Return an estimate of the peak memory of a step in bytes, without what the process uses already."""
    optimizer, features = setup.optimizer_with(layout.lbfgs_pairs), _feature_bytes(setup)
    if layout.side is None:
        return memory.step_bytes(shape, optimizer, features=features)
    field = setup.tiled_objective(layout.side).receptive_field
    side = max(layout.side)
    return memory.step_bytes(shape, optimizer, features=features, side=side, receptive_field=field)


def describe_layout(setup: TransferSetup, shape: Shape, *, layout: Layout) -> str:
    """Return one line with the estimated memory of a step and the size of its tiles.

    Args:
        setup: the setup of the run.
        shape: height and width of the image in pixels.
        layout: the layout of the scale.
    """
    memory_of_step = f"a step at {shape[1]} x {shape[0]} pixels takes about"
    gigabytes = estimated_bytes(setup, shape, layout=layout) / 1e9
    if layout.side is None:
        return f"{memory_of_step} {gigabytes:.1f} GB"
    height, width = layout.side
    overhead = (
        margin_overhead(
            shape, layout.side, receptive_field=setup.tiled_objective(layout.side).receptive_field
        )
        - 1
    )
    tiling = f"tiles of {width} x {height} pixels, whose margins add {100 * overhead:.0f}% of work"
    return f"{memory_of_step} {gigabytes:.1f} GB in {tiling}"


def _side_if_needed(side: Shape, shapes: Sequence[Shape], field: ReceptiveField) -> Shape | None:
    """Return the side of tiles if an image is larger than a tile and all images can be tiled, else None."""
    if field.circular and any(n % field.alignment for shape in shapes for n in shape):
        return None
    return side if any(max(shape) > min(side) for shape in shapes) else None


def _fitting_layout(
    setup: TransferSetup, shape: Shape, style_shapes: Sequence[Shape], limit: float
) -> Layout:
    """Return the layout with which a step needs at most a number of bytes, if there is such a layout."""
    if setup.encoder.network == CUSTOM_MODEL:  # the memory of its features is not known
        return Layout()
    features = _feature_bytes(setup)
    too_large = [
        memory.step_bytes(image, setup.optimizer, features=features) > limit
        for image in (shape, *style_shapes)
    ]
    if not any(too_large):
        return Layout()
    try:
        smallest = (memory.MIN_TILE_SIDE, memory.MIN_TILE_SIDE)
        field = setup.tiled_objective(smallest).receptive_field
        tiles(shape, smallest, receptive_field=field)
    except ConfigError as error:
        log.warning("the step may not fit into memory, and it cannot be evaluated in tiles: %s", error)
        return Layout()

    def fitting_side(image: Shape, optimizer: Optimizer) -> Shape:
        side = memory.largest_tile_side(
            image, optimizer, limit=limit, features=features, receptive_field=field
        )
        return even_tile_sides(image, side, receptive_field=field)

    side = style_side = pairs = None
    if too_large[0]:
        pairs = _affordable_pairs(setup, shape, limit, field)
        side = fitting_side(shape, setup.optimizer_with(pairs))
    if any(too_large[1:]):
        largest = max(style_shapes, key=lambda image: image[0] * image[1])
        style_side = _side_if_needed(fitting_side(largest, setup.optimizer), style_shapes, field)
    return Layout(side, style_side, pairs)


def _affordable_pairs(setup: TransferSetup, shape: Shape, limit: float, field: ReceptiveField) -> int | None:
    """Return the number of curvature pairs that leaves memory for tiles of `LBFGS_TILE_SIDE` pixels.

    It is None with another optimiser than L-BFGS.
    """
    if setup.lbfgs_pairs is None:
        return None
    with_one = setup.optimizer_with(1)
    needed = memory.step_bytes(
        shape,
        with_one,
        features=_feature_bytes(setup),
        side=LBFGS_TILE_SIDE,
        receptive_field=field,
    )
    return memory.affordable_pairs(shape, limit - needed, wanted=setup.lbfgs_pairs)


def _feature_bytes(setup: TransferSetup) -> memory.FeatureBytes:
    """Return the memory of the features and the local spectrum in a step, and of the content targets."""
    encoder = setup.encoder
    itemsize = 4 if encoder.dtype == "float32" else 2
    layers = [x for x in NETWORKS[encoder.network] if x <= Layer.parse(encoder.layers[-1])]
    content = [Layer.parse(name) for name in setup.content_layers]
    target_bytes = sum(itemsize * layer.filters / layer.stride**2 for layer in content)
    spectrum_bytes = memory.SPECTRUM_BYTES if setup.objective.spectrum_weight > 0 else 0.0
    maps = [(layer.filters, layer.stride) for layer in layers]
    return memory.FeatureBytes(memory.working_bytes(maps, itemsize), target_bytes, spectrum_bytes)


def _log_layout(setup: TransferSetup, shape: Shape, layout: Layout, limit: float) -> None:
    """Log the reason if the last scale is evaluated in tiles."""
    if layout.side is None:
        return
    log.warning(
        "a step at %d x %d pixels would take about %.1f GB of %.1f GB available; it is evaluated in tiles",
        shape[1], shape[0], estimated_bytes(setup, shape, layout=Layout()) / 1e9, limit / 1e9,
    )  # fmt: skip
    if estimated_bytes(setup, shape, layout=layout) > limit:
        log.warning("in tiles, a step still takes more than is available; a smaller size may be necessary")
    if layout.lbfgs_pairs is not None and layout.lbfgs_pairs < (setup.lbfgs_pairs or 0):
        log.warning(
            "L-BFGS stores %d curvature pairs instead of %d, to save memory",
            layout.lbfgs_pairs, setup.lbfgs_pairs,
        )  # fmt: skip
