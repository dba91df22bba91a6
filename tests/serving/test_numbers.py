"""Embeddings, compared with the Gram matrices from which they are computed, and views of an image."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.conftest import make_image
from tfstyle import gram_matrix
from tfstyle.serving import embedding, style_numbers, ten_views


def random_grams(seed, batch=2, sizes=(6, 9)):
    generator = np.random.default_rng(seed)
    rows = [generator.normal(0, 2, (batch, 20, n)).astype(np.float32) for n in sizes]
    return [np.einsum("bkn,bkm->bnm", r, r) for r in rows]


def mean_cosine(grams, others):
    """Return the mean over layers of the cosine of two Gram matrices, by definition."""
    return np.mean([(g * h).sum() / np.linalg.norm(g) / np.linalg.norm(h) for g, h in zip(grams, others)])


def test_the_inner_product_of_whole_embeddings_is_the_mean_cosine():
    grams = random_grams(0)
    vectors = embedding([tf.constant(g) for g in grams], None).numpy()
    assert vectors.shape == (2, 6 * 7 / 2 + 9 * 10 / 2)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert vectors[0] @ vectors[1] == pytest.approx(mean_cosine(*zip(*grams)), abs=1e-6)


def test_the_inner_product_of_short_embeddings_is_about_the_mean_cosine():
    """The error of a tensor sketch is proportional to 1/√size."""
    errors = {}
    for size in (64, 1024):
        pairs = [random_grams(seed) for seed in range(60)]
        vectors = [embedding([tf.constant(g) for g in grams], size).numpy() for grams in pairs]
        assert all(v.shape == (2, size) for v in vectors)
        assert np.allclose([np.linalg.norm(v, axis=1) for v in vectors], 1, atol=1e-6)
        errors[size] = np.array([v[0] @ v[1] - mean_cosine(*zip(*g)) for v, g in zip(vectors, pairs)])
    assert np.sqrt((errors[1024] ** 2).mean()) < 2 / np.sqrt(1024)
    assert np.sqrt((errors[64] ** 2).mean()) > 2 * np.sqrt((errors[1024] ** 2).mean())


def test_the_embedding_of_zero_gram_matrices_is_zero_and_not_nan():
    assert not embedding([tf.zeros([1, 3, 3])], 8).numpy().any()
    assert not embedding([tf.zeros([1, 3, 3])], None).numpy().any()


def test_ten_views():
    image = np.arange(2 * 16 * 24 * 3, dtype=np.float32).reshape(2, 16, 24, 3)
    views = ten_views(tf.constant(image)).numpy().reshape(10, 2, 14, 21, 3)
    crops = [
        image[:, :14, :21], image[:, :14, 3:], image[:, 2:, :21], image[:, 2:, 3:], image[:, 1:15, 1:22]
    ]  # fmt: skip
    for i, crop in enumerate(crops):
        assert np.array_equal(views[i], crop)
        assert np.array_equal(views[i + 5], crop[:, :, ::-1])


def test_style_numbers_of_ten_views_are_the_mean(small_encoder):
    images = np.stack([make_image(16, 24, seed) for seed in (1, 2)])
    numbers = style_numbers(
        small_encoder.features, tf.constant(images), layers=["conv2_1"], embedding_size=32, views=10
    )
    for i, image in enumerate(images):
        views = ten_views(tf.constant(image[None]))
        expected = np.mean([gram_matrix(small_encoder(v[None])["conv2_1"])[0] for v in views], 0)
        assert reference.relative_error(numbers["conv2_1"][i], expected) < 1e-5
    assert numbers["embedding"].shape == (2, 32)
