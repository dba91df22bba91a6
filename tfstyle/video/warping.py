"""Warping of images along an optical flow, in TensorFlow operations."""

from __future__ import annotations

import math

import tensorflow as tf

#: Number of pixels on each side of a point that the Lanczos filter weights.
LOBES = 3


def warp(image: tf.Tensor, flow: tf.Tensor, *, inset: tf.Tensor | float = 0.0) -> tf.Tensor:
    """Return an image whose pixel x has the value of the given image at x + flow(x).

    The values are interpolated by the Lanczos filter with three lobes. A frame of a video is warped from
    frame to frame, and bilinear or cubic interpolation would blur its strokes: after ten frames that move by
    1.3 pixels each, cubic interpolation leaves a quarter of the amplitude at periods of three to four pixels,
    and this filter three quarters. Points outside the image are mirrored at its border, so that what
    comes into view starts with strokes. The result is clipped to the range of the four nearest pixels, so
    that edges do not overshoot.

    Args:
        image: float32 ``[1, height, width, C]``.
        flow: float32 ``[1, height, width, 2]`` in pixels, to the right and down.
        inset: distance in pixels by which points outside of the image are moved farther into it after they
            were mirrored. With another distance in each frame, a moving border does not repeat a pattern.

    Returns:
        float32 ``[1, height, width, C]``.

    Reference: Turkowski 1990, Filters for Common Resampling Tasks, for the Lanczos filter.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.video import warp
        >>> image = tf.reshape(tf.range(10.0), [1, 1, 10, 1])
        >>> flow = tf.tile([[[[0.5, 0.0]]]], [1, 1, 10, 1])  # half a pixel to the right
        >>> warp(image, flow).numpy().ravel()[3:6].round(4).tolist()
        [3.5, 4.5, 5.5]
    """
    _, height, width, _ = tf.unstack(tf.shape(image))
    columns, rows = tf.meshgrid(tf.range(width), tf.range(height))
    x = _mirrored(tf.cast(columns, tf.float32) + flow[0, ..., 0], tf.cast(width - 1, tf.float32), inset)
    y = _mirrored(tf.cast(rows, tf.float32) + flow[0, ..., 1], tf.cast(height - 1, tf.float32), inset)
    left, top = tf.cast(tf.floor(x), tf.int32), tf.cast(tf.floor(y), tf.int32)
    x_weights, y_weights = _lanczos_weights(x - tf.floor(x)), _lanczos_weights(y - tf.floor(y))
    pixels = tf.reshape(image, [height * width, -1])

    def values(down: int, right: int) -> tf.Tensor:
        """Return the pixels that lie a number of rows below and of columns to the right of the points."""
        row = tf.clip_by_value(top + down, 0, height - 1)
        column = tf.clip_by_value(left + right, 0, width - 1)
        return tf.gather(pixels, row * width + column)

    offsets = range(1 - LOBES, LOBES + 1)
    nearest, lines = [], []
    for down, y_weight in zip(offsets, y_weights, strict=True):
        line = [values(down, right) for right in offsets]
        if down in (0, 1):
            nearest += line[LOBES - 1 : LOBES + 1]
        lines.append(y_weight * tf.add_n([w * value for w, value in zip(x_weights, line, strict=True)]))
    lowest, highest = tf.reduce_min(nearest, axis=0), tf.reduce_max(nearest, axis=0)
    return tf.clip_by_value(tf.add_n(lines), lowest, highest)[tf.newaxis]


def _mirrored(coordinates: tf.Tensor, last: tf.Tensor, inset: tf.Tensor | float) -> tf.Tensor:
    """Return coordinates that are mirrored at 0 and at the last pixel, and moved inwards by `inset`."""
    period = tf.maximum(2.0 * last, 1.0)
    mirrored = last - tf.abs(last - tf.math.floormod(coordinates, period))
    below, above = tf.clip_by_value(-coordinates, 0.0, 1.0), tf.clip_by_value(coordinates - last, 0.0, 1.0)
    return tf.clip_by_value(mirrored + inset * (below - above), 0.0, last)


def _lanczos_weights(part: tf.Tensor) -> list[tf.Tensor]:
    """Return the weights ``[height, width, 1]`` of the pixels around a point, which add up to 1.

    Args:
        part: distance of the point from the last pixel before it, float32 ``[height, width]`` in 0..1.
    """

    def sinc(x: tf.Tensor) -> tf.Tensor:
        angle = math.pi * x
        return tf.where(tf.abs(x) < 1e-4, 1.0, tf.math.divide_no_nan(tf.sin(angle), angle))

    distances = [part[..., tf.newaxis] - offset for offset in range(1 - LOBES, LOBES + 1)]
    weights = [sinc(x) * sinc(x / LOBES) for x in distances]
    total = tf.add_n(weights)
    return [weight / total for weight in weights]
