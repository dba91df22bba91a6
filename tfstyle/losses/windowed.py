"""A style loss that keeps a style in its places: a Gram matrix for each window of the image."""

from __future__ import annotations

import tensorflow as tf

from tfstyle.losses.gram import gram_matrix
from tfstyle.losses.style import StyleLoss, style_loss

#: The Gram matrices ``[windows, N, N]`` and the channels' means ``[windows, N]``.
Windows = tuple[tf.Tensor, tf.Tensor]


def windowed_gram(grid: int = 4, by_content: bool = False) -> StyleLoss:
    """Gram matrices of ``grid x grid`` windows, compared window by window.

    The loss is the mean over windows of `tfstyle.losses.style_loss`. A window of the image takes the style
    of the window at the same place in the style image; or, by content, of the window with the nearest
    features: the channels' means in the deepest style layer, standardised over the windows of each image
    to mean 0 and standard deviation 1. Swapping two windows of an image leaves its global Gram matrix
    as it is, and changes this.

    Args:
        grid: windows along each side; on maps smaller than that, windows overlap.
        by_content: choose the style's window by content, not by place.

    Reference: our reading of Nikulin, Novak 2016, whose local and content-aware styles are known to us by
    name only; Gatys et al. 2017 for Gram matrices of regions.
    """

    def summary(features: tf.Tensor, weight: tf.Tensor | None) -> Windows:
        guided = features if weight is None else tf.cast(features, tf.float32) * tf.sqrt(weight)
        parts = _split_windows(guided, grid)
        means = [tf.reduce_mean(tf.cast(part, tf.float32), [1, 2]) for part in parts]
        return tf.concat([gram_matrix(part) for part in parts], 0), tf.concat(means, 0)

    def distance(windows: Windows, target: Windows) -> tf.Tensor:
        return style_loss(windows[0], target[0]) / grid**2  # style_loss sums over the windows

    return StyleLoss(summary, distance, second_order=True, assign=_nearest_windows if by_content else None)


def _split_windows(features: tf.Tensor, grid: int) -> list[tf.Tensor]:
    """Windows of ``[1, h, w, N]`` in reading order, which cover every position."""
    rows, columns = (
        [(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)]
        for side in (tf.shape(features)[1], tf.shape(features)[2])
    )
    return [features[:, top:bottom, left:right] for top, bottom in rows for left, right in columns]


def _nearest_windows(style: Windows, content: Windows) -> tf.Tensor:
    """For each window of the content the index of the style's window that is nearest to it."""
    content_means, style_means = (_standardised(windows[1]) for windows in (content, style))
    squares = tf.reduce_sum((content_means[:, tf.newaxis] - style_means[tf.newaxis]) ** 2, -1)
    return tf.argmin(squares, 1)


def _standardised(means: tf.Tensor) -> tf.Tensor:
    """Channels' means ``[windows, N]``, brought to mean 0 and standard deviation 1 over the windows."""
    centred = means - tf.reduce_mean(means, 0, keepdims=True)
    return centred / (tf.sqrt(tf.reduce_mean(centred**2, 0, keepdims=True)) + 1e-6)
