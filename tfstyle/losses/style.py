"""Style losses as pairs of a summary of one layer's features and a distance between two summaries.

The Gram matrix of Gatys et al., means and standard deviations, and the Wasserstein distance of Gaussians.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.losses.gram import gram_matrix

#: Statistics of an image's features in one layer: a structure of tensors.
Summary = Any


def weighted_mean(summaries: Sequence[Summary], weights: Sequence[float]) -> Summary:
    """The weighted mean of every tensor; only the weights' ratios count."""
    total = float(sum(weights))
    shares = [weight / total for weight in weights]
    return tf.nest.map_structure(
        lambda *tensors: tf.add_n([x * share for x, share in zip(tensors, shares, strict=True)]), *summaries
    )


class StyleLoss(NamedTuple):
    """One layer's style loss: a summary of features, and the distance between two summaries.

    Attributes:
        summary: (features ``[1, h, w, N]`` of any float type, weight) -> their statistics. The weight
            is float32 ``[1, h, w, 1]`` of mean 1, or None for all ones; every mean over positions is then
            that of ``w (...)``, as in the guided Gram matrices of Gatys et al. 2017.
        distance: (generated image's summary, target) -> float32 scalar, differentiable in the first.
        blend: (summaries of one or more styles, non-negative weights) -> the target; called for a single
            style too.
        second_order: whether the summary holds products of two features, so that the distance grows
            with the fourth power of the features, not with their square.
        deeper_layers: how many deeper style layers the summary needs as well; it then takes a list of
            features, the layer's first.
        assign: (a style's summary, the content's), of the deepest layer -> int ``[parts]``: which part of
            the style, along the first axis of its tensors, is the target of each part of the content. None
            where summaries have no parts.
        contribution: (summary of a tile, summary of the whole image) -> what the tile adds to the latter,
            which is the mean of the contributions, weighted by the tiles' areas; `blend` computes it. None
            where the summary needs all positions at once.
    """

    summary: Callable[[Any, tf.Tensor | None], Summary]
    distance: Callable[[Summary, Summary], tf.Tensor]
    blend: Callable[[Sequence[Summary], Sequence[float]], Summary] = weighted_mean
    second_order: bool = False
    deeper_layers: int = 0
    assign: Callable[[Summary, Summary], tf.Tensor] | None = None
    contribution: Callable[[Summary, Summary], Summary] | None = None


def mean_contribution(tile: Summary, whole: Summary) -> Summary:
    """The `StyleLoss.contribution` of summaries that are means over positions: the tile's summary itself."""
    return tile


def style_loss(gram: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """``E = 1/(4 N²) Σ (G - A)²`` of Gram matrices, float32 ``[batch, N, N]``.

    Reference: Gatys, Ecker, Bethge 2016, eq. 4; equal to it where both images are of one size.
    """
    channels = tf.cast(tf.shape(gram)[-1], tf.float32)
    return tf.nn.l2_loss(gram - target) / (2.0 * channels**2)


def _guided_gram(features: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
    """The Gram matrix of ``√w F``; in float32, since what rounding does to a weight would not average out."""
    return gram_matrix(features if weight is None else tf.cast(features, tf.float32) * tf.sqrt(weight))


#: Gram matrices compared by `style_loss`: the style loss of Gatys, Ecker, Bethge 2016.
GRAM = StyleLoss(_guided_gram, style_loss, second_order=True, contribution=mean_contribution)


def shifted_gram(shift: float = -1.0) -> StyleLoss:
    """The Gram matrix of ``F + s``, compared by `style_loss`: channels silent together count as alike.

    The shift of -1 is for encoders whose filters fire at 1 on average.

    Reference: Novak, Nikulin 2016, arXiv 1605.04603, "activation shift".
    """

    def summary(features: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
        return _guided_gram(tf.cast(features, tf.float32) + shift, weight)

    return StyleLoss(summary, style_loss, second_order=True, contribution=mean_contribution)


def _mean_and_square(features: tf.Tensor, weight: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """The channels' means and mean squares, float32 ``[1, N]``: sums over positions, so additive."""
    single = tf.cast(features, tf.float32)
    squares = tf.square(single)
    if weight is not None:
        single, squares = single * weight, squares * weight
    return tf.reduce_mean(single, [1, 2]), tf.reduce_mean(squares, [1, 2])


def mean_deviation_distance(moments: Sequence[tf.Tensor], target: Sequence[tf.Tensor]) -> tf.Tensor:
    """``1/N Σ_i (μ_i - μ'_i)² + (σ_i - σ'_i)²``, of the channels' means and standard deviations.

    The squared Wasserstein-2 distance of normal distributions with these moments, were the channels
    independent. σ² is the variance + 1e-6, so that the derivative of σ is finite.

    Reference: Li et al. 2017, Demystifying Neural Style Transfer; Galerne et al. 2024, Scaling Painting
    Style Transfer, who add it to the Gram loss.
    """
    deviation, target_deviation = (
        tf.sqrt(tf.nn.relu(square - mean**2) + 1e-6) for mean, square in (moments, target)
    )
    return tf.reduce_mean((moments[0] - target[0]) ** 2 + (deviation - target_deviation) ** 2)


#: Means and standard deviations of the channels, compared by `mean_deviation_distance`.
MEAN_DEVIATION = StyleLoss(_mean_and_square, mean_deviation_distance, contribution=mean_contribution)


def _mean_and_covariance(features: tf.Tensor, weight: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """The channels' mean ``[1, N]`` and covariance ``[1, N, N]``, float32."""
    single = tf.cast(features, tf.float32)
    mean = tf.reduce_mean(single if weight is None else single * weight, [1, 2])
    # Centred first: second moments less μμᵀ would lose small variances, and not be positive semi-definite.
    # The covariance does not depend on μ to first order, so that μ needs no gradient here.
    centred = single - tf.stop_gradient(mean)[:, tf.newaxis, tf.newaxis]
    return mean, _guided_gram(centred, weight)


def _mixture_moments(summaries: Sequence[Summary], weights: Sequence[float]) -> tuple[tf.Tensor, tf.Tensor]:
    """The moments of all positions together: of tiles of one image, weighted by area, the whole image's."""
    mean, within = weighted_mean(summaries, weights)
    offsets = [m - mean for m, _ in summaries]
    between = [offset[:, :, tf.newaxis] * offset[:, tf.newaxis] for offset in offsets]
    return mean, within + weighted_mean(between, weights)


def _moments_contribution(
    tile: Sequence[tf.Tensor], whole: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """A tile's moments, the second about the mean of the whole image."""
    mean, covariance = tile
    offset = mean - whole[0]
    return mean, covariance + offset[:, :, tf.newaxis] * offset[:, tf.newaxis]


def wasserstein(ridge: float = 1e-4) -> StyleLoss:
    """The Wasserstein-2 distance, squared and by channel, of normal distributions with the same moments.

    ``1/N (|μ - μ'|² + tr(C + C' - 2 (C'^½ C C'^½)^½))``, each covariance with ``ridge (I + diag C)`` added.

    Computed as ``|L - R Uᵀ|²`` of Cholesky factors ``L Lᵀ = C``, ``R Rᵀ = C'`` and the polar factor U of
    ``LᵀR``: never negative, and where both agree at most 1e-6 of the mean variance. Several styles are
    blended as the mixture of their positions.

    Args:
        ridge: at least 1e-4: with less, rounding may leave a covariance without a Cholesky factor.

    Raises:
        ConfigError: the ridge is smaller, or not a number.

    Reference: Dowson, Landau 1982, The Fréchet Distance between Multivariate Normal Distributions;
    crowsonkb's style-transfer-pytorch.
    Differs from crowsonkb: the ridge grows with a channel's variance, which may be 1e6.
    """
    if not 1e-4 <= ridge < math.inf:
        raise ConfigError(f"the Wasserstein loss has ridge {ridge}; it takes a number of at least 0.0001")

    def add_ridge(c: tf.Tensor) -> tf.Tensor:
        return tf.linalg.set_diag(c, tf.linalg.diag_part(c) * (1.0 + ridge) + ridge)

    def distance(moments: Sequence[tf.Tensor], target: Sequence[tf.Tensor]) -> tf.Tensor:
        means = tf.reduce_mean((moments[0] - target[0]) ** 2)
        return means + _bures(add_ridge(moments[1]), add_ridge(target[1]))

    return StyleLoss(_mean_and_covariance, distance, _mixture_moments, contribution=_moments_contribution)


def _bures(c: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """``tr(C + C' - 2 (C'^½ C C'^½)^½) / N`` of ``[1, N, N]``, positive definite; NaN where not finite.

    Differentiable with respect to C.
    """
    both, channels = tf.stop_gradient(tf.concat([c, target], 0)), tf.cast(tf.shape(c)[-1], tf.float32)
    # On a CPU a factorisation that fails raises an error, where a loss that is not finite must not.
    finite = tf.reduce_all(tf.math.is_finite(both))
    left, right = tf.split(tf.linalg.cholesky(tf.where(finite, both, tf.eye(tf.shape(c)[-1]))), 2)
    unitary = _polar_factor(tf.matmul(left, right, transpose_a=True))
    difference = left - tf.matmul(right, unitary, transpose_b=True)

    # The gradient is I - T, where T = R Uᵀ L⁻¹ = C'^½ (C'^½ C C'^½)^-½ C'^½ is the optimal transport map.
    # It is attached to a sum of zeros, so that the iteration needs no backward pass.
    gradient = tf.linalg.triangular_solve(left, tf.linalg.matrix_transpose(difference), adjoint=True)
    value = (tf.reduce_sum(difference**2) + tf.reduce_sum(gradient * (c - tf.stop_gradient(c)))) / channels
    return tf.where(finite, value, math.nan)


def _polar_factor(matrix: tf.Tensor) -> tf.Tensor:
    """The orthogonal U of ``K = U H``, by scaled Newton-Schulz iteration: products only.

    From ``X = K/|K|``, ``X <- 3/2 a X - 1/2 a³ X Xᵀ X``. Each singular value goes to 1 by itself; those
    below 1e-7 not all the way.

    Reference: Chen, Chow 2014, A Stable Scaling of Newton-Schulz.
    """
    x = tf.math.divide_no_nan(matrix, tf.norm(matrix, axis=(1, 2), keepdims=True))
    for scale in _newton_schulz_scales(1e-7):
        x = 1.5 * scale * x - 0.5 * scale**3 * tf.matmul(x, tf.matmul(x, x, transpose_a=True))
    return x


def _newton_schulz_scales(smallest: float) -> list[float]:
    """The a of each iteration that takes singular values in smallest..1 to 1."""
    lower, scales = smallest, []
    while lower < 0.9999:
        # The best for values in lower..1. At √3 it would send the largest to 0, and by rounding below.
        end = max(lower, 0.05)
        scales.append(math.sqrt(3.0 / (1.0 + end + end**2)))
        lower = 1.5 * scales[-1] * lower - 0.5 * (scales[-1] * lower) ** 3
    return [*scales, 1.0]
