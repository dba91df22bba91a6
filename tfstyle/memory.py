"""How much memory a step takes, how much there is, and tiles that are small enough for it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfstyle.optimizers import Optimizer
from tfstyle.tiles import Reach

# Measured on a CPU, forth and back through VGG-19: at the peak some eight maps as large as conv1_1's are
# held, whatever lies above them, and what the runtime keeps for itself. With tiles it is more: the two passes
# are two programs, of which each leaves gaps in what the allocator never gives back.
MAPS, MAPS_IN_TILES, CHANNELS, FIXED = 8.3, 10.0, 64, 60e6
IMAGE = 12  # bytes of a pixel, three numbers in float32
#: Images beside the optimiser's own: x, its gradient, and what is new or in between; tiles need no copies.
BESIDE, BESIDE_IN_PLACE = 6, 2
LARGEST, SMALLEST = 2048, 128  # sides of tiles in pixels


def step_bytes(
    shape: Sequence[int],
    itemsize: int,
    kept: float,
    optimizer: Optimizer,
    side: int | None = None,
    view: Reach | None = None,
) -> float:
    """An estimate of what a step and its targets hold at most, in bytes.

    Args:
        shape: height and width of the image.
        itemsize: bytes of a number in the encoder, 2 or 4.
        kept: bytes for each pixel of the content's features.
        optimizer: whose state is counted.
        side: of tiles in pixels; None: the whole image at once.
        view: of the encoder, for the tiles' halo.
    """
    pixels = float(shape[0] * shape[1])
    beside = BESIDE if side is None or not optimizer.elementwise else BESIDE_IN_PLACE
    whole = pixels * (IMAGE * (vectors(optimizer) + beside) + kept)
    seen, maps = pixels, MAPS
    if side is not None and view is not None:
        seen = math.prod(min(side + 2 * view.halo + view.alignment, length) for length in shape)
        maps = MAPS_IN_TILES
    return FIXED + whole + seen * maps * CHANNELS * itemsize


def vectors(optimizer: Optimizer) -> int:
    """How many numbers an optimiser keeps for each of the image's."""
    if not optimizer.compiled:
        return 3  # Keras' keep up to so many, the variable among them
    state = optimizer.init(tf.zeros([1, 2, 2, 3]))
    return sum(int(np.ndim(leaf) == 4) for leaf in tf.nest.flatten(state))


def free_bytes() -> float | None:
    """What the system, or the container, would give to this process; None where it does not say."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        limit, used = (
            float(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current")
        )
        found.append(max(limit - used, 0.0))
    except (OSError, ValueError):  # no such container, or no limit, which is spelt "max"
        pass
    return min(found, default=None)


def held_bytes() -> float:
    """What this process holds; 1 GB, about TensorFlow itself, where the system does not say."""
    try:
        return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 1e9


def budget(memory: float | None, device: str) -> float | None:
    """How many bytes a step may take; None where nobody knows.

    Args:
        memory: in GB, of all that the process may hold, or a GPU; None: nine tenths of what is free.
        device: ``/CPU:0`` or the like. How much is free on a GPU is seen when there is too little.
    """
    if "GPU" in device:
        return None if memory is None else memory * 1e9
    if memory is not None:
        return memory * 1e9 - held_bytes()
    free = free_bytes()
    return None if free is None else 0.9 * free


def fitting_side(
    shape: Sequence[int], limit: float, itemsize: int, kept: float, optimizer: Optimizer, view: Reach
) -> int:
    """The largest side of tiles with which a step takes no more than a limit in bytes, or the smallest."""
    sides = range(LARGEST, SMALLEST - 1, -view.alignment)
    fits = (side for side in sides if step_bytes(shape, itemsize, kept, optimizer, side, view) <= limit)
    return next(fits, SMALLEST)


def affordable_pairs(shape: Sequence[int], room: float, wanted: int) -> int:
    """How many pairs of L-BFGS go into so many bytes and the first one's; at most those wanted."""
    return max(1, min(wanted, 1 + int(room / (2 * IMAGE * shape[0] * shape[1]))))
