"""The step of an image in host memory, whose loss is evaluated tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.errors import RunError
from tfstyle.optim import Optimizer, Terms

BAND = 1_000_000  # pixels of an image in host memory that are taken at once


def make_host_step(
    evaluate: Callable[[np.ndarray, Any], tuple[Terms, np.ndarray]], optimizer: Optimizer
) -> Callable[..., Any]:
    """As `make_step`, for an image in host memory whose loss is taken tile by tile.

    Args:
        evaluate: (image, targets) -> terms and gradient, `tfstyle.tiling.TiledObjective.value_and_gradient`.
        optimizer: one that works element by element moves the image and its state in place, band by band;
            another gets all at once.

    Returns:
        step(image, state, targets, about_to_move) -> (image, state, terms). In place, the image and the
        state are those of `first_host_state` or `in_host_memory`, and ``about_to_move`` is called before
        they change. Where a gradient is not finite nothing moves, and the total is not a number either.
    """

    def move(image: tf.Tensor, state: Any, gradient: tf.Tensor, terms: Terms) -> tuple[tf.Tensor, Any]:
        return optimizer.step(lambda x: (terms, gradient), image, state)[:2]

    compiled = tf.function(move, autograph=False) if optimizer.compiled else move

    def step(image: Any, state: Any, targets: Any, about_to_move: Callable[[], None] = lambda: None) -> Any:
        terms, gradient = evaluate(image, targets)
        with tf.device("/CPU:0"):
            if not optimizer.elementwise:
                return *compiled(tf.constant(image), state, tf.constant(gradient), terms), terms
            if not all(np.isfinite(gradient[:, band]).all() for band in _bands(gradient.shape)):
                return image, state, {**terms, "total": tf.constant(math.nan)}
            about_to_move()
            try:
                state = _move_in_place(compiled, image, state, gradient, terms)
            except (MemoryError, tf.errors.OpError) as error:  # once more would move some of it twice
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
    moved: Any = None
    for band in _bands(gradient.shape):
        here, slope = tf.constant(image[:, band]), tf.constant(gradient[:, band])
        image[:, band], moved = move(here, _rows(state, band), slope, terms)
        for whole, new in zip(tf.nest.flatten(state), tf.nest.flatten(moved), strict=True):
            if np.ndim(whole) == 4:
                whole[:, band] = new
    return tf.nest.map_structure(lambda old, new: old if np.ndim(old) == 4 else new, state, moved)


def in_host_memory(structure: Any) -> Any:
    """Tensors as arrays that `make_host_step` can change in place; such arrays themselves as they are."""
    return tf.nest.map_structure(
        lambda x: x if isinstance(x, np.ndarray) and x.flags.writeable else np.array(x), structure
    )


def first_host_state(optimizer: Optimizer, image: np.ndarray) -> Any:
    """The state that an element-by-element optimiser starts with, as arrays, made band by band.

    TensorFlow would never give back the memory of tensors as large as the image.
    """
    whole: Any = None
    for band in _bands(image.shape):
        part = optimizer.init(tf.constant(image[:, band]))
        if whole is None:
            whole = tf.nest.map_structure(lambda x: _like(x, image), part)
        for array, values in zip(tf.nest.flatten(whole), tf.nest.flatten(part), strict=True):
            if array.ndim == 4:
                array[:, band] = values
    return whole


def _like(leaf: tf.Tensor, image: np.ndarray) -> np.ndarray:
    return np.empty(image.shape, leaf.dtype.as_numpy_dtype) if leaf.shape.rank == 4 else leaf.numpy()


def _rows(state: Any, band: slice) -> Any:
    return tf.nest.map_structure(lambda x: x[:, band] if np.ndim(x) == 4 else x, state)


def _bands(shape: Sequence[int]) -> list[slice]:
    rows = max(1, BAND // shape[2])
    return [slice(top, top + rows) for top in range(0, shape[1], rows)]
