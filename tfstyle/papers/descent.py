"""One loss, one picture, L-BFGS: what every synthesis of the papers comes down to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import tfstyle
from tfstyle.errors import RunError
from tfstyle.optim import Optimizer


class Descent(NamedTuple):
    """What a descent came to.

    Attributes:
        image: float32 ``[height, width, 3]`` in 0..1, that with the lowest loss.
        losses: total at every evaluation.
    """

    image: np.ndarray
    losses: list[float]


def white_noise(height: int, width: int, seed: int = 0, deviation: float = 0.25) -> np.ndarray:
    """Grey with independent normal noise in every channel, float32 ``[height, width, 3]`` in 0..1."""
    noise = np.random.default_rng(seed).normal(0.5, deviation, (height, width, 3))
    return noise.clip(0, 1).astype(np.float32)


def descend(
    objective: Callable[[tf.Tensor, Any], dict[str, tf.Tensor]],
    start: np.ndarray,
    iterations: int,
    targets: Any = (),
    optimizer: Optimizer | None = None,
) -> Descent:
    """Minimise an objective of an image.

    Args:
        objective: as `tfstyle.make_step` takes it; the targets are passed through.
        start: float32 ``[height, width, 3]`` in 0..1.
        iterations: evaluations of loss and gradient.
        optimizer: by default L-BFGS within 0..1.

    Raises:
        RunError: the loss was never finite.
    """
    optimizer = tfstyle.lbfgs() if optimizer is None else optimizer
    step = tfstyle.make_step(objective, optimizer)
    image = tf.constant(start[np.newaxis], tf.float32)
    state, losses, best = optimizer.init(image), [], (np.inf, image)
    for _ in range(iterations):
        evaluated = image
        image, state, terms = step(image, state, targets)
        losses.append(float(terms["total"]))
        if losses[-1] < best[0]:
            best = losses[-1], evaluated
    if not np.isfinite(best[0]):
        raise RunError("the loss was never finite")
    return Descent(best[1][0].numpy(), losses)
