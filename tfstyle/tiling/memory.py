"""Estimates of the memory that a step needs, the memory that is free, and tiles small enough for it."""

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

CONV1_CHANNELS = 64
# Measured on a CPU, forward and backward through VGG-19 at several depths, in maps of conv1_1's size:
WORKING_MAPS = 3.2  # in use by an operation at the peak
BACKWARD_SHARE = 0.8  # of all activations, stored for the backward pass
FLOAT32_MAPS = 0.9  # in float32 whatever the precision
#: Tiles need more per pixel of a crop: two passes are two programs, which fragment the allocator's memory.
TILING_FACTOR = 1.2
RUNTIME_BYTES = 60e6  # that the runtime takes for itself
PIXEL_BYTES = 12  # three numbers in float32
#: Arrays of the image's size beside the optimiser's state: x, its gradient, new and intermediate values.
STEP_IMAGES, IN_PLACE_STEP_IMAGES = 6, 2
MAX_TILE_SIDE, MIN_TILE_SIDE = 2048, 128  # in pixels


class FeatureBytes(NamedTuple):
    """Memory of features in bytes per pixel.

    Attributes:
        encoder: per pixel that passes through the encoder at once, of `working_bytes`.
        content: per pixel of the image, of the content targets.
    """

    encoder: float
    content: float


def step_bytes(
    shape: Sequence[int],
    optimizer: Optimizer,
    *,
    features: FeatureBytes,
    side: int | None = None,
    receptive_field: ReceptiveField | None = None,
) -> float:
    """Estimate the peak memory of a step and its targets, in bytes.

    Args:
        shape: height and width of the image.
        optimizer: whose state is counted.
        features: of the encoder. Masks are not counted.
        side: of tiles in pixels; None for the whole image at once.
        receptive_field: of the encoder, for the tiles' margin.
    """
    pixels = float(shape[0] * shape[1])
    in_place = side is not None and optimizer.elementwise
    images = state_images(optimizer) + (IN_PLACE_STEP_IMAGES if in_place else STEP_IMAGES)
    image_bytes = pixels * (PIXEL_BYTES * images + features.content)
    encoded_pixels = pixels
    if side is not None and receptive_field is not None:
        crop_side = side + 2 * receptive_field.margin + receptive_field.alignment
        encoded_pixels = math.prod(min(crop_side, length) for length in shape)
        encoded_pixels *= TILING_FACTOR
    return RUNTIME_BYTES + image_bytes + encoded_pixels * features.encoder


def working_bytes(maps: Sequence[tuple[int, int]], itemsize: int) -> float:
    """Estimate the encoder's peak memory in a step, in bytes per pixel of its input.

    Args:
        maps: channels and stride of every layer up to the deepest.
        itemsize: bytes of a number in them, 2 or 4.
    """
    activations = sum(channels / CONV1_CHANNELS / stride**2 for channels, stride in maps)
    map_bytes = itemsize * (WORKING_MAPS + BACKWARD_SHARE * activations) + 4 * FLOAT32_MAPS
    return CONV1_CHANNELS * map_bytes


def state_images(optimizer: Optimizer) -> int:
    """Number of arrays of the image's size in an optimiser's state."""
    state = optimizer.init(tf.zeros([1, 2, 2, 3]))
    return sum(int(np.ndim(array) == 4) for array in optimizer.flatten(state))


def free_bytes() -> float | None:
    """Free memory in bytes, of the system or the container; None where it is not known."""
    free = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        limit, used = (
            float(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current")
        )
        free.append(max(limit - used + _cached_bytes(), 0.0))
    except (OSError, ValueError):  # no such container, or no limit, which is spelt "max"
        pass
    return min(free, default=None)


def _cached_bytes() -> float:
    """Memory of the container that caches files, and is given back on demand."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                return float(line.split()[1])
    return 0.0


@functools.cache
def _initial_bytes() -> float:
    """Memory of the process at the first call. What steps have allocated since, later steps use again."""
    return process_bytes()


def process_bytes() -> float:
    """Memory of this process in bytes; where it is not known 1 GB, about that of TensorFlow itself."""
    try:
        return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 1e9


def budget(memory: float | None, device: str) -> float | None:
    """The memory in bytes that a step may use; None where it is not known.

    Args:
        memory: limit in GB of the whole process, or of a GPU; None for nine tenths of the free memory. What
            TensorFlow has allocated for earlier runs counts as free: it uses that again.
        device: such as ``/CPU:0``. A GPU's free memory is not known in advance.
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
    """The largest side of tiles with which `step_bytes` is within a limit, at least `MIN_TILE_SIDE`.

    Args:
        shape, optimizer, features, receptive_field: as `step_bytes`.
        limit: in bytes.
    """
    for side in range(MAX_TILE_SIDE, MIN_TILE_SIDE - 1, -receptive_field.alignment):
        needed = step_bytes(shape, optimizer, features=features, side=side, receptive_field=receptive_field)
        if needed <= limit:
            return side
    return MIN_TILE_SIDE


def affordable_pairs(shape: Sequence[int], free: float, *, wanted: int) -> int:
    """Number of L-BFGS's curvature pairs that fit into memory beside the first pair, from 1 to those wanted.

    Args:
        shape: height and width of the image.
        free: memory in bytes that a step with one pair leaves.
        wanted: the most pairs.
    """
    return max(1, min(wanted, 1 + int(free / (2 * PIXEL_BYTES * shape[0] * shape[1]))))
