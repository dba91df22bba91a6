"""One pair through several networks, and through several sets of layers of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfstyle.config import CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.network import Weights, default_layers, load_weights
from tfstyle.papers import COMPARED_NETWORKS
from tfstyle.papers.applications import ComparedNetwork, load_network
from tfstyle.papers.distances import Distances, describe_distances
from tfstyle.papers.image_pairs import TimedTransfer, read_image_pair
from tfstyle.papers.study import Curves, Panel, Progress, Study, panel_rows, report_progress
from tfstyle.papers.vgg_encoders import (
    available_layers,
    describe_network,
    layer_range,
    network_facts,
    vgg_encoder,
)


def networks(
    content: Any,
    style: Any,
    *,
    weights: str = "auto",
    vgg16_weights: str = "auto",
    keras_weights: str = "auto",
    names: tuple[str, ...] = COMPARED_NETWORKS,
    size: int = 160,
    iterations: int = 60,
    content_weight: float = 0.04,
    progress: Progress | None = None,
) -> Study:
    """The same pair through VGG-19, VGG-16 and other Keras networks.

    Every network minimises its own balanced losses from the content image, in float32, at one size.
    All images are then measured by one network, VGG-19 with the weights given: ``Σ (G - A)² / Σ A²`` and
    ``Σ (F - P)² / Σ P²``. VGG-19 minimises what it is measured by; the others do not.

    Args:
        content: image whose forms are kept.
        style: image whose look is taken.
        weights: of VGG-19, and so of the measure: auto, imagenet, embedded, random or a file.
        vgg16_weights: of VGG-16: auto (imagenet if it can be had, else random), imagenet, random or a file.
        keras_weights: of the other networks: auto, imagenet or random.
        names: of the networks, separated by commas.
        size: longest side in pixels.
        iterations: evaluations of the loss.
        content_weight: of the content against the style.
        progress: called with a line when a part is done.

    Returns:
        the images side by side, with a table of both distances and of the seconds.

    Raises:
        ConfigError: no such network.
        WeightsError: weights asked for by name cannot be had.

    Reference: Nikulin, Novak 2016, arXiv 1602.07188, who vary the recognition network. Our reading of it:
    which networks, and that layers of one stride correspond, up to the deepest that VGG-19's weights reach.
    """
    vgg_weights = load_weights(weights)
    sources: dict[str, str | Weights] = {"vgg19": vgg_weights, "vgg16": vgg16_weights}
    blocks = vgg_weights.layers[-1].block
    compared = {
        name: load_network(name, sources.get(name, keras_weights), blocks=blocks)
        for name in dict.fromkeys(names)
    }
    content_layers, style_layers = default_layers(vgg_weights)
    pair = read_image_pair(
        content,
        style,
        size=size,
        weights=vgg_weights,
        content_layers=content_layers,
        style_layers=style_layers,
    )
    config = StyleConfig(size=size, iterations=iterations, precision="float32", content_weight=content_weight)
    panels, table = [*pair.panels()], []
    for name, network in compared.items():
        transfer = pair.timed_transfer(
            config,
            network.encoder,
            content_layers=network.content_layers,
            style_layers=network.style_layers,
        )
        table.append(_network_line(name, network, transfer))
        numbers = f"{transfer.distances}; {transfer.seconds:.1f} s"
        panels.append(Panel(transfer.image, name, f"{numbers}\n{network.weights_source} weights"))
        report_progress(progress, name, text=numbers)
    table.append(_distance_columns("the content itself", pair.measure(pair.content)))
    fell_back = "auto" in (vgg16_weights, keras_weights)
    caption = [
        "Our reading of Nikulin & Novak (2016): the same losses in several networks, on layers of the same "
        f"strides, in float32 from the content image. Judged in VGG-19, which alone minimises what it "
        f"is judged by: {describe_distances(content_layers, style_layers)}.",
        describe_network(vgg_weights.source),
        _describe_random_networks(compared, fell_back),
        available_layers(vgg_weights, (*STYLE_LAYERS, *CONTENT_LAYERS))[1],
    ]
    return Study(
        f"One pair through several networks, {iterations} evaluations at {size} px",
        panel_rows(panels, 4),
        caption=" ".join(filter(None, caption)),
        table=tuple(table),
        facts=network_facts(
            vgg_weights.source, size=size, iterations=iterations, content_weight=content_weight
        ),
    )


def _distance_columns(name: str, distances: Distances) -> dict[str, Any]:
    return {"network": name, "style distance": distances.style, "content distance": distances.content}


def _network_line(name: str, network: ComparedNetwork, transfer: TimedTransfer) -> dict[str, Any]:
    return {
        **_distance_columns(name, transfer.distances),
        "seconds": transfer.seconds,
        "own loss, first": transfer.first_loss,
        "own loss, lowest": transfer.lowest_loss,
        "weights": network.weights_source,
        "content layers": " ".join(network.content_layers),
        "style layers": " ".join(network.style_layers),
    }


def _describe_random_networks(compared: Mapping[str, ComparedNetwork], fell_back: bool) -> str:
    """Name the networks that have random weights, for a caption, and the reason if nobody asked for them."""
    names = [name for name, network in compared.items() if network.weights_source == "random"]
    reason = ", as no ImageNet weights could be had" if fell_back else ""
    return f"Weights are random in {', '.join(names)}{reason}." if names else ""


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
    and so on. Every image is measured in float32 at all the layers, so that the table says what fitting
    some does to the others. What is minimised is balanced, so that one weight serves all layers.

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
    vgg_weights = load_weights(weights)
    available_content, _ = available_layers(vgg_weights, content_layers)
    available_style, _ = available_layers(vgg_weights, style_layers)
    pair = read_image_pair(
        content,
        style,
        size=size,
        weights=vgg_weights,
        content_layers=available_content,
        style_layers=available_style,
    )
    config = StyleConfig(size=size, iterations=iterations, content_weight=content_weight)
    style_sets: list[tuple[str, ...]] = [(layer,) for layer in available_style]
    style_sets += [available_style[:count] for count in range(2, len(available_style) + 1)]
    grid: list[tuple[Panel, ...]] = []
    table: list[dict[str, Any]] = []
    for content_layer in available_content:
        row: list[Panel] = []
        for style_set in style_sets:
            encoder = vgg_encoder(vgg_weights, (content_layer, *style_set), precision=precision)
            transfer = pair.timed_transfer(
                config, encoder, content_layers=(content_layer,), style_layers=style_set
            )
            table.append(
                _partition_line(
                    content_layer, style_set, distances=transfer.distances, seconds=transfer.seconds
                )
            )
            title = f"{content_layer} | {layer_range(style_set)}"
            row.append(Panel(transfer.image, title, f"{transfer.distances}; {transfer.seconds:.1f} s"))
            report_progress(progress, title, text=row[-1].caption)
        grid.append(tuple(row))
    table.append(_partition_line("the content itself", (), distances=pair.measure(pair.content), seconds=""))
    last_row = (*pair.panels(), *_partition_diagrams(table, available_content, style_layers=available_style))
    caption = [
        "Our reading of Nikulin & Novak (2016): content layer (rows) | style layers (columns), single and "
        "nested, from the content image with VGG-19: "
        f"{describe_distances(available_content, available_style)}, in float32.",
        describe_network(vgg_weights.source),
        _describe_best_layers(table, available_style),
        available_layers(vgg_weights, (*style_layers, *content_layers))[1],
    ]
    return Study(
        f"Partition into content and style layers, {iterations} evaluations at {size} px",
        (*grid, last_row),
        caption=" ".join(filter(None, caption)),
        table=tuple(table),
        facts=network_facts(
            vgg_weights.source, size=size, iterations=iterations, content_weight=content_weight
        ),
    )


def _partition_line(
    content_layer: str, style_set: Sequence[str], *, distances: Distances, seconds: float | str
) -> dict[str, Any]:
    return {
        "content layer": content_layer,
        "style layers": " ".join(style_set),
        "style distance": distances.style,
        "content distance": distances.content,
        **{f"style at {layer}": value for layer, value in distances.style_by_layer.items()},
        **{f"content at {layer}": value for layer, value in distances.content_by_layer.items()},
        "seconds": seconds,
    }


def _describe_best_layers(table: Sequence[Mapping[str, Any]], style_layers: Sequence[str]) -> str:
    """Name the single layer that serves best."""
    single_layers = [line for line in table if line["style layers"] in style_layers]
    nearest = min(single_layers, key=lambda line: line["style distance"])
    all_layers = [line for line in table if line["style layers"] == " ".join(style_layers)]
    best_content = min(all_layers, key=lambda line: line["content distance"])
    return (
        f"Of single style layers {nearest['style layers']} brings the style nearest "
        f"({nearest['style distance']:.2g}); with all of them {best_content['content layer']} keeps most of "
        f"the content ({best_content['content distance']:.2g} at a style distance of "
        f"{best_content['style distance']:.2g})."
    )


def _partition_diagrams(
    table: Sequence[Mapping[str, Any]], content_layers: Sequence[str], *, style_layers: Sequence[str]
) -> tuple[Curves, Curves]:
    """Draw the style distances after fitting a set, and what they cost in content at each content layer."""
    count, last_content = len(style_layers), content_layers[-1]
    last_lines = [line for line in table if line["content layer"] == last_content]
    numbers = range(1, count + 1)
    by_style_layer = {
        layer_range(line["style layers"].split()): (
            numbers,
            [line[f"style at {layer}"] for layer in style_layers],
        )
        for line in [*last_lines[:count], *last_lines[count:][-1:]]
    }
    by_content_layer = {}
    for content_layer in content_layers:
        lines = [line for line in table if line["content layer"] == content_layer]
        nested = [lines[0], *lines[count:]]
        by_content_layer[content_layer] = (
            [line["content distance"] for line in nested],
            [line["style distance"] for line in nested],
        )
    axis_label = ", ".join(f"{i} {layer}" for i, layer in zip(numbers, style_layers, strict=True))
    return (
        Curves(by_style_layer, f"fitted, with {last_content}", axis_label, "style distance there"),
        Curves(by_content_layer, "nested sets, by content layer", "content distance", "style distance"),
    )
