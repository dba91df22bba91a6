"""The result of a run: the image, the options and facts that produced it, and the losses."""

from __future__ import annotations

import io
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfstyle import __version__
from tfstyle.config import StyleConfig
from tfstyle.errors import ConfigError
from tfstyle.files import check_writable, write_atomically
from tfstyle.images import ImageArray, encode, save
from tfstyle.run.plots import plot_losses, show_images

#: Longest side in pixels of an image that a notebook displays.
DISPLAYED_SIDE = 1024
#: The terms of the loss that are 0 in a history where they are not used.
OPTIONAL_TERMS = ("spectrum", "self_similarity", "temporal")


@dataclass(kw_only=True, repr=False)
class History:
    """The losses at every iteration of a run, as lists of equal length.

    Attributes:
        iteration: number of the iteration, counted from 1 over all scales.
        scale: number of the scale, from 1 for the coarsest.
        total: the total loss.
        content, style, tv, spectrum, self_similarity, temporal: the weighted content loss, style loss, total
            variation, local spectrum, self-similarity loss and temporal loss. The sum of these and of
            `extra_losses` is `total`. The last three are 0 where they are not used.
        seconds: wall time in seconds since the optimisation began.
        style_layers: layer -> its weighted part of the style loss; 0 at scales whose style loss is the
            hypercolumn loss, which is not a sum over layers.
        extra_losses: name -> the weighted loss, for each of the ``extra_losses`` of `tfstyle.stylize`.
    """

    iteration: list[int] = field(default_factory=list)
    scale: list[int] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    content: list[float] = field(default_factory=list)
    style: list[float] = field(default_factory=list)
    tv: list[float] = field(default_factory=list)
    spectrum: list[float] = field(default_factory=list)
    self_similarity: list[float] = field(default_factory=list)
    temporal: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    style_layers: dict[str, list[float]] = field(default_factory=dict)
    extra_losses: dict[str, list[float]] = field(default_factory=dict)

    def record(self, scale: int, terms: Mapping[str, float], *, seconds: float) -> None:
        """Append one iteration.

        Args:
            scale: number of the scale, from 1.
            terms: the terms of the objective: ``total``, ``content``, ``style``, ``tv``, ``style/<layer>``,
                ``extra/<name>`` and, if they are used, ``spectrum``, ``self_similarity`` and ``temporal``.
            seconds: wall time in seconds since the optimisation began.
        """
        self.iteration.append(len(self.iteration) + 1)
        self.scale.append(scale)
        self.seconds.append(seconds)
        for name, value in (dict.fromkeys(OPTIONAL_TERMS, 0.0) | dict(terms)).items():
            kind, _, part = name.partition("/")
            if part:
                parts = self.style_layers if kind == "style" else self.extra_losses
                parts.setdefault(part, [0.0] * (len(self.iteration) - 1)).append(value)
            else:
                getattr(self, kind).append(value)
        for values in self.style_layers.values():  # the hypercolumn loss is not a sum over layers
            if len(values) < len(self.iteration):
                values.append(0.0)

    def __repr__(self) -> str:
        if not self.iteration:
            return "History(no iterations)"
        return (
            f"History({_count(len(self.iteration), 'iteration')}, {_count(max(self.scale), 'scale')}, "
            f"loss {self.total[0]:.4g} to {self.total[-1]:.4g}, {self.seconds[-1]:.1f} s)"
        )

    def plot(self, axes: Any = None, *, layers: bool = False) -> Any:
        """Draw the weighted losses over the iterations, on a logarithmic axis if the total is positive.

        A dashed line marks the beginning of the next, larger scale. Losses that are always 0 are left out.
        The labels of the extra losses are ``extra/<name>``.

        Args:
            axes: the `matplotlib.axes.Axes` that is drawn on; by default that of a new figure.
            layers: whether the parts of the style layers are drawn as well.

        Returns:
            The axes.

        Raises:
            ConfigError: matplotlib is not installed, or the history has no iteration.

        Example:
            >>> import numpy as np
            >>> import tfstyle
            >>> content, style = np.random.default_rng(0).uniform(size=(2, 32, 48, 3))
            >>> result = tfstyle.stylize(content, style, weights="embedded", iterations=3)
            >>> axes = result.history.plot()
            >>> [line.get_label() for line in axes.get_lines()][:3]
            ['total', 'content', 'style']
        """
        if not self.iteration:
            raise ConfigError("the history has no iterations; there is nothing to plot")
        terms = ("total", "content", "style", "tv", *OPTIONAL_TERMS)
        losses = {name: getattr(self, name) for name in terms}
        losses |= {f"extra/{name}": values for name, values in self.extra_losses.items()}
        losses = {name: values for name, values in losses.items() if name == "total" or any(values)}
        return plot_losses(losses, self.scale, parts=self.style_layers if layers else {}, axes=axes)

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
        final_shape: height and width of the image at the last scale in pixels.
        global_iteration: number of the iteration over all scales, from 1.
        total_iterations: maximum number of iterations of all scales together.
        progress: part of the work of the run that is done, in 0..1. The work of an iteration is counted as
            the number of pixels of its scale.
        losses: the weighted terms ``total``, ``content``, ``style``, ``tv``, ``style/<layer>``,
            ``extra/<name>`` and, if they are used, ``spectrum``, ``self_similarity`` and ``temporal``.
        seconds: wall time in seconds since the optimisation began.
        seconds_left: expected remaining time in seconds. It is infinite until one scale has had a second call
            of the step, because the first call of a scale may also compile the step.
        config: the options of the run.
        facts: the values that were chosen for ``auto`` and for defaults, as in `Result.facts`.
    """

    iteration: int
    iterations: int
    _: KW_ONLY
    scale: int
    scales: int
    shape: tuple[int, int]
    final_shape: tuple[int, int]
    global_iteration: int
    total_iterations: int
    progress: float
    losses: dict[str, float]
    seconds: float
    seconds_left: float
    config: StyleConfig = field(repr=False)
    facts: Mapping[str, Any] = field(repr=False)
    _read_image: Callable[[], np.ndarray] = field(repr=False)
    _stop: Callable[[], None] = field(repr=False)

    @property
    def time_left(self) -> str:
        """The expected remaining time as text, such as ``12 s left``."""
        if math.isinf(self.seconds_left):
            return "estimating the time left"
        return f"{self.seconds_left:.0f} s left"

    @property
    def text(self) -> str:
        """One line with the scale, the iteration, the loss and the time left."""
        height, width = self.shape
        return (
            f"scale {self.scale} of {self.scales} ({width} x {height}), iteration {self.iteration} of "
            f"{self.iterations}, loss {self.losses['total']:.4g}, {self.time_left}"
        )

    @property
    def summary(self) -> str:
        """One line with the iterations that were done, their time and the loss."""
        count = f"{self.global_iteration} of {self.total_iterations} iterations"
        return f"{count} in {self.seconds:.1f} s, loss {self.losses['total']:.4g}"

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


@dataclass(frozen=True, eq=False, repr=False)
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
        content: the content image at the size of the last scale, float32 ``[height, width, 3]``, or None.
        styles: the style images at their sizes for the last scale, recoloured if `StyleConfig.color` says so,
            float32 ``[height, width, 3]``. Styles that were extracted before have no image and are left out.

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
    content: np.ndarray | None = None
    styles: Sequence[np.ndarray] = ()

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        done = ""
        if self.history.iteration:
            count, seconds = _count(len(self.history.iteration), "iteration"), self.history.seconds[-1]
            done = f", {count} in {seconds:.1f} s, loss {self.history.total[-1]:.4g}"
        return f"Result({width} x {height} pixels{done}, weights {self.facts.get('weights', 'unknown')})"

    def _repr_png_(self) -> bytes:
        """Return the image as a PNG file for notebooks, with sides of at most `DISPLAYED_SIDE` pixels."""
        image = ImageArray(self.image, self.alpha).fitted(DISPLAYED_SIDE)
        buffer = io.BytesIO()
        image.as_pil().save(buffer, "PNG")
        return buffer.getvalue()

    def show(self) -> None:
        """Show the content image, the style images and the result side by side with matplotlib.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        images = {} if self.content is None else {"content": self.content}
        names = ["style"] if len(self.styles) == 1 else [f"style {n + 1}" for n in range(len(self.styles))]
        images |= dict(zip(names, self.styles, strict=True))
        show_images({**images, "result": self.image})

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

    def encode(self, name: str) -> bytes:
        """Return the content of the image file that `save` writes, for a storage other than a file.

        Args:
            name: name of the file, whose suffix selects the format.

        Raises:
            ImageError: the format cannot store the image.
        """
        return encode(ImageArray(self.image, self.alpha, bits=self.bits), name, settings=self.settings())

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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
