"""Filters learned from images without labels by k-means of whitened patches, layer by layer.

From the first convolution to the deepest, 3 x 3 patches of a layer's input are whitened and clustered, and
the centroids become the layer's filters. This needs neither labels nor gradients. Three blocks take about one
minute.
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
from tfstyle.network.encoder import Encoder
from tfstyle.network.preprocessing import network_input
from tfstyle.network.weights import Weights, load_weights

log = logging.getLogger(__name__)

IMAGES_PER_LAYER = 500  # maximum; each layer draws its images anew
MIN_IMAGES = 4
PATCHES_PER_FILTER = 4  # minimum; with fewer patches some centroids would be single patches
# The next four values were chosen with `tests.benchmarks.embedded`: see tfstyle/data/PROVENANCE.md.
IMAGE_SIZE = 400  # maximum of an image's longest side in pixels
# Share of the patches' variance that the whitening keeps; it has at most one axis per filter.
EXPLAINED_VARIANCE = 0.999
RIDGE = 0.1  # added to every variance in the whitening, as a multiple of their mean
SILENT_SHARE = 0.2  # share of the patches for which a filter's activation is zero

#: Function called with a layer's name, the number of images read for it so far, and their total number.
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
    """Learn the convolutions of VGG-19 from images without labels.

    For each convolution, with x a 3 x 3 patch of its input, m the mean of the patches and W their whitening::

        D = unit centroids of spherical k-means on W (x - m), scaled to unit length; one centroid per filter
        f(x) = relu(D W (x - m) - t) / s

    t is the 20% quantile of each filter's responses to the patches. s is chosen so that the mean of f over
    the patches is 1 or, with a base, the mean activation of the input of the first layer learned.

    The images are read again for every layer, at most 500 per layer, so that memory does not grow with their
    number. The same images and seed give the same filters on the same machine.

    Args:
        images: a folder, which is searched with its subfolders, an image file, or a list of these, of
            `PIL.Image.Image`s or of arrays as `tfstyle.stylize` takes them. At least four images must be
            usable. An image that cannot be read, or is too small for the number of blocks, is left out, and
            the reason is logged.
        blocks: number of blocks that the weights reach, 1 to 5.
        base: weights of the lower layers, which are kept: only the layers above them are learned. By default
            all layers are learned.
        seed: seed of the choice of images and patches and of the clustering, at least 0.
        patches: approximate number of patches for each layer, at least 1.
        progress: called after each image with the layer's name, the number of images read for the layer, and
            the number of images to be read for it.

    Returns:
        Weights for VGG-19, which `Encoder` takes and `Weights.save` writes. Their note gives the number of
        images.

    Raises:
        ConfigError: `blocks`, `seed` or `patches` is out of its range, the base has weights for all layers
            of the blocks, or scikit-learn is not installed.
        ImageError: fewer than four images are usable, the images give too few patches, all their pixels have
            the same colour, or a file or folder does not exist.
        WeightsError: the base cannot be read or is not for VGG-19.

    Reference: Coates, Ng 2012, Learning Feature Representations with K-means, for whitening and
    clustering; Gatys, Ecker, Bethge 2016, section 2, for mean activations of 1. Differs from Coates and Ng:
    every filter has all channels of the layer below as its input, and the threshold is a quantile of the
    responses.

    Example:
        >>> import numpy as np
        >>> import tfstyle
        >>> images = list(np.random.default_rng(0).uniform(size=(4, 32, 32, 3)))
        >>> weights = tfstyle.pretrain(images, blocks=1, patches=600)
        >>> weights.layer_names
        ('conv1_1', 'conv1_2')
        >>> weights.note
        'learned from 4 images, 0 left out'
    """
    _check_scikit_learn()
    if seed < 0 or patches < 1:
        raise ConfigError(
            f"seed is {seed} and patches is {patches}; seed must be at least 0 and patches at least 1"
        )
    base_arrays = {} if base is None else dict(load_weights(base).arrays)
    layers = _layers_to_learn(blocks, base_arrays, base)
    collection = _ImageCollection(images, smallest=2**blocks)  # reflection needs two pixels in the last block
    arrays, mean_activation = base_arrays, 1.0
    for layer in layers:
        generator = np.random.default_rng([seed, NETWORKS["vgg19"].index(layer)])
        x = np.concatenate(list(_layer_patches(layer, arrays, collection, generator, patches, progress)))
        if len(x) < PATCHES_PER_FILTER * layer.filters:
            raise ImageError(
                f"{len(x)} patches are too few for the {layer.filters} filters of {layer.name}, which need "
                f"{PATCHES_PER_FILTER * layer.filters}; give more or larger images, more patches or fewer "
                "blocks"
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
    """The images to learn from. They are read one at a time, and an image that fails is not tried again."""

    def __init__(self, images: Any, smallest: int) -> None:
        items = images if isinstance(images, (list, tuple)) else [images]
        self._sources = [source for item in items for source in _image_sources(item)]
        self._smallest = smallest
        self._failed: set[int] = set()
        self._used: set[int] = set()

    def draw(self, generator: np.random.Generator) -> tuple[int, Iterator[np.ndarray]]:
        """Draw images for one layer in random order.

        Returns:
            The maximum number of images, and an iterator over float32 images ``[height, width, 3]`` in 0..1.
        """
        order = [i for i in generator.permutation(len(self._sources)).tolist() if i not in self._failed]
        return min(len(order), IMAGES_PER_LAYER), self._read(order)

    def _read(self, order: Sequence[int]) -> Iterator[np.ndarray]:
        done = 0
        for i in order:
            try:
                image = load(self._sources[i]).fitted(IMAGE_SIZE).on_white()
                if min(image.shape[:2]) < self._smallest:
                    raise ImageError(
                        f"{self._sources[i]}: the shorter side has {min(image.shape[:2])} pixels; at least "
                        f"{self._smallest} are needed"
                    )
            except ImageError as error:
                log.warning("image left out: %s", error)
                self._failed.add(i)
                continue
            self._used.add(i)
            yield image
            done += 1
            if done == IMAGES_PER_LAYER:
                return
        if done < MIN_IMAGES:
            raise ImageError(
                f"only {done} of {len(self._sources)} images can be used; at least {MIN_IMAGES} are needed"
            )

    def summary(self) -> str:
        """Return the numbers of images used and left out, in words."""
        return f"learned from {len(self._used)} images, {len(self._failed)} left out"


def _image_sources(item: Any) -> Iterable[Any]:
    return find_images([Path(item)]) if isinstance(item, (str, os.PathLike)) else [item]


def _layers_to_learn(blocks: int, base_arrays: dict[str, np.ndarray], base: object) -> list[Layer]:
    if blocks not in range(1, 6):
        raise ConfigError(f"blocks is {blocks!r}; it must be 1 to 5, as VGG-19 has five blocks")
    layers = [
        x for x in NETWORKS["vgg19"] if x.block <= blocks and f"{x.keras_name}/kernel" not in base_arrays
    ]
    if not layers:
        raise ConfigError(
            f"base is {base}, which already has all layers of {blocks} blocks; give more blocks"
        )
    return layers


def _layer_patches(
    layer: Layer,
    arrays: dict[str, np.ndarray],
    collection: _ImageCollection,
    generator: np.random.Generator,
    count: int,
    progress: Progress | None,
) -> Iterator[np.ndarray]:
    """Yield the patches of a layer's input from each image, float32 ``[patches, 9 * channels]``."""
    network = _network_below(layer, arrays)
    expected, images = collection.draw(generator)
    report = progress or (lambda layer, done, expected: None)
    done = 0
    for done, image in enumerate(images, 1):
        yield _sample_patches(network(tf.constant(image[None]))[0].numpy(), -(-count // expected), generator)
        report(layer.name, done, expected)
    if done < expected:  # some images could not be used
        report(layer.name, done, done)


def _network_below(layer: Layer, arrays: dict[str, np.ndarray]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the function from images to the input of a layer's convolution."""
    index = NETWORKS["vgg19"].index(layer)
    if index == 0:
        return network_input
    below = NETWORKS["vgg19"][index - 1]
    encoder = Encoder([below.name], Weights(arrays, "the layers below"), pooling="avg", padding="reflect")
    if below.block == layer.block:
        return lambda images: encoder(images)[below.name]
    return lambda images: tf.nn.avg_pool2d(encoder(images)[below.name], 2, 2, "VALID")


def _sample_patches(features: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return 3 x 3 patches ``[patches, 9 * channels]`` around distinct random positions of the features.

    Args:
        features: ``[height, width, channels]``.
        count: number of patches. If there are fewer positions, a patch of each is returned.
        generator: random generator.
    """
    height, width = features.shape[:2]
    indices = generator.choice(height * width, min(count, height * width), replace=False)
    y, x = indices // width, indices % width
    padded = np.pad(features, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    taps = [padded[y + i, x + j] for i in range(3) for j in range(3)]
    return np.concatenate(taps, axis=1)


def _learn_filters(
    x: np.ndarray, filters: int, seed: int, mean_activation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Learn a kernel ``[9 * channels, filters]`` and a bias ``[filters]``, float32, from patches.

    The mean of the patches is subtracted from `x` in place.
    """
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
    """Return the principal axes of x divided by their standard deviations, ``[features, axes]``.

    The product of x and this matrix is white but for `RIDGE`.
    """
    variances, axes = np.linalg.eigh(x.T @ x / len(x))
    variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1]
    if variances[0] <= 0:
        raise ImageError("all pixels of the images have the same colour; give images with texture")
    needed = int(np.searchsorted(np.cumsum(variances) / variances.sum(), EXPLAINED_VARIANCE)) + 1
    count = min(needed, max_axes)
    return axes[:, :count] / np.sqrt(variances[:count] + RIDGE * variances[:count].mean())


def _spherical_kmeans(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Cluster the directions of points, and return the unit centroids ``[count, dimensions]``."""
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
    except ImportError:
        raise ConfigError("learning filters needs scikit-learn; pip install 'tfstyle[pretrain]'") from None
