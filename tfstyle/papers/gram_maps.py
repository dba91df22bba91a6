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

DECADES = 4.0  # range of the heat maps' logarithmic scale, in powers of ten


class LayerResponse(NamedTuple):
    """The features of an image in one layer, and their Gram matrix.

    Attributes:
        features: float32 ``[h, w, N]``.
        gram: Gram matrix, float32 ``[N, N]``.
        eigenvalue_shares: eigenvalues of the Gram matrix divided by their sum, largest first, float64
            ``[N]``.
    """

    features: np.ndarray
    gram: np.ndarray
    eigenvalue_shares: np.ndarray

    @property
    def effective_rank(self) -> float:
        """``1 / Σ p²`` of the eigenvalue shares p. It is k for k equal eigenvalues if all others are 0."""
        return float(1 / np.sum(self.eigenvalue_shares**2))

    @property
    def strongest_channels(self) -> np.ndarray:
        """The channels in the order of their diagonal entries G_ii, largest first."""
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
    """Show the Gram matrices of an image, their spectra, and the feature maps of its strongest channels.

    ``G_ij = (1/M) Σ_k F_ki F_kj`` with the M positions k. The strongest channels are those with the largest
    G_ii.

    Args:
        image: input image.
        layers: layers, separated by commas; layers that the weights do not reach are left out.
        channels: number of feature maps for each layer.
        size: longest side of the image in pixels; a smaller image is not enlarged.
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        progress: function that is called with one line of text when a layer is done.

    Returns:
        The image, a diagram of the spectra, heat maps of the Gram matrices and feature maps, and a table.

    Raises:
        ConfigError: a layer does not exist, the weights reach none of the layers, or matplotlib is not
            installed.
        ImageError: the image cannot be read, or is too small for the layers.
        WeightsError: the weights cannot be read.

    Reference: Gatys, Ecker, Bethge 2016, eq. 3, divided by M.
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
        "First row: the image, and the spectra of its Gram matrices. Second row: the Gram matrices, channels "
        "by channels, on a logarithmic scale from the layer's largest entry down to "
        f"1e-{DECADES:g} of it. The effective rank is 1 / Σ p², where p are the eigenvalues divided by their "
        "sum. Other rows: the feature maps of each layer's strongest channels, which have the largest "
        f"entries on the diagonal. The longest side of the image is at most {size} pixels. "
        f"{describe_network(vgg_weights.source)} {left_out}"
    ).strip()
    facts = {"layers": list(available), "size": size, **network_facts(vgg_weights.source)}
    table = tuple({"layer": layer, **_matrix_columns(response)} for layer, response in responses.items())
    rows = (
        (Panel(original, "image"), spectra_diagram(spectra, "spectra")),
        tuple(_matrix_panel(layer, response) for layer, response in responses.items()),
        *feature_maps,
    )
    width = max(map(len, rows))
    return Study(
        "Gram matrices and feature maps of an image",
        tuple((*row, *[None] * (width - len(row))) for row in rows),
        caption=caption,
        table=table,
        facts=facts,
    )


def _eigenvalue_shares(gram: np.ndarray) -> np.ndarray:
    """Return the eigenvalues divided by their sum.

    Eigenvalues that rounding makes negative count as 0. If all are 0, zeros are returned.
    """
    eigenvalues = np.maximum(descending_eigenvalues(gram), 0)
    return np.asarray(eigenvalues / max(eigenvalues.sum(), np.finfo(float).tiny))


def _matrix_columns(response: LayerResponse) -> dict[str, Any]:
    diagonal = np.diag(response.gram)
    return {
        "channels": len(diagonal),
        "inactive channels": int((diagonal <= 0).sum()),
        "largest entry": float(response.gram.max()),
        "share of the largest eigenvalue": float(response.eigenvalue_shares[0]),
        "effective rank": response.effective_rank,
        "strongest channels": ",".join(map(str, response.strongest_channels[:3])),
    }


def _describe_matrix(response: LayerResponse) -> str:
    columns = _matrix_columns(response)
    return (
        f"{columns['channels']} channels, {columns['inactive channels']} inactive\n"
        f"largest eigenvalue {100 * columns['share of the largest eigenvalue']:.0f}% of the sum; "
        f"effective rank {response.effective_rank:.1f}"
    )


def _matrix_panel(layer: str, response: LayerResponse) -> Panel:
    image = heat_map(response.gram, decades=DECADES)
    return Panel(image, f"{layer}, Gram matrix", _describe_matrix(response))


def _feature_map_panel(layer: str, response: LayerResponse, *, rank: int) -> Panel:
    """Return the feature map of a channel. Rank 0 is the channel with the largest diagonal entry."""
    channel = int(response.strongest_channels[rank])
    feature_map = response.features[..., channel]
    trace = max(float(np.trace(response.gram)), np.finfo(float).tiny)
    share = response.gram[channel, channel] / trace
    return Panel(
        heat_map(feature_map),
        f"{layer}, channel {channel}",
        f"{100 * share:.1f}% of the trace; active at {100 * (feature_map > 0).mean():.0f}% of positions",
    )
