"""The E statistic of Yeh et al. 2019, which compares normal distributions of projected features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfstyle.images import ImageArray

#: Layer -> number of leading eigenvectors, and weight of the layer. Yeh et al. fitted the weights to the
#: choices that people made between images. The fit gave the deeper layers a weight of 0.
LAYERS = {"conv1_1": (32, 0.7468), "conv2_1": (48, 0.2557), "conv3_1": (128, 2.3768)}
#: The basis of the package, made by data/make_score_basis.py from images that data/PROVENANCE.md lists.
BASIS = Path(__file__).parents[1] / "data" / "score_basis.npz"
#: Longest side in pixels of the images from which a basis is computed.
BASIS_SIZE = 384
#: Number of positions whose features are converted to float64 at a time.
ROWS = 2**16


class Moments(NamedTuple):
    """The mean ``[channels]`` and the covariance ``[channels, channels]`` of features over all positions."""

    mean: np.ndarray
    covariance: np.ndarray


def feature_moments(features: np.ndarray) -> Moments:
    """Return the mean and the covariance of features ``[..., channels]`` in float64."""
    vectors = np.reshape(features, (-1, features.shape[-1]))
    mean = vectors.mean(0, dtype=np.float64)
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(vectors), ROWS):
        centred = vectors[start : start + ROWS] - mean
        covariance += centred.T @ centred
    return Moments(mean, covariance / len(vectors))


def projected_moments(
    features: Mapping[str, np.ndarray], basis: Mapping[str, np.ndarray]
) -> dict[str, Moments]:
    """Return the moments of each layer of a basis, projected on the basis.

    Args:
        features: layer -> ``[..., channels]``.
        basis: layer -> ``[channels, K]``, such as that of `shipped_basis`.
    """
    moments = {layer: feature_moments(features[layer]) for layer in basis}
    return {
        layer: Moments(mean @ basis[layer], basis[layer].T @ covariance @ basis[layer])
        for layer, (mean, covariance) in moments.items()
    }


def gaussian_divergence(image: Moments, style: Moments) -> float:
    """Return the Kullback-Leibler divergence between two normal distributions.

    It is ``½ [tr(Σ_s⁻¹ Σ_x) + (μ_s - μ_x)ᵀ Σ_s⁻¹ (μ_s - μ_x) - K + log(|Σ_s| / |Σ_x|)]``: 0 for equal
    moments, and infinite if a covariance is singular.

    Args:
        image: μ_x and Σ_x.
        style: μ_s and Σ_s.

    Example:
        >>> import numpy as np
        >>> from tfstyle.scoring import Moments, gaussian_divergence
        >>> style = Moments(np.zeros(2), np.eye(2))
        >>> gaussian_divergence(Moments(np.array([0.0, 2.0]), np.eye(2)), style)  # ½ 2²
        2.0
    """
    count = len(style.mean)
    if any(np.linalg.matrix_rank(m.covariance, hermitian=True) < count for m in (image, style)):
        return float("inf")
    shift = style.mean - image.mean
    solved = np.linalg.solve(style.covariance, np.column_stack([image.covariance, shift]))
    log_ratio = np.linalg.slogdet(style.covariance)[1] - np.linalg.slogdet(image.covariance)[1]
    divergence = 0.5 * (np.trace(solved[:, :-1]) + shift @ solved[:, -1] - count + log_ratio)
    return max(float(divergence), 0.0)  # rounding can make it negative


def e_statistic(image: Mapping[str, Moments], style: Mapping[str, Moments]) -> float:
    """Return ``E = Σ_l a_l (-log KL_l)``; KL_l is the `gaussian_divergence` at layer l. Higher is better.

    Args:
        image: `projected_moments` of the image.
        style: `projected_moments` of the style image.

    Returns:
        E; infinity for equal moments, and minus infinity if a covariance is singular.

    Reference: Yeh, Nguyen, Asokan, Forsyth 2019, "Improving Style Transfer with Calibrated Metrics", arXiv
    1910.09447. The weights a_l are theirs.
    """
    with np.errstate(divide="ignore"):
        return float(
            sum(-a * np.log(gaussian_divergence(image[k], style[k])) for k, (_, a) in LAYERS.items())
        )


def shipped_basis() -> dict[str, np.ndarray]:
    """Return the basis of the package: layer -> ``[channels, K]`` in float64."""
    with np.load(BASIS) as file:
        return {layer: file[layer].astype(np.float64) for layer in LAYERS}


def reference_basis(
    images: Iterable[ImageArray], encode: Callable[[np.ndarray], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return the leading eigenvectors of the mean covariance of features over reference images.

    Args:
        images: at least one image. Larger ones are reduced to 384 pixels.
        encode: function from an image ``[height, width, 3]`` to the features of each layer of `LAYERS`.

    Returns:
        layer -> ``[channels, K]`` in float64.
    """
    totals: dict[str, np.ndarray] = {}
    for image in images:
        features = encode(image.fitted(BASIS_SIZE).on_white())
        for layer in LAYERS:
            totals[layer] = totals.get(layer, 0) + feature_moments(features[layer]).covariance
    # eigh returns the eigenvalues in ascending order. The divergence does not depend on the scale.
    return {layer: np.linalg.eigh(totals[layer])[1][:, ::-1][:, :k] for layer, (k, _) in LAYERS.items()}
