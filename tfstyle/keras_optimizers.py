"""Keras' optimisers, and tensorflow-addons', as an `Optimizer` of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfstyle.backend import OPTIMIZERS, kept_average, optimizer_variables, start_optimizer
from tfstyle.errors import ConfigError
from tfstyle.optimizers import HIGH, LOW, Evaluate, Optimizer, Terms


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

    def init(x: tf.Tensor) -> Any:
        return start_optimizer(*made_from, x)

    def step(evaluate: Evaluate, x: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any, Terms]:
        fresh, variable = state
        variable.assign(x)
        terms, gradient = evaluate(x)
        pixels = float(x.shape[1] * x.shape[2]) if per_pixel else 1.0
        fresh.apply_gradients([(gradient * pixels, variable)])
        return tf.clip_by_value(tf.convert_to_tensor(variable), low, high), state, terms

    def solution(x: tf.Tensor, state: Any) -> tf.Tensor:
        average = kept_average(*state)
        return x if average is None else tf.clip_by_value(tf.convert_to_tensor(average), low, high)

    def leaves(state: Any) -> list[np.ndarray]:
        fresh, variable = state
        return [np.array(tf.convert_to_tensor(v)) for v in (variable, *optimizer_variables(fresh))]

    def put_back(state: Any, arrays: Sequence[np.ndarray]) -> Any:
        fresh, variable = state
        for v, array in zip((variable, *optimizer_variables(fresh)), arrays, strict=True):
            v.assign(array)
        return state

    # Without the name, which counts the instances.
    numbers = {key: value for key, value in made_from[1].items() if key != "name"}
    described = f"{made_from[0].__name__}({numbers}, {low}, {high}, {per_pixel})"
    return Optimizer(
        init, step, solution, compiled=False, leaves=leaves, put_back=put_back, described=described
    )
