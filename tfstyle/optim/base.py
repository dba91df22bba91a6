"""The interface of an optimiser of an image: functions of the image, the gradient and a state.

An `Optimizer` is a set of functions on structures of tensors; they are pure except in the Keras adapter.
``init(x)`` gives the state; ``step(evaluate, x, state)`` calls ``evaluate(x) -> (terms, gradient)`` once,
where ``terms["total"]`` is the loss, and returns the next x, the next state and the terms. So an iteration
is one evaluation, whichever the method, and a run can be stopped, stored and continued between any two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

#: Scalars by name, ``total`` among them: the loss that is minimised.
Terms = dict[str, tf.Tensor]
#: x -> (terms at x, gradient of the total with respect to x).
Evaluate = Callable[[tf.Tensor], tuple[Terms, tf.Tensor]]

#: The range of an image's values, within which every optimiser here keeps it by default.
LOW, HIGH = 0.0, 1.0


def _restore(state: Any, arrays: Sequence[np.ndarray]) -> Any:
    """A state of the same structure that holds these arrays as tensors."""
    return tf.nest.pack_sequence_as(state, [tf.constant(array) for array in arrays])


class Optimizer(NamedTuple):
    """A method of minimisation.

    Attributes:
        init: x -> state.
        step: (evaluate, x, state) -> (next x, next state, terms at x).
        solution: (x, state) -> the best x so far; a line search may be trying another one.
        recovers: whether `step` takes back a move to a loss that is not finite, so that the run goes on.
        elementwise: whether each component of x moves by itself, given the gradient.
        traceable: whether `step` may be traced by `tf.function`; False where it keeps variables.
        resize: (state, (height, width)) -> the state for the same image at that size; None where
            the method starts anew at another size.
        flatten: state -> its tensors or arrays, in a fixed order; later steps do not change them.
        restore: (state that `init` gave, such arrays) -> the state with these values.
        description: the method and its parameters; a run is continued only by one with the same.
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
    description: str = "an optimizer of one's own"
