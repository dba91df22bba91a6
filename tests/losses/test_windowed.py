"""Style losses that know places, and those that know two layers, against loops and laws."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from tests import reference
from tests.conftest import make_picture
from tfstyle import Objective, stylize
from tfstyle.losses import GRAM, balanced_normalization, cross_layer_gram, paper_normalization, windowed_gram
from tfstyle.run.setup import STYLE_LOSSES


def features(height, width, channels, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (1, height, width, channels)).astype(np.float32)


def swapped(f):
    """The upper left quarter and the lower right one change places."""
    h, w = f.shape[1] // 2, f.shape[2] // 2
    out = f.copy()
    out[:, :h, :w], out[:, h:, w:] = f[:, h:, w:], f[:, :h, :w]
    return out


def test_windows_are_slow_loops_gram_matrices():
    f = features(9, 7, 3)  # neither side is a multiple of two: windows share a line
    grams, means = windowed_gram(2).summary(tf.constant(f), None)
    for number, part in enumerate((f[0, :5, :4], f[0, :5, 3:], f[0, 4:, :4], f[0, 4:, 3:])):
        assert reference.relative_error(grams[number], reference.gram(part)) < 1e-6
        assert np.allclose(means[number], part.mean((0, 1)), atol=1e-6)


def test_swapping_two_regions_changes_the_local_loss_and_not_the_global_one():
    f = features(8, 12, 4)
    one, other = tf.constant(f), tf.constant(swapped(f))
    scale = float(GRAM.distance(GRAM.summary(one, None), GRAM.summary(tf.zeros_like(one), None)))
    assert float(GRAM.distance(GRAM.summary(one, None), GRAM.summary(other, None))) < 1e-10 * scale
    local = windowed_gram(2)
    assert float(local.distance(local.summary(one, None), local.summary(other, None))) > 0.01 * scale
    assert float(local.distance(local.summary(one, None), local.summary(one, None))) == 0


def test_the_mean_of_equal_windows_is_the_global_matrix():
    f = tf.constant(features(8, 12, 4))
    grams, _ = windowed_gram(4).summary(f, None)
    assert reference.relative_error(tf.reduce_mean(grams, 0, keepdims=True), GRAM.summary(f, None)) < 1e-6


def test_content_takes_the_window_that_is_like_it():
    """The style's windows are the content's in another order and another contrast: they are found again."""
    f = features(8, 8, 6) + np.repeat(np.repeat(features(4, 4, 6, seed=1) * 3, 2, 1), 2, 2)
    loss = windowed_gram(4, by_content=True)
    blocks = f.reshape(4, 2, 4, 2, 6).transpose(0, 2, 1, 3, 4).reshape(16, 2, 2, 6)
    order = np.random.default_rng(2).permutation(16)
    style = blocks[order].reshape(4, 4, 2, 2, 6).transpose(0, 2, 1, 3, 4).reshape(1, 8, 8, 6) * 5 + 2
    found = loss.assign(loss.summary(tf.constant(style), None), loss.summary(tf.constant(f), None))
    assert np.array_equal(order[found.numpy()], np.arange(16))


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 13)])
@pytest.mark.parametrize("times", [2, 4])
def test_a_pair_is_the_product_with_the_deeper_layer_enlarged(height, width, times):
    shallow, deep = features(height, width, 3), features(height // times, width // times, 5, seed=1)
    (found,) = cross_layer_gram().summary([tf.constant(shallow), tf.constant(deep)], None)
    up = deep[0].repeat(times, 0).repeat(times, 1)
    inside = shallow[0, : up.shape[0], : up.shape[1]]
    expected = np.zeros((3, 5))
    for y in range(up.shape[0]):
        for x in range(up.shape[1]):
            expected += np.outer(inside[y, x], up[y, x])
    assert reference.relative_error(found, expected / up[..., 0].size) < 1e-6


def test_a_pair_where_pooling_rounds_up():
    """As networks that pool with padding do: what is left of the last cells counts by its own mean."""
    shallow, deep = features(9, 13, 3), features(5, 7, 5, seed=1)
    cells = [
        [shallow[0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((0, 1)) for x in range(7)] for y in range(5)
    ]
    (found,) = cross_layer_gram().summary([tf.constant(shallow), tf.constant(deep)], None)
    expected = np.einsum("yxi,yxj->ij", np.array(cells), deep[0]) / 35
    assert reference.relative_error(found, expected) < 1e-5


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 13)])
@pytest.mark.parametrize("times", [1, 2, 4])
def test_a_blurred_pair_is_the_product_with_the_deeper_layer_enlarged_and_blurred(height, width, times):
    """By scipy's Gaussian of half of what a position stands for, cut off at three deviations."""
    shallow, deep = features(height, width, 3), features(height // times, width // times, 5, seed=1)
    (found,) = cross_layer_gram(blurred=True).summary([tf.constant(shallow), tf.constant(deep)], None)
    up = deep[0].repeat(times, 0).repeat(times, 1).astype(np.float64)
    radius = int(np.ceil(1.5 * times))
    up = scipy.ndimage.gaussian_filter(
        up, (times / 2, times / 2, 0), mode="constant", radius=(radius, radius, 0)
    )
    inside = shallow[0, : up.shape[0], : up.shape[1]]
    expected = np.einsum("yxi,yxj->ij", inside, up) / up[..., 0].size
    assert reference.relative_error(found, expected) < 1e-5


def test_a_blurred_pair_lets_neighbours_count():
    """One spot in each layer, apart by one position of the deeper: only the blurred pair sees both."""
    shallow, deep = np.zeros((1, 8, 8, 1), np.float32), np.zeros((1, 4, 4, 1), np.float32)
    shallow[0, 3, 3], deep[0, 1, 2] = 1, 1  # (3, 3) lies under (1, 1)
    pair = [tf.constant(shallow), tf.constant(deep)]
    assert float(cross_layer_gram().summary(pair, None)[0][0, 0]) == 0
    assert float(cross_layer_gram(blurred=True).summary(pair, None)[0][0, 0]) > 0.1 / 64


def test_the_chain_sees_where_layers_meet_and_their_own_matrices_do_not():
    shallow, deep = features(8, 8, 3), features(4, 4, 5, seed=1)
    moved = np.roll(deep, 1, 2)
    assert reference.relative_error(GRAM.summary(tf.constant(moved), None), GRAM.summary(deep, None)) < 1e-6
    chain = cross_layer_gram()
    one, other = (chain.summary([tf.constant(shallow), tf.constant(d)], None) for d in (deep, moved))
    assert float(chain.distance(one, other)) > 0.01 * float(chain.distance(one, [tf.zeros_like(one[0])]))


@pytest.mark.parametrize("name", ["local", "local_by_content", "chain", "blurred", "across"])
@pytest.mark.parametrize("flat", [False, True])
def test_stylize_lowers_them(name, flat, small_file, content, style):
    options = {"size": 48, "iterations": 30, "scales": 1, "content_layers": ("conv2_1",), "tv_weight": 0.0}
    layers = ("conv2_1",) if flat else ("conv2_2", "conv1_1", "conv1_2")  # any order
    result = stylize(
        content, style, style_losses=(name,), style_layers=layers, weights=small_file,
        precision="float32", **options,
    )  # fmt: skip
    assert result.history.style[-1] < 0.3 * result.history.style[0]


@pytest.mark.parametrize("name", ["local", "chain"])
def test_with_unit_gradients_the_unit_of_a_loss_does_not_matter(name, small_encoder):
    picture, other = (tf.constant(make_picture(32, 32, seed)[None]) for seed in (1, 2))

    def gradient(normalization, unit_gradients):
        objective = Objective(
            small_encoder.features, {}, style_layers={"conv1_1": 1.0, "conv2_1": 1.0},
            content_weight=0.0, style_weight=1.0, normalization=normalization,
            style_losses=((STYLE_LOSSES[name], 1.0),), unit_gradients=unit_gradients,
        )  # fmt: skip
        targets = objective.targets(picture, [objective.style_summary(other)])
        with tf.GradientTape() as tape:
            tape.watch(picture)
            total = objective(picture, targets)["total"]
        return tape.gradient(total, picture)

    one, same = (gradient(n, True) for n in (paper_normalization, balanced_normalization))
    assert reference.relative_error(one, same) < 1e-4
    one, another = (gradient(n, False) for n in (paper_normalization, balanced_normalization))
    assert reference.relative_error(one, another) > 10
