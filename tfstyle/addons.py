"""The parts of tensorflow-addons that style transfer uses: from there where it imports, else replaced.

tensorflow-addons ended in 2024. Its last release, 0.23, has wheels for Python up to 3.11 and imports beside
Keras 2 alone, so on TensorFlow 2.15 (the extra ``tfstyle[addons]``). Elsewhere TensorFlow and Keras give the
same results; the optimisers that they do not have are an error.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import platform
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfstyle.errors import ConfigError

#: The optimisers' names here -> those in tensorflow-addons.
CLASSES = {
    "adabelief": "AdaBelief",
    "adamw": "AdamW",
    "cocob": "COCOB",
    "lamb": "LAMB",
    "lazyadam": "LazyAdam",
    "lookahead": "Lookahead",
    "movingaverage": "MovingAverage",
    "novograd": "NovoGrad",
    "proximaladagrad": "ProximalAdagrad",
    "radam": "RectifiedAdam",
    "sgdw": "SGDW",
    "swa": "SWA",
    "yogi": "Yogi",
}
#: Those that Keras has as well -> its class, and the options with which it is the same.
_KERAS_EQUIVALENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("AdamW", {}),
    "lamb": ("Lamb", {"epsilon": 1e-6}),
    "lazyadam": ("Adam", {}),  # lazy where gradients are sparse, which an image's are not
    "proximaladagrad": ("Adagrad", {"epsilon": 0.0}),
    "sgdw": ("SGD", {}),
}
_ADAM_WRAPPERS = {"lookahead", "movingaverage", "swa"}
_ALTERNATIVES = {"movingaverage": "the option ema_decay", "swa": "the option ema_decay"}
#: The decoupled decay that AdamW and SGDW multiply the image by at every step, unless told otherwise.
WEIGHT_DECAY = 1e-4
_DEFAULT_OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"weight_decay": WEIGHT_DECAY},
    "sgdw": {"weight_decay": WEIGHT_DECAY},
    # Averages from the first iterate on, with a decay that grows so that the first one loses its weight.
    "movingaverage": {"start_step": 1, "dynamic_decay": True},
    "swa": {"average_period": 1},  # averages every iterate, as a scale has few
}


def why_not() -> str | None:
    """One line on why tensorflow-addons is not available and what to use, or None where it is available."""
    package, reason = _load()
    return None if package else reason


def version() -> str | None:
    """tensorflow-addons' version, or None where it is not available."""
    package, _ = _load()
    return package.__version__ if package else None


@functools.cache
def _load() -> tuple[Any, str]:
    needed = "a virtual environment of Python 3.10 or 3.11 with tfstyle[addons], which brings TensorFlow 2.15"
    if not keras.__version__.startswith("2."):  # it would fail half-way: No module named 'keras.src.engine'
        return None, f"tensorflow-addons does not import beside Keras {keras.__version__}; it needs {needed}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its warning that it has ended
            return importlib.import_module("tensorflow_addons"), ""
    except Exception as error:  # of any kind, as it is not maintained any more
        message = str(error).partition("\n")[0]
        python = platform.python_version()
        return None, f"tensorflow-addons cannot be imported on Python {python} ({message}); it needs {needed}"


def gaussian_filter2d(
    image: tf.Tensor,
    filter_shape: tuple[int, int] = (3, 3),
    *,
    sigma: tuple[float, float] | float = 1.0,
    padding: str = "REFLECT",
    constant_values: float = 0.0,
) -> tf.Tensor:
    """Blur by a Gaussian cut off at the filter's border: first along columns, then along rows.

    Args:
        image: float tensor ``[batch, height, width, channels]`` of any float type; computed in float32.
        filter_shape: the filter's height and width in pixels.
        sigma: standard deviations in pixels along height and width, or one for both.
        padding: of the border: ``REFLECT``, ``SYMMETRIC`` or ``CONSTANT``.
        constant_values: the value there with ``CONSTANT``.

    Returns:
        A tensor of the image's shape and type.

    Raises:
        ConfigError: a filter without size, or sigma not above 0.

    Reference: `tfa.image.gaussian_filter2d`.
    """
    deviations = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    if min(filter_shape) < 1 or not min(deviations) > 0:
        raise ConfigError(f"filter_shape is {filter_shape} and sigma {sigma}; all must be above 0")
    package, _ = _load()
    # tensorflow-addons' is a tf.function, traced anew for each size, with a warning: the function inside it.
    blur_axis = package.image.gaussian_filter2d.python_function if package else _blur_axis
    blurred = tf.cast(image, tf.float32)
    for shape, deviation in zip(((filter_shape[0], 1), (1, filter_shape[1])), deviations, strict=True):
        if max(shape) > 1:
            blurred = blur_axis(blurred, shape, deviation, padding, constant_values)
    return tf.ensure_shape(tf.cast(blurred, image.dtype), image.shape)


def _blur_axis(
    image: tf.Tensor, shape: tuple[int, int], sigma: float, padding: str, constant_values: float
) -> tf.Tensor:
    before = [(side - 1) // 2 for side in shape]
    paddings = [[0, 0], *([b, side - 1 - b] for b, side in zip(before, shape, strict=True)), [0, 0]]
    offsets = np.arange(max(shape)) - max(before)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (weights / weights.sum()).astype(np.float32).reshape(*shape, 1, 1)
    padded = tf.pad(image, paddings, padding, constant_values)
    return tf.nn.depthwise_conv2d(padded, tf.tile(kernel, [1, 1, tf.shape(image)[-1], 1]), [1] * 4, "VALID")


def dense_image_warp(image: tf.Tensor, flow: tf.Tensor) -> tf.Tensor:
    """Warp an image by an optical flow, along which each pixel has come: ``image[y - flow_y, x - flow_x]``.

    Between pixels it is interpolated linearly; beyond the border the nearest pixel is taken. Differentiable
    with respect to both.

    Args:
        image: float32 tensor ``[batch, height, width, channels]`` of at least 2 x 2 pixels; with Keras 3,
            height, width and channels must be known where a graph is traced.
        flow: float32 tensor ``[batch, height, width, 2]``, in pixels along height and width.

    Returns:
        A tensor of the image's shape and type.

    Raises:
        ConfigError: neither tensorflow-addons nor Keras 3 is available.

    Reference: `tfa.image.dense_image_warp`.
    """
    package, reason = _load()
    if package:
        return package.image.dense_image_warp(image, flow)
    if not hasattr(keras, "ops"):
        raise ConfigError(f"dense_image_warp needs Keras 3 or tensorflow-addons; {reason}")
    image, flow = tf.convert_to_tensor(image), tf.convert_to_tensor(flow)
    rows, columns = (tf.range(tf.shape(image)[axis]) for axis in (1, 2))
    grid = tf.cast(tf.stack(tf.meshgrid(rows, columns, indexing="ij")), flow.dtype)

    def warp(image_and_flow: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, flow = image_and_flow
        origin = grid - tf.transpose(flow, [2, 0, 1])
        planes = tf.unstack(image, axis=-1)
        return tf.stack(
            [keras.ops.image.map_coordinates(p, origin, order=1, fill_mode="nearest") for p in planes], -1
        )

    return tf.ensure_shape(tf.map_fn(warp, (image, flow), fn_output_signature=image.dtype), image.shape)


def instance_normalization(**options: Any) -> keras.layers.Layer:
    """A layer that normalizes each channel of each image to mean 0 and variance 1, then scales and shifts it.

    Keras' own on both stacks, as tensorflow-addons recommends.

    Args:
        **options: of `keras.layers.GroupNormalization`, such as ``epsilon``, ``center`` and ``scale``.

    Returns:
        A layer from float tensors ``[batch, height, width, channels]`` to the same.

    Reference: Ulyanov et al. 2016, arXiv 1607.08022; `tfa.layers.InstanceNormalization`.
    """
    return keras.layers.GroupNormalization(groups=-1, **options)


def optimizer(
    name: str, learning_rate: float = 0.02, *, beta_1: float = 0.9, beta_2: float = 0.999, **numbers: Any
) -> Any:
    """One of tensorflow-addons' optimisers by its name in `CLASSES`, or the same one of Keras.

    Left out: MultiOptimizer, which is for layers, and ConditionalGradient, for whose ball of solutions
    there is no good default.

    ``--optimizer addons:NAME`` multiplies the gradient by the number of pixels, so that an ε means the
    same at every size; for that in Python, `stylize` takes ``from_keras(optimizer(...), per_pixel=True)`` of
    `tfstyle.optim`.

    Args:
        name: such as ``lamb``. ``lookahead``, ``movingaverage`` and ``swa`` wrap Adam.
        learning_rate, beta_1, beta_2: for the methods that have them.
        **numbers: the method's other options, such as ``sync_period``.

    Returns:
        A Keras optimiser.

    Raises:
        ConfigError: no such name, or only tensorflow-addons has it and is not available.
    """
    if name not in CLASSES:
        raise ConfigError(f"no optimizer addons:{name}; there are {', '.join(CLASSES)}")
    package, reason = _load()
    common = {"learning_rate": float(learning_rate), "beta_1": beta_1, "beta_2": beta_2}
    options = {**_DEFAULT_OPTIONS.get(name, {}), **numbers}
    if package:
        kind = getattr(package.optimizers, CLASSES[name])
        if name in _ADAM_WRAPPERS:
            return kind(keras.optimizers.legacy.Adam(**common), **options)
        if name == "yogi":  # which spells them without the underscore
            common |= {"beta1": beta_1, "beta2": beta_2}
        return kind(**_accepted(kind, common), **options)
    keras_name, keras_options = _KERAS_EQUIVALENTS.get(name, ("", {}))
    kind = getattr(keras.optimizers, keras_name, None)
    if kind is None:
        usable = ", ".join(
            f"addons:{n}" for n, (k, _) in _KERAS_EQUIVALENTS.items() if hasattr(keras.optimizers, k)
        )
        alternatives = _ALTERNATIVES.get(name, f"adam, lbfgs, {usable}")
        raise ConfigError(f"addons:{name} is in tensorflow-addons alone: {reason}; or use {alternatives}")
    if "weight_decay" in options:  # Keras multiplies it by the learning rate
        if "weight_decay" not in _DEFAULT_OPTIONS.get(name, {}):
            raise ConfigError(f"addons:{name} takes no weight_decay here: Keras' is another one")
        options["weight_decay"] = options["weight_decay"] / learning_rate
    return kind(**_accepted(kind, common), **{**keras_options, **options})


def _accepted(kind: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options that a class takes."""
    return {key: value for key, value in options.items() if key in inspect.signature(kind).parameters}
