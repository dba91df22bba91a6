"""Gram matrices of an image's features and the embedding computed from them. Pure functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfstyle.losses import gram_matrix


def embedding(grams: Sequence[tf.Tensor], size: int | None = 1024) -> tf.Tensor:
    """Compute a vector of unit length for each image. The inner product of two vectors compares two styles.

    Each layer's Gram matrix is scaled to unit Frobenius norm, so that all layers have the same weight. The
    inner product of two embeddings is then the mean over layers of ``<G, H> / (|G| |H|)``.

    With ``size=None`` this holds exactly: the vector contains the upper triangle of each matrix, with the
    entries off the diagonal multiplied by √2. Otherwise it holds approximately, with an error of about
    1/√size: each matrix is projected by a tensor sketch, which adds the entry ij, multiplied by a random
    sign ``s_i t_j``, to the component ``(h_i + k_j) mod size``. The signs s, t and the positions h, k come
    from a random generator that is seeded with the position of the layer in ``grams``, its number of
    channels and ``size``, so that they are the same in every call.

    Args:
        grams: one tensor ``[batch, N, N]`` of `tfstyle.gram_matrix` per layer.
        size: number of components of the vector, or None for the whole triangles.

    Returns:
        float32 ``[batch, size]``; with ``size=None`` ``[batch, Σ N (N + 1) / 2]``, the sum over layers.
        The embedding of Gram matrices that are all zero is zero.

    Reference: Pham, Pagh 2013, Fast and Scalable Polynomial Kernels via Explicit Feature Maps; Gao et
    al. 2016, Compact Bilinear Pooling, arXiv 1511.06062, section 3.

    Example:
        >>> features = tf.random.uniform([2, 8, 8, 16])
        >>> embedding([gram_matrix(features)], size=64).shape
        TensorShape([2, 64])
        >>> embedding([gram_matrix(features)], size=None).shape  # 16 x 17 / 2
        TensorShape([2, 136])
    """
    scaled = [tf.math.divide_no_nan(g, tf.norm(g, axis=(1, 2), keepdims=True)) for g in grams]
    if size is None:
        vector = tf.concat([_upper_triangle(g) for g in scaled], 1)
    else:
        vector = tf.add_n([_tensor_sketch(g, size, layer) for layer, g in enumerate(scaled)])
    return tf.math.divide_no_nan(vector, tf.norm(vector, axis=1, keepdims=True))


def _upper_triangle(gram: tf.Tensor) -> tf.Tensor:
    """Return vectors ``[batch, N (N + 1) / 2]`` with the inner products of symmetric ``[batch, N, N]``."""
    rows, columns = np.triu_indices(gram.shape[-1])
    factor = np.where(rows == columns, 1, np.sqrt(2)).astype(np.float32)
    flat = tf.reshape(gram, [tf.shape(gram)[0], gram.shape[-1] ** 2])
    return tf.gather(flat, rows * gram.shape[-1] + columns, axis=1) * factor


def _tensor_sketch(gram: tf.Tensor, size: int, seed: int) -> tf.Tensor:
    """Project matrices ``[batch, N, N]`` to vectors ``[batch, size]``, as `embedding` describes."""
    channels = gram.shape[-1]
    generator = np.random.default_rng([seed, channels, size])
    positions = generator.integers(size, size=(2, channels)).astype(np.int32)
    signs = generator.choice([-1.0, 1.0], (2, channels)).astype(np.float32)
    # The constants are of size N. The graph computes those of size N² from them, so that the exported model
    # stays small.
    component = (tf.constant(positions[0])[:, None] + tf.constant(positions[1])) % size
    signed = gram * tf.constant(signs[0])[:, None] * tf.constant(signs[1])
    entries = tf.transpose(tf.reshape(signed, [tf.shape(gram)[0], channels**2]))
    return tf.transpose(tf.math.unsorted_segment_sum(entries, tf.reshape(component, [-1]), size))


def ten_views(images: tf.Tensor) -> tf.Tensor:
    """Crop the four corners and the centre of images, and add the mirror images of these five crops.

    Each side of a crop is 7/8 of the side of the image.

    Args:
        images: ``[batch, height, width, 3]``.

    Returns:
        ``[10 batch, 7 height / 8, 7 width / 8, 3]``, with sizes rounded down. The views of image i are at
        the indices i, i + batch, i + 2 batch, ...

    Reference: Krizhevsky, Sutskever, Hinton 2012, section 4.1, who crop 224 of 256 pixels.

    Example:
        >>> ten_views(tf.zeros([2, 64, 48, 3])).shape
        TensorShape([20, 56, 42, 3])
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
    """Compute the Gram matrix of each layer, and the `embedding` of all of them.

    Args:
        encoder: images -> dict of layer -> features ``[batch, h, w, N]``.
        images: float32 ``[batch, height, width, 3]`` in 0..1.
        layers: names of the layers whose Gram matrices are computed.
        embedding_size: number of components of the embedding, or None for the whole triangles.
        views: 1 for the images themselves, or 10 for the mean of the Gram matrices over `ten_views`.

    Returns:
        layer -> Gram matrix, float32 ``[batch, N, N]``; ``embedding`` -> float32 ``[batch, embedding_size]``.
    """

    def gram_matrices(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        features = encoder(batch)
        return {layer: gram_matrix(features[layer]) for layer in layers}

    if views == 1:
        grams = gram_matrices(images)
    else:  # One view at a time, so that ten views need no more memory than one.
        crops, batch = ten_views(images), tf.shape(images)[0]

        def add(i: tf.Tensor, sums: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            view_grams = gram_matrices(crops[i * batch : (i + 1) * batch])
            return i + 1, {layer: sums[layer] + view_grams[layer] for layer in layers}

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
