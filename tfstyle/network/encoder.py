"""The encoder: VGG-19, VGG-16 or any Keras model as a function from images to feature maps by layer."""

from __future__ import annotations

import functools
import math
import numbers
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfstyle.backend import check_backend, is_symbolic
from tfstyle.config import (
    CONTENT_LAYERS,
    PADDING,
    PAPER_CONTENT_LAYERS,
    POOLING,
    SHALLOW_CONTENT_LAYERS,
    STYLE_LAYERS,
)
from tfstyle.errors import ConfigError, WeightsError
from tfstyle.layers import NETWORKS, Layer, as_names, check_network, find_layer, layer_names
from tfstyle.network.encoder_layer import EncoderLayer
from tfstyle.network.preprocessing import VGGPreprocessing
from tfstyle.network.vgg import PADDINGS, POOLINGS, build_vgg, fill_vgg, submodel
from tfstyle.network.weights import Weights, load_weights

#: Values of `Encoder.dtype`. With a mixed policy of Keras the variables are float32.
DTYPES = ("float32", "bfloat16", "float16", "mixed_bfloat16", "mixed_float16")
# Activations reach 10^4, and the largest float16 is 65504. Convolution, ReLU and pooling are homogeneous: if
# the input and the biases are divided by this number, so are the features, which are then multiplied by it in
# float32.
FLOAT16_GAIN = 256.0
#: Value of `network`, `pooling` and `padding` of an encoder that was made by `Encoder.from_model`.
CUSTOM_MODEL = "model's own"


class Encoder:
    """The convolutional part of VGG as a function from images to features.

    The network is `keras.applications.VGG19(include_top=False)` or VGG16 with the given pooling and padding.
    It ends at the deepest of the layers and is frozen. `from_model` makes an encoder from another model.

    Args:
        layers: the papers' names of the layers, ``conv1_1`` .. ``conv5_4``. Features are taken after the
            ReLU.
        weights: `Weights`, or a name or a file that `tfstyle.network.load_weights` takes.
        pooling: ``avg`` (Gatys et al.), ``max`` (as the network was trained) or ``rescaled`` (twice the
            average, so that activations do not shrink with depth).
        padding: padding of every convolution: ``zeros`` (as the network was trained), ``reflect``,
            ``replicate`` or ``circular`` (the opposite border, for seamless textures). With
            ``replicate_first`` the first convolution uses ``replicate`` and the others use ``zeros``.
        dtype: dtype in which the network computes: ``float32``, ``bfloat16`` or ``float16``; or the name of
            a Keras policy with float32 variables, ``mixed_bfloat16`` or ``mixed_float16``. The features that
            a call returns are float32.
        network: ``vgg19``, or ``vgg16``, which has no conv3_4, conv4_4 and conv5_4.
        pixel_range: value of white before the ImageNet means are subtracted, 256 in Torch's neural-style.
        feature_scale: positive factor by which the features are multiplied in float32. It gives them the
            scale of another program.

    Attributes:
        layers: names of the layers, from the first to the deepest. With `from_model`, in the order given.
        weights: the `Weights` of the network.
        model: the `keras.Model` that computes the features. For VGG its input is BGR in 0..`pixel_range`
            minus the ImageNet means, divided by 256 if the network computes in ``float16``.
        minimum_size: smallest height and width of an image in pixels.

    Raises:
        ConfigError: no layer is given; a layer, the pooling, the padding, the dtype or the network is
            unknown; or `pixel_range` or `feature_scale` is not a positive finite number.
        WeightsError: the weights are not available, are for another network, or end below one of the layers.
        BackendError: Keras does not run on TensorFlow, or its image data format is not channels last.

    Example:
        >>> import numpy as np
        >>> from tfstyle import Encoder
        >>> encoder = Encoder(("conv1_1", "conv3_1"), weights="random")
        >>> features = encoder(np.zeros((1, 64, 48, 3), np.float32))
        >>> {layer: tuple(maps.shape) for layer, maps in features.items()}
        {'conv1_1': (1, 64, 48, 64), 'conv3_1': (1, 16, 12, 256)}
    """

    def __init__(
        self,
        layers: Iterable[str] = (*STYLE_LAYERS, *CONTENT_LAYERS, *PAPER_CONTENT_LAYERS),
        weights: str | os.PathLike[str] | Weights = "imagenet",
        *,
        pooling: str = POOLING,
        padding: str = PADDING,
        dtype: str = "float32",
        network: str = "vgg19",
        pixel_range: float = 255.0,
        feature_scale: float = 1.0,
    ) -> None:
        check_backend()
        check_network(network)
        self.network = network
        chosen = sorted({find_layer(name, network) for name in as_names(layers)})
        self.layers = tuple(layer.name for layer in chosen)
        self.pooling = _check_choice("pooling", pooling, POOLINGS)
        self.padding = _check_choice("padding", padding, PADDINGS)
        self.dtype = _check_choice("dtype", dtype, DTYPES)
        self.pixel_range = _check_positive("pixel_range", pixel_range)
        self.feature_scale = _check_positive("feature_scale", feature_scale)
        if not self.layers:
            raise ConfigError(f"layers is empty; give at least one of {', '.join(layer_names(network))}")
        self.weights = load_weights(weights, network=network)
        deepest = chosen[-1]
        if deepest not in self.weights.layers:
            available = ", ".join(self.weights.layer_names)
            raise WeightsError(
                f"the weights {self.weights.source} end below {deepest.name}; choose from {available}, "
                "or take weights of full depth such as imagenet"
            )
        # Reflection takes the second pixel from the border, so each side of a feature map needs two pixels.
        self.minimum_size = (2 if padding == "reflect" else 1) * deepest.stride
        self._chosen = chosen
        self._layer = self._make_layer(dtype)

    @classmethod
    def from_model(
        cls,
        model: keras.Model,
        preprocess: Callable[[tf.Tensor], tf.Tensor],
        *,
        layers: Iterable[str],
        minimum_size: int = 1,
    ) -> Encoder:
        """Make an encoder from any functional Keras model, which is used in inference mode.

        The encoder shares the model's layers and weights. The model is neither changed nor copied, except
        that a call with a `keras.Input` uses a frozen copy of it.

        Args:
            model: functional model with one input and channels last.
            preprocess: function from float32 images ``[batch, height, width, 3]``, sRGB in 0..1, to the input
                of the model.
            layers: names of the model's layers. The features are returned in this order.
            minimum_size: smallest height and width of an image in pixels. Smaller images are refused.

        Returns:
            An encoder whose `weights` have the model's name as their source and no arrays, and whose
            `network`, `pooling` and `padding` are "model's own".

        Raises:
            ConfigError: no layer is given; the model has no layer of a given name; a layer's output does
                not have four axes or cannot be computed from the model's input alone; or the model is not
                functional or does not have one input.
            BackendError: Keras does not run on TensorFlow, or its image data format is not channels last.

        Example:
            >>> import keras
            >>> import numpy as np
            >>> from tfstyle import Encoder
            >>> images = keras.Input((None, None, 3))
            >>> maps = keras.layers.Conv2D(8, 3, strides=2, padding="same", name="first")(images)
            >>> model = keras.Model(images, maps)
            >>> encoder = Encoder.from_model(model, lambda images: 2 * images - 1, layers=["first"])
            >>> tuple(encoder(np.zeros((1, 32, 48, 3), np.float32))["first"].shape)
            (1, 16, 24, 8)
        """
        check_backend()
        encoder = cls.__new__(cls)
        encoder.layers = tuple(dict.fromkeys(as_names(layers)))
        if not encoder.layers:
            raise ConfigError(f"layers is empty; give at least one layer of {model.name}")
        part = submodel(model, encoder.layers)
        encoder.weights = Weights({}, model.name, network=CUSTOM_MODEL)
        encoder.network = encoder.pooling = encoder.padding = CUSTOM_MODEL
        encoder.dtype = tf.as_dtype(part.outputs[0].dtype).name
        encoder.pixel_range = encoder.feature_scale = 1.0
        encoder.minimum_size = minimum_size
        encoder._layer = EncoderLayer(
            part,
            preprocess,
            feature_layers=[x.name for x in model.layers if x.name in encoder.layers],
            minimum_size=minimum_size,
            dtype=encoder.dtype,
        )
        return encoder

    @property
    def model(self) -> keras.Model:
        """The `keras.Model` that computes the features."""
        return self._layer.model

    def __repr__(self) -> str:
        return (
            f"Encoder({', '.join(self.layers)}; {self.network}, weights {self.weights.source}, pooling "
            f"{self.pooling}, padding {self.padding}, {self.dtype})"
        )

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute the features of images.

        Args:
            images: ``[batch, height, width, 3]``, sRGB, floats in 0..1 or uint8 in 0..255. Floats slightly
                outside 0..1 are not clipped. A `keras.Input` gives symbolic features for a `keras.Model`.

        Returns:
            A dict from the layers' names to float32 features ``[batch, height / 2^p, width / 2^p, N]``, where
            p is the number of pooling layers below the layer and N its number of filters. Sizes are rounded
            down. With `from_model`, the features have the shape of the layer's output. The symbolic features
            of a `keras.Input` have the dtype that `features` describes.

        Raises:
            ImageError: the images have another type, do not have four axes with three channels last, or are
                smaller than `minimum_size`; or floats have a value above 2, which is not checked in graphs
                and in steps. With `from_model`, also if the result of `preprocess` does not fit the model.
        """
        if is_symbolic(images):
            return self._frozen_layer(images)
        features = self.features(images)
        return {name: tf.cast(features[name], tf.float32) for name in self.layers}

    def features(
        self, images: tf.Tensor, variables: Sequence[tf.Tensor] | None = None
    ) -> dict[str, tf.Tensor]:
        """Compute the features of images without converting bfloat16 features to float32.

        `Objective` uses this method because it sums in float32 in any case.

        Args:
            images: ``[batch, height, width, 3]``, sRGB, floats in 0..1 or uint8 in 0..255.
            variables: float32 values that replace `model.variables`, in the same order. By default the
                model's variables are used.

        Returns:
            A dict from the layers' names, from the first layer to the deepest, to features with the shapes of
            a call. Their dtype is that of the network, except that it is float32 for VGG in float16 and if
            `feature_scale` is not 1.

        Raises:
            ImageError: as for a call.
        """
        return self._layer.features(images, variables=variables)

    def as_layer(self, *, dtype: Any = None, name: str | None = None) -> EncoderLayer:
        """Return a frozen Keras layer that computes the features of RGB images in 0..1.

        The layer has its own copy of the weights. To use it with a `tf.distribute` strategy, make it inside
        the scope of the strategy. By contrast, calling the encoder with a `keras.Input` shares the encoder's
        weights or, for an encoder that was made by `from_model`, those of one frozen copy.

        Args:
            dtype: the layer's Keras dtype policy or its name; by default the `dtype` of the encoder or, if
                that is ``float32``, Keras' global policy. Layers of a user's model keep their own by default.
                The features have the compute dtype of the policy. Those of VGG are float32 with ``float16``
                and ``mixed_float16``, because they can exceed the range of float16, and with any policy if
                `feature_scale` is not 1.
            name: name of the layer; by default Keras chooses one.

        Raises:
            ConfigError: the policy is unknown.

        Example:
            >>> import numpy as np
            >>> from tfstyle import Encoder
            >>> layer = Encoder(("conv1_1", "conv2_1"), "embedded").as_layer(dtype="mixed_bfloat16")
            >>> features = layer(np.zeros((1, 32, 48, 3), np.float32))
            >>> features["conv1_1"].dtype.name, layer.variables[0].dtype, len(layer.trainable_variables)
            ('bfloat16', 'float32', 0)
        """
        if dtype is not None:
            dtype = _check_choice("dtype", getattr(dtype, "name", dtype), DTYPES)
        if self.network == CUSTOM_MODEL:
            return self._layer.with_own_weights(dtype=dtype, name=name)
        common = keras.mixed_precision.global_policy().name
        inherited = common if self.dtype == "float32" and common in DTYPES else self.dtype
        return self._make_layer(dtype or inherited, name=name)

    @functools.cached_property
    def _frozen_layer(self) -> EncoderLayer:
        """The layer for symbolic images: the encoder's own, or a copy of a user's model that is frozen."""
        if self.network != CUSTOM_MODEL:
            return self._layer
        return self._layer.with_own_weights()

    def _make_layer(self, dtype: str, *, name: str | None = None) -> EncoderLayer:
        """Return a new layer that contains VGG and computes with the given dtype policy."""
        gain = FLOAT16_GAIN if dtype.removeprefix("mixed_") == "float16" else 1.0
        model = build_vgg(
            self.network, self._chosen, pooling=self.pooling, padding=self.padding, dtype=dtype, gain=gain
        )
        fill_vgg(model, self.weights.arrays)
        return EncoderLayer(
            model,
            VGGPreprocessing(self.pixel_range, gain),
            feature_layers=[layer.name for layer in self._chosen],
            minimum_size=self.minimum_size,
            feature_scale=gain * self.feature_scale,
            dtype=dtype,
            name=name,
        )

    def normalized(self, images: tf.Tensor | Sequence[tf.Tensor]) -> Encoder:
        """Return a new encoder in which every filter has mean activation 1 over the given images.

        From the first layer to the deepest, each kernel is multiplied by the mean activations of its input
        channels, and the kernel and the bias are divided by the mean activations of the layer's filters. ReLU
        and pooling are homogeneous, so the new features times the mean activations are the old features. A
        filter whose mean activation is at most 1e-4 of its layer's average is not divided. The means are 1
        before the features are multiplied by `feature_scale`.

        Args:
            images: ``[batch, height, width, 3]``, sRGB, floats in 0..1 or uint8 in 0..255, or a list of such
                batches, whose sizes may differ.

        Raises:
            ConfigError: the encoder was made by `from_model`.
            ImageError: as for a call.

        Reference: Gatys, Ecker, Bethge 2016, section 2.

        Example:
            >>> import numpy as np
            >>> from tfstyle import Encoder
            >>> images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
            >>> encoder = Encoder(("conv1_1",), weights="embedded").normalized(images)
            >>> means = encoder(images)["conv1_1"].numpy().mean(axis=(0, 1, 2))
            >>> means.shape, bool(np.allclose(means, 1, atol=1e-3))
            ((64,), True)
        """
        if self.network == CUSTOM_MODEL:
            raise ConfigError(
                f"the filters of {self.weights.source} cannot be normalised; Encoder.normalized needs VGG-19 "
                "or VGG-16"
            )
        means = self._mean_activations(images if isinstance(images, (list, tuple)) else [images])
        input_scale = np.ones(3)  # divisors of the channels that the layer reads
        arrays = {}
        for name, mean in means.items():
            # A filter that is nearly always zero would outweigh the others in an image that activates it.
            scale = np.where(mean > 1e-4 * mean.mean(), mean, 1.0)
            kernel, bias = (self.weights.arrays[f"{name}/{kind}"] for kind in ("kernel", "bias"))
            arrays[f"{name}/kernel"] = (kernel * input_scale[:, None] / scale).astype(np.float32)
            arrays[f"{name}/bias"] = (bias / scale).astype(np.float32)
            input_scale = scale
        weights = replace(self.weights, arrays=arrays, source=f"{self.weights.source}, normalized")
        return self._copy_with(self.layers, weights, self.dtype, self.feature_scale)

    def with_padding(self, padding: str) -> Encoder:
        """Return a new encoder with another padding and the same weights and options.

        Args:
            padding: as for `Encoder`.

        Raises:
            ConfigError: the padding is unknown, or the encoder was made by `from_model`.

        Example:
            >>> from tfstyle import Encoder
            >>> Encoder(("conv1_1",), weights="embedded").with_padding("circular").padding
            'circular'
        """
        if self.network == CUSTOM_MODEL:
            raise ConfigError(f"the padding of {self.weights.source} belongs to its layers")
        return self._copy_with(self.layers, self.weights, self.dtype, self.feature_scale, padding=padding)

    def _copy_with(
        self,
        layers: Iterable[str],
        weights: Weights,
        dtype: str,
        feature_scale: float,
        *,
        padding: str | None = None,
    ) -> Encoder:
        """Return a new encoder with the given values and the other options of this encoder."""
        return Encoder(
            layers, weights, pooling=self.pooling, padding=padding or self.padding, dtype=dtype,
            network=self.network, pixel_range=self.pixel_range, feature_scale=feature_scale,
        )  # fmt: skip

    def _mean_activations(self, images: Sequence[tf.Tensor]) -> dict[str, np.ndarray]:
        """Compute the mean activations of all filters up to the deepest layer, in float32.

        Returns:
            A dict from Keras' names of the layers to float64 means ``[N]``.
        """
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


def defaults_among(layers: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the default content layers and style layers among the layers of an encoder.

    Args:
        layers: names of the layers.

    Returns:
        The content layers conv3_2, conv4_2 or conv2_2, of which the first is taken that the encoder has, and
        the style layers of Gatys et al. that it has. Either can be empty.

    Example:
        >>> from tfstyle.network import defaults_among
        >>> defaults_among(["conv1_1", "conv2_1", "conv2_2"])
        (('conv2_2',), ('conv1_1', 'conv2_1'))
    """
    choices = (CONTENT_LAYERS, PAPER_CONTENT_LAYERS, SHALLOW_CONTENT_LAYERS)
    content = next((names for names in choices if set(names) <= set(layers)), ())
    return content, tuple(layer for layer in STYLE_LAYERS if layer in layers)


def _check_choice(option: str, value: str, choices: Iterable[str]) -> str:
    if value not in choices:
        raise ConfigError(f"{option} is {value!r}; it can be {', '.join(choices)}")
    return value


def _check_positive(option: str, value: float) -> float:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise ConfigError(f"{option} is {value!r}; it must be a finite number above 0")
    return float(value)
