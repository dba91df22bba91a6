"""Adam, and the exponential moving average (EMA) of another optimiser's iterates.

Adam uses the gradient alone, without line search or curvature. `averaged` can wrap any `Optimizer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.optim.base import HIGH, LOW, Evaluate, Optimizer, Terms


class AdamState(NamedTuple):
    """Both moments have the image's shape; ``count`` is a float32 scalar, the steps taken."""

    first: tf.Tensor
    second: tf.Tensor
    count: tf.Tensor


def adam(
    learning_rate: float = 0.02,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    epsilon: float = 1e-10,
    low: float = LOW,
    high: float = HIGH,
    corrected: bool = False,
) -> Optimizer:
    """Adam, with the result of every step clipped to the bounds.

    ``m ← β₁m + (1-β₁)g; v ← β₂v + (1-β₂)g²; x ← x - η √(1-β₂ᵗ)/(1-β₁ᵗ) m / (√v + ε)``

    Args:
        learning_rate: η, in units of x.
        beta_1, beta_2: the moments' decay.
        epsilon: ε.
        low, high: the bounds of x.
        corrected: multiply ε by √(1-β₂ᵗ), which puts it beside the corrected moment, as PyTorch does.
            It matters where gradients are small, in the first 1 / (1-β₂) steps.

    Reference: Kingma & Ba 2015, arXiv 1412.6980, the last form of section 2, as Keras; `corrected`,
    algorithm 1.
    """

    def init(x: tf.Tensor) -> AdamState:
        return AdamState(tf.zeros_like(x), tf.zeros_like(x), tf.zeros([]))

    def step(evaluate: Evaluate, x: tf.Tensor, state: AdamState) -> tuple[tf.Tensor, AdamState, Terms]:
        terms, gradient = evaluate(x)
        count = state.count + 1.0
        first = beta_1 * state.first + (1.0 - beta_1) * gradient
        second = beta_2 * state.second + (1.0 - beta_2) * tf.square(gradient)
        correction = tf.sqrt(1.0 - beta_2**count)
        rate = learning_rate * correction / (1.0 - beta_1**count)
        moved_x = x - rate * first / (tf.sqrt(second) + (epsilon * correction if corrected else epsilon))
        return tf.clip_by_value(moved_x, low, high), AdamState(first, second, count), terms

    def resize(state: AdamState, shape: tuple[int, int]) -> AdamState:
        first, second = (tf.image.resize(moment, shape) for moment in (state.first, state.second))
        return AdamState(first, tf.maximum(second, 0.0), state.count)

    parameters = f"{learning_rate}, {beta_1}, {beta_2}, {epsilon}, {low}, {high}, {corrected}"
    return Optimizer(init, step, resize=resize, elementwise=True, description=f"adam({parameters})")


class AveragedState(NamedTuple):
    """``inner`` is the averaged optimiser's state; ``weight`` is 1 - dᵗ, 0 before the first step."""

    inner: Any
    mean: tf.Tensor
    weight: tf.Tensor


def averaged(optimizer: Optimizer, decay: float) -> Optimizer:
    """An optimiser whose solution is the exponential moving average (EMA) of another one's.

    ``a ← d a + (1-d) x, from 0; solution = a / (1 - dᵗ)``, over the t solutions so far, the start
    included. The iterates themselves are the other optimiser's. `resize` carries that optimiser's state
    over and starts the average afresh, at the image then given.

    Args:
        optimizer: the one that moves x.
        decay: d, from 0, which averages nothing, to below 1.

    Raises:
        ConfigError: the decay is out of range.

    Reference: Kingma & Ba 2015, arXiv 1412.6980, section 7.2; crowsonkb's style-transfer-pytorch.
    """
    if not 0 <= decay < 1:
        raise ConfigError(f"decay is {decay!r}; it must be from 0 to below 1")

    def init(x: tf.Tensor) -> AveragedState:
        return AveragedState(optimizer.init(x), tf.zeros_like(x), tf.zeros([]))

    def step(
        evaluate: Evaluate, x: tf.Tensor, state: AveragedState
    ) -> tuple[tf.Tensor, AveragedState, Terms]:
        previous = solution(x, state)
        x, inner, terms = optimizer.step(evaluate, x, state.inner)
        weight = decay * tf.maximum(state.weight, 1.0 - decay) + (1.0 - decay)
        # The state holds the debiased mean itself: a / (1 - dᵗ) would round worst where t is small.
        share = (1.0 - decay) / weight
        mean = (1.0 - share) * previous + share * optimizer.solution(x, inner)
        return x, AveragedState(inner, mean, weight), terms

    def solution(x: tf.Tensor, state: AveragedState) -> tf.Tensor:
        return tf.where(state.weight > 0, state.mean, optimizer.solution(x, state.inner))

    def resize(state: AveragedState, shape: tuple[int, int]) -> AveragedState:
        inner = optimizer.resize(state.inner, shape) if optimizer.resize else state.inner
        return AveragedState(inner, tf.image.resize(tf.zeros_like(state.mean), shape), tf.zeros([]))

    def flatten(state: AveragedState) -> list[Any]:
        return [*optimizer.flatten(state.inner), state.mean, state.weight]

    def restore(state: AveragedState, arrays: Sequence[np.ndarray]) -> AveragedState:
        *inner, mean, weight = arrays
        return AveragedState(optimizer.restore(state.inner, inner), tf.constant(mean), tf.constant(weight))

    return optimizer._replace(
        init=init,
        step=step,
        solution=solution,
        resize=resize if optimizer.resize else None,
        flatten=flatten,
        restore=restore,
        description=f"the average by {decay} of {optimizer.description}",
    )
