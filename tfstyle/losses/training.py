"""Content and style losses as Keras losses, for training image transformation networks such as those of
Johnson et al."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import keras
import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.images import load
from tfstyle.layers import as_names
from tfstyle.losses.gram import gram_matrix
from tfstyle.losses.normalization import ContentExtent, LossNormalization, balanced_normalization
from tfstyle.losses.objective import shares
from tfstyle.losses.style import GRAM
from tfstyle.network import Encoder, EncoderLayer, defaults_among, float_images
from tfstyle.optim import only_first_derivatives


@keras.saving.register_keras_serializable(package="tfstyle")
class ContentLoss(keras.losses.Loss):
    """The content loss of a network's output images, relative to the features of the true images.

    For each image it is ``Σ_l v_l Σ (F - P)² / Σ P²``, where F are the features of ``y_pred`` in layer l, P
    are those of ``y_true``, and the weights v_l add up to 1. ``y_true`` and ``y_pred`` are images ``[batch,
    height, width, 3]`` of the same size, sRGB in 0..1; ``y_true`` can be uint8. Values of ``y_pred`` outside
    0..1 are neither clipped nor rejected. With the default ``reduction``, Keras averages the losses over the
    batch.

    Args:
        encoder: an encoder or the result of `Encoder.as_layer`. It is not trained.
        layers: names of the content layers; by default the first of conv3_2, conv4_2 and conv2_2 that the
            encoder has.
        layer_weights: a weight for each layer, divided by their sum; by default equal weights.
        normalization: the factors of the loss of a layer, as for `tfstyle.Objective`.
        name, **options: options of `keras.losses.Loss`, such as ``reduction``.

    Raises:
        ConfigError: the encoder lacks a layer or has no default layer, or the weights of the layers are
            wrong.

    Reference: Johnson, Alahi, Fei-Fei 2016, arXiv 1603.08155, eq. 2; Gatys, Ecker, Bethge 2016, eq. 1.
    Differs from Johnson et al.: the sum of squared differences is divided by ``Σ P²`` instead of the number
    of features, so that a loss weight has the same meaning with every encoder, layer and image size.

    Example:
        >>> import numpy as np
        >>> from tfstyle import ContentLoss, Encoder
        >>> images = np.random.default_rng(0).random((2, 32, 48, 3), np.float32)
        >>> loss = ContentLoss(Encoder(("conv2_1",), "embedded"), layers=["conv2_1"])
        >>> float(loss(images, images)), round(float(loss(images, 0 * images)), 1) > 0
        (0.0, True)
    """

    def __init__(
        self,
        encoder: Encoder | EncoderLayer,
        *,
        layers: Sequence[str] | None = None,
        layer_weights: Sequence[float] | None = None,
        normalization: LossNormalization = balanced_normalization,
        name: str = "content_loss",
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        self._encoder = encoder
        layers = defaults_among(_layer_names(encoder))[0] if layers is None else layers
        self._shares = _shares(encoder, layers, layer_weights)
        self._normalization = normalization

    def __call__(self, y_true: Any, y_pred: tf.Tensor, sample_weight: Any = None) -> tf.Tensor:
        """Return the loss of a batch. ``y_true`` can be uint8, which Keras would not divide by 255."""
        return super().__call__(float_images(y_true), y_pred, sample_weight)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the loss of each image, float32 ``[batch]``."""
        targets = self._encoder.features(y_true)
        features = _output_features(self._encoder, y_pred)
        losses = []
        for layer, share in self._shares.items():
            target = tf.stop_gradient(tf.cast(targets[layer], tf.float32))
            _, height, width, channels = tf.unstack(tf.cast(tf.shape(target), tf.float32))
            factor = self._normalization.content(
                ContentExtent(_half_squares(target), height * width, channels)
            )
            losses.append(share * factor * _half_squares(tf.cast(features[layer], tf.float32) - target))
        return tf.add_n(losses)

    def __deepcopy__(self, memo: dict[int, Any]) -> ContentLoss:
        return _copy_loss(self, memo)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NoReturn:
        """Raise ConfigError, because a model file does not contain the encoder of the loss."""
        raise _not_stored(cls)


@keras.saving.register_keras_serializable(package="tfstyle")
class GramStyleLoss(keras.losses.Loss):
    """The style loss of a network's output images, relative to the Gram matrices of one style image.

    For each image it is ``Σ_l w_l Σ (G - A)² / Σ A²``, where G is the Gram matrix of ``y_pred`` in layer l,
    A is that of the style image, and the weights w_l add up to 1. ``y_pred`` are images ``[batch, height,
    width, 3]`` of any size, sRGB in 0..1. Values outside 0..1 are neither clipped nor rejected. ``y_true`` is
    not used and can be None.

    Args:
        encoder: an encoder or the result of `Encoder.as_layer`. It is not trained.
        style: the style image: a path, a PIL image, or an array ``[height, width, 3]`` of uint8, uint16 or
            floats in 0..1.
        size: longest side in pixels to which a larger style image is reduced; None for no limit. The network
            learns textures of the size in pixels that they have in the reduced style image.
        layers: names of the style layers; by default the style layers of `tfstyle.stylize` that the encoder
            has.
        layer_weights: a weight for each layer, divided by their sum; by default equal weights.
        normalization: the factors of the loss of a layer, as for `tfstyle.Objective`. With
            `tfstyle.losses.paper_normalization` the loss of a layer is ``1/(4 N²) Σ (G - A)²``.
        name, **options: options of `keras.losses.Loss`, such as ``reduction``.

    Raises:
        ConfigError: the encoder lacks a layer or has no default layer, or the weights of the layers or the
            size are wrong.
        ImageError: the style image cannot be read, or is too small.

    Reference: Johnson, Alahi, Fei-Fei 2016, arXiv 1603.08155, eq. 3 and 4; Gatys, Ecker, Bethge 2016, eq. 3
    to 5.

    Example:
        >>> import numpy as np
        >>> from tfstyle import Encoder, GramStyleLoss
        >>> style, image = np.random.default_rng(0).random((2, 32, 48, 3), np.float32)
        >>> loss = GramStyleLoss(Encoder(("conv1_1", "conv2_1"), "embedded"), style)
        >>> float(loss(None, style[None])) < 1e-6 < float(loss(None, image[None]))
        True
    """

    def __init__(
        self,
        encoder: Encoder | EncoderLayer,
        style: Any,
        *,
        size: int | None = None,
        layers: Sequence[str] | None = None,
        layer_weights: Sequence[float] | None = None,
        normalization: LossNormalization = balanced_normalization,
        name: str = "gram_style_loss",
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        self._encoder = encoder
        layers = defaults_among(_layer_names(encoder))[1] if layers is None else layers
        self._shares = _shares(encoder, layers, layer_weights)
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ConfigError(f"size is {size!r}; give a number of pixels, or None")
        image = load(style)
        image = image if size is None else image.fitted(size)
        features = encoder(image.on_white()[None])
        self._targets, self._factors = {}, {}
        for layer in self._shares:
            target = gram_matrix(features[layer])
            energy = GRAM.distance(tf.zeros_like(target), target)
            self._targets[layer] = target
            self._factors[layer] = normalization.style(GRAM, energy, target.shape[-1])

    def __call__(self, y_true: Any, y_pred: tf.Tensor, sample_weight: Any = None) -> tf.Tensor:
        """Return the loss of a batch. ``y_true`` is not used and can be None."""
        return super().__call__(y_pred if y_true is None else y_true, y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: tf.Tensor) -> tf.Tensor:
        """Return the loss of each image, float32 ``[batch]``. ``y_true`` is not used."""
        features = _output_features(self._encoder, y_pred)
        losses = []
        for layer, share in self._shares.items():
            gram, target = gram_matrix(features[layer]), self._targets[layer]
            channels = float(target.shape[-1])
            losses.append(share * self._factors[layer] * _half_squares(gram - target) / (2.0 * channels**2))
        return tf.add_n(losses)

    def __deepcopy__(self, memo: dict[int, Any]) -> GramStyleLoss:
        return _copy_loss(self, memo)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NoReturn:
        """Raise ConfigError, because a model file contains neither the encoder nor the style image."""
        raise _not_stored(cls)


def _layer_names(encoder: Encoder | EncoderLayer) -> tuple[str, ...]:
    """Return the names of an encoder's layers, or raise ConfigError if it is something else."""
    if isinstance(encoder, EncoderLayer):
        return encoder.feature_layers
    if not isinstance(encoder, Encoder):
        raise ConfigError(
            f"encoder is a {type(encoder).__name__}; give a tfstyle.Encoder or the result of its as_layer"
        )
    return encoder.layers


def _shares(
    encoder: Encoder | EncoderLayer, layers: Sequence[str], weights: Sequence[float] | None
) -> dict[str, float]:
    """Return layer -> its share of the loss, or raise ConfigError if the layers or weights are wrong."""
    available, layers = _layer_names(encoder), as_names(layers)
    missing = [layer for layer in layers if layer not in available]
    if missing or not layers:
        wrong = f"it has no {', '.join(missing)}" if missing else "it has no default layer of this loss"
        raise ConfigError(
            f"the encoder's layers are {', '.join(available)}, and {wrong}; choose layers from them"
        )
    if weights is not None and (len(weights) != len(layers) or min(weights) < 0 or sum(weights) <= 0):
        raise ConfigError(
            f"layer_weights is {list(weights)!r}; give {len(layers)} non-negative numbers, one for each of "
            f"{', '.join(layers)}, with a positive sum"
        )
    return shares(layers, weights)


def _output_features(encoder: Encoder | EncoderLayer, images: tf.Tensor) -> Mapping[str, tf.Tensor]:
    """Return the features of a network's output, which may leave 0..1 in training."""
    # Inside this context the range is not checked. The features can still be differentiated twice.
    with only_first_derivatives():
        return encoder.features(images)


def _half_squares(x: tf.Tensor) -> tf.Tensor:
    """Return ``½ Σ x²`` of each entry of a batch, float32 ``[batch]``."""
    return tf.reduce_sum(tf.square(x), axis=list(range(1, x.shape.rank))) / 2.0


def _copy_loss(loss: Any, memo: dict[int, Any]) -> Any:
    """Return a deep copy of a loss. Keras would make it from a configuration, which has no encoder."""
    new = memo[id(loss)] = object.__new__(type(loss))
    vars(new).update({name: copy.deepcopy(value, memo) for name, value in vars(loss).items()})
    return new


def _not_stored(loss: type) -> ConfigError:
    return ConfigError(
        f"a model file does not contain the encoder of {loss.__name__}; load the model with compile=False, "
        "and compile it again"
    )
