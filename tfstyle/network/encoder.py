"""The encoder: VGG-19, VGG-16 or any Keras model, from an image to named feature maps.

The only module that knows of blue-green-red, 0..255, the ImageNet means and Keras' layer names.
"""

from __future__ import annotations

import functools
import math
import numbers
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from tfstyle.backend import check_backend
from tfstyle.config import CONTENT_LAYERS, STYLE_LAYERS
from tfstyle.errors import ConfigError, ImageError, WeightsError
from tfstyle.layers import NETWORKS, Layer, find_layer, layer_names
from tfstyle.network.vgg import PADDINGS, POOLINGS, apply_model, build_vgg, fill_vgg, submodel
from tfstyle.network.weights import Weights, load_weights

# The mean of the ImageNet photographs, BGR in 0..255, as the Oxford network was trained with.
IMAGENET_MEAN = (103.939, 116.779, 123.68)
# Activations reach 10^4 and float16 ends at 65504. ReLU and pooling are homogeneous: an image and
# biases divided by this give features divided by it, which are multiplied again in float32.
FLOAT16_GAIN = 256.0
#: The network, pooling and padding of an `Encoder.from_model`.
CUSTOM_MODEL = "model's own"


class Encoder:
    """VGG's convolutional part as a function from images to features.

    The network is `keras.applications.VGG19(include_top=False)` or VGG16, with its max pools swapped
    for average pools, cut above the deepest of the layers, and frozen. `from_model` takes another model.

    Args:
        layers: the papers' names, ``conv1_1`` .. ``conv5_4``; features are taken after the ReLU.
        weights: a name or file as `tfstyle.network.load_weights` takes it, or `Weights`.
        pooling: ``avg`` (Gatys et al.), ``max`` (the network as trained) or ``rescaled``, twice the
            average, so that activations do not shrink.
        padding: ``zeros`` (as trained), ``reflect``, ``replicate`` or ``circular`` (the opposite
            border, for images that tile), at every convolution, or ``replicate_first``: replicate at the
            first convolution, zeros at the others.
        dtype: what the convolutions compute in: ``float32``, ``bfloat16`` or ``float16``. Features
            come out as float32.
        network: ``vgg19`` or ``vgg16``, which has no conv3_4, conv4_4 and conv5_4.
        pixel_range: the value of white before the ImageNet means are subtracted; 256 in Torch's neural-style.
        feature_scale: factor of the features, in float32, which gives them another program's scale.

    Attributes:
        model: the `keras.Model` inside; takes BGR less the ImageNet means.
        minimum_size: the smallest height and width in pixels of an image.

    Raises:
        ConfigError: an unknown layer, pooling, padding, dtype or network, or a number not positive.
        WeightsError: the weights cannot be had, are another network's, or stop below a layer asked for.
        BackendError: Keras runs on something else than TensorFlow, or channels first.
    """

    def __init__(
        self,
        layers: Iterable[str] = (*STYLE_LAYERS, *CONTENT_LAYERS),
        weights: str | os.PathLike[str] | Weights = "imagenet",
        *,
        pooling: str = "avg",
        padding: str = "reflect",
        dtype: str = "float32",
        network: str = "vgg19",
        pixel_range: float = 255.0,
        feature_scale: float = 1.0,
    ) -> None:
        check_backend()
        self.network = _check_choice("network", network, NETWORKS)
        chosen = sorted({find_layer(name, network) for name in layers})
        self.layers = tuple(layer.name for layer in chosen)
        self.pooling = _check_choice("pooling", pooling, POOLINGS)
        self.padding = _check_choice("padding", padding, PADDINGS)
        self.dtype = _check_choice("dtype", dtype, ("float32", "bfloat16", "float16"))
        self.pixel_range = _check_positive("pixel_range", pixel_range)
        self.feature_scale = _check_positive("feature_scale", feature_scale)
        if not self.layers:
            raise ConfigError(f"an encoder needs at least one layer of {', '.join(layer_names(network))}")
        self.weights = load_weights(weights, network=network)
        deepest = chosen[-1]
        if deepest not in self.weights.layers:
            available = ", ".join(self.weights.layer_names)
            raise WeightsError(f"{self.weights.source} has no weights for {deepest.name}; it has {available}")
        self.model = build_vgg(network, chosen, pooling=pooling, padding=padding, dtype=dtype)
        self._gain = FLOAT16_GAIN if dtype == "float16" else 1.0
        fill_vgg(self.model, self.weights.arrays, gain=self._gain)
        self._preprocess: Callable[[tf.Tensor], tf.Tensor] = functools.partial(
            network_input, pixel_range=self.pixel_range
        )
        # A reflected border needs a second pixel to reflect.
        self.minimum_size = (2 if padding == "reflect" else 1) * deepest.stride

    @classmethod
    def from_model(
        cls,
        model: keras.Model,
        preprocess: Callable[[tf.Tensor], tf.Tensor],
        *,
        layers: Iterable[str],
        minimum_size: int = 1,
    ) -> Encoder:
        """An encoder of any functional Keras model, used as in inference.

        The model itself is neither changed nor copied: the encoder shares its layers and weights.

        Args:
            model: channels last, with one input.
            preprocess: from float32 images ``[batch, height, width, 3]`` in 0..1 to the model's input.
            layers: the model's own names; features come in this order.
            minimum_size: the smallest height and width in pixels that the layers allow.

        Returns:
            An encoder whose ``weights`` hold the model's name and no arrays, and whose ``network``,
            ``pooling`` and ``padding`` are "model's own".

        Raises:
            ConfigError: no layer, an unknown one, or one whose output has not four axes; a model with
                several inputs or not functional.
        """
        check_backend()
        encoder = cls.__new__(cls)
        encoder.layers = tuple(dict.fromkeys(layers))
        if not encoder.layers:
            raise ConfigError(f"an encoder needs at least one layer of {model.name}")
        encoder.model = submodel(model, encoder.layers)
        encoder.weights = Weights({}, model.name, network=CUSTOM_MODEL)
        encoder.network = encoder.pooling = encoder.padding = CUSTOM_MODEL
        encoder.dtype = tf.as_dtype(encoder.model.outputs[0].dtype).name
        encoder.pixel_range = encoder.feature_scale = encoder._gain = 1.0
        encoder._preprocess = preprocess
        encoder.minimum_size = minimum_size
        return encoder

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute the features of images.

        Args:
            images: float ``[batch, height, width, 3]``, sRGB in 0..1; not clipped.

        Returns:
            layer -> float32 ``[batch, height / 2^p, width / 2^p, N]``, p the pools below the layer,
            sizes rounded down; of `from_model`, what the layer gives.

        Raises:
            ImageError: not four axes with three channels last, or smaller than `minimum_size`.
        """
        return {name: tf.cast(features, tf.float32) for name, features in self.features(images).items()}

    def features(
        self, images: tf.Tensor, variables: Sequence[tf.Tensor] | None = None
    ) -> dict[str, tf.Tensor]:
        """The same without the copy to float32 where the network computes in bfloat16.

        What `Objective` takes: its sums are in float32 anyhow.

        Args:
            images: as above.
            variables: float32 values to be used in place of `model.variables`, in their order.
        """
        images = tf.convert_to_tensor(images, tf.float32)
        self._check_shape(images.shape)
        inputs = self._model_input(images)
        features = apply_model(self.model, inputs, variables=variables)
        factor = self._gain * self.feature_scale
        if factor == 1:
            return {name: features[name] for name in self.layers}
        return {name: tf.cast(features[name], tf.float32) * factor for name in self.layers}

    def _model_input(self, images: tf.Tensor) -> tf.Tensor:
        """The model's input, in its type."""
        inputs = tf.convert_to_tensor(self._preprocess(images))
        if self.network != CUSTOM_MODEL:
            return tf.cast(inputs / self._gain if self._gain != 1 else inputs, self.dtype)
        expected = tf.TensorShape(self.model.inputs[0].shape)
        if not inputs.shape.is_compatible_with(expected):
            raise ImageError(f"{self.weights.source} takes {expected}, and preprocess gives {inputs.shape}")
        return inputs

    def normalized(self, images: tf.Tensor | Sequence[tf.Tensor]) -> Encoder:
        """A new encoder in which every filter's mean activation over these images is 1.

        Bottom up, a layer's kernel is multiplied by the means of the filters it reads and, with its
        bias, divided by its own means. ReLU and pooling are homogeneous, so that the new features
        times the means are the old ones. A filter that hardly ever fires is left alone. `feature_scale`
        comes on top: the means are 1 before it.

        Args:
            images: float ``[batch, height, width, 3]`` in 0..1, or a list of such of any sizes.

        Raises:
            ConfigError: the encoder is `from_model`'s, whose filters are not known here.

        Reference: Gatys, Ecker, Bethge 2016, section 2.
        """
        if self.network == CUSTOM_MODEL:
            raise ConfigError(f"{self.weights.source} cannot be normalized, only VGG-19 and VGG-16 can")
        means = self._mean_activations(images if isinstance(images, (list, tuple)) else [images])
        input_scale = np.ones(3)  # of the filters that a layer reads
        arrays = {}
        for name, mean in means.items():
            # A filter that hardly ever fires would outweigh all others in the first image where it does.
            scale = np.where(mean > 1e-4 * mean.mean(), mean, 1.0)
            kernel, bias = (self.weights.arrays[f"{name}/{kind}"] for kind in ("kernel", "bias"))
            arrays[f"{name}/kernel"] = (kernel * input_scale[:, None] / scale).astype(np.float32)
            arrays[f"{name}/bias"] = (bias / scale).astype(np.float32)
            input_scale = scale
        weights = replace(self.weights, arrays=arrays, source=f"{self.weights.source}, normalized")
        return self._copy_with(self.layers, weights, self.dtype, self.feature_scale)

    def _copy_with(
        self, layers: Iterable[str], weights: Weights, dtype: str, feature_scale: float
    ) -> Encoder:
        """A new encoder with these values and this one's other options."""
        return Encoder(
            layers, weights, pooling=self.pooling, padding=self.padding, dtype=dtype, network=self.network,
            pixel_range=self.pixel_range, feature_scale=feature_scale,
        )  # fmt: skip

    def _mean_activations(self, images: Sequence[tf.Tensor]) -> dict[str, np.ndarray]:
        """Keras' name -> mean of each filter, float64 ``[N]``, of features computed in float32."""
        layers = [x for x in NETWORKS[self.network] if x <= Layer.parse(self.layers[-1])]
        encoder = self._copy_with([layer.name for layer in layers], self.weights, "float32", 1.0)
        sums = [np.zeros(layer.filters) for layer in layers]
        counts = np.zeros(len(layers))
        for batch in images:
            for i, features in enumerate(encoder(batch).values()):
                count = np.prod(features.shape[:3])
                sums[i] += count * tf.reduce_mean(features, axis=(0, 1, 2)).numpy()
                counts[i] += count
        return {layer.keras_name: s / n for layer, s, n in zip(layers, sums, counts, strict=True)}

    def _check_shape(self, shape: tf.TensorShape) -> None:
        if shape.rank != 4 or shape[-1] not in (3, None):
            hint = "; channels come last" if shape.rank == 4 and shape[1] == 3 else ""
            raise ImageError(f"images have shape {shape}; expected [batch, height, width, 3]{hint}")
        for axis, name in ((1, "height"), (2, "width")):
            if shape[axis] is not None and shape[axis] < self.minimum_size:
                raise ImageError(
                    f"{name} {shape[axis]} is too small for {self.layers[-1]}: at least "
                    f"{self.minimum_size} pixels are needed"
                )


def network_input(images: tf.Tensor, pixel_range: float = 255.0) -> tf.Tensor:
    """The input of `Encoder.model`: blue, green, red in 0..255, less the ImageNet means.

    Args:
        images: float32 ``[batch, height, width, 3]``, sRGB in 0..1.
        pixel_range: the value of white.
    """
    return tf.reverse(images, [-1]) * pixel_range - tf.constant(IMAGENET_MEAN)


def _check_choice(option: str, value: str, choices: Iterable[str]) -> str:
    if value not in choices:
        raise ConfigError(f"{option} is {value!r}; it can be {', '.join(choices)}")
    return value


def _check_positive(option: str, value: float) -> float:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise ConfigError(f"{option} is {value!r}; it must be a number above 0")
    return float(value)
