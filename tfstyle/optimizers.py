"""Adam and L-BFGS as pure functions of image, gradient and state; their average.

An `Optimizer` is a pair of functions on structures of tensors. ``init(x)`` gives the state;
``step(evaluate, x, state)`` calls ``evaluate(x) -> (terms, gradient)`` once, where ``terms["total"]``
is the loss, and returns the next x, the next state and the terms. So an iteration is one evaluation,
whichever the method, and a run can be stopped, stored and continued between any two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.quasi_newton import fixed, searching

Terms = dict[str, tf.Tensor]
Evaluate = Callable[[tf.Tensor], tuple[Terms, tf.Tensor]]
#: What an image may hold; every optimiser here keeps within it.
LOW, HIGH = 0.0, 1.0


def _put_back(state: Any, arrays: Sequence[np.ndarray]) -> Any:
    """A state of the same structure, its leaves these arrays as tensors."""
    return tf.nest.pack_sequence_as(state, [tf.constant(array) for array in arrays])


class Optimizer(NamedTuple):
    """A method of minimisation.

    Attributes:
        init: x -> state.
        step: (evaluate, x, state) -> (next x, next state, terms at x).
        solution: (x, state) -> the best x known; a line search may be trying another one.
        recovers: whether a loss that is not finite is taken back, not an end.
        elementwise: whether each component of x moves by itself, given the gradient.
        compiled: whether `step` may be traced; False where it keeps variables of its own.
        resize: (state, (height, width)) -> the state for the same image at that size; None where
            another size means another start.
        leaves: state -> its tensors or arrays, in an order of its own, which later steps leave alone.
        put_back: (state that `init` gave, such arrays) -> the state with these values.
        described: the method and its numbers; runs that differ in it are not continued by one another.
    """

    init: Callable[[tf.Tensor], Any]
    step: Callable[[Evaluate, tf.Tensor, Any], tuple[tf.Tensor, Any, Terms]]
    solution: Callable[[tf.Tensor, Any], tf.Tensor] = lambda x, state: x
    recovers: bool = False
    elementwise: bool = False
    compiled: bool = True
    resize: Callable[[Any, tuple[int, int]], Any] | None = None
    leaves: Callable[[Any], list[Any]] = tf.nest.flatten
    put_back: Callable[[Any, Sequence[np.ndarray]], Any] = _put_back
    described: str = "an optimizer of one's own"


class AdamState(NamedTuple):
    """Both moments have the image's shape; ``count`` is a float32 scalar, the steps taken."""

    first: tf.Tensor
    second: tf.Tensor
    count: tf.Tensor


def adam(
    learning_rate: float = 0.02,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
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
        moved = x - rate * first / (tf.sqrt(second) + (epsilon * correction if corrected else epsilon))
        return tf.clip_by_value(moved, low, high), AdamState(first, second, count), terms

    def resize(state: AdamState, shape: tuple[int, int]) -> AdamState:
        first, second = (tf.image.resize(moment, shape) for moment in (state.first, state.second))
        return AdamState(first, tf.maximum(second, 0.0), state.count)

    numbers = f"{learning_rate}, {beta_1}, {beta_2}, {epsilon}, {low}, {high}, {corrected}"
    return Optimizer(init, step, resize=resize, elementwise=True, described=f"adam({numbers})")


def lbfgs(history: int = 10, low: float = LOW, high: float = HIGH) -> Optimizer:
    """L-BFGS with projection onto bounds and a backtracking search, one evaluation per step.

    A trial that lowers the loss enough is accepted, its pair (s, y) stored where s·y is positive, and
    the full quasi-Newton step from it is tried next. Another is taken back and the step shortened, to
    the minimum of the parabola through what is known, by half where the loss was not finite; at the
    third time the pairs are forgotten. Components at a bound that the gradient pushes against are
    left out of the step.

    The first step moves the steepest component by one grey level. Until a first pair is found, and
    at a content start there may be none for a while, accepted steps double in length.

    Args:
        history: pairs kept, 1 to 100.
        low, high: the bounds of x; infinite for none.

    Raises:
        ConfigError: the history is out of range.

    Reference: Nocedal & Wright 2006, Numerical Optimization, algorithms 7.4 and 3.1; the active set
    as in Bertsekas 1982, Projected Newton methods.
    """
    _check_history(history)
    init, step = searching(history, low, high)
    return Optimizer(
        init,
        step,
        solution=lambda x, state: state.point,
        recovers=True,
        described=f"lbfgs({history}, {low}, {high})",
    )


def lbfgs_fixed(
    history: int = 100,
    learning_rate: float = 1.0,
    low: float = -math.inf,
    high: float = math.inf,
    unit: float = 1.0,
) -> Optimizer:
    """L-BFGS whose every step is taken as it comes: no search, and no way back from a bad one.

    ``x ← x - η t H g``. H is the two-loop estimate of the inverse Hessian over the newest pairs
    (s, y), those with y·s > 1e-10, upon ``H₀ = y·s / y·y`` of the newest of them, or 1 before there
    is any; t is ``min(1, 1 / Σ|g|)`` in the first step and 1 after it. Where ``-g·Hg > -1e-9`` x
    stays, for good.

    What the programs in Torch and PyTorch minimise with. Theirs also stop, or evaluate the same
    point once more, at a change or a gradient below a tolerance; here the driver decides that.

    Args:
        history: pairs kept, 1 to 100.
        learning_rate: η, of every step.
        low, high: the bounds that x is clipped to after every step; s is the clipped step.
        unit: the x that counts as 1 in t and in H = 1, which alone depend on it: 1/255 makes
            an image in 0..1 move as one in 0..255 would.

    Raises:
        ConfigError: the history is out of range.

    Reference: `torch.optim.LBFGS` without ``line_search_fn``; Nocedal & Wright 2006, algorithm 7.4.
    """
    _check_history(history)
    return Optimizer(
        *fixed(history, learning_rate, low, high, unit),
        described=f"lbfgs_fixed({history}, {learning_rate}, {low}, {high}, {unit})",
    )


def _check_history(history: int) -> None:
    if not 1 <= history <= 100:
        raise ConfigError(f"history is {history!r}; it must be from 1 to 100")


class AveragedState(NamedTuple):
    """``inner`` is the averaged optimiser's own; ``weight`` is 1 - dᵗ, 0 before the first step."""

    inner: Any
    mean: tf.Tensor
    weight: tf.Tensor


def averaged(optimizer: Optimizer, decay: float) -> Optimizer:
    """An optimiser whose solution is the exponential moving average of another one's.

    ``a ← d a + (1-d) x, from 0; solution = a / (1 - dᵗ)``, over the t solutions so far, the start
    among them. The iterates themselves are the other's. `resize` carries the other's state over and
    starts the average afresh, at the image then given.

    Args:
        optimizer: what moves x.
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
        before = solution(x, state)
        x, inner, terms = optimizer.step(evaluate, x, state.inner)
        weight = decay * tf.maximum(state.weight, 1.0 - decay) + (1.0 - decay)
        # The debiased mean itself is kept: a / (1 - dᵗ) would round worst where t is small.
        share = (1.0 - decay) / weight
        mean = (1.0 - share) * before + share * optimizer.solution(x, inner)
        return x, AveragedState(inner, mean, weight), terms

    def solution(x: tf.Tensor, state: AveragedState) -> tf.Tensor:
        return tf.where(state.weight > 0, state.mean, optimizer.solution(x, state.inner))

    def resize(state: AveragedState, shape: tuple[int, int]) -> AveragedState:
        inner = optimizer.resize(state.inner, shape) if optimizer.resize else state.inner
        return AveragedState(inner, tf.image.resize(tf.zeros_like(state.mean), shape), tf.zeros([]))

    def leaves(state: AveragedState) -> list[Any]:
        return [*optimizer.leaves(state.inner), state.mean, state.weight]

    def put_back(state: AveragedState, arrays: Sequence[np.ndarray]) -> AveragedState:
        *inner, mean, weight = arrays
        return AveragedState(optimizer.put_back(state.inner, inner), tf.constant(mean), tf.constant(weight))

    return optimizer._replace(
        init=init,
        step=step,
        solution=solution,
        resize=resize if optimizer.resize else None,
        leaves=leaves,
        put_back=put_back,
        described=f"the average by {decay} of {optimizer.described}",
    )
