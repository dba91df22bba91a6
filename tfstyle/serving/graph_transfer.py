"""Style transfer with the default options of `tfstyle.stylize` inside one graph, for the exported model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfstyle.config import StyleConfig
from tfstyle.losses import Objective
from tfstyle.optim import lbfgs, make_step
from tfstyle.run import make_objective
from tfstyle.serving.decoding import resize_in_graph

MOST_SCALES = 12  # far more than the largest possible image of a request needs


def stylize_objective(
    features: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    *,
    content_layers: Sequence[str],
    style_layers: Sequence[str],
) -> Objective:
    """Return the objective of a run with the default options.

    Args:
        features: images -> dict of layer -> features ``[batch, h, w, N]``.
        content_layers, style_layers: names of the layers.

    Returns:
        The objective, for `stylize_in_graph`.
    """
    return make_objective(StyleConfig(), features, content_layers=content_layers, style_layers=style_layers)


def stylize_in_graph(
    objective: Objective, content: tf.Tensor, *, style: tf.Tensor, steps: tf.Tensor, minimum: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Run the optimisation of `tfstyle.stylize`, coarse to fine, in two nested loops of the graph.

    The optimiser is L-BFGS and the initial image is the content image.

    Args:
        objective: the objective that `stylize_objective` returns.
        content, style: float32 ``[1, height, width, 3]`` in 0..1; the two may differ in size.
        steps: int32 scalar, the number of iterations per scale.
        minimum: smallest height and width in pixels of a scale.

    Returns:
        The image, float32 of the content image's shape, and the total loss of the last iteration, a scalar.
    """
    optimizer = lbfgs(StyleConfig().lbfgs_history)
    step = make_step(objective, optimizer, compile="eager")  # this function is traced into a graph already
    full = tf.cast(tf.shape(content)[1:3], tf.float32)
    style_longest = tf.cast(tf.reduce_max(tf.shape(style)[1:3]), tf.float32)
    style = _shrunk(style, tf.reduce_max(full) / style_longest, float(minimum))
    scales = _scale_count(full, float(minimum))

    def scale(k: tf.Tensor, image: tf.Tensor, loss: tf.Tensor) -> tuple[tf.Tensor, ...]:
        factor = 0.5 ** tf.cast(scales - 1 - k, tf.float32)
        shape = tf.cast(tf.round(full * factor), tf.int32)
        style_summary = objective.style_summary(_shrunk(style, factor, float(minimum)))
        targets = objective.targets(resize_in_graph(content, shape), [style_summary])
        image = resize_in_graph(image, shape)

        def move(i: tf.Tensor, x: tf.Tensor, state: Any, loss: tf.Tensor) -> tuple[Any, ...]:
            x, state, terms = step(x, state, targets)
            return i + 1, x, state, terms["total"]

        start = (tf.constant(0), image, optimizer.init(image), loss)
        _, image, state, loss = tf.while_loop(lambda i, *_: i < steps, move, start)
        return k + 1, tf.ensure_shape(optimizer.solution(image, state), [1, None, None, 3]), loss

    any_size = tf.TensorShape([1, None, None, 3])
    _, image, loss = tf.while_loop(
        lambda k, *_: k < scales,
        scale,
        (tf.constant(0), content, tf.constant(0.0)),
        shape_invariants=(tf.TensorShape([]), any_size, tf.TensorShape([])),
        maximum_iterations=MOST_SCALES,
    )
    return image, loss


def _shrunk(images: tf.Tensor, factor: tf.Tensor, minimum: float) -> tf.Tensor:
    """Shrink images as `tfstyle.images.ImageArray.shrunk` does; a factor above 1 changes nothing."""
    sizes = tf.cast(tf.shape(images)[1:3], tf.float32)
    allowed = tf.minimum(1.0, tf.maximum(factor, minimum / tf.reduce_min(sizes)))
    return resize_in_graph(images, tf.cast(tf.maximum(tf.round(sizes * allowed), 1.0), tf.int32))


def _scale_count(full: tf.Tensor, minimum: float) -> tf.Tensor:
    """Return the number of scales that `tfstyle.run.scale_shapes` gives for ``full``, height and width."""
    # The powers of two are constants because powers computed in the graph are off in the last digit, and the
    # comparisons below must be exact.
    factors = tf.constant([0.5**k for k in range(MOST_SCALES)])
    fits = tf.reduce_min(tf.round(full * factors[:, None]), 1) >= minimum
    min_scale = tf.minimum(float(StyleConfig().min_scale), tf.reduce_max(full))
    return tf.reduce_sum(tf.cast((tf.reduce_max(full) * factors >= min_scale) & fits, tf.int32))
