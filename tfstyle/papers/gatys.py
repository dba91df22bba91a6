"""Transfers of Gatys, Ecker, Bethge 2016: ratios, layers, starts, and photographs, by `tfstyle.stylize`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.config import STYLE_LAYERS
from tfstyle.layers import Layer
from tfstyle.losses import total_variation
from tfstyle.papers.image_pairs import ImagePair, read_image_pair
from tfstyle.papers.study import Curves, Panel, Progress, Study, report_progress
from tfstyle.papers.vgg_encoders import layer_range

#: Decades about the library's default of 0.04.
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

    All images are measured alike, ``Σ (F - P)² / Σ P²`` and ``Σ (G - A)² / Σ A²``, in float32: as the ratio
    grows the first falls and the second rises.

    Args:
        content: image whose forms are kept.
        style: image whose look is taken.
        ratios: α/β, one image for each, separated by commas; the library's default is 0.04.
        size: longest side in pixels.
        iterations: evaluations of the loss at each scale.
        weights: auto, imagenet, embedded, random or a file.
        progress: called with a line when a part is done.

    Raises:
        ConfigError: a ratio that is negative or not finite.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 4, which has four decades, 1e-4 to 1e-1.
    Our reading of it: the ratios, for balanced losses (`tfstyle.losses.balanced_normalization`), and how
    long the descent takes.
    """
    pair = read_image_pair(content, style, size=size, weights=weights)
    panels, table = [*pair.panels()], []
    for ratio in ratios:
        transfer = pair.transfer(iterations, {"content_weight": ratio})
        panels.append(Panel(transfer.image, f"α/β = {ratio:g}", str(transfer.distances)))
        table.append({"α/β": ratio, **transfer.columns()})
        report_progress(progress, panels[-1].title, text=panels[-1].caption)
    columns = {name: [row[f"{name} distance"] for row in table] for name in ("content", "style")}
    diagram = Curves({k: (ratios, c) for k, c in columns.items()}, "the trade-off", "α/β", "distance")
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 4: from left to right content counts for more against style. "
        f"{pair.notes}"
    )
    facts = pair.facts(iterations)
    return Study(
        "Content against style", ((*panels, diagram),), caption=caption, table=tuple(table), facts=facts
    )


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

    Balanced losses weight a content layer by the area that one position stands for. The images by content
    layer have that undone, so that their relative distances ``Σ (F - P)² / Σ P²`` count alike.

    Args:
        content: image whose forms are kept.
        style: image whose look is taken.
        content_layers: one image for each, separated by commas; the deepest is that of the sets below.
        style_layers: bottom up; each row of the grid has one more.
        ratios: α/β, one column of the grid for each; the library's default is 0.04.
        content_weight: α/β of the images by content layer, for the deepest of these.
        size: longest side in pixels.
        iterations: evaluations of the loss at each scale.
        weights: auto, imagenet, embedded, random or a file.
        progress: called with a line when a part is done.

    Raises:
        ConfigError: no such layer, or a ratio that is negative or not finite.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 5, and 2015, Fig. 3, whose columns are four decades, 1e-5 to
    1e-2.
    Our reading of it: the ratios, for balanced losses (`tfstyle.losses.balanced_normalization`), and how
    long the descent takes.
    """
    pair = read_image_pair(
        content,
        style,
        size=size,
        weights=weights,
        content_layers=content_layers,
        style_layers=style_layers,
    )
    first_row = [*pair.panels()]
    table: list[Mapping[str, Any]] = []
    grid: list[list[Panel]] = []
    deepest = max(pair.content_layers)
    for layer in pair.content_layers:
        areas = 4.0 ** (Layer.parse(deepest).block - Layer.parse(layer).block)
        options = {"content_weight": content_weight * areas, "content_layers": (layer,)}
        title = f"content from {layer}"
        first_row.append(
            _layers_panel(pair, iterations, options=options, title=title, table=table, progress=progress)
        )
    for count in range(1, len(pair.style_layers) + 1):
        chosen = {"content_layers": (deepest,), "style_layers": pair.style_layers[:count]}
        name = layer_range(chosen["style_layers"])
        grid.append([])
        for ratio in ratios:
            options = {**chosen, "content_weight": ratio}
            title = f"{name}, α/β = {ratio:g}"
            grid[-1].append(
                _layers_panel(pair, iterations, options=options, title=title, table=table, progress=progress)
            )
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 5: above, content from one layer, relative distances at α/β = "
        f"{content_weight:g}; and 2015, Fig. 3: below, style from nested sets of layers, and from left to "
        f"right more content, from {deepest}. {pair.notes}"
    )
    rows = (tuple(first_row), *map(tuple, grid))
    return Study(
        "Layers of content and of style",
        rows,
        caption=caption,
        table=tuple(table),
        facts=pair.facts(iterations),
    )


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

    An image as the start always leads to the same image; only noise gives as many as one likes.

    Args:
        content: image whose forms are kept.
        style: image whose look is taken.
        seeds: of the noise, one image for each, separated by commas.
        content_weight: α/β; the library's default is 0.04.
        size: longest side in pixels.
        iterations: evaluations of the loss at each scale.
        scales: sizes, coarse to fine; with several, starts differ less.
        weights: auto, imagenet, embedded, random or a file.
        progress: called with a line when a part is done.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 6, and Nikulin, Novak 2016, who vary the start too.
    Our reading of it: the ratio, for balanced losses (`tfstyle.losses.balanced_normalization`), and how
    long the descent takes.
    """
    pair = read_image_pair(content, style, size=size, weights=weights)
    shared = {"content_weight": content_weight, "scales": scales}
    options: dict[str, dict[str, Any]] = {f"from the {kind}": {"init": kind} for kind in ("content", "style")}
    options |= {f"from noise, seed {seed}": {"init": "noise", "seed": seed} for seed in seeds}
    panels, table, curves = [], [], {}
    for name, chosen in options.items():
        transfer = pair.transfer(iterations, {**shared, **chosen})
        panels.append(Panel(transfer.image, name, f"loss {transfer.loss:.3g}\n{transfer.distances}"))
        table.append({"start": name, "loss": transfer.loss, **transfer.columns()})
        curves[name] = transfer.loss_curve()
        report_progress(progress, panels[-1].title, text=panels[-1].caption)
    deviation = np.std([panel.image for panel in panels[2:]], axis=0)
    caption = f"deviation {deviation.mean():.2g}, shown x 4"
    spread = Panel(np.clip(4 * deviation, 0, 1), "where seeds differ", caption)
    first_row: list[Panel | Curves] = [*pair.panels(), *panels[:2]]
    first_row.append(Curves(curves, "lowest loss so far", "evaluations", "loss"))
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 6: the same loss from several starts. Only noise gives more "
        f"than one picture. α/β = {content_weight:g}, {iterations} evaluations. {pair.notes}"
    )
    rows = (tuple(first_row), (*panels[2:], spread))
    return Study(
        "Starts of the descent", rows, caption=caption, table=tuple(table), facts=pair.facts(iterations)
    )


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

    Low-level noise shows most from photograph to photograph, the paper says: one image for each weight of
    the total variation, which takes it away.

    Args:
        content: photograph whose forms are kept.
        style: photograph whose look is taken.
        content_weight: α/β, ten times that for paintings.
        tv_weights: of the total variation, one image for each, separated by commas.
        size: longest side in pixels.
        iterations: evaluations of the loss at each scale.
        weights: auto, imagenet, embedded, random or a file.
        progress: called with a line when a part is done.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 7, at 1e-2 where Fig. 3 has 1e-3.
    Our reading of it: that the ratio is ten times that for paintings.
    """
    pair = read_image_pair(content, style, size=size, weights=weights)
    panels, table = [*pair.panels()], []
    for weight in tv_weights:
        transfer = pair.transfer(iterations, {"content_weight": content_weight, "tv_weight": weight})
        variation = float(total_variation(tf.constant(transfer.image[None])))
        caption = f"{transfer.distances}\nmean squared step {variation:.2g}"
        panels.append(Panel(transfer.image, f"total variation x {weight:g}", caption))
        table.append(
            {"total variation's weight": weight, "mean squared step": variation, **transfer.columns()}
        )
        report_progress(progress, panels[-1].title, text=panels[-1].caption)
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 7: a photograph in the manner of another, from the content, "
        f"at α/β = {content_weight:g}. The more total variation counts, the less noise. {pair.notes}"
    )
    title = "A photograph in the manner of another"
    return Study(title, (tuple(panels),), caption=caption, table=tuple(table), facts=pair.facts(iterations))


def _layers_panel(
    pair: ImagePair,
    iterations: int,
    *,
    options: Mapping[str, Any],
    title: str,
    table: list[Mapping[str, Any]],
    progress: Progress | None,
) -> Panel:
    """Make one image and add a line to the table, with the distance at each content layer."""
    transfer = pair.transfer(iterations, options)
    by_layer = transfer.distances.content_by_layer.items()
    layer_columns = {f"content {layer}": value for layer, value in by_layer}
    table.append({"picture": title, **layer_columns, **transfer.columns()})
    panel = Panel(transfer.image, title, str(transfer.distances))
    report_progress(progress, panel.title, text=panel.caption)
    return panel
