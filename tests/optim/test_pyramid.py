"""The Laplacian pyramid against slow NumPy, and the optimisers that move its coefficients."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tfstyle.optim import adam, collapse_pyramid, in_pyramid, laplacian_pyramid, lbfgs, make_step

FREE = {"low": -math.inf, "high": math.inf}


def image(seed, height=21, width=34):
    return np.random.default_rng(seed).random((1, height, width, 3), np.float32)


def test_a_pyramid_equals_slow_loops_and_adds_up_again():
    x = image(0)
    found = laplacian_pyramid(tf.constant(x), levels=3)
    for level, slow in zip(found, reference.laplacian_pyramid(x[0].astype(float), 3), strict=True):
        np.testing.assert_allclose(level[0], slow, atol=1e-6)
    np.testing.assert_allclose(collapse_pyramid(found), x, atol=1e-6)


def test_more_levels_than_the_image_has_pixels_are_possible():
    x = image(0, 3, 5)
    found = laplacian_pyramid(tf.constant(x), levels=8)
    assert found[-1].shape == (1, 1, 1, 3)
    np.testing.assert_allclose(collapse_pyramid(found), x, atol=1e-6)


def squares(x, target):
    return {"total": tf.reduce_sum((x - target) ** 2)}


@pytest.mark.parametrize("equalized", [False, True])
@pytest.mark.parametrize("optimizer", [adam(0.02, **FREE), lbfgs(5, **FREE)], ids=["adam", "lbfgs"])
def test_every_optimiser_reaches_the_minimum(optimizer, equalized):
    moved = in_pyramid(optimizer, 4, equalized=equalized)
    step = make_step(squares, moved)
    x, target = tf.constant(image(0)), tf.constant(image(1))
    state = moved.init(x)
    for _ in range(80):
        x, state, _ = step(x, state, target)
    error = tf.reduce_mean(tf.abs(moved.solution(x, state) - target))
    assert float(error) < 0.02
    # The image and the coefficients agree.
    np.testing.assert_allclose(moved.solution(x, moved.init(x)), x, atol=1e-5)


def test_a_step_of_gradient_descent_is_that_on_the_coefficients():
    """Adam's first step moves every coefficient by the learning rate against its gradient."""
    x, target = image(0, 8, 8), image(1, 8, 8)
    moved = in_pyramid(adam(0.01, epsilon=1e-12, **FREE), 2)
    new, _, _ = make_step(squares, moved)(tf.constant(x), None, tf.constant(target))
    levels = reference.laplacian_pyramid(x[0].astype(float), 2)
    gradient = 2 * (x - target)[0].astype(float)

    def collapse(pyramid):
        *details, result = pyramid
        for detail in reversed(details):
            result = detail + reference.bilinear(result, *detail.shape[:2])
        return result

    stepped = []
    for number, level in enumerate(levels):
        derivative = np.zeros_like(level)
        for i in np.ndindex(*level.shape):
            unit = [np.zeros_like(each) for each in levels]
            unit[number][i] = 1
            derivative[i] = (collapse(unit) * gradient).sum()
        stepped.append(level - 0.01 * np.sign(derivative))
    np.testing.assert_allclose(new[0], collapse(stepped), atol=1e-4)


def test_the_state_is_stored_and_restored():
    moved = in_pyramid(lbfgs(3, **FREE), 3)
    step = make_step(squares, moved)
    x, target = tf.constant(image(0)), tf.constant(image(1))
    state = moved.init(x)
    for _ in range(4):
        x, state, _ = step(x, state, target)
    arrays = [leaf.numpy() for leaf in moved.flatten(state)]
    restored = moved.restore(moved.init(x), arrays)
    next_x, *_ = step(x, state, target)
    np.testing.assert_array_equal(step(x, restored, target)[0], next_x)


def test_one_graph_serves_all_sizes():
    moved = in_pyramid(adam(0.05, **FREE), 5)
    step = tf.function(
        lambda x, state, target: moved.step(lambda y: (squares(y, target), 2 * (y - target)), x, state)
    )
    traces = step.get_concrete_function(
        tf.TensorSpec([1, None, None, 3]),
        tf.nest.map_structure(
            lambda t: tf.TensorSpec([1, None, 1, 3] if t.shape.rank == 4 else t.shape, t.dtype),
            moved.init(tf.constant(image(0))),
        ),
        tf.TensorSpec([1, None, None, 3]),
    )
    for shape in ((8, 40), (21, 34)):
        x, target = tf.constant(image(0, *shape)), tf.constant(image(1, *shape))
        eager, *_ = make_step(squares, moved, compile="eager")(x, moved.init(x), target)
        np.testing.assert_allclose(traces(x, moved.init(x), target)[0], eager, atol=1e-5)
