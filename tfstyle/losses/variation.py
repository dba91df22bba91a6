"""Total variation, a measure of the differences between neighbouring pixels, in the forms of other programs.

Each form is a sum over pairs of neighbouring pixels, so that it can be computed in bands of rows and added
up. A band consists of some rows of an image and the row below them, if the image has one. It counts the pairs
whose first pixel is in its own rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Band(NamedTuple):
    """The position of a band of rows in its image.

    Attributes:
        height: height of the whole image in pixels.
        first: whether the band includes the first row of the image.
        last: whether the band includes the last row of the image.
    """

    height: int | tf.Tensor
    first: bool
    last: bool


#: Function of an image, or of a band of rows with its `Band`, ``[batch, rows, width, 3]`` -> float32 scalar.
Variation = Callable[[tf.Tensor, "Band | None"], tf.Tensor]


def total_variation(image: tf.Tensor, band: Band | None = None) -> tf.Tensor:
    """Return the mean squared difference of vertical neighbours plus that of horizontal neighbours.

    Args:
        image: float32 ``[batch, height, width, 3]`` in 0..1. An axis of one pixel contributes 0.
        band: position of the rows in their image, or None if they are the whole image. The values of all
            bands of an image add up to the value of the image.

    Returns:
        float32 scalar.

    Reference: the form of anishathalye/neural-style, for pixels in 0..1 instead of 0..255.

    Example:
        >>> import numpy as np
        >>> from tfstyle import total_variation
        >>> image = np.zeros((1, 32, 32, 3), np.float32)
        >>> image[:, :, ::2] = 1.0  # stripes: each pixel differs from its horizontal neighbours by 1
        >>> float(total_variation(image))
        1.0
    """
    batch, height, width, channels = _shape(image, band)
    counts = batch * channels * (height - 1.0) * width, batch * channels * height * (width - 1.0)
    sums = (
        tf.nn.l2_loss(_dy(image)),
        tf.nn.l2_loss(_dx(image, band)),
    )
    return tf.add_n([2.0 * tf.math.divide_no_nan(total, n) for total, n in zip(sums, counts, strict=True)])


def summed_squares(image: tf.Tensor, band: Band | None = None) -> tf.Tensor:
    """Return ``½ Σ (dx² + dy²)`` over all pixels except the last row and the last column.

    Args:
        image, band: as for `total_variation`.

    Returns:
        float32 scalar.

    Reference: jcjohnson/neural-style, whose gradient is the gradient of this sum.
    """
    # The last row of a band is left out: it is the last row of the image, or it belongs to the next band.
    return tf.nn.l2_loss(_dy(image)[:, :, :-1]) + tf.nn.l2_loss(_dx(image)[:, :-1])


def summed_differences(image: tf.Tensor, band: Band | None = None) -> tf.Tensor:
    """Return ``Σ (|dx| + |dy|)``, which preserves edges better than squares.

    Args:
        image, band: as for `total_variation`.

    Returns:
        float32 scalar.

    Reference: Rudin, Osher, Fatemi 1992, in its anisotropic form, as `tf.image.total_variation` computes it.
    """
    return tf.reduce_sum(tf.abs(_dy(image))) + tf.reduce_sum(tf.abs(_dx(image, band)))


def nine_point_variation(image: tf.Tensor, band: Band | None = None) -> tf.Tensor:
    """Return the weighted sum of the mean squared differences between a pixel and its eight neighbours.

    ``2 (⟨dx²⟩/3 + ⟨dy²⟩/3 + ⟨d↘²⟩/12 + ⟨d↗²⟩/12)``, which is nearly isotropic. The pixels at the border are
    replicated beyond it.

    Args:
        image, band: as for `total_variation`.

    Returns:
        float32 scalar.

    Reference: crowsonkb/style-transfer-pytorch.
    """
    above = image[:, :1] if band is None or band.first else image[:, :0]
    below = image[:, -1:] if band is None or band.last else image[:, :0]
    padded = tf.concat([above, image, below], 1)
    padded = tf.concat([padded[:, :, :1], padded, padded[:, :, -1:]], 2)
    batch, height, width, channels = _shape(image, band)
    # A replicated pixel equals the pixel beside it, so that straight differences need no padding.
    straight = tf.nn.l2_loss(_dx(image, band)) + tf.nn.l2_loss(_dy(image))
    diagonal = tf.nn.l2_loss(padded[:, 1:, 1:] - padded[:, :-1, :-1])
    diagonal += tf.nn.l2_loss(padded[:, 1:, :-1] - padded[:, :-1, 1:])
    pixels, corners = height * width, (height + 1.0) * (width + 1.0)
    return 4.0 / (batch * channels) * (straight / (3.0 * pixels) + diagonal / (12.0 * corners))


def _shape(image: tf.Tensor, band: Band | None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return batch size, height, width and number of channels of the whole image, as floats."""
    shape = tf.cast(tf.shape(image), tf.float32)
    height = shape[1] if band is None else tf.cast(band.height, tf.float32)
    return shape[0], height, shape[2], shape[3]


# The gradient of a slice such as x[:, 1:] is padded with zeros to the whole image. The gradient of tf.split
# is a concatenation, which takes half the time.
def _dy(image: tf.Tensor) -> tf.Tensor:
    """Return the difference between the pixel below each pixel and the pixel itself."""
    return tf.split(image, [1, -1], 1)[1] - tf.split(image, [-1, 1], 1)[0]


def _dx(image: tf.Tensor, band: Band | None = None) -> tf.Tensor:
    """Return the difference between the pixel to the right of each pixel and the pixel itself.

    The row below a band is left out.
    """
    differences = tf.split(image, [1, -1], 2)[1] - tf.split(image, [-1, 1], 2)[0]
    return differences if band is None or band.last else differences[:, :-1]
