"""Adam and L-BFGS as pure functions of image, gradient and state; and an adapter for Keras' own.

An `Optimizer` is a pair of functions on structures of tensors. ``init(x)`` gives the state;
``step(evaluate, x, state)`` calls ``evaluate(x) -> (terms, gradient)`` once, where ``terms["total"]``
is the loss, and returns the next x, the next state and the terms. So an iteration is one evaluation,
whichever the method, and a run can be stopped, stored and continued between any two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfstyle.errors import ConfigError

Terms = dict[str, tf.Tensor]
Evaluate = Callable[[tf.Tensor], tuple[Terms, tf.Tensor]]
#: What an image may hold; every optimiser here keeps within it.
LOW, HIGH = 0.0, 1.0
GREY_LEVEL = 1 / 255


class Optimizer(NamedTuple):
    """A method of minimisation.

    Attributes:
        init: x -> state.
        step: (evaluate, x, state) -> (next x, next state, terms at x).
        solution: (x, state) -> the best x known; a line search may be trying another one.
        recovers: whether a loss that is not finite is taken back, not an end.
        compiled: whether `step` may be traced; False where it keeps variables of its own.
    """

    init: Callable[[tf.Tensor], Any]
    step: Callable[[Evaluate, tf.Tensor, Any], tuple[tf.Tensor, Any, Terms]]
    solution: Callable[[tf.Tensor, Any], tf.Tensor] = lambda x, state: x
    recovers: bool = False
    compiled: bool = True


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
) -> Optimizer:
    """Adam, with the result of every step clipped to the bounds.

    ``m ← β₁m + (1-β₁)g; v ← β₂v + (1-β₂)g²; x ← x - η √(1-β₂ᵗ)/(1-β₁ᵗ) m / (√v + ε)``

    Args:
        learning_rate: η, in units of x.
        beta_1, beta_2: the moments' decay.
        epsilon: ε.
        low, high: the bounds of x.

    Reference: Kingma & Ba 2015, arXiv 1412.6980, the last form of section 2; Keras has the same.
    """

    def init(x: tf.Tensor) -> AdamState:
        return AdamState(tf.zeros_like(x), tf.zeros_like(x), tf.zeros([]))

    def step(evaluate: Evaluate, x: tf.Tensor, state: AdamState) -> tuple[tf.Tensor, AdamState, Terms]:
        terms, gradient = evaluate(x)
        count = state.count + 1.0
        first = beta_1 * state.first + (1.0 - beta_1) * gradient
        second = beta_2 * state.second + (1.0 - beta_2) * tf.square(gradient)
        rate = learning_rate * tf.sqrt(1.0 - beta_2**count) / (1.0 - beta_1**count)
        moved = x - rate * first / (tf.sqrt(second) + epsilon)
        return tf.clip_by_value(moved, low, high), AdamState(first, second, count), terms

    return Optimizer(init, step)


class LbfgsState(NamedTuple):
    """All of L-BFGS's memory, float32; vectors have the image's shape.

    Attributes:
        point, gradient: where the loss was last accepted, and its gradient there.
        loss: at `point`; infinite before the first evaluation.
        direction: the full step from `point` that the search shortens.
        length: the fraction of it being tried.
        scale: of the steepest-descent matrix under the pairs, s·y / y·y.
        failures: trials rejected since `point` was accepted.
        s, y: the last differences of points and gradients, newest first.
        rho: ``[history]``, 1 / s·y of each pair, 0 where there is none.
    """

    point: tf.Tensor
    gradient: tf.Tensor
    loss: tf.Tensor
    direction: tf.Tensor
    length: tf.Tensor
    scale: tf.Tensor
    failures: tf.Tensor
    s: tuple[tf.Tensor, ...]
    y: tuple[tf.Tensor, ...]
    rho: tf.Tensor


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
    if not 1 <= history <= 100:
        raise ConfigError(f"history is {history!r}; it must be from 1 to 100")
    sufficient = 1e-4  # Armijo's constant

    def init(x: tf.Tensor) -> LbfgsState:
        zeros = tf.zeros_like(x)
        none = (zeros,) * history
        return LbfgsState(
            point=x,
            gradient=zeros,
            loss=tf.constant(math.inf),
            direction=zeros,
            length=tf.constant(1.0),
            scale=tf.constant(0.0),
            failures=tf.constant(0.0),
            s=none,
            y=none,
            rho=tf.zeros([history]),
        )

    def pushes_out(x: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        """Where x is at a bound and the step down the gradient would leave it."""
        return ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))

    def grey_step(gradient: tf.Tensor) -> tf.Tensor:
        """The scale at which the steepest component moves by one grey level."""
        return GREY_LEVEL / tf.maximum(tf.reduce_max(tf.abs(gradient)), 1e-30)

    def step(evaluate: Evaluate, x: tf.Tensor, state: LbfgsState) -> tuple[tf.Tensor, LbfgsState, Terms]:
        terms, gradient = evaluate(x)
        loss = terms["total"]
        slope = _dot(state.gradient, x - state.point)
        finite = tf.math.is_finite(loss) & tf.math.is_finite(tf.reduce_sum(tf.abs(gradient)))
        better = finite & (loss <= state.loss + sufficient * slope)
        new = tf.cond(
            better,
            lambda: accept(x, loss, gradient, state),
            lambda: reject(loss, slope, finite, state),
        )
        return tf.clip_by_value(new.point + new.length * new.direction, low, high), new, terms

    def accept(x: tf.Tensor, loss: tf.Tensor, gradient: tf.Tensor, state: LbfgsState) -> LbfgsState:
        s, y = x - state.point, gradient - state.gradient
        sy, yy = _dot(s, y), _dot(y, y)
        first = tf.math.is_inf(state.loss)
        curved = ~first & (sy > 1e-8 * tf.sqrt(yy * _dot(s, s)))
        unpaired = tf.where(
            first, grey_step(gradient), tf.where(state.rho[0] > 0, state.scale, 2.0 * state.scale)
        )
        scale = tf.where(curved, tf.math.divide_no_nan(sy, yy), unpaired)

        newest = tf.concat([[tf.math.divide_no_nan(1.0, sy)], state.rho[:-1]], 0)
        # A condition hands tensors on where a selection would copy each of them.
        pairs_s, pairs_y, rho = tf.cond(
            curved,
            lambda: ((s, *state.s[:-1]), (y, *state.y[:-1]), newest),
            lambda: (state.s, state.y, state.rho),
        )

        pushed = pushes_out(x, gradient)
        free = tf.where(pushed, 0.0, gradient)
        direction = -_two_loop(free, pairs_s, pairs_y, rho, scale)
        direction = tf.where(pushed, 0.0, direction)
        downhill = _dot(direction, free) < 0
        direction = tf.where(downhill, direction, -scale * free)
        return LbfgsState(
            x, gradient, loss, direction, tf.constant(1.0), scale, tf.constant(0.0), pairs_s, pairs_y, rho
        )

    def reject(loss: tf.Tensor, slope: tf.Tensor, finite: tf.Tensor, state: LbfgsState) -> LbfgsState:
        parabola = tf.math.divide_no_nan(-slope, 2.0 * (loss - state.loss - slope))
        shorter = state.length * tf.where(finite, tf.clip_by_value(parabola, 0.1, 0.5), 0.5)
        failures = state.failures + 1.0
        forget = tf.equal(failures, 3.0)
        grey = grey_step(state.gradient)
        steepest = tf.where(pushes_out(state.point, state.gradient), 0.0, -grey * state.gradient)
        return state._replace(
            direction=tf.where(forget, steepest, state.direction),
            length=tf.where(forget, 1.0, shorter),
            scale=tf.where(forget, grey, state.scale),
            failures=failures,
            rho=tf.where(forget, tf.zeros_like(state.rho), state.rho),
        )

    return Optimizer(init, step, solution=lambda x, state: state.point, recovers=True)


def _two_loop(
    gradient: tf.Tensor,
    s: tuple[tf.Tensor, ...],
    y: tuple[tf.Tensor, ...],
    rho: tf.Tensor,
    scale: tf.Tensor,
) -> tf.Tensor:
    """The inverse Hessian's estimate times a gradient; pairs newest first, those with rho 0 unused."""
    vector, alphas = gradient, []
    for i in range(len(s)):
        alphas.append(rho[i] * _dot(s[i], vector))
        vector = vector - alphas[i] * y[i]
    vector = scale * vector
    for i in reversed(range(len(s))):
        vector = vector + (alphas[i] - rho[i] * _dot(y[i], vector)) * s[i]
    return vector


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(a * b)


def from_keras(optimizer: keras.optimizers.Optimizer, low: float = LOW, high: float = HIGH) -> Optimizer:
    """Drive any Keras optimiser, whose slots are variables, from Python: the loss alone is compiled.

    Args:
        optimizer: its configuration is taken, and a fresh one made of it at every scale.
        low, high: the bounds that x is clipped to after every step.

    Raises:
        ConfigError: not a Keras optimiser.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ConfigError(f"{optimizer!r} is neither a tfstyle Optimizer nor a keras.optimizers.Optimizer")
    made_from = type(optimizer), optimizer.get_config()

    def init(x: tf.Tensor) -> Any:
        variable = keras.Variable(x) if hasattr(keras, "Variable") else tf.Variable(x)
        fresh = made_from[0].from_config(made_from[1])
        fresh.build([variable])
        return fresh, variable

    def step(evaluate: Evaluate, x: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any, Terms]:
        fresh, variable = state
        variable.assign(x)
        terms, gradient = evaluate(x)
        fresh.apply_gradients([(gradient, variable)])
        return tf.clip_by_value(tf.convert_to_tensor(variable), low, high), state, terms

    return Optimizer(init, step, compiled=False)
