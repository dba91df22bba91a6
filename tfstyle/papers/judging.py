"""Pictures painted and timed, and measured by one common network in float32, whatever made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.config import StyleConfig
from tfstyle.device import choose_device, choose_precision
from tfstyle.errors import ConfigError
from tfstyle.layers import layer_names
from tfstyle.losses import gram_matrix, require_images
from tfstyle.network import Encoder, Weights
from tfstyle.papers.study import Panel
from tfstyle.run import Run, read_inputs


class Painting(NamedTuple):
    """A finished picture.

    Attributes:
        image: float32 ``[height, width, 3]`` in 0..1.
        first, lowest: of what was minimised: the total at the start, and the least.
        seconds: of all iterations, were the first like the others: it is traced, and the smaller the picture
            the more that weighs.
    """

    image: np.ndarray
    first: float
    lowest: float
    seconds: float


def painted(
    content: np.ndarray,
    style: np.ndarray,
    config: StyleConfig,
    encoder: Encoder,
    content_layers: Sequence[str],
    style_layers: Sequence[str],
) -> Painting:
    """Run `tfstyle.stylize` at one size and time it."""
    chosen = {"content_layers": tuple(content_layers), "style_layers": tuple(style_layers), "scales": 1}
    run = Run(content, style, config.replace(chosen), encoder)
    for _ in run:
        pass
    seconds, total = run.history.seconds, run.history.total
    each = (seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1)
    return Painting(run.result().image, total[0], float(np.nanmin(total)), each * len(seconds))


def vgg(loaded: Weights, layers: Sequence[str], precision: str = "float32") -> Encoder:
    """An encoder as `tfstyle.stylize` has it: pooled as its weights were learned, borders mirrored."""
    dtype = choose_precision(precision, choose_device().value).value
    return Encoder(layers, loaded, pooling="avg", padding="reflect", dtype=dtype, network=loaded.network)


class Distances(NamedTuple):
    """How far a picture is from its style and from its content; 0 is there, 1 is as far as nothing at all.

    Attributes:
        styles: layer -> ``Σ (G - A)² / Σ A²``.
        contents: layer -> ``Σ (F - P)² / Σ P²``.
    """

    styles: Mapping[str, float]
    contents: Mapping[str, float]

    def __str__(self) -> str:
        """For a caption."""
        return f"style {self.style:.2g}, content {self.content:.2g}"

    @property
    def style(self) -> float:
        """The mean over layers."""
        return float(np.mean(list(self.styles.values())))

    @property
    def content(self) -> float:
        """The mean over layers."""
        return float(np.mean(list(self.contents.values())))


class Judge:
    """Distances of pictures from a content and a style image.

    Args:
        content: float32 ``[height, width, 3]`` in 0..1; pictures have its size.
        style: the same, of any size.
        loaded: weights of VGG-19 or VGG-16; pooled as they were learned, borders mirrored.
        content_layers, style_layers: which are compared.
    """

    def __init__(
        self,
        content: np.ndarray,
        style: np.ndarray,
        loaded: Weights,
        content_layers: Sequence[str],
        style_layers: Sequence[str],
    ) -> None:
        encoder = vgg(loaded, (*content_layers, *style_layers))

        def seen(image: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
            features = encoder(image)
            grams = {layer: gram_matrix(features[layer]) for layer in style_layers}
            return grams, {layer: features[layer] for layer in content_layers}

        self._seen = tf.function(seen, autograph=False)
        self._style, _ = self._seen(tf.constant(style[None]))
        _, self._content = self._seen(tf.constant(content[None]))

    def __call__(self, image: np.ndarray) -> Distances:
        """Measure a picture, float32 ``[height, width, 3]`` in 0..1."""
        grams, features = self._seen(tf.constant(image[None]))
        return Distances(_relative(grams, self._style), _relative(features, self._content))


def _relative(found: Mapping[str, tf.Tensor], targets: Mapping[str, tf.Tensor]) -> dict[str, float]:
    return {
        layer: float(tf.nn.l2_loss(found[layer] - target) / tf.nn.l2_loss(target))
        for layer, target in targets.items()
    }


def inputs_of(judge: Judge, content: np.ndarray, style: np.ndarray) -> tuple[Panel, Panel]:
    """Both images for a figure."""
    return Panel(content, "content", str(judge(content))), Panel(style, "style")


def measures(content_layers: Sequence[str], style_layers: Sequence[str]) -> str:
    """What `Distances` are, for a caption."""
    return (
        f"style is the mean of Σ(G-A)²/ΣA² over {', '.join(style_layers)}, "
        f"content that of Σ(F-P)²/ΣP² over {', '.join(content_layers)}"
    )


def read_pair(content: Any, style: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Both images at a size, as `tfstyle.stylize` brings them there.

    Args:
        content, style: as `tfstyle.stylize` takes them.
        size: longest side of the content in pixels; neither image is enlarged.

    Returns:
        float32 ``[height, width, 3]`` in 0..1, each.
    """
    inputs = read_inputs(content, style, StyleConfig(size=size))
    (picture,) = require_images(inputs.styles, "an experiment")
    return inputs.content.on_white(), picture.on_white()


def there(loaded: Weights, layers: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Those layers that the weights reach, and words for a caption on those that they do not.

    Raises:
        ConfigError: the network has no such layer, or the weights reach none of them.
    """
    every, reached = layer_names(loaded.network), loaded.layer_names
    if unknown := [layer for layer in layers if layer not in every]:
        raise ConfigError(f"{loaded.network} has no layer {unknown[0]!r}; there are {', '.join(every)}")
    kept = tuple(layer for layer in dict.fromkeys(layers) if layer in reached)
    missing = [layer for layer in layers if layer not in reached]
    if not kept:
        raise ConfigError(f"{loaded.source} stops at {reached[-1]}, below {', '.join(layers)}")
    words = f"Left out, as {loaded.source} stops at {reached[-1]}: {', '.join(missing)}." if missing else ""
    return kept, words


def in_rows(panels: Sequence[Panel], columns: int) -> tuple[tuple[Panel | None, ...], ...]:
    """Rows of so many, the last filled with blanks."""
    filled = (*panels, *[None] * (-len(panels) % columns))
    return tuple(filled[i : i + columns] for i in range(0, len(filled), columns))
