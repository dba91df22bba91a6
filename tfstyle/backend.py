"""Keras, and that it computes with TensorFlow on channels-last images."""

from __future__ import annotations

import os

from tfstyle.errors import BackendError

try:
    import keras
except (ImportError, ValueError) as error:
    wanted = os.environ.get("KERAS_BACKEND", "it is set to")
    raise BackendError(
        f"Keras cannot be imported with backend {wanted} ({error}); tfstyle needs KERAS_BACKEND=tensorflow"
    ) from error


def check_backend() -> None:
    """Raise BackendError unless Keras computes with TensorFlow on channels-last images.

    A GPU's memory is made to grow, in place of being taken whole, unless the environment says otherwise;
    TensorFlow reads that when it takes hold of a GPU, and `tf.config` stays the user's.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if keras.backend.backend() != "tensorflow":
        raise BackendError(f"Keras runs on {keras.backend.backend()}; tfstyle needs KERAS_BACKEND=tensorflow")
    if keras.backend.image_data_format() != "channels_last":
        raise BackendError(
            "Keras is set to channels_first images; tfstyle needs "
            'keras.config.set_image_data_format("channels_last")'
        )
