"""Normalisations of the losses of a layer: the paper's sums, means, or losses relative to the target."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfstyle.losses.style import StyleLoss


class ContentExtent(NamedTuple):
    """The energy of the target features P of a content layer, and their sizes, as float32 scalars.

    Attributes:
        energy: ½ Σ P².
        positions: height times width of the layer.
        channels: number of channels of the layer.
    """

    energy: tf.Tensor
    positions: tf.Tensor
    channels: tf.Tensor


class LossNormalization(NamedTuple):
    """The factors by which the content loss and the style losses of a layer are multiplied.

    Attributes:
        content: function of the `ContentExtent` of the target features; it gives the scalar factor of
            ½ Σ (F - P)².
        style: function of the style loss, of the distance between the summary of features of zero and the
            target, and of the number of channels; it gives the scalar factor of the style loss.
    """

    content: Callable[[ContentExtent], tf.Tensor]
    style: Callable[[StyleLoss, tf.Tensor, int], tf.Tensor]


def _inverse(energy: tf.Tensor) -> tf.Tensor:
    """Return 1 / energy, or 1 if the energy is 0."""
    return tf.where(energy > 0, 1.0 / energy, 1.0)


def _entry_count(target: ContentExtent) -> tf.Tensor:
    return target.positions * target.channels


def _gram_factor(factor: Callable[[int], float]) -> Callable[[StyleLoss, tf.Tensor, int], tf.Tensor]:
    """Return a style factor for Gram matrices; other style losses are means already and get the factor 1."""
    return lambda loss, energy, channels: tf.constant(factor(channels) if loss.second_order else 1.0)


#: Losses relative to their targets: ``Σ (G - A)² / Σ A²`` in a style layer and ``Σ (F - P)² / Σ P²`` in a
#: content layer. For features of zero they are 1. No layer outweighs the others, and the loss weights have
#: the same meaning at every size, with the weights of every encoder and with either pooling. If a target is
#: zero, the division is left out.
balanced_normalization = LossNormalization(
    lambda target: _inverse(target.energy), lambda loss, energy, channels: _inverse(energy)
)
#: Sums, as Gatys et al. define them: ``½ Σ (F - P)²``, and ``1/(4 N²) Σ (G - A)²`` with ``G = FᵀF / M``.
paper_normalization = LossNormalization(lambda target: tf.constant(1.0), _gram_factor(lambda n: 1.0))
#: Means of ``(F - P)²`` and ``(G - A)²`` over all entries.
mean_normalization = LossNormalization(lambda target: 2.0 / _entry_count(target), _gram_factor(lambda n: 4.0))
#: The same means, for Gram matrices that are divided by the number of channels too, ``FᵀF / (N M)``.
channel_normalization = LossNormalization(mean_normalization.content, _gram_factor(lambda n: 4.0 / n**2))
#: The losses of cysmith/neural-style-tf: ``Σ (F - P)² / (2 √N √M)``, and the paper's style loss.
root_normalization = LossNormalization(
    lambda target: 1.0 / tf.sqrt(_entry_count(target)), paper_normalization.style
)
