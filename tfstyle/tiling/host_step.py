"""The training step of an image in host memory, whose loss is evaluated tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.errors import RunError
from tfstyle.optim import Optimizer, Terms

BAND_PIXELS = 1_000_000  # of an image in host memory, processed at once


def make_host_step(
    evaluate: Callable[[np.ndarray, Any], tuple[Terms, np.ndarray]], optimizer: Optimizer
) -> Callable[..., Any]:
    """As `tfstyle.make_step`, for an image in host memory whose loss is evaluated tile by tile.

    Args:
        evaluate: (image, targets) -> terms and gradient, `tfstyle.tiling.TiledObjective.value_and_gradient`.
        optimizer: an elementwise one updates the image and its state in place, band by band; any other
            gets all of the image at once.

    Returns:
        step(image, state, targets, about_to_move) -> (image, state, terms). An elementwise optimiser needs
        the image and state of `first_host_state` or `in_host_memory`, and ``about_to_move`` is called before
        they change. Where the gradient is not finite nothing changes, and the total is NaN.
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
            except (MemoryError, tf.errors.OpError) as error:  # a second try would move some bands twice
                raise RunError("memory ran out while the picture moved in place; use less of it") from error
        return image, state, terms

    return step


def _move_in_place(
    move: Callable[..., tuple[tf.Tensor, Any]],
    image: np.ndarray,
    state: Any,
    gradient: np.ndarray,
    terms: Terms,
) -> Any:
    """Change the image and the state's arrays band by band; return the state with its new scalars."""
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
    """Tensors as NumPy arrays, which `make_host_step` can change in place; writable arrays are not copied."""
    return tf.nest.map_structure(
        lambda x: x if isinstance(x, np.ndarray) and x.flags.writeable else np.array(x), structure
    )


def first_host_state(optimizer: Optimizer, image: np.ndarray) -> Any:
    """The first state of an elementwise optimiser, as arrays, made band by band.

    TensorFlow would never give back the memory of tensors as large as the image.
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
    """An empty array of the image's shape for a tensor of a band's; a scalar's value."""
    return np.empty(shape, tensor.dtype.as_numpy_dtype) if tensor.shape.rank == 4 else tensor.numpy()


def _state_band(state: Any, band: slice) -> Any:
    """The rows of a band of the state's arrays, and its scalars."""
    return tf.nest.map_structure(lambda x: x[:, band] if np.ndim(x) == 4 else x, state)


def _bands(shape: Sequence[int]) -> list[slice]:
    """The rows of an image ``[1, height, width, 3]`` in bands of about `BAND_PIXELS`."""
    rows = max(1, BAND_PIXELS // shape[2])
    return [slice(top, top + rows) for top in range(0, shape[1], rows)]
