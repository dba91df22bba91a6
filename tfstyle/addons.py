"""Filters, warping, normalisation and optimisers of tensorflow-addons.

The last release of tensorflow-addons, 0.23, dates from 2024. It has wheels for Python up to 3.11 and can only
be imported with Keras 2, that is with TensorFlow 2.15 (the extra ``tfstyle[addons]``). Where it cannot be
imported, these functions compute the same results with TensorFlow and Keras, and `optimizer` raises
ConfigError for the optimisers that Keras does not have.
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

from tfstyle.errors import ConfigError, suggest

#: Name of an optimiser in tfstyle -> its class in tensorflow-addons.
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
#: Name of an optimiser that Keras also has -> its class in Keras, and the options that make them equal.
_KERAS_EQUIVALENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("AdamW", {}),
    "lamb": ("Lamb", {"epsilon": 1e-6}),
    "lazyadam": ("Adam", {}),  # it differs from Adam for sparse gradients only; those of images are dense
    "proximaladagrad": ("Adagrad", {"epsilon": 0.0}),
    "sgdw": ("SGD", {}),
}
_ADAM_WRAPPERS = {"lookahead", "movingaverage", "swa"}
_ALTERNATIVES = {"movingaverage": "the option ema_decay", "swa": "the option ema_decay"}
#: Default weight decay of AdamW and SGDW. Each step subtracts this fraction of the image (decoupled decay).
WEIGHT_DECAY = 1e-4
_DEFAULT_OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"weight_decay": WEIGHT_DECAY},
    "sgdw": {"weight_decay": WEIGHT_DECAY},
    # The EMA begins at the first iterate. Its decay grows, so that the first iterates get little weight.
    "movingaverage": {"start_step": 1, "dynamic_decay": True},
    "swa": {"average_period": 1},  # every iterate is averaged, because a scale has few
}


def why_not() -> str | None:
    """Return why tensorflow-addons is not available and what it needs, or None if it is available."""
    package, reason = _load()
    return None if package else reason


def version() -> str | None:
    """Return the version of tensorflow-addons, or None if it is not available."""
    package, _ = _load()
    return package.__version__ if package else None


@functools.cache
def _load() -> tuple[Any, str]:
    """Return tensorflow-addons and an empty string, or None and the reason why it is not available."""
    needed = "Python 3.10 or 3.11 and TensorFlow 2.15: install tfstyle[addons] in a new virtual environment"
    if not keras.__version__.startswith("2."):  # the import would fail: No module named 'keras.src.engine'
        return None, f"tensorflow-addons cannot be imported with Keras {keras.__version__}; it needs {needed}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the warning about the end of its development
            return importlib.import_module("tensorflow_addons"), ""
    except Exception as error:  # an unmaintained package can fail with any error
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
    """Blur images with a Gaussian filter of finite size.

    The filter is separable and is applied along the columns first, then along the rows.

    Args:
        image: ``[batch, height, width, channels]`` of any float type. The computation is in float32.
        filter_shape: height and width of the filter in pixels, at least 1.
        sigma: standard deviations in pixels along height and width, or one number for both; above 0.
        padding: how the image continues beyond its border: ``REFLECT``, ``SYMMETRIC`` or ``CONSTANT``.
        constant_values: value beyond the border with ``CONSTANT``.

    Returns:
        A tensor with the shape and the type of the image.

    Raises:
        ConfigError: a side of the filter is below 1, or a standard deviation is not above 0.

    Reference: `tfa.image.gaussian_filter2d`.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle import addons
        >>> blurred = addons.gaussian_filter2d(tf.ones((1, 32, 48, 3)), (5, 5), sigma=1.5)
        >>> tuple(blurred.shape)
        (1, 32, 48, 3)
    """
    deviations = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    if min(filter_shape) < 1 or not min(deviations) > 0:
        raise ConfigError(f"filter_shape is {filter_shape} and sigma is {sigma}; all numbers must be above 0")
    package, _ = _load()
    # The tf.function of tensorflow-addons warns when it is traced for many sizes: call its Python function.
    blur_axis = package.image.gaussian_filter2d.python_function if package else _blur_axis
    blurred = tf.cast(image, tf.float32)
    for shape, deviation in zip(((filter_shape[0], 1), (1, filter_shape[1])), deviations, strict=True):
        if max(shape) > 1:
            blurred = blur_axis(blurred, shape, deviation, padding, constant_values)
    return tf.ensure_shape(tf.cast(blurred, image.dtype), image.shape)


def _blur_axis(
    image: tf.Tensor, shape: tuple[int, int], sigma: float, padding: str, constant_values: float
) -> tf.Tensor:
    """Blur images with a filter whose shape ``(height, width)`` has a 1: a single column or row."""
    before = [(side - 1) // 2 for side in shape]
    paddings = [[0, 0], *([b, side - 1 - b] for b, side in zip(before, shape, strict=True)), [0, 0]]
    offsets = np.arange(max(shape)) - max(before)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (weights / weights.sum()).astype(np.float32).reshape(*shape, 1, 1)
    padded = tf.pad(image, paddings, padding, constant_values)
    return tf.nn.depthwise_conv2d(padded, tf.tile(kernel, [1, 1, tf.shape(image)[-1], 1]), [1] * 4, "VALID")


def dense_image_warp(image: tf.Tensor, flow: tf.Tensor) -> tf.Tensor:
    """Warp images by an optical flow: ``warped[y, x] = image[y - flow_y[y, x], x - flow_x[y, x]]``.

    Values between pixels are interpolated bilinearly. Positions outside the image take the value of the
    nearest pixel. The result can be differentiated with respect to the image and the flow.

    Args:
        image: float32 ``[batch, height, width, channels]`` of at least 2 x 2 pixels. With Keras 3, height,
            width and channels must be known when a graph is traced.
        flow: float32 ``[batch, height, width, 2]``, displacements in pixels along height and width.

    Returns:
        A tensor with the shape and the type of the image.

    Raises:
        ConfigError: neither tensorflow-addons nor Keras 3 is available.

    Reference: `tfa.image.dense_image_warp`.

    Example:
        >>> import numpy as np
        >>> import tensorflow as tf
        >>> from tfstyle import addons
        >>> image = np.zeros((1, 4, 4, 1), np.float32)
        >>> image[0, 1, 1] = 1
        >>> one_to_the_right = tf.constant([0.0, 1.0]) * tf.ones((1, 4, 4, 2))
        >>> warped = addons.dense_image_warp(tf.constant(image), one_to_the_right)
        >>> np.argwhere(warped.numpy()[0, :, :, 0] > 0.5).tolist()
        [[1, 2]]
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
    """Return a layer that normalises each channel of each image to mean 0 and variance 1.

    The layer then scales and shifts the channels by trainable weights. It is Keras' GroupNormalization with
    one group per channel, with Keras 2 and with Keras 3, as tensorflow-addons recommends.

    Args:
        **options: options of `keras.layers.GroupNormalization`, such as ``epsilon``, ``center`` and
            ``scale``.

    Returns:
        A layer whose input and output are float tensors ``[batch, height, width, channels]``.

    Reference: Ulyanov et al. 2016, arXiv 1607.08022; `tfa.layers.InstanceNormalization`.
    """
    return keras.layers.GroupNormalization(groups=-1, **options)


def optimizer(
    name: str, learning_rate: float = 0.02, *, beta_1: float = 0.9, beta_2: float = 0.999, **numbers: Any
) -> Any:
    """Return an optimiser of tensorflow-addons, or the equivalent one of Keras.

    MultiOptimizer, which assigns optimisers to layers, is left out. So is ConditionalGradient, because there
    is no useful default for the radius of its norm ball.

    The option ``--optimizer addons:NAME`` also multiplies the gradient by the number of pixels, so that ε has
    the same effect at every image size. To do so in Python, pass ``from_keras(optimizer(...),
    per_pixel=True)`` with `tfstyle.optim.from_keras` to `tfstyle.stylize`.

    Args:
        name: a key of `CLASSES`, such as ``lamb``. ``lookahead``, ``movingaverage`` and ``swa`` wrap Adam.
        learning_rate: for pixels in 0..1. Optimisers without a learning rate ignore it.
        beta_1, beta_2: decay rates of the first and the second moment. Optimisers without moments ignore
            them.
        **numbers: other options of the optimiser, such as ``sync_period``.

    Returns:
        A Keras optimiser.

    Raises:
        ConfigError: the name is unknown; or tensorflow-addons is not available, and Keras does not have the
            optimiser or defines its ``weight_decay`` differently.

    Example:
        >>> from tfstyle import addons
        >>> type(addons.optimizer("adamw", learning_rate=0.05)).__name__
        'AdamW'
    """
    if name not in CLASSES:
        raise ConfigError(
            f"no optimizer addons:{name}{suggest(name, CLASSES)}; choose one of {', '.join(CLASSES)}"
        )
    package, reason = _load()
    common = {"learning_rate": float(learning_rate), "beta_1": beta_1, "beta_2": beta_2}
    options = {**_DEFAULT_OPTIONS.get(name, {}), **numbers}
    if package:
        kind = getattr(package.optimizers, CLASSES[name])
        if name in _ADAM_WRAPPERS:
            return kind(keras.optimizers.legacy.Adam(**common), **options)
        if name == "yogi":  # its arguments have no underscore
            common |= {"beta1": beta_1, "beta2": beta_2}
        return kind(**_accepted(kind, common), **options)
    keras_name, keras_options = _KERAS_EQUIVALENTS.get(name, ("", {}))
    kind = getattr(keras.optimizers, keras_name, None)
    if kind is None:
        usable = ", ".join(
            f"addons:{n}" for n, (k, _) in _KERAS_EQUIVALENTS.items() if hasattr(keras.optimizers, k)
        )
        alternatives = _ALTERNATIVES.get(name, f"adam, lbfgs, {usable}")
        raise ConfigError(f"addons:{name} is not available, because {reason}; or use {alternatives}")
    if "weight_decay" in options:  # Keras multiplies the weight decay by the learning rate
        if "weight_decay" not in _DEFAULT_OPTIONS.get(name, {}):
            raise ConfigError(
                f"addons:{name} with weight_decay needs tensorflow-addons, because {keras_name} of Keras "
                "defines weight_decay differently; leave it out"
            )
        options["weight_decay"] = options["weight_decay"] / learning_rate
    return kind(**_accepted(kind, common), **{**keras_options, **options})


def _accepted(kind: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that are arguments of a class."""
    return {key: value for key, value in options.items() if key in inspect.signature(kind).parameters}
