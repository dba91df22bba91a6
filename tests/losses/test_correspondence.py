"""Tests of guided correspondence: patches, their distances, the loss, its gradient and its laws."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tfstyle.losses import (
    correspondence,
    guidance_distances,
    guided_correspondence_loss,
    nearest_patches,
    patch_distances,
    patches,
)


def sample(rows, seed=0, length=24):
    return np.random.default_rng(seed).normal(size=(rows, length)).astype(np.float32)


def guidance_vectors(rows, style_rows):
    return sample(rows, 5, 2) / 3, sample(style_rows, 6, 2) / 3


def loss_and_gradient(texture, style, **options):
    texture = tf.constant(texture)
    with tf.GradientTape() as tape:
        tape.watch(texture)
        loss = guided_correspondence_loss(texture, tf.constant(style), **options)
    return float(loss), tape.gradient(loss, texture).numpy()


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize(("shape", "size", "stride"), [((9, 13), 7, 3), ((10, 8), 3, 2), ((7, 5), 5, 4)])
def test_patches_are_the_references(shape, size, stride, circular):
    features = np.random.default_rng(0).normal(size=(1, *shape, 4)).astype(np.float32)
    result = patches(tf.constant(features), size=size, stride=stride, circular=circular)
    np.testing.assert_array_equal(
        result, reference.patches(features[0], size, stride, circular).astype(np.float32)
    )


def test_patches_cover_every_position():
    """The gradient of the sum of all patches is the number of patches at a position."""
    features = tf.ones([1, 11, 12, 2])
    with tf.GradientTape() as tape:
        tape.watch(features)
        total = tf.reduce_sum(patches(features))
    assert tape.gradient(total, features).numpy().min() >= 1


def test_distances_are_the_references():
    texture, style = sample(5), sample(7, 1)
    result = patch_distances(tf.constant(texture), tf.constant(style))
    np.testing.assert_allclose(result, reference.patch_distances(texture, style), atol=1e-6)
    vectors = guidance_vectors(5, 7)
    truth = [[((a - b) ** 2).sum() for b in vectors[1]] for a in vectors[0]]
    np.testing.assert_allclose(guidance_distances(*map(tf.constant, vectors)), truth, atol=1e-6)


@pytest.mark.parametrize("rows", [1024, 4])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("avoid_repetition", [0.0, 0.05])
def test_the_loss_and_its_gradient_are_the_references(monkeypatch, rows, guided, avoid_repetition):
    """With 4 rows at a time, the last part of 10 patches overlaps the one before it."""
    monkeypatch.setattr(correspondence, "ROWS", rows)
    texture, style = sample(10), sample(6, 1)
    guidance = guidance_vectors(10, 6) if guided else None
    options = {"guidance": guidance, "avoid_repetition": avoid_repetition}
    loss, gradient = loss_and_gradient(texture, style, **options)
    assert loss == pytest.approx(reference.guided_correspondence(texture, style, **options), rel=1e-4)
    numerical = np.zeros_like(gradient, np.float64)
    for index in np.ndindex(*texture.shape):
        step = np.zeros(texture.shape)
        step[index] = 1e-5
        ahead, back = (reference.guided_correspondence(texture + s, style, **options) for s in (step, -step))
        numerical[index] = (ahead - back) / 2e-5
    assert reference.relative_error(gradient, numerical) < 1e-3


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_compiled_function_gives_the_same(monkeypatch, jit_compile):
    monkeypatch.setattr(correspondence, "ROWS", 4)
    texture, style = sample(10), sample(6, 1)
    options = {"guidance": guidance_vectors(10, 6), "avoid_repetition": 0.05}
    compiled = tf.function(
        lambda x, y: guided_correspondence_loss(x, y, **options), autograph=False, jit_compile=jit_compile
    )
    x = tf.constant(texture)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = compiled(x, tf.constant(style))
    expected, gradient = loss_and_gradient(texture, style, **options)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert reference.relative_error(tape.gradient(loss, x), gradient) < 1e-4


def test_permuted_style_patches_change_nothing():
    texture, style = sample(9), sample(6, 1)
    order = np.random.default_rng(2).permutation(6)
    vectors = guidance_vectors(9, 6)
    results = [
        loss_and_gradient(texture, style[o], guidance=(vectors[0], vectors[1][o]), avoid_repetition=0.05)
        for o in (np.arange(6), order)
    ]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert reference.relative_error(results[1][1], results[0][1]) < 1e-4


def test_style_patches_themselves_have_the_minimum():
    style = sample(8)
    texture = style[[3, 3, 0, 7]]  # a texture may repeat patches
    distances = patch_distances(tf.constant(texture), tf.constant(style)).numpy()
    np.testing.assert_allclose(distances.min(1), 0, atol=1e-6)
    np.testing.assert_array_equal(nearest_patches(texture, style), [3, 3, 0, 7])
    loss, _ = loss_and_gradient(texture, style)
    assert 0 <= loss < 1e-6
    assert loss_and_gradient(sample(4, 3), style)[0] > 0.1


def test_the_repetition_term_moves_patches_to_unused_ones():
    """All texture patches lie a little nearer to the first style patch, at 0.0016, than to the next."""
    style = np.array([[1, 0.1], [1, -0.1], [-1, 0.3], [-1, -0.3]], np.float32)
    texture = np.repeat(np.array([[1, 0.02]], np.float32), 8, 0)
    assert set(nearest_patches(texture, style).numpy()) == {0}
    (down, up) = (loss_and_gradient(texture, style, avoid_repetition=a)[1][:, 1] for a in (0.001, 0.0))
    assert (down > 0).all()  # a step against the gradient goes to the second patch
    assert (up < 0).all()


def test_guidance_selects_the_part_with_the_similar_vector():
    """The two halves of the style patches are equal, but have different guidance vectors."""
    half = sample(5)
    style = np.concatenate([half, half])
    style_vectors = np.repeat(np.array([[0.0], [1.0]], np.float32), 5, 0)
    for value in (0.0, 1.0):
        vectors = np.full((5, 1), value, np.float32)
        nearest = nearest_patches(half, style, guidance=(vectors, style_vectors)).numpy()
        np.testing.assert_array_equal(nearest, np.arange(5) + 5 * int(value))
