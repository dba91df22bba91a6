"""Figures of a result and of its losses, for notebooks. Matplotlib is imported when a figure is drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfstyle.errors import ConfigError

NO_MATPLOTLIB = "figures need matplotlib; install it with pip install 'tfstyle[notebook]'"
PANEL_WIDTH = 4.0  # width of the panel of one image, in inches


def show_images(images: Mapping[str, np.ndarray]) -> None:
    """Show images side by side, each below its title.

    Args:
        images: title -> float32 ``[height, width, 3]`` in 0..1, at least one.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    plt = _pyplot()
    tallest = max(image.shape[0] / image.shape[1] for image in images.values())
    size = (PANEL_WIDTH * len(images), PANEL_WIDTH * min(tallest, 2.0) + 0.4)
    _, axes = plt.subplots(1, len(images), figsize=size, layout="constrained", squeeze=False)
    for axis, (title, image) in zip(axes[0], images.items(), strict=True):
        axis.imshow(np.clip(image, 0, 1))
        axis.set_title(title)
        axis.axis("off")
        axis.set_anchor("N")  # aligns the titles
    plt.show()


def plot_losses(
    losses: Mapping[str, Sequence[float]],
    scales: Sequence[int],
    *,
    parts: Mapping[str, Sequence[float]],
    axes: Any = None,
) -> Any:
    """Draw losses over the iterations, with a dashed line where each later scale begins.

    The axis of the losses is logarithmic if the first one is always positive.

    Args:
        losses: label -> the loss at every iteration. The first one is drawn with a thicker line.
        scales: number of the scale at every iteration, at least one.
        parts: label -> a part of a loss at every iteration, drawn with a dotted line.
        axes: the `matplotlib.axes.Axes` that is drawn on; None for those of a new figure.

    Returns:
        The axes.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if axes is None:
        _, axes = _pyplot().subplots(figsize=(8, 4), layout="constrained")
    iterations = range(1, len(scales) + 1)
    for number, (name, values) in enumerate(losses.items()):
        axes.plot(iterations, values, label=_literal(name), linewidth=1.5 if number else 2.5)
    for name, values in parts.items():
        axes.plot(iterations, values, label=_literal(name), linewidth=1.2, linestyle=":")
    for number, (before, after) in enumerate(itertools.pairwise(scales), 1):
        if after > before:
            axes.axvline(number + 0.5, color="grey", linestyle="--", linewidth=1)
    first = [value for value in next(iter(losses.values())) if math.isfinite(value)]
    if first and min(first) > 0:
        axes.set_yscale("log", nonpositive="mask")  # from the content image the content loss starts at 0
        axes.set_ylim(bottom=min(first) / 100)
    axes.set_xlabel("iteration")
    axes.set_ylabel("weighted loss")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))  # beside the lines
    return axes


def _literal(label: str) -> str:
    """Return a label in which matplotlib finds no formula."""
    return label.replace("$", r"\$")


def _pyplot() -> Any:
    """Return `matplotlib.pyplot`, or raise ConfigError if matplotlib is not installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ConfigError(NO_MATPLOTLIB) from None
    return plt
