"""What a network makes of a picture: its Gram matrices, their spectra, and the channels that answer most."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tfstyle.config import STYLE_LAYERS
from tfstyle.images import load as load_image
from tfstyle.losses import gram_matrix
from tfstyle.network import Encoder, load_weights
from tfstyle.papers.heat_maps import heat_map
from tfstyle.papers.judging import there
from tfstyle.papers.study import Curves, Panel, Progress, Study

DECADES = 4.0  # that a heat map of a Gram matrix tells apart


class Seen(NamedTuple):
    """A layer's answer to a picture.

    Attributes:
        maps: float32 ``[h, w, N]``, the features.
        gram: float32 ``[N, N]``.
        shares: float64 ``[N]``, the Gram matrix' eigenvalues as shares of their sum, largest first.
    """

    maps: np.ndarray
    gram: np.ndarray
    shares: np.ndarray

    @property
    def rank(self) -> float:
        """``1 / Σ p²`` of the shares p: as many equal eigenvalues would have the same."""
        return float(1 / np.sum(self.shares**2))

    @property
    def strongest(self) -> np.ndarray:
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
    """A picture's Gram matrices, their spectra, and its strongest channels' feature maps.

    ``G_ij = (1/M) Σ_k F_ki F_kj``; the strongest channels are those with the largest G_ii.

    Args:
        image: the picture.
        layers: whose features are shown; those that the weights do not reach are left out.
        channels: feature maps for each layer.
        size: of the picture's longest side in pixels.
        weights: imagenet, embedded, random, auto or a file.
        progress: called with a line for each layer.

    Raises:
        ConfigError: an unknown layer, none that the weights reach, or no matplotlib.
        ImageError: the picture cannot be read, or is too small for the layers.

    Reference: Gatys, Ecker, Bethge 2016, eq. 3.
    """
    loaded = load_weights(weights)
    kept, left_out = there(loaded, layers)
    picture = load_image(image).fitted(size).on_white()
    features = Encoder(kept, loaded, padding="reflect")(picture[np.newaxis])
    seen = {}
    for layer in kept:
        gram = gram_matrix(features[layer])[0].numpy()
        seen[layer] = Seen(features[layer][0].numpy(), gram, _shares(gram))
        if progress is not None:
            progress(f"{layer}: {_of_matrix(seen[layer])}".replace("\n", "; "))
    most = min(channels, *(len(one.gram) for one in seen.values()))
    maps = [[_map(layer, one, k) for layer, one in seen.items()] for k in range(most)]
    caption = (
        "Gram matrices of a picture's features, channels by channels, on a logarithmic scale from the "
        f"layer's largest entry down to 1e-{DECADES:g} of it, with their effective rank, 1 / Σ p² of the "
        "eigenvalues' shares p; the eigenvalues; and the feature maps of each layer's strongest channels, "
        f"those with the largest entries on the diagonal. At {size} pixels, weights {loaded.source}. "
        f"{left_out}"
    ).strip()
    facts = {"layers": list(kept), "size": size, "weights": loaded.source}
    table = tuple({"layer": layer, **_numbers(one)} for layer, one in seen.items())
    rows = ((Panel(picture, "picture"), _spectra(seen)), tuple(_matrix(k, v) for k, v in seen.items()), *maps)
    width = max(map(len, rows))
    return Study(
        "What the network sees",
        tuple((*row, *[None] * (width - len(row))) for row in rows),
        caption,
        table,
        facts,
    )


def _shares(gram: np.ndarray) -> np.ndarray:
    values = np.maximum(np.linalg.eigvalsh(gram.astype(np.float64))[::-1], 0)
    return np.asarray(values / max(values.sum(), np.finfo(float).tiny))


def _numbers(seen: Seen) -> dict[str, Any]:
    diagonal = np.diag(seen.gram)
    return {
        "channels": len(diagonal),
        "silent": int((diagonal <= 0).sum()),
        "largest entry": float(seen.gram.max()),
        "largest eigenvalue": float(seen.shares[0]),
        "effective rank": seen.rank,
        "strongest": ",".join(map(str, seen.strongest[:3])),
    }


def _of_matrix(seen: Seen) -> str:
    found = _numbers(seen)
    return (
        f"{found['channels']} channels, {found['silent']} silent\n"
        f"largest eigenvalue {100 * found['largest eigenvalue']:.0f}%; effective rank {seen.rank:.1f}"
    )


def _matrix(layer: str, seen: Seen) -> Panel:
    return Panel(heat_map(seen.gram, decades=DECADES), f"{layer}, Gram matrix", _of_matrix(seen))


def _spectra(seen: dict[str, Seen]) -> Curves:
    series = {}
    for layer, one in seen.items():
        shown = one.shares > 1e-6
        series[layer] = (np.arange(1, len(shown) + 1)[shown].tolist(), one.shares[shown].tolist())
    return Curves(series, "spectra", "eigenvalue, largest first", "share of their sum")


def _map(layer: str, seen: Seen, place: int) -> Panel:
    channel = int(seen.strongest[place])
    answers = seen.maps[..., channel]
    share = seen.gram[channel, channel] / max(float(np.trace(seen.gram)), np.finfo(float).tiny)
    return Panel(
        heat_map(answers),
        f"{layer}, channel {channel}",
        f"{100 * share:.1f}% of the diagonal; fires at {100 * (answers > 0).mean():.0f}% of places",
    )
