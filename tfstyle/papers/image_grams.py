"""Gram matrices of an image by layer, and their eigenvalue spectra."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from tfstyle.losses import gram_matrix
from tfstyle.papers.study import Curves

#: Eigenvalues below this share of their sum are not plotted.
SMALLEST_SHARE = 1e-6


def gram_matrices(
    encoder: Callable[[tf.Tensor], Mapping[str, tf.Tensor]], images: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Return the Gram matrices of a batch of images.

    Args:
        encoder: function from images to layer -> features ``[batch, h, w, N]``.
        images: float32 ``[batch, height, width, 3]`` in 0..1.

    Returns:
        layer -> Gram matrices, float32 ``[batch, N, N]``.
    """
    return {layer: gram_matrix(features) for layer, features in encoder(images).items()}


def image_gram_matrices(
    encoder: Callable[[tf.Tensor], Mapping[str, tf.Tensor]], image: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the Gram matrices of one image ``[height, width, 3]``: layer -> float32 ``[N, N]``."""
    return {layer: gram[0].numpy() for layer, gram in gram_matrices(encoder, image[np.newaxis]).items()}


def descending_eigenvalues(gram: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of a Gram matrix, largest first, float64 ``[N]``.

    Example:
        >>> import numpy as np
        >>> from tfstyle.papers.image_grams import descending_eigenvalues
        >>> descending_eigenvalues(np.diag([1.0, 3.0, 2.0])).round(6).tolist()
        [3.0, 2.0, 1.0]
    """
    return np.asarray(np.linalg.eigvalsh(gram.astype(np.float64))[::-1])


def spectra_diagram(eigenvalue_shares: Mapping[str, np.ndarray], title: str) -> Curves:
    """Return a diagram of spectra.

    Args:
        eigenvalue_shares: label -> eigenvalues divided by their sum, largest first.
        title: title of the diagram.
    """
    series = {}
    for label, shares in eigenvalue_shares.items():
        visible = shares > SMALLEST_SHARE
        series[label] = (np.arange(1, len(shares) + 1)[visible].tolist(), shares[visible].tolist())
    return Curves(series, title, "eigenvalue number, largest first", "share of the sum")
