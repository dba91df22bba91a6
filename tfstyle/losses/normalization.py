"""What the losses of a layer are counted in: the paper's sums, means, or parts of what there is to lose."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfstyle.losses.style import StyleLoss


class ContentExtent(NamedTuple):
    """How much there is of a layer's features P: float32 scalars.

    Attributes:
        energy: ½ Σ P².
        positions: height times width of the layer.
        channels: of the layer.
        pixels: of the image.
    """

    energy: tf.Tensor
    positions: tf.Tensor
    channels: tf.Tensor
    pixels: tf.Tensor


class LossNormalization(NamedTuple):
    """What the losses of a layer are multiplied with, so that they are counted in some unit.

    Attributes:
        content: (`Extent` of the target features) -> scalar for ½ Σ (F - P)².
        style: (style loss, its distance from no features at all, channels) -> scalar.
    """

    content: Callable[[ContentExtent], tf.Tensor]
    style: Callable[[StyleLoss, tf.Tensor, int], tf.Tensor]


def _balanced_content(target: ContentExtent) -> tf.Tensor:
    area = target.pixels / target.positions
    return area / 64.0 * _inverse(target.energy)


def _inverse(energy: tf.Tensor) -> tf.Tensor:
    return tf.where(energy > 0, 1.0 / energy, 1.0)


def _entries(target: ContentExtent) -> tf.Tensor:
    return target.positions * target.channels


def _of_grams(factor: Callable[[int], float]) -> Callable[[StyleLoss, tf.Tensor, int], tf.Tensor]:
    """A factor by channels for Gram matrices; other style losses are means already."""
    return lambda loss, energy, channels: tf.constant(factor(channels) if loss.of_products else 1.0)


#: Losses relative to what they are compared with: of order 1 where the image has no features. A style
#: layer's becomes ``Σ(G - A)² / Σ A²``, a content layer's ``(a/64) Σ(F - P)² / Σ P²`` with a the pixels
#: that one position stands for, 64 at conv4. Then no layer drowns another, and the weights mean the same
#: at every size, for every encoder's weights and for either pooling. Without the factor a/64 a content
#: layer binds the tighter the lower it is: at one weight conv3_3 kept the photograph where conv4_2 let it
#: be painted. A target that is zero keeps its raw sum.
balanced_normalization = LossNormalization(_balanced_content, lambda loss, energy, channels: _inverse(energy))
#: Raw sums, as Gatys et al. write them: ½ Σ (F - P)², and 1/(4 N²) Σ (G - A)² with G = FᵀF / M.
paper_normalization = LossNormalization(lambda target: tf.constant(1.0), _of_grams(lambda n: 1.0))
#: Means over all entries: (F - P)² and (G - A)².
mean_normalization = LossNormalization(lambda target: 2.0 / _entries(target), _of_grams(lambda n: 4.0))
#: Means too, with Gram matrices divided by the number of channels, FᵀF / (N M).
channel_normalization = LossNormalization(mean_normalization.content, _of_grams(lambda n: 4.0 / n**2))
#: cysmith/neural-style-tf: ``Σ (F - P)² / (2 √N √M)``, and the paper's style loss.
root_normalization = LossNormalization(
    lambda target: 1.0 / tf.sqrt(_entries(target)), paper_normalization.style
)
