"""Filters learned from images without labels: k-means of whitened patches, layer by layer.

The filters that VGG-19 learned from a million labelled photographs are replaced by the statistics of a few:
from the first convolution up, 3 x 3 patches of a layer's input are whitened and clustered, and the centroids
become its filters. No gradient, no label, a minute for three blocks.
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

IMAGES_PER_LAYER = 500  # at most; each layer draws others
MIN_IMAGES = 4
PATCHES_PER_FILTER = 4  # fewer make centroids of single patches
# The four below by the measure of `tests.benchmarks.embedded`; tfstyle/data/PROVENANCE.md has the numbers.
IMAGE_SIZE = 400  # pixels of an image's longest side
EXPLAINED_VARIANCE = 0.999  # of the patches, by the axes of the whitening; at most one axis per filter
RIDGE = 0.1  # added to every variance of the whitening, in units of their mean
SILENT_SHARE = 0.2  # share of the patches for which a filter's activation is zero

#: Called with a layer's name, how many images have been read for it, and how many will be.
Progress = Callable[[str, int, int], None]


def pretrain(
    images: Any,
    *,
    blocks: int = 3,
    base: str | os.PathLike[str] | Weights | None = None,
    seed: int = 0,
    patches: int = 30_000,
    progress: Progress | None = None,
) -> Weights:
    """Learn VGG-19's convolutions from images.

    For each convolution, with x the 3 x 3 patches of its input, m their mean and W their whitening::

        D = unit centroids of spherical k-means on unit W(x - m), one for each filter
        f(x) = relu(D W (x - m) - t) / s

    t is the 20% quantile of each filter's responses to the patches, and s makes the mean of f over the
    patches 1, or, above a base, the mean activation of the base's top layer.

    Images are read again for every layer, at most 500 for each, so that memory does not grow with
    their number. The same images and seed give the same filters on the same machine.

    Args:
        images: a folder (searched through), a file, or a sequence of these, of `PIL.Image.Image`s or of
            arrays as `tfstyle.stylize` takes them; at least four that can be used. One that cannot
            be read, or is too small for the depth asked for, is left out and logged.
        blocks: how deep, 1 to 5.
        base: weights of the lower layers; only the layers above are learned. By default none.
        seed: of the choice of images and patches and of the clustering.
        patches: approximate number for each layer.
        progress: called after each image.

    Returns:
        Weights that `Encoder` and `Weights.save` take; their note says from how many images.

    Raises:
        ConfigError: no such depth, seed or number of patches, nothing to learn above the base, or
            scikit-learn is not installed.
        ImageError: too few usable images, or all of one colour.
        WeightsError: the base cannot be read.

    Reference: Coates, Ng 2012, Learning Feature Representations with K-means, for whitening and
    clustering; unit means as in Gatys, Ecker, Bethge 2016, section 2. Differs from Coates and Ng: every
    layer sees all channels of the one below, and the threshold is a share of the patches.
    """
    _check_scikit_learn()
    if seed < 0 or patches < 1:
        raise ConfigError(f"seed is {seed} and patches {patches}; they start from 0 and from 1")
    base_arrays = {} if base is None else dict(load_weights(base).arrays)
    layers = _layers_to_learn(blocks, base_arrays, base)
    collection = _ImageCollection(images, smallest=2**blocks)  # two pixels in the top block, one to reflect
    arrays, mean_activation = base_arrays, 1.0
    for layer in layers:
        generator = np.random.default_rng([seed, NETWORKS["vgg19"].index(layer)])
        x = np.concatenate(list(_layer_patches(layer, arrays, collection, generator, patches, progress)))
        if len(x) < PATCHES_PER_FILTER * layer.filters:
            raise ImageError(
                f"{len(x)} patches are too few for the {layer.filters} filters of {layer.name}; more or "
                f"larger images are needed, or fewer blocks"
            )
        if base_arrays and layer == layers[0]:
            mean_activation = float(x.mean())
        kernel, bias = _learn_filters(x, layer.filters, seed=seed, mean_activation=mean_activation)
        arrays = {
            **arrays,
            f"{layer.keras_name}/kernel": kernel.reshape(layer.kernel_shape),
            f"{layer.keras_name}/bias": bias,
        }
    return Weights(arrays, "learned without labels", note=collection.summary())


class _ImageCollection:
    """The images to learn from, read one at a time; those that fail are not tried again."""

    def __init__(self, images: Any, smallest: int) -> None:
        items = images if isinstance(images, (list, tuple)) else [images]
        self._sources = [source for item in items for source in _image_sources(item)]
        self._smallest = smallest
        self._failed: set[int] = set()
        self._used: set[int] = set()

    def draw(self, generator: np.random.Generator) -> tuple[int, Iterator[np.ndarray]]:
        """The number of images at most, and the images, in another order each time.

        Yields:
            float32 ``[height, width, 3]`` in 0..1.
        """
        order = [i for i in generator.permutation(len(self._sources)).tolist() if i not in self._failed]
        return min(len(order), IMAGES_PER_LAYER), self._read(order)

    def _read(self, order: Sequence[int]) -> Iterator[np.ndarray]:
        done = 0
        for i in order:
            try:
                image = load(self._sources[i]).fitted(IMAGE_SIZE).on_white()
                if min(image.shape[:2]) < self._smallest:
                    raise ImageError(f"{self._sources[i]}: smaller than {self._smallest} pixels")
            except ImageError as error:
                log.warning("left out: %s", error)
                self._failed.add(i)
                continue
            self._used.add(i)
            yield image
            done += 1
            if done == IMAGES_PER_LAYER:
                return
        if done < MIN_IMAGES:
            raise ImageError(
                f"{done} of {len(self._sources)} pictures can be used; at least {MIN_IMAGES} are needed"
            )

    def summary(self) -> str:
        return f"learned from {len(self._used)} pictures, {len(self._failed)} left out"


def _image_sources(item: Any) -> Iterable[Any]:
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


def _layer_patches(
    layer: Layer,
    arrays: dict[str, np.ndarray],
    collection: _ImageCollection,
    generator: np.random.Generator,
    count: int,
    progress: Progress | None,
) -> Iterator[np.ndarray]:
    """Yield patches of a layer's input, float32 ``[patches, 9 channels]``, image by image."""
    network = _network_below(layer, arrays)
    expected, images = collection.draw(generator)
    report = progress or (lambda layer, done, expected: None)
    done = 0
    for done, image in enumerate(images, 1):
        yield _sample_patches(network(tf.constant(image[None]))[0].numpy(), -(-count // expected), generator)
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


def _sample_patches(features: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """3 x 3 patches around distinct random positions of ``[height, width, channels]``."""
    height, width = features.shape[:2]
    indices = generator.choice(height * width, min(count, height * width), replace=False)
    y, x = indices // width, indices % width
    padded = np.pad(features, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    taps = [padded[y + i, x + j] for i in range(3) for j in range(3)]
    return np.concatenate(taps, axis=1)


def _learn_filters(
    x: np.ndarray, filters: int, seed: int, mean_activation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel ``[9 channels, filters]`` and bias ``[filters]``, float32, from patches."""
    mean = x.mean(axis=0)
    x -= mean
    whitening = _whitening(x, filters)
    directions = _spherical_kmeans(x @ whitening, filters, seed)
    kernel = whitening @ directions.T
    responses = x @ kernel
    threshold = np.quantile(responses, SILENT_SHARE, axis=0)
    scale = mean_activation / np.maximum(np.maximum(responses - threshold, 0).mean(axis=0), 1e-12)
    return (kernel * scale).astype(np.float32), (-(mean @ kernel + threshold) * scale).astype(np.float32)


def _whitening(x: np.ndarray, max_axes: int) -> np.ndarray:
    """Principal axes over their standard deviations, ``[features, axes]``: x times it is nearly white."""
    variances, axes = np.linalg.eigh(x.T @ x / len(x))
    variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1]
    if variances[0] <= 0:
        raise ImageError("the images are all of one colour; there is nothing to learn from them")
    needed = int(np.searchsorted(np.cumsum(variances) / variances.sum(), EXPLAINED_VARIANCE)) + 1
    count = min(needed, max_axes)
    return axes[:, :count] / np.sqrt(variances[:count] + RIDGE * variances[:count].mean())


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


def _check_scikit_learn() -> None:
    try:
        import sklearn.cluster  # noqa: F401
    except ImportError as error:
        raise ConfigError("learning filters needs scikit-learn; pip install 'tfstyle[pretrain]'") from error
