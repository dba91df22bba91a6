"""The preprocessing of images, from uint8 or floats in 0..1 to the input of VGG. No other module does this.

The input of VGG has BGR channels in 0..255 minus the ImageNet means.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfstyle.errors import ImageError

#: Mean colour of the ImageNet photographs, BGR in 0..255, that was subtracted when VGG was trained.
IMAGENET_MEAN = (103.939, 116.779, 123.68)


def float_images(images: Any) -> tf.Tensor:
    """Return images as a float32 tensor with values in 0..1.

    Args:
        images: floats in 0..1, or uint8 in 0..255, as a tensor, an array or nested lists.

    Returns:
        A float32 tensor of the shape of the images.

    Raises:
        ImageError: the images cannot be converted to a tensor, or their dtype is neither uint8 nor floating
            point.

    Example:
        >>> import numpy as np
        >>> from tfstyle.network import float_images
        >>> float_images(np.full((1, 1, 1, 3), 51, np.uint8)).numpy().tolist()
        [[[[0.20000000298023224, 0.20000000298023224, 0.20000000298023224]]]]
    """
    try:
        tensor = tf.convert_to_tensor(images)
    except (AttributeError, RuntimeError, TypeError, ValueError):  # of several frameworks
        raise ImageError(
            f"images are {type(images).__name__}; expected an array or a tensor of uint8 or floats in 0..1"
        ) from None
    if tensor.dtype == tf.uint8:
        return tf.cast(tensor, tf.float32) / 255.0
    if not tensor.dtype.is_floating:
        raise ImageError(f"images are {tensor.dtype.name}; expected uint8, or floats in 0..1")
    return tf.cast(tensor, tf.float32)


def check_range(images: tf.Tensor | np.ndarray) -> None:
    """Raise ImageError if float images have values above 2, which shows that they are not in 0..1.

    Values up to 2 are accepted, because resizing and optimisers overshoot. In a graph nothing is checked.

    Args:
        images: float images, a tensor or an array.

    Raises:
        ImageError: a value is above 2 or NaN.
    """
    if not tf.executing_eagerly():
        return
    if isinstance(images, np.ndarray):  # it may be as large as the memory of the host
        largest = float(images.max(initial=-math.inf))
    else:
        largest = float(tf.reduce_max(images))
    if not largest <= 2:  # also if it is NaN
        raise ImageError(
            f"floating-point images have values up to {largest:g}, outside 0..1; divide them by 255, or "
            "give uint8"
        )


def network_input(images: tf.Tensor, pixel_range: float = 255.0) -> tf.Tensor:
    """Return the input of VGG for images: BGR in 0..`pixel_range` minus the ImageNet means.

    Args:
        images: float32 ``[batch, height, width, 3]``, sRGB in 0..1.
        pixel_range: value of white.

    Returns:
        A float32 tensor of the shape of the images.

    Example:
        >>> import numpy as np
        >>> from tfstyle.network import network_input
        >>> white = np.ones((1, 1, 1, 3), np.float32)
        >>> network_input(white).numpy().round().tolist()
        [[[[151.0, 138.0, 131.0]]]]
    """
    return tf.reverse(images, [-1]) * pixel_range - tf.constant(IMAGENET_MEAN)


@keras.saving.register_keras_serializable(package="tfstyle")
class VGGPreprocessing:
    """The function `network_input` with fixed options, which Keras can store in a model file.

    Args:
        pixel_range: value of white before the ImageNet means are subtracted.
        gain: number by which the result is divided.

    Example:
        >>> import numpy as np
        >>> from tfstyle.network.preprocessing import VGGPreprocessing
        >>> white = np.ones((1, 1, 1, 3), np.float32)
        >>> VGGPreprocessing(gain=10.0)(white).numpy().round().tolist()
        [[[[15.0, 14.0, 13.0]]]]
    """

    def __init__(self, pixel_range: float = 255.0, gain: float = 1.0) -> None:
        self.pixel_range, self.gain = pixel_range, gain

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Return the input of VGG for float32 images ``[batch, height, width, 3]``, sRGB in 0..1."""
        inputs = network_input(images, self.pixel_range)
        return inputs if self.gain == 1 else inputs / self.gain

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as Keras stores them."""
        return {"pixel_range": self.pixel_range, "gain": self.gain}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> VGGPreprocessing:
        """Return the function with the arguments in ``config``."""
        return cls(**config)
