"""Heat maps of matrices and feature maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfstyle.errors import ConfigError
from tfstyle.papers.study import NO_MATPLOTLIB


def heat_map(values: np.ndarray, top: float | None = None, *, decades: float | None = None) -> np.ndarray:
    """Return an array as colours, from dark for 0 to bright for the top value.

    Args:
        values: ``[height, width]``; negative values count as 0.
        top: value with the brightest colour; by default the largest value. Give the same value for images
            that are to be compared.
        decades: range of a logarithmic scale below the top value, in powers of ten; None for a linear scale.

    Returns:
        float32 ``[height, width, 3]`` in 0..1.

    Raises:
        ConfigError: matplotlib, which has the colour map, is not installed.

    Example:
        >>> import numpy as np
        >>> from tfstyle.papers.heat_maps import heat_map
        >>> heat_map(np.eye(8), decades=3.0).shape
        (8, 8, 3)
    """
    highest = float(np.max(values)) if top is None else top
    if not highest > 0:
        return _apply_color_map(np.zeros(values.shape))
    share = np.maximum(values, 0) / highest
    if decades is not None:
        share = 1 + np.log10(np.maximum(share, 10**-decades)) / decades
    return _apply_color_map(share)


def _apply_color_map(share: np.ndarray) -> np.ndarray:
    colors: Any = _color_maps()["magma"](share.clip(0, 1))
    return colors[..., :3].astype(np.float32)


def _color_maps() -> Any:
    try:
        from matplotlib import colormaps
    except ImportError:
        raise ConfigError(NO_MATPLOTLIB) from None
    return colormaps
