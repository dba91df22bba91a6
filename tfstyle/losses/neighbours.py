"""Nearest neighbours among the features of style images: hypercolumns and their matches, and a style loss.

Distances between feature vectors are cosine distances, ``1 - cos``. Before nearest neighbours are searched,
the mean of the vectors of the image is subtracted from them, and likewise that of the style images' vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfstyle.losses.style import StyleLoss

#: Maximum number of feature vectors of the style images among which the style loss searches in each layer.
STYLE_SAMPLES = 4096
#: A feature map whose longer side has this many positions or more is sampled at every second row and column.
DENSE_SIDE = 256
#: Height and width of an image divided by those of its hypercolumns.
HYPERCOLUMN_STRIDE = 4
#: Lower bound of the squared norms by which vectors are divided.
SMALLEST_SQUARE = 1e-8
#: Number of vectors whose copies in float32 are in memory at the same time.
BLOCK_ROWS = 8192
# Largest number of entries of a matrix of similarities; in float32 they take 64 MiB.
_MATRIX_ENTRIES = 2**24


class FeatureSamples(NamedTuple):
    """Feature vectors of an image, or of all style images of a region.

    Attributes:
        vectors: ``[1, M, N]``.
        weights: weights of the vectors, float32 ``[1, M, 1]``; 0 for positions outside of a region.
    """

    vectors: tf.Tensor
    weights: tf.Tensor


class HypercolumnTarget(NamedTuple):
    """The hypercolumns that an image should have, which are vectors of style images.

    Attributes:
        parts: for each layer its channels of the hypercolumns, ``[1, h, w, N]``, of the data type of the
            features. A whole hypercolumn has the length 1.
        weights: weights of the positions, float32 ``[1, h, w, 1]``, at least 0.
    """

    parts: tuple[tf.Tensor, ...]
    weights: tf.Tensor


def _hypercolumn_parts(
    features: Mapping[str, tf.Tensor], layers: Sequence[str], size: object
) -> list[tf.Tensor]:
    """Return the features of each layer divided by its number of channels, resized bilinearly.

    Args:
        features: layer -> features of an image, ``[1, h, w, N]``.
        layers: names of layers.
        size: height and width of the result, a sequence or a tensor.

    Returns:
        For each layer ``[1, height, width, N]``, of the data type of the features.
    """
    # The features are resized as they are: a copy of them in float32 would stay in memory for the gradient.
    return [
        tf.cast(tf.image.resize(features[layer], size) / features[layer].shape[-1], features[layer].dtype)
        for layer in layers
    ]


def hypercolumns(
    features: Mapping[str, tf.Tensor], layers: Sequence[str], *, shape: Sequence[int] | tf.Tensor
) -> tf.Tensor:
    """Return the hypercolumns of an image: at each position the features of all layers, one after another.

    The features of a layer are divided by its number of channels, and resized bilinearly to a quarter of the
    height and width of the image.

    Args:
        features: layer -> features of the image, ``[1, h, w, N]``.
        layers: names of the layers.
        shape: height and width of the image in pixels.

    Returns:
        ``[1, height / 4, width / 4, ΣN]``, of the data type of the features.

    Reference: Kolkin et al. 2022, Neural Neighbor Style Transfer, section 3.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.losses import hypercolumns
        >>> features = {"conv1_1": tf.ones([1, 32, 48, 64]), "conv2_1": tf.ones([1, 16, 24, 128])}
        >>> hypercolumns(features, ["conv1_1", "conv2_1"], shape=(32, 48)).shape
        TensorShape([1, 8, 12, 192])
    """
    return tf.concat(_hypercolumn_parts(features, layers, _column_size(shape)), -1)


def hypercolumn_loss(
    features: Mapping[str, tf.Tensor], layers: Sequence[str], *, target: HypercolumnTarget
) -> tf.Tensor:
    """Return the mean cosine distance of the hypercolumns of an image from their targets.

    ``Σ_p w_p (1 - cos(h_p, t_p)) / Σ_p w_p`` over the positions p.

    Args:
        features: layer -> features of the image, ``[1, h, w, N]``.
        layers: names of the layers, as for `hypercolumns`.
        target: the targets t and the weights w.

    Returns:
        float32 scalar.

    Reference: Kolkin et al. 2022, Neural Neighbor Style Transfer, section 3.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.losses import HypercolumnTarget, hypercolumn_loss, unit_vectors
        >>> features = {"conv1_1": tf.random.uniform([1, 32, 48, 64])}
        >>> part = unit_vectors(tf.ones([1, 8, 12, 64]))
        >>> target = HypercolumnTarget((part,), tf.ones([1, 8, 12, 1]))
        >>> 0 < float(hypercolumn_loss(features, ["conv1_1"], target=target)) < 1
        True
    """
    # The products are summed over the layers, so that the hypercolumns need not be concatenated.
    parts = _hypercolumn_parts(features, layers, tf.shape(target.weights)[1:3])
    products = [_scalar_products(part, goal) for part, goal in zip(parts, target.parts, strict=True)]
    squares = [_scalar_products(part, part) for part in parts]
    return _weighted_average(1.0 - _cosines(tf.add_n(products), tf.add_n(squares)), target.weights)


def unit_vectors(vectors: tf.Tensor) -> tf.Tensor:
    """Return vectors divided by their lengths, or by 1e-4 if they are shorter, along the last axis."""
    return tf.math.l2_normalize(vectors, -1, epsilon=SMALLEST_SQUARE)


def nearest_neighbours(
    queries: tf.Tensor, samples: tf.Tensor, *, allowed: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return, for each query, the index of the most similar sample and the similarity of the two.

    The matrix of similarities is computed in chunks of queries, so that it needs at most 64 MiB.

    Args:
        queries: vectors ``[Q, N]``.
        samples: vectors ``[S, N]`` of the same data type.
        allowed: which samples may be chosen, boolean ``[S]``; None for all of them.

    Returns:
        The indices, int32 ``[Q]``, and the scalar products of the queries and their nearest samples, float32
        ``[Q]``. They have no gradient.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.losses import nearest_neighbours
        >>> indices, similarities = nearest_neighbours(tf.constant([[0.0, 1.0]]), tf.eye(2))
        >>> indices.numpy().tolist(), similarities.numpy().tolist()
        ([1], [1.0])
    """
    queries, samples = tf.stop_gradient(queries), tf.stop_gradient(samples)
    count, sample_count = tf.shape(queries)[0], tf.shape(samples)[0]
    rows = tf.clip_by_value(_MATRIX_ENTRIES // tf.maximum(sample_count, 1), 1, tf.maximum(count, 1))
    chunks = (count + rows - 1) // rows
    padded = tf.pad(queries, [[0, chunks * rows - count], [0, 0]])
    penalty = None if allowed is None else tf.where(allowed, 0.0, -math.inf)

    def match(chunk: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        similarities = tf.matmul(chunk, samples, transpose_b=True)
        if penalty is not None:
            similarities += tf.cast(penalty, similarities.dtype)
        indices = tf.argmax(similarities, 1, output_type=tf.int32)
        return indices, tf.cast(tf.reduce_max(similarities, 1), tf.float32)

    shape = [chunks, rows, queries.shape[1]]
    indices, similarities = tf.map_fn(
        match,
        tf.reshape(padded, shape),
        parallel_iterations=1,
        fn_output_signature=(tf.int32, tf.float32),
    )
    return tf.reshape(indices, [-1])[:count], tf.reshape(similarities, [-1])[:count]


def match_vectors(queries: tf.Tensor, sets: Callable[[], Iterator[tuple[tf.Tensor, tf.Tensor]]]) -> tf.Tensor:
    """Return, for each query, the most similar vector of several sets, scaled to unit length.

    Before the vectors are compared, the mean of the queries is subtracted from the queries, and the mean of
    all vectors that may be chosen from the vectors of the sets. The returned vectors are not centred. The
    function runs eagerly.

    Args:
        queries: vectors ``[Q, N]``.
        sets: function that returns an iterator over the sets, which is called twice, so that only one set is
            in memory at a time. A set is a pair of vectors ``[S, N]`` and booleans ``[S]`` that say which of
            them may be chosen.

    Returns:
        Vectors of length 1, ``[Q, N]``, of the data type of the queries.

    Reference: Kolkin et al. 2022, Neural Neighbor Style Transfer, section 3.
    """
    total, count = tf.zeros([1, queries.shape[1]]), tf.constant(0.0)
    for vectors, allowed in _blocks(sets()):
        mask = tf.cast(allowed, tf.float32)[:, tf.newaxis]
        total += tf.matmul(mask, tf.cast(vectors, tf.float32), transpose_a=True)
        count += tf.reduce_sum(mask)
    mean = total / tf.maximum(count, 1.0)
    parts = [slice(start, start + BLOCK_ROWS) for start in range(0, len(queries), BLOCK_ROWS)]
    sums = [tf.reduce_sum(tf.cast(queries[part], tf.float32), 0, keepdims=True) for part in parts]
    query_mean = tf.add_n(sums) / len(queries)
    centred = []
    for part in parts:
        difference = tf.cast(queries[part], tf.float32) - query_mean
        centred.append(tf.cast(unit_vectors(difference), queries.dtype))
    # The matches are updated in place, because a copy of all of them can take hundreds of megabytes.
    best = np.full(len(queries), -np.inf, np.float32)
    matched = np.zeros(queries.shape, queries.dtype.as_numpy_dtype)
    for vectors, allowed in _blocks(sets()):
        if not tf.reduce_any(allowed):
            continue
        single = tf.cast(vectors, tf.float32)
        searched = tf.cast(unit_vectors(single - mean), queries.dtype)
        candidates = tf.cast(unit_vectors(single), queries.dtype).numpy()
        for part, searching in zip(parts, centred, strict=True):
            indices, similarities = nearest_neighbours(searching, searched, allowed=allowed)
            better = similarities.numpy() > best[part]
            best[part][better] = similarities.numpy()[better]
            matched[part][better] = candidates[indices.numpy()[better]]
    return tf.constant(matched)


def _blocks(
    sets: Iterable[tuple[tf.Tensor, tf.Tensor]],
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Yield the sets in blocks of at most `BLOCK_ROWS` vectors, so that copies of a block are small."""
    for vectors, allowed in sets:
        for start in range(0, len(vectors), BLOCK_ROWS):
            yield vectors[start : start + BLOCK_ROWS], allowed[start : start + BLOCK_ROWS]


def _samples(features: tf.Tensor, weight: tf.Tensor | None) -> FeatureSamples:
    """Return the feature vectors at all positions, or at every second row and column of a large map."""
    height, width = tf.shape(features)[1], tf.shape(features)[2]
    stride = tf.where(tf.maximum(height, width) >= DENSE_SIDE, 2, 1)
    weight = tf.ones([1, height, width, 1]) if weight is None else weight
    vectors, weights = features[:, ::stride, ::stride], weight[:, ::stride, ::stride]
    # A small region may lie between the sampled rows and columns.
    empty = tf.reduce_max(weights) <= 0
    weights = tf.where(empty, tf.ones_like(weights), weights)
    return FeatureSamples(tf.reshape(vectors, [1, -1, features.shape[-1]]), tf.reshape(weights, [1, -1, 1]))


def pool_samples(samples: Sequence[FeatureSamples], shares: Sequence[float]) -> FeatureSamples:
    """Return the feature vectors of several images, at most `STYLE_SAMPLES`, drawn with a fixed seed.

    Only vectors inside of the region are drawn, that is, those with at least half of the largest weight of
    their image. An image with the share s gets at most the fraction ``s / max s`` of its vectors, and at most
    ``STYLE_SAMPLES s / Σ s`` of them, but at least one vector if s is not 0.

    Args:
        samples: the feature vectors of each image.
        shares: non-negative number of each image. If all are 0, they count as equal.

    Returns:
        The drawn vectors, each with the weight 1.
    """
    shares = shares if sum(shares) > 0 else [1.0] * len(samples)  # the style of a region has the share 0
    chosen = [(each, share) for each, share in zip(samples, shares, strict=True) if share > 0]
    largest, total = max(share for _, share in chosen), sum(share for _, share in chosen)
    parts = []
    for number, (each, share) in enumerate(chosen):
        count = tf.shape(each.vectors)[1]
        inside = each.weights[0, :, 0] >= 0.5 * tf.reduce_max(each.weights)
        available = tf.cast(tf.reduce_sum(tf.cast(inside, tf.int32)), tf.float32)
        wanted = tf.minimum(available * (share / largest), STYLE_SAMPLES * (share / total))
        keys = tf.random.stateless_uniform([count], (number, 0), alg="philox")
        order = tf.argsort(tf.where(inside, keys, 2.0))[: tf.maximum(tf.cast(wanted, tf.int32), 1)]
        weights = tf.cast(tf.gather(inside, order), tf.float32)
        parts.append((tf.gather(each.vectors[0], order), weights))
    vectors, weights = (tf.concat(tensors, 0) for tensors in zip(*parts, strict=True))
    return FeatureSamples(vectors[tf.newaxis], weights[tf.newaxis, :, tf.newaxis])


def neighbour_distance(image: FeatureSamples, style: FeatureSamples) -> tf.Tensor:
    """Return the mean cosine distance of feature vectors from their nearest neighbours in the style.

    ``Σ_p w_p min_j (1 - cos(x_p - x̄, s_j - s̄)) / Σ_p w_p`` with the means x̄ and s̄ of the vectors of the image
    and of the style. The vectors have the data type of the features, and sums are computed in float32.

    Args:
        image: the vectors x of the generated image and their weights w.
        style: the vectors s of the style; those with weight 0 do not take part.

    Returns:
        float32 scalar.
    """
    vectors = [tf.cast(each.vectors[0], tf.float32) for each in (image, style)]
    weights = [each.weights[0] for each in (image, style)]
    queries, samples = (
        v - tf.math.divide_no_nan(tf.reduce_sum(w * v, 0, keepdims=True), tf.reduce_sum(w))
        for v, w in zip(vectors, weights, strict=True)
    )
    queries = tf.cast(queries, image.vectors.dtype)
    samples = tf.cast(unit_vectors(samples), image.vectors.dtype)
    # The length of a query has no effect on which sample is the nearest.
    indices, _ = nearest_neighbours(queries, samples, allowed=weights[1][:, 0] > 0)
    products = _scalar_products(queries, tf.gather(samples, indices))
    return _weighted_average(1.0 - _cosines(products, _scalar_products(queries, queries)), weights[0])


#: The distance of feature vectors from their nearest neighbours in the style images.
#: Reference: Kolkin et al. 2022, Neural Neighbor Style Transfer, the final pass.
#: Differs from Kolkin et al.: the same positions of the image, and the same vectors of the style images, are
#: compared in all iterations, so that the loss is a fixed function.
NEIGHBOURS = StyleLoss(_samples, neighbour_distance, pool_samples)


def _scalar_products(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return the scalar products along the last axis, ``[..., 1]``; only the sums are in float32.

    In 16 bits, the tensors that the gradient needs then take half the memory.
    """
    return tf.reduce_sum(tf.cast(a * b, tf.float32), -1, keepdims=True)


def _cosines(products: tf.Tensor, squares: tf.Tensor) -> tf.Tensor:
    """Return the cosines between vectors and unit vectors, from scalar products and the vectors' squares."""
    return products * tf.math.rsqrt(tf.maximum(squares, SMALLEST_SQUARE))


def _weighted_average(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(tf.reduce_sum(weights * values), tf.reduce_sum(weights))


def _column_size(shape: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Return the height and width of the hypercolumns of an image, at least 1."""
    return tf.maximum(tf.convert_to_tensor(shape) // HYPERCOLUMN_STRIDE, 1)
