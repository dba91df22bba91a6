"""Distances between the features of two images: content by self-similarity, style by energy distance."""

from __future__ import annotations

import numpy as np

#: Maximum number of feature vectors of each layer in an energy distance.
SAMPLES = 1500
#: Number of columns of a matrix of distances that are computed at a time.
COLUMNS = 1024


def directions(features: np.ndarray) -> np.ndarray:
    """Return the unit vectors of the features at every fourth row and column, for `self_similarity_distance`.

    Args:
        features: ``[height, width, channels]``.

    Returns:
        float64 ``[positions, channels]``. A position without any activation has the zero vector.
    """
    vectors = np.asarray(features[::4, ::4], np.float64).reshape(-1, features.shape[-1])
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def self_similarity_distance(image: np.ndarray, content: np.ndarray) -> float:
    """Return the distance between the self-similarities of two images, whose features may differ.

    It is ``mean |D(image) - D(content)| * positions``, where D is the matrix of the cosine distances between
    all positions, with each column divided by its sum. It is 0 for equal self-similarities and 2 at most.

    Args:
        image: `directions` of the features of the image.
        content: `directions` of the features of the content image, at the same positions.

    Reference: the content loss of Kolkin et al. 2019, "Style Transfer by Relaxed Optimal Transport and
    Self-Similarity", arXiv 1904.12785. Differs from Kolkin et al.: the positions form a grid instead of being
    random, and the features are those of one layer instead of hypercolumns.

    Example:
        >>> import numpy as np
        >>> from tfstyle.scoring import directions, self_similarity_distance
        >>> content, other = (directions(x) for x in np.random.default_rng(0).random((2, 32, 32, 8)))
        >>> self_similarity_distance(content, content), self_similarity_distance(other, content) > 0.1
        (0.0, True)
    """

    def columns(vectors: np.ndarray, start: int) -> np.ndarray:
        distances = 1 - vectors @ vectors[start : start + COLUMNS].T
        return distances / np.maximum(distances.sum(0), 1e-12)

    starts = range(0, len(image), COLUMNS)
    total = sum(float(np.abs(columns(image, k) - columns(content, k)).sum()) for k in starts)
    return total / len(image)


def sample(features: np.ndarray) -> np.ndarray:
    """Return the feature vectors at 1500 random positions, or at all positions if there are fewer.

    Features of the same size are always sampled at the same positions.

    Args:
        features: ``[..., channels]``.

    Returns:
        float64 ``[at most 1500, channels]``.
    """
    vectors = np.reshape(features, (-1, features.shape[-1]))
    generator = np.random.default_rng(0)
    chosen = generator.choice(len(vectors), min(SAMPLES, len(vectors)), replace=False)
    return vectors[chosen].astype(np.float64)


def energy_distance(image: np.ndarray, style: np.ndarray) -> float:
    """Return the energy distance between two sets of feature vectors.

    It is ``2⟨|X - Y|⟩ - ⟨|X - X'|⟩ - ⟨|Y - Y'|⟩``, where X and X' are vectors of the first set, Y and Y' are
    vectors of the second set, and ⟨ ⟩ is the mean over all pairs. First, every channel is divided by its root
    mean square over the second set. The distance is 0 for equal sets. No style loss of tfstyle minimises it.

    Args:
        image: ``[positions, channels]``, such as those of `sample`.
        style: ``[positions, channels]``. The number of positions may differ from that of `image`.

    Reference: Székely & Rizzo 2013, "Energy statistics: A class of statistics based on distances".

    Example:
        >>> import numpy as np
        >>> from tfstyle.scoring import energy_distance
        >>> energy_distance(np.array([[1.0]]), np.array([[4.0]]))  # 2 |1/4 - 4/4|
        1.4999...
    """
    scale = np.sqrt(np.mean(style**2, 0)) + 1e-6  # gives every channel the same influence
    x, y = image / scale, style / scale
    return 2 * _mean_distance(x, y) - _mean_distance(x, x) - _mean_distance(y, y)


def _mean_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean Euclidean distance between the rows of ``x`` and the rows of ``y``."""
    squares = np.sum(x**2, 1)[:, None] + np.sum(y**2, 1) - 2 * x @ y.T
    return float(np.mean(np.sqrt(np.maximum(squares, 0))))
