"""Style representations other than global Gram matrices: local and cross-layer Gram matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.config import STYLE_LAYERS
from tfstyle.losses import windowed_gram
from tfstyle.network import Weights, load_weights, paper_layers
from tfstyle.papers.distances import describe_distances
from tfstyle.papers.image_pairs import ImagePair, read_image_pair
from tfstyle.papers.study import Panel, Progress, Study, panel_rows, report_progress
from tfstyle.papers.vgg_encoders import available_layers, describe_network, network_facts, vgg_encoder

COLUMNS, GRID = 4, 4
#: Factor of the content weight for local styles. Without it, little of the content is preserved, because the
#: Gram matrices of every window are matched.
LOCAL_CONTENT_FACTOR = 6.0
GEOMETRIC = "all layers, geometric weights"
#: Style representation -> options of its transfer. `GEOMETRIC` uses all layers instead of the paper's five.
REPRESENTATIONS: Mapping[str, Mapping[str, Any]] = {
    "global Gram matrices": {},
    "local, by position": {"style_losses": ("local",)},
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
    content_weight: float = 0.04,
    seed: int = 0,
    progress: Progress | None = None,
) -> Study:
    """Stylise one pair with global, local and cross-layer Gram matrices as the style representation.

    All images are measured by two relative distances ``Σ (G - A)² / Σ A²``. The global style distance
    compares the Gram matrices of the whole images. The windowed style distance compares the Gram matrices of
    4 x 4 windows, each with the window at the same position in the style image.

    Args:
        content: content image.
        style: style image.
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        size: longest side of the images in pixels; smaller images are not enlarged.
        iterations: number of iterations per scale.
        content_weight: weight of the content loss relative to the style loss; local representations use six
            times this weight.
        seed: seed of random weights.
        progress: function that is called with one line of text when an image is done.

    Returns:
        The images with their distances, and a table. The distances of the content image, and of the style
        image with two quarters swapped, are given for comparison.

    Raises:
        ConfigError, ImageError, WeightsError: under the conditions of `tfstyle.stylize`.

    Reference: Nikulin, Novak 2016, arXiv 1602.07188, whose abstract names two further representations of
    style, one of them local and possibly content-aware; Novak, Nikulin 2016, arXiv 1605.04603, for geometric
    weights 2^(D - d) of the d-th of D layers, activation shift, and chained, blurred and inter-layer Gram
    matrices. Our reading: the local representations.
    Differs from Novak and Nikulin: the losses are balanced (`tfstyle.losses.balanced_normalization`).
    """
    vgg_weights = load_weights(weights, seed=seed)
    content_layers, style_layers = paper_layers(vgg_weights)
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
        return {"global style": global_distance(image), "windowed style": local_distance(image)}

    content_numbers = {**style_distances(pair.content), "content": pair.measure(pair.content).content}
    swapped = _swap_quarters(pair.style)
    swapped_numbers = style_distances(swapped)
    first_row = [
        Panel(pair.content, "content", _describe_numbers(content_numbers)),
        Panel(pair.style, "style"),
        Panel(swapped, "style image, two quarters swapped", _describe_numbers(swapped_numbers)),
    ]
    table: list[Mapping[str, Any]] = [
        {"representation": "content image", **content_numbers},
        {"representation": "style image, two quarters swapped", **swapped_numbers},
    ]
    panels = []
    for name in REPRESENTATIONS:
        changes = _representation_options(name, vgg_weights, content_weight=content_weight)
        transfer = pair.transfer(iterations, changes)
        numbers = {**style_distances(transfer.image), "content": transfer.distances.content}
        panels.append(Panel(transfer.image, name, _describe_numbers(numbers)))
        table.append({"representation": name, **numbers})
        report_progress(progress, name, text=panels[-1].caption)
    facts = network_facts(vgg_weights.source, size=size, iterations=iterations, content_weight=content_weight)
    title = f"Local and cross-layer Gram matrices as style representations, {size} px"
    return Study(
        title,
        (tuple(first_row), *panel_rows(panels, COLUMNS)),
        caption=_caption(pair),
        table=tuple(table),
        facts=facts,
    )


def _representation_options(name: str, vgg_weights: Weights, *, content_weight: float) -> dict[str, Any]:
    """Return the options for one of `REPRESENTATIONS`."""
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
        "Our reading of Nikulin & Novak (2016) and Novak & Nikulin (2016): style representations other than "
        "global Gram matrices. Below each image: "
        f"{describe_distances(pair.content_layers, pair.style_layers)}. The global style distance is that of "
        f"the whole image. The windowed style distance is that of {GRID} x {GRID} windows, each compared "
        "with the window at the same position in the style image. Swapping two quarters of the style image "
        "changes the windowed distance far more than the global distance. The two local representations, "
        f"which preserve less of the content, have {LOCAL_CONTENT_FACTOR:g} times the content weight of the "
        f"others. The geometric weights are 2^(D-d) for the d-th of D = {depth} layers. "
        f"{describe_network(vgg_weights.source)} {left_out}"
    ).strip()


def _geometric_weights(vgg_weights: Weights) -> dict[str, Any]:
    """Return options with all layers of the weights, each with half the weight of the layer below it."""
    layers = vgg_weights.layer_names
    layer_weights = tuple(2.0 ** (len(layers) - d) for d in range(1, len(layers) + 1))
    return {"style_layers": layers, "style_layer_weights": layer_weights}


def _make_windowed_distance(pair: ImagePair, grid: int) -> Callable[[np.ndarray], float]:
    """Return a function that measures the windowed style distance of an image.

    The distance is the mean of ``Σ (G - A)² / Σ A²`` over the style layers, with sums over all windows of a
    ``grid x grid`` grid.
    """
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
    """Return the image with its upper left and its lower right quarter exchanged."""
    h, w = image.shape[0] // 2, image.shape[1] // 2
    swapped = image.copy()
    swapped[:h, :w], swapped[-h:, -w:] = image[-h:, -w:], image[:h, :w]
    return swapped


def _describe_numbers(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number:.2g}" for name, number in numbers.items())
