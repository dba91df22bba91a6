"""VGG encoders of the experiments, the layers that their weights reach, and what captions say of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfstyle.device import choose_device, choose_precision
from tfstyle.errors import ConfigError
from tfstyle.layers import layer_names
from tfstyle.network import Encoder, Weights

#: Pooling of every experiment that does not let the caller choose: average pooling, as in the papers.
POOLING = "avg"
POOLING_NAMES = {"avg": "average", "max": "max", "rescaled": "rescaled average"}


def vgg_encoder(vgg_weights: Weights, layers: Sequence[str], *, precision: str = "float32") -> Encoder:
    """Make an encoder with the experiments' pooling and reflected borders, as `tfstyle.stylize` has it."""
    return Encoder(
        layers,
        vgg_weights,
        pooling=POOLING,
        padding="reflect",
        dtype=choose_precision(precision, choose_device().value).value,
        network=vgg_weights.network,
    )


def describe_network(source: str, pooling: str = POOLING) -> str:
    """Name the weights and the pooling, for a caption."""
    return f"Weights: {source}; {POOLING_NAMES[pooling]} pooling."


def network_facts(source: str, pooling: str = POOLING, **options: Any) -> dict[str, Any]:
    """Name the weights and the pooling, and the options of an experiment, for the facts of a study."""
    return {"weights": source, "pooling": pooling, **options}


def available_layers(vgg_weights: Weights, layers: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Choose the layers that the weights reach.

    Returns:
        those layers, and a sentence for a caption that names the other ones; empty if there are none.

    Raises:
        ConfigError: the network has no such layer, or the weights reach none of them.
    """
    network_layers, reached = layer_names(vgg_weights.network), vgg_weights.layer_names
    if unknown := [layer for layer in layers if layer not in network_layers]:
        raise ConfigError(
            f"{vgg_weights.network} has no layer {unknown[0]!r}; there are {', '.join(network_layers)}"
        )
    available = tuple(layer for layer in dict.fromkeys(layers) if layer in reached)
    missing = [layer for layer in layers if layer not in reached]
    if not available:
        raise ConfigError(f"{vgg_weights.source} stops at {reached[-1]}, below {', '.join(layers)}")
    if not missing:
        return available, ""
    return available, f"Left out, as {vgg_weights.source} stops at {reached[-1]}: {', '.join(missing)}."


def layer_range(layers: Sequence[str]) -> str:
    """Name a nested set of layers by its first and last, ``conv1_1 .. conv3_1``."""
    return layers[0] if len(layers) == 1 else f"{layers[0]} .. {layers[-1]}"
