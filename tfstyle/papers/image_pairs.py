"""Style transfers with one content image and one style image, and a common measure of their results."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np

from tfstyle.config import PAPER_CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.losses import require_images
from tfstyle.network import Encoder, Weights, load_weights, paper_layers
from tfstyle.papers.descent import lowest_so_far
from tfstyle.papers.distances import GRAM_LOSSES, DistanceMeasure, Distances, describe_distances
from tfstyle.papers.study import Panel, report_iteration
from tfstyle.papers.vgg_encoders import available_layers, describe_network, network_facts, vgg_encoder
from tfstyle.run import Result, Run, read_inputs, stylize

OUR_READING = (
    "Our reading: the ratios α/β, which are chosen for losses relative to their targets (the paper's ratios "
    "are for normalised weights and sums), the number of iterations, and the total variation, which the "
    "paper does not use."
)


class MeasuredTransfer(NamedTuple):
    """The result of a style transfer and the distances of its image.

    Attributes:
        result: result of `tfstyle.stylize`.
        distances: distances of the result's image from the content image and the style image.
    """

    result: Result
    distances: Distances

    @property
    def image(self) -> np.ndarray:
        """The stylised image, float32 ``[height, width, 3]`` in 0..1."""
        return self.result.image

    @property
    def loss(self) -> float:
        """The lowest loss of the last scale."""
        history = self.result.history
        totals = zip(history.scale, history.total, strict=True)
        return float(np.nanmin([total for scale, total in totals if scale == history.scale[-1]]))

    @property
    def seconds(self) -> float:
        """The duration of all iterations in seconds, including tracing."""
        return self.result.history.seconds[-1]

    def columns(self) -> dict[str, float]:
        """Return the columns of a table: both distances and the seconds."""
        return {
            "content distance": self.distances.content,
            "style distance": self.distances.style,
            "seconds": self.seconds,
        }

    def loss_curve(self) -> tuple[list[float], list[float]]:
        """Return the iterations, and the lowest loss so far within the same scale.

        The losses of different scales cannot be compared, so that each scale begins anew.
        """
        history = self.result.history
        lowest: list[float] = []
        for _, losses in itertools.groupby(
            zip(history.scale, history.total, strict=True), key=lambda scale_and_total: scale_and_total[0]
        ):
            lowest += lowest_so_far([total for _, total in losses])
        return [float(i) for i in history.iteration], lowest


class TimedTransfer(NamedTuple):
    """The result of a timed style transfer.

    Attributes:
        image: float32 ``[height, width, 3]`` in 0..1.
        distances: distances of the image from the content image and the style image.
        first_loss: total loss at the first iteration.
        lowest_loss: lowest total loss.
        seconds: number of iterations times the mean duration of all iterations but the first. The first
            iteration includes tracing, which would dominate the duration for small images.
    """

    image: np.ndarray
    distances: Distances
    first_loss: float
    lowest_loss: float
    seconds: float


@dataclass(frozen=True, eq=False)
class ImagePair:
    """A resized content image and style image, with the weights and layers for their transfers.

    Attributes:
        content: content image, float32 ``[height, width, 3]`` in 0..1.
        style: style image, float32 ``[height, width, 3]`` in 0..1.
        vgg_weights: weights of the encoder.
        content_layers: content layers of the measure, and of the loss unless a transfer changes them.
        style_layers: style layers of the measure, and of the loss unless a transfer changes them.
        measure: function that measures the distances of an image.
        network_note: text for a caption that names the weights, the pooling and the layers that were left
            out.
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
        """The description of the measure and of the network, for a caption."""
        distances = describe_distances(self.content_layers, self.style_layers)
        return f"Below each image: {distances}. {OUR_READING} {self.network_note}"

    def panels(self) -> tuple[Panel, Panel]:
        """Return the panels of both images, for a figure."""
        return Panel(self.content, "content", str(self.measure(self.content))), Panel(self.style, "style")

    def transfer(self, iterations: int, changes: Mapping[str, Any]) -> MeasuredTransfer:
        """Run `tfstyle.stylize` and measure its image.

        Args:
            iterations: number of iterations per scale.
            changes: options that differ from `GRAM_LOSSES` and from the defaults, by the names of the fields
                of `StyleConfig`.

        Returns:
            The result and the distances of its image.

        Raises:
            InputError, RunError: under the conditions of `tfstyle.stylize`.
        """
        config = StyleConfig(
            size=max(self.content.shape),
            content_layers=self.content_layers,
            style_layers=self.style_layers,
            iterations=iterations,
        ).replace({**GRAM_LOSSES, **changes})
        layers = (*(config.content_layers or ()), *(config.style_layers or ()))
        encoder = vgg_encoder(self.vgg_weights, layers, precision=config.precision)
        result = stylize(
            self.content, self.style, config, encoder=encoder,
            callback=lambda step: report_iteration(step.iteration, step.iterations),
        )  # fmt: skip
        return MeasuredTransfer(result, self.measure(result.image))

    def timed_transfer(
        self,
        config: StyleConfig,
        encoder: Encoder,
        *,
        content_layers: Sequence[str],
        style_layers: Sequence[str],
    ) -> TimedTransfer:
        """Run a transfer at one scale, measure its duration and its image.

        Args:
            config: options; the layers and the number of scales are replaced.
            encoder: the network, which must have the layers.
            content_layers: layers of the content loss.
            style_layers: layers of the style loss.

        Returns:
            The image, its distances, its losses and the duration.

        Raises:
            InputError, RunError: under the conditions of `tfstyle.stylize`.
        """
        changes = {
            "content_layers": tuple(content_layers),
            "style_layers": tuple(style_layers),
            "scales": 1,
        }
        run = Run(self.content, self.style, config.replace(changes), encoder=encoder)
        for step in run:
            report_iteration(step.iteration, step.iterations)
        seconds, total = run.history.seconds, run.history.total
        mean_seconds = (seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1)
        image = run.result().image
        lowest = float(np.nanmin(total))
        return TimedTransfer(image, self.measure(image), total[0], lowest, mean_seconds * len(seconds))

    def facts(self, iterations: int) -> dict[str, Any]:
        """Return the weights, sizes, iterations and layers, for the facts of a study."""
        return {
            **network_facts(self.vgg_weights.source),
            "height": self.content.shape[0],
            "width": self.content.shape[1],
            "iterations": iterations,
            "content layers": self.content_layers,
            "style layers": self.style_layers,
        }


def read_images(content: Any, style: Any, *, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Read and resize a content image and a style image as `tfstyle.stylize` does.

    Args:
        content, style: a path, an array, or another form that `tfstyle.stylize` takes.
        size: longest side of the content image in pixels; neither image is enlarged.

    Returns:
        The content image and the style image, each float32 ``[height, width, 3]`` in 0..1.

    Raises:
        InputError: an image or the size is invalid.

    Example:
        >>> import numpy as np
        >>> from tfstyle.papers.image_pairs import read_images
        >>> content, style = read_images(np.zeros((64, 48, 3)), np.ones((40, 40, 3)), size=32)
        >>> content.shape
        (32, 24, 3)
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
    content_layers: Sequence[str] = PAPER_CONTENT_LAYERS,
    style_layers: Sequence[str] = STYLE_LAYERS,
) -> ImagePair:
    """Read two images and the weights, and choose layers that the weights reach.

    Args:
        content, style: a path, an array, or another form that `tfstyle.stylize` takes.
        size: longest side of the content image in pixels; neither image is enlarged.
        weights: a value that `tfstyle.network.load_weights` takes.
        content_layers: content layers. If the weights do not reach all of them, those that are reached are
            used together with those of `paper_layers`.
        style_layers: style layers, with the same replacement.

    Returns:
        The images, the weights, the layers and the measure.

    Raises:
        InputError: an image, the size, the weights or a layer is invalid.
    """
    vgg_weights = load_weights(weights)
    default_content, default_style = paper_layers(vgg_weights)
    used_content = _replace_missing(vgg_weights, content_layers, default_content)
    used_style = _replace_missing(vgg_weights, style_layers, default_style)
    _, left_out = available_layers(vgg_weights, (*content_layers, *style_layers, *default_content))
    replacements = [f"{layer} for the content" for layer in used_content if layer not in content_layers]
    replacements += [f"{layer} for the style" for layer in used_style if layer not in style_layers]
    instead = f" Layers used instead: {', '.join(replacements)}." if replacements else ""
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
    """Return the layers if the weights reach all of them.

    Otherwise, return those that are reached and the default layers, from shallow to deep.
    """
    available, left_out = available_layers(vgg_weights, (*layers, *default))
    return tuple(sorted(available)) if left_out else tuple(dict.fromkeys(layers))
