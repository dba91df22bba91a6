"""Pictures that make one entry of a Gram matrix as large as it will go."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.images import load as load_image
from tfstyle.losses import gram_matrix, total_variation
from tfstyle.network import Encoder, Weights, load_weights
from tfstyle.papers.descent import descend, white_noise
from tfstyle.papers.judging import in_rows
from tfstyle.papers.study import Panel, Progress, Study

#: An entry below this part of the layer's median one at the start hardly pulls at a pixel.
ALIVE = 1e-3
#: Keeps the logarithm finite where a trial step silences the channels.
TINY = 1e-6
ACROSS = 4  # pictures in a row of the mosaic
PHOTOGRAPH = 512  # pixels of the longest side that photographs are looked at with, beside the picture's own


class Entry(NamedTuple):
    """What came of one entry.

    Attributes:
        pair: i and j.
        image: float32 ``[size, size, 3]`` in 0..1.
        begun, reached: G_ij of the noise and of the image.
    """

    pair: tuple[int, int]
    image: np.ndarray
    begun: float
    reached: float


def gram_entry(
    *,
    layer: str | None = None,
    entries: str | None = None,
    count: int = 4,
    size: int = 128,
    iterations: int = 60,
    tv_weight: float = 30.0,
    photographs: tuple[str, ...] = (),
    seed: int = 0,
    weights: str = "auto",
    progress: Progress | None = None,
) -> Study:
    """Pictures that make one entry G_ij of one layer's Gram matrix as large as it will go.

    ``min_x  -ln(G_ij(x) / G_ij(noise)) + λ TV(x),  0 ≤ x ≤ 1``, from white noise by L-BFGS, for each pair
    by itself. The logarithm has G_ij's own maxima, and lets one λ serve entries of any size. Where i = j
    the picture is what one channel answers to, where i ≠ j what two answer to at one place.

    Args:
        layer: conv1_1 .. conv5_4; by default conv3_1, or the deepest where the weights stop below it.
        entries: pairs of channels, from 0, such as "0,0;3,17"; by default some that are alive at the start.
        count: how many pairs with i = j, and how many with i ≠ j, are drawn where none are given.
        size: height and width in pixels.
        iterations: evaluations of loss and gradient for each picture.
        tv_weight: λ. 10 is finer and louder, 100 calmer; at deep layers more is needed than at low ones.
        photographs: pictures whose own G_ij is set beside, at 512 pixels and at the size.
        seed: of the noise, and of which pairs are drawn.
        weights: imagenet, embedded, random, auto or a file.
        progress: called with a line for each picture.

    Raises:
        ConfigError: an unknown layer, a pair that is none or not the layer's, or one that nothing moves.
        WeightsError: the weights cannot be had, or have not that layer.

    Reference: Nikulin & Novak 2016, arXiv 1602.07188, whose abstract names the experiment. Our reading of:
    the logarithm, the bounds and the total variation.
    """
    encoder = _encoder(layer, load_weights(weights))
    start, of = white_noise(size, size, seed), _grams(encoder)
    begun = of(start)
    pairs = _drawn(begun, count, seed) if entries is None else _read(entries, begun, encoder.layers[0])
    found = []
    for pair in pairs:
        image = descend(_objective(encoder, pair, begun[pair], tv_weight), start, iterations).image
        found.append(Entry(pair, image, float(begun[pair]), float(of(image)[pair])))
        if progress is not None:
            progress(f"{_name(pair)}: {_numbers(found[-1])}")
    highest = _highest(
        [load_image(p).fitted(s).on_white() for p in photographs for s in (size, PHOTOGRAPH)], of
    )
    facts = {
        "layer": encoder.layers[0], "size": size, "iterations": iterations, "tv_weight": tv_weight,
        "seed": seed, "weights": encoder.weights.source, "photographs": [str(p) for p in photographs],
    }  # fmt: skip
    return _study(found, highest, facts)


def _encoder(layer: str | None, weights: Weights) -> Encoder:
    there = weights.layer_names
    chosen = layer if layer is not None else "conv3_1" if "conv3_1" in there else there[-1]
    return Encoder((chosen,), weights, padding="reflect")


def _grams(encoder: Encoder) -> Callable[[np.ndarray], np.ndarray]:
    """A function from an image ``[height, width, 3]`` to the layer's Gram matrix ``[N, N]``."""
    return lambda image: gram_matrix(encoder(image[np.newaxis])[encoder.layers[0]])[0].numpy()


def _objective(
    encoder: Encoder, pair: tuple[int, int], begun: float, tv_weight: float
) -> Callable[[tf.Tensor, Any], dict[str, tf.Tensor]]:
    (layer,), (i, j) = encoder.layers, pair

    def objective(image: tf.Tensor, targets: Any) -> dict[str, tf.Tensor]:
        features = encoder(image)[layer]
        ratio = tf.reduce_mean(features[..., i] * features[..., j]) / begun
        return {"total": tv_weight * total_variation(image) - tf.math.log(ratio + TINY)}

    return objective


def _drawn(gram: np.ndarray, count: int, seed: int) -> list[tuple[int, int]]:
    """Pairs that are alive, first those with i = j; no channel of the first is one of the second's."""
    channels = len(gram)
    order = np.random.default_rng(seed).permutation(channels)
    alive = [int(i) for i in order if gram[i, i] > ALIVE * np.median(np.diag(gram))]
    least = ALIVE * np.median(gram[~np.eye(channels, dtype=bool)])
    same, rest = alive[:count], alive[count:]
    apart: list[tuple[int, int]] = []
    while len(rest) > 1 and len(apart) < count:
        first = rest.pop(0)
        second = next((j for j in rest if gram[first, j] > least), None)
        if second is not None:
            rest.remove(second)
            apart.append((first, second))
    if not same:
        raise ConfigError(f"no channel is alive at the noise of seed {seed}; take another, or a larger size")
    return [*((i, i) for i in same), *apart]


def _read(text: str, gram: np.ndarray, layer: str) -> list[tuple[int, int]]:
    """The pairs of ``"0,0;3,17"``, checked."""
    pairs = []
    for part in text.split(";"):
        match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", part)
        if match is None:
            raise ConfigError(f'entries has {part!r}; expected pairs of channels such as "0,0;3,17"')
        pair = int(match[1]), int(match[2])
        if max(pair) >= len(gram):
            raise ConfigError(f"{layer} has channels 0 to {len(gram) - 1}; entries has {part!r}")
        if not gram[pair] > 0:
            raise ConfigError(
                f"{_name(pair)} of {layer} is 0 at the noise: nothing moves it; take another pair or seed"
            )
        pairs.append(pair)
    return pairs


def _highest(images: Sequence[np.ndarray], of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    """Entry by entry the largest over images; None if there are none."""
    return np.max([of(image) for image in images], 0) if images else None


def _name(pair: tuple[int, int]) -> str:
    return f"G[{pair[0]},{pair[1]}]"


def _numbers(entry: Entry) -> str:
    return f"{_short(entry.begun)} → {_short(entry.reached)}: × {_short(entry.reached / entry.begun)}"


def _short(number: float) -> str:
    """Three digits, without a power of ten."""
    return f"{float(f'{number:.3g}'):,.10g}"


def _study(found: Sequence[Entry], highest: np.ndarray | None, facts: dict[str, Any]) -> Study:
    panels, table = [], []
    for entry in found:
        name, numbers = _name(entry.pair), _numbers(entry)
        row = {"noise": entry.begun, "picture": entry.reached, "ratio": entry.reached / entry.begun}
        if highest is not None:
            row["most in a photograph"] = float(highest[entry.pair])
            numbers += f"\nmost in a photograph: {_short(highest[entry.pair])}"
        panels.append(Panel(entry.image, name, numbers))
        table.append({"entry": name, **row})
    kinds = [[p for p, e in zip(panels, found) if (e.pair[0] == e.pair[1]) == same] for same in (True, False)]
    columns = min(ACROSS, max(map(len, kinds)))
    rows = tuple(row for kind in kinds for row in in_rows(kind, columns))
    title = f"One entry of a Gram matrix made large: {facts['layer']}"
    return Study(title, rows, _caption(found, facts), tuple(table), facts)


def _caption(found: Sequence[Entry], facts: dict[str, Any]) -> str:
    ratios = [entry.reached / entry.begun for entry in found]
    return (
        f"Each picture makes one entry of the Gram matrix of {facts['layer']} large, first entries with i = "
        "j, what one channel answers to, then with i ≠ j, what two answer to at one place. Below each: the "
        f"entry at the noise start, at the end, and their ratio, from {_short(min(ratios))} to "
        f"{_short(max(ratios))} here. {facts['iterations']} evaluations at {facts['size']} pixels, weights "
        f"{facts['weights']}. After Nikulin & Novak 2016; our reading of it: the logarithm of the entry less "
        f"{facts['tv_weight']:g} times the total variation, pixels within 0..1."
    )
