"""Total variation in the forms that programs of style transfer use: how much neighbouring pixels differ."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def total_variation(image: tf.Tensor) -> tf.Tensor:
    """The mean squared difference of neighbouring pixels, rows plus columns.

    Args:
        image: float32 ``[batch, height, width, 3]`` in 0..1; an axis of one pixel adds nothing.

    Returns:
        float32 scalar.

    Reference: the form of anishathalye/neural-style, on 0..1 instead of 0..255.
    """
    squares = [(2.0 * tf.nn.l2_loss(d), tf.size(d)) for d in (_down(image), _right(image))]
    return tf.add_n([tf.math.divide_no_nan(total, tf.cast(n, tf.float32)) for total, n in squares])


def summed_squares(image: tf.Tensor) -> tf.Tensor:
    """``½ Σ (dx² + dy²)`` over all pixels but the last row and column; args as `total_variation`.

    Reference: jcjohnson/neural-style, whose gradient it has.
    """
    return tf.nn.l2_loss(_down(image)[:, :, :-1]) + tf.nn.l2_loss(_right(image)[:, :-1])


def summed_differences(image: tf.Tensor) -> tf.Tensor:
    """``Σ (|dx| + |dy|)``, which lets edges stand; args as `total_variation`.

    Reference: Rudin, Osher, Fatemi 1992, in its anisotropic form; `tf.image.total_variation`.
    """
    return tf.reduce_sum(tf.abs(_down(image))) + tf.reduce_sum(tf.abs(_right(image)))


def nine_point_variation(image: tf.Tensor) -> tf.Tensor:
    """Mean squared differences with all eight neighbours, the picture's border repeated beyond it.

    ``2 (⟨dx²⟩/3 + ⟨dy²⟩/3 + ⟨d↘²⟩/12 + ⟨d↗²⟩/12)``, the same in all directions and blind to none: a
    checkerboard costs here too. Args as `total_variation`.

    Reference: crowsonkb/style-transfer-pytorch.
    """
    wide = tf.concat([image[:, :1], image, image[:, -1:]], 1)
    wide = tf.concat([wide[:, :, :1], wide, wide[:, :, -1:]], 2)
    straight = _mean_square(_right(wide)[:, 1:-1, 1:]) + _mean_square(_down(wide)[:, 1:, 1:-1])
    diagonal = _mean_square(wide[:, 1:, 1:] - wide[:, :-1, :-1])
    diagonal += _mean_square(wide[:, 1:, :-1] - wide[:, :-1, 1:])
    return 2.0 * (straight / 3.0 + diagonal / 12.0)


def _mean_square(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.square(x))


# A slice's own gradient fills a whole picture of zeros, four times; padding by zeros costs about half.
@tf.custom_gradient
def _down(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    before, after = [[0, 0], [1, 0], [0, 0], [0, 0]], [[0, 0], [0, 1], [0, 0], [0, 0]]
    return x[:, 1:] - x[:, :-1], lambda upstream: tf.pad(upstream, before) - tf.pad(upstream, after)


@tf.custom_gradient
def _right(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    before, after = [[0, 0], [0, 0], [1, 0], [0, 0]], [[0, 0], [0, 0], [0, 1], [0, 0]]
    return x[:, :, 1:] - x[:, :, :-1], lambda upstream: tf.pad(upstream, before) - tf.pad(upstream, after)
