"""The same loss and gradient as the whole image's, tile by tile, in bounded memory."""

from tfstyle.tiling.geometry import (
    ReceptiveField,
    even_tile_sides,
    layer_positions,
    margin_overhead,
    receptive_field,
    tiles,
)
from tfstyle.tiling.host_step import first_host_state, in_host_memory, make_host_step
from tfstyle.tiling.objective import TiledObjective
from tfstyle.tiling.tile_step import TileStep

__all__ = [
    "ReceptiveField",
    "TileStep",
    "TiledObjective",
    "even_tile_sides",
    "first_host_state",
    "in_host_memory",
    "layer_positions",
    "make_host_step",
    "margin_overhead",
    "receptive_field",
    "tiles",
]
