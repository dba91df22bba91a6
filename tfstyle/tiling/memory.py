"""Estimates of the memory of a step, measurements of free memory, and the choice of the tile side."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.optim import Optimizer
from tfstyle.tiling.geometry import ReceptiveField
from tfstyle.tiling.spectrum import BAND_PIXELS

CONV1_CHANNELS = 64
# Measured on a CPU, forward and backward through VGG-19 at several depths:
WORKING_MAPS = 3.2  # memory of the operation that runs at the peak, in units of conv1_1's feature map
BACKWARD_SHARE = 0.8  # fraction of all activations that is stored for the backward pass
FLOAT32_MAPS = 0.9  # memory that is float32 at every precision, in units of conv1_1's feature map
#: Bytes per pixel of the local spectrum and its gradient, measured on a CPU as their part of the peak of a
#: step at 512 x 512 pixels. The features are in memory at the same time.
SPECTRUM_BYTES = 410
#: Tiles need more memory per pixel of a crop, because the two passes are two programs, which fragment the
#: allocator's memory.
TILING_FACTOR = 1.2
RUNTIME_BYTES = 60e6  # memory of the runtime
PIXEL_BYTES = 12  # three float32 numbers
#: Number of arrays of the image's size in addition to the optimiser's state: the image, the gradient and, for
#: updates that are not in place, new and intermediate values.
STEP_IMAGES, IN_PLACE_STEP_IMAGES = 6, 2
MAX_TILE_SIDE, MIN_TILE_SIDE = 2048, 128  # in pixels


class FeatureBytes(NamedTuple):
    """The memory of features in bytes per pixel.

    Attributes:
        encoder: the result of `working_bytes`, per pixel of the image or crop that the encoder processes.
        content: bytes of the content targets, per pixel of the image.
        spectrum: bytes of the local spectrum, per pixel of the image or, in tiles, of a band of its rows; 0
            if it is not used.
    """

    encoder: float
    content: float
    spectrum: float = 0.0


def step_bytes(
    shape: Sequence[int],
    optimizer: Optimizer,
    *,
    features: FeatureBytes,
    side: int | None = None,
    receptive_field: ReceptiveField | None = None,
) -> float:
    """Return an estimate of the peak memory of a step and its targets in bytes, without masks.

    Args:
        shape: height and width of the image in pixels.
        optimizer: the optimiser, whose state is included.
        features: memory of the encoder's features and of the content targets.
        side: side of the tiles in pixels; None if the image is evaluated whole.
        receptive_field: the receptive field of the encoder, which determines the margin of the tiles. It is
            needed with `side`.
    """
    pixels = float(shape[0] * shape[1])
    in_place = side is not None and optimizer.elementwise
    images = state_images(optimizer) + (IN_PLACE_STEP_IMAGES if in_place else STEP_IMAGES)
    image_bytes = pixels * (PIXEL_BYTES * images + features.content)
    encoded_pixels = pixels
    spectrum_pixels = pixels if side is None else min(pixels, BAND_PIXELS)
    if side is not None and receptive_field is not None:
        crop_side = side + 2 * receptive_field.margin + receptive_field.alignment
        encoded_pixels = math.prod(min(crop_side, length) for length in shape)
        encoded_pixels *= TILING_FACTOR
    feature_bytes = encoded_pixels * features.encoder + spectrum_pixels * features.spectrum
    return RUNTIME_BYTES + image_bytes + feature_bytes


def working_bytes(maps: Sequence[tuple[int, int]], itemsize: int) -> float:
    """Return an estimate of the encoder's peak memory during a step, in bytes per pixel of its input.

    Args:
        maps: number of channels and stride of every convolution layer up to the deepest.
        itemsize: bytes of a number in the feature maps, 2 or 4.
    """
    activations = sum(channels / CONV1_CHANNELS / stride**2 for channels, stride in maps)
    map_bytes = itemsize * (WORKING_MAPS + BACKWARD_SHARE * activations) + 4 * FLOAT32_MAPS
    return CONV1_CHANNELS * map_bytes


def state_images(optimizer: Optimizer) -> int:
    """Return the number of arrays of the image's size in an optimiser's state."""
    state = optimizer.init(tf.zeros([1, 2, 2, 3]))
    return sum(int(np.ndim(array) == 4) for array in optimizer.flatten(state))


def free_bytes() -> float | None:
    """Return the free memory of the system or of the container, whichever is less, in bytes.

    On macOS, where only the size of the memory is known, all of it counts as free. If the free memory is
    unknown, as on Windows, None is returned.
    """
    free = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # Windows has no sysconf
            free.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    try:
        limit, used = (
            float(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current")
        )
        free.append(max(limit - used + _cached_bytes(), 0.0))
    except (OSError, ValueError):  # no control group, or no limit, which the file states as "max"
        pass
    return min(free, default=None)


def _cached_bytes() -> float:
    """Return the container's memory in bytes that caches files and can be reclaimed."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                return float(line.split()[1])
    return 0.0


@functools.cache
def _initial_bytes() -> float:
    """Return the memory of the process at the first call in bytes.

    TensorFlow reuses memory that steps allocate later.
    """
    return process_bytes()


def process_bytes() -> float:
    """Return the memory of this process in bytes, or 1e9, about that of TensorFlow itself, if unknown."""
    try:
        return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 1e9


def budget(memory: float | None, device: str) -> float | None:
    """Return the memory in bytes that a step may use; None if it is unknown.

    Args:
        memory: limit in GB, on a CPU for the whole process, on a GPU for its own memory. With None the limit
            is 90% of the free memory on a CPU, and unknown on a GPU. Memory that TensorFlow has allocated
            for earlier runs counts as free, because TensorFlow reuses it.
        device: TensorFlow's name of the device, such as ``/CPU:0``.
    """
    if "GPU" in device:
        return None if memory is None else memory * 1e9
    if memory is not None:
        return memory * 1e9 - _initial_bytes()
    free = free_bytes()
    return None if free is None else 0.9 * (free + max(process_bytes() - _initial_bytes(), 0.0))


def largest_tile_side(
    shape: Sequence[int],
    optimizer: Optimizer,
    *,
    limit: float,
    features: FeatureBytes,
    receptive_field: ReceptiveField,
) -> int:
    """Return the largest tile side in pixels with which `step_bytes` is within a limit.

    The side is at most `MAX_TILE_SIDE`. If no side from `MIN_TILE_SIDE` fits, the result is `MIN_TILE_SIDE`.

    Args:
        shape, optimizer, features, receptive_field: as for `step_bytes`.
        limit: limit in bytes.
    """
    for side in range(MAX_TILE_SIDE, MIN_TILE_SIDE - 1, -receptive_field.alignment):
        needed = step_bytes(shape, optimizer, features=features, side=side, receptive_field=receptive_field)
        if needed <= limit:
            return side
    return MIN_TILE_SIDE


def affordable_pairs(shape: Sequence[int], free: float, *, wanted: int) -> int:
    """Return the number of curvature pairs of L-BFGS that fit into memory, from 1 to `wanted`.

    Args:
        shape: height and width of the image in pixels.
        free: memory in bytes that is left by a step with one pair.
        wanted: maximum number of pairs.
    """
    return max(1, min(wanted, 1 + int(free / (2 * PIXEL_BYTES * shape[0] * shape[1]))))
