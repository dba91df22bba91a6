"""The encoder's Keras models: VGG with other pooling and padding, or a part of any functional model."""

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


@keras.saving.register_keras_serializable(package="tfstyle")
class PaddedConv2D(keras.layers.Conv2D):
    """A 3 x 3 convolution with a choice of padding, whose bias can be divided by a constant.

    Args:
        mode: ``REFLECT``, ``SYMMETRIC`` or ``CONSTANT`` (zeros) as in `tf.pad`, or ``WRAP``, which pads with
            the opposite border. For a border of one pixel, ``SYMMETRIC`` replicates the outermost pixel.
        gain: number by which the bias is divided when it is added. The weights are not changed.
        **config: configuration of `keras.layers.Conv2D`.
    """

    def __init__(self, mode: str, gain: float = 1.0, **config: Any) -> None:
        super().__init__(**{**config, "padding": "valid"})
        self.mode, self.gain = mode, gain

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the activation of the convolution plus the divided bias."""
        if self.gain == 1:
            return super().call(inputs)
        return self.activation(self.convolution_op(inputs, self.kernel) + self.bias / self.gain)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return the convolution of the input, which is first padded by one pixel on each side."""
        return super().convolution_op(_pad_border(inputs, self.mode), kernel)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return the input's shape with the number of filters as the number of channels."""
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """Return the layer's configuration, from which `from_config` builds it again."""
        return {**super().get_config(), "mode": self.mode, "gain": self.gain}


def _pad_border(x: tf.Tensor, mode: str) -> tf.Tensor:
    """Pad by one pixel on each side, with `tf.pad` or, for ``WRAP``, which it lacks, the opposite border."""
    if mode != "WRAP":
        return tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], mode)
    for axis in (1, 2):  # tf.split, because the gradient of x[:, -1:] is slower
        x = tf.concat([tf.split(x, [-1, 1], axis)[1], x, tf.split(x, [1, -1], axis)[0]], axis)
    return x


@keras.saving.register_keras_serializable(package="tfstyle")
class RescaledPooling2D(keras.layers.AveragePooling2D):
    """Average pooling over 2 x 2 positions, multiplied by 2.

    The mean of four independent numbers has half their standard deviation. The factor compensates for this,
    so that activations do not shrink with depth.

    Reference: crowsonkb, style-transfer-pytorch, which multiplies the output of its average pooling by 2.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return twice the average of the input over 2 x 2 positions."""
        return 2 * super().call(inputs)


POOLINGS = {
    "avg": keras.layers.AveragePooling2D,
    "max": keras.layers.MaxPooling2D,
    "rescaled": RescaledPooling2D,
}
#: Padding -> the mode of `PaddedConv2D` at the first convolution and at the others. None stands for zero
#: padding, which is Keras' own.
PADDINGS: dict[str, tuple[str | None, str | None]] = {
    "zeros": (None, None),
    "reflect": ("REFLECT", "REFLECT"),
    "replicate": ("SYMMETRIC", "SYMMETRIC"),
    "replicate_first": ("SYMMETRIC", None),
    "circular": ("WRAP", "WRAP"),
}


def build_vgg(
    network: str, layers: Sequence[Layer], *, pooling: str, padding: str, dtype: str, gain: float = 1.0
) -> keras.Model:
    """Build a frozen VGG network with the given pooling and padding that ends at the deepest of the layers.

    Args:
        network: a key of `APPLICATIONS`.
        layers: output layers, from the first to the deepest.
        pooling: a key of `POOLINGS`.
        padding: a key of `PADDINGS`.
        dtype: dtype in which the model computes, or the name of a Keras dtype policy.
        gain: number by which all biases are divided when they are added.

    Returns:
        A model whose output is a dict from the papers' names of the layers to their features. `fill_vgg`
        sets its weights.
    """

    def clone_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = {**layer.get_config(), "dtype": dtype}
        if isinstance(layer, keras.layers.MaxPooling2D):
            return POOLINGS[pooling].from_config(config)
        mode = PADDINGS[padding][0 if layer.name == "block1_conv1" else 1]
        if isinstance(layer, keras.layers.Conv2D) and (mode is not None or gain != 1):
            return PaddedConv2D(mode or "CONSTANT", gain, **config)
        return type(layer).from_config(config)

    whole = APPLICATIONS[network](include_top=False, weights=None, input_shape=(None, None, 3))
    cut = keras.Model(whole.input, whole.get_layer(layers[-1].keras_name).output)
    clone = keras.models.clone_model(cut, clone_function=clone_layer)
    model = keras.Model(clone.input, {x.name: clone.get_layer(x.keras_name).output for x in layers})
    model.trainable = False
    return model


def fill_vgg(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Set the weights of a model of `build_vgg`."""
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([arrays[f"{layer.name}/{kind}"] for kind in ("kernel", "bias")])


def copy_model(model: keras.Model, *, dtype: str | None = None) -> keras.Model:
    """Return a copy of a functional model with its own variables, which have the same values.

    Args:
        model: functional model. Models in it are copied too.
        dtype: dtype in which the layers of the copy compute, or the name of a Keras dtype policy; by default
            each layer keeps its own.

    Raises:
        ConfigError: a layer with weights cannot be made from its configuration.
    """

    def clone_layer(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return copy_model(layer, dtype=dtype)
        config = layer.get_config()
        if dtype is not None and "dtype" in config:
            config["dtype"] = dtype
        try:
            return type(layer).from_config(config)
        except (TypeError, ValueError) as error:
            if not getattr(layer, "weights", None):
                return layer  # such as a Lambda, which Keras does not make from a configuration
            raise ConfigError(
                f"layer {layer.name!r} of {model.name} cannot be copied; make its get_config return the "
                f"arguments of its class ({type(error).__name__})"
            ) from None

    clone = keras.models.clone_model(model, clone_function=clone_layer)
    clone.set_weights(model.get_weights())
    for layer in clone.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.finalize_state()  # which computes with the new weights
    return clone


def submodel(model: keras.Model, layers: Sequence[str]) -> keras.Model:
    """Return the part of a functional model that computes the outputs of the given layers.

    The part shares the model's layers and weights. Nothing is copied, and the model is not changed.

    Args:
        model: functional model with one input.
        layers: names as in ``model.layers``. If a layer is used several times, the output of its first use
            is taken.

    Returns:
        A model whose output is a dict from the layers' names to their outputs.

    Raises:
        ConfigError: the model is not functional or does not have one input, it has no layer of that name, a
            layer's output is not ``[batch, height, width, channels]``, or a layer's output cannot be computed
            from the model's input alone.
    """
    if not isinstance(model, keras.Model) or len(getattr(model, "inputs", None) or ()) != 1:
        raise ConfigError(f"{model!r} is not a functional Keras model with one input")
    available = {layer.name: layer for layer in model.layers}
    outputs = {}
    for name in layers:
        if name not in available:
            closest = ", ".join(difflib.get_close_matches(str(name), available, 3, 0))
            raise ConfigError(
                f"{model.name} has no layer {name!r}; the most similar names of its {len(available)} layers "
                f"are {closest}"
            )
        outputs[name] = available[name].output
        shape = getattr(outputs[name], "shape", None)
        if shape is None or len(shape) != 4:
            output = "several outputs" if shape is None else f"an output of shape {tuple(shape)}"
            raise ConfigError(
                f"layer {name!r} of {model.name} has {output}; choose layers whose output is "
                "[batch, height, width, channels]"
            )
    try:
        return functional(model.inputs, outputs, name=model.name)
    except ValueError:
        names = ", ".join(layers)
        raise ConfigError(
            f"layers {names} cannot be computed from the input of {model.name} alone; choose layers that "
            "need no other input"
        ) from None


def apply_model(
    model: keras.Model, inputs: tf.Tensor, *, variables: Sequence[tf.Tensor] | None = None
) -> dict[str, tf.Tensor]:
    """Return a model's outputs in inference mode.

    In this mode dropout does nothing, and batch normalisation uses its moving statistics.

    Args:
        model: model whose output is a dict.
        inputs: input of the model.
        variables: values that replace ``model.variables``, in the same order. By default the model's
            variables are used.
    """
    if variables is None:
        return model(inputs, training=False)
    return call_with(model, inputs, values=variables)
