"""Styles beyond the global Gram matrix: by place, by content, and across layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.config import STYLE_LAYERS, StyleConfig
from tfstyle.losses import windowed_gram
from tfstyle.network import Weights, default_layers, load_weights
from tfstyle.papers.distances import describe_distances
from tfstyle.papers.image_pairs import ImagePair, read_image_pair
from tfstyle.papers.study import Panel, Progress, Study, panel_rows, report_progress
from tfstyle.papers.vgg_encoders import available_layers, describe_network, network_facts, vgg_encoder

COLUMNS, GRID = 4, 4
#: Factor of the content weight for local styles: without it little of the content is left, as each window's
#: matrices are matched.
LOCAL_CONTENT_FACTOR = 6.0
GEOMETRIC = "all layers, geometric weights"
#: What the figure shows -> the options that make it; `GEOMETRIC` has all layers in place of the paper's five.
REPRESENTATIONS: Mapping[str, Mapping[str, Any]] = {
    "global Gram matrix": {},
    "local, by place": {"style_losses": ("local",)},
    "local, by content": {"style_losses": ("local_by_content",)},
    "activation shift": {"style_losses": ("shift",), "normalize_weights": True},
    "chain of layers": {"style_losses": ("chain",)},
    "blurred chain": {"style_losses": ("blurred",)},
    "every pair of layers": {"style_losses": ("across",)},
    GEOMETRIC: {},
}


def local(
    content: Any,
    style: Any,
    *,
    weights: str = "auto",
    size: int = 320,
    iterations: int = 80,
    content_weight: float = StyleConfig.content_weight,
    seed: int = 0,
    progress: Progress | None = None,
) -> Study:
    """One pair by each way to describe a style: global, by place, by content, and across layers.

    All images are measured alike, by Gram matrices relative to the style's, ``Σ (G - A)² / Σ A²``: of the
    whole image, and as a mean over windows, each compared with that at its place in the style.

    Args:
        content: content image.
        style: style image.
        weights: as `tfstyle.network.load_weights` takes them.
        size: longest side of the images in pixels.
        iterations: evaluations of the loss per scale.
        content_weight: weight of the content loss.
        seed: of weights, where they are random.
        progress: called after each image.

    Raises:
        ConfigError, ImageError, WeightsError: as `tfstyle.stylize`.

    Reference: our reading of Nikulin, Novak 2016, arXiv 1602.07188 (two further representations of style, one
    local and possibly content-aware), and of Novak, Nikulin 2016, arXiv 1605.04603: geometric weights
    2^(D - d) for the d-th of D layers, activation shift, chained, blurred and inter-layer Gram matrices. The
    losses are balanced here (`tfstyle.losses.balanced_normalization`), unlike in the paper.
    """
    vgg_weights = load_weights(weights, seed=seed)
    content_layers, style_layers = default_layers(vgg_weights)
    pair = read_image_pair(
        content,
        style,
        size=size,
        weights=vgg_weights,
        content_layers=content_layers,
        style_layers=style_layers,
    )
    global_distance, local_distance = (_make_windowed_distance(pair, grid) for grid in (1, GRID))

    def style_distances(image: np.ndarray) -> dict[str, float]:
        return {"global": global_distance(image), "by place": local_distance(image)}

    content_numbers = {**style_distances(pair.content), "content": pair.measure(pair.content).content}
    swapped = _swap_quarters(pair.style)
    swapped_numbers = style_distances(swapped)
    first_row = [
        Panel(pair.content, "content", _describe_numbers(content_numbers)),
        Panel(pair.style, "style"),
        Panel(swapped, "style, two quarters swapped", _describe_numbers(swapped_numbers)),
    ]
    table: list[Mapping[str, Any]] = [
        {"style as": "the content itself", **content_numbers},
        {"style as": "the style, two quarters swapped", **swapped_numbers},
    ]
    panels = []
    for name in REPRESENTATIONS:
        changes = _representation_options(name, vgg_weights, content_weight=content_weight)
        transfer = pair.transfer(iterations, changes)
        numbers = {**style_distances(transfer.image), "content": transfer.distances.content}
        panels.append(Panel(transfer.image, name, _describe_numbers(numbers)))
        table.append({"style as": name, **numbers})
        report_progress(progress, name, text=panels[-1].caption)
    facts = network_facts(vgg_weights.source, size=size, iterations=iterations, content_weight=content_weight)
    title = f"Beyond the global Gram matrix, {size} px"
    return Study(
        title,
        (tuple(first_row), *panel_rows(panels, COLUMNS)),
        caption=_caption(pair),
        table=tuple(table),
        facts=facts,
    )


def _representation_options(name: str, vgg_weights: Weights, *, content_weight: float) -> dict[str, Any]:
    """Give the options of one of `REPRESENTATIONS`."""
    options = {"content_weight": content_weight, **REPRESENTATIONS[name]}
    if name == GEOMETRIC:
        options |= _geometric_weights(vgg_weights)
    if name.startswith("local"):
        options["content_weight"] = LOCAL_CONTENT_FACTOR * content_weight
    return options


def _caption(pair: ImagePair) -> str:
    vgg_weights = pair.vgg_weights
    depth = len(_geometric_weights(vgg_weights)["style_layers"])
    left_out = "" if vgg_weights.source == "embedded" else available_layers(vgg_weights, STYLE_LAYERS)[1]
    return (
        "Our reading of Nikulin & Novak (2016) and Novak & Nikulin (2016): representations of a style beside "
        f"its global Gram matrices. {describe_distances(pair.content_layers, pair.style_layers)}; "
        f"'by place' is that of {GRID} x {GRID} windows, each compared with the one at its place in the "
        "style. Two quarters of the style swapped change the latter far more than the former. The two "
        "local ones, which bind tighter, "
        f"have {LOCAL_CONTENT_FACTOR:g} times the content weight of the others. Geometric weights: 2^(D-d) "
        f"for the d-th of D = {depth} layers. {describe_network(vgg_weights.source)} {left_out}"
    ).strip()


def _geometric_weights(vgg_weights: Weights) -> dict[str, Any]:
    """Give all layers that the weights reach, each with half the weight of the one below it."""
    layers = vgg_weights.layer_names
    layer_weights = tuple(2.0 ** (len(layers) - d) for d in range(1, len(layers) + 1))
    return {"style_layers": layers, "style_layer_weights": layer_weights}


def _make_windowed_distance(pair: ImagePair, grid: int) -> Callable[[np.ndarray], float]:
    """Make a function that measures an image against the style, window by window, as a mean over layers."""
    layers = pair.style_layers
    encoder, loss = vgg_encoder(pair.vgg_weights, layers), windowed_gram(grid)
    targets = {layer: loss.summary(f, None) for layer, f in encoder(pair.style[None]).items()}
    zero_distances = {
        layer: loss.distance(tf.nest.map_structure(tf.zeros_like, target), target)
        for layer, target in targets.items()
    }

    def measure(image: np.ndarray) -> float:
        features = encoder(image[None])
        relative_distances = [
            loss.distance(loss.summary(features[layer], None), targets[layer]) / zero_distances[layer]
            for layer in layers
        ]
        return float(np.mean(relative_distances))

    return measure


def _swap_quarters(image: np.ndarray) -> np.ndarray:
    """Exchange the upper left quarter and the lower right one."""
    h, w = image.shape[0] // 2, image.shape[1] // 2
    swapped = image.copy()
    swapped[:h, :w], swapped[-h:, -w:] = image[-h:, -w:], image[:h, :w]
    return swapped


def _describe_numbers(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number:.2g}" for name, number in numbers.items())
