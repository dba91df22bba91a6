"""The optimisation step for an image in host memory whose loss is evaluated tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.errors import RunError
from tfstyle.optim import Optimizer, Terms

BAND_PIXELS = 1_000_000  # approximate size of a band, a group of image rows that is processed at once


def make_host_step(
    evaluate: Callable[[np.ndarray, Any], tuple[Terms, np.ndarray]], optimizer: Optimizer
) -> Callable[..., Any]:
    """Return a function that performs one iteration on an image in host memory.

    It corresponds to `tfstyle.make_step`. An elementwise optimiser updates the image and the state in place,
    band by band, so that no second copy of them is needed. Other optimisers update the whole image at once.

    Args:
        evaluate: (image, targets) -> (terms, gradient), usually
            `tfstyle.tiling.TiledObjective.value_and_gradient`. The gradient is a NumPy array of the image's
            shape.
        optimizer: the optimiser.

    Returns:
        step(image, state, targets, about_to_move) -> (image, state, terms).

        With an elementwise optimiser, ``image`` and ``state`` must be writable NumPy arrays, as
        `first_host_state` and `in_host_memory` return them, and the step calls ``about_to_move()`` before it
        changes them. If the gradient is not finite, nothing changes and the total is NaN.

        With any other optimiser, the step returns a new image and does not call ``about_to_move``.

        The step raises a RunError if memory runs out during an update in place. The image and the state are
        then unusable, because only some of their bands are updated.
    """

    def move(image: tf.Tensor, state: Any, gradient: tf.Tensor, terms: Terms) -> tuple[tf.Tensor, Any]:
        return optimizer.step(lambda x: (terms, gradient), image, state)[:2]

    compiled_move = tf.function(move, autograph=False) if optimizer.traceable else move

    def step(image: Any, state: Any, targets: Any, about_to_move: Callable[[], None] = lambda: None) -> Any:
        terms, gradient = evaluate(image, targets)
        with tf.device("/CPU:0"):
            if not optimizer.elementwise:
                return *compiled_move(tf.constant(image), state, tf.constant(gradient), terms), terms
            if not all(np.isfinite(gradient[:, band]).all() for band in _bands(gradient.shape)):
                return image, state, {**terms, "total": tf.constant(math.nan)}
            about_to_move()
            try:
                state = _move_in_place(compiled_move, image, state, gradient, terms)
            except (MemoryError, tf.errors.OpError) as error:  # a repetition would update some bands twice
                raise RunError(
                    "out of memory while the image was updated in place; use a smaller size or smaller tiles"
                ) from error
        return image, state, terms

    return step


def _move_in_place(
    move: Callable[..., tuple[tf.Tensor, Any]],
    image: np.ndarray,
    state: Any,
    gradient: np.ndarray,
    terms: Terms,
) -> Any:
    """Update the image and the state's arrays band by band, and return the state with its new scalars."""
    new_state: Any = None
    for band in _bands(gradient.shape):
        image[:, band], new_state = move(
            tf.constant(image[:, band]), _state_band(state, band), tf.constant(gradient[:, band]), terms
        )
        for array, new in zip(tf.nest.flatten(state), tf.nest.flatten(new_state), strict=True):
            if np.ndim(array) == 4:
                array[:, band] = new
    return tf.nest.map_structure(lambda old, new: old if np.ndim(old) == 4 else new, state, new_state)


def in_host_memory(structure: Any) -> Any:
    """Return a structure with its tensors converted to writable NumPy arrays, for `make_host_step`.

    Arrays that are writable already are not copied.
    """
    return tf.nest.map_structure(
        lambda x: x if isinstance(x, np.ndarray) and x.flags.writeable else np.array(x), structure
    )


def first_host_state(optimizer: Optimizer, image: np.ndarray) -> Any:
    """Return the initial state of an elementwise optimiser as NumPy arrays.

    The state is computed band by band, because TensorFlow does not return the memory of tensors as large as
    the image to the system.

    Args:
        optimizer: an elementwise optimiser.
        image: float32 ``[1, height, width, 3]``.
    """
    state: Any = None
    for band in _bands(image.shape):
        band_state = optimizer.init(tf.constant(image[:, band]))
        if state is None:
            state = tf.nest.map_structure(lambda x: _allocate(x, image.shape), band_state)
        for array, values in zip(tf.nest.flatten(state), tf.nest.flatten(band_state), strict=True):
            if array.ndim == 4:
                array[:, band] = values
    return state


def _allocate(tensor: tf.Tensor, shape: Sequence[int]) -> np.ndarray:
    """Return an uninitialised array of the image's shape for a tensor of a band, or the value of a scalar."""
    return np.empty(shape, tensor.dtype.as_numpy_dtype) if tensor.shape.rank == 4 else tensor.numpy()


def _state_band(state: Any, band: slice) -> Any:
    """Return the state with each array reduced to the rows of a band."""
    return tf.nest.map_structure(lambda x: x[:, band] if np.ndim(x) == 4 else x, state)


def _bands(shape: Sequence[int]) -> list[slice]:
    """Return the row slices of the bands of an image ``[1, height, width, 3]``, about `BAND_PIXELS` each."""
    rows = max(1, BAND_PIXELS // shape[2])
    return [slice(top, top + rows) for top in range(0, shape[1], rows)]
