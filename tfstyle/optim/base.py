"""What an optimiser of an image is: a pair of pure functions, `init` and `step`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

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
