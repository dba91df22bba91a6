"""Styles beyond the global Gram matrix: kept in their places, and across layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

import tfstyle
from tfstyle.config import STYLE_LAYERS, StyleConfig
from tfstyle.losses import windowed_gram
from tfstyle.network import Weights, default_layers
from tfstyle.network import weights as sources
from tfstyle.papers.judging import Judge, measures, read_pair, there, vgg
from tfstyle.papers.study import Panel, Progress, Study

COLUMNS, GRID = 4, 4
LOCAL_CONTENT = 6.0  # without it little of the content is left: each window's matrices bind
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

    All pictures are measured alike, by Gram matrices relative to the style's, ``Σ (G - A)² / Σ A²``: of the
    whole picture, and as a mean over windows, each compared with that at its place in the style.

    Args:
        content: the picture to paint.
        style: the painting.
        weights: as `tfstyle.weights.load` takes them.
        size: longest side of the pictures in pixels.
        iterations: evaluations of the loss per scale.
        content_weight: weight of the content loss.
        seed: of weights, where they are random.
        progress: called after each picture.

    Raises:
        ConfigError, ImageError, WeightsError: as `tfstyle.stylize`.

    Reference: our reading of Nikulin, Novak 2016, arXiv 1602.07188 (two further representations of style, one
    local and possibly content-aware), and of Novak, Nikulin 2016, arXiv 1605.04603: geometric weights
    2^(D - d) for the d-th of D layers, activation shift, chained, blurred and inter-layer Gram matrices. The
    losses are in balanced units here, not in the paper's.
    """
    loaded = sources.load_weights(weights, seed)
    content_layers, style_layers = default_layers(loaded)
    before, painting = read_pair(content, style, size)
    judge = Judge(before, painting, loaded, content_layers, style_layers)
    whole, by_place = (_distance(loaded, style_layers, painting, grid) for grid in (1, GRID))

    def styles(image: np.ndarray) -> dict[str, float]:
        return {"global": whole(image), "by place": by_place(image)}

    def all_of(image: np.ndarray) -> dict[str, float]:
        return {**styles(image), "content": judge(image).content}

    swapped = _quarters_swapped(painting)
    panels = [
        Panel(before, "content", _words(all_of(before))),
        Panel(painting, "style"),
        Panel(swapped, "style, two quarters swapped", _words(styles(swapped))),
    ]
    table: list[Mapping[str, Any]] = [
        {"style as": "the content itself", **all_of(before)},
        {"style as": "the style, two quarters swapped", **styles(swapped)},
    ]
    config = StyleConfig(size=size, iterations=iterations, content_weight=content_weight)
    for name in REPRESENTATIONS:
        image = _painted(name, content, style, config, loaded)
        numbers = all_of(image)
        panels.append(Panel(image, name, _words(numbers)))
        table.append({"style as": name, **numbers})
        if progress is not None:
            progress(f"{name}: {_words(numbers)}")
    rows = [panels[:3], *(panels[i : i + COLUMNS] for i in range(3, len(panels), COLUMNS))]
    facts = {
        "weights": loaded.source, "size": size, "iterations": iterations, "content_weight": content_weight,
    }  # fmt: skip
    caption = _caption(loaded, content_layers, style_layers)
    title = f"Beyond the global Gram matrix, {size} px"
    return Study(title, tuple(map(tuple, rows)), caption, tuple(table), facts)


def _painted(name: str, content: Any, style: Any, config: StyleConfig, loaded: Weights) -> np.ndarray:
    """The pair by one of `REPRESENTATIONS`."""
    content_layers, style_layers = default_layers(loaded)
    chosen = {"style_layers": style_layers, "content_layers": content_layers, **REPRESENTATIONS[name]}
    if name == GEOMETRIC:
        chosen |= _geometric(loaded)
    if name.startswith("local"):
        chosen["content_weight"] = LOCAL_CONTENT * config.content_weight
    encoder = vgg(loaded, (*content_layers, *chosen["style_layers"]), config.precision)
    return tfstyle.stylize(content, style, config.replace(chosen), encoder=encoder).image


def _caption(loaded: Weights, content_layers: tuple[str, ...], style_layers: tuple[str, ...]) -> str:
    depth = len(_geometric(loaded)["style_layers"])
    left_out = "" if loaded.source == "embedded" else there(loaded, STYLE_LAYERS)[1]
    return (
        "Our reading of Nikulin & Novak (2016) and Novak & Nikulin (2016): representations of a style beside "
        f"its global Gram matrices. {measures(content_layers, style_layers)}; 'by place' is that of "
        f"{GRID} x {GRID} windows, each compared with the one at its place in the style. Two quarters of the "
        "style swapped change the latter far more than the former. The two local ones, which bind tighter, "
        f"have {LOCAL_CONTENT:g} times the content weight of the others. Geometric weights: 2^(D-d) for the "
        f"d-th of D = {depth} layers. {left_out}"
    ).strip()


def _geometric(loaded: Weights) -> dict[str, Any]:
    """All layers that the weights reach, each weighing half of that below it."""
    layers = loaded.layer_names
    shares = tuple(2.0 ** (len(layers) - d) for d in range(1, len(layers) + 1))
    return {"style_layers": layers, "style_layer_weights": shares}


def _distance(
    loaded: Weights, layers: tuple[str, ...], painting: np.ndarray, grid: int
) -> Callable[[np.ndarray], float]:
    """A function that measures a picture against the painting, window by window, as a mean over layers."""
    encoder, loss = vgg(loaded, layers), windowed_gram(grid)
    goal = {layer: loss.summary(f, None) for layer, f in encoder(painting[None]).items()}
    nothing = {x: loss.distance(tf.nest.map_structure(tf.zeros_like, goal[x]), goal[x]) for x in layers}

    def measure(image: np.ndarray) -> float:
        found = encoder(image[None])
        terms = [loss.distance(loss.summary(found[x], None), goal[x]) / nothing[x] for x in layers]
        return float(np.mean(terms))

    return measure


def _quarters_swapped(image: np.ndarray) -> np.ndarray:
    """The upper left quarter and the lower right one change places."""
    h, w = image.shape[0] // 2, image.shape[1] // 2
    swapped = image.copy()
    swapped[:h, :w], swapped[-h:, -w:] = image[-h:, -w:], image[:h, :w]
    return swapped


def _words(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number:.2g}" for name, number in numbers.items())
