"""Relative distances of images from a content image and a style image, measured by one VGG in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.losses import gram_matrix
from tfstyle.network import Weights
from tfstyle.papers.vgg_encoders import vgg_encoder
from tfstyle.presets import FORMER_DEFAULTS

#: Options of the losses of Gatys et al., with Gram matrices and equal layer weights. Their style loss is the
#: style distance of `DistanceMeasure`. The defaults of `StyleConfig` weight channels and layers differently.
GRAM_LOSSES: Mapping[str, Any] = {
    option: FORMER_DEFAULTS[option]
    for option in (
        "style_losses",
        "style_layer_decay",
        "content_weight",
        "border_weight",
        "tv_weight",
        "spectrum_weight",
    )
}


class Distances(NamedTuple):
    """Relative distances of an image from its style image and its content image.

    A distance of 0 means that the Gram matrices or features are equal. A distance of 1 is that of zeros.

    Attributes:
        style_by_layer: layer -> ``Σ (G - A)² / Σ A²``, with the Gram matrices G of the image and A of the
            style image.
        content_by_layer: layer -> ``Σ (F - P)² / Σ P²``, with the features F of the image and P of the
            content image.
    """

    style_by_layer: Mapping[str, float]
    content_by_layer: Mapping[str, float]

    def __str__(self) -> str:
        """Return both means as text, for a caption."""
        return f"style {self.style:.2g}, content {self.content:.2g}"

    @property
    def style(self) -> float:
        """The mean of the style distances over the layers."""
        return float(np.mean(list(self.style_by_layer.values())))

    @property
    def content(self) -> float:
        """The mean of the content distances over the layers."""
        return float(np.mean(list(self.content_by_layer.values())))


class DistanceMeasure:
    """A function that measures the `Distances` of an image from a content image and a style image.

    Args:
        content: content image, float32 ``[height, width, 3]`` in 0..1. The measured images must have its
            size.
        style: style image, float32 ``[height, width, 3]`` in 0..1, of any size.
        vgg_weights: weights of VGG-19 or VGG-16, which is used with the default pooling and padding.
        content_layers: layers whose features are compared.
        style_layers: layers whose Gram matrices are compared.
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
        """Return the distances of an image, float32 ``[height, width, 3]`` in 0..1."""
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
    """Return a clause that defines the two distances, for a caption."""
    return (
        f"the style distance is the mean of Σ(G-A)²/ΣA² over {', '.join(style_layers)}, "
        f"and the content distance is the mean of Σ(F-P)²/ΣP² over {', '.join(content_layers)}"
    )
