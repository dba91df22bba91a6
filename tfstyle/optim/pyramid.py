"""The Laplacian pyramid as the parameters of an image, for any optimiser.

A gradient step on the coefficients changes coarse forms and fine detail, while a step on the pixels changes
mostly fine detail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.optim.base import Evaluate, Optimizer, Terms


def laplacian_pyramid(image: tf.Tensor, *, levels: int) -> list[tf.Tensor]:
    """Return the Laplacian pyramid of an image: the detail of each level, and the remaining small image.

    ``L_i = x_i - up(down(x_i))``, where down halves height and width (rounded down) and both resize
    bilinearly. No side gets shorter than 1 pixel.

    Args:
        image: float32 ``[1, height, width, N]``.
        levels: number of levels of detail, at least 1.

    Returns:
        The detail from fine to coarse, and the remaining image. `collapse_pyramid` adds them up again.

    Reference: Burt, Adelson 1983, The Laplacian Pyramid as a Compact Image Code.
    Differs from Burt and Adelson: images are resized bilinearly, as by Kolkin et al. 2022.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.optim import laplacian_pyramid
        >>> [tuple(level.shape[1:3]) for level in laplacian_pyramid(tf.ones([1, 20, 32, 3]), levels=3)]
        [(20, 32), (10, 16), (5, 8), (2, 4)]
    """
    details = []
    for size in _sizes(image, levels):
        smaller = tf.image.resize(image, size)
        details.append(image - tf.image.resize(smaller, tf.shape(image)[1:3]))
        image = smaller
    return [*details, image]


def collapse_pyramid(pyramid: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the image of a Laplacian pyramid, ``[1, height, width, N]``.

    Args:
        pyramid: the result of `laplacian_pyramid`.
    """
    *details, image = pyramid
    for detail in reversed(details):
        image = detail + tf.image.resize(image, tf.shape(detail)[1:3])
    return image


class PyramidState(NamedTuple):
    """State of an optimiser of the coefficients of a Laplacian pyramid.

    Attributes:
        coefficients: the pyramid, level after level, float32 ``[1, P, 1, 3]``.
        inner: state of the wrapped optimiser.
    """

    coefficients: tf.Tensor
    inner: Any


def in_pyramid(optimizer: Optimizer, levels: int, *, equalized: bool = False) -> Optimizer:
    """Return an optimiser that applies another optimiser to the Laplacian pyramid of the image.

    Args:
        optimizer: the optimiser of the coefficients. It must not have bounds, because coefficients can be
            negative. The image may therefore leave 0..1.
        levels: number of levels, as for `laplacian_pyramid`.
        equalized: whether the detail of level k is ``2^-k`` times its coefficients. The gradients of all
            levels then have similar magnitudes. L-BFGS needs this, because its first step is one of steepest
            descent. Adam does not, because it divides each gradient by its magnitude.

    Returns:
        An `Optimizer` of images ``[1, height, width, 3]``. It is not elementwise, and its state is not
        resized with the image.

    Reference: Kolkin et al. 2019, Style Transfer by Relaxed Optimal Transport and Self-Similarity, and
    Kolkin et al. 2022, Neural Neighbor Style Transfer, who use Adam on a pyramid.

    Example:
        >>> import math
        >>> import tensorflow as tf
        >>> from tfstyle.optim import adam, in_pyramid, make_step
        >>> optimizer = in_pyramid(adam(0.05, low=-math.inf, high=math.inf), levels=4)
        >>> step = make_step(lambda image, target: {"total": tf.reduce_sum((image - target) ** 2)}, optimizer)
        >>> image, target = tf.zeros([1, 32, 32, 3]), tf.fill([1, 32, 32, 3], 0.5)
        >>> state = optimizer.init(image)
        >>> image, state, terms = step(image, state, target)
        >>> round(float(image[0, 16, 16, 0]), 3)  # 0.05 at each of four levels and in the rest
        0.25
    """

    weights = [0.5**level if equalized else 1.0 for level in range(levels + 1)]

    def to_coefficients(image: tf.Tensor) -> tf.Tensor:
        pyramid = laplacian_pyramid(image, levels=levels)
        return tf.concat(
            [tf.reshape(level, [1, -1, 1, 3]) / weight for level, weight in zip(pyramid, weights)], 1
        )

    def to_image(coefficients: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        shapes = [tf.shape(like)[1:3], *_sizes(like, levels)]
        counts = [tf.reduce_prod(shape) for shape in shapes]
        parts = tf.split(coefficients, tf.stack(counts), 1, num=len(counts))
        pyramid = [
            weight * tf.reshape(part, tf.concat([[1], shape, [3]], 0))
            for part, shape, weight in zip(parts, shapes, weights, strict=True)
        ]
        return tf.ensure_shape(collapse_pyramid(pyramid), like.shape)

    def init(image: tf.Tensor) -> PyramidState:
        coefficients = to_coefficients(image)
        return PyramidState(coefficients, optimizer.init(coefficients))

    def step(
        evaluate: Evaluate, image: tf.Tensor, state: PyramidState
    ) -> tuple[tf.Tensor, PyramidState, Terms]:
        def evaluate_coefficients(coefficients: tf.Tensor) -> tuple[Terms, tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(coefficients)
                collapsed = to_image(coefficients, image)
            terms, gradient = evaluate(collapsed)
            return terms, tape.gradient(collapsed, coefficients, output_gradients=gradient)

        coefficients, inner, terms = optimizer.step(evaluate_coefficients, state.coefficients, state.inner)
        return to_image(coefficients, image), PyramidState(coefficients, inner), terms

    def solution(image: tf.Tensor, state: PyramidState) -> tf.Tensor:
        return to_image(optimizer.solution(state.coefficients, state.inner), image)

    def flatten(state: PyramidState) -> list[Any]:
        return [state.coefficients, *optimizer.flatten(state.inner)]

    def restore(state: PyramidState, arrays: Sequence[np.ndarray]) -> PyramidState:
        coefficients, *inner = arrays
        return PyramidState(tf.constant(coefficients), optimizer.restore(state.inner, inner))

    return optimizer._replace(
        init=init,
        step=step,
        solution=solution,
        elementwise=False,
        resize=None,
        flatten=flatten,
        restore=restore,
        description=f"{optimizer.description} of a pyramid with {levels} levels",
    )


def _sizes(image: tf.Tensor, levels: int) -> list[tf.Tensor]:
    """Return the height and width of each level below the image."""
    return [tf.maximum(tf.shape(image)[1:3] // 2**number, 1) for number in range(1, levels + 1)]
