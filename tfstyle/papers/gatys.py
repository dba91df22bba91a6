"""The style transfers of Gatys, Ecker, Bethge 2016, by `tfstyle.stylize`.

The experiments vary the ratio of the weights, the layers, the start, and use a photograph as the style image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.config import STYLE_LAYERS
from tfstyle.losses import total_variation
from tfstyle.papers.image_pairs import ImagePair, read_image_pair
from tfstyle.papers.study import Curves, Panel, Progress, Study, report_progress
from tfstyle.papers.vgg_encoders import layer_range

#: Ratios α/β, a factor of 10 apart.
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
    """Stylise one pair of images with several ratios of content weight to style weight.

    The content distance ``Σ (F - P)² / Σ P²`` and the style distance ``Σ (G - A)² / Σ A²`` of every image are
    measured in float32. As the ratio grows, the content distance falls and the style distance rises.

    Args:
        content: content image.
        style: style image.
        ratios: ratios α/β of content weight to style weight, separated by commas; one image is made for each.
        size: longest side of the images in pixels; smaller images are not enlarged.
        iterations: number of iterations per scale.
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        progress: function that is called with one line of text when an image is done.

    Returns:
        The images with their distances, a diagram of both distances against the ratio, and a table.

    Raises:
        ConfigError: a ratio is negative or not finite.
        ImageError, WeightsError: an image or the weights cannot be read.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 4, which has the ratios 1e-4, 1e-3, 1e-2 and 1e-1.
    Our reading: the ratios, which are chosen for balanced losses (`tfstyle.losses.balanced_normalization`),
    and the number of iterations.
    """
    pair = read_image_pair(content, style, size=size, weights=weights)
    panels, table = [*pair.panels()], []
    for ratio in ratios:
        transfer = pair.transfer(iterations, {"content_weight": ratio})
        panels.append(Panel(transfer.image, f"α/β = {ratio:g}", str(transfer.distances)))
        table.append({"α/β": ratio, **transfer.columns()})
        report_progress(progress, panels[-1].title, text=panels[-1].caption)
    columns = {name: [row[f"{name} distance"] for row in table] for name in ("content", "style")}
    diagram = Curves({k: (ratios, c) for k, c in columns.items()}, "distances by ratio", "α/β", "distance")
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 4: the ratio α/β of content weight to style weight grows from "
        f"left to right. {pair.notes}"
    )
    facts = pair.facts(iterations)
    return Study(
        "Ratio of content weight to style weight",
        ((*panels, diagram),),
        caption=caption,
        table=tuple(table),
        facts=facts,
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
    """Stylise one pair with several content layers, nested sets of style layers and ratios of the weights.

    The first row of the figure has one image for each content layer, whose relative distance
    ``Σ (F - P)² / Σ P²`` has the same weight for every layer. The grid below has one row for each nested set
    of style layers and one column for each ratio.

    Args:
        content: content image.
        style: style image.
        content_layers: content layers, separated by commas; one image is made for each. The images of the
            grid use the deepest of them.
        style_layers: style layers, separated by commas, from shallow to deep; each row of the grid has one
            layer more than the row above.
        ratios: ratios α/β of content weight to style weight, separated by commas; one column of the grid is
            made for each.
        content_weight: ratio α/β of the images in the first row.
        size: longest side of the images in pixels; smaller images are not enlarged.
        iterations: number of iterations per scale.
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        progress: function that is called with one line of text when an image is done.

    Returns:
        The images with their distances, and a table with the distance at every content layer.

    Raises:
        ConfigError: a layer does not exist, or a ratio is negative or not finite.
        ImageError, WeightsError: an image or the weights cannot be read.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 5, and 2015, Fig. 3, whose columns have the ratios 1e-5, 1e-4,
    1e-3 and 1e-2.
    Our reading: the ratios, which are chosen for balanced losses (`tfstyle.losses.balanced_normalization`),
    and the number of iterations.
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
        options = {"content_weight": content_weight, "content_layers": (layer,)}
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
        "First row, after Gatys, Ecker, Bethge 2016, Fig. 5: each image has one content layer; relative "
        f"content distances have the weight {content_weight:g}. Other rows, after Gatys, Ecker, Bethge 2015, "
        "Fig. 3: nested sets of style layers grow from top to bottom, and the ratio α/β grows from left to "
        f"right; the content layer is {deepest}. {pair.notes}"
    )
    rows = (tuple(first_row), *map(tuple, grid))
    return Study(
        "Content layers and style layers",
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
    """Stylise one pair from the content image, from the style image, and from white noise of several seeds.

    A start from the content image or the style image always gives the same result. White noise gives a
    different result for every seed.

    Args:
        content: content image.
        style: style image.
        seeds: seeds of the noise, separated by commas; one image is made for each.
        content_weight: ratio α/β of content weight to style weight.
        size: longest side of the images in pixels; smaller images are not enlarged.
        iterations: number of iterations per scale.
        scales: number of scales; the results of different starts differ less with several scales.
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        progress: function that is called with one line of text when an image is done.

    Returns:
        The images with their losses and distances, the standard deviation over the seeds at every pixel, a
        diagram of the losses, and a table.

    Raises:
        ConfigError: an option has an invalid value.
        ImageError, WeightsError: an image or the weights cannot be read.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 6, and Nikulin, Novak 2016, who also vary the start.
    Our reading: the ratio, which is chosen for balanced losses (`tfstyle.losses.balanced_normalization`), and
    the number of iterations.
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
    caption = f"mean {deviation.mean():.2g}; shown multiplied by 4"
    spread = Panel(np.clip(4 * deviation, 0, 1), "standard deviation over seeds", caption)
    first_row: list[Panel | Curves] = [*pair.panels(), *panels[:2]]
    first_row.append(Curves(curves, "lowest loss so far", "iterations", "loss"))
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 6: the same loss is minimised from several starts. Only noise "
        f"gives different results. α/β = {content_weight:g}, {iterations} iterations. {pair.notes}"
    )
    rows = (tuple(first_row), (*panels[2:], spread))
    return Study(
        "Starts of the optimisation", rows, caption=caption, table=tuple(table), facts=pair.facts(iterations)
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
    """Transfer the style of one photograph to another, with several weights of the total variation.

    The content weight is larger than for paintings, and the start is the content image. The paper says that
    low-level noise is most visible in transfers between photographs. The total variation reduces this noise.

    Args:
        content: content image, a photograph.
        style: style image, a photograph.
        content_weight: ratio α/β of content weight to style weight.
        tv_weights: weights of the total variation, separated by commas; one image is made for each.
        size: longest side of the images in pixels; smaller images are not enlarged.
        iterations: number of iterations per scale.
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        progress: function that is called with one line of text when an image is done.

    Returns:
        The images with their distances and total variation, and a table.

    Raises:
        ConfigError: an option has an invalid value.
        ImageError, WeightsError: an image or the weights cannot be read.

    Reference: Gatys, Ecker, Bethge 2016, Fig. 7, whose ratio is 1e-2, ten times that of Fig. 3 B.
    Our reading: ten times the ratio for paintings also applies to balanced losses.
    """
    pair = read_image_pair(content, style, size=size, weights=weights)
    panels, table = [*pair.panels()], []
    for weight in tv_weights:
        transfer = pair.transfer(iterations, {"content_weight": content_weight, "tv_weight": weight})
        variation = float(total_variation(tf.constant(transfer.image[None])))
        caption = f"{transfer.distances}\ntotal variation {variation:.2g}"
        panels.append(Panel(transfer.image, f"total variation weight {weight:g}", caption))
        table.append({"total variation weight": weight, "total variation": variation, **transfer.columns()})
        report_progress(progress, panels[-1].title, text=panels[-1].caption)
    caption = (
        "After Gatys, Ecker, Bethge 2016, Fig. 7: content image and style image are photographs; the start "
        f"is the content image, and α/β = {content_weight:g}. A larger weight of the total variation leaves "
        f"less noise. {pair.notes}"
    )
    title = "Style transfer between photographs"
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
    """Return the panel of one image, and append a line with its distances to the table."""
    transfer = pair.transfer(iterations, options)
    by_layer = transfer.distances.content_by_layer.items()
    layer_columns = {f"content {layer}": value for layer, value in by_layer}
    table.append({"image": title, **layer_columns, **transfer.columns()})
    panel = Panel(transfer.image, title, str(transfer.distances))
    report_progress(progress, panel.title, text=panel.caption)
    return panel
