"""The whole of `tfstyle.stylize`, with its defaults, inside one graph: what an exported model paints with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfstyle.config import StyleConfig
from tfstyle.losses import Objective, balanced_normalization, shares
from tfstyle.optim import lbfgs, make_step
from tfstyle.serving.decoding import resize_in_graph

SCALES = 12  # the most sizes from coarse to fine, far more than the largest picture has


def stylize_objective(
    features: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    content_layers: Sequence[str],
    style_layers: Sequence[str],
) -> Objective:
    """The objective of a run with default options."""
    defaults = StyleConfig()
    return Objective(
        features,
        shares(content_layers, None),
        shares(style_layers, None),
        defaults.content_weight,
        defaults.style_weight,
        defaults.tv_weight,
        balanced_normalization,
    )


def stylize_in_graph(
    objective: Objective, content: tf.Tensor, style: tf.Tensor, steps: tf.Tensor, minimum: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Paint coarse to fine with L-BFGS, the same step as `tfstyle.stylize`, in two nested loops.

    Args:
        objective: of `stylize_objective`.
        content, style: float32 ``[1, height, width, 3]`` in 0..1.
        steps: int32 scalar, iterations per scale.
        minimum: least pixels a side of any scale.

    Returns:
        the image, of the content's shape, and its last loss, a scalar.
    """
    optimizer = lbfgs(StyleConfig().lbfgs_history)
    step = make_step(objective, optimizer, "eager")  # part of this graph, not a graph of its own
    full, least = tf.cast(tf.shape(content)[1:3], tf.float32), float(minimum)
    style = _shrunk(
        style, tf.reduce_max(full) / tf.cast(tf.reduce_max(tf.shape(style)[1:3]), tf.float32), least
    )
    scales = _scale_count(full, least)

    def scale(k: tf.Tensor, image: tf.Tensor, loss: tf.Tensor) -> tuple[tf.Tensor, ...]:
        factor = 0.5 ** tf.cast(scales - 1 - k, tf.float32)
        shape = tf.cast(tf.round(full * factor), tf.int32)
        small = _shrunk(style, factor, least)
        targets = objective.targets(resize_in_graph(content, shape), [objective.style_summary(small)])
        image = resize_in_graph(image, shape)

        def move(i: tf.Tensor, x: tf.Tensor, state: Any, loss: tf.Tensor) -> tuple[Any, ...]:
            x, state, terms = step(x, state, targets)
            return i + 1, x, state, terms["total"]

        start = (tf.constant(0), image, optimizer.init(image), loss)
        _, image, state, loss = tf.while_loop(lambda i, *_: i < steps, move, start)
        return k + 1, tf.ensure_shape(optimizer.solution(image, state), [1, None, None, 3]), loss

    grows = tf.TensorShape([1, None, None, 3])
    _, image, loss = tf.while_loop(
        lambda k, *_: k < scales,
        scale,
        (tf.constant(0), content, tf.constant(0.0)),
        shape_invariants=(tf.TensorShape([]), grows, tf.TensorShape([])),
        maximum_iterations=SCALES,
    )
    return image, loss


def _shrunk(images: tf.Tensor, factor: tf.Tensor, minimum: float) -> tf.Tensor:
    """As `tfstyle.images.Picture.shrunk`, inside a graph; a factor above 1 changes nothing."""
    sizes = tf.cast(tf.shape(images)[1:3], tf.float32)
    at = tf.minimum(1.0, tf.maximum(factor, minimum / tf.reduce_min(sizes)))
    return resize_in_graph(images, tf.cast(tf.maximum(tf.round(sizes * at), 1.0), tf.int32))


def _scale_count(full: tf.Tensor, minimum: float) -> tf.Tensor:
    """How many sizes `tfstyle.plan.scale_shapes` has for a height and width, inside a graph."""
    # Constants, as a graph's own powers of two are off in the last digit, and here equality counts.
    factors = tf.constant([0.5**k for k in range(SCALES)])
    fits = tf.reduce_min(tf.round(full * factors[:, None]), 1) >= minimum
    least = tf.minimum(float(StyleConfig().min_scale), tf.reduce_max(full))
    return tf.reduce_sum(tf.cast((tf.reduce_max(full) * factors >= least) & fits, tf.int32))
