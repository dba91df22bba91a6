"""The adapter that makes an `Optimizer` of a Keras or tensorflow-addons optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfstyle.backend import OPTIMIZERS, averaged_value, copy_optimizer, optimizer_variables, start_optimizer
from tfstyle.errors import ConfigError
from tfstyle.optim.base import HIGH, LOW, Evaluate, Optimizer, Terms


class KerasState(NamedTuple):
    """State of a Keras optimiser. Steps change `optimizer` and `variable` in place.

    Attributes:
        optimizer: the Keras optimiser with its slot variables.
        variable: the variable that holds x.
        average: the average of the iterates if the optimiser computes one, otherwise None.
    """

    optimizer: Any
    variable: Any
    average: tf.Tensor | None


def from_keras(
    optimizer: keras.optimizers.Optimizer, *, low: float = LOW, high: float = HIGH, per_pixel: bool = False
) -> Optimizer:
    """Return an `Optimizer` that moves the image with a Keras optimiser.

    A Keras optimiser keeps its state in variables. Its step therefore runs in Python, and only the
    evaluation of loss and gradient is compiled.

    Args:
        optimizer: a Keras or tensorflow-addons optimiser. It is not changed: every call of
            `Optimizer.init` makes a copy with its class, its configuration (``get_config``) and its public
            attributes, but with new variables.
        low, high: bounds that x is clipped to after every step.
        per_pixel: whether to multiply the gradient by the number of pixels, so that an ε or a threshold of
            the optimiser has the same effect at every image size.

    Returns:
        An `Optimizer` that is not traceable.

    Raises:
        ConfigError: the argument is not a Keras optimiser, or it cannot be created again from its
            configuration.

    Example:
        >>> import keras
        >>> from tfstyle.optim import from_keras
        >>> optimizer = from_keras(keras.optimizers.SGD(learning_rate=0.1, momentum=0.9))
        >>> optimizer.traceable
        False
    """
    if not isinstance(optimizer, OPTIMIZERS):
        raise ConfigError(
            f"optimizer is {optimizer!r}; it must be a tfstyle Optimizer or a keras.optimizers.Optimizer"
        )
    name = type(optimizer).__name__
    try:
        original = copy_optimizer(optimizer)
    except Exception as error:  # the class may raise anything
        raise ConfigError(
            f"the optimiser {name} cannot be copied ({error}); let its get_config return all arguments of "
            "its __init__"
        ) from None

    def init(x: tf.Tensor) -> KerasState:
        return KerasState(*start_optimizer(copy_optimizer(original), x), None)

    def step(evaluate: Evaluate, x: tf.Tensor, state: KerasState) -> tuple[tf.Tensor, KerasState, Terms]:
        keras_optimizer, variable, _ = state
        variable.assign(x)
        terms, gradient = evaluate(x)
        pixels = float(x.shape[1] * x.shape[2]) if per_pixel else 1.0
        keras_optimizer.apply_gradients([(gradient * pixels, variable)])
        moved = tf.clip_by_value(tf.convert_to_tensor(variable), low, high)
        return moved, KerasState(keras_optimizer, variable, averaged_value(keras_optimizer, variable)), terms

    def solution(x: tf.Tensor, state: KerasState) -> tf.Tensor:
        return x if state.average is None else tf.clip_by_value(state.average, low, high)

    def flatten(state: KerasState) -> list[np.ndarray]:
        keras_optimizer, variable, _ = state
        return [np.array(tf.convert_to_tensor(v)) for v in (variable, *optimizer_variables(keras_optimizer))]

    def restore(state: KerasState, arrays: Sequence[np.ndarray]) -> KerasState:
        keras_optimizer, variable, _ = state
        for v, array in zip((variable, *optimizer_variables(keras_optimizer)), arrays, strict=True):
            v.assign(array)
        return KerasState(keras_optimizer, variable, averaged_value(keras_optimizer, variable))

    # The name is left out because Keras numbers the instances in it.
    parameters = {key: value for key, value in optimizer.get_config().items() if key != "name"}
    description = f"{name}({parameters}, {low}, {high}, {per_pixel})"
    return Optimizer(
        init, step, solution, traceable=False, flatten=flatten, restore=restore, description=description
    )
