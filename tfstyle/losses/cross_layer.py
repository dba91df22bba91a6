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


def cross_layer_gram(deeper: int = 1, blurred: bool = False) -> StyleLoss:
    """The matrices ``G^{lk}`` of a layer l with deeper style layers k; the deepest layer has its own, G^{ll}.

    The loss is the mean over k of ``1/(4 N_l N_k) Σ (G - A)²``.

    Args:
        deeper: how many layers above l: 1 is the paper's chain; with many, every pair.
        blurred: up(F^k) blurred before it meets F^l, by a Gaussian whose deviation is half of what one of
            its positions stands for: what fires near each other counts too.

    Reference: Novak, Nikulin 2016, "inter-layer", "chain" and "blurred" Gram matrices; the blur's width
    is our reading.
    """

    def summary(features: Sequence[tf.Tensor], weight: tf.Tensor | None) -> Matrices:
        own, *others = features
        if weight is not None:
            own = tf.cast(own, tf.float32) * weight
        return tuple(_across(_down(own, other, blurred), other) for other in others or features[:1])

    def distance(found: Matrices, target: Matrices) -> tf.Tensor:
        terms = [tf.reduce_mean((g - a) ** 2) / 4.0 for g, a in zip(found, target, strict=True)]
        return tf.add_n(terms) / len(terms)

    # What a blur adds at a position lies in part beyond a tile's border.
    addend = None if blurred else mean_contribution
    return StyleLoss(summary, distance, of_products=True, deeper=deeper, addend=addend)


def _down(features: tf.Tensor, deeper: tf.Tensor, blurred: bool) -> tf.Tensor:
    """Means of ``[1, h, w, N]`` over what each position of a deeper map stands for: that map's size."""
    h, w = deeper.shape[1:3]
    ratio = _ratio(features.shape[1], h)
    if ratio == 1 and not blurred:
        return features[:, :h, :w]
    inside = features[:, : h * ratio, : w * ratio]
    if blurred:  # one map blurred is as good as the other, where nothing lies beyond the border
        side = 2 * math.ceil(1.5 * ratio) + 1
        inside = gaussian_filter2d(inside, (side, side), ratio / 2, "CONSTANT")
    return tf.nn.avg_pool2d(inside, ratio, ratio, "SAME")[:, :h, :w]


def _ratio(side: int, deeper: int) -> int:
    """How many positions one of a deeper map stands for, along a side: a power of 2."""
    rounded_down = [2**k for k in range(side.bit_length()) if side // 2**k == deeper]
    # Networks that pool with padding round up.
    return rounded_down[0] if rounded_down else 2 ** int(math.log2((side + 1) / deeper))


def _across(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """``FᵀF' / M`` of two maps of one size, float32 ``[N, N']``."""
    rows = [tf.reshape(tf.cast(x, tf.float32), [-1, x.shape[-1]]) for x in (one, other)]
    return tf.matmul(*rows, transpose_a=True) / tf.cast(tf.shape(rows[0])[0], tf.float32)
