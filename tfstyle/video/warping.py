"""Warping of images along an optical flow, in TensorFlow operations."""

from __future__ import annotations

import tensorflow as tf


def warp(image: tf.Tensor, flow: tf.Tensor) -> tf.Tensor:
    """Return an image whose pixel x has the value of the given image at x + flow(x).

    The values are interpolated by the cubic convolution of Keys with a = -0.5. Bilinear interpolation blurs:
    after ten frames of a moving clip the strokes would be lost. Points outside of the image have the values
    of its border, and the result is clipped to the range of the four nearest pixels, so that edges do not
    overshoot.

    Args:
        image: float32 ``[1, height, width, C]``.
        flow: float32 ``[1, height, width, 2]`` in pixels, to the right and down.

    Returns:
        float32 ``[1, height, width, C]``.

    Reference: Keys 1981, Cubic Convolution Interpolation for Digital Image Processing, eq. 15.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.video import warp
        >>> image = tf.reshape(tf.range(6.0), [1, 1, 6, 1])
        >>> flow = tf.tile([[[[0.5, 0.0]]]], [1, 1, 6, 1])  # half a pixel to the right
        >>> warp(image, flow).numpy().ravel()[1:4].tolist()
        [1.5, 2.5, 3.5]
    """
    _, height, width, _ = tf.unstack(tf.shape(image))
    columns, rows = tf.meshgrid(tf.range(width), tf.range(height))
    x = tf.clip_by_value(tf.cast(columns, tf.float32) + flow[0, ..., 0], 0.0, tf.cast(width - 1, tf.float32))
    y = tf.clip_by_value(tf.cast(rows, tf.float32) + flow[0, ..., 1], 0.0, tf.cast(height - 1, tf.float32))
    left, top = tf.cast(tf.floor(x), tf.int32), tf.cast(tf.floor(y), tf.int32)
    x_weights, y_weights = _cubic_weights(x - tf.floor(x)), _cubic_weights(y - tf.floor(y))

    def values(down: int, right: int) -> tf.Tensor:
        """Return the pixels that lie a number of rows below and of columns to the right of the points."""
        row = tf.clip_by_value(top + down, 0, height - 1)
        column = tf.clip_by_value(left + right, 0, width - 1)
        return tf.gather(tf.reshape(image, [height * width, -1]), row * width + column)

    lines = []
    for i in range(4):
        line = [values(i - 1, j - 1) for j in range(4)]
        if i == 1:
            lowest, highest = tf.minimum(line[1], line[2]), tf.maximum(line[1], line[2])
        elif i == 2:
            lowest = tf.minimum(lowest, tf.minimum(line[1], line[2]))
            highest = tf.maximum(highest, tf.maximum(line[1], line[2]))
        lines.append(tf.add_n([weight * value for weight, value in zip(x_weights, line, strict=True)]))
    warped = tf.add_n([weight * line for weight, line in zip(y_weights, lines, strict=True)])
    return tf.clip_by_value(warped, lowest, highest)[tf.newaxis]


def _cubic_weights(part: tf.Tensor) -> list[tf.Tensor]:
    """Return the weights ``[height, width, 1]`` of the four pixels around a point.

    Args:
        part: distance of the point from the second pixel, float32 ``[height, width]`` in 0..1.
    """
    t = part[..., tf.newaxis]
    return [
        -0.5 * t + t**2 - 0.5 * t**3,
        1.0 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2.0 * t**2 - 1.5 * t**3,
        -0.5 * t**2 + 0.5 * t**3,
    ]
