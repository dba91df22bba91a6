"""Minimisation of a loss of one image, by default by L-BFGS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.errors import ConfigError, RunError
from tfstyle.optim import Optimizer, lbfgs, make_step
from tfstyle.papers.study import report_iteration

#: Curvature pairs of L-BFGS from white noise. They are more than `tfstyle.stylize` uses, because a descent
#: from white noise takes more iterations.
CURVATURE_PAIRS = 30


class Descent(NamedTuple):
    """The result of a descent.

    Attributes:
        image: the image with the lowest loss, float32 ``[height, width, 3]`` in 0..1.
        losses: total loss at every iteration.
    """

    image: np.ndarray
    losses: list[float]

    @property
    def lowest_loss(self) -> float:
        """The lowest finite loss."""
        return float(np.nanmin(self.losses))

    @property
    def reduction(self) -> float:
        """The ratio of the first loss to the lowest loss."""
        return float(self.losses[0] / max(np.nanmin(self.losses), 1e-30))

    def relative_curve(self) -> tuple[list[float], list[float]]:
        """Return the iterations, from 1, and the lowest loss so far divided by the first loss.

        The higher losses of a line search's trial steps do not show in this curve.
        """
        relative = np.asarray(lowest_so_far(self.losses)) / self.losses[0]
        return [float(i) for i in range(1, len(relative) + 1)], relative.tolist()


def white_noise(height: int, width: int, *, seed: int = 0, deviation: float = 0.25) -> np.ndarray:
    """Return grey with independent normal noise in every channel, clipped to 0..1.

    Args:
        height, width: size of the image in pixels.
        seed: seed of the noise.
        deviation: standard deviation of the noise, for pixels in 0..1.

    Returns:
        float32 ``[height, width, 3]`` in 0..1, with mean 0.5.

    Example:
        >>> from tfstyle.papers.descent import white_noise
        >>> white_noise(32, 48, seed=1).shape
        (32, 48, 3)
    """
    noise = np.random.default_rng(seed).normal(0.5, deviation, (height, width, 3))
    return noise.clip(0, 1).astype(np.float32)


def check_descent(iterations: int, noise: float) -> None:
    """Raise a ConfigError if the number of iterations or the standard deviation of the noise is invalid."""
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
        objective: function of an image ``[1, height, width, 3]`` and the targets that returns a dict of
            losses with the key ``total``, as `tfstyle.make_step` takes it.
        start: first image, float32 ``[height, width, 3]`` in 0..1.
        iterations: number of iterations (evaluations of the loss and its gradient), at least 1.
        targets: second argument of the objective.
        optimizer: optimiser; by default `tfstyle.optim.lbfgs`, which keeps the image in 0..1.

    Returns:
        The image with the lowest loss, and the losses.

    Raises:
        RunError: the loss is not finite in any iteration.
    """
    optimizer = lbfgs() if optimizer is None else optimizer
    step = make_step(objective, optimizer)
    image = tf.constant(start[np.newaxis], tf.float32)
    state, losses = optimizer.init(image), []
    lowest, best_image = np.inf, image
    for iteration in range(1, iterations + 1):
        evaluated = image
        image, state, terms = step(image, state, targets)
        losses.append(float(terms["total"]))
        if losses[-1] < lowest:
            lowest, best_image = losses[-1], evaluated
        report_iteration(iteration, iterations)
    if not np.isfinite(lowest):
        raise RunError(
            f"the loss was not finite in any of the {iterations} iterations; give another image or other "
            "weights"
        )
    return Descent(best_image[0].numpy(), losses)


def format_factor(factor: float) -> str:
    """Return a factor as text with three significant digits, such as ``12.3 times``, for a caption."""
    return f"{float(f'{factor:.3g}'):,.0f} times" if factor >= 100 else f"{factor:.3g} times"


def lowest_so_far(losses: Sequence[float]) -> list[float]:
    """Return the lowest loss up to each iteration, without losses that are NaN."""
    lowest: list[float] = np.fmin.accumulate(losses).tolist()
    return lowest
