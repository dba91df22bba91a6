"""Style losses across layers: correlations of the channels of one layer with those of a deeper layer.

The Gram matrix of layers l and k is ``G^{lk} = F^l up(F^k)ᵀ / M_l`` of Novak, Nikulin 2016, arXiv 1605.04603.
``up`` enlarges the deeper layer k to the size of layer l by repeating each position, so that each value of
F^k is multiplied by the sum of F^l over the positions that it is repeated over. The same matrix is
``down(F^l) F^kᵀ / M_k``, where ``down`` averages F^l over these positions. This module computes the second
form, which enlarges no feature map. A last row or column of F^l that pooling drops is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from tfstyle.addons import gaussian_filter2d
from tfstyle.losses.style import StyleLoss, mean_contribution

Matrices = tuple[tf.Tensor, ...]


def cross_layer_gram(deeper_layers: int = 1, blurred: bool = False) -> StyleLoss:
    """Return the style loss of the Gram matrices ``G^{lk}`` of a layer l with deeper style layers k.

    The loss of layer l is the mean over k of ``1/(4 N_l N_k) Σ (G^{lk} - A^{lk})²``. The deepest style layer
    has no deeper layer. Its loss compares ``G^{ll}``.

    Args:
        deeper_layers: number of deeper style layers that are paired with each layer, from 1. With 1 the
            layers form the paper's chain, and with a large number every pair is used.
        blurred: whether to blur up(F^k) before the product, by a Gaussian whose standard deviation is half
            of the side that one position of F^k covers. Channels that are active near each other then
            contribute too.

    Returns:
        A `StyleLoss` whose summary takes a list of features, the layer's first and then those of the deeper
        layers, and gives a tuple of float32 ``[N_l, N_k]``.

    Reference: Novak, Nikulin 2016, "inter-layer", "chain" and "blurred" Gram matrices. The width of the blur
    is our reading.
    """

    def summary(features: Sequence[tf.Tensor], weight: tf.Tensor | None) -> Matrices:
        shallow, *deeper_features = features
        if weight is not None:
            shallow = tf.cast(shallow, tf.float32) * weight
        return tuple(
            _cross_gram(_downsample(shallow, deep, blurred), deep) for deep in deeper_features or features[:1]
        )

    def distance(matrices: Matrices, target: Matrices) -> tf.Tensor:
        terms = [tf.reduce_mean((g - a) ** 2) / 4.0 for g, a in zip(matrices, target, strict=True)]
        return tf.add_n(terms) / len(terms)

    # A blurred matrix is not a sum over tiles, because the blur reads positions beyond a tile's border.
    contribution = None if blurred else mean_contribution
    return StyleLoss(
        summary, distance, second_order=True, deeper_layers=deeper_layers, contribution=contribution
    )


def _downsample(features: tf.Tensor, deep: tf.Tensor, blurred: bool) -> tf.Tensor:
    """Average features ``[1, h, w, N]`` over the positions that each position of a deeper map covers."""
    h, w = deep.shape[1:3]
    ratio = _ratio(features.shape[1], h)
    if ratio == 1 and not blurred:
        return features[:, :h, :w]
    inside = features[:, : h * ratio, : w * ratio]
    if blurred:  # with zeros beyond the border, blurring either of the two maps gives the same matrix
        side = 2 * math.ceil(1.5 * ratio) + 1
        inside = gaussian_filter2d(inside, (side, side), sigma=ratio / 2, padding="CONSTANT")
    return tf.nn.avg_pool2d(inside, ratio, ratio, "SAME")[:, :h, :w]


def _ratio(side: int, deep_side: int) -> int:
    """Return how many positions along a side one position of a deeper map covers, a power of 2."""
    rounded_down = [2**k for k in range(side.bit_length()) if side // 2**k == deep_side]
    # Networks that pool with padding round the size up.
    return rounded_down[0] if rounded_down else 2 ** int(math.log2((side + 1) / deep_side))


def _cross_gram(features: tf.Tensor, deep: tf.Tensor) -> tf.Tensor:
    """Return ``FᵀF' / M`` of two feature maps of the same size, float32 ``[N, N']``."""
    rows = [tf.reshape(tf.cast(x, tf.float32), [-1, x.shape[-1]]) for x in (features, deep)]
    return tf.matmul(*rows, transpose_a=True) / tf.cast(tf.shape(rows[0])[0], tf.float32)
