"""Style losses of windows and across layers, against loops and by their laws."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from tests import reference
from tests.conftest import make_image
from tfstyle import Objective, stylize
from tfstyle.losses import GRAM, balanced_normalization, cross_layer_gram, paper_normalization, windowed_gram
from tfstyle.run.setup import STYLE_LOSSES


def features(height, width, channels, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (1, height, width, channels)).astype(np.float32)


def swapped(f):
    """Return features with the upper left and the lower right quarter exchanged."""
    h, w = f.shape[1] // 2, f.shape[2] // 2
    out = f.copy()
    out[:, :h, :w], out[:, h:, w:] = f[:, h:, w:], f[:, :h, :w]
    return out


def test_windows_have_the_gram_matrices_of_slow_loops():
    f = features(9, 7, 3)  # both sides are odd, so that neighbouring windows share a row or a column
    grams, means = windowed_gram(2).summary(tf.constant(f), None)
    for number, part in enumerate((f[0, :5, :4], f[0, :5, 3:], f[0, 4:, :4], f[0, 4:, 3:])):
        assert reference.relative_error(grams[number], reference.gram(part)) < 1e-6
        assert np.allclose(means[number], part.mean((0, 1)), atol=1e-6)


def test_swapping_two_regions_changes_the_local_loss_and_not_the_global_one():
    f = features(8, 12, 4)
    plain, exchanged = tf.constant(f), tf.constant(swapped(f))
    scale = float(GRAM.distance(GRAM.summary(plain, None), GRAM.summary(tf.zeros_like(plain), None)))
    assert float(GRAM.distance(GRAM.summary(plain, None), GRAM.summary(exchanged, None))) < 1e-10 * scale
    local = windowed_gram(2)
    assert float(local.distance(local.summary(plain, None), local.summary(exchanged, None))) > 0.01 * scale
    assert float(local.distance(local.summary(plain, None), local.summary(plain, None))) == 0


def test_the_mean_of_equal_windows_is_the_global_matrix():
    f = tf.constant(features(8, 12, 4))
    grams, _ = windowed_gram(4).summary(f, None)
    assert reference.relative_error(tf.reduce_mean(grams, 0, keepdims=True), GRAM.summary(f, None)) < 1e-6


def test_by_content_each_window_is_assigned_the_nearest_window():
    """The windows of the style are those of the content image in another order and with another contrast."""
    f = features(8, 8, 6) + np.repeat(np.repeat(features(4, 4, 6, seed=1) * 3, 2, 1), 2, 2)
    loss = windowed_gram(4, by_content=True)
    blocks = f.reshape(4, 2, 4, 2, 6).transpose(0, 2, 1, 3, 4).reshape(16, 2, 2, 6)
    order = np.random.default_rng(2).permutation(16)
    style = blocks[order].reshape(4, 4, 2, 2, 6).transpose(0, 2, 1, 3, 4).reshape(1, 8, 8, 6) * 5 + 2
    assigned = loss.assign(loss.summary(tf.constant(style), None), loss.summary(tf.constant(f), None))
    assert np.array_equal(order[assigned.numpy()], np.arange(16))


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 13)])
@pytest.mark.parametrize("times", [2, 4])
def test_the_matrix_of_two_layers_is_the_product_with_the_deeper_layer_enlarged(height, width, times):
    shallow, deep = features(height, width, 3), features(height // times, width // times, 5, seed=1)
    (matrix,) = cross_layer_gram().summary([tf.constant(shallow), tf.constant(deep)], None)
    up = deep[0].repeat(times, 0).repeat(times, 1)
    inside = shallow[0, : up.shape[0], : up.shape[1]]
    expected = np.zeros((3, 5))
    for y in range(up.shape[0]):
        for x in range(up.shape[1]):
            expected += np.outer(inside[y, x], up[y, x])
    assert reference.relative_error(matrix, expected / up[..., 0].size) < 1e-6


def test_the_matrix_of_two_layers_if_pooling_rounds_up():
    """Networks that pool with padding round up. A cell at the border is averaged over its part of the map."""
    shallow, deep = features(9, 13, 3), features(5, 7, 5, seed=1)
    cells = [
        [shallow[0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((0, 1)) for x in range(7)] for y in range(5)
    ]
    (matrix,) = cross_layer_gram().summary([tf.constant(shallow), tf.constant(deep)], None)
    expected = np.einsum("yxi,yxj->ij", np.array(cells), deep[0]) / 35
    assert reference.relative_error(matrix, expected) < 1e-5


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 13)])
@pytest.mark.parametrize("times", [1, 2, 4])
def test_the_blurred_matrix_is_the_product_with_the_deeper_layer_enlarged_and_blurred(height, width, times):
    """The Gaussian of SciPy has half of the side of a position as its standard deviation."""
    shallow, deep = features(height, width, 3), features(height // times, width // times, 5, seed=1)
    (matrix,) = cross_layer_gram(blurred=True).summary([tf.constant(shallow), tf.constant(deep)], None)
    up = deep[0].repeat(times, 0).repeat(times, 1).astype(np.float64)
    radius = int(np.ceil(1.5 * times))
    up = scipy.ndimage.gaussian_filter(
        up, (times / 2, times / 2, 0), mode="constant", radius=(radius, radius, 0)
    )
    inside = shallow[0, : up.shape[0], : up.shape[1]]
    expected = np.einsum("yxi,yxj->ij", inside, up) / up[..., 0].size
    assert reference.relative_error(matrix, expected) < 1e-5


def test_in_the_blurred_matrix_neighbouring_positions_count():
    """Each layer has one active position, and the two are one position of the deeper layer apart."""
    shallow, deep = np.zeros((1, 8, 8, 1), np.float32), np.zeros((1, 4, 4, 1), np.float32)
    shallow[0, 3, 3], deep[0, 1, 2] = 1, 1  # position (1, 1) of the deeper layer covers (3, 3)
    pair = [tf.constant(shallow), tf.constant(deep)]
    assert float(cross_layer_gram().summary(pair, None)[0][0, 0]) == 0
    assert float(cross_layer_gram(blurred=True).summary(pair, None)[0][0, 0]) > 0.1 / 64


def test_the_chain_depends_on_the_alignment_of_layers_and_gram_matrices_do_not():
    shallow, deep = features(8, 8, 3), features(4, 4, 5, seed=1)
    moved = np.roll(deep, 1, 2)
    assert reference.relative_error(GRAM.summary(tf.constant(moved), None), GRAM.summary(deep, None)) < 1e-6
    chain = cross_layer_gram()
    aligned, shifted = (chain.summary([tf.constant(shallow), tf.constant(d)], None) for d in (deep, moved))
    scale = float(chain.distance(aligned, [tf.zeros_like(aligned[0])]))
    assert float(chain.distance(aligned, shifted)) > 0.01 * scale


@pytest.mark.parametrize("name", ["local", "local_by_content", "chain", "blurred", "across"])
@pytest.mark.parametrize("flat", [False, True])
def test_stylize_reduces_the_loss(name, flat, small_file, content, style):
    options = {"size": 32, "iterations": 20, "scales": 1, "content_layers": ("conv2_1",), "tv_weight": 0.0}
    layers = ("conv2_1",) if flat else ("conv2_2", "conv1_1", "conv1_2")  # not in the order of the network
    result = stylize(
        content, style, style_losses=(name,), style_layers=layers, weights=small_file,
        precision="float32", compile="eager", **options,
    )  # fmt: skip
    assert result.history.style[-1] < 0.3 * result.history.style[0]


@pytest.mark.parametrize("name", ["local", "chain"])
def test_with_unit_gradients_the_normalization_does_not_matter(name, small_encoder):
    image, style = (tf.constant(make_image(32, 32, seed)[None]) for seed in (1, 2))

    def gradient(normalization, unit_gradients):
        objective = Objective(
            small_encoder.features, {}, style_layers={"conv1_1": 1.0, "conv2_1": 1.0},
            content_weight=0.0, style_weight=1.0, normalization=normalization,
            style_losses=((STYLE_LOSSES[name], 1.0),), unit_gradients=unit_gradients,
        )  # fmt: skip
        targets = objective.targets(image, [objective.style_summary(style)])
        with tf.GradientTape() as tape:
            tape.watch(image)
            total = objective(image, targets)["total"]
        return tape.gradient(total, image)

    paper, balanced = (gradient(n, True) for n in (paper_normalization, balanced_normalization))
    assert reference.relative_error(paper, balanced) < 1e-4
    paper, balanced = (gradient(n, False) for n in (paper_normalization, balanced_normalization))
    assert reference.relative_error(paper, balanced) > 10
