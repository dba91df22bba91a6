"""Keras' optimisers, and tensorflow-addons', as an `Optimizer` of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfstyle.backend import OPTIMIZERS, averaged_value, optimizer_variables, start_optimizer
from tfstyle.errors import ConfigError
from tfstyle.optim.base import HIGH, LOW, Evaluate, Optimizer, Terms


class KerasState(NamedTuple):
    """State between two steps; later steps change the first two fields in place, not the third.

    Attributes:
        optimizer: the Keras optimiser, with its slots.
        variable: x, which it moves.
        average: the mean of iterates of an optimiser that averages them, else None.
    """

    optimizer: Any
    variable: Any
    average: tf.Tensor | None


def from_keras(
    optimizer: keras.optimizers.Optimizer, *, low: float = LOW, high: float = HIGH, per_pixel: bool = False
) -> Optimizer:
    """Drive any Keras optimiser, whose slots are variables, from Python: the loss alone is compiled.

    Args:
        optimizer: its class and configuration, of which a fresh optimiser is made at every scale.
        low, high: the bounds that x is clipped to after every step.
        per_pixel: hand on the gradient times the number of pixels, so that an ε or a threshold means the
            same at every size.

    Raises:
        ConfigError: not a Keras optimiser.
    """
    if not isinstance(optimizer, OPTIMIZERS):
        raise ConfigError(f"{optimizer!r} is neither a tfstyle Optimizer nor a keras.optimizers.Optimizer")
    kind, config = type(optimizer), optimizer.get_config()

    def init(x: tf.Tensor) -> KerasState:
        return KerasState(*start_optimizer(kind, x, config), None)

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

    # Without the name, which counts the instances.
    parameters = {key: value for key, value in config.items() if key != "name"}
    description = f"{kind.__name__}({parameters}, {low}, {high}, {per_pixel})"
    return Optimizer(
        init, step, solution, traceable=False, flatten=flatten, restore=restore, description=description
    )
