"""Factors that normalize the losses of a layer: the paper's sums, means, or parts of the target's energy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfstyle.losses.style import StyleLoss


class ContentExtent(NamedTuple):
    """The energy and the sizes of a layer's target features P: float32 scalars.

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
    """The factors that the losses of a layer are multiplied by.

    Attributes:
        content: (`ContentExtent` of the target features) -> scalar for ½ Σ (F - P)².
        style: (style loss, its distance between features of zero and the target, channels) -> scalar.
    """

    content: Callable[[ContentExtent], tf.Tensor]
    style: Callable[[StyleLoss, tf.Tensor, int], tf.Tensor]


def _balanced_content(target: ContentExtent) -> tf.Tensor:
    pixels_per_position = target.pixels / target.positions
    return pixels_per_position / 64.0 * _inverse(target.energy)


def _inverse(energy: tf.Tensor) -> tf.Tensor:
    """1 / energy, or 1 where the energy is 0."""
    return tf.where(energy > 0, 1.0 / energy, 1.0)


def _entry_count(target: ContentExtent) -> tf.Tensor:
    return target.positions * target.channels


def _gram_factor(factor: Callable[[int], float]) -> Callable[[StyleLoss, tf.Tensor, int], tf.Tensor]:
    """A factor that depends on the channels, for Gram matrices; other style losses are means already."""
    return lambda loss, energy, channels: tf.constant(factor(channels) if loss.second_order else 1.0)


#: Losses relative to the target, of order 1 where the image has no features: ``Σ(G - A)² / Σ A²`` in a style
#: layer, ``(a/64) Σ(F - P)² / Σ P²`` in a content layer, a being the pixels that one position stands for, 64
#: at conv4. Then no layer outweighs the others, and the weights mean the same at every size, for every
#: encoder's weights and for either pooling. Without the factor a/64 a content layer constrains the image the
#: more the shallower it is: at one weight conv3_3 kept the photograph where conv4_2 let the style change it.
#: A target of zeros keeps its raw sum.
balanced_normalization = LossNormalization(_balanced_content, lambda loss, energy, channels: _inverse(energy))
#: Raw sums, as Gatys et al. write them: ½ Σ (F - P)², and 1/(4 N²) Σ (G - A)² with G = FᵀF / M.
paper_normalization = LossNormalization(lambda target: tf.constant(1.0), _gram_factor(lambda n: 1.0))
#: Means over all entries: (F - P)² and (G - A)².
mean_normalization = LossNormalization(lambda target: 2.0 / _entry_count(target), _gram_factor(lambda n: 4.0))
#: Means too, with Gram matrices divided by the number of channels, FᵀF / (N M).
channel_normalization = LossNormalization(mean_normalization.content, _gram_factor(lambda n: 4.0 / n**2))
#: cysmith/neural-style-tf: ``Σ (F - P)² / (2 √N √M)``, and the paper's style loss.
root_normalization = LossNormalization(
    lambda target: 1.0 / tf.sqrt(_entry_count(target)), paper_normalization.style
)
