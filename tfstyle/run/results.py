"""The result of a run: the image, how it was made, and the loss on the way."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfstyle import __version__
from tfstyle.config import StyleConfig
from tfstyle.files import check_writable, write_atomically
from tfstyle.images import ImageArray, save


@dataclass(kw_only=True)
class History:
    """The loss at every iteration; lists of equal length.

    Attributes:
        iteration: 1, 2, ... over all scales.
        scale: 1 for the coarsest.
        total, content, style, tv: the weighted terms, in the units of the run.
        seconds: wall time since the optimisation began.
        style_layers: layer -> its weighted term.
    """

    iteration: list[int] = field(default_factory=list)
    scale: list[int] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    content: list[float] = field(default_factory=list)
    style: list[float] = field(default_factory=list)
    tv: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    style_layers: dict[str, list[float]] = field(default_factory=dict)

    def record(self, scale: int, terms: Mapping[str, float], *, seconds: float) -> None:
        """Add one iteration."""
        self.iteration.append(len(self.iteration) + 1)
        self.scale.append(scale)
        self.seconds.append(seconds)
        for name, value in terms.items():
            kind, _, layer = name.partition("/")
            series = self.style_layers.setdefault(layer, []) if layer else getattr(self, kind)
            series.append(value)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists; numbers that JSON has no word for are None."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: plain(item) for key, item in value.items()}
            return [item if math.isfinite(item) else None for item in value]

        return {key: plain(value) for key, value in vars(self).items()}

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write JSON.

        Raises:
            OutputError: the file cannot be written, or it exists and `overwrite` is not set.
            RunError: the disk failed.
        """
        check_writable(Path(path), overwrite=overwrite)
        write_atomically(Path(path), (json.dumps(self.as_dict()) + "\n").encode())


@dataclass(frozen=True, eq=False)
class Iteration:
    """One evaluation of the loss, as a run goes on.

    Attributes:
        iteration, iterations: the number of this one, from 1, and how many the scale will have.
        scale, scales: the same for the scale.
        shape: height and width of the image at this scale.
        losses: ``total``, ``content``, ``style``, ``tv`` and ``style/<layer>``, weighted.
        seconds: since the optimisation began.
    """

    iteration: int
    iterations: int
    _: KW_ONLY
    scale: int
    scales: int
    shape: tuple[int, int]
    losses: dict[str, float]
    seconds: float
    _solution: tf.Tensor
    _finish: Callable[[tf.Tensor], np.ndarray]

    @property
    def image(self) -> np.ndarray:
        """The image so far, float32 ``[height, width, 3]``; fetched from the device when it is used.

        Where Adam runs in tiles it updates its image in place: use this before the next iteration.
        """
        return self._finish(self._solution)


@dataclass(frozen=True, eq=False)
class Result:
    """A finished, or interrupted, run.

    Attributes:
        image: float32 ``[height, width, 3]``, sRGB in 0..1.
        history: the loss at every iteration.
        config: the options as they were given.
        facts: what ``auto`` and the defaults became: weights, layers, device, compile, precision.
        alpha: the content's, ``[height, width]``, or None.
        bits: 8 or 16, the content's depth.
    """

    image: np.ndarray
    history: History
    config: StyleConfig
    _: KW_ONLY
    facts: dict[str, Any]
    alpha: np.ndarray | None = None
    bits: int = 8

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False, bits: int | None = None) -> None:
        """Write the image with the options that made it; the suffix chooses the format.

        Args:
            path: ending in .png, .jpg, .webp or .tif.
            overwrite: replace a file that is there.
            bits: 8 or 16 per channel, by default the content's; .jpg and .webp have 8.

        Raises:
            ImageError: the format cannot hold the image.
            OutputError: the file cannot be written, or it exists and `overwrite` is not set.
            RunError: the disk failed.
        """
        image = ImageArray(self.image, self.alpha, bits=self.bits if bits is None else bits)
        save(Path(path), image, settings=self.settings(), overwrite=overwrite)

    def settings(self) -> dict[str, Any]:
        """What is stored in the image file: options, seed among them, versions, weights."""
        return {
            "tfstyle": __version__,
            "options": self.config.as_dict(),
            "facts": self.facts,
            "iterations": len(self.history.iteration),
            "versions": {
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }
