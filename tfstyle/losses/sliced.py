"""Style losses that sort the values of all positions, and therefore cannot be computed in tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.losses.style import StyleLoss, weighted_mean

#: Number of quantiles in the table of a target.
QUANTILE_COUNT = 4096


class Quantiles(NamedTuple):
    """The sorted values of an image's features along D directions, with their shares of the total weight.

    Attributes:
        values: float32 ``[1, D, M]``, in ascending order.
        below: share of the total weight of all smaller values, float32 ``[1, D, M]``, or ``[1, 1, M]`` if all
            positions have the same weight.
        share: share of the total weight of each value, of the same shape as `below`.
    """

    values: tf.Tensor
    below: tf.Tensor
    share: tf.Tensor


def _rows(features: tf.Tensor) -> tf.Tensor:
    """Return features ``[1, h, w, N]`` as float32 ``[1, N, M]``."""
    rows = tf.reshape(tf.cast(features, tf.float32), [1, -1, features.shape[-1]])
    return tf.linalg.matrix_transpose(rows)


def _quantiles(rows: tf.Tensor, weight: tf.Tensor | None) -> Quantiles:
    positions = tf.shape(rows)[2]
    negated, indices = tf.math.top_k(-rows, positions)
    share = tf.ones([1, 1, positions]) if weight is None else tf.gather(tf.reshape(weight, [-1]), indices)
    # The rounding error of a float32 sum of 250 000 weights could exceed the spacing of the table.
    below = tf.cumsum(tf.cast(share, tf.float64), axis=2, exclusive=True)
    total = below[:, :, -1:] + tf.cast(share[:, :, -1:], tf.float64)
    return Quantiles(-negated, tf.cast(below / total, tf.float32), share / tf.cast(total, tf.float32))


def _barycentre(summaries: Sequence[Quantiles], weights: Sequence[float]) -> tf.Tensor:
    """Return the mean of the styles' quantile functions, which is their Wasserstein barycentre on each line.

    Returns:
        The values at (k + ½) / `QUANTILE_COUNT`, float32 ``[1, D, QUANTILE_COUNT]``.
    """
    levels = (tf.range(QUANTILE_COUNT, dtype=tf.float32) + 0.5) / QUANTILE_COUNT
    tables = []
    for values, below, share in summaries:
        indices = tf.searchsorted(below + share, tf.broadcast_to(levels, [1, below.shape[1], QUANTILE_COUNT]))
        tables.append(_gather_rows(values, tf.minimum(indices, tf.shape(values)[2] - 1)))
    return weighted_mean(tables, weights)


def quantile_distance(quantiles: Quantiles, target: tf.Tensor) -> tf.Tensor:
    """Return ``1/D Σ_d ∫ (X_d(p) - Q_d(p))² dp`` of the quantile functions X and Q, with p in 0..1.

    This is the mean over D directions of the squared Wasserstein-2 distance of two distributions on a line.
    The distance of an image to the target made of it is not exactly 0, but about 1e-4 of the variance of its
    features, because the target is a table of `QUANTILE_COUNT` entries.

    Args:
        quantiles: the sorted values that make up X.
        target: the K values of Q, each for an interval of length 1/K, float32 ``[1, D, K]``.

    Returns:
        float32 scalar.
    """
    # Both are centred, because the rounding errors of large means would hide small variances.
    centre = tf.reduce_mean(target, 2, keepdims=True)
    steps, ends = target - centre, quantiles.below + quantiles.share
    means = _step_means(steps, quantiles.below * target.shape[2], ends * target.shape[2])
    # Over the interval of p that a value x covers, ∫ (x - Q)² dp is share (x - mean Q)² + share var Q, with
    # the mean and the variance of Q over this interval.
    apart = tf.reduce_sum(quantiles.share * (quantiles.values - centre - means) ** 2)
    within = tf.reduce_sum(tf.reduce_mean(steps**2, 2)) - tf.reduce_sum(quantiles.share * means**2)
    return (apart + tf.nn.relu(within)) / target.shape[1]


def _step_means(steps: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Return the means of rows of steps ``[1, D, K]`` from low to high, which are both in 0..K."""
    first, last = (tf.minimum(tf.cast(bound, tf.int32), steps.shape[2] - 1) for bound in (low, high))
    longer, sums = last > first, tf.cumsum(steps, axis=2, exclusive=True)
    head = tf.maximum(tf.minimum(high, tf.cast(first + 1, tf.float32)) - low, 1e-6)
    tail = tf.where(longer, high - tf.cast(last, tf.float32), 0.0)
    whole = tf.cast(tf.maximum(last - first - 1, 0), tf.float32)
    inner = tf.where(longer, _gather_rows(sums, last) - _gather_rows(sums, tf.minimum(first + 1, last)), 0.0)
    ends = head * _gather_rows(steps, first) + tail * _gather_rows(steps, last)
    return (ends + inner) / (head + whole + tail)


def _gather_rows(table: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Return the entries ``[1, D, P]`` of a table ``[1, D, K]``.

    Args:
        table: ``[1, D, K]``.
        indices: ``[1, D, P]``, or ``[1, 1, P]`` if they are the same for all rows.
    """
    if indices.shape[1] == 1:
        return tf.gather(table, indices[0, 0], axis=2)
    return tf.gather(table, indices, axis=2, batch_dims=2)


#: The histogram loss: the distribution of the values of each channel, compared by `quantile_distance`.
#: Reference: Risser, Wilmot, Barnes 2017, Stable and Controllable Neural Texture Synthesis.
#: Differs from Risser: sorted values are compared instead of histograms with bins.
HISTOGRAM = StyleLoss(lambda f, w: _quantiles(_rows(f), w), quantile_distance, _barycentre)


def sliced_wasserstein(seed: int = 0) -> StyleLoss:
    """Return the style loss that is the sliced Wasserstein distance.

    The features are projected onto N random unit vectors, where N is the number of channels. The loss is the
    mean over these directions of the squared Wasserstein-2 distance of the projections.

    Args:
        seed: seed of the random directions, from 0.

    Returns:
        A `StyleLoss`.

    Reference: Heitz et al. 2021, A Sliced Wasserstein Loss for Neural Texture Synthesis.
    Differs from Heitz: all iterations use the same directions, because L-BFGS needs a fixed objective.
    """

    def summary(features: tf.Tensor, weight: tf.Tensor | None) -> Quantiles:
        channels = features.shape[-1]
        vectors = np.random.default_rng([seed, channels]).normal(size=(1, channels, channels))
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        return _quantiles(tf.matmul(vectors.astype(np.float32), _rows(features)), weight)

    return StyleLoss(summary, quantile_distance, _barycentre)
