"""Minimisation of one loss of one image by L-BFGS: what every synthesis of the papers comes down to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.errors import ConfigError, RunError
from tfstyle.optim import Optimizer, lbfgs, make_step

#: Curvature pairs of L-BFGS from white noise: more than `tfstyle.stylize` keeps, since the way is longer.
CURVATURE_PAIRS = 30


class Descent(NamedTuple):
    """The outcome of a descent.

    Attributes:
        image: float32 ``[height, width, 3]`` in 0..1, that with the lowest loss.
        losses: total at every evaluation.
    """

    image: np.ndarray
    losses: list[float]

    @property
    def lowest_loss(self) -> float:
        """The lowest finite loss."""
        return float(np.nanmin(self.losses))

    @property
    def reduction(self) -> float:
        """How many times smaller the lowest loss is than the first."""
        return float(self.losses[0] / max(np.nanmin(self.losses), 1e-30))

    def relative_curve(self) -> tuple[list[float], list[float]]:
        """Evaluations, and the lowest loss until then over the first: without the trials of a line search."""
        relative = np.asarray(lowest_so_far(self.losses)) / self.losses[0]
        return [float(i) for i in range(1, len(relative) + 1)], relative.tolist()


def white_noise(height: int, width: int, *, seed: int = 0, deviation: float = 0.25) -> np.ndarray:
    """Make grey with independent normal noise in every channel, float32 ``[height, width, 3]`` in 0..1."""
    noise = np.random.default_rng(seed).normal(0.5, deviation, (height, width, 3))
    return noise.clip(0, 1).astype(np.float32)


def check_descent(iterations: int, noise: float) -> None:
    """Raise ConfigError where a descent from noise could not start."""
    if iterations < 1:
        raise ConfigError(f"iterations is {iterations}; it must be at least 1")
    if not 0 <= noise <= 10:
        raise ConfigError(f"noise is {noise:g}; it must be from 0 to 10")


def descend(
    objective: Callable[[tf.Tensor, Any], dict[str, tf.Tensor]],
    start: np.ndarray,
    *,
    iterations: int,
    targets: Any = (),
    optimizer: Optimizer | None = None,
) -> Descent:
    """Minimise an objective of an image.

    Args:
        objective: as `tfstyle.make_step` takes it; the targets are passed through.
        start: float32 ``[height, width, 3]`` in 0..1.
        iterations: evaluations of loss and gradient.
        targets: second argument of the objective.
        optimizer: by default L-BFGS within 0..1.

    Raises:
        RunError: the loss was never finite.
    """
    optimizer = lbfgs() if optimizer is None else optimizer
    step = make_step(objective, optimizer)
    image = tf.constant(start[np.newaxis], tf.float32)
    state, losses = optimizer.init(image), []
    lowest, best_image = np.inf, image
    for _ in range(iterations):
        evaluated = image
        image, state, terms = step(image, state, targets)
        losses.append(float(terms["total"]))
        if losses[-1] < lowest:
            lowest, best_image = losses[-1], evaluated
    if not np.isfinite(lowest):
        raise RunError("the loss was never finite")
    return Descent(best_image[0].numpy(), losses)


def format_factor(factor: float) -> str:
    """Write a factor with three digits, for a caption."""
    return f"{float(f'{factor:.3g}'):,.0f} times" if factor >= 100 else f"{factor:.3g} times"


def lowest_so_far(losses: Sequence[float]) -> list[float]:
    """Compute the lowest loss until each evaluation; losses that are NaN do not count."""
    lowest: list[float] = np.fmin.accumulate(losses).tolist()
    return lowest
