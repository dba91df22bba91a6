"""Guided correspondence: each patch of a texture approaches its nearest patch of the style image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

#: Bandwidth h of the loss.
BANDWIDTH = 0.5
#: Distances are divided by the smallest distance plus this number.
EPSILON = 1e-5
#: Number of texture patches whose distances to all style patches are in memory at the same time.
ROWS = 1024


def patch_starts(side: int, *, size: int = 7, stride: int = 3, circular: bool = False) -> np.ndarray:
    """Return the first positions of the patches along one side of a feature map.

    The patches are ``stride`` positions apart. The last patch of a side that is not circular ends at the
    border, so that the patches cover all positions. A circular side has ``ceil(side / stride)`` patches, and
    the last of them continue at the opposite border.

    Args:
        side: number of positions along the side.
        size: number of positions of a patch along the side, from 1 to ``side``.
        stride: distance of neighbouring patches, from 1.
        circular: whether the side is circular.

    Returns:
        int64 ``[patches]``, in ascending order.

    Example:
        >>> from tfstyle.losses import patch_starts
        >>> patch_starts(12).tolist(), patch_starts(12, circular=True).tolist()
        ([0, 3, 5], [0, 3, 6, 9])
    """
    if circular:
        return np.arange(0, side, stride)
    return np.unique([*range(0, side - size + 1, stride), side - size])


def patches(features: tf.Tensor, *, size: int = 7, stride: int = 3, circular: bool = False) -> tf.Tensor:
    """Return the square patches of a feature map as rows of a matrix.

    Args:
        features: ``[1, h, w, N]`` with a static shape.
        size: number of positions along each side of a patch, from 1 to the shorter of h and w.
        stride: distance of neighbouring patches.
        circular: whether the feature map is that of an image that tiles. Patches then continue at the
            opposite border.

    Returns:
        float32 ``[patches, size * size * N]``, row by row of the feature map. `patch_starts` returns the
        positions of the patches.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.losses import patches
        >>> patches(tf.zeros([1, 12, 15, 8])).shape
        TensorShape([12, 392])
    """
    rows = tf.cast(features[0], tf.float32)
    if circular:
        rows = tf.concat([rows, rows[: size - 1]], 0)
        rows = tf.concat([rows, rows[:, : size - 1]], 1)
    starts = [patch_starts(side, size=size, stride=stride, circular=circular) for side in features.shape[1:3]]
    # Slices along one axis after the other have a faster gradient than `tf.image.extract_patches`.
    rows = tf.stack([_take(rows, starts[0] + i, axis=0) for i in range(size)], 1)  # [rows, size, w, N]
    both = tf.stack([_take(rows, starts[1] + i, axis=2) for i in range(size)], 3)
    return tf.reshape(tf.transpose(both, [0, 2, 1, 3, 4]), [len(starts[0]) * len(starts[1]), -1])


def _take(values: tf.Tensor, positions: np.ndarray, *, axis: int) -> tf.Tensor:
    """Return the values at positions that are equally spaced, except possibly the last one."""
    step = int(positions[1] - positions[0]) if len(positions) > 1 else 1
    regular = int(np.sum(positions == positions[0] + step * np.arange(len(positions))))
    before = (slice(None),) * axis
    spaced = values[(*before, slice(int(positions[0]), int(positions[regular - 1]) + 1, step))]
    if regular == len(positions):
        return spaced
    last = int(positions[-1])
    return tf.concat([spaced, values[(*before, slice(last, last + 1))]], axis)


def patch_directions(texture: tf.Tensor, style: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Subtract the mean style patch from patches, and divide each patch by its norm.

    Args:
        texture: patches of the texture, float32 ``[n, D]``.
        style: patches of the style image, float32 ``[m, D]``.

    Returns:
        The patches of the texture and of the style image, in the same shapes, with the norm 1.
    """
    mean = tf.reduce_mean(style, 0)
    return tf.math.l2_normalize(texture - mean, 1), tf.math.l2_normalize(style - mean, 1)


def patch_distances(texture: tf.Tensor, style: tf.Tensor) -> tf.Tensor:
    """Return the cosine distances between patches of a texture and of a style image.

    ``d_ij = (1 - cos(x_i - μ, y_j - μ)) / 2``, where μ is the mean of the style image's patches.

    Args:
        texture: patches x, float32 ``[n, D]``.
        style: patches y, float32 ``[m, D]``.

    Returns:
        float32 ``[n, m]`` in 0..1.

    Reference: Zhou et al. 2023, Neural Texture Synthesis with Guided Correspondence.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle.losses import patch_distances
        >>> style = tf.constant([[3.0, 0.0], [-3.0, 0.0]])
        >>> patch_distances(tf.constant([[2.0, 0.0]]), style).numpy().tolist()
        [[0.0, 1.0]]
    """
    texture, style = patch_directions(texture, style)
    return _cosine_distances(texture, style)


def _cosine_distances(texture: tf.Tensor, style: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value((1.0 - tf.matmul(texture, style, transpose_b=True)) / 2.0, 0.0, 1.0)


def guidance_distances(texture: tf.Tensor, style: tf.Tensor) -> tf.Tensor:
    """Return the squared Euclidean distances between guidance vectors of patches.

    Args:
        texture: vectors of the texture's patches, float32 ``[n, K]``.
        style: vectors of the style image's patches, float32 ``[m, K]``.

    Returns:
        float32 ``[n, m]``, ``Σ_k (t_ik - s_jk)²``.

    Reference: Zhou et al. 2023, Neural Texture Synthesis with Guided Correspondence.
    """
    squares = tf.reduce_sum(texture**2, 1)[:, tf.newaxis] + tf.reduce_sum(style**2, 1)
    return tf.nn.relu(squares - 2.0 * tf.matmul(texture, style, transpose_b=True))


def nearest_patches(
    texture: tf.Tensor, style: tf.Tensor, *, guidance: tuple[tf.Tensor, tf.Tensor] | None = None
) -> tf.Tensor:
    """Return the index of the nearest style patch of every texture patch.

    Args:
        texture, style, guidance: as for `guided_correspondence_loss`.

    Returns:
        int64 ``[n]``, each from 0 to m - 1.
    """
    return _nearest(_row_distances(*patch_directions(texture, style), guidance), texture.shape[0])


def guided_correspondence_loss(
    texture: tf.Tensor,
    style: tf.Tensor,
    *,
    guidance: tuple[tf.Tensor, tf.Tensor] | None = None,
    avoid_repetition: float = 0.0,
) -> tf.Tensor:
    """Return the guided correspondence loss of a texture's patches.

    ``mean_i -log max_j softmax_j((1 - d_ij / (min_k d_ik + 1e-5)) / 0.5)``, where d_ij is the sum of the
    cosine distance (`patch_distances`), the guidance distance (`guidance_distances`) and ``λ c_j / ω``. Here
    c_j is the number of texture patches whose nearest style patch is j by the first two distances, ω is the
    larger of n / m and 1, and λ is ``avoid_repetition``. For the gradient, c_j is a constant.

    Only 1024 rows of distances are in memory at the same time. The first derivatives are exact; higher
    derivatives are wrong.

    Args:
        texture: patches of the texture, float32 ``[n, D]`` with a static shape.
        style: patches of the style image, float32 ``[m, D]``; no gradient is computed for them.
        guidance: guidance vectors of the texture's patches ``[n, K]`` and of the style image's patches
            ``[m, K]``.
        avoid_repetition: λ, at least 0; 0.05 in the paper.

    Returns:
        float32 scalar, from 0 to log m. Without guidance and with ``avoid_repetition`` 0, it is nearly 0 if
        every texture patch is a style patch and the style image's patches differ from each other.

    Reference: Zhou et al. 2023, Neural Texture Synthesis with Guided Correspondence.
    Differs from Zhou: ω is at least 1, and all patches are compared, where the program of the paper draws
    10 000 of them if there are more.
    """
    style = tf.stop_gradient(style)
    directions, style_directions = patch_directions(texture, style)
    distances = _row_distances(tf.stop_gradient(directions), style_directions, guidance)
    count, style_count = texture.shape[0], style.shape[0]
    penalty = tf.zeros([style_count])
    if avoid_repetition > 0:
        # XLA has no bincount.
        uses = tf.math.unsorted_segment_sum(tf.ones([count]), _nearest(distances, count), style_count)
        penalty = avoid_repetition / max(count / style_count, 1.0) * uses

    def loss_and_gradient(start: tf.Tensor, rows: int) -> tuple[tf.Tensor, tf.Tensor]:
        losses, slopes = _contextual(distances(start, rows) + penalty)
        return losses, tf.matmul(slopes, style_directions) / -2.0

    parts = _by_rows(loss_and_gradient, count, dtypes=(tf.float32, tf.float32))
    losses, gradients = (tf.stop_gradient(part) for part in parts)
    # A linear function with the gradient of the loss. Automatic differentiation of the loss would hold all
    # distances in memory.
    tangent = tf.reduce_sum(directions * gradients) / count
    return tf.reduce_mean(losses) + tangent - tf.stop_gradient(tangent)


def _contextual(distances: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the loss of each row of distances ``[rows, m]``, and its derivatives by the distances."""
    smallest = tf.reduce_min(distances, 1, keepdims=True)
    scale = smallest + EPSILON
    logits = (1.0 - distances / scale) / BANDWIDTH
    losses = tf.reduce_logsumexp(logits, 1) - tf.reduce_max(logits, 1)
    shares = tf.nn.softmax(logits)
    by_smallest = (tf.reduce_sum(shares * distances, 1, keepdims=True) + EPSILON) / scale**2
    is_smallest = tf.one_hot(tf.argmin(distances, 1), distances.shape[1])
    return losses, (is_smallest * by_smallest - shares / scale) / BANDWIDTH


def _row_distances(
    directions: tf.Tensor, style_directions: tf.Tensor, guidance: tuple[tf.Tensor, tf.Tensor] | None
) -> Callable[[Any, int], tf.Tensor]:
    """Return a function of the first row and the number of rows that returns these rows of distances."""

    def distances(start: Any, rows: int) -> tf.Tensor:
        part = _cosine_distances(_rows(directions, start, rows), style_directions)
        if guidance is None:
            return part
        return part + guidance_distances(_rows(guidance[0], start, rows), guidance[1])

    return distances


def _nearest(distances: Callable[[Any, int], tf.Tensor], count: int) -> tf.Tensor:
    return _by_rows(lambda start, rows: (tf.argmin(distances(start, rows), 1),), count, dtypes=(tf.int64,))[0]


def _rows(matrix: tf.Tensor, start: Any, rows: int) -> tf.Tensor:
    return tf.slice(matrix, [start, 0], [rows, matrix.shape[1]])


def _by_rows(
    function: Callable[[Any, int], tuple[tf.Tensor, ...]], count: int, *, dtypes: tuple[tf.DType, ...]
) -> list[tf.Tensor]:
    """Apply a function of the first row and the number of rows to parts of ``count`` rows, one by one.

    All parts have the same number of rows, because XLA needs static shapes. The last part therefore overlaps
    the part before it.
    """
    rows = min(ROWS, count)
    starts = [*range(0, count - rows, rows), count - rows]
    if len(starts) == 1:
        return list(function(0, rows))
    parts = tf.map_fn(
        lambda start: function(start, rows),
        tf.constant(starts),
        fn_output_signature=dtypes,
        parallel_iterations=1,
    )
    overlap = starts[-2] + rows - starts[-1]
    return [
        tf.concat([tf.reshape(part[:-1], [-1, *part.shape[2:]]), part[-1, overlap:]], 0) for part in parts
    ]
