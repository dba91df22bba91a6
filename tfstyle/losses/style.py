"""Style losses, each defined by a summary of the features of a layer and a distance between two summaries.

This module has the Gram loss of Gatys et al., the loss of means and standard deviations, and the Wasserstein
distance of normal distributions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfstyle.errors import ConfigError
from tfstyle.losses.gram import gram_matrix
from tfstyle.optim import first_derivatives_suffice

#: Statistics of the features of an image in one layer, as a structure of tensors.
Summary = Any


def weighted_mean(summaries: Sequence[Summary], weights: Sequence[float]) -> Summary:
    """Return the weighted mean of each tensor of the summaries. The weights are divided by their sum."""
    total = float(sum(weights))
    shares = [weight / total for weight in weights]
    return tf.nest.map_structure(
        lambda *tensors: tf.add_n([x * share for x, share in zip(tensors, shares, strict=True)]), *summaries
    )


class StyleLoss(NamedTuple):
    """A style loss of one layer: a summary of features, and a distance between two summaries.

    Attributes:
        summary: (features ``[1, h, w, N]`` of any float type, weight w) -> statistics of the features. The
            weight is float32 ``[1, h, w, 1]`` of mean 1, or None for ones. It multiplies the terms of every
            mean over positions, as in the guided Gram matrices of Gatys et al. 2017.
        distance: (summary of the generated image, target) -> float32 scalar, differentiable with respect to
            the summary.
        blend: (summaries of one or more styles, non-negative weights) -> target. It is also called for a
            single style.
        second_order: whether the summary consists of products of two features, and the distance is divided
            by 4 N² as in Gatys et al.
        deeper_layers: number of deeper style layers whose features the summary needs. If it is not 0, the
            summary takes a list of features, those of the layer itself first.
        assign: (summary of a style, summary of the content image), both of the deepest style layer -> int
            ``[parts]``. It gives, for each part of the content image, the index of the part of the style that
            is its target, along the first axis of the tensors of a summary. None if each part of the style is
            the target of the part with the same index.
        contribution: (summary of a tile, summary of the whole image) -> contribution of the tile. The mean of
            the contributions, weighted by the areas of the tiles, is the summary of the whole image, which
            `blend` computes from the summaries of the tiles. None if the summary needs all positions at once.

    Example:
        >>> import numpy as np
        >>> from tfstyle.losses import wasserstein
        >>> loss = wasserstein()
        >>> image, style = np.random.default_rng(0).random((2, 1, 16, 24, 8), np.float32)  # features
        >>> target = loss.blend([loss.summary(style, None)], [1.0])
        >>> float(loss.distance(loss.summary(image, None), target)) > 0
        True
    """

    summary: Callable[[Any, tf.Tensor | None], Summary]
    distance: Callable[[Summary, Summary], tf.Tensor]
    blend: Callable[[Sequence[Summary], Sequence[float]], Summary] = weighted_mean
    second_order: bool = False
    deeper_layers: int = 0
    assign: Callable[[Summary, Summary], tf.Tensor] | None = None
    contribution: Callable[[Summary, Summary], Summary] | None = None


def mean_contribution(tile: Summary, whole: Summary) -> Summary:
    """Return the summary of a tile, which is its `StyleLoss.contribution` if summaries are means."""
    return tile


def style_loss(gram: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return the style loss ``E = 1/(4 N²) Σ (G - A)²`` of two Gram matrices, summed over the batch.

    Args:
        gram: Gram matrices G of the generated image, float32 ``[batch, N, N]``.
        target: Gram matrices A of the style image, of the same shape.

    Returns:
        float32 scalar.

    Reference: Gatys, Ecker, Bethge 2016, eq. 4.
    Differs from Gatys: the Gram matrices are divided by the numbers of positions. The value is the same
    as in the paper if both images have the same size.

    Example:
        >>> import tensorflow as tf
        >>> from tfstyle import style_loss
        >>> float(style_loss(tf.ones([1, 2, 2]), tf.zeros([1, 2, 2])))  # 4 / (4 * 2²)
        0.25
    """
    channels = tf.cast(tf.shape(gram)[-1], tf.float32)
    return tf.nn.l2_loss(gram - target) / (2.0 * channels**2)


def _guided_gram(features: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
    """Return the Gram matrix of ``√w F``, in float32 because rounding errors of w would not average out."""
    return gram_matrix(features if weight is None else tf.cast(features, tf.float32) * tf.sqrt(weight))


#: The style loss of Gatys, Ecker, Bethge 2016: Gram matrices, compared by `style_loss`.
GRAM = StyleLoss(_guided_gram, style_loss, second_order=True, contribution=mean_contribution)


def _relative_distance(gram: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return ``1/(4 N²) Σ_ij (G_ij - A_ij)² / (a_i a_j)`` with ``a_i = A_ii + 0.01 mean_k A_kk``."""
    power = tf.linalg.diag_part(target)
    power += CHANNEL_FLOOR * tf.reduce_mean(power, -1, keepdims=True)
    scale = tf.math.divide_no_nan(1.0, tf.sqrt(power))
    scales = scale[:, :, tf.newaxis] * scale[:, tf.newaxis]
    return style_loss(gram * scales, target * scales)


# This fraction of the mean power is added to the power of each channel, so that channels that hardly respond
# to the style image do not dominate the loss.
CHANNEL_FLOOR = 0.01
#: Gram matrices of features whose channels are divided by their root mean square in the style image. Channels
#: therefore have nearly the same influence, as in the network of Gatys et al., whose weights are normalised
#: so that the mean activation of each filter is 1.
#: Reference: Gatys, Ecker, Bethge 2016, section 2, for the normalised weights. The loss is our own.
NORMALIZED_GRAM = StyleLoss(
    _guided_gram, _relative_distance, second_order=True, contribution=mean_contribution
)


def shifted_gram(shift: float = -1.0) -> StyleLoss:
    """Return the style loss that compares Gram matrices of shifted features ``F + s`` by `style_loss`.

    With a shift, two channels that are inactive at the same positions count as correlated.

    Args:
        shift: the shift s. The default of -1 is meant for encoders whose mean activation is 1.

    Returns:
        A `StyleLoss` whose summary is float32 ``[1, N, N]``.

    Reference: Novak, Nikulin 2016, arXiv 1605.04603, "activation shift".
    """

    def summary(features: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
        return _guided_gram(tf.cast(features, tf.float32) + shift, weight)

    return StyleLoss(summary, style_loss, second_order=True, contribution=mean_contribution)


def _mean_and_square(features: tf.Tensor, weight: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the means and the mean squares of the channels, float32 ``[1, N]``."""
    single = tf.cast(features, tf.float32)
    squares = tf.square(single)
    if weight is not None:
        single, squares = single * weight, squares * weight
    return tf.reduce_mean(single, [1, 2]), tf.reduce_mean(squares, [1, 2])


def mean_deviation_distance(moments: Sequence[tf.Tensor], target: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return ``1/N Σ_i ((μ_i - μ'_i)² + (σ_i - σ'_i)²)`` of the channels' means and standard deviations.

    This is the squared Wasserstein-2 distance, per channel, of normal distributions with these moments and
    independent channels. σ² is the variance plus 1e-6, so that the derivative of σ is finite.

    Args:
        moments: means and mean squares of the channels of the generated image, each float32 ``[1, N]``.
        target: the same for the style image.

    Returns:
        float32 scalar.

    Reference: Li et al. 2017, Demystifying Neural Style Transfer; Galerne et al. 2024, Scaling Painting
    Style Transfer, who add this loss to the Gram loss.
    """
    deviation, target_deviation = (
        tf.sqrt(tf.nn.relu(square - mean**2) + 1e-6) for mean, square in (moments, target)
    )
    return tf.reduce_mean((moments[0] - target[0]) ** 2 + (deviation - target_deviation) ** 2)


#: The means and standard deviations of the channels, compared by `mean_deviation_distance`.
#: Reference: Li et al. 2017, Demystifying Neural Style Transfer; Galerne et al. 2024, Scaling Painting Style
#: Transfer.
MEAN_DEVIATION = StyleLoss(_mean_and_square, mean_deviation_distance, contribution=mean_contribution)


def _mean_and_covariance(features: tf.Tensor, weight: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the mean ``[1, N]`` and the covariance ``[1, N, N]`` of the channels, float32."""
    single = tf.cast(features, tf.float32)
    mean = tf.reduce_mean(single if weight is None else single * weight, [1, 2])
    # The features are centred first. Second moments minus μμᵀ would lose small variances by rounding, and the
    # result would not be positive semi-definite. At the mean, the first derivative of the covariance with
    # respect to μ is zero, so that μ needs no gradient in a step.
    centre = tf.stop_gradient(mean) if first_derivatives_suffice() else mean
    return mean, _guided_gram(single - centre[:, tf.newaxis, tf.newaxis], weight)


def _mixture_moments(summaries: Sequence[Summary], weights: Sequence[float]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the mean and covariance of the mixture of several distributions with weights.

    For the tiles of an image, weighted by their areas, these are the moments of the whole image.
    """
    mean, within = weighted_mean(summaries, weights)
    offsets = [m - mean for m, _ in summaries]
    between = [offset[:, :, tf.newaxis] * offset[:, tf.newaxis] for offset in offsets]
    return mean, within + weighted_mean(between, weights)


def _moments_contribution(
    tile: Sequence[tf.Tensor], whole: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the mean of a tile, and its second central moment about the mean of the whole image."""
    mean, covariance = tile
    offset = mean - whole[0]
    return mean, covariance + offset[:, :, tf.newaxis] * offset[:, tf.newaxis]


def wasserstein(ridge: float = 1e-4) -> StyleLoss:
    """Return the style loss that is the squared Wasserstein-2 distance of normal distributions, per channel.

    ``1/N (|μ - μ'|² + tr(C + C' - 2 (C'^½ C C'^½)^½))`` of the means μ and the covariances C of the channels,
    where ``ridge (I + diag C)`` is added to each covariance.

    The trace is computed as ``|L - R Uᵀ|²`` from the Cholesky factors ``L Lᵀ = C`` and ``R Rᵀ = C'`` and the
    polar factor U of ``LᵀR``. It is never negative, and for two equal summaries it is at most 1e-6 times the
    mean variance. The blend of several styles is the mixture of their distributions.

    Args:
        ridge: the regularisation, at least 1e-4. With a smaller ridge, rounding errors can leave a covariance
            without a Cholesky factor.

    Returns:
        A `StyleLoss` whose summary is the mean, float32 ``[1, N]``, and the covariance, float32
        ``[1, N, N]``.

    Raises:
        ConfigError: the ridge is less than 1e-4 or not finite.

    Reference: Dowson, Landau 1982, The Fréchet Distance between Multivariate Normal Distributions;
    crowsonkb/style-transfer-pytorch.
    Differs from crowsonkb: the ridge grows with the variance of a channel, which can be 1e6.
    """
    if not 1e-4 <= ridge < math.inf:
        raise ConfigError(f"ridge of the Wasserstein loss is {ridge}; use a finite number of at least 0.0001")

    def add_ridge(c: tf.Tensor) -> tf.Tensor:
        return tf.linalg.set_diag(c, tf.linalg.diag_part(c) * (1.0 + ridge) + ridge)

    def distance(moments: Sequence[tf.Tensor], target: Sequence[tf.Tensor]) -> tf.Tensor:
        means = tf.reduce_mean((moments[0] - target[0]) ** 2)
        return means + _bures(add_ridge(moments[1]), add_ridge(target[1]))

    return StyleLoss(_mean_and_covariance, distance, _mixture_moments, contribution=_moments_contribution)


def _bures(c: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Return ``tr(C + C' - 2 (C'^½ C C'^½)^½) / N`` of positive definite matrices ``[1, N, N]``.

    The result is NaN if an entry of C or C' is not finite. It can be differentiated twice with respect to
    both matrices, but only once and with respect to C inside `tfstyle.optim.only_first_derivatives`.
    """
    fast = first_derivatives_suffice()
    both, channels = tf.concat([c, target], 0), tf.cast(tf.shape(c)[-1], tf.float32)
    constant = tf.stop_gradient(both)
    # On a CPU the Cholesky factorisation raises an error if it fails, but a loss that is not finite must not
    # raise one, because a run can recover from it.
    finite = tf.reduce_all(tf.math.is_finite(both))
    usable = tf.where(finite, constant if fast else both, tf.eye(tf.shape(c)[-1]))
    left, right = tf.split(tf.linalg.cholesky(usable), 2)
    unitary = _polar_factor(tf.matmul(left, right, transpose_a=True))
    difference = left - tf.matmul(right, unitary, transpose_b=True)
    value = tf.stop_gradient(tf.reduce_sum(difference**2))

    # The gradient with respect to C is I - T, where T = R Uᵀ L⁻¹ = C'^½ (C'^½ C C'^½)^-½ C'^½ is the optimal
    # transport map. It is attached to a sum of zeros, so that the first derivative needs no backward pass
    # through the Newton-Schulz iteration, which would amplify rounding errors.
    gradient = _transport(left, difference)
    if fast:
        zeros = tf.reduce_sum(gradient * (c - tf.stop_gradient(c)))
    else:
        # The derivative of Σ g (C - const) is g, and its second derivative is twice that of the distance,
        # because both g and the second factor depend on C. With a constant g, the latter is zero.
        from_target = right - tf.matmul(left, unitary)
        gradients = tf.concat([gradient, _transport(right, from_target)], 0)
        zeros = tf.reduce_sum((gradients + tf.stop_gradient(gradients)) * (both - constant)) / 2.0
    return tf.where(finite, (value + zeros) / channels, math.nan)


def _transport(factor: tf.Tensor, difference: tf.Tensor) -> tf.Tensor:
    """Return ``difference factor⁻¹`` for a lower triangular factor, transposed: ``I - T`` is symmetric."""
    return tf.linalg.triangular_solve(factor, tf.linalg.matrix_transpose(difference), adjoint=True)


def _polar_factor(matrix: tf.Tensor) -> tf.Tensor:
    """Return the orthogonal factor U of ``K = U H`` by a scaled Newton-Schulz iteration of matrix products.

    The iteration is ``X <- 3/2 a X - 1/2 a³ X Xᵀ X``, from ``X = K/|K|``. Each singular value converges to 1
    independently of the others. Singular values below 1e-7 do not converge completely.

    Reference: Chen, Chow 2014, A Stable Scaling of Newton-Schulz.
    """
    x = tf.math.divide_no_nan(matrix, tf.norm(matrix, axis=(1, 2), keepdims=True))
    for scale in _newton_schulz_scales(1e-7):
        x = 1.5 * scale * x - 0.5 * scale**3 * tf.matmul(x, tf.matmul(x, x, transpose_a=True))
    return x


def _newton_schulz_scales(smallest: float) -> list[float]:
    """Return the factor a of each iteration, so that singular values in smallest..1 converge to 1."""
    lower, scales = smallest, []
    while lower < 0.9999:
        # The optimal factor for singular values in lower..1. As lower goes to 0 the factor goes to √3, which
        # maps the largest value to 0, or by rounding errors below 0. Hence the lower bound of 0.05.
        end = max(lower, 0.05)
        scales.append(math.sqrt(3.0 / (1.0 + end + end**2)))
        lower = 1.5 * scales[-1] * lower - 0.5 * (scales[-1] * lower) ** 3
    return [*scales, 1.0]
