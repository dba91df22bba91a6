"""How much a video flickers."""

from __future__ import annotations

import numpy as np


def warping_error(image: np.ndarray, warped: np.ndarray, *, consistency: np.ndarray) -> float | None:
    """Return the mean absolute difference of a result from the warped result of the frame before.

    Args:
        image: the result of a frame, float32 ``[height, width, 3]`` in 0..1.
        warped: the result of the frame before, warped along the flow between the two frames of the clip.
        consistency: weights of the pixels, float32 ``[height, width]`` in 0..1, as
            `tfstyle.video.consistency_weights` returns them.

    Returns:
        The difference in levels of 255, averaged over the pixels by their weights, or None if all weights
        are 0.

    Reference: Lai et al. 2018, Learning Blind Video Temporal Consistency, section 4.2.
    Differs from Lai et al.: absolute instead of squared differences.

    Example:
        >>> import numpy as np
        >>> from tfstyle.video import warping_error
        >>> image, warped = np.zeros((4, 4, 3)), np.full((4, 4, 3), 2 / 255)
        >>> round(warping_error(image, warped, consistency=np.ones((4, 4))), 6)
        2.0
    """
    total = float(consistency.sum(dtype=np.float64))
    if total == 0:
        return None
    differences = np.abs(image - warped).mean(-1) * consistency
    return 255.0 * float(differences.sum(dtype=np.float64)) / total
