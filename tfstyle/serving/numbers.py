"""What is kept of an image's features: Gram matrices, and a vector of them. Pure functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfstyle.losses import gram_matrix


def embedding(grams: Sequence[tf.Tensor], size: int | None = 1024) -> tf.Tensor:
    """One vector of unit length per image, to compare styles by their inner products.

    Each layer's Gram matrix is scaled to unit Frobenius norm, so that no layer drowns another. The inner
    product of two embeddings is then the mean over layers of ``<G, H> / (|G| |H|)``: exactly, where
    ``size`` is None and the vector holds the upper triangles (those off the diagonal times √2), and about
    so, with an error of some 1/√size, where they are projected by tensor sketches: the entry ij is added,
    with a random sign ``s_i t_j``, to the component ``(h_i + k_j) mod size``. The signs and places are
    fixed by the layer's number and the size.

    Args:
        grams: one tensor ``[batch, N, N]`` of `gram_matrix` per layer.
        size: components of the vector, or None for all of every triangle.

    Returns:
        float32 ``[batch, size]``.

    Reference: Pham, Pagh 2013, Fast and Scalable Polynomial Kernels via Explicit Feature Maps; Gao et
    al. 2016, Compact Bilinear Pooling, arXiv 1511.06062, section 3.
    """
    scaled = [tf.math.divide_no_nan(g, tf.norm(g, axis=(1, 2), keepdims=True)) for g in grams]
    if size is None:
        vector = tf.concat([_upper_triangle(g) for g in scaled], 1)
    else:
        vector = tf.add_n([_tensor_sketch(g, size, layer) for layer, g in enumerate(scaled)])
    return tf.math.divide_no_nan(vector, tf.norm(vector, axis=1, keepdims=True))


def _upper_triangle(gram: tf.Tensor) -> tf.Tensor:
    """``[batch, N (N + 1) / 2]`` whose inner products are those of the symmetric ``[batch, N, N]``."""
    rows, columns = np.triu_indices(gram.shape[-1])
    factor = np.where(rows == columns, 1, np.sqrt(2)).astype(np.float32)
    flat = tf.reshape(gram, [tf.shape(gram)[0], gram.shape[-1] ** 2])
    return tf.gather(flat, rows * gram.shape[-1] + columns, axis=1) * factor


def _tensor_sketch(gram: tf.Tensor, size: int, seed: int) -> tf.Tensor:
    channels = gram.shape[-1]
    generator = np.random.default_rng([seed, channels, size])
    places = generator.integers(size, size=(2, channels)).astype(np.int32)
    signs = generator.choice([-1.0, 1.0], (2, channels)).astype(np.float32)
    # As small constants, from which the graph makes the large ones: an exported model stays small.
    place = (tf.constant(places[0])[:, None] + tf.constant(places[1])) % size
    signed = gram * tf.constant(signs[0])[:, None] * tf.constant(signs[1])
    entries = tf.transpose(tf.reshape(signed, [tf.shape(gram)[0], channels**2]))
    return tf.transpose(tf.math.unsorted_segment_sum(entries, tf.reshape(place, [-1]), size))


def ten_views(images: tf.Tensor) -> tf.Tensor:
    """The four corners and the centre, 7/8 of each side, and their mirror images.

    Args:
        images: ``[batch, height, width, 3]``.

    Returns:
        ``[10 batch, 7 height / 8, 7 width / 8, 3]``, sizes rounded down; image i's views are i, i +
        batch, i + 2 batch, ...

    Reference: Krizhevsky, Sutskever, Hinton 2012, section 4.1, who take 224 of 256 pixels.
    """
    shape = tf.shape(images)
    height, width = 7 * shape[1] // 8, 7 * shape[2] // 8
    down, right = shape[1] - height, shape[2] - width
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    views = [images[:, top : top + height, left : left + width] for top, left in corners]
    return tf.concat([*views, *(tf.reverse(view, [2]) for view in views)], 0)


def style_numbers(
    encoder: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    images: tf.Tensor,
    *,
    layers: Sequence[str],
    embedding_size: int | None = 1024,
    views: int = 1,
) -> dict[str, tf.Tensor]:
    """The Gram matrix of each layer, and the `embedding` of them all.

    Args:
        encoder: a function from images to features by layer.
        images: float32 ``[batch, height, width, 3]`` in 0..1.
        layers: whose features are summarised.
        embedding_size: as `embedding` takes it.
        views: 1, or 10 for the mean over `ten_views`.

    Returns:
        layer -> float32 ``[batch, N, N]``; ``embedding`` -> float32 ``[batch, size]``.
    """

    def gram_matrices(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        features = encoder(batch)
        return {layer: gram_matrix(features[layer]) for layer in layers}

    if views == 1:
        grams = gram_matrices(images)
    else:  # one after the other: ten views take no more memory than one
        crops, batch = ten_views(images), tf.shape(images)[0]

        def add(i: tf.Tensor, sums: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            more = gram_matrices(crops[i * batch : (i + 1) * batch])
            return i + 1, {layer: sums[layer] + more[layer] for layer in layers}

        first = gram_matrices(crops[:batch])
        shapes = {layer: tf.TensorShape([None, *gram.shape[1:]]) for layer, gram in first.items()}
        _, sums = tf.while_loop(
            lambda i, _: i < views,
            add,
            (tf.constant(1), first),
            shape_invariants=(tf.TensorShape([]), shapes),
            parallel_iterations=1,
        )
        grams = {layer: total / views for layer, total in sums.items()}
    return {**grams, "embedding": embedding(list(grams.values()), embedding_size)}
