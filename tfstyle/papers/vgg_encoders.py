"""VGG encoders of the experiments, the layers that their weights reach, and text about both for captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfstyle.config import PADDING, POOLING
from tfstyle.device import choose_device, choose_precision
from tfstyle.errors import ConfigError
from tfstyle.layers import as_names, layer_names
from tfstyle.network import Encoder, Weights

POOLING_NAMES = {"avg": "average", "max": "max", "rescaled": "rescaled average"}


def vgg_encoder(vgg_weights: Weights, layers: Sequence[str], *, precision: str = "float32") -> Encoder:
    """Return an encoder with the pooling and padding that are the defaults of `tfstyle.stylize`.

    Args:
        vgg_weights: weights of VGG-19 or VGG-16.
        layers: names of the layers.
        precision: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
    """
    return Encoder(
        layers,
        vgg_weights,
        pooling=POOLING,
        padding=PADDING,
        dtype=choose_precision(precision, choose_device().value).value,
        network=vgg_weights.network,
    )


def describe_network(source: str, pooling: str = POOLING) -> str:
    """Return the names of the weights and the pooling as text, for a caption."""
    return f"Weights: {source}; {POOLING_NAMES[pooling]} pooling."


def network_facts(source: str, pooling: str = POOLING, **options: Any) -> dict[str, Any]:
    """Return the names of the weights and the pooling with other options, for the facts of a study."""
    return {"weights": source, "pooling": pooling, **options}


def available_layers(vgg_weights: Weights, layers: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Return the layers that the weights reach, without repetitions.

    Args:
        vgg_weights: weights of the network.
        layers: names of the layers.

    Returns:
        The layers that the weights reach, and a sentence for a caption that names the other layers. The
        sentence is empty if the weights reach all layers.

    Raises:
        ConfigError: `layers` is a string, the network has no such layer, or the weights reach none of the
            layers.
    """
    layers = as_names(layers)
    network_layers, reached = layer_names(vgg_weights.network), vgg_weights.layer_names
    if unknown := [layer for layer in layers if layer not in network_layers]:
        raise ConfigError(
            f"{vgg_weights.network} has no layer {unknown[0]!r}; choose from {', '.join(network_layers)}"
        )
    available = tuple(layer for layer in dict.fromkeys(layers) if layer in reached)
    missing = [layer for layer in layers if layer not in reached]
    if not available:
        raise ConfigError(
            f"the weights ({vgg_weights.source}) end at {reached[-1]}, below {', '.join(layers)}; give "
            f"layers up to {reached[-1]}, or other weights"
        )
    if not missing:
        return available, ""
    return available, (
        f"Layers left out because the weights ({vgg_weights.source}) end at {reached[-1]}: "
        f"{', '.join(missing)}."
    )


def layer_range(layers: Sequence[str]) -> str:
    """Return the name of a nested set of layers: its first and its last layer, ``conv1_1 .. conv3_1``."""
    return layers[0] if len(layers) == 1 else f"{layers[0]} .. {layers[-1]}"
