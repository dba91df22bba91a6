"""The Gram matrix of an image's features, which describes its style."""

from __future__ import annotations

import tensorflow as tf

from tfstyle.optim import first_derivatives_suffice


def gram_matrix(features: tf.Tensor) -> tf.Tensor:
    """Return the Gram matrix of features: the correlations of the channels, averaged over all positions.

    ``G_ij = (1/M) Σ_k F_ki F_kj``, the mean over the M = height x width positions k.

    Args:
        features: ``[batch, height, width, N]`` of any float type. The sums are computed in float32.

    Returns:
        float32 ``[batch, N, N]``, symmetric and positive semi-definite. It can be differentiated any
        number of times, but only once inside `tfstyle.optim.only_first_derivatives`, as in the step.

    Reference: Gatys, Ecker, Bethge 2016, eq. 3.
    Differs from Gatys: the sum is divided by M, so that images of different sizes can be compared.

    Example:
        >>> import numpy as np
        >>> from tfstyle import Encoder, gram_matrix
        >>> images = np.random.default_rng(0).random((2, 48, 64, 3), np.float32)
        >>> features = Encoder(["conv2_1"], "embedded")(images)["conv2_1"]
        >>> tuple(features.shape), tuple(gram_matrix(features).shape)
        ((2, 24, 32, 128), (2, 128, 128))
    """
    shape = tf.shape(features)
    flat = tf.reshape(features, [shape[0], shape[1] * shape[2], features.shape[-1]])
    positions = tf.cast(shape[1] * shape[2], tf.float32)
    fast = first_derivatives_suffice()
    constant = tf.stop_gradient(flat)
    float32 = tf.cast(constant if fast else flat, tf.float32)
    gram = tf.matmul(float32, float32, transpose_a=True) / positions
    if not fast:
        return gram
    # The gradient F (U + Uᵀ) / M needs one matrix product in the type of the features, whereas automatic
    # differentiation of `gram` needs two in float32. At 512 x 512 on a CPU with AMX this saves a sixth of the
    # time of a step. The gradient is attached to a matrix of zeros, because tf.custom_gradient never frees
    # the graphs in which it is traced (TensorFlow issue 97697). One factor of the product is
    # constant, so that second derivatives are wrong.
    # In float16 the sums of products would overflow, and subtracting the constant makes the products zero.
    variable = flat - constant if flat.dtype == tf.float16 else flat
    product = tf.cast(tf.matmul(constant, variable, transpose_a=True), tf.float32) / positions
    zeros = product - tf.stop_gradient(product)
    return gram + (zeros + tf.linalg.matrix_transpose(zeros))
