"""Gram matrices against NumPy loops and the gradient of the paper, and their laws."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tfstyle import gram_matrix


@pytest.fixture(params=[(1, 5, 7, 4), (3, 6, 2, 9)], ids=str)
def features(request):
    return np.random.default_rng(0).normal(0, 2, request.param).astype(np.float32)


def test_matches_numpy(features):
    grams = gram_matrix(features)
    assert grams.shape == (features.shape[0], features.shape[-1], features.shape[-1])
    for gram, image_features in zip(grams, features, strict=True):
        assert reference.relative_error(gram, reference.gram(image_features)) < 1e-6


def test_is_symmetric_and_positive_semidefinite(features):
    grams = gram_matrix(features).numpy()
    assert np.array_equal(grams, grams.swapaxes(1, 2))
    assert np.linalg.eigvalsh(grams).min() > -1e-5 * np.abs(grams).max()


def test_does_not_depend_on_the_order_of_positions(features):
    batch, height, width, channels = features.shape
    shuffled = features.reshape(batch, -1, channels)[:, np.random.default_rng(1).permutation(height * width)]
    assert (
        reference.relative_error(gram_matrix(shuffled.reshape(features.shape)), gram_matrix(features)) < 1e-6
    )


def test_does_not_depend_on_size(features):
    twice = np.concatenate([features, features], axis=1)
    assert reference.relative_error(gram_matrix(twice), gram_matrix(features)) < 1e-6


def test_gradient_is_the_product_rule(features):
    """d<U, G>/dF = F (U + Uᵀ) / M, for a U that is not symmetric."""
    upstream = np.random.default_rng(2).normal(size=gram_matrix(features).shape).astype(np.float32)
    with tf.GradientTape() as tape:
        x = tf.constant(features)
        tape.watch(x)
        y = tf.reduce_sum(gram_matrix(x) * upstream)
    batch, height, width, channels = features.shape
    flat = features.reshape(batch, -1, channels).astype(np.float64)
    expected = flat @ (upstream + upstream.swapaxes(1, 2)) / (height * width)
    assert reference.relative_error(tape.gradient(y, x), expected.reshape(features.shape)) < 1e-6


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_features_are_summed_in_float32(dtype):
    """Sums of a thousand squares of 300: float16 would overflow, and bfloat16 would lose the small terms."""
    features = tf.cast(tf.fill([1, 32, 32, 2], 300.0), dtype)
    gram = gram_matrix(features)
    assert gram.dtype == tf.float32
    assert gram.numpy() == pytest.approx(300.0**2, rel=1e-6)
