"""Gram matrices of an image, layer by layer, and their eigenvalue spectra."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from tfstyle.losses import gram_matrix
from tfstyle.papers.study import Curves

#: Eigenvalues below this share of their sum are not drawn.
SMALLEST_SHARE = 1e-6


def gram_matrices(
    encoder: Callable[[tf.Tensor], Mapping[str, tf.Tensor]], images: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Compute layer -> Gram matrices float32 ``[batch, N, N]`` of images ``[batch, height, width, 3]``."""
    return {layer: gram_matrix(features) for layer, features in encoder(images).items()}


def image_gram_matrices(
    encoder: Callable[[tf.Tensor], Mapping[str, tf.Tensor]], image: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute layer -> Gram matrix float32 ``[N, N]`` of one image ``[height, width, 3]``."""
    return {layer: gram[0].numpy() for layer, gram in gram_matrices(encoder, image[np.newaxis]).items()}


def descending_eigenvalues(gram: np.ndarray) -> np.ndarray:
    """Compute the eigenvalues of a Gram matrix in float64, largest first."""
    return np.asarray(np.linalg.eigvalsh(gram.astype(np.float64))[::-1])


def spectra_diagram(eigenvalue_shares: Mapping[str, np.ndarray], title: str) -> Curves:
    """Draw label -> eigenvalues, largest first, as shares of their sum."""
    series = {}
    for label, shares in eigenvalue_shares.items():
        visible = shares > SMALLEST_SHARE
        series[label] = (np.arange(1, len(shares) + 1)[visible].tolist(), shares[visible].tolist())
    return Curves(series, title, "eigenvalue, largest first", "share of their sum")
