"""Keras networks as the encoder needs them: VGG with other pools and borders, or a part of any model."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfstyle.backend import call_with, functional
from tfstyle.errors import ConfigError
from tfstyle.layers import Layer

#: Network -> the function that builds it in Keras.
APPLICATIONS: dict[str, Callable[..., keras.Model]] = {
    "vgg19": keras.applications.VGG19,
    "vgg16": keras.applications.VGG16,
}


class PaddedConv2D(keras.layers.Conv2D):
    """A 3 x 3 convolution that pads its input with values from the inside instead of zeros.

    Args:
        mode: ``REFLECT`` or ``SYMMETRIC`` as in `tf.pad`; by one pixel, symmetric is replication. Or
            ``WRAP``, the opposite border.
        **config: a `keras.layers.Conv2D`'s own configuration.
    """

    def __init__(self, mode: str, **config: Any) -> None:
        super().__init__(**{**config, "padding": "valid"})
        self.mode = mode

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Pad by one pixel on each side and convolve."""
        return super().convolution_op(_pad_border(inputs, self.mode), kernel)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """The input's, with as many channels as there are filters."""
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """The configuration, for `from_config`."""
        return {**super().get_config(), "mode": self.mode}


def _pad_border(x: tf.Tensor, mode: str) -> tf.Tensor:
    """Pad by one pixel on each side: `tf.pad`, or with ``WRAP``, which it lacks, the opposite border."""
    if mode != "WRAP":
        return tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], mode)
    for axis in (1, 2):  # tf.split, as the gradient of x[:, -1:] is slower
        x = tf.concat([tf.split(x, [-1, 1], axis)[1], x, tf.split(x, [1, -1], axis)[0]], axis)
    return x


class RescaledPooling2D(keras.layers.AveragePooling2D):
    """Twice the average over 2 x 2 positions.

    The mean of four independent numbers has half their standard deviation; the factor makes up for it,
    so that activations do not shrink with depth.

    Reference: crowsonkb, style-transfer-pytorch, which scales its average pools by 2.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Average and double."""
        return 2 * super().call(inputs)


POOLINGS = {
    "avg": keras.layers.AveragePooling2D,
    "max": keras.layers.MaxPooling2D,
    "rescaled": RescaledPooling2D,
}
#: Padding of the convolutions -> `PaddedConv2D`'s mode at the first one and at the others; None stands for
#: Keras' padding with zeros.
PADDINGS: dict[str, tuple[str | None, str | None]] = {
    "zeros": (None, None),
    "reflect": ("REFLECT", "REFLECT"),
    "replicate": ("SYMMETRIC", "SYMMETRIC"),
    "replicate_first": ("SYMMETRIC", None),
    "circular": ("WRAP", "WRAP"),
}


def build_vgg(
    network: str, layers: Sequence[Layer], *, pooling: str, padding: str, dtype: str
) -> keras.Model:
    """A frozen VGG with other pools and borders, cut above the last of some layers.

    Args:
        network: one of `APPLICATIONS`.
        layers: those that the model outputs, the deepest last.
        pooling, padding: one of `POOLINGS` and `PADDINGS`.
        dtype: of its computation.

    Returns:
        A model whose output is a dict by the papers' names of the layers; `fill_vgg` sets its weights.
    """

    def clone_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = {**layer.get_config(), "dtype": dtype}
        if isinstance(layer, keras.layers.MaxPooling2D):
            return POOLINGS[pooling].from_config(config)
        mode = PADDINGS[padding][0 if layer.name == "block1_conv1" else 1]
        if mode is not None and isinstance(layer, keras.layers.Conv2D):
            return PaddedConv2D(mode, **config)
        return type(layer).from_config(config)

    whole = APPLICATIONS[network](include_top=False, weights=None, input_shape=(None, None, 3))
    cut = keras.Model(whole.input, whole.get_layer(layers[-1].keras_name).output)
    clone = keras.models.clone_model(cut, clone_function=clone_layer)
    model = keras.Model(clone.input, {x.name: clone.get_layer(x.keras_name).output for x in layers})
    model.trainable = False
    return model


def fill_vgg(model: keras.Model, arrays: Mapping[str, np.ndarray], *, gain: float) -> None:
    """Set the weights of a model of `build_vgg`, the biases divided by a gain."""
    for layer in model.layers:
        if layer.weights:
            kernel, bias = (arrays[f"{layer.name}/{kind}"] for kind in ("kernel", "bias"))
            layer.set_weights([kernel, bias / gain])


def submodel(model: keras.Model, layers: Sequence[str]) -> keras.Model:
    """The part of a functional model that gives some layers' outputs, in a dict.

    The layers, and so the weights, are the model's own: nothing is copied and nothing is changed.

    Args:
        model: with one input.
        layers: names as in ``model.layers``. Of a layer that is used several times, the first use.

    Raises:
        ConfigError: not a functional model with one input; no such layer; a layer whose output is
            not ``[batch, height, width, channels]`` or does not depend on the model's input.
    """
    if not isinstance(model, keras.Model) or len(getattr(model, "inputs", None) or ()) != 1:
        raise ConfigError(f"{model!r} is not a functional Keras model with one input")
    available = {layer.name: layer for layer in model.layers}
    outputs = {}
    for name in layers:
        if name not in available:
            closest = ", ".join(difflib.get_close_matches(str(name), available, 3, 0))
            raise ConfigError(
                f"{model.name} has no layer {name!r}; nearest of its {len(available)} are {closest}"
            )
        outputs[name] = available[name].output
        shape = getattr(outputs[name], "shape", None)
        if shape is None or len(shape) != 4:
            output = "several outputs" if shape is None else f"an output of shape {tuple(shape)}"
            raise ConfigError(
                f"layer {name!r} of {model.name} has {output}; features are [batch, height, width, channels]"
            )
    try:
        return functional(model.inputs, outputs)
    except ValueError as error:
        names = ", ".join(layers)
        raise ConfigError(f"{names} cannot be computed from the input of {model.name} alone") from error


def apply_model(
    model: keras.Model, inputs: tf.Tensor, *, variables: Sequence[tf.Tensor] | None = None
) -> dict[str, tf.Tensor]:
    """A model's outputs as in inference: no dropout, batch normalisation by the moving statistics.

    Args:
        inputs: of the model.
        variables: values in place of ``model.variables``, in their order.
    """
    if variables is None:
        return model(inputs, training=False)
    return call_with(model, inputs, values=variables)
