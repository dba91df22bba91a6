"""Colour matching and luminance, which preserve the colours of the content image.

Images are float32 ``[height, width, 3]``, sRGB, 0..1. The two images of a function may differ in size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tfstyle.errors import ConfigError

#: Constant that the paper adds to the variances, so that the covariance of a grey image can be inverted.
RIDGE = 1e-5
#: Smallest standard deviation by which a luminance is divided; smaller ones are due to rounding.
MIN_DEVIATION = 1e-4
#: Weights of R, G and B in the luminance of ITU-R BT.601.
LUMA = np.array([0.299, 0.587, 0.114])
#: Weights of R, G and B in the chroma I and Q of YIQ.
CHROMA = np.array([[0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def match_colors(
    image: np.ndarray,
    target: np.ndarray,
    *,
    method: str = "transport",
    sample: np.ndarray | None = None,
    max_gain: float = math.inf,
) -> np.ndarray:
    """Return an image with the mean and the covariance of the colours of another image.

    x' = A x + b for every pixel x, where A (Σ_S + ε I) Aᵀ = Σ_C + ε I, b = μ_C - A μ_S and ε = 1e-5. S is the
    image and C is the target. Many matrices A satisfy this; each method chooses one of them. Because of ε,
    the covariance of the result is Σ_C + ε (I - A Aᵀ) if no pixel is clipped.

    Args:
        image: ``[height, width, 3]``, 0..1, or pixels ``[count, 3]``; in style transfer, the style image.
        target: the same, of any size; in style transfer, the content image.
        method: a key of `COLOR_MATCHING`.
        sample: pixels whose mean and covariance stand for those of the image, ``[..., 3]``; None for those of
            the image itself.
        max_gain: upper bound of the singular values of A. With a bound, the noise of an image that is nearly
            grey is not amplified without limit, but the covariance of the result may be smaller than Σ_C.

    Returns:
        float32 with the shape of the image, clipped to 0..1. It is finite even if the image or the target is
        grey, has a single colour or has a single pixel.

    Raises:
        ConfigError: the method is not in `COLOR_MATCHING`.

    Reference: Gatys et al. 2016, Preserving Color in Neural Artistic Style Transfer; Gatys et al. 2017,
    Controlling Perceptual Factors, colour histogram matching.

    Example:
        >>> import numpy as np
        >>> from tfstyle.images import match_colors
        >>> generator = np.random.default_rng(0)
        >>> style = generator.uniform(0.4, 0.6, (32, 48, 3)).astype(np.float32)
        >>> content = generator.uniform(0.3, 0.7, (40, 40, 3)).astype(np.float32)
        >>> matched = match_colors(style, content)
        >>> matched.shape, bool(np.allclose(matched.mean((0, 1)), content.mean((0, 1)), atol=1e-3))
        ((32, 48, 3), True)
    """
    if method not in COLOR_MATCHING:
        raise ConfigError(f"colour matching method is {method!r}; it can be {', '.join(COLOR_MATCHING)}")
    source_mean, source_covariance = _moments(image if sample is None else sample)
    target_mean, target_covariance = _moments(target)
    ridge = RIDGE * np.eye(3)
    matrix = COLOR_MATCHING[method](source_covariance + ridge, target_covariance + ridge)
    if math.isfinite(max_gain):
        left, gains, right = np.linalg.svd(matrix)
        matrix = (left * np.minimum(gains, max_gain)) @ right
    matched = (image.astype(np.float64) - source_mean) @ matrix.T + target_mean
    return np.clip(matched, 0, 1).astype(np.float32)


def cholesky(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return A = L_C L_S⁻¹ with the Cholesky factors L of the covariances.

    A is lower triangular: the new red depends on red only, and the new green on red and green.

    Args:
        source: Σ_S ``[3, 3]``, positive definite.
        target: Σ_C ``[3, 3]``, positive definite.

    Returns:
        A ``[3, 3]`` with A Σ_S Aᵀ = Σ_C.

    Reference: Gatys et al. 2016, Preserving Color in Neural Artistic Style Transfer.
    """
    return np.linalg.cholesky(target) @ np.linalg.inv(np.linalg.cholesky(source))


def root(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return A = Σ_C^½ Σ_S^-½ with the symmetric roots, which treats the three channels alike.

    Args:
        source: Σ_S ``[3, 3]``, positive definite.
        target: Σ_C ``[3, 3]``, positive definite.

    Returns:
        A ``[3, 3]`` with A Σ_S Aᵀ = Σ_C.

    Reference: Gatys et al. 2016, Preserving Color in Neural Artistic Style Transfer.
    """
    return _power(target, 0.5) @ _power(source, -0.5)


def transport(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return A = Σ_S^-½ (Σ_S^½ Σ_C Σ_S^½)^½ Σ_S^-½, which changes the colours least.

    Of all A with A Σ_S Aᵀ = Σ_C, it has the smallest mean square of A x - x. It is the optimal transport
    between two normal distributions, and symmetric and positive definite.

    Args:
        source: Σ_S ``[3, 3]``, positive definite.
        target: Σ_C ``[3, 3]``, positive definite.

    Returns:
        A ``[3, 3]`` with A Σ_S Aᵀ = Σ_C.

    Reference: Pitié & Kokaram 2007, The Linear Monge-Kantorovitch Linear Colour Mapping.
    """
    half, inverse = _power(source, 0.5), _power(source, -0.5)
    return inverse @ _power(half @ target @ half, 0.5) @ inverse


#: Name of a method of `match_colors` -> function of Σ_S and Σ_C that returns A.
COLOR_MATCHING: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "transport": transport,
    "cholesky": cholesky,
    "root": root,
}


def luminance(image: np.ndarray) -> np.ndarray:
    """Return the luminance Y = 0.299 R + 0.587 G + 0.114 B of an image.

    R, G and B are the values in sRGB; they are not converted to linear light.

    Args:
        image: ``[height, width, 3]``, 0..1.

    Returns:
        float32 ``[height, width]``, 0..1.

    Reference: ITU-R BT.601.

    Example:
        >>> import numpy as np
        >>> from tfstyle.images import luminance
        >>> green = np.zeros((32, 48, 3), np.float32)
        >>> green[..., 1] = 1
        >>> y = luminance(green)
        >>> y.shape, round(float(y[0, 0]), 3)
        ((32, 48), 0.587)
    """
    return (image @ LUMA).astype(np.float32)


def match_luminance(style_y: np.ndarray, content_y: np.ndarray) -> np.ndarray:
    """Return a style image's luminance with the mean and the standard deviation of the content image's.

    L' = (σ_C / σ_S) (L_S - μ_S) + μ_C. If the style image has one luminance only, so that σ_S is 0 except for
    rounding, the result is approximately μ_C.

    Args:
        style_y: luminance of the style image, ``[height, width]``, 0..1.
        content_y: luminance of the content image, ``[height, width]``, 0..1, of any size.

    Returns:
        float32 with the shape of ``style_y``, clipped to 0..1.

    Reference: Gatys et al. 2017, luminance-only transfer.
    """
    style, content = style_y.astype(np.float64), content_y.astype(np.float64)
    gain = content.std() / max(style.std(), MIN_DEVIATION)
    return np.clip(gain * (style - style.mean()) + content.mean(), 0, 1).astype(np.float32)


def with_luminance(image: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return an image with its own chroma and another luminance.

    In YIQ, Y is replaced while I and Q are kept. Because R = Y + 0.956 I + 0.619 Q, and G and B contain Y in
    the same way, this is the same as adding y - Y to R, G and B.

    Args:
        image: ``[height, width, 3]``, 0..1.
        y: the new luminance, ``[height, width]``, 0..1.

    Returns:
        float32 ``[height, width, 3]``, clipped to 0..1. Luminance and chroma of clipped pixels are
        approximate.

    Reference: Gatys et al. 2017, luminance-only transfer.

    Example:
        >>> import numpy as np
        >>> from tfstyle.images import luminance, with_luminance
        >>> image = np.random.default_rng(0).uniform(0.4, 0.6, (32, 48, 3)).astype(np.float32)
        >>> y = np.full((32, 48), 0.5, np.float32)
        >>> bool(np.allclose(luminance(with_luminance(image, y)), y, atol=1e-4))
        True
    """
    change = y - image @ LUMA
    return np.clip(image + change[..., None], 0, 1).astype(np.float32)


def match_chroma(content: np.ndarray, style: np.ndarray, *, y: np.ndarray) -> np.ndarray:
    """Return an image with a luminance and with the chroma of a content image, matched to a style image.

    The chroma of the content image, I and Q of YIQ, is moved linearly to the mean and covariance of the
    chroma of the style image by optimal transport. A bilateral filter then smooths it: five times, each
    pixel becomes the mean of its 3 x 3 neighbourhood with the weights ``exp(-10 |Y - Y'|)``, so that edges of
    the chroma move to edges of the luminance. The luminance is clipped to the range of that of the style.

    Args:
        content: the content image, ``[height, width, 3]``, 0..1.
        style: the style image, of any size, ``[..., 3]``, 0..1.
        y: luminance of the result, ``[height, width]``, 0..1.

    Returns:
        float32 ``[height, width, 3]``, clipped to 0..1.

    Reference: Kolkin et al. 2022, Neural Neighbor Style Transfer, whose program has the filter.
    Differs from Kolkin et al.: they use the colour space Oklab.

    Example:
        >>> import numpy as np
        >>> from tfstyle.images import match_chroma
        >>> content, style = np.random.default_rng(0).uniform(size=(2, 32, 48, 3))
        >>> match_chroma(content, style, y=np.full((32, 48), 0.5)).shape
        (32, 48, 3)
    """
    chroma = content.astype(np.float64) @ CHROMA.T
    pixels = style.reshape(-1, 3).astype(np.float64)
    wanted, style_y = pixels @ CHROMA.T, pixels @ LUMA
    mean, covariance = _moments(chroma)
    wanted_mean, wanted_covariance = _moments(wanted)
    ridge = RIDGE * np.eye(2)
    chroma = (chroma - mean) @ transport(covariance + ridge, wanted_covariance + ridge).T + wanted_mean
    y = np.clip(y.astype(np.float64), style_y.min(), style_y.max())
    for _ in range(5):
        chroma = _smoothed(chroma, y)
    back = np.linalg.inv(np.vstack([LUMA, CHROMA]))
    return np.clip(np.concatenate([y[..., None], chroma], -1) @ back.T, 0, 1).astype(np.float32)


def _smoothed(values: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """Return means of 3 x 3 neighbourhoods of ``[height, width, N]``, with the weights of `match_chroma`."""
    height, width = guide.shape
    padded, guides = np.pad(values, ((1, 1), (1, 1), (0, 0)), "edge"), np.pad(guide, 1, "edge")
    total, weights = np.zeros_like(values), np.zeros_like(guide)
    for top in range(3):
        for left in range(3):
            window = np.s_[top : top + height, left : left + width]
            weight = np.exp(-10 * np.abs(guides[window] - guide))
            total += weight[..., None] * padded[window]
            weights += weight
    return total / weights[..., None]


def grey(y: np.ndarray) -> np.ndarray:
    """Return the grey image with a luminance.

    Args:
        y: the luminance, ``[height, width]``, 0..1.

    Returns:
        float32 ``[height, width, 3]`` with three equal channels.
    """
    return np.repeat(y[..., None], 3, -1).astype(np.float32)


def _moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean ``[3]`` and the covariance ``[3, 3]`` of the colours.

    The covariance is divided by the number of pixels n, and not by n - 1, so that it exists for a single
    pixel.
    """
    pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
    mean = pixels.mean(0)
    centred = pixels - mean
    return mean, centred.T @ centred / len(pixels)


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """Return the symmetric power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T
