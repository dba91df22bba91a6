"""The temporal loss of a video, which compares a frame with the warped results of earlier frames."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class TemporalTarget(NamedTuple):
    """Target of the temporal loss for one scale, as tensors or arrays.

    Attributes:
        weight: weight of the temporal loss, a float32 scalar.
        reference: the results of earlier frames, warped to the current frame, float32
            ``[1, height, width, 3]``.
        consistency: weights of the pixels, float32 ``[1, height, width, 1]`` in 0..1. They are 0 where no
            earlier frame shows what is seen in the current one.
    """

    weight: tf.Tensor
    reference: tf.Tensor
    consistency: tf.Tensor


def temporal_loss(image: tf.Tensor, reference: tf.Tensor, *, consistency: tf.Tensor) -> tf.Tensor:
    """Return the temporal loss ``(1/D) Σ c (x - w)²``, where D is the number of values of the image.

    Args:
        image: the image x of a frame, float32 ``[1, height, width, 3]`` in 0..1.
        reference: the warped result w of an earlier frame, in the same shape.
        consistency: the weights c of the pixels, float32 ``[1, height, width, 1]`` in 0..1.

    Returns:
        float32 scalar.

    Reference: Ruder, Dosovitskiy, Brox 2016, Artistic Style Transfer for Videos, eq. 6.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.losses import temporal_loss
        >>> image, reference = tf.fill([1, 32, 48, 3], 0.75), tf.fill([1, 32, 48, 3], 0.25)
        >>> float(temporal_loss(image, reference, consistency=tf.fill([1, 32, 48, 1], 0.5)))
        0.125
    """
    return tf.reduce_mean(consistency * tf.square(image - reference))
