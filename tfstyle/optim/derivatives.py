"""The context of evaluations for the optimisation step, which needs first derivatives only.

Some losses have two forms with the same value and the same gradient: one that can be differentiated twice,
and a faster one whose second derivatives are wrong. The losses use the fast form inside this context and the
other form everywhere else. Inside the context the encoder does not check the range of an image, because the
image of an optimiser may leave 0..1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

_STEP_GRAPH: ContextVar[Any] = ContextVar("tfstyle_step_graph", default=None)


@contextlib.contextmanager
def only_first_derivatives() -> Iterator[None]:
    """Make losses use their fast forms, whose second derivatives are wrong, inside a ``with`` block.

    Use it around an evaluation whose gradient is not differentiated again, as `value_and_gradient` does for
    the step.

    Yields:
        None.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle import gram_matrix
        >>> from tfstyle.optim import only_first_derivatives
        >>> features = tf.random.uniform([1, 8, 8, 4])
        >>> with tf.GradientTape() as tape, only_first_derivatives():
        ...     tape.watch(features)
        ...     energy = tf.nn.l2_loss(gram_matrix(features))
        >>> tape.gradient(energy, features).shape
        TensorShape([1, 8, 8, 4])
    """
    token = _STEP_GRAPH.set(tf.compat.v1.get_default_graph())
    try:
        yield
    finally:
        _STEP_GRAPH.reset(token)


@contextlib.contextmanager
def all_derivatives() -> Iterator[None]:
    """Make losses use the forms that can be differentiated twice, also inside `only_first_derivatives`.

    Yields:
        None.
    """
    token = _STEP_GRAPH.set(None)
    try:
        yield
    finally:
        _STEP_GRAPH.reset(token)


def first_derivatives_suffice() -> bool:
    """Return whether the caller is inside `only_first_derivatives`, in the same graph.

    Inside a `tf.function` that is called in the context, the result is False, because TensorFlow reuses its
    graph for calls outside the context.
    """
    return _STEP_GRAPH.get() is tf.compat.v1.get_default_graph()
