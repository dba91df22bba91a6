"""The encoder as a Keras layer that users can put into their models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfstyle.errors import ImageError
from tfstyle.network.preprocessing import check_range, float_images
from tfstyle.network.vgg import apply_model, copy_model
from tfstyle.optim import first_derivatives_suffice


@keras.saving.register_keras_serializable(package="tfstyle")
class EncoderLayer(keras.layers.Layer):
    """A frozen Keras layer from RGB images to feature maps, with the preprocessing inside.

    Create it with `tfstyle.Encoder.as_layer`. A model or layer that contains it counts its weights and saves
    them in a ``.keras`` file. After ``import tfstyle.network`` the file can be loaded without
    ``custom_objects``.

    Args:
        model: functional model from preprocessed images to a dict from names of layers to features.
        preprocess: function from float32 images ``[batch, height, width, 3]``, sRGB in 0..1, to the input of
            the model. Keras must be able to serialise it if the layer is saved.
        feature_layers: names of the layers, from the first to the deepest.
        minimum_size: smallest height and width of an image in pixels.
        feature_scale: factor by which the features are multiplied in float32.
        **config: options of `keras.layers.Layer`, such as ``name`` and ``dtype``.

    Attributes:
        model: the model.
        feature_layers: names of the layers, from the first to the deepest.

    Example:
        >>> import keras
        >>> from tfstyle import Encoder
        >>> inputs = keras.Input((None, None, 3))
        >>> features = Encoder(("conv1_1", "conv2_1"), "embedded").as_layer()(inputs)
        >>> model = keras.Model(inputs, features)
        >>> {name: tuple(maps.shape) for name, maps in features.items()}
        {'conv1_1': (None, None, None, 64), 'conv2_1': (None, None, None, 128)}
        >>> len(model.trainable_weights), model.count_params()
        (0, 112576)
    """

    def __init__(
        self,
        model: keras.Model,
        preprocess: Callable[[tf.Tensor], tf.Tensor],
        *,
        feature_layers: Sequence[str],
        minimum_size: int = 1,
        feature_scale: float = 1.0,
        **config: Any,
    ) -> None:
        # Images stay float32 until they are preprocessed: bfloat16 has fewer digits than 8-bit colours need.
        super().__init__(**{"trainable": False, **config}, autocast=False)
        self.model = model
        self.feature_layers = tuple(feature_layers)
        self.minimum_size = minimum_size
        self.feature_scale = feature_scale
        self._preprocess = preprocess
        self.built = True  # the model has its variables

    def call(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute the features of images.

        Args:
            images: ``[batch, height, width, 3]``, sRGB, floats in 0..1 or uint8 in 0..255.

        Returns:
            A dict from the layers' names to features ``[batch, h, w, N]`` in the compute dtype of the layer.
            They are float32 if `feature_scale` is not 1. This is the case for VGG in float16, whose features
            could overflow.

        Raises:
            ImageError: as for `tfstyle.Encoder`.
        """
        return self.features(images)

    def features(
        self, images: tf.Tensor, *, variables: Sequence[tf.Tensor] | None = None
    ) -> dict[str, tf.Tensor]:
        """Compute the features as `call` does, without the overhead of calling a Keras layer.

        Args:
            images: as for `call`.
            variables: float32 values that replace the variables of `model`, in the same order.

        Returns:
            As for `call`.
        """
        images = float_images(images)
        if not first_derivatives_suffice():
            check_range(images)
        self._check_shape(images.shape)
        features = apply_model(self.model, self._model_input(images), variables=variables)
        if self.feature_scale == 1:
            return {name: features[name] for name in self.feature_layers}
        return {
            name: tf.cast(features[name], tf.float32) * self.feature_scale for name in self.feature_layers
        }

    def _model_input(self, images: tf.Tensor) -> tf.Tensor:
        """Compute the model's input from images."""
        inputs = tf.convert_to_tensor(self._preprocess(images))
        expected = tf.TensorShape(self.model.inputs[0].shape)
        if not inputs.shape.is_compatible_with(expected):
            raise ImageError(
                f"preprocess returns shape {inputs.shape}; the model {self.model.name} needs {expected}"
            )
        return inputs

    def _check_shape(self, shape: tf.TensorShape) -> None:
        if shape.rank != 4 or shape[-1] not in (3, None):
            hint = "; channels come last" if shape.rank == 4 and shape[1] == 3 else ""
            raise ImageError(f"images have shape {shape}; expected [batch, height, width, 3]{hint}")
        if shape[0] == 0:
            raise ImageError(f"images have shape {shape}; give at least one image")
        for axis, name in ((1, "height"), (2, "width")):
            if shape[axis] is not None and shape[axis] < self.minimum_size:
                raise ImageError(
                    f"{name} {shape[axis]} is too small for {self.feature_layers[-1]}: at least "
                    f"{self.minimum_size} pixels are needed"
                )

    def get_config(self) -> dict[str, Any]:
        """Return the layer's configuration with the configuration of its model, without the weights."""
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "preprocess": keras.saving.serialize_keras_object(self._preprocess),
            "feature_layers": list(self.feature_layers),
            "minimum_size": self.minimum_size,
            "feature_scale": self.feature_scale,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EncoderLayer:
        """Return the layer that `get_config` describes, with new weights."""
        model, preprocess = map(
            keras.saving.deserialize_keras_object, (config["model"], config["preprocess"])
        )
        return super().from_config({**config, "model": model, "preprocess": preprocess})

    @property
    def trainable(self) -> bool:
        """Always False, also if the ``trainable`` of a model that contains the layer is set to True.

        To train the encoder nevertheless, with Keras 3, set that of `model`.
        """
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        pass

    def with_own_weights(self, *, dtype: str | None = None, name: str | None = None) -> EncoderLayer:
        """Return a frozen copy of the layer with its own variables, which have the same values.

        Args:
            dtype: name of the Keras dtype policy of the copy; by default its layers keep their own.
            name: name of the copy; by default Keras chooses one.
        """
        model = copy_model(self.model, dtype=dtype)
        model.trainable = False
        return EncoderLayer(
            model,
            copy.deepcopy(self._preprocess),
            feature_layers=self.feature_layers,
            minimum_size=self.minimum_size,
            feature_scale=self.feature_scale,
            name=name,
            dtype=dtype or self.dtype_policy.name,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> EncoderLayer:
        memo[id(self)] = self.with_own_weights(name=self.name)
        return memo[id(self)]
