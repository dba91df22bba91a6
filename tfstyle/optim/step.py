"""The compiled step: one evaluation of an objective and one update of the image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfstyle.device import choose_compile, choose_device
from tfstyle.errors import ConfigError, suggest
from tfstyle.optim.base import Evaluate, Optimizer, Terms
from tfstyle.optim.derivatives import only_first_derivatives
from tfstyle.optim.first_order import adam
from tfstyle.optim.keras_adapter import from_keras
from tfstyle.optim.quasi_newton import lbfgs, lbfgs_fixed_step

#: (image, targets) -> terms. The entry ``total`` is the loss that is minimised.
ObjectiveFunction = Callable[[tf.Tensor, Any], Terms]
#: Name of an optimiser -> function that returns it with its defaults.
NAMED_OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "adam": adam,
    "lbfgs": lbfgs,
    "lbfgs_fixed_step": lbfgs_fixed_step,
}
#: (image, state, targets) -> (next image, next state, terms at the image).
Step = Callable[[tf.Tensor, Any, Any], tuple[tf.Tensor, Any, Terms]]


def make_step(
    objective: ObjectiveFunction,
    optimizer: str | Optimizer | keras.optimizers.Optimizer,
    *,
    compile: str = "auto",
    steps: int = 1,
) -> Step:
    """Return a function that performs one or more iterations on an image.

    The function is traced once per image shape. It is pure unless the optimiser is a Keras optimiser.

    Args:
        objective: (image, targets) -> dict of float32 scalars with the entry ``total``, such as
            `tfstyle.Objective` or a user-defined function. ``targets`` is any structure of tensors; the step
            passes it to the objective.
        optimizer: an `Optimizer`, such as `tfstyle.adam` or `tfstyle.lbfgs` returns; a Keras optimiser; or
            ``adam``, ``lbfgs`` or ``lbfgs_fixed_step``.
        compile: ``xla`` (`jit_compile=True`), ``graph`` (`tf.function`), ``eager``, or ``auto``, which means
            ``xla`` on a GPU and ``graph`` on a CPU.
        steps: number of iterations in one call, at least 1. With more than one, an accelerator does not
            wait for Python between the iterations.

    Returns:
        step(image, state, targets) -> (next image, next state, terms). The terms are evaluated at the image
        before its update. They are scalars, or have shape ``[steps]`` if `steps` is more than 1. For
        the first call, state is None or ``optimizer.init(image)``. Do not differentiate the results (see
        `value_and_gradient`).

    Raises:
        ConfigError: `steps` is more than 1 and the optimiser is not traceable, or `compile` or the name of
            the optimiser is unknown. The step raises ConfigError if the objective does not return a dict with
            a scalar ``total`` that depends on the image.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.optim import make_step
        >>> step = make_step(
        ...     lambda image, target: {"total": tf.reduce_mean((image - target) ** 2)}, "lbfgs", steps=4
        ... )
        >>> image, target = tf.zeros([1, 32, 48, 3]), tf.fill([1, 32, 48, 3], 0.5)
        >>> image, state, terms = step(image, None, target)
        >>> image.shape, terms["total"].shape
        (TensorShape([1, 32, 48, 3]), TensorShape([4]))
    """
    optimizer = _as_optimizer(optimizer)
    mode = choose_compile(compile, choose_device().value).value

    def advance(evaluate: Evaluate, image: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any, Terms]:
        return optimizer.step(evaluate, image, optimizer.init(image) if state is None else state)

    def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
        if mode == "eager":
            return function
        # Autograph would change the class of an error that is raised during tracing.
        return tf.function(function, jit_compile=mode == "xla", autograph=False)

    if not optimizer.traceable:
        if steps != 1:
            raise ConfigError(
                f"steps_per_call is {steps}; it must be 1 with a Keras optimiser, whose step runs in Python"
            )
        evaluate = compile_function(
            lambda image, targets: value_and_gradient(objective, image, targets=targets)
        )
        return lambda image, state, targets: advance(lambda x: evaluate(x, targets), image, state)

    def one_step(image: tf.Tensor, state: Any, targets: Any) -> tuple[tf.Tensor, Any, Terms]:
        return advance(lambda x: value_and_gradient(objective, x, targets=targets), image, state)

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


def _as_optimizer(optimizer: str | Optimizer | keras.optimizers.Optimizer) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str):
        return from_keras(optimizer)
    if optimizer not in NAMED_OPTIMIZERS:
        names = ", ".join(NAMED_OPTIMIZERS)
        raise ConfigError(
            f"optimizer is {optimizer!r}{suggest(optimizer, NAMED_OPTIMIZERS)}; it can be {names}, an "
            "Optimizer or a Keras optimiser"
        )
    return NAMED_OPTIMIZERS[optimizer]()


def value_and_gradient(
    objective: ObjectiveFunction, image: tf.Tensor, *, targets: Any
) -> tuple[Terms, tf.Tensor]:
    """Return the objective's terms and the gradient of the total with respect to the image.

    Backpropagation is scaled by the power of two that brings the total to about 2^16, and the gradient is
    divided by it afterwards. The scaling is exact in float32 and bfloat16, and it prevents underflow in
    float16.

    Do not differentiate the gradient of a `tfstyle.Objective` again: it is evaluated inside
    `only_first_derivatives`, and second derivatives would be wrong. To compute them, use a `tf.GradientTape`
    around the objective itself. Other functions are evaluated inside it if they have an attribute
    ``first_derivatives_only`` that is True: set it on a function that computes no gradients, to make it
    faster.

    Args:
        objective: (image, targets) -> terms.
        image: float32 ``[1, height, width, 3]``, or a tensor of any shape that the objective takes.
        targets: second argument of the objective.

    Returns:
        The terms, and the gradient in the image's shape, float32.

    Raises:
        ConfigError: the objective does not return a dict with a scalar ``total``, or the total does not
            depend on the image.
    """
    fast = getattr(objective, "first_derivatives_only", False)
    with tf.GradientTape() as tape, only_first_derivatives() if fast else contextlib.nullcontext():
        tape.watch(image)
        terms = _check_terms(objective(image, targets))
    total = terms["total"]
    scale = loss_scale(total)
    gradient = tape.gradient(total, image, output_gradients=scale)
    if gradient is None:
        raise ConfigError(
            "the objective's total does not depend on the image; compute it from the image with TensorFlow "
            "operations"
        )
    return terms, gradient / scale


def _check_terms(terms: Any) -> Terms:
    """Return the terms of an objective as float32 scalars, or raise ConfigError."""
    expected = "return a dict of scalars with the entry 'total', such as {'total': loss}"
    if not isinstance(terms, Mapping):
        raise ConfigError(f"the objective returned a {type(terms).__name__}; {expected}")
    if "total" not in terms:
        names = ", ".join(map(str, terms)) or "no entry"
        raise ConfigError(f"the objective returned a dict with {names}; {expected}")
    scalars: Terms = {}
    for name, term in terms.items():
        try:
            scalars[name] = tf.cast(tf.convert_to_tensor(term), tf.float32)
        except (TypeError, ValueError):
            raise ConfigError(f"the objective's {name} is a {type(term).__name__}; {expected}") from None
        if scalars[name].shape.rank != 0:
            raise ConfigError(f"the objective's {name} has shape {tuple(scalars[name].shape)}; {expected}")
    return scalars


def loss_scale(total: tf.Tensor) -> tf.Tensor:
    """Return the power of two, a float32 scalar, that brings a float32 scalar loss to about 2^16.

    A loss that is not finite or at most 1e-30 in magnitude gets a scale of 2^16.
    """
    magnitude = tf.abs(total)
    usable = tf.math.is_finite(magnitude) & (magnitude > 1e-30)
    exponent = 16.0 - tf.round(tf.math.log(tf.where(usable, magnitude, 1.0)) / tf.math.log(2.0))
    return tf.pow(2.0, exponent)
