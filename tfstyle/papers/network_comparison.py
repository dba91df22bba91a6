"""One pair through several networks, and through several sets of layers of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfstyle.config import CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.network import Weights, default_layers
from tfstyle.network import weights as sources
from tfstyle.papers.applications import APPLICATIONS, VGG, Network, network
from tfstyle.papers.judging import (
    Distances,
    Judge,
    Painting,
    in_rows,
    inputs_of,
    measures,
    painted,
    read_pair,
    there,
    vgg,
)
from tfstyle.papers.study import Curves, Panel, Progress, Study

Row = tuple[Panel | Curves | None, ...]


def networks(
    content: Any,
    style: Any,
    *,
    weights: str = "auto",
    vgg16_weights: str = "auto",
    keras_weights: str = "auto",
    names: tuple[str, ...] = (*VGG, *APPLICATIONS),
    size: int = 160,
    iterations: int = 60,
    content_weight: float = 0.04,
    progress: Progress | None = None,
) -> Study:
    """The same pair through VGG-19, VGG-16 and other Keras networks.

    Every network minimises its own losses in balanced units from the content image, in float32, at one size.
    All pictures are then measured by one judge, VGG-19 with the weights given: ``Σ (G - A)² / Σ A²`` and
    ``Σ (F - P)² / Σ P²``. VGG-19 minimises what it is judged by; the others do not.

    Args:
        content: image whose forms are kept.
        style: image whose look is taken.
        weights: of VGG-19, and so of the judge: auto, imagenet, embedded, random or a file.
        vgg16_weights: of VGG-16: auto (imagenet if it can be had, else random), imagenet, random or a file.
        keras_weights: of the other networks: auto, imagenet or random.
        names: of the networks, separated by commas.
        size: longest side in pixels.
        iterations: evaluations of the loss.
        content_weight: of the content against the style.
        progress: called with a line when a part is done.

    Returns:
        the pictures side by side, with a table of both distances and of the seconds.

    Raises:
        ConfigError: no such network.
        WeightsError: weights asked for by name cannot be had.

    Reference: Nikulin, Novak 2016, arXiv 1602.07188, who vary the recognition network. Our reading of it:
    which networks, and that layers of one stride correspond, up to the deepest that VGG-19's weights reach.
    """
    loaded = sources.load_weights(weights)
    own: dict[str, str | Weights] = {"vgg19": loaded, "vgg16": vgg16_weights}
    blocks = loaded.layers[-1].block
    chosen = {name: network(name, own.get(name, keras_weights), blocks) for name in dict.fromkeys(names)}
    images = read_pair(content, style, size)
    content_layers, style_layers = default_layers(loaded)
    judge = Judge(*images, loaded, content_layers, style_layers)
    config = StyleConfig(size=size, iterations=iterations, precision="float32", content_weight=content_weight)
    panels, table = [*inputs_of(judge, *images)], []
    for name, one in chosen.items():
        painting = painted(*images, config, one.encoder, one.content_layers, one.style_layers)
        after = judge(painting.image)
        table.append(_network_line(name, one, after, painting))
        words = f"{after}; {painting.seconds:.1f} s"
        panels.append(Panel(painting.image, name, f"{words}\n{one.weights} weights"))
        if progress is not None:
            progress(f"{name}: {words}")
    table.append(_network_line("the content itself", None, judge(images[0]), None))
    unhad = "auto" in (vgg16_weights, keras_weights)
    caption = [
        "Our reading of Nikulin & Novak (2016): the same losses in several networks, on layers of the same "
        f"strides, in float32 from the content image. Judged in VGG-19 ({loaded.source}), which alone "
        f"minimises what it is judged by: {measures(content_layers, style_layers)}.",
        _random_ones(chosen, unhad),
        there(loaded, (*STYLE_LAYERS, *CONTENT_LAYERS))[1],
    ]
    return Study(
        f"One pair through several networks, {iterations} evaluations at {size} px",
        in_rows(panels, 4),
        " ".join(filter(None, caption)),
        tuple(table),
        {"weights": loaded.source, "size": size, "iterations": iterations, "content_weight": content_weight},
    )


def _network_line(
    name: str, one: Network | None, after: Distances, painting: Painting | None
) -> dict[str, Any]:
    measured = {"network": name, "style distance": after.style, "content distance": after.content}
    if one is None or painting is None:
        return measured
    return {
        **measured,
        "seconds": painting.seconds,
        "own loss, first": painting.first,
        "own loss, lowest": painting.lowest,
        "weights": one.weights,
        "content layers": " ".join(one.content_layers),
        "style layers": " ".join(one.style_layers),
    }


def _random_ones(chosen: Mapping[str, Network], unhad: bool) -> str:
    """Which networks have random weights, for a caption, and why if nobody asked for them."""
    names = [name for name, one in chosen.items() if one.weights == "random"]
    why = ", as no ImageNet weights could be had" if unhad else ""
    return f"Weights are random in {', '.join(names)}{why}." if names else ""


def partition(
    content: Any,
    style: Any,
    *,
    weights: str = "auto",
    content_layers: tuple[str, ...] = ("conv2_2", "conv3_2", "conv4_2"),
    style_layers: tuple[str, ...] = STYLE_LAYERS,
    size: int = 128,
    iterations: int = 50,
    content_weight: float = 0.04,
    precision: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """Which layers carry the style and which the content: a grid of both, with losses and times.

    Rows are content layers, columns sets of style layers: each by itself, then nested, the first two, three,
    and so on. Every picture is measured in float32 at all the layers, so that the table says what fitting
    some does to the others. What is minimised is in balanced units, so that one weight serves all layers.

    Args:
        content: image whose forms are kept.
        style: image whose look is taken.
        weights: of VGG-19: auto, imagenet, embedded, random or a file.
        content_layers: a row each.
        style_layers: bottom up; a column each, and one for each nested set.
        size: longest side in pixels.
        iterations: evaluations of the loss, from the content image.
        content_weight: of the content against the style.
        precision: of the features: auto, float32, bfloat16 or float16.
        progress: called with a line when a part is done.

    Returns:
        the grid; the distance at every style layer after fitting one; the table.

    Raises:
        ConfigError: no such layer, or none that the weights reach.

    Reference: Nikulin, Novak 2016, arXiv 1602.07188, who vary the partition into style and content layers.
    Our reading of it: which layers, and the measures.
    """
    loaded = sources.load_weights(weights)
    (rows, _), (base, _) = there(loaded, content_layers), there(loaded, style_layers)
    images = read_pair(content, style, size)
    judge = Judge(*images, loaded, rows, base)
    config = StyleConfig(size=size, iterations=iterations, content_weight=content_weight)
    sets = [(layer,) for layer in base] + [base[:n] for n in range(2, len(base) + 1)]
    grid: list[Row] = []
    table: list[dict[str, Any]] = []
    for row in rows:
        cells: list[Panel] = []
        for columns in sets:
            encoder = vgg(loaded, (row, *columns), precision)
            painting = painted(*images, config, encoder, (row,), columns)
            after = judge(painting.image)
            table.append(_cell_line(row, " ".join(columns), after, painting.seconds))
            title = f"{row} | {_named(columns)}"
            cells.append(Panel(painting.image, title, f"{after}; {painting.seconds:.1f} s"))
            if progress is not None:
                progress(f"{title}: {cells[-1].caption}")
        grid.append(tuple(cells))
    table.append(_cell_line("the content itself", "", judge(images[0]), ""))
    last: Row = (*inputs_of(judge, *images), *_curves(table, rows, base))
    caption = [
        "Our reading of Nikulin & Novak (2016): content layer (rows) | style layers (columns), single and "
        f"nested, from the content image with VGG-19 ({loaded.source}): {measures(rows, base)}, in float32.",
        _found(table, rows, base),
        there(loaded, (*style_layers, *content_layers))[1],
    ]
    return Study(
        f"Partition into content and style layers, {iterations} evaluations at {size} px",
        (*grid, last),
        " ".join(filter(None, caption)),
        tuple(table),
        {"weights": loaded.source, "size": size, "iterations": iterations, "content_weight": content_weight},
    )


def _cell_line(row: str, columns: str, after: Distances, seconds: float | str) -> dict[str, Any]:
    return {
        "content layer": row,
        "style layers": columns,
        "style distance": after.style,
        "content distance": after.content,
        **{f"style at {layer}": value for layer, value in after.styles.items()},
        **{f"content at {layer}": value for layer, value in after.contents.items()},
        "seconds": seconds,
    }


def _found(table: Sequence[Mapping[str, Any]], rows: Sequence[str], base: Sequence[str]) -> str:
    """Which single layer serves best, in words."""
    singles = [line for line in table if line["style layers"] in base]
    nearest = min(singles, key=lambda line: line["style distance"])
    whole = [line for line in table if line["style layers"] == " ".join(base)]
    kept = min(whole, key=lambda line: line["content distance"])
    return (
        f"Of single style layers {nearest['style layers']} brings the style nearest "
        f"({nearest['style distance']:.2g}); with all of them {kept['content layer']} keeps most of the "
        f"content ({kept['content distance']:.2g} at a style distance of {kept['style distance']:.2g})."
    )


def _named(layers: Sequence[str]) -> str:
    """``conv1_1 .. conv3_1`` for three of them."""
    return layers[0] if len(layers) == 1 else f"{layers[0]} .. {layers[-1]}"


def _curves(
    table: Sequence[Mapping[str, Any]], rows: Sequence[str], base: Sequence[str]
) -> tuple[Curves, Curves]:
    """What fitting a set does at every style layer, and what the rows pay for it in content."""
    deepest = [line for line in table if line["content layer"] == rows[-1]]
    places = range(1, len(base) + 1)
    at = {
        _named(line["style layers"].split()): (places, [line[f"style at {layer}"] for layer in base])
        for line in [*deepest[: len(base)], *deepest[len(base) :][-1:]]
    }
    paid = {}
    for row in rows:
        lines = [line for line in table if line["content layer"] == row]
        nested = [lines[0], *lines[len(base) :]]
        paid[row] = ([x["content distance"] for x in nested], [x["style distance"] for x in nested])
    numbered = ", ".join(f"{i} {layer}" for i, layer in zip(places, base, strict=True))
    return (
        Curves(at, f"fitted, with {rows[-1]}", numbered, "style distance there"),
        Curves(paid, "nested sets, by content layer", "content distance", "style distance"),
    )
