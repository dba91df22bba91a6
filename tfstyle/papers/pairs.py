"""A content and a style, painted by `tfstyle.stylize` with various options and all measured alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import tfstyle
from tfstyle.config import CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.network import Weights, default_layers
from tfstyle.network import weights as sources
from tfstyle.papers.judging import Distances, Judge, measures, read_pair, there, vgg
from tfstyle.run import Result

OUR_READING = (
    "Our reading of: α/β, for losses relative to what they are compared with (the paper's numbers presuppose "
    "normalised weights and raw sums), the number of evaluations, and total variation, which the paper has "
    "not."
)


class Painted(NamedTuple):
    """A picture with its numbers.

    Attributes:
        result: of `tfstyle.stylize`.
        distances: from the content and the style.
    """

    result: Result
    distances: Distances

    @property
    def image(self) -> np.ndarray:
        """float32 ``[height, width, 3]`` in 0..1."""
        return self.result.image

    @property
    def loss(self) -> float:
        """The lowest of the last scale."""
        last = self.result.history.scale[-1]
        totals = zip(self.result.history.scale, self.result.history.total, strict=True)
        return float(np.nanmin([total for scale, total in totals if scale == last]))

    @property
    def seconds(self) -> float:
        """Of the whole descent, tracing included."""
        return self.result.history.seconds[-1]

    def columns(self) -> dict[str, float]:
        """Of a table."""
        distances = self.distances
        return {
            "content distance": distances.content,
            "style distance": distances.style,
            "seconds": self.seconds,
        }

    def course(self) -> tuple[list[float], list[float]]:
        """Evaluations, and the lowest loss until then of the same scale: a scale's losses begin anew."""
        scales, lowest = self.result.history.scale, list(self.result.history.total)
        for i in range(1, len(lowest)):
            if scales[i] == scales[i - 1]:
                lowest[i] = float(np.fmin(lowest[i], lowest[i - 1]))
        return [float(i) for i in self.result.history.iteration], lowest


@dataclass(frozen=True, eq=False)
class Pair:
    """What is painted.

    Attributes:
        content, style: float32 ``[height, width, 3]`` in 0..1, at their size.
        loaded: the weights.
        content_layers, style_layers: of the losses, unless told otherwise, and of the judge.
        judge: measures every picture.
        words: for a caption: the weights, and which layers they do not reach.
    """

    content: np.ndarray
    style: np.ndarray
    loaded: Weights
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    judge: Judge
    words: str

    @property
    def notes(self) -> str:
        """What holds for all pictures, for a caption."""
        measured = measures(self.content_layers, self.style_layers)
        return f"Every picture is measured alike: {measured}. {OUR_READING} {self.words}"

    def paint(self, iterations: int, changes: Mapping[str, Any]) -> Painted:
        """Run `tfstyle.stylize`.

        Args:
            iterations: evaluations of the loss at each scale.
            changes: options by the names of `StyleConfig`'s fields.

        Raises:
            InputError, RunError: as `tfstyle.stylize`.
        """
        config = StyleConfig(
            size=max(self.content.shape), content_layers=self.content_layers, style_layers=self.style_layers,
            iterations=iterations,
        ).replace(changes)  # fmt: skip
        layers = (*(config.content_layers or ()), *(config.style_layers or ()))
        encoder = vgg(self.loaded, layers, config.precision)
        result = tfstyle.stylize(self.content, self.style, config, encoder=encoder)
        return Painted(result, self.judge(result.image))

    def facts(self, iterations: int) -> dict[str, Any]:
        """What made the pictures."""
        return {
            "weights": self.loaded.source,
            "pooling": "avg",
            "height": self.content.shape[0],
            "width": self.content.shape[1],
            "iterations": iterations,
            "content layers": self.content_layers,
            "style layers": self.style_layers,
        }


def read(
    content: Any,
    style: Any,
    size: int,
    weights: str | Weights,
    content_layers: Sequence[str] = CONTENT_LAYERS,
    style_layers: Sequence[str] = STYLE_LAYERS,
) -> Pair:
    """Read two images and the weights.

    Args:
        content, style: as `tfstyle.stylize` takes them.
        size: longest side in pixels.
        weights: as `tfstyle.weights.load` takes them.
        content_layers, style_layers: where the weights do not reach one, what `tfstyle.stylize` has for such
            weights is put in.

    Raises:
        InputError: an image, the size, the weights or a layer cannot be used.
    """
    loaded = sources.load_weights(weights)
    own = default_layers(loaded)
    kept = _reached(loaded, content_layers, own[0]), _reached(loaded, style_layers, own[1])
    _, missing = there(loaded, (*content_layers, *style_layers, *own[0]))
    put_in = [f"{layer} for the content" for layer in kept[0] if layer not in content_layers]
    put_in += [f"{layer} for the style" for layer in kept[1] if layer not in style_layers]
    instead = f" Instead: {', '.join(put_in)}." if put_in else ""
    photo, painting = read_pair(content, style, size)
    judge = Judge(photo, painting, loaded, *kept)
    words = f"Weights: {loaded.source}; average pooling. {missing}{instead}".strip()
    return Pair(photo, painting, loaded, *kept, judge, words)


def _reached(loaded: Weights, layers: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """The layers that the weights reach; if that is not all of them, with those of their own, bottom up."""
    kept, missing = there(loaded, (*layers, *own))
    return tuple(sorted(kept)) if missing else tuple(dict.fromkeys(layers))
