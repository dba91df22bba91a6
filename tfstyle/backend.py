"""The check of Keras' backend, and the differences between Keras 2.15 and Keras 3.

Keras 2.15 belongs to TensorFlow 2.15, the last version that tensorflow-addons supports. Keras 3 belongs to
TensorFlow 2.16 and later. The functions of tensorflow-addons are in `tfstyle.addons`.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Sequence
from typing import Any

from tfstyle.errors import BackendError
from tfstyle.files import keras_home

# Without a home folder, or if KERAS_HOME begins with "~", Keras creates a folder named "~".
if "KERAS_HOME" in os.environ or os.path.expanduser("~") == "~":
    os.environ["KERAS_HOME"] = str(keras_home())
try:
    import keras
    import tensorflow as tf
except (ImportError, ValueError) as error:
    name = os.environ.get("KERAS_BACKEND", "of its configuration file")
    raise BackendError(
        f"Keras cannot be imported with the backend {name} ({error}); tfstyle needs KERAS_BACKEND=tensorflow"
    ) from error


#: Whether Keras 2 is installed, and not Keras 3.
KERAS_2 = keras.__version__.startswith("2.")
# Keras 2.15: the optimisers of tensorflow-addons derive from the class that Keras 2.11 renamed to "legacy".
_LEGACY: tuple[Any, ...] = (keras.optimizers.legacy.Optimizer,) if KERAS_2 else ()
#: The base classes of Keras optimisers.
OPTIMIZERS: tuple[Any, ...] = (keras.optimizers.Optimizer, *_LEGACY)
_SWAP_LOCK = threading.Lock()


def check_backend() -> None:
    """Raise BackendError unless Keras uses TensorFlow with channels-last images, and let GPU memory grow.

    TF_FORCE_GPU_ALLOW_GROWTH is set to true unless the environment has a value for it. TensorFlow then
    allocates memory of a GPU as it needs it. It reads the variable when it initialises a GPU; the user's
    settings in `tf.config` are not changed.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if keras.backend.backend() != "tensorflow":
        raise BackendError(
            f"Keras uses the backend {keras.backend.backend()}; tfstyle needs KERAS_BACKEND=tensorflow"
        )
    if keras.backend.image_data_format() != "channels_last":
        raise BackendError(
            "Keras is set to channels_first images; tfstyle needs "
            'keras.config.set_image_data_format("channels_last")'
        )


def is_symbolic(value: Any) -> bool:
    """Return whether a value is a symbolic tensor of Keras, such as `keras.Input` returns."""
    # Keras 2.15: keras.backend.is_keras_tensor raises an error for arrays, and the class is not public.
    return any(kind.__name__ == "KerasTensor" for kind in type(value).__mro__)


def copy_optimizer(optimizer: Any) -> Any:
    """Return a new optimiser with the class, the configuration and the public attributes of an optimiser.

    Public attributes that the class or the user added, and numbers and strings that the user changed, are
    set on the copy. The copy has new variables and has made no step.

    Args:
        optimizer: an instance of one of `OPTIMIZERS`.
    """
    # tensorflow-addons 0.23 removes the inner optimiser from the configuration passed to it: pass a copy.
    new = type(optimizer).from_config(copy.deepcopy(optimizer.get_config()))
    own = vars(new)
    for name, value in vars(optimizer).items():
        changed = isinstance(value, (bool, int, float, str)) and own.get(name) != value
        if not name.startswith("_") and name not in ("built", "name") and (name not in own or changed):
            setattr(new, name, value)
    return new


def start_optimizer(optimizer: Any, x: tf.Tensor) -> tuple[Any, Any]:
    """Create the slot variables of a new optimiser, and the variable that it optimises.

    Args:
        optimizer: an instance of one of `OPTIMIZERS` that has not made a step.
        x: initial value of the variable, a float tensor of any shape.

    Returns:
        The optimiser and the variable.
    """
    # Keras 2.15: optimisers take TensorFlow's variables, and there is no keras.Variable.
    variable = tf.Variable(x) if KERAS_2 else keras.Variable(x)
    # Keras 2.15: legacy optimisers have no build().
    if isinstance(optimizer, _LEGACY):
        optimizer._create_all_weights([variable])
    else:
        optimizer.build([variable])
    return optimizer, variable


def optimizer_variables(optimizer: Any) -> Sequence[Any]:
    """Return all variables of an optimiser: its counters and its slot variables."""
    # Keras 2.15: `variables` is a method of legacy optimisers. That of the new Nadam lacks one variable.
    if isinstance(optimizer, _LEGACY):
        return optimizer.weights
    missing = [optimizer._u_product] if KERAS_2 and isinstance(optimizer, keras.optimizers.Nadam) else []
    return [*optimizer.variables, *missing]


def averaged_value(optimizer: Any, variable: Any) -> tf.Tensor | None:
    """Return the average of a variable's iterates, or None if the optimiser has not averaged any.

    Args:
        optimizer: a Keras optimiser. Only MovingAverage and SWA of tensorflow-addons average.
        variable: the variable that it optimises.
    """
    # Keras 2.15: only its legacy optimisers can be those of tensorflow-addons.
    if not isinstance(optimizer, _LEGACY) or "average" not in optimizer.get_slot_names():
        return None
    start = optimizer.get_config().get("start_averaging", 0)
    if int(optimizer.iterations) <= start:
        return None
    return tf.identity(optimizer.get_slot(variable, "average"))


def short_name(variable: Any) -> str:
    """Return the name of a variable within its layer, such as ``kernel``."""
    # Keras 2.15: the name is layer/kernel:0.
    return variable.name.split("/")[-1].split(":")[0]


def application_layers(network: str, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of layers of a network in `keras.applications` in the installed version of Keras.

    Args:
        network: name of the network in lower case, such as ``densenet121``.
        layers: names of the layers in Keras 3.

    Returns:
        The names, in the same order.
    """
    # Keras 2.15: the layers of these two networks are named by paths.
    if KERAS_2 and network == "densenet121":
        return tuple(name.replace("conv1_", "conv1/") for name in layers)
    if KERAS_2 and network == "mobilenet_v3_small":
        return tuple(
            name.replace("_expand_", "/expand/").replace("conv_bn", "Conv/bn").replace("bn", "BatchNorm")
            for name in layers
        )
    return layers


def functional(inputs: Sequence[Any], outputs: dict[str, Any], *, name: str) -> keras.Model:
    """Return a `keras.Model` with one input.

    Args:
        inputs: the symbolic input, in a sequence of length 1.
        outputs: names -> symbolic outputs.
        name: name of the model.

    Raises:
        ValueError: an output depends on another input.
    """
    model = keras.Model(inputs, outputs, name=name)
    # Keras 3.13 does not raise the error of 2.15 and 3.15; it adds the other input to the layers.
    if sum(isinstance(layer, keras.layers.InputLayer) for layer in model.layers) > 1:
        raise ValueError(f"outputs {', '.join(outputs)} depend on a second input; use outputs of the first")
    return model


def call_with(model: keras.Model, inputs: tf.Tensor, *, values: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return the outputs of a model in inference with other values for its variables.

    Args:
        model: the model. Its own variables are not changed.
        inputs: tensor that the model is applied to.
        values: one tensor for each of ``model.variables``, in the same order. They are cast to the types of
            the variables.

    Raises:
        BackendError: on Keras 2, if a variable of the model is not an attribute of one of its layers.
    """
    values_by_id = {
        id(variable): tf.cast(value, variable.dtype)
        for variable, value in zip(model.variables, values, strict=True)
    }
    if not KERAS_2:
        trainable = [values_by_id[id(variable)] for variable in model.trainable_variables]
        others = [values_by_id[id(variable)] for variable in model.non_trainable_variables]
        return model.stateless_call(trainable, others, inputs, training=False)[0]
    # Keras 2.15 has no stateless_call: the values replace the attributes of the layers during this call.
    attributes_with_variables = [
        (vars(layer), name, variable)
        for layer in model.submodules
        for name, variable in vars(layer).items()
        if id(variable) in values_by_id
    ]
    if {id(variable) for _, _, variable in attributes_with_variables} != set(values_by_id):
        raise BackendError(
            f"model {model.name} has variables that are not attributes of its layers, which Keras "
            f"{keras.__version__} cannot replace; use Keras 3"
        )
    with _SWAP_LOCK:
        try:
            for attributes, name, variable in attributes_with_variables:
                attributes[name] = values_by_id[id(variable)]
            return model(inputs, training=False)
        finally:
            for attributes, name, variable in attributes_with_variables:
                attributes[name] = variable
