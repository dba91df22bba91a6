"""Evaluation of the loss and gradient of an image tile by tile, with bounded memory."""

from tfstyle.tiling import memory
from tfstyle.tiling.geometry import (
    ReceptiveField,
    even_tile_sides,
    margin_overhead,
    receptive_field,
    tiles,
)
from tfstyle.tiling.host_step import first_host_state, in_host_memory, make_host_step
from tfstyle.tiling.objective import TiledObjective

__all__ = [
    "ReceptiveField",
    "TiledObjective",
    "even_tile_sides",
    "first_host_state",
    "in_host_memory",
    "make_host_step",
    "margin_overhead",
    "memory",
    "receptive_field",
    "tiles",
]
