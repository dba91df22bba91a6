"""L-BFGS in two forms: with a backtracking line search, and with steps of a fixed length.

Both forms store the newest curvature pairs, s = x' - x and y = g' - g. From them the two-loop recursion
estimates the product of the inverse Hessian and a gradient. Every step evaluates the loss once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.optim.base import HIGH, LOW, Evaluate, Optimizer, Terms

GREY_LEVEL = 1 / 255
ARMIJO = 1e-4  # fraction of the decrease predicted by the gradient that a trial point must achieve
#: One tensor of the image's shape for each curvature pair, newest first.
History = tuple[tf.Tensor, ...]


def lbfgs(history: int = 10, *, low: float = LOW, high: float = HIGH) -> Optimizer:
    """Return the L-BFGS optimiser with bounds and a backtracking line search, one evaluation per step.

    Each step evaluates one trial point. A trial point is accepted if the loss decreases sufficiently (Armijo
    condition). Its curvature pair (s, y) is stored if s·y is positive, and the next trial point is the full
    quasi-Newton step from the accepted point. Any other trial point is rejected, and the step is shortened
    to the minimum of the parabola through the two losses and the directional derivative, limited to between
    0.1 and 0.5 of its length. If the loss or the gradient is not finite, the step is halved. At the third
    rejection in a row the curvature pairs are discarded and a steepest-descent step is tried. Components at
    a bound that the gradient pushes against do not take part in the step (active set).

    The first step moves the component with the largest gradient by one grey level, 1/255. Until a pair is
    stored, the scale of H₀ doubles at every accepted point.

    Args:
        history: maximum number of curvature pairs, 1 to 100.
        low, high: bounds of x; ``-inf`` and ``inf`` for none.

    Returns:
        An `Optimizer` that recovers from losses that are not finite. Its solution is the last accepted point.
        Its state is not resized with the image.

    Raises:
        ConfigError: the history is out of range.

    Reference: Nocedal & Wright 2006, Numerical Optimization, algorithms 7.4 and 3.1; the active set
    as in Bertsekas 1982, Projected Newton methods.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.optim import lbfgs, make_step
        >>> optimizer = lbfgs(history=5)
        >>> step = make_step(lambda image, target: {"total": tf.reduce_sum((image - target) ** 2)}, optimizer)
        >>> image, target = tf.zeros([1, 32, 32, 3]), tf.fill([1, 32, 32, 3], 0.5)
        >>> state = optimizer.init(image)
        >>> for _ in range(10):
        ...     image, state, terms = step(image, state, target)
        >>> error = tf.reduce_max(tf.abs(optimizer.solution(image, state) - target))
        >>> bool(error < 0.01)
        True
    """
    _check_history(history)
    init, step = _line_search_lbfgs(history, low, high)
    return Optimizer(
        init,
        step,
        solution=lambda x, state: state.point,
        recovers=True,
        description=f"lbfgs({history}, {low}, {high})",
    )


def lbfgs_fixed_step(
    history: int = 10,
    learning_rate: float = 1.0,
    *,
    low: float = LOW,
    high: float = HIGH,
    unit: float = 1 / 255,
) -> Optimizer:
    """Return the L-BFGS optimiser without a line search, which never reverts a step.

    ``x ← x - η t H g``. H is the two-loop estimate of the inverse Hessian from the newest curvature pairs
    (s, y) with y·s > 1e-10. The recursion starts with ``H₀ = y·s / y·y`` of the newest pair, or with 1 before
    the first pair. The factor t is ``min(1, 1 / Σ|g|)`` in the first step and 1 in all later steps. If
    ``-g·Hg > -1e-9``, x has converged and does not move any more.

    Torch and PyTorch implementations of style transfer use this optimiser.

    Args:
        history: maximum number of curvature pairs, 1 to 100.
        learning_rate: η, the factor of every step.
        low, high: bounds that x is clipped to after every step; s is the clipped step.
        unit: the difference of x that counts as 1 in the formulas of t and of the initial H₀ = 1. With
            1/255, an image in 0..1 moves like an image in 0..255 with a unit of 1.

    Returns:
        An `Optimizer`. Its state is not resized with the image.

    Raises:
        ConfigError: the history is out of range.

    Reference: `torch.optim.LBFGS` without ``line_search_fn``; Nocedal & Wright 2006, algorithm 7.4.
    Differs from `torch.optim.LBFGS`: PyTorch has a unit of 1, no bounds and 100 pairs by default, and ends a
    call of its step when the gradient or the change falls below a tolerance. Here the caller decides when
    to stop.
    """
    _check_history(history)
    return Optimizer(
        *_fixed_step_lbfgs(history, learning_rate, low, high, unit),
        description=f"lbfgs_fixed_step({history}, {learning_rate}, {low}, {high}, {unit})",
    )


def _check_history(history: int) -> None:
    if not 1 <= history <= 100:
        raise ConfigError(f"history is {history!r}; it must be from 1 to 100 curvature pairs")


class LineSearchState(NamedTuple):
    """State of L-BFGS with a line search, float32. Points, directions and pairs have the image's shape.

    Attributes:
        point, gradient: the last accepted point and its gradient.
        loss: the loss at `point`; infinite before the first evaluation.
        direction: the full step from `point`, which the line search shortens.
        length: the fraction of `direction` at the current trial point.
        scale: the scale of H₀, with which the two-loop recursion starts; s·y / y·y if the last accepted point
            had positive curvature.
        failures: number of trial points rejected since `point` was accepted.
        s, y: differences of points and of gradients, newest first.
        rho: ``[history]``, 1 / s·y of each pair; 0 for an empty entry.
    """

    point: tf.Tensor
    gradient: tf.Tensor
    loss: tf.Tensor
    direction: tf.Tensor
    length: tf.Tensor
    scale: tf.Tensor
    failures: tf.Tensor
    s: History
    y: History
    rho: tf.Tensor


def _line_search_lbfgs(
    history: int, low: float, high: float
) -> tuple[
    Callable[[tf.Tensor], LineSearchState],
    Callable[[Evaluate, tf.Tensor, LineSearchState], tuple[tf.Tensor, LineSearchState, Terms]],
]:
    """Return `init` and `step` of `lbfgs`."""

    def init(x: tf.Tensor) -> LineSearchState:
        zeros = tf.zeros_like(x)
        no_pairs = (zeros,) * history
        return LineSearchState(
            point=x,
            gradient=zeros,
            loss=tf.constant(math.inf),
            direction=zeros,
            length=tf.constant(1.0),
            scale=tf.constant(0.0),
            failures=tf.constant(0.0),
            s=no_pairs,
            y=no_pairs,
            rho=tf.zeros([history]),
        )

    def is_blocked(x: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        """Return True for each component at a bound that a step along -gradient would cross (active set)."""
        return ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))

    def grey_level_scale(gradient: tf.Tensor) -> tf.Tensor:
        """Return the scale of H₀ with which the component of the largest gradient moves by one grey level."""
        return GREY_LEVEL / tf.maximum(tf.reduce_max(tf.abs(gradient)), 1e-30)

    def step(
        evaluate: Evaluate, x: tf.Tensor, state: LineSearchState
    ) -> tuple[tf.Tensor, LineSearchState, Terms]:
        terms, gradient = evaluate(x)
        loss = terms["total"]
        directional_derivative = _dot(state.gradient, x - state.point)
        finite = tf.math.is_finite(loss) & tf.math.is_finite(tf.reduce_sum(tf.abs(gradient)))
        accepted = finite & (loss <= state.loss + ARMIJO * directional_derivative)
        new = tf.cond(
            accepted,
            lambda: accept(x, loss, gradient, state),
            lambda: reject(loss, directional_derivative, finite, state),
        )
        return tf.clip_by_value(new.point + new.length * new.direction, low, high), new, terms

    def accept(x: tf.Tensor, loss: tf.Tensor, gradient: tf.Tensor, state: LineSearchState) -> LineSearchState:
        s, y = x - state.point, gradient - state.gradient
        sy, yy = _dot(s, y), _dot(y, y)
        first = tf.math.is_inf(state.loss)
        has_curvature = ~first & (sy > 1e-8 * tf.sqrt(yy * _dot(s, s)))
        scale_without_pair = tf.where(
            first, grey_level_scale(gradient), tf.where(state.rho[0] > 0, state.scale, 2.0 * state.scale)
        )
        scale = tf.where(has_curvature, tf.math.divide_no_nan(sy, yy), scale_without_pair)

        pairs_s, pairs_y, rho = _remember(has_curvature, s, y, sy, state)
        blocked = is_blocked(x, gradient)
        free_gradient = tf.where(blocked, 0.0, gradient)
        direction = -_two_loop(free_gradient, pairs_s, pairs_y, rho, scale)
        direction = tf.where(blocked, 0.0, direction)
        downhill = _dot(direction, free_gradient) < 0
        direction = tf.where(downhill, direction, -scale * free_gradient)
        return LineSearchState(
            x, gradient, loss, direction, tf.constant(1.0), scale, tf.constant(0.0), pairs_s, pairs_y, rho
        )

    def reject(
        loss: tf.Tensor, directional_derivative: tf.Tensor, finite: tf.Tensor, state: LineSearchState
    ) -> LineSearchState:
        parabola_minimum = tf.math.divide_no_nan(
            -directional_derivative, 2.0 * (loss - state.loss - directional_derivative)
        )
        length = state.length * tf.where(finite, tf.clip_by_value(parabola_minimum, 0.1, 0.5), 0.5)
        failures = state.failures + 1.0
        restart = tf.equal(failures, 3.0)
        scale = grey_level_scale(state.gradient)
        steepest = tf.where(is_blocked(state.point, state.gradient), 0.0, -scale * state.gradient)
        return state._replace(
            direction=tf.where(restart, steepest, state.direction),
            length=tf.where(restart, 1.0, length),
            scale=tf.where(restart, scale, state.scale),
            failures=failures,
            rho=tf.where(restart, tf.zeros_like(state.rho), state.rho),
        )

    return init, step


class FixedStepState(NamedTuple):
    """State of L-BFGS with fixed steps, float32. Moves, gradients and pairs have the image's shape.

    Attributes:
        gradient: the gradient at the point that was evaluated last.
        move: the difference of the current x and that point.
        scale: the scale of H₀, with which the two-loop recursion starts: s·y / y·y of the newest pair, or the
            squared unit before the first pair.
        count: number of evaluations so far.
        s, y: differences of points and of gradients, newest first.
        rho: ``[history]``, 1 / s·y of each pair; 0 for an empty entry.
    """

    gradient: tf.Tensor
    move: tf.Tensor
    scale: tf.Tensor
    count: tf.Tensor
    s: History
    y: History
    rho: tf.Tensor


def _fixed_step_lbfgs(
    history: int, learning_rate: float, low: float, high: float, unit: float
) -> tuple[
    Callable[[tf.Tensor], FixedStepState],
    Callable[[Evaluate, tf.Tensor, FixedStepState], tuple[tf.Tensor, FixedStepState, Terms]],
]:
    """Return `init` and `step` of `lbfgs_fixed_step`."""

    def init(x: tf.Tensor) -> FixedStepState:
        zeros = tf.zeros_like(x)
        no_pairs = (zeros,) * history
        return FixedStepState(
            zeros, zeros, tf.constant(unit**2), tf.zeros([]), no_pairs, no_pairs, tf.zeros([history])
        )

    def step(
        evaluate: Evaluate, x: tf.Tensor, state: FixedStepState
    ) -> tuple[tf.Tensor, FixedStepState, Terms]:
        terms, gradient = evaluate(x)
        s, y = state.move, gradient - state.gradient
        sy = _dot(s, y)
        has_curvature = sy > 1e-10
        scale = tf.where(has_curvature, tf.math.divide_no_nan(sy, _dot(y, y)), state.scale)
        pairs_s, pairs_y, rho = _remember(has_curvature, s, y, sy, state)
        direction = -_two_loop(gradient, pairs_s, pairs_y, rho, scale)

        first_length = tf.minimum(1.0, 1.0 / (unit * tf.reduce_sum(tf.abs(gradient))))
        length = learning_rate * tf.where(tf.equal(state.count, 0.0), first_length, 1.0)
        converged = _dot(gradient, direction) > -1e-9
        # The move is not computed as the difference of two x, which would lose precision for a small move.
        move = tf.clip_by_value(tf.where(converged, 0.0, length) * direction, low - x, high - x)
        new = FixedStepState(gradient, move, scale, state.count + 1.0, pairs_s, pairs_y, rho)
        return tf.clip_by_value(x + move, low, high), new, terms

    return init, step


def _remember(
    has_curvature: tf.Tensor,
    s: tf.Tensor,
    y: tf.Tensor,
    sy: tf.Tensor,
    state: LineSearchState | FixedStepState,
) -> tuple[History, History, tf.Tensor]:
    """Return the state's pairs and rho; with positive curvature, (s, y) replaces the oldest pair."""
    newest = tf.concat([[tf.math.divide_no_nan(1.0, sy)], state.rho[:-1]], 0)
    # tf.cond passes the tensors through; tf.where would copy each of them.
    return tf.cond(
        has_curvature,
        lambda: ((s, *state.s[:-1]), (y, *state.y[:-1]), newest),
        lambda: (state.s, state.y, state.rho),
    )


def _two_loop(
    gradient: tf.Tensor,
    s: History,
    y: History,
    rho: tf.Tensor,
    scale: tf.Tensor,
) -> tf.Tensor:
    """Return the estimated inverse Hessian times a gradient. Pairs with a rho of 0 have no effect."""
    product, alphas = gradient, []
    for i in range(len(s)):
        alphas.append(rho[i] * _dot(s[i], product))
        product = product - alphas[i] * y[i]
    product = scale * product
    for i in reversed(range(len(s))):
        product = product + (alphas[i] - rho[i] * _dot(y[i], product)) * s[i]
    return product


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(a * b)
