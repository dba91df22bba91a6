"""The self-similarity loss, which compares the distances between the features of an image at some positions.

The distances describe the layout of an image, that is, which parts are alike and which differ. They do not
change if every part gets other features, as long as all parts remain as similar to each other as they were.
The textures and colours of a style can therefore replace those of the content image.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

#: Maximum number of positions at which the features of a layer are compared.
POSITIONS = 1024
#: Smallest divisor of a column of distances, per position. Smaller sums can consist of rounding errors.
LEAST_MEAN_DISTANCE = 1e-4
# Vectors with a smaller squared length count as zero vectors.
LEAST_SQUARE = 1e-30


class SelfSimilarityTarget(NamedTuple):
    """Target of the self-similarity loss of a layer.

    Attributes:
        positions: indices of P positions of the feature map, row by row, int32 ``[P]``.
        distances: the distances between the features of the content image there, float32 ``[P, P]``, as
            `self_distances` returns them.
    """

    positions: tf.Tensor
    distances: tf.Tensor


def sample_positions(
    height: int | tf.Tensor, width: int | tf.Tensor, *, count: int = POSITIONS, seed: int = 0
) -> tf.Tensor:
    """Return the indices of random positions of a feature map, without repetition.

    Args:
        height, width: size of the feature map in positions.
        count: maximum number of positions. If the feature map has fewer, all of them are returned.
        seed: an integer from 0 to 2³² - 1. Equal seeds and sizes give equal positions on every device.

    Returns:
        int32 ``[P]``, the indices ``row * width + column`` of P positions in random order.

    Example:
        >>> from tfstyle.losses import sample_positions
        >>> sorted(sample_positions(2, 3, count=10).numpy().tolist())
        [0, 1, 2, 3, 4, 5]
    """
    numbers = tf.random.stateless_uniform(
        [height * width], tf.constant([seed, 0], tf.int64), dtype=tf.float32, alg="philox"
    )
    return tf.argsort(numbers, stable=True)[:count]


def self_distances(samples: tf.Tensor) -> tf.Tensor:
    """Return the cosine distances between feature vectors, with each column divided by its sum.

    ``D_ij = d_ij / Σ_k d_kj``, where ``d_ij = 1 - x_i · x_j / (|x_i| |x_j|)``.

    The distance of a zero vector from every vector, also from itself, is 1, and does not depend on either of
    them. If the mean of a column is below 1e-4, which is the case for vectors that are equal but for rounding
    errors, the column is divided by 1e-4 P instead.

    Args:
        samples: feature vectors ``[P, N]`` of any float type. The distances are computed in float32.

    Returns:
        float32 ``[P, P]``.

    Reference: the content loss of Kolkin, Salavon, Shakhnarovich 2019, "Style Transfer by Relaxed Optimal
    Transport and Self-Similarity", arXiv 1904.12785.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.losses import self_distances
        >>> self_distances(tf.constant([[3.0, 0.0], [0.0, 2.0], [0.0, 5.0]])).numpy().tolist()
        [[0.0, 1.0, 1.0], [0.5, 0.0, 0.0], [0.5, 0.0, 0.0]]
    """
    samples = tf.cast(samples, tf.float32)
    squares = tf.reduce_sum(tf.square(samples), 1, keepdims=True)
    is_zero = squares < LEAST_SQUARE
    # The inner tf.where keeps the derivative of the square root finite where the outer one selects 0.
    inverse = tf.where(is_zero, 0.0, tf.math.rsqrt(tf.where(is_zero, 1.0, squares)))
    directions = samples * inverse
    distances = tf.nn.relu(1.0 - tf.matmul(directions, directions, transpose_b=True))
    least = LEAST_MEAN_DISTANCE * tf.cast(tf.shape(samples)[0], tf.float32)
    return distances / tf.maximum(tf.reduce_sum(distances, 0, keepdims=True), least)


def self_similarity_target(
    features: tf.Tensor, *, count: int = POSITIONS, seed: int = 0
) -> SelfSimilarityTarget:
    """Return the target of the self-similarity loss for the features of the content image.

    Args:
        features: features of a layer, ``[1, height, width, N]`` of any float type.
        count, seed: as for `sample_positions`.
    """
    height, width = (features.shape[axis] or tf.shape(features)[axis] for axis in (1, 2))
    positions = sample_positions(height, width, count=count, seed=seed)
    return SelfSimilarityTarget(positions, self_distances(_samples(features, positions)))


def self_similarity_loss(features: tf.Tensor, target: SelfSimilarityTarget) -> tf.Tensor:
    """Return the self-similarity loss ``(1/P) Σ_ij |D_ij - D'_ij|``, which is P times the mean difference.

    D are the `self_distances` of the image, and D' those of the content image, both at the same P positions.
    The loss is 0 for equal distances and at most 2. It does not change if the features are multiplied by a
    positive number.

    Args:
        features: features of the generated image, ``[1, height, width, N]`` of any float type.
        target: the result of `self_similarity_target` for features of the same height and width. The number
            of channels may differ.

    Returns:
        float32 scalar.

    Reference: the content loss of Kolkin, Salavon, Shakhnarovich 2019, arXiv 1904.12785.
    Differs from Kolkin et al.: the features are those of single layers instead of hypercolumns, and the
    positions are the same in every iteration.
    Differs from Gatys: the features themselves are not compared.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.losses import self_similarity_loss, self_similarity_target
        >>> features = tf.random.stateless_uniform([1, 8, 12, 16], [0, 0])
        >>> target = self_similarity_target(features)
        >>> float(self_similarity_loss(5 * features, target)) < 1e-4
        True
        >>> float(self_similarity_loss(features**4, target)) > 0.1
        True
    """
    distances = self_distances(_samples(features, target.positions))
    count = tf.cast(tf.shape(target.positions)[0], tf.float32)
    return tf.reduce_sum(tf.abs(distances - target.distances)) / count


def _samples(features: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Return the feature vectors ``[P, N]`` at positions of ``[1, height, width, N]``."""
    return tf.gather(tf.reshape(features, [-1, features.shape[-1]]), positions)
