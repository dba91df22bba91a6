"""Hypercolumns, their matches and the neighbour loss against slow NumPy, their laws, and their gradients."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tfstyle.losses import (
    NEIGHBOURS,
    FeatureSamples,
    HypercolumnTarget,
    hypercolumn_loss,
    hypercolumns,
    match_vectors,
    nearest_neighbours,
    neighbour_distance,
    neighbours,
    unit_vectors,
)


def vectors(seed, *shape):
    """Return features without negative values, with correlated channels."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(0.2, 1, shape) @ generator.normal(0, 1, (shape[-1], shape[-1]))
    return np.maximum(mixed, 0).astype(np.float32)


def as_samples(array, weights=None):
    weights = np.ones(len(array)) if weights is None else weights
    return FeatureSamples(tf.constant(array[None]), tf.constant(weights[None, :, None], tf.float32))


def compare(x, s):
    """Return the loss of feature maps ``[1, h, w, N]`` of an image and of a style image."""
    target = NEIGHBOURS.blend([NEIGHBOURS.summary(tf.constant(s), None)], [1.0])
    return float(NEIGHBOURS.distance(NEIGHBOURS.summary(tf.constant(x), None), target))


@pytest.mark.parametrize("sizes", [(7, 11, 4), (30, 5, 9)])
def test_the_distance_equals_slow_loops(sizes):
    count, style_count, channels = sizes
    x, s = vectors(1, count, channels), vectors(2, style_count, channels) * 3 + 0.4
    weights = np.random.default_rng(3).uniform(0.1, 2, count)
    allowed = np.arange(style_count) % 3 != 1
    found = neighbour_distance(as_samples(x, weights), as_samples(s, allowed.astype(float)))
    assert float(found) == pytest.approx(reference.nearest_distance(x, s, weights, allowed), rel=1e-5)


def test_the_gradient_equals_differences():
    x, s = vectors(1, 6, 5) + 0.1, as_samples(vectors(2, 9, 5))
    variable = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        value = neighbour_distance(FeatureSamples(variable[None], tf.ones([1, 6, 1])), s)
    gradient = tape.gradient(value, variable).numpy()
    slow = np.zeros_like(x, dtype=float)
    for i in np.ndindex(*x.shape):
        moved = [x.astype(float), x.astype(float)]
        for array, step in zip(moved, (1e-5, -1e-5)):
            array[i] += step
        high, low = (reference.nearest_distance(array, s.vectors[0].numpy()) for array in moved)
        slow[i] = (high - low) / 2e-5
    assert reference.relative_error(gradient, slow) < 1e-3


def test_an_image_matches_itself_and_any_permutation_of_itself():
    x = vectors(1, 1, 9, 8, 6)
    assert compare(x, x) == pytest.approx(0, abs=1e-5)
    shuffled = np.random.default_rng(0).permutation(x.reshape(-1, 6)).reshape(x.shape)
    assert compare(x, shuffled) == pytest.approx(0, abs=1e-5)
    assert compare(x, vectors(2, 1, 9, 8, 6)) > 0.01


def test_a_permuted_style_and_a_scaled_image_change_nothing():
    x, s = vectors(1, 1, 9, 8, 6), vectors(2, 1, 7, 5, 6)
    shuffled = np.random.default_rng(0).permutation(s.reshape(-1, 6)).reshape(s.shape)
    assert compare(x, shuffled) == pytest.approx(compare(x, s), rel=1e-5)
    assert compare(5 * x, s) == pytest.approx(compare(x, s), rel=1e-4)


def test_chunks_change_nothing(monkeypatch):
    q, s = unit_vectors(tf.constant(vectors(1, 50, 6))), unit_vectors(tf.constant(vectors(2, 20, 6)))
    whole = nearest_neighbours(q, s)
    monkeypatch.setattr(neighbours, "_MATRIX_ENTRIES", 7 * 20)
    parts = nearest_neighbours(q, s)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_allclose(whole[1], parts[1], rtol=1e-6)
    np.testing.assert_array_equal(whole[0], np.argmax(q.numpy() @ s.numpy().T, 1))


def test_only_allowed_samples_are_chosen():
    q, s = unit_vectors(tf.constant(vectors(1, 50, 6))), unit_vectors(tf.constant(vectors(2, 20, 6)))
    allowed = tf.range(20) % 4 == 2
    indices, _ = nearest_neighbours(q, s, allowed=allowed)
    assert set(indices.numpy() % 4) == {2}


@pytest.mark.parametrize("compiled", [False, True])
def test_graph_and_xla_equal_eager(compiled):
    x, s = as_samples(vectors(1, 40, 6)), as_samples(vectors(2, 30, 6))
    graph = tf.function(neighbour_distance, jit_compile=compiled, autograph=False)
    assert float(graph(x, s)) == pytest.approx(float(neighbour_distance(x, s)), rel=1e-5)


def test_bfloat16_finds_neighbours_that_are_nearly_as_near():
    x, s = vectors(1, 400, 32), vectors(2, 600, 32)
    exact = reference.nearest_distance(x, s)
    rounded = [tf.cast(tf.constant(array[None]), tf.bfloat16) for array in (x, s)]
    found = neighbour_distance(*(FeatureSamples(v, tf.ones([1, v.shape[1], 1])) for v in rounded))
    assert float(found) == pytest.approx(exact, rel=0.02)


def test_the_samples_of_several_styles_are_put_together():
    """With both styles, each vector is as near as with the nearer one of the two."""
    x = vectors(1, 1, 6, 5, 4)
    styles = [NEIGHBOURS.summary(tf.constant(vectors(seed, 1, 5, 7, 4)), None) for seed in (2, 3)]
    both = NEIGHBOURS.blend(styles, [1.0, 1.0])
    assert both.vectors.shape == (1, 70, 4)
    together = np.concatenate([style.vectors[0].numpy() for style in styles])
    found = NEIGHBOURS.distance(NEIGHBOURS.summary(tf.constant(x), None), both)
    assert float(found) == pytest.approx(reference.nearest_distance(x.reshape(-1, 4), together), rel=1e-5)


def test_a_share_draws_samples_in_proportion():
    styles = [NEIGHBOURS.summary(tf.fill([1, 20, 20, 2], value), None) for value in (1.0, 2.0)]
    for shares, numbers in (([1.0, 0.25], [400, 100]), ([0.0, 3.0], [0, 400])):
        drawn = NEIGHBOURS.blend(styles, shares).vectors[0, :, 0].numpy()
        assert [(drawn == value).sum() for value in (1.0, 2.0)] == numbers


def test_a_large_style_is_thinned_and_a_large_image_sampled_at_every_second_row():
    large = tf.random.stateless_uniform([1, 100, 256, 2], (0, 0))
    summary = NEIGHBOURS.summary(large, None)
    assert summary.vectors.shape == (1, 50 * 128, 2)
    assert NEIGHBOURS.blend([summary], [1.0]).vectors.shape == (1, neighbours.STYLE_SAMPLES, 2)


def test_positions_outside_of_a_region_are_not_drawn():
    weight = np.zeros((1, 6, 6, 1), np.float32)
    weight[:, :, :2] = 3
    features = np.arange(36, dtype=np.float32).reshape(1, 6, 6, 1)
    target = NEIGHBOURS.blend([NEIGHBOURS.summary(tf.constant(features), tf.constant(weight))], [1.0])
    drawn = target.vectors[0, :, 0].numpy()[target.weights[0, :, 0].numpy() > 0]
    assert sorted(drawn) == sorted(features[0, :, :2].ravel())


def feature_maps(seed):
    return {"conv1_1": vectors(seed, 1, 12, 16, 5), "conv2_1": vectors(seed + 1, 1, 6, 8, 7)}


def test_hypercolumns_equal_slow_loops():
    maps = feature_maps(1)
    found = hypercolumns({k: tf.constant(v) for k, v in maps.items()}, list(maps), shape=(12, 16))
    expected = reference.hypercolumns([v[0] for v in maps.values()], 3, 4)
    assert reference.relative_error(found[0].numpy(), expected) < 1e-6


def test_the_hypercolumn_loss_equals_slow_loops():
    maps, generator = feature_maps(1), np.random.default_rng(5)
    goal = generator.normal(size=(3, 4, 12))
    weights = generator.uniform(0, 2, (3, 4))
    columns = reference.hypercolumns([v[0] for v in maps.values()], 3, 4)
    cosines = (columns * goal).sum(2) / (np.linalg.norm(columns, axis=2) * np.linalg.norm(goal, axis=2))
    expected = (weights * (1 - cosines)).sum() / weights.sum()
    unit_goal = unit_vectors(tf.constant(goal[None], tf.float32))
    parts = tf.split(unit_goal, [value.shape[-1] for value in maps.values()], -1)
    target = HypercolumnTarget(tuple(parts), tf.constant(weights[None, :, :, None], tf.float32))
    found = hypercolumn_loss({k: tf.constant(v) for k, v in maps.items()}, list(maps), target=target)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_in_bfloat16_the_hypercolumn_loss_and_its_gradient_are_close_to_those_in_float32():
    """The float32 loss equals slow loops; both get the same values, which bfloat16 can represent."""
    rounded = {"conv1_1": vectors(1, 1, 32, 48, 64), "conv2_1": vectors(2, 1, 16, 24, 128)}
    rounded = {layer: tf.cast(value, tf.bfloat16) for layer, value in rounded.items()}
    columns = unit_vectors(tf.constant(vectors(3, 1, 8, 12, 192)))
    goals = [tf.cast(part, tf.bfloat16) for part in tf.split(columns, [64, 128], -1)]
    results = []
    for dtype in (tf.float32, tf.bfloat16):
        features = {layer: tf.cast(value, dtype) for layer, value in rounded.items()}
        target = HypercolumnTarget(tuple(tf.cast(goal, dtype) for goal in goals), tf.ones([1, 8, 12, 1]))
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = hypercolumn_loss(features, list(features), target=target)
        gradients = tape.gradient(loss, features)
        results.append((float(loss), {k: tf.cast(g, tf.float32).numpy() for k, g in gradients.items()}))
    (loss, gradients), (rounded_loss, rounded_gradients) = results
    assert rounded_loss == pytest.approx(loss, rel=1e-3)
    for layer, gradient in gradients.items():
        assert reference.relative_error(rounded_gradients[layer], gradient) < 0.02


def test_matches_equal_slow_loops_over_all_sets():
    q, sets = vectors(1, 12, 5), [vectors(2, 9, 5), vectors(3, 7, 5) + 0.2]
    allowed = [np.arange(9) % 2 == 0, np.ones(7, bool)]
    pool = np.concatenate([s[a] for s, a in zip(sets, allowed)])
    centred, centred_pool = q - q.mean(0), pool - pool.mean(0)
    expected = []
    for vector in centred:
        cosines = [vector @ s / np.linalg.norm(vector) / np.linalg.norm(s) for s in centred_pool]
        expected.append(pool[np.argmax(cosines)] / np.linalg.norm(pool[np.argmax(cosines)]))
    pairs = [(tf.constant(s), tf.constant(a)) for s, a in zip(sets, allowed)]
    found = match_vectors(tf.constant(q), lambda: iter(pairs))
    assert reference.relative_error(found.numpy(), np.array(expected)) < 1e-6
    again = match_vectors(tf.constant(q), lambda: iter(pairs[::-1]))
    np.testing.assert_allclose(found, again, rtol=1e-5, atol=1e-6)


def test_matching_vectors_with_themselves_finds_them():
    q = vectors(1, 30, 8) + 0.01
    found = match_vectors(tf.constant(q), lambda: iter([(tf.constant(q), tf.ones([30], bool))]))
    np.testing.assert_allclose(found, q / np.linalg.norm(q, axis=1, keepdims=True), rtol=1e-5)


def test_blocks_of_vectors_change_nothing(monkeypatch):
    q, s = vectors(1, 23, 5), vectors(2, 31, 5)
    pairs = [(tf.constant(s), tf.constant(np.arange(31) > 12))]
    whole = match_vectors(tf.constant(q), lambda: iter(pairs))
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", 6)
    np.testing.assert_allclose(match_vectors(tf.constant(q), lambda: iter(pairs)), whole, atol=1e-6)
