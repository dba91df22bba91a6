"""The compiled step: one evaluation of an objective and one move of the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfstyle.device import choose_compile, choose_device
from tfstyle.errors import ConfigError
from tfstyle.optim.base import Optimizer, Terms

#: (image, targets) -> scalars by name, ``total`` among them: what is minimised.
ObjectiveFunction = Callable[[tf.Tensor, Any], Terms]
#: (image, state, targets) -> (next image, next state, terms at the image).
Step = Callable[[tf.Tensor, Any, Any], tuple[tf.Tensor, Any, Terms]]


def make_step(
    objective: ObjectiveFunction, optimizer: Optimizer, *, compile: str = "auto", steps: int = 1
) -> Step:
    """Make a pure function that moves an image one iteration, traced once per shape.

    Args:
        objective: (image, targets) -> dict of float32 scalars with ``total``; `tfstyle.Objective` or a
            function of your own. ``targets`` is any structure of tensors, passed through the step.
        optimizer: such as `tfstyle.adam` or `tfstyle.lbfgs`.
        compile: ``xla`` (`jit_compile=True`), ``graph``, ``eager``, or ``auto``: XLA on a GPU, the
            graph on a CPU.
        steps: iterations inside one call; with more than one an accelerator does not wait for Python
            between them. Terms then have a leading axis of that length.

    Returns:
        step(image, state, targets) -> (image, state, terms): the terms are those before the move.

    Raises:
        ConfigError: several steps per call of an optimiser that is driven from Python.
    """
    mode = choose_compile(compile, choose_device().value).value

    def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
        if mode == "eager":
            return function
        # Autograph would wrap an error raised while tracing in one of another class.
        return tf.function(function, jit_compile=mode == "xla", autograph=False)

    if not optimizer.traceable:
        if steps != 1:
            raise ConfigError("steps_per_call must be 1 with an optimiser driven from Python")
        evaluate = compile_function(
            lambda image, targets: value_and_gradient(objective, image, targets=targets)
        )
        return lambda image, state, targets: optimizer.step(lambda x: evaluate(x, targets), image, state)

    def one_step(image: tf.Tensor, state: Any, targets: Any) -> tuple[tf.Tensor, Any, Terms]:
        return optimizer.step(lambda x: value_and_gradient(objective, x, targets=targets), image, state)

    def several_steps(image: tf.Tensor, state: Any, targets: Any) -> tuple[tf.Tensor, Any, Terms]:
        image, state, first_terms = one_step(image, state, targets)
        record = {
            name: tf.TensorArray(term.dtype, steps, element_shape=[]).write(0, term)
            for name, term in first_terms.items()
        }

        def body(i: tf.Tensor, image: tf.Tensor, state: Any, record: Any) -> tuple[Any, ...]:
            image, state, terms = one_step(image, state, targets)
            return i + 1, image, state, {name: record[name].write(i, term) for name, term in terms.items()}

        _, image, state, record = tf.while_loop(
            lambda i, *_: i < steps,
            body,
            (tf.constant(1), image, state, record),
            maximum_iterations=steps - 1,
        )
        return image, state, {name: array.stack() for name, array in record.items()}

    return compile_function(one_step if steps == 1 else several_steps)


def value_and_gradient(
    objective: ObjectiveFunction, image: tf.Tensor, *, targets: Any
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


def loss_scale(total: tf.Tensor) -> tf.Tensor:
    """The power of 2 that brings a total to about 2^16; 2^16 where it is zero or not finite."""
    magnitude = tf.abs(total)
    usable = tf.math.is_finite(magnitude) & (magnitude > 1e-30)
    exponent = 16.0 - tf.round(tf.math.log(tf.where(usable, magnitude, 1.0)) / tf.math.log(2.0))
    return tf.pow(2.0, exponent)
