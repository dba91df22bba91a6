"""Preserving the content image's colours: matching the style image's to them, or transferring luminance only.

Images are float32 ``[height, width, 3]``, sRGB, 0..1; the two that meet in a function may differ in size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfstyle.errors import ConfigError

RIDGE = 1e-5  # the paper's: added to the variances, so that grey images have a covariance to invert
MIN_DEVIATION = 1e-4  # a luminance with a smaller standard deviation has no contrast, only rounding errors
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, of R, G and B


def match_colors(image: np.ndarray, target: np.ndarray, *, method: str = "transport") -> np.ndarray:
    """Give an image the mean and the covariance of another one's colours.

    x' = A x + b for every pixel x, where A (Σ_S + ε I) Aᵀ = Σ_C + ε I, b = μ_C - A μ_S and ε = 1e-5; S is
    the image, C the target. Many A do this; the methods differ in which one they take. Because of ε
    the covariance becomes Σ_C + ε (I - A Aᵀ), where nothing has to be clipped.

    Args:
        image: ``[height, width, 3]``, 0..1: for style transfer, the style.
        target: ``[height, width, 3]``, 0..1, of any size: for style transfer, the content.
        method: one of `COLOR_MATCHING`.

    Returns:
        float32, the image's shape, clipped to 0..1. Finite also where an image is grey, of one colour
        or one pixel.

    Raises:
        ConfigError: a method that is not in `COLOR_MATCHING`.

    Reference: Gatys et al. 2017, Controlling Perceptual Factors, colour histogram matching.
    """
    if method not in COLOR_MATCHING:
        raise ConfigError(f"no method {method!r} of matching colours; there are {', '.join(COLOR_MATCHING)}")
    source_mean, source_covariance = _moments(image)
    target_mean, target_covariance = _moments(target)
    ridge = RIDGE * np.eye(3)
    matrix = COLOR_MATCHING[method](source_covariance + ridge, target_covariance + ridge)
    matched = (image.astype(np.float64) - source_mean) @ matrix.T + target_mean
    return np.clip(matched, 0, 1).astype(np.float32)


def cholesky(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A = L_C L_S⁻¹, lower triangular: new red depends on red alone, green on red and green.

    Args:
        source: Σ_S ``[3, 3]``, positive definite.
        target: Σ_C ``[3, 3]``, positive definite.

    Returns:
        A ``[3, 3]`` with A Σ_S Aᵀ = Σ_C.

    Reference: Gatys et al. 2016, Preserving Color in Neural Artistic Style Transfer.
    """
    return np.linalg.cholesky(target) @ np.linalg.inv(np.linalg.cholesky(source))


def root(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A = Σ_C^½ Σ_S^-½ with symmetric roots, which treats all channels alike.

    Args:
        source: Σ_S ``[3, 3]``, positive definite.
        target: Σ_C ``[3, 3]``, positive definite.

    Returns:
        A ``[3, 3]`` with A Σ_S Aᵀ = Σ_C.

    Reference: Gatys et al. 2016, Preserving Color in Neural Artistic Style Transfer.
    """
    return _power(target, 0.5) @ _power(source, -0.5)


def transport(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A = Σ_S^-½ (Σ_S^½ Σ_C Σ_S^½)^½ Σ_S^-½: of all such A the one that changes colours least.

    It is the optimal transport between two normal distributions, symmetric and positive definite.

    Args:
        source: Σ_S ``[3, 3]``, positive definite.
        target: Σ_C ``[3, 3]``, positive definite.

    Returns:
        A ``[3, 3]`` with A Σ_S Aᵀ = Σ_C.

    Reference: Pitié & Kokaram 2007, The Linear Monge-Kantorovitch Linear Colour Mapping.
    """
    half, inverse = _power(source, 0.5), _power(source, -0.5)
    return inverse @ _power(half @ target @ half, 0.5) @ inverse


COLOR_MATCHING: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "transport": transport,
    "cholesky": cholesky,
    "root": root,
}


def luminance(image: np.ndarray) -> np.ndarray:
    """Y = 0.299 R + 0.587 G + 0.114 B, of the sRGB values as they are.

    Args:
        image: ``[height, width, 3]``, 0..1.

    Returns:
        float32 ``[height, width]``, 0..1.

    Reference: ITU-R BT.601.
    """
    return (image @ LUMA).astype(np.float32)


def match_luminance(style_y: np.ndarray, content_y: np.ndarray) -> np.ndarray:
    """Give a style's luminance the mean and the standard deviation of the content's.

    L' = (σ_C / σ_S) (L_S - μ_S) + μ_C; a flat style, whose σ_S is 0 but for rounding, becomes μ_C.

    Args:
        style_y: ``[height, width]``, 0..1.
        content_y: ``[height, width]``, 0..1, of any size.

    Returns:
        float32, the style's shape, clipped to 0..1.

    Reference: Gatys et al. 2017, luminance-only transfer.
    """
    style, content = style_y.astype(np.float64), content_y.astype(np.float64)
    gain = content.std() / max(style.std(), MIN_DEVIATION)
    return np.clip(gain * (style - style.mean()) + content.mean(), 0, 1).astype(np.float32)


def with_luminance(image: np.ndarray, y: np.ndarray) -> np.ndarray:
    """An image's chroma with another luminance: Y replaced in YIQ, I and Q kept.

    Y enters R, G and B alike on the way back, R = Y + 0.956 I + 0.619 Q and so on, so that replacing it
    is adding y - Y to all three.

    Args:
        image: ``[height, width, 3]``, 0..1.
        y: ``[height, width]``, 0..1.

    Returns:
        float32 ``[height, width, 3]``, clipped to 0..1. Where it is clipped, neither the luminance nor
        the chroma is quite what was asked for.

    Reference: Gatys et al. 2017, luminance-only transfer.
    """
    change = y - image @ LUMA
    return np.clip(image + change[..., None], 0, 1).astype(np.float32)


def grey(y: np.ndarray) -> np.ndarray:
    """The image without chroma that has this luminance.

    Args:
        y: ``[height, width]``, 0..1.

    Returns:
        float32 ``[height, width, 3]``, its three channels equal.
    """
    return np.repeat(y[..., None], 3, -1).astype(np.float32)


def _moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean ``[3]`` and covariance ``[3, 3]`` of the colours, divided by n, so that one pixel has them too."""
    pixels = image.reshape(-1, 3).astype(np.float64)
    mean = pixels.mean(0)
    centred = pixels - mean
    return mean, centred.T @ centred / len(pixels)


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """A symmetric positive definite matrix to a power, itself symmetric."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T
