"""Comparisons of several networks, and of several sets of layers of one network, on one pair of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfstyle.config import PAPER_CONTENT_LAYERS, STYLE_LAYERS, StyleConfig
from tfstyle.network import Weights, load_weights, paper_layers
from tfstyle.papers import COMPARED_NETWORKS
from tfstyle.papers.applications import ComparedNetwork, load_network
from tfstyle.papers.distances import GRAM_LOSSES, Distances, describe_distances
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
    """Stylise one pair with VGG-19, VGG-16 and other Keras networks.

    With each network, the balanced losses of its features are minimised from the content image, in float32
    and at one scale. All images are then measured by VGG-19 with the given weights: by the style distance
    ``Σ (G - A)² / Σ A²`` and the content distance ``Σ (F - P)² / Σ P²``. This measure favours VGG-19, because
    only its own run minimises the losses of VGG-19.

    Args:
        content: content image.
        style: style image.
        weights: VGG-19 weights, also of the measure: auto (imagenet if they can be downloaded, otherwise
            embedded), imagenet, embedded, random, or a weights file.
        vgg16_weights: VGG-16 weights: auto (imagenet if they can be downloaded, otherwise random), imagenet,
            random, or a weights file.
        keras_weights: weights of the other networks: auto (imagenet if they can be downloaded, otherwise
            random), imagenet or random.
        names: networks, separated by commas: vgg19, vgg16, resnet50, densenet121, mobilenet_v3_small.
        size: longest side of the images in pixels; smaller images are not enlarged.
        iterations: number of iterations.
        content_weight: weight of the content loss relative to the style loss.
        progress: function that is called with one line of text when an image is done.

    Returns:
        The images side by side, and a table of both distances and the seconds.

    Raises:
        ConfigError: a network does not exist, or VGG-19's weights end in block 1.
        ImageError: an image cannot be read.
        WeightsError: the weights cannot be loaded or downloaded, and are not ``auto``.

    Reference: Nikulin, Novak 2016, arXiv 1602.07188, who vary the recognition network. Our reading:
    the choice of the networks, and that layers of the same stride correspond, up to the deepest layer of
    VGG-19's weights.
    """
    vgg_weights = load_weights(weights)
    sources: dict[str, str | Weights] = {"vgg19": vgg_weights, "vgg16": vgg16_weights}
    blocks = vgg_weights.layers[-1].block
    compared = {
        name: load_network(name, sources.get(name, keras_weights), blocks=blocks)
        for name in dict.fromkeys(names)
    }
    content_layers, style_layers = paper_layers(vgg_weights)
    pair = read_image_pair(
        content,
        style,
        size=size,
        weights=vgg_weights,
        content_layers=content_layers,
        style_layers=style_layers,
    )
    config = StyleConfig(size=size, iterations=iterations, precision="float32").replace(
        {**GRAM_LOSSES, "content_weight": content_weight}
    )
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
        report_progress(progress, f"{name} with {network.weights_source} weights", text=numbers)
    table.append(_distance_columns("content image", pair.measure(pair.content)))
    caption = [
        "Our reading of Nikulin & Novak (2016): the same losses are minimised in several networks, on layers "
        "of the same strides, in float32 from the content image. All images are measured by VGG-19, which "
        f"favours the image of VGG-19: {describe_distances(content_layers, style_layers)}.",
        describe_network(vgg_weights.source),
        _describe_weights(compared, sources, keras_weights),
        available_layers(vgg_weights, (*STYLE_LAYERS, *PAPER_CONTENT_LAYERS))[1],
    ]
    return Study(
        f"Style transfer with several networks, {iterations} iterations at {size} px",
        panel_rows(panels, 4),
        caption=" ".join(filter(None, caption)),
        table=tuple(table),
        facts=network_facts(
            vgg_weights.source,
            size=size,
            iterations=iterations,
            content_weight=content_weight,
            network_weights={name: network.weights_source for name, network in compared.items()},
        ),
    )


def _distance_columns(name: str, distances: Distances) -> dict[str, Any]:
    return {"network": name, "style distance": distances.style, "content distance": distances.content}


def _network_line(name: str, network: ComparedNetwork, transfer: TimedTransfer) -> dict[str, Any]:
    return {
        **_distance_columns(name, transfer.distances),
        "seconds": transfer.seconds,
        "first loss": transfer.first_loss,
        "lowest loss": transfer.lowest_loss,
        "weights": network.weights_source,
        "content layers": " ".join(network.content_layers),
        "style layers": " ".join(network.style_layers),
    }


def _describe_weights(
    compared: Mapping[str, ComparedNetwork], sources: Mapping[str, str | Weights], keras_weights: str
) -> str:
    """Return a sentence for a caption with the weights of each network, and why they are random."""
    networks = []
    for name, network in compared.items():
        fell_back = network.weights_source == "random" and sources.get(name, keras_weights) == "auto"
        reason = ", because its ImageNet weights were not available" if fell_back else ""
        networks.append(f"{name} has {network.weights_source} weights{reason}")
    return f"{'; '.join(networks)}."


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
    """Stylise one pair with every combination of a content layer and a set of style layers.

    The rows of the grid are content layers. The columns are sets of style layers: first each layer alone,
    then the first two layers, the first three, and so on. Every image is measured in float32 at all layers,
    so that the table shows how fitting some layers changes the distances at the others. The losses are
    relative to their targets, and all layers have the same content weight.

    Args:
        content: content image.
        style: style image.
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        content_layers: content layers, separated by commas; one row of the grid is made for each.
        style_layers: style layers, separated by commas, from shallow to deep; one column of the grid is made
            for each layer and for each nested set.
        size: longest side of the images in pixels; smaller images are not enlarged.
        iterations: number of iterations, from the content image.
        content_weight: weight of the content loss relative to the style loss.
        precision: precision of the features: auto, float32, bfloat16 or float16.
        progress: function that is called with one line of text when an image is done.

    Returns:
        The grid of images, diagrams of the distances at every style layer and at every content layer, and a
        table.

    Raises:
        ConfigError: a layer does not exist, or the weights reach none of the layers.
        ImageError, WeightsError: an image or the weights cannot be read.

    Reference: Nikulin, Novak 2016, arXiv 1602.07188, who vary the partition into style and content layers.
    Our reading: the choice of the layers, and the measures.
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
    config = StyleConfig(size=size, iterations=iterations).replace(
        {**GRAM_LOSSES, "content_weight": content_weight}
    )
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
    table.append(_partition_line("content image", (), distances=pair.measure(pair.content), seconds=""))
    last_row = (*pair.panels(), *_partition_diagrams(table, available_content, style_layers=available_style))
    caption = [
        "Our reading of Nikulin & Novak (2016): the rows are content layers, and the columns are single "
        "style layers and nested sets of them, with VGG-19 from the content image. Below each image, "
        f"measured in float32: {describe_distances(available_content, available_style)}.",
        describe_network(vgg_weights.source),
        _describe_best_layers(table, available_style),
        available_layers(vgg_weights, (*style_layers, *content_layers))[1],
    ]
    return Study(
        f"Partition into content layers and style layers, {iterations} iterations at {size} px",
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
    """Return a sentence for a caption that names the best single style layer and the best content layer."""
    single_layers = [line for line in table if line["style layers"] in style_layers]
    nearest = min(single_layers, key=lambda line: line["style distance"])
    all_layers = [line for line in table if line["style layers"] == " ".join(style_layers)]
    best_content = min(all_layers, key=lambda line: line["content distance"])
    return (
        f"Among single style layers, {nearest['style layers']} gives the smallest style distance "
        f"({nearest['style distance']:.2g}). With all style layers, {best_content['content layer']} gives "
        f"the smallest content distance ({best_content['content distance']:.2g}, at a style distance of "
        f"{best_content['style distance']:.2g})."
    )


def _partition_diagrams(
    table: Sequence[Mapping[str, Any]], content_layers: Sequence[str], *, style_layers: Sequence[str]
) -> tuple[Curves, Curves]:
    """Return two diagrams of the distances.

    The first plots the style distance at every style layer after each single layer and after all layers
    were fitted. The second plots the style distance against the content distance for the nested sets.
    """
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
        Curves(
            by_style_layer,
            f"by fitted style layers, with content layer {last_content}",
            axis_label,
            "style distance at this layer",
        ),
        Curves(by_content_layer, "nested sets by content layer", "content distance", "style distance"),
    )
