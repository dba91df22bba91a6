"""The interface of an image optimiser: functions of the image, the gradient and the optimiser's state.

An `Optimizer` is a set of functions on structures of tensors. The functions are pure, except those of the
Keras adapter. ``init(x)`` returns the initial state. ``step(evaluate, x, state)`` calls
``evaluate(x) -> (terms, gradient)`` exactly once, where ``terms["total"]`` is the loss, and returns the next
x, the next state and the terms. An iteration is therefore one evaluation of loss and gradient with every
optimiser, and a run can be stopped, stored and continued between any two iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

#: Name -> scalar. The entry ``total`` is the loss that is minimised.
Terms = dict[str, tf.Tensor]
#: x -> (terms at x, gradient of the total with respect to x).
Evaluate = Callable[[tf.Tensor], tuple[Terms, tf.Tensor]]

#: The lowest value of an image, the default of the lower bound of every optimiser in this folder.
LOW = 0.0
#: The highest value of an image, the default of the upper bound.
HIGH = 1.0


def _restore(state: Any, arrays: Sequence[np.ndarray]) -> Any:
    """Return a state of the same structure that holds the arrays as tensors."""
    return tf.nest.pack_sequence_as(state, [tf.constant(array) for array in arrays])


class Optimizer(NamedTuple):
    """A minimisation method, as a set of functions and properties.

    Attributes:
        init: x -> initial state.
        step: (evaluate, x, state) -> (next x, next state, terms at x).
        solution: (x, state) -> the best x so far. It differs from x while a line search tries another point.
        recovers: whether `step` reverts a move to a point where the loss is not finite, so that the run
            can continue.
        elementwise: whether the update of each component of x depends only on the gradient and the state of
            that component.
        traceable: whether `tf.function` can trace `step`; False if `step` changes variables.
        resize: (state, (height, width)) -> the state for the same image at that size; None if the method
            restarts with a new state at every size.
        flatten: state -> list of its tensors or arrays in a fixed order. Later steps do not change them.
        restore: (state returned by `init`, arrays in the order of `flatten`) -> state with these values.
        description: name and parameters of the method. A stored run can be continued only with an optimiser
            of the same description.
    """

    init: Callable[[tf.Tensor], Any]
    step: Callable[[Evaluate, tf.Tensor, Any], tuple[tf.Tensor, Any, Terms]]
    solution: Callable[[tf.Tensor, Any], tf.Tensor] = lambda x, state: x
    recovers: bool = False
    elementwise: bool = False
    traceable: bool = True
    resize: Callable[[Any, tuple[int, int]], Any] | None = None
    flatten: Callable[[Any], list[Any]] = tf.nest.flatten
    restore: Callable[[Any, Sequence[np.ndarray]], Any] = _restore
    description: str = "a custom optimizer"
