"""Orientation maps: the angle of the lines of an image at each pixel."""

from __future__ import annotations

import math

import numpy as np

from tfstyle.images.color import luminance

#: Standard deviation of the window of the structure tensor, relative to the image's shorter side.
WINDOW = 0.03


def estimate_orientation(image: np.ndarray, window: float | None = None) -> np.ndarray:
    """Estimate the orientation of the lines of an image at each pixel from its structure tensor.

    The structure tensor is the mean of ``∇Y ∇Yᵀ`` over a Gaussian window, where Y is the luminance,
    smoothed by a Gaussian with a standard deviation of 1 pixel. The lines are parallel to the eigenvector of
    the smaller eigenvalue.

    Args:
        image: ``[height, width, 3]`` in 0..1.
        window: standard deviation of the Gaussian window in pixels; by default 3 % of the shorter side, and
            at least 1.5.

    Returns:
        float32 ``[height, width]`` in 0..1, which stands for 0 to 180 degrees: 0 and 1 are horizontal lines,
        0.25 lines that rise to the right, 0.5 vertical lines and 0.75 lines that fall to the right.

    Example:
        >>> import numpy as np
        >>> from tfstyle.images import estimate_orientation
        >>> stripes = np.sin(np.arange(48) / 2)[None, :, None] * np.ones((32, 48, 3)) * 0.5 + 0.5
        >>> float(estimate_orientation(stripes).mean().round(3))  # vertical lines
        0.5
    """
    y = luminance(image.astype(np.float32)).astype(np.float64)
    smooth = _blurred(y, 1.0)
    down, right = np.gradient(smooth)
    sigma = max(1.5, WINDOW * min(y.shape)) if window is None else window
    # The gradient has the double angle atan2(2 right up, right² - up²); lines are perpendicular to it.
    cosine, sine = (_blurred(part, sigma) for part in (right**2 - down**2, -2 * right * down))
    angle = (np.arctan2(sine, cosine) + math.pi) / 2
    return (angle / math.pi % 1.0).astype(np.float32)


def orientation_vectors(orientation: np.ndarray) -> np.ndarray:
    """Return the unit vectors of the double angles of an orientation map.

    Opposite directions of a line have the same vector, so that vectors can be averaged and compared.

    Args:
        orientation: ``[height, width]`` in 0..1, as `estimate_orientation` returns it.

    Returns:
        float32 ``[height, width, 2]``, the cosines and the sines.
    """
    angle = 2 * math.pi * orientation.astype(np.float64)
    return np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve ``[height, width]`` with a Gaussian. The image is reflected at its border."""
    radius = min(math.ceil(3 * sigma), min(values.shape) - 1)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(values, radius, mode="reflect")
    for axis in (0, 1):
        padded = np.apply_along_axis(np.convolve, axis, padded, kernel / kernel.sum(), mode="valid")
    return padded
