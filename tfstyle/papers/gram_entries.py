"""Images that maximise one entry of a Gram matrix."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.images import load as load_image
from tfstyle.losses import total_variation
from tfstyle.network import Encoder, Weights, load_weights
from tfstyle.papers.descent import descend, white_noise
from tfstyle.papers.image_grams import image_gram_matrices
from tfstyle.papers.study import Panel, Progress, Study, panel_rows, report_progress
from tfstyle.papers.vgg_encoders import describe_network, network_facts, vgg_encoder

#: An entry below this part of the layer's median entry at the start has hardly a gradient.
ACTIVE_SHARE = 1e-3
#: Keeps the logarithm finite where a trial step silences the channels.
LOG_OFFSET = 1e-6
COLUMNS = 4  # images in a row of the figure
PHOTOGRAPH_SIZE = 512  # longest side in pixels at which photographs are measured, beside the images' own


class MaximisedEntry(NamedTuple):
    """The outcome of maximising one entry.

    Attributes:
        channels: i and j.
        image: float32 ``[size, size, 3]`` in 0..1.
        noise_value, image_value: G_ij of the noise and of the image.
    """

    channels: tuple[int, int]
    image: np.ndarray
    noise_value: float
    image_value: float

    @property
    def ratio(self) -> float:
        """The image's value over the noise's."""
        return self.image_value / self.noise_value


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
    """Images that maximise one entry G_ij of the Gram matrix of one layer.

    ``min_x  -ln(G_ij(x) / G_ij(noise)) + λ TV(x),  0 ≤ x ≤ 1``, from white noise by L-BFGS, for each pair
    by itself. The logarithm has G_ij's own maxima, and lets one λ serve entries of any size. Where i = j
    the image is what one channel answers to, where i ≠ j what two answer to at one place.

    Args:
        layer: conv1_1 .. conv5_4; by default conv3_1, or the deepest where the weights stop below it.
        entries: pairs of channels, from 0, such as "0,0;3,17"; by default some that are active at the start.
        count: how many pairs with i = j, and how many with i ≠ j, are drawn where none are given.
        size: height and width in pixels.
        iterations: evaluations of loss and gradient for each image.
        tv_weight: λ. 10 is finer and louder, 100 calmer; at deep layers more is needed than at low ones.
        photographs: images whose G_ij is given for comparison, at 512 pixels and at the size.
        seed: of the noise, and of which pairs are drawn.
        weights: imagenet, embedded, random, auto or a file.
        progress: called with a line for each image.

    Raises:
        ConfigError: an unknown layer, a pair that is none or not the layer's, or one that nothing moves.
        WeightsError: the weights cannot be had, or have not that layer.

    Reference: Nikulin & Novak 2016, arXiv 1602.07188, whose abstract names the experiment. Our reading of:
    the logarithm, the bounds and the total variation.
    """
    encoder = _make_encoder(load_weights(weights), layer)
    (layer,) = encoder.layers
    noise = white_noise(size, size, seed=seed)
    noise_gram = image_gram_matrices(encoder, noise)[layer]
    if entries is None:
        pairs = _sample_pairs(noise_gram, count, seed=seed)
    else:
        pairs = _parse_pairs(entries, noise_gram, layer=layer)
    maximised = []
    for pair in pairs:
        objective = _make_objective(encoder, pair, noise_value=noise_gram[pair], tv_weight=tv_weight)
        image = descend(objective, noise, iterations=iterations).image
        value = image_gram_matrices(encoder, image)[layer][pair]
        maximised.append(MaximisedEntry(pair, image, float(noise_gram[pair]), float(value)))
        report_progress(progress, _entry_name(pair), text=_describe_entry(maximised[-1]))
    photograph_grams = [
        image_gram_matrices(encoder, load_image(photograph).fitted(side).on_white())[layer]
        for photograph in photographs
        for side in (size, PHOTOGRAPH_SIZE)
    ]
    facts = {
        "layer": layer,
        "size": size,
        "iterations": iterations,
        "tv_weight": tv_weight,
        "seed": seed,
        **network_facts(encoder.weights.source),
        "photographs": [str(photograph) for photograph in photographs],
    }
    return _make_study(maximised, np.max(photograph_grams, 0) if photograph_grams else None, facts=facts)


def _make_encoder(vgg_weights: Weights, layer: str | None) -> Encoder:
    available = vgg_weights.layer_names
    default = "conv3_1" if "conv3_1" in available else available[-1]
    return vgg_encoder(vgg_weights, (default if layer is None else layer,))


def _make_objective(
    encoder: Encoder, pair: tuple[int, int], *, noise_value: float, tv_weight: float
) -> Callable[[tf.Tensor, Any], dict[str, tf.Tensor]]:
    (layer,), (i, j) = encoder.layers, pair

    def objective(image: tf.Tensor, targets: Any) -> dict[str, tf.Tensor]:
        features = encoder(image)[layer]
        ratio = tf.reduce_mean(features[..., i] * features[..., j]) / noise_value
        return {"total": tv_weight * total_variation(image) - tf.math.log(ratio + LOG_OFFSET)}

    return objective


def _sample_pairs(gram: np.ndarray, count: int, *, seed: int) -> list[tuple[int, int]]:
    """Sample active pairs, first those with i = j; no channel of these is one of the others."""
    channels = len(gram)
    permutation = np.random.default_rng(seed).permutation(channels)
    active = [int(i) for i in permutation if gram[i, i] > ACTIVE_SHARE * np.median(np.diag(gram))]
    smallest = ACTIVE_SHARE * np.median(gram[~np.eye(channels, dtype=bool)])
    single, remaining = active[:count], active[count:]
    different: list[tuple[int, int]] = []
    while len(remaining) > 1 and len(different) < count:
        first = remaining.pop(0)
        second = next((j for j in remaining if gram[first, j] > smallest), None)
        if second is not None:
            remaining.remove(second)
            different.append((first, second))
    if not single:
        raise ConfigError(f"no channel is active at the noise of seed {seed}; take another, or a larger size")
    return [*((i, i) for i in single), *different]


def _parse_pairs(text: str, gram: np.ndarray, *, layer: str) -> list[tuple[int, int]]:
    """Parse and check the pairs of ``"0,0;3,17"``."""
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
                f"{_entry_name(pair)} of {layer} is 0 at the noise: nothing moves it; take another pair or "
                "seed"
            )
        pairs.append(pair)
    return pairs


def _entry_name(pair: tuple[int, int]) -> str:
    return f"G[{pair[0]},{pair[1]}]"


def _describe_entry(entry: MaximisedEntry) -> str:
    noise_value, image_value = _three_digits(entry.noise_value), _three_digits(entry.image_value)
    return f"{noise_value} → {image_value}: × {_three_digits(entry.ratio)}"


def _three_digits(number: float) -> str:
    """Write a number without a power of ten."""
    return f"{float(f'{number:.3g}'):,.10g}"


def _make_study(
    maximised: Sequence[MaximisedEntry], photograph_maximum: np.ndarray | None, *, facts: dict[str, Any]
) -> Study:
    """Arrange the images; ``photograph_maximum`` has for every entry the largest value in a photograph."""
    diagonal: list[Panel] = []
    off_diagonal: list[Panel] = []
    table = []
    for entry in maximised:
        name, numbers = _entry_name(entry.channels), _describe_entry(entry)
        row = {"noise": entry.noise_value, "picture": entry.image_value, "ratio": entry.ratio}
        if photograph_maximum is not None:
            row["most in a photograph"] = float(photograph_maximum[entry.channels])
            numbers += f"\nmost in a photograph: {_three_digits(photograph_maximum[entry.channels])}"
        i, j = entry.channels
        (diagonal if i == j else off_diagonal).append(Panel(entry.image, name, numbers))
        table.append({"entry": name, **row})
    columns = min(COLUMNS, max(len(diagonal), len(off_diagonal)))
    rows = (*panel_rows(diagonal, columns), *panel_rows(off_diagonal, columns))
    title = f"One entry of a Gram matrix made large: {facts['layer']}"
    return Study(title, rows, caption=_caption(maximised, facts), table=tuple(table), facts=facts)


def _caption(maximised: Sequence[MaximisedEntry], facts: dict[str, Any]) -> str:
    ratios = [entry.ratio for entry in maximised]
    return (
        f"Each picture makes one entry of the Gram matrix of {facts['layer']} large, first entries with i = "
        "j, what one channel answers to, then with i ≠ j, what two answer to at one place. Below each: the "
        f"entry at the noise start, at the end, and their ratio, from {_three_digits(min(ratios))} to "
        f"{_three_digits(max(ratios))} here. {facts['iterations']} evaluations at {facts['size']} pixels. "
        f"{describe_network(facts['weights'])} After Nikulin & Novak 2016; our reading of it: the logarithm "
        f"of the entry less {facts['tv_weight']:g} times the total variation, pixels within 0..1."
    )
