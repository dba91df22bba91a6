"""The result of a run: the image, the options and facts that produced it, and the losses."""

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
    """The losses at every iteration of a run, as lists of equal length.

    Attributes:
        iteration: number of the iteration, counted from 1 over all scales.
        scale: number of the scale, from 1 for the coarsest.
        total: the total loss.
        content, style, tv, spectrum: the weighted content loss, style loss, total variation and local
            spectrum. The sum of these and of `extra_losses` is `total`. The spectrum is 0 where it is not
            used.
        seconds: wall time in seconds since the optimisation began.
        style_layers: layer -> its weighted part of the style loss.
        extra_losses: name -> the weighted loss, for each of the ``extra_losses`` of `tfstyle.stylize`.
    """

    iteration: list[int] = field(default_factory=list)
    scale: list[int] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    content: list[float] = field(default_factory=list)
    style: list[float] = field(default_factory=list)
    tv: list[float] = field(default_factory=list)
    spectrum: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    style_layers: dict[str, list[float]] = field(default_factory=dict)
    extra_losses: dict[str, list[float]] = field(default_factory=dict)

    def record(self, scale: int, terms: Mapping[str, float], *, seconds: float) -> None:
        """Append one iteration.

        Args:
            scale: number of the scale, from 1.
            terms: the terms of the objective: ``total``, ``content``, ``style``, ``tv``, ``style/<layer>``,
                ``extra/<name>`` and, if it is used, ``spectrum``.
            seconds: wall time in seconds since the optimisation began.
        """
        self.iteration.append(len(self.iteration) + 1)
        self.scale.append(scale)
        self.seconds.append(seconds)
        for name, value in {"spectrum": 0.0, **terms}.items():
            kind, _, part = name.partition("/")
            if part:
                parts = self.style_layers if kind == "style" else self.extra_losses
                parts.setdefault(part, []).append(value)
            else:
                getattr(self, kind).append(value)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain lists for JSON, in which numbers that are not finite are None."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: plain(item) for key, item in value.items()}
            return [item if math.isfinite(item) else None for item in value]

        return {key: plain(value) for key, value in vars(self).items()}

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the history to a JSON file.

        Args:
            path: path of the file.
            overwrite: whether to replace an existing file.

        Raises:
            OutputError: the file cannot be written, or it exists and `overwrite` is not set.
            RunError: writing failed, for example because the disk is full.
        """
        check_writable(Path(path), overwrite=overwrite)
        write_atomically(Path(path), (json.dumps(self.as_dict()) + "\n").encode())


@dataclass(frozen=True, eq=False)
class Iteration:
    """One iteration of a run, that is, one evaluation of the loss and one update of the image.

    If a call of the step performs several iterations (`StyleConfig.steps_per_call`), only the last of them is
    yielded.

    Attributes:
        iteration: number of the iteration within its scale, from 1.
        iterations: maximum number of iterations of the scale.
        scale: number of the scale, from 1 for the coarsest.
        scales: number of scales.
        shape: height and width of the image at this scale in pixels.
        losses: the weighted terms ``total``, ``content``, ``style``, ``tv``, ``style/<layer>``,
            ``extra/<name>`` and, if it is used, ``spectrum``.
        seconds: wall time in seconds since the optimisation began.
    """

    iteration: int
    iterations: int
    _: KW_ONLY
    scale: int
    scales: int
    shape: tuple[int, int]
    losses: dict[str, float]
    seconds: float
    _read_image: Callable[[], np.ndarray]
    _stop: Callable[[], None]

    @property
    def image(self) -> np.ndarray:
        """The result image after this iteration, float32 ``[height, width, 3]`` in 0..1.

        It is copied from the device at each access. If Adam runs in tiles, it updates its image in place:
        read this property before the next iteration.

        Raises:
            RunError: a later iteration has updated the image in place.
        """
        return self._read_image()

    def stop(self) -> None:
        """End the run after this iteration. The result of the run is the result so far."""
        self._stop()


@dataclass(frozen=True, eq=False)
class Result:
    """The result of a finished or interrupted run.

    Attributes:
        image: the result image, float32 ``[height, width, 3]``, sRGB in 0..1.
        history: the losses at every iteration.
        config: the options as they were given.
        facts: the values that were chosen for ``auto`` and for defaults, such as ``weights``,
            ``content_layers``, ``style_layers``, ``content_weight``, ``device``, ``compile`` and
            ``precision``.
        alpha: the content image's alpha channel, float32 ``[height, width]`` in 0..1, or None.
        bits: bits per channel of the content image, 8 or 16.

    Example:
        >>> import numpy as np
        >>> import tfstyle
        >>> content, style = np.random.default_rng(0).uniform(size=(2, 32, 48, 3))
        >>> result = tfstyle.stylize(content, style, weights="embedded", iterations=2)
        >>> result.image.shape, result.history.iteration, result.facts["weights"]
        ((32, 48, 3), [1, 2], 'embedded')
        >>> result.save("result.png")
    """

    image: np.ndarray
    history: History
    config: StyleConfig
    _: KW_ONLY
    facts: dict[str, Any]
    alpha: np.ndarray | None = None
    bits: int = 8

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False, bits: int | None = None) -> None:
        """Write the image and the options that produced it to an image file.

        Args:
            path: path of the file. The suffix selects the format: .png, .jpg, .webp or .tif.
            overwrite: whether to replace an existing file.
            bits: bits per channel, 8 or 16; by default those of the content image. JPEG and WebP have 8 in
                any case.

        Raises:
            ImageError: the format cannot store the image.
            OutputError: the file cannot be written, or it exists and `overwrite` is not set.
            RunError: writing failed, for example because the disk is full.
        """
        image = ImageArray(self.image, self.alpha, bits=self.bits if bits is None else bits)
        save(Path(path), image, settings=self.settings(), overwrite=overwrite)

    def settings(self) -> dict[str, Any]:
        """Return what `save` stores in the image file as plain values.

        Returns:
            A dict with the version ``tfstyle``, the ``options`` with the seed, the ``facts``, the number of
            ``iterations`` and the ``versions`` of the libraries.
        """
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
