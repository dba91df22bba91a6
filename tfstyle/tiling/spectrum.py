"""The local spectrum of an image in host memory and its gradient, computed in bands of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.losses import STRIDE, WINDOW, window_sums

BAND_PIXELS = 100_000  # approximate size of a band of rows; the windows need about 400 bytes per pixel


def spectrum_in_bands(image: np.ndarray, mask: Any = None) -> tf.Tensor:
    """Return the result of `tfstyle.losses.local_spectrum` for an image.

    Args:
        image: float32 ``[1, height, width, 3]`` in host memory. Both sides have at least 32 pixels.
        mask: float32 ``[1, height, width, 1]``, or None.
    """
    total, weight = tf.constant(0.0), tf.constant(0.0)
    for rows in _bands(image.shape):
        sums = _sums(*_cut(image, mask, rows))
        total, weight = total + sums[0], weight + sums[1]
    return tf.math.divide_no_nan(total, weight)


def add_spectrum_gradient(
    image: np.ndarray, mask: Any, *, derivative: tf.Tensor, gradient: np.ndarray
) -> None:
    """Add the gradient of a function of the local spectrum to the gradient of the image.

    Args:
        image, mask: as for `spectrum_in_bands`.
        derivative: derivative of the function with respect to the spectrum, float32 ``[13]``.
        gradient: float32 ``[1, height, width, 3]``, which is changed in place.
    """
    weight = tf.add_n([_sums(*_cut(image, mask, rows))[1] for rows in _bands(image.shape)])
    for rows in _bands(image.shape):
        band = _gradient(*_cut(image, mask, rows), tf.math.divide_no_nan(derivative, weight))
        gradient[:, rows] += band.numpy()


def _bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of the image in each band of windows. Windows of two bands may share rows."""
    _, height, width, _ = shape
    length = max(1, BAND_PIXELS // (width * STRIDE)) * STRIDE
    overlap = WINDOW - STRIDE
    for top in range(0, height - WINDOW + 1, length):
        yield slice(top, min(top + length + overlap, height))


def _cut(image: np.ndarray, mask: Any, rows: slice) -> tuple[tf.Tensor, tf.Tensor | None]:
    return tf.constant(image[:, rows]), None if mask is None else tf.constant(np.asarray(mask)[:, rows])


_sums = tf.function(window_sums, autograph=False)


@tf.function(autograph=False)
def _gradient(rows: tf.Tensor, mask: tf.Tensor | None, derivative: tf.Tensor) -> tf.Tensor:
    """Return the gradient of ``derivative · window_sums(rows, mask)``."""
    with tf.GradientTape() as tape:
        tape.watch(rows)
        total = tf.reduce_sum(derivative * window_sums(rows, mask)[0])
    return tape.gradient(total, rows)
