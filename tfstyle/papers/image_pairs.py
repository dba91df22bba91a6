"""Transfers between one content image and one style image, all measured alike."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np

from tfstyle.config import CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.losses import require_images
from tfstyle.network import Encoder, Weights, default_layers, load_weights
from tfstyle.papers.descent import lowest_so_far
from tfstyle.papers.distances import DistanceMeasure, Distances, describe_distances
from tfstyle.papers.study import Panel
from tfstyle.papers.vgg_encoders import available_layers, describe_network, network_facts, vgg_encoder
from tfstyle.run import Result, Run, read_inputs, stylize

OUR_READING = (
    "Our reading of: α/β, for losses relative to what they are compared with (the paper's numbers presuppose "
    "normalised weights and raw sums), the number of evaluations, and total variation, which the paper has "
    "not."
)


class MeasuredTransfer(NamedTuple):
    """The result of a style transfer with its distances.

    Attributes:
        result: of `tfstyle.stylize`.
        distances: of the result's image from the content and the style image.
    """

    result: Result
    distances: Distances

    @property
    def image(self) -> np.ndarray:
        """float32 ``[height, width, 3]`` in 0..1."""
        return self.result.image

    @property
    def loss(self) -> float:
        """The lowest loss of the last scale."""
        history = self.result.history
        totals = zip(history.scale, history.total, strict=True)
        return float(np.nanmin([total for scale, total in totals if scale == history.scale[-1]]))

    @property
    def seconds(self) -> float:
        """Seconds of the whole descent, tracing included."""
        return self.result.history.seconds[-1]

    def columns(self) -> dict[str, float]:
        """Columns of a table: both distances and the seconds."""
        return {
            "content distance": self.distances.content,
            "style distance": self.distances.style,
            "seconds": self.seconds,
        }

    def loss_curve(self) -> tuple[list[float], list[float]]:
        """Evaluations, and the lowest loss until then of the same scale: each scale has losses of its own."""
        history = self.result.history
        lowest: list[float] = []
        for _, evaluations in itertools.groupby(
            zip(history.scale, history.total, strict=True), key=lambda evaluation: evaluation[0]
        ):
            lowest += lowest_so_far([total for _, total in evaluations])
        return [float(i) for i in history.iteration], lowest


class TimedTransfer(NamedTuple):
    """The outcome of a timed style transfer.

    Attributes:
        image: float32 ``[height, width, 3]`` in 0..1.
        distances: of the image from the content and the style image.
        first_loss, lowest_loss: of the totals that were minimised.
        seconds: of all iterations, were the first like the others: that one is traced, and the smaller the
            image the more that weighs.
    """

    image: np.ndarray
    distances: Distances
    first_loss: float
    lowest_loss: float
    seconds: float


@dataclass(frozen=True, eq=False)
class ImagePair:
    """A content and a style image at their size, with the weights and layers of their transfers.

    Attributes:
        content, style: float32 ``[height, width, 3]`` in 0..1.
        vgg_weights: weights of the encoder.
        content_layers, style_layers: of the losses, unless a transfer changes them, and of the measure.
        measure: measures every image.
        network_note: for a caption: the weights, the pooling, and which layers the weights do not reach.
    """

    content: np.ndarray
    style: np.ndarray
    _: KW_ONLY
    vgg_weights: Weights
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    measure: DistanceMeasure
    network_note: str

    @property
    def notes(self) -> str:
        """What holds for all images, for a caption."""
        distances = describe_distances(self.content_layers, self.style_layers)
        return f"Every picture is measured alike: {distances}. {OUR_READING} {self.network_note}"

    def panels(self) -> tuple[Panel, Panel]:
        """Both images for a figure."""
        return Panel(self.content, "content", str(self.measure(self.content))), Panel(self.style, "style")

    def transfer(self, iterations: int, changes: Mapping[str, Any]) -> MeasuredTransfer:
        """Run `tfstyle.stylize` and measure its image.

        Args:
            iterations: evaluations of the loss at each scale.
            changes: options by the names of `StyleConfig`'s fields.

        Raises:
            InputError, RunError: as `tfstyle.stylize`.
        """
        config = StyleConfig(
            size=max(self.content.shape),
            content_layers=self.content_layers,
            style_layers=self.style_layers,
            iterations=iterations,
        ).replace(changes)
        layers = (*(config.content_layers or ()), *(config.style_layers or ()))
        encoder = vgg_encoder(self.vgg_weights, layers, precision=config.precision)
        result = stylize(self.content, self.style, config, encoder=encoder)
        return MeasuredTransfer(result, self.measure(result.image))

    def timed_transfer(
        self,
        config: StyleConfig,
        encoder: Encoder,
        *,
        content_layers: Sequence[str],
        style_layers: Sequence[str],
    ) -> TimedTransfer:
        """Run a transfer at one scale, time it and measure its image."""
        changes = {
            "content_layers": tuple(content_layers),
            "style_layers": tuple(style_layers),
            "scales": 1,
        }
        run = Run(self.content, self.style, config.replace(changes), encoder=encoder)
        for _ in run:
            pass
        seconds, total = run.history.seconds, run.history.total
        mean_seconds = (seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1)
        image = run.result().image
        lowest = float(np.nanmin(total))
        return TimedTransfer(image, self.measure(image), total[0], lowest, mean_seconds * len(seconds))

    def facts(self, iterations: int) -> dict[str, Any]:
        """What made the images."""
        return {
            **network_facts(self.vgg_weights.source),
            "height": self.content.shape[0],
            "width": self.content.shape[1],
            "iterations": iterations,
            "content layers": self.content_layers,
            "style layers": self.style_layers,
        }


def read_images(content: Any, style: Any, *, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Read both images at a size, as `tfstyle.stylize` does.

    Args:
        content, style: as `tfstyle.stylize` takes them.
        size: longest side of the content in pixels; neither image is enlarged.

    Returns:
        float32 ``[height, width, 3]`` in 0..1, each.
    """
    inputs = read_inputs(content, style, StyleConfig(size=size))
    (style_image,) = require_images(inputs.styles, "an experiment")
    return inputs.content.on_white(), style_image.on_white()


def read_image_pair(
    content: Any,
    style: Any,
    *,
    size: int,
    weights: str | Weights,
    content_layers: Sequence[str] = CONTENT_LAYERS,
    style_layers: Sequence[str] = STYLE_LAYERS,
) -> ImagePair:
    """Read two images and the weights.

    Args:
        content, style: as `tfstyle.stylize` takes them.
        size: longest side in pixels.
        weights: as `tfstyle.network.load_weights` takes them.
        content_layers, style_layers: where the weights do not reach one, the default layers of such weights
            are added to those that they reach.

    Raises:
        InputError: an image, the size, the weights or a layer cannot be used.
    """
    vgg_weights = load_weights(weights)
    default_content, default_style = default_layers(vgg_weights)
    used_content = _replace_missing(vgg_weights, content_layers, default_content)
    used_style = _replace_missing(vgg_weights, style_layers, default_style)
    _, left_out = available_layers(vgg_weights, (*content_layers, *style_layers, *default_content))
    replacements = [f"{layer} for the content" for layer in used_content if layer not in content_layers]
    replacements += [f"{layer} for the style" for layer in used_style if layer not in style_layers]
    instead = f" Instead: {', '.join(replacements)}." if replacements else ""
    content_image, style_image = read_images(content, style, size=size)
    measure = DistanceMeasure(
        content_image,
        style_image,
        vgg_weights=vgg_weights,
        content_layers=used_content,
        style_layers=used_style,
    )
    note = f"{describe_network(vgg_weights.source)} {left_out}{instead}".strip()
    return ImagePair(
        content_image,
        style_image,
        vgg_weights=vgg_weights,
        content_layers=used_content,
        style_layers=used_style,
        measure=measure,
        network_note=note,
    )


def _replace_missing(vgg_weights: Weights, layers: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    """Give the layers or, where the weights lack one, the other ones with the default layers, bottom up."""
    available, left_out = available_layers(vgg_weights, (*layers, *default))
    return tuple(sorted(available)) if left_out else tuple(dict.fromkeys(layers))
