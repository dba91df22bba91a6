"""Distances of images from a content and a style image, by one common VGG in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.losses import gram_matrix
from tfstyle.network import Weights
from tfstyle.papers.vgg_encoders import vgg_encoder


class Distances(NamedTuple):
    """Relative distances of an image from its style and its content; 0: equal, 1: as far as all zeros.

    Attributes:
        style_by_layer: layer -> ``Σ (G - A)² / Σ A²``.
        content_by_layer: layer -> ``Σ (F - P)² / Σ P²``.
    """

    style_by_layer: Mapping[str, float]
    content_by_layer: Mapping[str, float]

    def __str__(self) -> str:
        """Give both means, for a caption."""
        return f"style {self.style:.2g}, content {self.content:.2g}"

    @property
    def style(self) -> float:
        """The mean over layers."""
        return float(np.mean(list(self.style_by_layer.values())))

    @property
    def content(self) -> float:
        """The mean over layers."""
        return float(np.mean(list(self.content_by_layer.values())))


class DistanceMeasure:
    """A function from an image to its `Distances` from a content and a style image.

    Args:
        content: float32 ``[height, width, 3]`` in 0..1; the images to be measured have its size.
        style: the same, of any size.
        vgg_weights: weights of VGG-19 or VGG-16; average pooling, reflected borders.
        content_layers, style_layers: layers that are compared.
    """

    def __init__(
        self,
        content: np.ndarray,
        style: np.ndarray,
        *,
        vgg_weights: Weights,
        content_layers: Sequence[str],
        style_layers: Sequence[str],
    ) -> None:
        encoder = vgg_encoder(vgg_weights, (*content_layers, *style_layers))

        def represent(image: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
            features = encoder(image)
            grams = {layer: gram_matrix(features[layer]) for layer in style_layers}
            return grams, {layer: features[layer] for layer in content_layers}

        self._represent = tf.function(represent, autograph=False)
        self._style_grams, _ = self._represent(tf.constant(style[None]))
        _, self._content_features = self._represent(tf.constant(content[None]))

    def __call__(self, image: np.ndarray) -> Distances:
        """Measure an image, float32 ``[height, width, 3]`` in 0..1."""
        grams, features = self._represent(tf.constant(image[None]))
        return Distances(
            _relative_distances(grams, self._style_grams),
            _relative_distances(features, self._content_features),
        )


def _relative_distances(
    values: Mapping[str, tf.Tensor], targets: Mapping[str, tf.Tensor]
) -> dict[str, float]:
    return {
        layer: float(tf.nn.l2_loss(values[layer] - target) / tf.nn.l2_loss(target))
        for layer, target in targets.items()
    }


def describe_distances(content_layers: Sequence[str], style_layers: Sequence[str]) -> str:
    """Say what `Distances` are, for a caption."""
    return (
        f"style is the mean of Σ(G-A)²/ΣA² over {', '.join(style_layers)}, "
        f"content that of Σ(F-P)²/ΣP² over {', '.join(content_layers)}"
    )
