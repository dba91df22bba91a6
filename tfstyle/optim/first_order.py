"""Adam, and the exponential moving average (EMA) of another optimiser's iterates.

Adam uses the gradient only; it needs neither a line search nor curvature pairs. `averaged` can wrap any
`Optimizer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.optim.base import HIGH, LOW, Evaluate, Optimizer, Terms


class AdamState(NamedTuple):
    """State of Adam, float32.

    Attributes:
        first, second: EMAs of the gradient and of its square, in the image's shape.
        count: scalar, the number of steps taken.
    """

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
    """Return the Adam optimiser, which clips x to the bounds after every step.

    ``m ← β₁m + (1-β₁)g; v ← β₂v + (1-β₂)g²; x ← x - η √(1-β₂ᵗ)/(1-β₁ᵗ) m / (√v + ε)``

    Args:
        learning_rate: η, in units of x.
        beta_1, beta_2: decay rates of the first and second moment, each from 0 to below 1.
        epsilon: ε, in units of the gradient.
        low, high: bounds of x.
        corrected: whether to multiply ε by √(1-β₂ᵗ), which is equivalent to adding ε to the square root of
            the bias-corrected second moment, as PyTorch does. The two forms differ noticeably only for
            gradients not much larger than ε, in about the first 1 / (1-β₂) steps.

    Returns:
        An elementwise `Optimizer`. Its moments can be resized with the image.

    Reference: Kingma & Ba 2015, arXiv 1412.6980, the last form of section 2, which Keras uses too; with
    `corrected`, algorithm 1.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.optim import adam, make_step
        >>> optimizer = adam(0.05)
        >>> step = make_step(lambda image, target: {"total": tf.reduce_sum((image - target) ** 2)}, optimizer)
        >>> image, target = tf.zeros([1, 32, 32, 3]), tf.fill([1, 32, 32, 3], 0.5)
        >>> state = optimizer.init(image)
        >>> losses = []
        >>> for _ in range(5):
        ...     image, state, terms = step(image, state, target)
        ...     losses.append(float(terms["total"]))
        >>> losses[-1] < losses[0]
        True
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
    """State of an averaged optimiser.

    Attributes:
        inner: state of the wrapped optimiser.
        mean: the bias-corrected EMA, in the image's shape.
        weight: float32 scalar, 1 - dᵗ; 0 before the first step.
    """

    inner: Any
    mean: tf.Tensor
    weight: tf.Tensor


def averaged(optimizer: Optimizer, decay: float) -> Optimizer:
    """Return an optimiser whose solution is the EMA of another optimiser's solutions.

    ``a ← d a + (1-d) x, with a = 0 at the start; solution = a / (1 - dᵗ)``, over the t solutions so far,
    which include the initial image. The iterates are the same as without averaging. `Optimizer.resize`
    resizes the state of the wrapped optimiser and restarts the average from the resized image.

    Args:
        optimizer: the optimiser that moves x.
        decay: d, at least 0 and less than 1. With 0 the solution is the last one, without averaging.

    Returns:
        An `Optimizer` with the other properties of the wrapped optimiser.

    Raises:
        ConfigError: the decay is out of range.

    Reference: Kingma & Ba 2015, arXiv 1412.6980, section 7.2; crowsonkb's style-transfer-pytorch.

    Example:
        >>> from tfstyle.optim import adam, averaged
        >>> averaged(adam(), 0.99).elementwise
        True
    """
    if not 0 <= decay < 1:
        raise ConfigError(f"decay is {decay!r}; it must be at least 0 and less than 1")

    def init(x: tf.Tensor) -> AveragedState:
        return AveragedState(optimizer.init(x), tf.zeros_like(x), tf.zeros([]))

    def step(
        evaluate: Evaluate, x: tf.Tensor, state: AveragedState
    ) -> tuple[tf.Tensor, AveragedState, Terms]:
        previous = solution(x, state)
        x, inner, terms = optimizer.step(evaluate, x, state.inner)
        weight = decay * tf.maximum(state.weight, 1.0 - decay) + (1.0 - decay)
        # The state holds the bias-corrected mean: a / (1 - dᵗ) would have a large rounding error for small t.
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
        description=f"EMA({decay}) of {optimizer.description}",
    )
