"""What a run pulls towards at each scale: of the content and the styles, whole or in tiles."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfstyle.config import StyleConfig
from tfstyle.encoder import LAYERS_OF
from tfstyle.guidance import layer_weights, resize_mask
from tfstyle.images import Picture
from tfstyle.inputs import Inputs, style_side
from tfstyle.preparation import Preparation, as_graph, layer_shapes
from tfstyle.scales import Layout
from tfstyle.styles import Style
from tfstyle.targets import Summaries, Targets

#: `StyleConfig.color` in which the styles stay as they are.
OWN_COLORS = ("style", "after", "original")


class Goals:
    """The targets of a run, made of its inputs for one scale after another.

    Args:
        config: of the run.
        inputs: at the size of the last scale.
        preparation: of the run.
        full: height and width of the last scale.
    """

    def __init__(
        self, config: StyleConfig, inputs: Inputs, preparation: Preparation, full: tuple[int, int]
    ) -> None:
        self._config, self._inputs, self._preparation, self._full = config, inputs, preparation, full

    def style_shapes(self, shape: tuple[int, int]) -> list[tuple[int, int]]:
        """About the height and width of each style image at a scale."""
        factor = max(shape) / max(self._full)
        pictures = [style.rgb.shape for style in self._inputs.styles if not isinstance(style, Style)]
        return [(round(factor * height), round(factor * width)) for height, width, _ in pictures]

    def targets(self, shape: tuple[int, int], layout: Layout) -> Targets:
        """Of the content at this scale, and of the styles shrunk by the same factor."""
        factor = max(shape) / max(self._full)
        styles = [self._style_summary(i, factor, layout) for i in range(len(self._inputs.styles))]
        regions, keep = self._inputs.guided(self._config, shape, self._layer_weights)
        content, blend = self._inputs.content.resized(shape).rgb[None], self._config.style_blend
        if layout.side is not None:
            return self._preparation.tiled(layout.side).targets(content, styles, blend, regions, keep)
        image, objective = tf.constant(content), self._preparation.objective
        return as_graph(lambda: objective.targets(image, styles, blend, regions, keep))

    def _style_summary(self, index: int, factor: float, layout: Layout) -> Summaries:
        style, region = self._inputs.styles[index], self._inputs.style_regions[index]
        if isinstance(style, Style):
            size, _ = style_side(self._inputs.content, index, self._config)
            longest = size if self._config.enlarge or not style.original else min(size, style.original)
            return {layer: (tf.constant(gram[None]),) for layer, gram in style.at(factor * longest).items()}
        small = style.shrunk(factor, self._preparation.encoder.minimum_size)
        if region is not None:
            mask, name = resize_mask(region, small.rgb.shape[:2]), f"style mask {index + 1}"
            return self._encoded(small, self._layer_weights(mask, name), layout)
        if self._config.color not in OWN_COLORS:  # in the content's: another for each content
            return self._encoded(small, {}, layout)
        known, key = self._preparation.summaries, (index, small.rgb.shape, layout.style_side)
        if key not in known:
            known[key] = self._encoded(small, {}, layout)
        return known[key]

    def _encoded(self, style: Picture, weights: dict[str, tf.Tensor], layout: Layout) -> Summaries:
        if layout.style_side is not None:
            tiled = self._preparation.tiled(layout.style_side)
            return tiled.style_summary(style.on_white()[None], weights)
        image = tf.constant(style.on_white()[None])
        return as_graph(lambda: self._preparation.objective.style_summary(image, weights))

    def _layer_weights(self, mask: np.ndarray, name: str) -> dict[str, tf.Tensor]:
        shapes = layer_shapes(self._preparation.encoder, mask.shape[:2], self._preparation.style_layers)
        network = LAYERS_OF.get(self._preparation.encoder.network, ())
        return layer_weights(mask, shapes, self._config.guidance, name, network)
