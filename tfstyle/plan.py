"""What a run will do, worked out before it starts: its scales, its layers and their shares."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from tfstyle.config import CONTENT_LAYERS, EMBEDDED_STYLE_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.encoder import LAYERS_OF
from tfstyle.weights import Weights

log = logging.getLogger(__name__)


def scale_shapes(full: tuple[int, int], minimum: int, config: StyleConfig) -> list[tuple[int, int]]:
    """Height and width of every scale, coarse to fine, each `StyleConfig.scale_factor` times the one before.

    Args:
        full: height and width of the last.
        minimum: scales whose shorter side is below this are left out.
        config: its ``scales``, or by default as many as keep to ``min_scale``.
    """
    side = {"longest": max(full), "shortest": min(full), "area": math.sqrt(full[0] * full[1])}[config.size_of]
    fitting = math.log(max(side / config.min_scale, 1.0)) / math.log(config.scale_factor)
    count = config.scales or math.floor(fitting + 1e-9) + 1
    factors = [config.scale_factor**k for k in reversed(range(count))]
    shapes = [(round(full[0] / f), round(full[1] / f)) for f in factors]
    return [shape for shape in shapes if min(shape) >= minimum]


def iterations_per_scale(config: StyleConfig, scales: int) -> list[int]:
    """Evaluations of the loss at each scale, coarse to fine."""
    first = config.first_iterations or config.iterations
    later = [
        0 if config.iteration_decay is None else int(first / config.iteration_decay**k + 1e-9)
        for k in range(1, scales)
    ]
    return [first, *(max(count, config.iterations) for count in later)]


def default_layers(loaded: Weights) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Content and style layers where none are chosen: the paper's, or what of them the weights reach."""
    there = LAYERS_OF[loaded.network][: len(loaded.convolutions)]
    content = CONTENT_LAYERS if set(CONTENT_LAYERS) <= set(there) else (there[-2:][0],)
    if loaded.source == "embedded":
        return content, EMBEDDED_STYLE_LAYERS
    kept = [layer for layer in STYLE_LAYERS if layer in there]
    return content, STYLE_LAYERS if len(kept) == len(STYLE_LAYERS) else tuple(
        dict.fromkeys([*kept, there[-1]])
    )


def available_layers(config: StyleConfig, loaded: Weights) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Content and style layers, where the weights stop below a default one replaced and said so."""
    content, style = default_layers(loaded)
    replaced = (config.content_layers is None and content != CONTENT_LAYERS) or (
        config.style_layers is None and style != STYLE_LAYERS
    )
    content, style = config.content_layers or content, config.style_layers or style
    if replaced:
        # Whoever chose a file should know; the embedded weights have said already what they are.
        log.log(
            logging.INFO if loaded.source == "embedded" else logging.WARNING,
            "%s stops at %s: style layers %s; content layer %s",
            loaded.source, LAYERS_OF[loaded.network][len(loaded.convolutions) - 1],
            ",".join(style), ",".join(content),
        )  # fmt: skip
    return content, style


def shares(layers: Sequence[str], given: Sequence[float] | None) -> dict[str, float]:
    """Layer -> its share; the shares add up to 1, as Gatys et al. have them."""
    numbers = given or [1.0] * len(layers)
    return {layer: n / sum(numbers) for layer, n in zip(layers, numbers, strict=True)}
