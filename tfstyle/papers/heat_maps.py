"""Numbers as colours, for matrices and feature maps in a figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfstyle.errors import ConfigError
from tfstyle.papers.study import NO_MATPLOTLIB


def heat_map(values: np.ndarray, top: float | None = None, decades: float | None = None) -> np.ndarray:
    """A picture of an array, dark for nothing and bright for the top.

    Args:
        values: ``[height, width]``.
        top: what is brightest; by default the largest value. Give one for pictures to be compared.
        decades: how many powers of ten below the top are told apart, on a logarithmic scale; None
            for a linear one.

    Returns:
        float32 ``[height, width, 3]`` in 0..1.

    Raises:
        ConfigError: matplotlib, whose colour map it is, is not installed.
    """
    highest = float(np.max(values)) if top is None else top
    if not highest > 0:
        return _coloured(np.zeros(values.shape))
    share = np.maximum(values, 0) / highest
    if decades is not None:
        share = 1 + np.log10(np.maximum(share, 10**-decades)) / decades
    return _coloured(share)


def _coloured(share: np.ndarray) -> np.ndarray:
    colours: Any = _maps()["magma"](share.clip(0, 1))
    return colours[..., :3].astype(np.float32)


def _maps() -> Any:
    try:
        from matplotlib import colormaps
    except ImportError as error:
        raise ConfigError(NO_MATPLOTLIB) from error
    return colormaps
