"""Transfers of Gatys, Ecker, Bethge 2016: ratios, layers, starts, and photographs, by `tfstyle.stylize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.config import STYLE_LAYERS
from tfstyle.layers import Layer
from tfstyle.losses import total_variation
from tfstyle.papers.judging import inputs_of
from tfstyle.papers.pairs import Pair, read
from tfstyle.papers.study import Curves, Panel, Progress, Study

#: Decades about the library's own 0.04.
RATIOS = (4e-3, 4e-2, 4e-1, 4.0)


def tradeoff(
    content: Any,
    style: Any,
    *,
    ratios: tuple[float, ...] = RATIOS,
    size: int = 256,
    iterations: int = 100,
    weights: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """Content against style: the same pair with one ratio after the other.

    All pictures are measured alike, ``Σ (F - P)² / Σ P²`` and ``Σ (G - A)² / Σ A²``, in float32: as the ratio
    grows the first falls and the second rises.

    Args:
        content: image whose forms are kept.
        style: image whose look is taken.
        ratios: α/β, one picture for each, separated by commas; the library's own is 0.04.
        size: longest side in pixels.
        iterations: evaluations of the loss at each scale.
        weights: auto, imagenet, embedded, random or a file.
        progress: called with a line when a part is done.

    Raises:
        ConfigError: a ratio that is negative or not finite.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 4, which has four decades, 1e-4 to 1e-1.
    Our reading of it: the ratios, in balanced units (`tfstyle.units`), and how long the descent takes.
    """
    pair = read(content, style, size, weights)
    panels, table = [*inputs_of(pair.judge, pair.content, pair.style)], []
    for ratio in ratios:
        painted = pair.paint(iterations, {"content_weight": ratio})
        panels.append(Panel(painted.image, f"α/β = {ratio:g}", str(painted.distances)))
        table.append({"α/β": ratio, **painted.columns()})
        _tell(progress, panels[-1])
    columns = {name: [row[f"{name} distance"] for row in table] for name in ("content", "style")}
    diagram = Curves({k: (ratios, c) for k, c in columns.items()}, "the trade-off", "α/β", "distance")
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 4: from left to right content counts for more against style. "
        f"{pair.notes}"
    )
    facts = pair.facts(iterations)
    return Study("Content against style", ((*panels, diagram),), caption, tuple(table), facts)


def layers(
    content: Any,
    style: Any,
    *,
    content_layers: tuple[str, ...] = ("conv2_2", "conv4_2"),
    style_layers: tuple[str, ...] = STYLE_LAYERS,
    ratios: tuple[float, ...] = RATIOS,
    content_weight: float = 0.04,
    size: int = 192,
    iterations: int = 80,
    weights: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """Content from a shallow layer and from a deep one; style from nested sets of layers, by ratio.

    Balanced units count a content layer by the area that one position stands for. The pictures by content
    layer have that undone, so that their relative distances ``Σ (F - P)² / Σ P²`` count alike.

    Args:
        content: image whose forms are kept.
        style: image whose look is taken.
        content_layers: one picture for each, separated by commas; the deepest is that of the sets below.
        style_layers: bottom up; each row of the grid has one more.
        ratios: α/β, one column of the grid for each; the library's own is 0.04.
        content_weight: α/β of the pictures by content layer, for the deepest of these.
        size: longest side in pixels.
        iterations: evaluations of the loss at each scale.
        weights: auto, imagenet, embedded, random or a file.
        progress: called with a line when a part is done.

    Raises:
        ConfigError: no such layer, or a ratio that is negative or not finite.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 5, and 2015, Fig. 3, whose columns are four decades, 1e-5 to
    1e-2.
    Our reading of it: the ratios, in balanced units (`tfstyle.units`), and how long the descent takes.
    """
    pair = read(content, style, size, weights, content_layers, style_layers)
    top = [*inputs_of(pair.judge, pair.content, pair.style)]
    table: list[Mapping[str, Any]] = []
    grid: list[list[Panel]] = []
    deepest = max(pair.content_layers)
    for layer in pair.content_layers:
        areas = 4.0 ** (Layer.parse(deepest).block - Layer.parse(layer).block)
        options = {"content_weight": content_weight * areas, "content_layers": (layer,)}
        top.append(_of_layers(pair, iterations, options, f"content from {layer}", table, progress))
    for count in range(1, len(pair.style_layers) + 1):
        chosen = {"content_layers": (deepest,), "style_layers": pair.style_layers[:count]}
        name = _nested(chosen["style_layers"])
        grid.append([])
        for ratio in ratios:
            options = {**chosen, "content_weight": ratio}
            title = f"{name}, α/β = {ratio:g}"
            grid[-1].append(_of_layers(pair, iterations, options, title, table, progress))
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 5: above, content from one layer, relative distances at α/β = "
        f"{content_weight:g}; and 2015, Fig. 3: below, style from nested sets of layers, and from left to "
        f"right more content, from {deepest}. {pair.notes}"
    )
    rows = (tuple(top), *map(tuple, grid))
    return Study("Layers of content and of style", rows, caption, tuple(table), pair.facts(iterations))


def starts(
    content: Any,
    style: Any,
    *,
    seeds: tuple[int, ...] = (0, 1, 2, 3),
    content_weight: float = 0.04,
    size: int = 256,
    iterations: int = 200,
    scales: int = 1,
    weights: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """The descent from the content, from the style, and from white noise of several seeds.

    An image as the start always leads to the same picture; only noise gives as many as one likes.

    Args:
        content: image whose forms are kept.
        style: image whose look is taken.
        seeds: of the noise, one picture for each, separated by commas.
        content_weight: α/β; the library's own is 0.04.
        size: longest side in pixels.
        iterations: evaluations of the loss at each scale.
        scales: sizes, coarse to fine; with several, starts differ less.
        weights: auto, imagenet, embedded, random or a file.
        progress: called with a line when a part is done.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 6, and Nikulin, Novak 2016, who vary the start too.
    Our reading of it: the ratio, in balanced units (`tfstyle.units`), and how long the descent takes.
    """
    pair = read(content, style, size, weights)
    shared = {"content_weight": content_weight, "scales": scales}
    options: dict[str, dict[str, Any]] = {f"from the {kind}": {"init": kind} for kind in ("content", "style")}
    options |= {f"from noise, seed {seed}": {"init": "noise", "seed": seed} for seed in seeds}
    panels, table, curves = [], [], {}
    for name, chosen in options.items():
        painted = pair.paint(iterations, {**shared, **chosen})
        panels.append(Panel(painted.image, name, f"loss {painted.loss:.3g}\n{painted.distances}"))
        table.append({"start": name, "loss": painted.loss, **painted.columns()})
        curves[name] = painted.course()
        _tell(progress, panels[-1])
    apart = np.std([panel.image for panel in panels[2:]], axis=0)
    spread = Panel(np.clip(4 * apart, 0, 1), "where seeds differ", f"deviation {apart.mean():.2g}, shown x 4")
    above: list[Panel | Curves] = [*inputs_of(pair.judge, pair.content, pair.style), *panels[:2]]
    above.append(Curves(curves, "lowest loss so far", "evaluations", "loss"))
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 6: the same loss from several starts. Only noise gives more "
        f"than one picture. α/β = {content_weight:g}, {iterations} evaluations. {pair.notes}"
    )
    rows = (tuple(above), (*panels[2:], spread))
    return Study("Starts of the descent", rows, caption, tuple(table), pair.facts(iterations))


def photo(
    content: Any,
    style: Any,
    *,
    content_weight: float = 0.4,
    tv_weights: tuple[float, ...] = (0.0, 0.3, 1.0),
    size: int = 256,
    iterations: int = 100,
    weights: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """One photograph in the manner of another, from the content, with more of the content than for paintings.

    Low-level noise shows most from photograph to photograph, the paper says: one picture for each weight of
    the total variation, which takes it away.

    Args:
        content: photograph whose forms are kept.
        style: photograph whose look is taken.
        content_weight: α/β, ten times that for paintings.
        tv_weights: of the total variation, one picture for each, separated by commas.
        size: longest side in pixels.
        iterations: evaluations of the loss at each scale.
        weights: auto, imagenet, embedded, random or a file.
        progress: called with a line when a part is done.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 7, at 1e-2 where Fig. 3 has 1e-3.
    Our reading of it: that the ratio is ten times that for paintings.
    """
    pair = read(content, style, size, weights)
    panels, table = [*inputs_of(pair.judge, pair.content, pair.style)], []
    for weight in tv_weights:
        painted = pair.paint(iterations, {"content_weight": content_weight, "tv_weight": weight})
        rough = float(total_variation(tf.constant(painted.image[None])))
        caption = f"{painted.distances}\nmean squared step {rough:.2g}"
        panels.append(Panel(painted.image, f"total variation x {weight:g}", caption))
        table.append({"total variation's weight": weight, "mean squared step": rough, **painted.columns()})
        _tell(progress, panels[-1])
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 7: a photograph in the manner of another, from the content, "
        f"at α/β = {content_weight:g}. The more total variation counts, the less noise. {pair.notes}"
    )
    title = "A photograph in the manner of another"
    return Study(title, (tuple(panels),), caption, tuple(table), pair.facts(iterations))


def _of_layers(
    pair: Pair,
    iterations: int,
    options: Mapping[str, Any],
    title: str,
    table: list[Mapping[str, Any]],
    progress: Progress | None,
) -> Panel:
    """Paint one picture and add a line to the table, with the distance at each content layer."""
    painted = pair.paint(iterations, options)
    each = {f"content {layer}": value for layer, value in painted.distances.contents.items()}
    table.append({"picture": title, **each, **painted.columns()})
    panel = Panel(painted.image, title, str(painted.distances))
    _tell(progress, panel)
    return panel


def _nested(layers: Sequence[str]) -> str:
    return layers[0] if len(layers) == 1 else f"{layers[0]} .. {layers[-1]}"


def _tell(progress: Progress | None, panel: Panel) -> None:
    if progress is not None:
        progress(f"{panel.title}: {panel.caption}".replace("\n", ", "))
