"""Gram matrices of an image, their spectra, and the feature maps of the strongest channels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tfstyle.config import STYLE_LAYERS
from tfstyle.images import load as load_image
from tfstyle.losses import gram_matrix
from tfstyle.network import load_weights
from tfstyle.papers.heat_maps import heat_map
from tfstyle.papers.image_grams import descending_eigenvalues, spectra_diagram
from tfstyle.papers.study import Panel, Progress, Study, report_progress
from tfstyle.papers.vgg_encoders import available_layers, describe_network, network_facts, vgg_encoder

DECADES = 4.0  # powers of ten that the heat map of a Gram matrix shows


class LayerResponse(NamedTuple):
    """The features of an image in one layer, and their Gram matrix.

    Attributes:
        features: float32 ``[h, w, N]``.
        gram: float32 ``[N, N]``.
        eigenvalue_shares: float64 ``[N]``, the Gram matrix' eigenvalues as shares of their sum, largest
            first.
    """

    features: np.ndarray
    gram: np.ndarray
    eigenvalue_shares: np.ndarray

    @property
    def effective_rank(self) -> float:
        """``1 / Σ p²`` of the shares p: as many equal eigenvalues would have the same."""
        return float(1 / np.sum(self.eigenvalue_shares**2))

    @property
    def strongest_channels(self) -> np.ndarray:
        """The channels by their diagonal entries G_ii, largest first."""
        return np.argsort(-np.diag(self.gram), kind="stable")


def show(
    image: Any,
    *,
    layers: tuple[str, ...] = STYLE_LAYERS,
    channels: int = 3,
    size: int = 256,
    weights: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """Gram matrices of an image, their spectra, and the feature maps of its strongest channels.

    ``G_ij = (1/M) Σ_k F_ki F_kj``; the strongest channels are those with the largest G_ii.

    Args:
        image: the image.
        layers: whose features are shown; those that the weights do not reach are left out.
        channels: feature maps for each layer.
        size: longest side of the image in pixels.
        weights: imagenet, embedded, random, auto or a file.
        progress: called with a line for each layer.

    Raises:
        ConfigError: an unknown layer, none that the weights reach, or no matplotlib.
        ImageError: the image cannot be read, or is too small for the layers.

    Reference: Gatys, Ecker, Bethge 2016, eq. 3.
    """
    vgg_weights = load_weights(weights)
    available, left_out = available_layers(vgg_weights, layers)
    original = load_image(image).fitted(size).on_white()
    features = vgg_encoder(vgg_weights, available)(original[np.newaxis])
    responses = {}
    for layer in available:
        gram = gram_matrix(features[layer])[0].numpy()
        responses[layer] = LayerResponse(features[layer][0].numpy(), gram, _eigenvalue_shares(gram))
        report_progress(progress, layer, text=_describe_matrix(responses[layer]))
    count = min(channels, *(len(response.gram) for response in responses.values()))
    feature_maps = [
        [_feature_map_panel(layer, response, rank=rank) for layer, response in responses.items()]
        for rank in range(count)
    ]
    spectra = {layer: response.eigenvalue_shares for layer, response in responses.items()}
    caption = (
        "Gram matrices of a picture's features, channels by channels, on a logarithmic scale from the "
        f"layer's largest entry down to 1e-{DECADES:g} of it, with their effective rank, 1 / Σ p² of the "
        "eigenvalues' shares p; the eigenvalues; and the feature maps of each layer's strongest channels, "
        f"those with the largest entries on the diagonal. At {size} pixels. "
        f"{describe_network(vgg_weights.source)} {left_out}"
    ).strip()
    facts = {"layers": list(available), "size": size, **network_facts(vgg_weights.source)}
    table = tuple({"layer": layer, **_matrix_columns(response)} for layer, response in responses.items())
    rows = (
        (Panel(original, "picture"), spectra_diagram(spectra, "spectra")),
        tuple(_matrix_panel(layer, response) for layer, response in responses.items()),
        *feature_maps,
    )
    width = max(map(len, rows))
    return Study(
        "What the network sees",
        tuple((*row, *[None] * (width - len(row))) for row in rows),
        caption=caption,
        table=table,
        facts=facts,
    )


def _eigenvalue_shares(gram: np.ndarray) -> np.ndarray:
    """Divide the eigenvalues, which rounding can make negative, by their sum, which can be 0."""
    eigenvalues = np.maximum(descending_eigenvalues(gram), 0)
    return np.asarray(eigenvalues / max(eigenvalues.sum(), np.finfo(float).tiny))


def _matrix_columns(response: LayerResponse) -> dict[str, Any]:
    diagonal = np.diag(response.gram)
    return {
        "channels": len(diagonal),
        "silent": int((diagonal <= 0).sum()),
        "largest entry": float(response.gram.max()),
        "largest eigenvalue": float(response.eigenvalue_shares[0]),
        "effective rank": response.effective_rank,
        "strongest": ",".join(map(str, response.strongest_channels[:3])),
    }


def _describe_matrix(response: LayerResponse) -> str:
    columns = _matrix_columns(response)
    return (
        f"{columns['channels']} channels, {columns['silent']} silent\n"
        f"largest eigenvalue {100 * columns['largest eigenvalue']:.0f}%; "
        f"effective rank {response.effective_rank:.1f}"
    )


def _matrix_panel(layer: str, response: LayerResponse) -> Panel:
    image = heat_map(response.gram, decades=DECADES)
    return Panel(image, f"{layer}, Gram matrix", _describe_matrix(response))


def _feature_map_panel(layer: str, response: LayerResponse, *, rank: int) -> Panel:
    """Show the feature map of the channel with the rank-th largest diagonal entry, from 0."""
    channel = int(response.strongest_channels[rank])
    feature_map = response.features[..., channel]
    trace = max(float(np.trace(response.gram)), np.finfo(float).tiny)
    share = response.gram[channel, channel] / trace
    return Panel(
        heat_map(feature_map),
        f"{layer}, channel {channel}",
        f"{100 * share:.1f}% of the diagonal; fires at {100 * (feature_map > 0).mean():.0f}% of places",
    )
