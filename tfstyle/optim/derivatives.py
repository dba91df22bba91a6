"""The context in which an objective is evaluated for the step, which takes its first derivatives only.

Some losses have two forms with the same value and the same gradient: one that can be differentiated twice,
and a faster one whose second derivatives are wrong. The losses choose the fast form inside this context and
the other form everywhere else. The encoder does not check the range of an image here, because the image of
an optimiser may leave 0..1.
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
    """Let losses choose their fast forms, of which only the first derivatives are right, in a ``with`` block.

    Use it around an evaluation whose gradient is not differentiated again. `value_and_gradient`, and so the
    step, use it.

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


def first_derivatives_suffice() -> bool:
    """Return whether the caller is inside `only_first_derivatives`, in the same graph.

    A `tf.function` that is called inside the context has a graph of its own, which TensorFlow reuses for
    calls outside the context. The result for such a function is therefore False.
    """
    return _STEP_GRAPH.get() is tf.compat.v1.get_default_graph()
