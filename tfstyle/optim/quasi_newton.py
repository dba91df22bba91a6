"""L-BFGS's steps, searching and fixed: the arithmetic under `tfstyle.optimizers`, which documents both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.optim.base import HIGH, LOW, Evaluate, Optimizer, Terms

if TYPE_CHECKING:
    from tfstyle.optim.base import Evaluate, Terms

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


def lbfgs_fixed_step(
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
