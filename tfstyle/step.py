"""The compiled step: one evaluation of an objective and one move of the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.device import choose_compile, choose_device
from tfstyle.errors import ConfigError, RunError
from tfstyle.optimizers import Optimizer, Terms

#: (image, targets) -> scalars by name, ``total`` among them: what is minimised.
ObjectiveFunction = Callable[[tf.Tensor, Any], Terms]
#: (image, state, targets) -> (next image, next state, terms at the image).
Step = Callable[[tf.Tensor, Any, Any], tuple[tf.Tensor, Any, Terms]]
BAND = 1_000_000  # pixels of an image in host memory that are taken at once


def make_step(
    objective: ObjectiveFunction, optimizer: Optimizer, compile: str = "auto", steps: int = 1
) -> Step:
    """Make a pure function that moves an image one iteration, traced once per shape.

    Args:
        objective: (image, targets) -> dict of float32 scalars with ``total``; `tfstyle.Objective` or a
            function of your own. ``targets`` is any structure of tensors, passed through the step.
        optimizer: of `tfstyle.optimizers`.
        compile: ``xla`` (`jit_compile=True`), ``graph``, ``eager``, or ``auto``: XLA on a GPU, the
            graph on a CPU.
        steps: iterations inside one call; more than one spares an accelerator the wait for Python.
            Terms then have a leading axis of that length.

    Returns:
        step(image, state, targets) -> (image, state, terms): the terms are those before the move.

    Raises:
        ConfigError: several steps per call of an optimiser that is driven from Python.
    """
    how = choose_compile(compile, choose_device().value).value

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        if how == "eager":
            return function
        # Without autograph, an error raised while tracing stays what it was.
        return tf.function(function, jit_compile=how == "xla", autograph=False)

    if not optimizer.compiled:
        if steps != 1:
            raise ConfigError("steps_per_call must be 1 with an optimiser driven from Python")
        evaluate = compiled(lambda image, targets: value_and_gradient(objective, image, targets))
        return lambda image, state, targets: optimizer.step(lambda x: evaluate(x, targets), image, state)

    def one(image: tf.Tensor, state: Any, targets: Any) -> tuple[tf.Tensor, Any, Terms]:
        return optimizer.step(lambda x: value_and_gradient(objective, x, targets), image, state)

    def several(image: tf.Tensor, state: Any, targets: Any) -> tuple[tf.Tensor, Any, Terms]:
        image, state, first = one(image, state, targets)
        record = {
            name: tf.TensorArray(term.dtype, steps, element_shape=[]).write(0, term)
            for name, term in first.items()
        }

        def body(i: tf.Tensor, image: tf.Tensor, state: Any, record: Any) -> tuple[Any, ...]:
            image, state, terms = one(image, state, targets)
            return i + 1, image, state, {name: record[name].write(i, term) for name, term in terms.items()}

        _, image, state, record = tf.while_loop(
            lambda i, *_: i < steps,
            body,
            (tf.constant(1), image, state, record),
            maximum_iterations=steps - 1,
        )
        return image, state, {name: array.stack() for name, array in record.items()}

    return compiled(one if steps == 1 else several)


def value_and_gradient(
    objective: ObjectiveFunction, image: tf.Tensor, targets: Any
) -> tuple[Terms, tf.Tensor]:
    """The objective's terms and the total's gradient with respect to the image, both float32.

    Between the two the total is brought to about 2^16 by a power of two, which changes no digit in
    float32 or bfloat16 and keeps float16's gradients clear of zero.

    Raises:
        ConfigError: the total does not depend on the image.
    """
    with tf.GradientTape() as tape:
        tape.watch(image)
        terms = objective(image, targets)
    total = terms["total"]
    scale = loss_scale(total)
    gradient = tape.gradient(total, image, output_gradients=scale)
    if gradient is None:
        raise ConfigError("the objective's total does not depend on the image: there is nothing to optimise")
    return terms, gradient / scale


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


def loss_scale(total: tf.Tensor) -> tf.Tensor:
    """The power of 2 that brings a total to about 2^16; 2^16 where it is zero or not finite."""
    size = tf.abs(total)
    usable = tf.math.is_finite(size) & (size > 1e-30)
    exponent = 16.0 - tf.round(tf.math.log(tf.where(usable, size, 1.0)) / tf.math.log(2.0))
    return tf.pow(2.0, exponent)
