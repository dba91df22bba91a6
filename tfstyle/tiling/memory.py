"""How much memory a step takes, how much there is, and tiles that are small enough for it."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfstyle.optim import Optimizer
from tfstyle.tiling.geometry import ReceptiveField

# Measured on a CPU, forth and back through VGG-19 at several depths, in maps as large as conv1_1's: those at
# work at the peak, the share of all that are kept for the way back, and those that are float32 always.
CHANNELS, AT_WORK, KEPT, SINGLE = 64, 3.2, 0.8, 0.9
#: With tiles it is more: two passes are two programs, of which each leaves gaps in what the allocator keeps.
IN_TILES = 1.2
FIXED = 60e6  # bytes that the runtime takes for itself
IMAGE = 12  # bytes of a pixel, three numbers in float32
#: Images beside the optimiser's own: x, its gradient, and what is new or in between; tiles need no copies.
BESIDE, BESIDE_IN_PLACE = 6, 2
LARGEST, SMALLEST = 2048, 128  # sides of tiles in pixels


def step_bytes(
    shape: Sequence[int],
    working: float,
    kept: float,
    optimizer: Optimizer,
    side: int | None = None,
    view: ReceptiveField | None = None,
) -> float:
    """An estimate of what a step and its targets hold at most, in bytes.

    Args:
        shape: height and width of the image.
        working: bytes for each pixel of what goes through the encoder, of `working_bytes`.
        kept: the same of the content's features. Masks are not counted.
        optimizer: whose state is counted.
        side: of tiles in pixels; None: the whole image at once.
        view: of the encoder, for the tiles' halo.
    """
    pixels = float(shape[0] * shape[1])
    beside = BESIDE if side is None or not optimizer.elementwise else BESIDE_IN_PLACE
    whole = pixels * (IMAGE * (state_images(optimizer) + beside) + kept)
    seen = pixels
    if side is not None and view is not None:
        seen = math.prod(min(side + 2 * view.halo + view.alignment, length) for length in shape)
        seen *= IN_TILES
    return FIXED + whole + seen * working


def working_bytes(maps: Sequence[tuple[int, int]], itemsize: int) -> float:
    """What the encoder holds at the peak of a step, in bytes for each pixel of the image.

    Args:
        maps: channels and stride of every layer up to the deepest.
        itemsize: bytes of a number in them, 2 or 4.
    """
    held = sum(channels / CHANNELS / stride**2 for channels, stride in maps)
    return CHANNELS * (itemsize * (AT_WORK + KEPT * held) + 4 * SINGLE)


def state_images(optimizer: Optimizer) -> int:
    """How many numbers an optimiser keeps for each of the image's."""
    state = optimizer.init(tf.zeros([1, 2, 2, 3]))
    return sum(int(np.ndim(leaf) == 4) for leaf in optimizer.leaves(state))


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
        found.append(max(limit - used + _reclaimable(), 0.0))
    except (OSError, ValueError):  # no such container, or no limit, which is spelt "max"
        pass
    return min(found, default=None)


def _reclaimable() -> float:
    """What of a container's memory is but a cache of files."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                return float(line.split()[1])
    return 0.0


@functools.cache
def _held_at_first() -> float:
    """What the process held when this was first asked. What steps have taken since serves later ones."""
    return held_bytes()


def held_bytes() -> float:
    """What this process holds; 1 GB, about TensorFlow itself, where the system does not say."""
    try:
        return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 1e9


def budget(memory: float | None, device: str) -> float | None:
    """How many bytes a step may take; None where nobody knows.

    Args:
        memory: in GB, of all that the process may hold, or a GPU; None: nine tenths of what is free. What
            TensorFlow has kept of earlier runs is free, as it never gives that back but uses it again.
        device: ``/CPU:0`` or the like. How much is free on a GPU is seen when there is too little.
    """
    if "GPU" in device:
        return None if memory is None else memory * 1e9
    if memory is not None:
        return memory * 1e9 - _held_at_first()
    free = free_bytes()
    return None if free is None else 0.9 * (free + max(held_bytes() - _held_at_first(), 0.0))


def largest_tile_side(
    shape: Sequence[int],
    limit: float,
    working: float,
    kept: float,
    optimizer: Optimizer,
    view: ReceptiveField,
) -> int:
    """The largest side of tiles with which a step takes no more than a limit in bytes, or the smallest."""
    sides = range(LARGEST, SMALLEST - 1, -view.alignment)
    fits = (side for side in sides if step_bytes(shape, working, kept, optimizer, side, view) <= limit)
    return next(fits, SMALLEST)


def affordable_pairs(shape: Sequence[int], room: float, wanted: int) -> int:
    """How many pairs of L-BFGS go into so many bytes and the first one's; at most those wanted."""
    return max(1, min(wanted, 1 + int(room / (2 * IMAGE * shape[0] * shape[1]))))
