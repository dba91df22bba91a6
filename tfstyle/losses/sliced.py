"""Style losses that sort the values at all positions, so that they cannot be summed over tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.losses.style import StyleLoss, weighted_mean

#: Number of quantiles in a target's table.
QUANTILE_COUNT = 4096


class Quantiles(NamedTuple):
    """Sorted values of an image's features along D directions, float32.

    Attributes:
        values: ``[1, D, M]``, in rising order.
        below: the share of the total weight that lies below each value.
        share: of the total weight, of each value; both are ``[1, 1, M]`` where all weigh the same.
    """

    values: tf.Tensor
    below: tf.Tensor
    share: tf.Tensor


def _rows(features: tf.Tensor) -> tf.Tensor:
    """Features ``[1, h, w, N]`` as float32 ``[1, N, M]``."""
    rows = tf.reshape(tf.cast(features, tf.float32), [1, -1, features.shape[-1]])
    return tf.linalg.matrix_transpose(rows)


def _quantiles(rows: tf.Tensor, weight: tf.Tensor | None) -> Quantiles:
    positions = tf.shape(rows)[2]
    negated, indices = tf.math.top_k(-rows, positions)
    share = tf.ones([1, 1, positions]) if weight is None else tf.gather(tf.reshape(weight, [-1]), indices)
    # Summed in float32, a quarter of a million shares would be wrong by whole entries of a table.
    below = tf.cumsum(tf.cast(share, tf.float64), axis=2, exclusive=True)
    total = below[:, :, -1:] + tf.cast(share[:, :, -1:], tf.float64)
    return Quantiles(-negated, tf.cast(below / total, tf.float32), share / tf.cast(total, tf.float32))


def _barycentre(summaries: Sequence[Quantiles], weights: Sequence[float]) -> tf.Tensor:
    """The mean of the styles' quantile functions, their Wasserstein barycentre on each line.

    Returns:
        Its values at (k + ½) / `QUANTILE_COUNT`, float32 ``[1, D, QUANTILE_COUNT]``.
    """
    levels = (tf.range(QUANTILE_COUNT, dtype=tf.float32) + 0.5) / QUANTILE_COUNT
    tables = []
    for values, below, share in summaries:
        indices = tf.searchsorted(below + share, tf.broadcast_to(levels, [1, below.shape[1], QUANTILE_COUNT]))
        tables.append(_gather_rows(values, tf.minimum(indices, tf.shape(values)[2] - 1)))
    return weighted_mean(tables, weights)


def quantile_distance(quantiles: Quantiles, target: tf.Tensor) -> tf.Tensor:
    """``1/D Σ_d ∫ (X_d(p) - Q_d(p))² dp`` of quantile functions, p in 0..1; of sorted values, where as many.

    It is the Wasserstein-2 distance, squared, of the D distributions on a line. A target made of this
    image leaves some 1e-4 of its variance.

    Args:
        quantiles: whose steps X is made of.
        target: the K steps of Q, each 1/K long, ``[1, D, K]``.
    """
    centre = tf.reduce_mean(target, 2, keepdims=True)  # lest large means drown small variances
    steps, ends = target - centre, quantiles.below + quantiles.share
    means = _step_means(steps, quantiles.below * target.shape[2], ends * target.shape[2])
    # ∫ (x - Q)² over a value's own p is its share of (x - mean Q)², and of Q's variance there.
    apart = tf.reduce_sum(quantiles.share * (quantiles.values - centre - means) ** 2)
    within = tf.reduce_sum(tf.reduce_mean(steps**2, 2)) - tf.reduce_sum(quantiles.share * means**2)
    return (apart + tf.nn.relu(within)) / target.shape[1]


def _step_means(steps: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """The mean of each row between low and high, both in 0..K, of steps ``[1, D, K]``."""
    first, last = (tf.minimum(tf.cast(bound, tf.int32), steps.shape[2] - 1) for bound in (low, high))
    longer, sums = last > first, tf.cumsum(steps, axis=2, exclusive=True)
    head = tf.maximum(tf.minimum(high, tf.cast(first + 1, tf.float32)) - low, 1e-6)
    tail = tf.where(longer, high - tf.cast(last, tf.float32), 0.0)
    whole = tf.cast(tf.maximum(last - first - 1, 0), tf.float32)
    inner = tf.where(longer, _gather_rows(sums, last) - _gather_rows(sums, tf.minimum(first + 1, last)), 0.0)
    ends = head * _gather_rows(steps, first) + tail * _gather_rows(steps, last)
    return (ends + inner) / (head + whole + tail)


def _gather_rows(table: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Entries ``[1, D, P]`` of ``[1, D, K]`` at indices ``[1, D, P]``, or ``[1, 1, P]`` for all rows."""
    if indices.shape[1] == 1:
        return tf.gather(table, indices[0, 0], axis=2)
    return tf.gather(table, indices, axis=2, batch_dims=2)


#: Every channel's values, compared by `quantile_distance`: the histogram loss of Risser, Wilmot, Barnes 2017
#: (Stable and Controllable Neural Texture Synthesis), with the style's sorted values in place of bins.
HISTOGRAM = StyleLoss(lambda f, w: _quantiles(_rows(f), w), quantile_distance, _barycentre)


def sliced_wasserstein(seed: int = 0) -> StyleLoss:
    """The sliced Wasserstein distance: `quantile_distance` along N random directions, N the channels.

    Reference: Heitz et al. 2021, A Sliced Wasserstein Loss for Neural Texture Synthesis.
    Differs from Heitz: the directions stay the same from one iteration to the next, as L-BFGS needs.
    """

    def summary(features: tf.Tensor, weight: tf.Tensor | None) -> Quantiles:
        channels = features.shape[-1]
        vectors = np.random.default_rng([seed, channels]).normal(size=(1, channels, channels))
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        return _quantiles(tf.matmul(vectors.astype(np.float32), _rows(features)), weight)

    return StyleLoss(summary, quantile_distance, _barycentre)
