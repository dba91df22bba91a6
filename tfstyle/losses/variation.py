"""Total variation in the forms that style-transfer programs use: how much neighbouring pixels differ.

Each is a sum over pairs of neighbours, so that it can be added up over bands of rows. A band is some rows of
an image and the row below them, where there is one; it counts the pairs that begin in its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Band(NamedTuple):
    """Where the rows of a band lie in their image.

    Attributes:
        height: of the whole image, in pixels.
        first, last: whether the band has the image's first row, and its last.
    """

    height: int | tf.Tensor
    first: bool
    last: bool


#: (image, or band of one, ``[batch, rows, width, 3]``; the band or None) -> float32 scalar.
Variation = Callable[[tf.Tensor, "Band | None"], tf.Tensor]


def total_variation(image: tf.Tensor, band: Band | None = None) -> tf.Tensor:
    """The mean squared difference of neighbouring pixels, rows plus columns.

    Args:
        image: float32 ``[batch, height, width, 3]`` in 0..1; an axis of one pixel adds nothing.
        band: where these rows lie, if they are not the whole image; the values of all bands add up to the
            whole image's.

    Returns:
        float32 scalar.

    Reference: the form of anishathalye/neural-style, on 0..1 instead of 0..255.
    """
    batch, height, width, channels = _shape(image, band)
    counts = batch * channels * (height - 1.0) * width, batch * channels * height * (width - 1.0)
    sums = (
        tf.nn.l2_loss(_dy(image)),
        tf.nn.l2_loss(_dx(image, band)),
    )
    return tf.add_n([2.0 * tf.math.divide_no_nan(total, n) for total, n in zip(sums, counts, strict=True)])


def summed_squares(image: tf.Tensor, band: Band | None = None) -> tf.Tensor:
    """``½ Σ (dx² + dy²)`` over all pixels but the last row and column; args as `total_variation`.

    Reference: jcjohnson/neural-style, whose gradient it has.
    """
    # A band's last row is the image's, which does not count, or another band's.
    return tf.nn.l2_loss(_dy(image)[:, :, :-1]) + tf.nn.l2_loss(_dx(image)[:, :-1])


def summed_differences(image: tf.Tensor, band: Band | None = None) -> tf.Tensor:
    """``Σ (|dx| + |dy|)``, which preserves edges; args as `total_variation`.

    Reference: Rudin, Osher, Fatemi 1992, in its anisotropic form; `tf.image.total_variation`.
    """
    return tf.reduce_sum(tf.abs(_dy(image))) + tf.reduce_sum(tf.abs(_dx(image, band)))


def nine_point_variation(image: tf.Tensor, band: Band | None = None) -> tf.Tensor:
    """Mean squared differences with all eight neighbours, the border pixels replicated beyond the border.

    ``2 (⟨dx²⟩/3 + ⟨dy²⟩/3 + ⟨d↘²⟩/12 + ⟨d↗²⟩/12)``, which is nearly isotropic. Args as
    `total_variation`.

    Reference: crowsonkb/style-transfer-pytorch.
    """
    above = image[:, :1] if band is None or band.first else image[:, :0]
    below = image[:, -1:] if band is None or band.last else image[:, :0]
    padded = tf.concat([above, image, below], 1)
    padded = tf.concat([padded[:, :, :1], padded, padded[:, :, -1:]], 2)
    batch, height, width, channels = _shape(image, band)
    # A pixel beyond the border equals the one beside it, so that their difference adds nothing.
    straight = tf.nn.l2_loss(_dx(image, band)) + tf.nn.l2_loss(_dy(image))
    diagonal = tf.nn.l2_loss(padded[:, 1:, 1:] - padded[:, :-1, :-1])
    diagonal += tf.nn.l2_loss(padded[:, 1:, :-1] - padded[:, :-1, 1:])
    pixels, corners = height * width, (height + 1.0) * (width + 1.0)
    return 4.0 / (batch * channels) * (straight / (3.0 * pixels) + diagonal / (12.0 * corners))


def _shape(image: tf.Tensor, band: Band | None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Batch, height, width and channels of the whole image, as floats."""
    shape = tf.cast(tf.shape(image), tf.float32)
    height = shape[1] if band is None else tf.cast(band.height, tf.float32)
    return shape[0], height, shape[2], shape[3]


# The gradient of x[:, 1:] fills a whole image of zeros; that of tf.split concatenates, in half the time.
def _dy(image: tf.Tensor) -> tf.Tensor:
    """Each pixel's difference to the one below it."""
    return tf.split(image, [1, -1], 1)[1] - tf.split(image, [-1, 1], 1)[0]


def _dx(image: tf.Tensor, band: Band | None = None) -> tf.Tensor:
    """Each pixel's difference to the one on its right, but for the row below a band."""
    differences = tf.split(image, [1, -1], 2)[1] - tf.split(image, [-1, 1], 2)[0]
    return differences if band is None or band.last else differences[:, :-1]
