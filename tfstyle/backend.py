"""Keras: that it computes with TensorFlow on channels-last images, and how its versions differ.

Keras 2.15 belongs to TensorFlow 2.15, the last that tensorflow-addons runs on; Keras 3 to TensorFlow 2.16
and later. What differs between the two stacks is here; what tensorflow-addons adds, in `tfstyle.addons`.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Sequence
from typing import Any

from tfstyle.errors import BackendError

try:
    import keras
    import tensorflow as tf
except (ImportError, ValueError) as error:
    wanted = os.environ.get("KERAS_BACKEND", "it is set to")
    raise BackendError(
        f"Keras cannot be imported with backend {wanted} ({error}); tfstyle needs KERAS_BACKEND=tensorflow"
    ) from error


#: Whether this is the older of the two stacks.
KERAS_2 = keras.__version__.startswith("2.")
# Keras 2.15: tensorflow-addons' optimisers are of the kind that Keras 2.11 renamed to "legacy".
_LEGACY: tuple[Any, ...] = (keras.optimizers.legacy.Optimizer,) if KERAS_2 else ()
#: What counts as a Keras optimiser.
OPTIMIZERS: tuple[Any, ...] = (keras.optimizers.Optimizer, *_LEGACY)
_SWAP_LOCK = threading.Lock()


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


def start_optimizer(kind: Any, x: tf.Tensor, config: dict[str, Any]) -> tuple[Any, Any]:
    """A new optimiser with all its slots, and a variable with the value x for it to move.

    Args:
        kind: one of `OPTIMIZERS`, or a subclass.
        x: float tensor of any shape.
        config: of its ``get_config``.
    """
    # Keras 2.15: the optimisers take TensorFlow's own variables, and it has no others.
    variable = tf.Variable(x) if KERAS_2 else keras.Variable(x)
    # A copy, as tensorflow-addons 0.23 removes the inner optimiser from the configuration that it is given.
    optimizer = kind.from_config(copy.deepcopy(config))
    # Keras 2.15: legacy optimisers have no build().
    if issubclass(kind, _LEGACY):
        optimizer._create_all_weights([variable])
    else:
        optimizer.build([variable])
    return optimizer, variable


def optimizer_variables(optimizer: Any) -> Sequence[Any]:
    """The optimiser's counters and slots."""
    # Keras 2.15: in legacy optimisers `variables` is a method; Nadam leaves out one of its own.
    if isinstance(optimizer, _LEGACY):
        return optimizer.weights
    left_out = [optimizer._u_product] if KERAS_2 and isinstance(optimizer, keras.optimizers.Nadam) else []
    return [*optimizer.variables, *left_out]


def averaged_value(optimizer: Any, variable: Any) -> tf.Tensor | None:
    """The mean of a variable's values, if the optimiser averages them and has begun to; else None."""
    # Keras 2.15: tensorflow-addons' MovingAverage and SWA.
    if not isinstance(optimizer, _LEGACY) or "average" not in optimizer.get_slot_names():
        return None
    start = optimizer.get_config().get("start_averaging", 0)
    if int(optimizer.iterations) <= start:
        return None
    return tf.identity(optimizer.get_slot(variable, "average"))


def short_name(variable: Any) -> str:
    """A variable's name within its layer, such as ``kernel``."""
    # Keras 2.15: layer/kernel:0.
    return variable.name.split("/")[-1].split(":")[0]


def application_layers(network: str, layers: tuple[str, ...]) -> tuple[str, ...]:
    """What layers of one of `keras.applications` are called here.

    Args:
        network: its name in lower case, such as ``densenet121``.
        layers: Keras 3's names.
    """
    # Keras 2.15 names them by path in these two.
    if KERAS_2 and network == "densenet121":
        return tuple(name.replace("conv1_", "conv1/") for name in layers)
    if KERAS_2 and network == "mobilenet_v3_small":
        return tuple(
            name.replace("_expand_", "/expand/").replace("conv_bn", "Conv/bn").replace("bn", "BatchNorm")
            for name in layers
        )
    return layers


def functional(inputs: Sequence[Any], outputs: dict[str, Any]) -> keras.Model:
    """`keras.Model` of one input; raise ValueError where an output depends on something else."""
    model = keras.Model(inputs, outputs)
    # Keras 3.13 says nothing, as 2.15 and 3.15 do: the other input is then among the layers.
    if sum(isinstance(layer, keras.layers.InputLayer) for layer in model.layers) > 1:
        raise ValueError(f"outputs {', '.join(outputs)} need another input")
    return model


def call_with(model: keras.Model, inputs: tf.Tensor, *, values: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
    """A model's outputs as in inference, with other values for its variables.

    Args:
        inputs: of the model.
        values: one per ``model.variables``, in their order; cast to their types.

    Raises:
        BackendError: on Keras 2, a variable that is not an attribute of a layer.
    """
    values_by_id = {
        id(variable): tf.cast(value, variable.dtype)
        for variable, value in zip(model.variables, values, strict=True)
    }
    if not KERAS_2:
        trainable = [values_by_id[id(variable)] for variable in model.trainable_variables]
        others = [values_by_id[id(variable)] for variable in model.non_trainable_variables]
        return model.stateless_call(trainable, others, inputs, training=False)[0]
    # Keras 2.15 has no stateless_call: for this call the values replace the layers' attributes.
    attributes_with_variables = [
        (vars(layer), name, variable)
        for layer in model.submodules
        for name, variable in vars(layer).items()
        if id(variable) in values_by_id
    ]
    if {id(variable) for _, _, variable in attributes_with_variables} != set(values_by_id):
        raise BackendError(f"{model.name} has variables out of reach on Keras {keras.__version__}")
    with _SWAP_LOCK:
        try:
            for attributes, name, variable in attributes_with_variables:
                attributes[name] = values_by_id[id(variable)]
            return model(inputs, training=False)
        finally:
            for attributes, name, variable in attributes_with_variables:
                attributes[name] = variable
