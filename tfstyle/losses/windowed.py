"""A style loss that compares Gram matrices of windows of the image, and so depends on positions."""

from __future__ import annotations

import tensorflow as tf

from tfstyle.losses.gram import gram_matrix
from tfstyle.losses.style import StyleLoss, style_loss

#: The Gram matrix of each window, ``[windows, N, N]``, and the means of its channels, ``[windows, N]``.
Windows = tuple[tf.Tensor, tf.Tensor]


def windowed_gram(grid: int = 4, by_content: bool = False) -> StyleLoss:
    """Return the style loss that compares the Gram matrices of ``grid x grid`` windows.

    The loss is the mean of `tfstyle.losses.style_loss` over the windows. The target of a window is the window
    at the same position in the style image or, with ``by_content``, the window with the nearest features. The
    features of a window are then the means of its channels in the deepest style layer, standardised over the
    windows of each image to mean 0 and standard deviation 1. Swapping two windows of an image does not change
    its global Gram matrix, but it changes this loss.

    Args:
        grid: number of windows along each side, from 1. If the number of positions along a side is not a
            multiple of ``grid``, neighbouring windows overlap.
        by_content: whether to choose the window of the style image by its features instead of its position.

    Returns:
        A `StyleLoss` whose summary is a tuple of float32 ``[windows, N, N]`` and ``[windows, N]``.

    Reference: our reading of the abstract of Nikulin, Novak 2016, which names local and content-aware style
    transfer without a formula; Gatys et al. 2017 for Gram matrices of regions.
    """

    def summary(features: tf.Tensor, weight: tf.Tensor | None) -> Windows:
        guided = features if weight is None else tf.cast(features, tf.float32) * tf.sqrt(weight)
        parts = _split_windows(guided, grid)
        means = [tf.reduce_mean(tf.cast(part, tf.float32), [1, 2]) for part in parts]
        return tf.concat([gram_matrix(part) for part in parts], 0), tf.concat(means, 0)

    def distance(windows: Windows, target: Windows) -> tf.Tensor:
        return style_loss(windows[0], target[0]) / grid**2  # style_loss sums over its batch axis

    return StyleLoss(summary, distance, second_order=True, assign=_nearest_windows if by_content else None)


def _split_windows(features: tf.Tensor, grid: int) -> list[tf.Tensor]:
    """Split ``[1, h, w, N]`` into windows in row-major order, which together cover every position."""
    rows, columns = (
        [(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)]
        for side in (tf.shape(features)[1], tf.shape(features)[2])
    )
    return [features[:, top:bottom, left:right] for top, bottom in rows for left, right in columns]


def _nearest_windows(style: Windows, content: Windows) -> tf.Tensor:
    """Return, for each window of the content image, the index of the nearest window of the style image."""
    content_means, style_means = (_standardised(windows[1]) for windows in (content, style))
    squares = tf.reduce_sum((content_means[:, tf.newaxis] - style_means[tf.newaxis]) ** 2, -1)
    return tf.argmin(squares, 1)


def _standardised(means: tf.Tensor) -> tf.Tensor:
    """Standardise channel means ``[windows, N]`` to mean 0 and standard deviation 1 over the windows."""
    centred = means - tf.reduce_mean(means, 0, keepdims=True)
    return centred / (tf.sqrt(tf.reduce_mean(centred**2, 0, keepdims=True)) + 1e-6)
