"""L-BFGS's steps, searching and fixed: the arithmetic under `tfstyle.optimizers`, which documents both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

if TYPE_CHECKING:
    from tfstyle.optimizers import Evaluate, Terms

GREY_LEVEL = 1 / 255
Vectors = tuple[tf.Tensor, ...]


class SearchState(NamedTuple):
    """All that a search remembers, float32; vectors have the image's shape.

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
    s: Vectors
    y: Vectors
    rho: tf.Tensor


def searching(
    history: int, low: float, high: float
) -> tuple[
    Callable[[tf.Tensor], SearchState],
    Callable[[Evaluate, tf.Tensor, SearchState], tuple[tf.Tensor, SearchState, Terms]],
]:
    """`init` and `step` of `tfstyle.optimizers.lbfgs`."""
    sufficient = 1e-4  # Armijo's constant

    def init(x: tf.Tensor) -> SearchState:
        zeros = tf.zeros_like(x)
        none = (zeros,) * history
        return SearchState(
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

    def step(evaluate: Evaluate, x: tf.Tensor, state: SearchState) -> tuple[tf.Tensor, SearchState, Terms]:
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

    def accept(x: tf.Tensor, loss: tf.Tensor, gradient: tf.Tensor, state: SearchState) -> SearchState:
        s, y = x - state.point, gradient - state.gradient
        sy, yy = _dot(s, y), _dot(y, y)
        first = tf.math.is_inf(state.loss)
        curved = ~first & (sy > 1e-8 * tf.sqrt(yy * _dot(s, s)))
        unpaired = tf.where(
            first, grey_step(gradient), tf.where(state.rho[0] > 0, state.scale, 2.0 * state.scale)
        )
        scale = tf.where(curved, tf.math.divide_no_nan(sy, yy), unpaired)

        pairs_s, pairs_y, rho = _remember(curved, s, y, sy, state)
        pushed = pushes_out(x, gradient)
        free = tf.where(pushed, 0.0, gradient)
        direction = -_two_loop(free, pairs_s, pairs_y, rho, scale)
        direction = tf.where(pushed, 0.0, direction)
        downhill = _dot(direction, free) < 0
        direction = tf.where(downhill, direction, -scale * free)
        return SearchState(
            x, gradient, loss, direction, tf.constant(1.0), scale, tf.constant(0.0), pairs_s, pairs_y, rho
        )

    def reject(loss: tf.Tensor, slope: tf.Tensor, finite: tf.Tensor, state: SearchState) -> SearchState:
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

    return init, step


class FixedState(NamedTuple):
    """All that fixed steps remember, float32; vectors have the image's shape.

    Attributes:
        gradient: at the point evaluated last.
        move: from that point to where x is now.
        scale: of the steepest-descent matrix under the pairs, s·y / y·y.
        count: evaluations so far.
        s, y: the last differences of points and gradients, newest first.
        rho: ``[history]``, 1 / s·y of each pair, 0 where there is none.
    """

    gradient: tf.Tensor
    move: tf.Tensor
    scale: tf.Tensor
    count: tf.Tensor
    s: Vectors
    y: Vectors
    rho: tf.Tensor


def fixed(
    history: int, learning_rate: float, low: float, high: float, unit: float
) -> tuple[
    Callable[[tf.Tensor], FixedState],
    Callable[[Evaluate, tf.Tensor, FixedState], tuple[tf.Tensor, FixedState, Terms]],
]:
    """`init` and `step` of `tfstyle.optimizers.lbfgs_fixed`."""

    def init(x: tf.Tensor) -> FixedState:
        zeros = tf.zeros_like(x)
        none = (zeros,) * history
        return FixedState(zeros, zeros, tf.constant(unit**2), tf.zeros([]), none, none, tf.zeros([history]))

    def step(evaluate: Evaluate, x: tf.Tensor, state: FixedState) -> tuple[tf.Tensor, FixedState, Terms]:
        terms, gradient = evaluate(x)
        s, y = state.move, gradient - state.gradient
        sy = _dot(s, y)
        curved = sy > 1e-10
        scale = tf.where(curved, tf.math.divide_no_nan(sy, _dot(y, y)), state.scale)
        pairs_s, pairs_y, rho = _remember(curved, s, y, sy, state)
        direction = -_two_loop(gradient, pairs_s, pairs_y, rho, scale)

        cautious = tf.minimum(1.0, 1.0 / (unit * tf.reduce_sum(tf.abs(gradient))))
        length = learning_rate * tf.where(tf.equal(state.count, 0.0), cautious, 1.0)
        ended = _dot(gradient, direction) > -1e-9
        # Not the difference of two x: in float32 that would lose the digits of a small move.
        move = tf.clip_by_value(tf.where(ended, 0.0, length) * direction, low - x, high - x)
        new = FixedState(gradient, move, scale, state.count + 1.0, pairs_s, pairs_y, rho)
        return tf.clip_by_value(x + move, low, high), new, terms

    return init, step


def _remember(
    wanted: tf.Tensor, s: tf.Tensor, y: tf.Tensor, sy: tf.Tensor, state: SearchState | FixedState
) -> tuple[Vectors, Vectors, tf.Tensor]:
    """The state's pairs and rho, where wanted with (s, y) as the newest and without the oldest."""
    newest = tf.concat([[tf.math.divide_no_nan(1.0, sy)], state.rho[:-1]], 0)
    # A condition hands tensors on where a selection would copy each of them.
    return tf.cond(
        wanted,
        lambda: ((s, *state.s[:-1]), (y, *state.y[:-1]), newest),
        lambda: (state.s, state.y, state.rho),
    )


def _two_loop(
    gradient: tf.Tensor,
    s: Vectors,
    y: Vectors,
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
