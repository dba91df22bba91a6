"""Filters learned from pictures without labels: k-means of whitened patches, layer by layer.

What VGG-19 learned from a million labelled photographs is replaced by what lies in the statistics of
a few: from the first convolution up, 3 x 3 patches of what a layer sees are whitened and clustered, and
the centroids become its filters. No gradient, no label, a minute for three blocks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfstyle.errors import ConfigError, ImageError
from tfstyle.images import find_images, load
from tfstyle.layers import NETWORKS, Layer
from tfstyle.network.encoder import Encoder, network_input
from tfstyle.network.weights import Weights, load_weights

log = logging.getLogger(__name__)

PICTURES_PER_LAYER = 500  # more are not read for one layer; the next draws others
FEWEST_PICTURES = 4
PATCHES_PER_FILTER = 4  # fewer make centroids of single patches
# The four below by the measure of `tests.benchmarks.embedded`; tfstyle/data/PROVENANCE.md has the numbers.
SIZE = 400  # pixels of a picture's longest side
VARIANCE = 0.999  # of the patches, kept by the whitening, in at most as many axes as there are filters
RIDGE = 0.1  # added to every variance before its root is divided by, in units of the kept ones' mean
SILENT = 0.2  # share of the patches to which a filter's answer is zero

#: Called with a layer's name, how many of its pictures are read, and how many will be.
Progress = Callable[[str, int, int], None]


def pretrain(
    images: Any,
    blocks: int = 3,
    base: str | os.PathLike[str] | Weights | None = None,
    seed: int = 0,
    patches: int = 30_000,
    progress: Progress | None = None,
) -> Weights:
    """Learn VGG-19's convolutions from pictures.

    For each convolution, with x the 3 x 3 patches of its input, m their mean and W their whitening::

        D = unit centroids of spherical k-means on unit W(x - m), one for each filter
        f(x) = relu(D W (x - m) - t) / s

    t is the answer that a fifth of the patches stay below, filter by filter, and s makes the mean of f
    over the patches 1, or, above a base, the mean of what the base's top layer hands on.

    Pictures are read again for every layer, at most 500 for each, so that memory does not grow with
    their number. The same pictures and seed give the same filters on the same machine.

    Args:
        images: a folder (searched through), a file, or a sequence of these, of `PIL.Image.Image`s or of
            arrays as `tfstyle.stylize` takes them; at least four that can be used. One that cannot
            be read, or is smaller than the depth asked for can look at, is left out and logged.
        blocks: how deep, 1 to 5.
        base: weights whose layers are kept; those above are learned on top. By default none.
        seed: of the choice of pictures and patches and of the clustering.
        patches: how many for each layer, about.
        progress: called while it goes on.

    Returns:
        Weights that `Encoder` and `Weights.save` take; their note says from how many pictures.

    Raises:
        ConfigError: no such depth, seed or number of patches, nothing to learn above the base, or
            scikit-learn is not installed.
        ImageError: too few usable pictures, or all of one colour.
        WeightsError: the base cannot be read.

    Reference: Coates, Ng 2012, Learning Feature Representations with K-means, for whitening and
    clustering; unit means as in Gatys, Ecker, Bethge 2016, section 2. Differs from Coates and Ng: every
    layer sees all channels of the one below, and the threshold is a share of the patches.
    """
    _need_scikit_learn()
    if seed < 0 or patches < 1:
        raise ConfigError(f"seed is {seed} and patches {patches}; they start from 0 and from 1")
    base_arrays = {} if base is None else dict(load_weights(base).arrays)
    layers = _layers_to_learn(blocks, base_arrays, base)
    collection = _Collection(images, smallest=2**blocks)  # two pixels in the top block, one to reflect
    arrays, level = base_arrays, 1.0
    for layer in layers:
        generator = np.random.default_rng([seed, NETWORKS["vgg19"].index(layer)])
        x = np.concatenate(list(_patches(layer, arrays, collection, generator, patches, progress)))
        if len(x) < PATCHES_PER_FILTER * layer.filters:
            raise ImageError(
                f"{len(x)} patches are too few for the {layer.filters} filters of {layer.name}; more or "
                f"larger images are needed, or fewer blocks"
            )
        if base_arrays and layer == layers[0]:
            level = float(x.mean())
        kernel, bias = _learn(x, layer.filters, seed, level)
        arrays = {
            **arrays,
            f"{layer.keras_name}/kernel": kernel.reshape(layer.kernel_shape),
            f"{layer.keras_name}/bias": bias,
        }
    return Weights(arrays, "learned without labels", collection.summary())


class _Collection:
    """The pictures to learn from, read one at a time; those that fail are not tried again."""

    def __init__(self, images: Any, smallest: int) -> None:
        several = isinstance(images, (list, tuple))
        self._sources = [s for item in (images if several else [images]) for s in _expanded(item)]
        self._smallest = smallest
        self._failed: set[int] = set()
        self._used: set[int] = set()

    def draw(self, generator: np.random.Generator) -> tuple[int, Iterator[np.ndarray]]:
        """How many pictures there will be at most, and they, in another order each time.

        Yields:
            float32 ``[height, width, 3]`` in 0..1.
        """
        order = [i for i in generator.permutation(len(self._sources)).tolist() if i not in self._failed]
        return min(len(order), PICTURES_PER_LAYER), self._read(order)

    def _read(self, order: Sequence[int]) -> Iterator[np.ndarray]:
        done = 0
        for i in order:
            try:
                picture = load(self._sources[i]).fitted(SIZE).on_white()
                if min(picture.shape[:2]) < self._smallest:
                    raise ImageError(f"{self._sources[i]}: smaller than {self._smallest} pixels")
            except ImageError as error:
                log.warning("left out: %s", error)
                self._failed.add(i)
                continue
            self._used.add(i)
            yield picture
            done += 1
            if done == PICTURES_PER_LAYER:
                return
        if done < FEWEST_PICTURES:
            raise ImageError(
                f"{done} of {len(self._sources)} pictures can be used; at least {FEWEST_PICTURES} are needed"
            )

    def summary(self) -> str:
        return f"learned from {len(self._used)} pictures, {len(self._failed)} left out"


def _expanded(item: Any) -> Iterable[Any]:
    return find_images([Path(item)]) if isinstance(item, (str, os.PathLike)) else [item]


def _layers_to_learn(blocks: int, base_arrays: dict[str, np.ndarray], base: object) -> list[Layer]:
    if blocks not in range(1, 6):
        raise ConfigError(f"blocks is {blocks!r}; VGG-19 has 1 to 5")
    layers = [
        x for x in NETWORKS["vgg19"] if x.block <= blocks and f"{x.keras_name}/kernel" not in base_arrays
    ]
    if not layers:
        raise ConfigError(f"{base} has all layers of {blocks} blocks; ask for more blocks")
    return layers


def _patches(
    layer: Layer,
    arrays: dict[str, np.ndarray],
    collection: _Collection,
    generator: np.random.Generator,
    count: int,
    progress: Progress | None,
) -> Iterator[np.ndarray]:
    """Yield patches of what a layer sees, float32 ``[some, 9 channels]``, picture by picture."""
    network = _network_below(layer, arrays)
    expected, pictures = collection.draw(generator)
    report = progress or (lambda layer, done, expected: None)
    done = 0
    for done, picture in enumerate(pictures, 1):
        yield _sample(network(tf.constant(picture[None]))[0].numpy(), -(-count // expected), generator)
        report(layer.name, done, expected)
    if done < expected:  # some could not be read
        report(layer.name, done, done)


def _network_below(layer: Layer, arrays: dict[str, np.ndarray]) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function from images to the input of a layer's convolution."""
    index = NETWORKS["vgg19"].index(layer)
    if index == 0:
        return network_input
    below = NETWORKS["vgg19"][index - 1]
    encoder = Encoder([below.name], Weights(arrays, "the layers below"), pooling="avg", padding="reflect")
    if below.block == layer.block:
        return lambda images: encoder(images)[below.name]
    return lambda images: tf.nn.avg_pool2d(encoder(images)[below.name], 2, 2, "VALID")


def _sample(features: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """3 x 3 patches around random positions of ``[height, width, channels]``, none twice."""
    height, width = features.shape[:2]
    places = generator.choice(height * width, min(count, height * width), replace=False)
    y, x = places // width, places % width
    padded = np.pad(features, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    taps = [padded[y + i, x + j] for i in range(3) for j in range(3)]
    return np.concatenate(taps, axis=1)


def _learn(x: np.ndarray, filters: int, seed: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Kernel ``[9 channels, filters]`` and bias ``[filters]``, float32, from patches."""
    mean = x.mean(axis=0)
    x -= mean
    whitening = _whitening(x, filters)
    directions = _spherical_kmeans(x @ whitening, filters, seed)
    kernel = whitening @ directions.T
    answers = x @ kernel
    threshold = np.quantile(answers, SILENT, axis=0)
    scale = level / np.maximum(np.maximum(answers - threshold, 0).mean(axis=0), 1e-12)
    return (kernel * scale).astype(np.float32), (-(mean @ kernel + threshold) * scale).astype(np.float32)


def _whitening(x: np.ndarray, most: int) -> np.ndarray:
    """Principal axes over their deviations, ``[features, kept]``: centred x times it is nearly white."""
    variances, axes = np.linalg.eigh(x.T @ x / len(x))
    variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1]
    if variances[0] <= 0:
        raise ImageError("the pictures are all of one colour; there is nothing to learn from them")
    enough = int(np.searchsorted(np.cumsum(variances) / variances.sum(), VARIANCE)) + 1
    kept = min(enough, most)
    return axes[:, :kept] / np.sqrt(variances[:kept] + RIDGE * variances[:kept].mean())


def _spherical_kmeans(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Unit vectors ``[count, dimensions]`` that the points' directions gather around."""
    from sklearn.cluster import MiniBatchKMeans

    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    units = points / np.maximum(lengths, 1e-6)
    clusters = MiniBatchKMeans(
        count, batch_size=2048, n_init=1, init_size=3 * count, max_no_improvement=20, random_state=seed
    ).fit(units)
    centroids = clusters.cluster_centers_
    return centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-6)


def _need_scikit_learn() -> None:
    try:
        import sklearn.cluster  # noqa: F401
    except ImportError as error:
        raise ConfigError("learning filters needs scikit-learn; pip install 'tfstyle[pretrain]'") from error
