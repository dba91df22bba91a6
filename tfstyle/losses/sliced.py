"""Style losses that sort: all positions at once, so neither sums over tiles nor of products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.losses.style import StyleLoss, weighted_mean

#: Entries of a target's quantile table.
LEVELS = 4096


class Quantiles(NamedTuple):
    """``[1, D, M]`` values in rising order along D directions, the share of all weight that lies below each,
    and that of each; the shares are ``[1, 1, M]`` if all weigh the same. float32.
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
    negated, order = tf.math.top_k(-rows, positions)
    share = tf.ones([1, 1, positions]) if weight is None else tf.gather(tf.reshape(weight, [-1]), order)
    # A quarter of a million addends in float32 would leave errors of whole entries of a table.
    below = tf.cumsum(tf.cast(share, tf.float64), axis=2, exclusive=True)
    total = below[:, :, -1:] + tf.cast(share[:, :, -1:], tf.float64)
    return Quantiles(-negated, tf.cast(below / total, tf.float32), share / tf.cast(total, tf.float32))


def _barycentre(summaries: Sequence[Quantiles], weights: Sequence[float]) -> tf.Tensor:
    """The mean quantile function, of the styles' Wasserstein barycentre on each line, at (k + ½)/`LEVELS`."""
    levels = (tf.range(LEVELS, dtype=tf.float32) + 0.5) / LEVELS
    tables = []
    for values, below, share in summaries:
        found = tf.searchsorted(below + share, tf.broadcast_to(levels, [1, below.shape[1], LEVELS]))
        tables.append(_along_rows(values, tf.minimum(found, tf.shape(values)[2] - 1)))
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
    first, last = (tf.minimum(tf.cast(place, tf.int32), steps.shape[2] - 1) for place in (low, high))
    longer, sums = last > first, tf.cumsum(steps, axis=2, exclusive=True)
    head = tf.maximum(tf.minimum(high, tf.cast(first + 1, tf.float32)) - low, 1e-6)
    tail = tf.where(longer, high - tf.cast(last, tf.float32), 0.0)
    whole = tf.cast(tf.maximum(last - first - 1, 0), tf.float32)
    inner = tf.where(longer, _along_rows(sums, last) - _along_rows(sums, tf.minimum(first + 1, last)), 0.0)
    ends = head * _along_rows(steps, first) + tail * _along_rows(steps, last)
    return (ends + inner) / (head + whole + tail)


def _along_rows(table: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Entries ``[1, D, P]`` of ``[1, D, K]`` at places ``[1, D, P]``, or ``[1, 1, P]`` alike for all rows."""
    if places.shape[1] == 1:
        return tf.gather(table, places[0, 0], axis=2)
    return tf.gather(table, places, axis=2, batch_dims=2)


#: Every channel's values, compared by `quantile_distance`: the histogram loss of Risser, Wilmot, Barnes 2017
#: (Stable and Controllable Neural Texture Synthesis), with the style's sorted values in place of bins.
HISTOGRAM = StyleLoss(lambda f, w: _quantiles(_rows(f), w), quantile_distance, _barycentre)


def sliced_wasserstein(seed: int = 0) -> StyleLoss:
    """The sliced Wasserstein distance: `quantile_distance` along as many random directions as channels.

    Reference: Heitz et al. 2021, A Sliced Wasserstein Loss for Neural Texture Synthesis.
    Differs from Heitz: the directions stay the same from one iteration to the next, as L-BFGS needs.
    """

    def summary(features: tf.Tensor, weight: tf.Tensor | None) -> Quantiles:
        channels = features.shape[-1]
        vectors = np.random.default_rng([seed, channels]).normal(size=(1, channels, channels))
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        return _quantiles(tf.matmul(vectors.astype(np.float32), _rows(features)), weight)

    return StyleLoss(summary, quantile_distance, _barycentre)
