"""Style losses across layers: which channels of one layer fire together with which of a deeper one.

``G^{lk} = F^l up(F^k)ᵀ / M_l`` of Novak, Nikulin 2016, arXiv 1605.04603, where ``up`` repeats each position
of the deeper layer k over the positions of l that it stands for. Each value of F^k then meets the sum of F^l
over those positions, so the same matrix is ``down(F^l) F^kᵀ / M_k`` with ``down`` the mean over them:
nothing is enlarged. (A last row or column that pooling drops is left out of F^l.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from tfstyle.addons import gaussian_filter2d
from tfstyle.losses.style import StyleLoss, mean_contribution

Matrices = tuple[tf.Tensor, ...]


def cross_layer_gram(deeper_layers: int = 1, blurred: bool = False) -> StyleLoss:
    """The matrices ``G^{lk}`` of a layer l with deeper style layers k; for the deepest layer ``G^{ll}``.

    The loss is the mean over k of ``1/(4 N_l N_k) Σ (G - A)²``.

    Args:
        deeper_layers: number of deeper style layers that are paired with l: 1 gives the paper's chain; a
            large number gives every pair.
        blurred: blur up(F^k) before it is multiplied with F^l, by a Gaussian whose standard deviation is
            half of the side that one position of F^k covers, so that channels which fire near each other
            count too.

    Reference: Novak, Nikulin 2016, "inter-layer", "chain" and "blurred" Gram matrices; the blur's width
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

    # A blur reads positions beyond a tile's border.
    contribution = None if blurred else mean_contribution
    return StyleLoss(
        summary, distance, second_order=True, deeper_layers=deeper_layers, contribution=contribution
    )


def _downsample(features: tf.Tensor, deep: tf.Tensor, blurred: bool) -> tf.Tensor:
    """Means of ``[1, h, w, N]`` over the positions that each position of a deeper map stands for."""
    h, w = deep.shape[1:3]
    ratio = _ratio(features.shape[1], h)
    if ratio == 1 and not blurred:
        return features[:, :h, :w]
    inside = features[:, : h * ratio, : w * ratio]
    if blurred:  # blurring either map gives the same matrix, where zeros lie beyond the border
        side = 2 * math.ceil(1.5 * ratio) + 1
        inside = gaussian_filter2d(inside, (side, side), sigma=ratio / 2, padding="CONSTANT")
    return tf.nn.avg_pool2d(inside, ratio, ratio, "SAME")[:, :h, :w]


def _ratio(side: int, deep_side: int) -> int:
    """How many positions along a side one position of a deeper map stands for: a power of 2."""
    rounded_down = [2**k for k in range(side.bit_length()) if side // 2**k == deep_side]
    # Networks that pool with padding round up.
    return rounded_down[0] if rounded_down else 2 ** int(math.log2((side + 1) / deep_side))


def _cross_gram(features: tf.Tensor, deep: tf.Tensor) -> tf.Tensor:
    """``FᵀF' / M`` of two maps of one size, float32 ``[N, N']``."""
    rows = [tf.reshape(tf.cast(x, tf.float32), [-1, x.shape[-1]]) for x in (features, deep)]
    return tf.matmul(*rows, transpose_a=True) / tf.cast(tf.shape(rows[0])[0], tf.float32)
