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

#: Entries at the start below this fraction of the layer's median entry are not sampled: their gradients are
#: small.
ACTIVE_SHARE = 1e-3
#: Offset that keeps the logarithm finite if an entry becomes 0 in a trial step.
LOG_OFFSET = 1e-6
COLUMNS = 4  # images in a row of the figure
PHOTOGRAPH_SIZE = 512  # photographs are measured at this longest side in pixels and at the size of the images


class MaximisedEntry(NamedTuple):
    """The result of maximising one entry G_ij.

    Attributes:
        channels: the channels i and j.
        image: the image that maximises the entry, float32 ``[size, size, 3]`` in 0..1.
        noise_value: G_ij of the noise at the start.
        image_value: G_ij of the image.
    """

    channels: tuple[int, int]
    image: np.ndarray
    noise_value: float
    image_value: float

    @property
    def ratio(self) -> float:
        """The ratio of the image's value to the noise's value."""
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
    """Synthesise images that maximise one entry G_ij of the Gram matrix of one layer.

    ``min_x  -ln(G_ij(x) / G_ij(noise)) + λ TV(x),  0 ≤ x ≤ 1`` is solved for each pair of channels by L-BFGS
    from white noise. The logarithm does not change where G_ij has its maxima, and makes the same λ suitable
    for entries of any magnitude. For i = j, the image shows a pattern that activates one channel. For i ≠ j,
    it shows a pattern that activates two channels at the same position.

    Args:
        layer: layer of the Gram matrix, conv1_1 to conv5_4; by default conv3_1, or the deepest layer of the
            weights if they end below conv3_1.
        entries: pairs of channels, counted from 0, such as "0,0;3,17"; by default, pairs that are active in
            the noise are sampled.
        count: number of sampled pairs with i = j, and of sampled pairs with i ≠ j, if entries are not given.
        size: height and width of the images in pixels.
        iterations: number of iterations for each image.
        tv_weight: weight λ of the total variation. With 10 the images have finer detail and more contrast,
            with 100 they are smoother. Deep layers need a larger weight than shallow layers.
        photographs: image files, separated by commas, whose largest G_ij is given for comparison; each is
            measured at 512 pixels and at the size of the images.
        seed: seed of the noise and of the sampled pairs.
        weights: VGG-19 weights: auto (imagenet if they can be downloaded, otherwise embedded), imagenet,
            embedded, random, or a weights file.
        progress: function that is called with one line of text when an image is done.

    Returns:
        The images with the values of their entries, and a table.

    Raises:
        ConfigError: the layer does not exist, a pair is malformed or has a channel that the layer does not
            have, or the entry is 0 in the noise.
        ImageError: a photograph cannot be read.
        WeightsError: the weights cannot be read, or do not reach the layer.

    Reference: Nikulin & Novak 2016, arXiv 1602.07188, whose abstract names the experiment. Our reading:
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
    """Return active pairs, first those with i = j. Every channel is in at most one pair."""
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
        raise ConfigError(
            f"no channel of the layer is active in the noise of seed {seed}; give another seed or a larger "
            "size"
        )
    return [*((i, i) for i in single), *different]


def _parse_pairs(text: str, gram: np.ndarray, *, layer: str) -> list[tuple[int, int]]:
    """Parse and check pairs of channels, such as ``"0,0;3,17"``."""
    pairs = []
    for part in text.split(";"):
        match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", part)
        if match is None:
            raise ConfigError(f'entries has {part!r}; give pairs of channels such as "0,0;3,17"')
        pair = int(match[1]), int(match[2])
        if max(pair) >= len(gram):
            raise ConfigError(f"entries has {part!r}; the channels of {layer} are 0 to {len(gram) - 1}")
        if not gram[pair] > 0:
            raise ConfigError(
                f"{_entry_name(pair)} of {layer} is 0 in the noise of the start, so that it has no gradient; "
                "give another pair or another seed"
            )
        pairs.append(pair)
    return pairs


def _entry_name(pair: tuple[int, int]) -> str:
    return f"G[{pair[0]},{pair[1]}]"


def _describe_entry(entry: MaximisedEntry) -> str:
    noise_value, image_value = _three_digits(entry.noise_value), _three_digits(entry.image_value)
    return f"{noise_value} → {image_value}: × {_three_digits(entry.ratio)}"


def _three_digits(number: float) -> str:
    """Return a number with three significant digits and without an exponent."""
    return f"{float(f'{number:.3g}'):,.10g}"


def _make_study(
    maximised: Sequence[MaximisedEntry], photograph_maximum: np.ndarray | None, *, facts: dict[str, Any]
) -> Study:
    """Arrange the images. ``photograph_maximum`` has the largest value of every entry in the photographs."""
    diagonal: list[Panel] = []
    off_diagonal: list[Panel] = []
    table = []
    for entry in maximised:
        name, numbers = _entry_name(entry.channels), _describe_entry(entry)
        row = {"noise": entry.noise_value, "image": entry.image_value, "ratio": entry.ratio}
        if photograph_maximum is not None:
            row["largest in a photograph"] = float(photograph_maximum[entry.channels])
            numbers += f"\nlargest in a photograph: {_three_digits(photograph_maximum[entry.channels])}"
        i, j = entry.channels
        (diagonal if i == j else off_diagonal).append(Panel(entry.image, name, numbers))
        table.append({"entry": name, **row})
    columns = min(COLUMNS, max(len(diagonal), len(off_diagonal)))
    rows = (*panel_rows(diagonal, columns), *panel_rows(off_diagonal, columns))
    title = f"Images that maximise one entry of the Gram matrix of {facts['layer']}"
    return Study(title, rows, caption=_caption(maximised, facts), table=tuple(table), facts=facts)


def _caption(maximised: Sequence[MaximisedEntry], facts: dict[str, Any]) -> str:
    ratios = [entry.ratio for entry in maximised]
    return (
        f"Each image maximises one entry G[i,j] of the Gram matrix of {facts['layer']}. Entries with i = j "
        "come first and show a pattern that activates one channel; entries with i ≠ j show a pattern that "
        "activates two channels at the same position. Below each image: the entry in the noise of the start, "
        f"the entry in the image, and their ratio, which is from {_three_digits(min(ratios))} to "
        f"{_three_digits(max(ratios))}. {facts['iterations']} iterations at {facts['size']} pixels. "
        f"{describe_network(facts['weights'])} After Nikulin & Novak 2016. Our reading: the objective is the "
        f"logarithm of the entry minus {facts['tv_weight']:g} times the total variation, for pixels in 0..1."
    )
