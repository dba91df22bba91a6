"""Keras' optimisers, and tensorflow-addons', as an `Optimizer` of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfstyle.backend import OPTIMIZERS, kept_average, optimizer_variables, start_optimizer
from tfstyle.errors import ConfigError
from tfstyle.optim.base import HIGH, LOW, Evaluate, Optimizer, Terms


class KerasState(NamedTuple):
    """Between two steps; the first two go on changing, the third is as it was then.

    Attributes:
        optimizer: with its slots.
        variable: x, which it moves.
        average: the mean of iterates that the optimiser keeps, where it does, or None.
    """

    optimizer: Any
    variable: Any
    average: tf.Tensor | None


def from_keras(
    optimizer: keras.optimizers.Optimizer, low: float = LOW, high: float = HIGH, per_pixel: bool = False
) -> Optimizer:
    """Drive any Keras optimiser, whose slots are variables, from Python: the loss alone is compiled.

    Args:
        optimizer: its configuration is taken, and a fresh one made of it at every scale.
        low, high: the bounds that x is clipped to after every step.
        per_pixel: hand on the gradient times the number of pixels, so that an ε or a threshold means the
            same at every size.

    Raises:
        ConfigError: not a Keras optimiser.
    """
    if not isinstance(optimizer, OPTIMIZERS):
        raise ConfigError(f"{optimizer!r} is neither a tfstyle Optimizer nor a keras.optimizers.Optimizer")
    made_from = type(optimizer), optimizer.get_config()

    def init(x: tf.Tensor) -> KerasState:
        return KerasState(*start_optimizer(*made_from, x), None)

    def step(evaluate: Evaluate, x: tf.Tensor, state: KerasState) -> tuple[tf.Tensor, KerasState, Terms]:
        fresh, variable, _ = state
        variable.assign(x)
        terms, gradient = evaluate(x)
        pixels = float(x.shape[1] * x.shape[2]) if per_pixel else 1.0
        fresh.apply_gradients([(gradient * pixels, variable)])
        moved = tf.clip_by_value(tf.convert_to_tensor(variable), low, high)
        return moved, KerasState(fresh, variable, kept_average(fresh, variable)), terms

    def solution(x: tf.Tensor, state: KerasState) -> tf.Tensor:
        return x if state.average is None else tf.clip_by_value(state.average, low, high)

    def leaves(state: KerasState) -> list[np.ndarray]:
        fresh, variable, _ = state
        return [np.array(tf.convert_to_tensor(v)) for v in (variable, *optimizer_variables(fresh))]

    def put_back(state: KerasState, arrays: Sequence[np.ndarray]) -> KerasState:
        fresh, variable, _ = state
        for v, array in zip((variable, *optimizer_variables(fresh)), arrays, strict=True):
            v.assign(array)
        return KerasState(fresh, variable, kept_average(fresh, variable))

    # Without the name, which counts the instances.
    numbers = {key: value for key, value in made_from[1].items() if key != "name"}
    described = f"{made_from[0].__name__}({numbers}, {low}, {high}, {per_pixel})"
    return Optimizer(
        init, step, solution, compiled=False, leaves=leaves, put_back=put_back, described=described
    )
