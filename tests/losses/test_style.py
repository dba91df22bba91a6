"""The style losses against slow NumPy, their laws, and their gradients against finite differences."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tfstyle.errors import ConfigError
from tfstyle.losses import (
    GRAM,
    HISTOGRAM,
    MEAN_DEVIATION,
    NORMALIZED_GRAM,
    shifted_gram,
    sliced_wasserstein,
    wasserstein,
)
from tfstyle.losses.sliced import QUANTILE_COUNT
from tfstyle.optim import only_first_derivatives

LOSSES = {
    "gram": GRAM,
    "normalized_gram": NORMALIZED_GRAM,
    "shifted": shifted_gram(),
    "mean_deviation": MEAN_DEVIATION,
    "wasserstein": wasserstein(),
    "histogram": HISTOGRAM,
    "sliced": sliced_wasserstein(),
}
SORTED = ("histogram", "sliced")


@pytest.fixture(params=LOSSES)
def name(request):
    return request.param


@pytest.fixture
def loss(name):
    return LOSSES[name]


@pytest.fixture(params=[((5, 6, 4), (7, 3, 4)), ((9, 4, 7), (8, 8, 7))], ids=str)
def pair(request):
    """Features of an image and of a style image, which differ in size, mean and scale."""
    shape, style_shape = request.param
    return make_features(1, shape), make_features(2, style_shape) * 1.5 + 0.3


def make_features(seed, shape):
    """Return features with correlated channels and without negative values, as a ReLU gives them."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(0.2, 1, shape) @ generator.normal(0, 1, (shape[-1], shape[-1]))
    return np.maximum(mixed, 0).astype(np.float32)[None]


def make_weight(seed, features, zeros=0):
    """Return weights of mean 1: zeros for the first positions, positive numbers for the others."""
    weight = np.random.default_rng(seed).uniform(0.2, 2, (1, *features.shape[1:3], 1))
    weight.reshape(-1)[:zeros] = 0
    return (weight / weight.mean()).astype(np.float32)


def compare(loss, features, style, weight=None, style_weight=None):
    target = loss.blend([loss.summary(tf.constant(style), style_weight)], [1.0])
    return loss.distance(loss.summary(tf.constant(features), weight), target)


def gradient(loss, features, style, weight=None, context=only_first_derivatives):
    target = loss.blend([loss.summary(tf.constant(style), None)], [1.0])
    with tf.GradientTape() as tape, context():
        x = tf.constant(features)
        tape.watch(x)
        y = loss.distance(loss.summary(x, weight), target)
    return tape.gradient(y, x).numpy()


# The slow definitions take features [M, N] and weights [M] in float64.


def slow_moments(f, w):
    positions, channels = f.shape
    mean, second = np.zeros(channels), np.zeros((channels, channels))
    for k in range(positions):
        for i in range(channels):
            mean[i] += w[k] * f[k, i] / positions
            for j in range(channels):
                second[i, j] += w[k] * f[k, i] * f[k, j] / positions
    return mean, second


def slow_gram(f, wf, s, ws, shift=0.0):
    return reference.style_loss(slow_moments(f + shift, wf)[1], slow_moments(s + shift, ws)[1])


def slow_normalized_gram(f, wf, s, ws):
    g, a = slow_moments(f, wf)[1], slow_moments(s, ws)[1]
    power = np.diag(a) + 0.01 * np.mean(np.diag(a))
    n = len(a)
    return sum((g[i, j] - a[i, j]) ** 2 / (power[i] * power[j]) for i in range(n) for j in range(n)) / (
        4 * n**2
    )


def slow_mean_deviation(f, wf, s, ws):
    (m, c), (n, d) = slow_moments(f, wf), slow_moments(s, ws)
    total = 0.0
    for i in range(len(m)):
        sigma, tau = (np.sqrt(second[i, i] - mean[i] ** 2 + 1e-6) for mean, second in ((m, c), (n, d)))
        total += (m[i] - n[i]) ** 2 + (sigma - tau) ** 2
    return total / len(m)


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def gaussian_distance(m, c, n, d, ridge=1e-4):
    c, d = (x + ridge * (np.eye(len(x)) + np.diag(np.diag(x))) for x in (c, d))
    return (((m - n) ** 2).sum() + np.trace(c + d - 2 * root(root(d) @ c @ root(d)))) / len(m)


def slow_wasserstein(f, wf, s, ws):
    (m, c), (n, d) = slow_moments(f, wf), slow_moments(s, ws)
    return gaussian_distance(m, c - np.outer(m, m), n, d - np.outer(n, n))


def slow_table(values, weights):
    """For each k, return the smallest value up to which the weights sum to (k + ½)/K of the total."""
    order = np.argsort(values)
    cumulative, index, table = weights[order[0]], 0, []
    for k in range(QUANTILE_COUNT):
        while cumulative < (k + 0.5) / QUANTILE_COUNT * weights.sum() and index < len(order) - 1:
            index += 1
            cumulative += weights[order[index]]
        table.append(values[order[index]])
    return np.array(table)


def line_distance(x, wx, y, wy):
    """Return ∫ (X - Y)² dp of two quantile functions, summed over the pieces where both are constant."""
    x, wx = x[np.argsort(x)], wx[np.argsort(x)]
    y, wy = y[np.argsort(y)], wy[np.argsort(y)]
    ends_x, ends_y = np.cumsum(wx) / wx.sum(), np.cumsum(wy) / wy.sum()
    start, i, j, total = 0.0, 0, 0, 0.0
    while i < len(x) and j < len(y):
        end = min(ends_x[i], ends_y[j])
        total += max(end - start, 0) * (x[i] - y[j]) ** 2
        start = end
        i, j = i + (ends_x[i] <= end), j + (ends_y[j] <= end)
    return total


def slow_histogram(f, wf, s, ws):
    tables = [slow_table(s[:, i], ws) for i in range(f.shape[1])]
    return np.mean([line_distance(f[:, i], wf, t, np.ones(QUANTILE_COUNT)) for i, t in enumerate(tables)])


def slow_sliced(f, wf, s, ws):
    n = f.shape[1]
    vectors = np.random.default_rng([0, n]).normal(size=(n, n))
    vectors = vectors / np.sqrt((vectors**2).sum(1, keepdims=True))
    return slow_histogram(f @ vectors.T, wf, s @ vectors.T, ws)


SLOW = {
    "gram": slow_gram,
    "normalized_gram": slow_normalized_gram,
    "shifted": lambda *arguments: slow_gram(*arguments, shift=-1.0),
    "mean_deviation": slow_mean_deviation,
    "wasserstein": slow_wasserstein,
    "histogram": slow_histogram,
    "sliced": slow_sliced,
}


@pytest.mark.parametrize("guided", [False, True])
def test_matches_numpy(name, loss, pair, guided):
    f, s = pair
    wf, ws = (make_weight(3, f, zeros=4), make_weight(4, s)) if guided else (None, None)
    value = compare(loss, f, s, wf, ws)
    assert value.shape == ()
    assert value.dtype == tf.float32
    flat = [x.astype(np.float64).reshape(-1, x.shape[-1]) for x in (f, s)]
    weights = [np.ones(len(x)) if w is None else w.reshape(-1).astype(np.float64)
               for x, w in zip(flat, (wf, ws), strict=True)]  # fmt: skip
    expected = SLOW[name](flat[0], weights[0], flat[1], weights[1])
    assert float(value) == pytest.approx(expected, rel=1e-4)


def test_is_zero_for_equal_features_and_positive_for_others(name, loss, pair):
    f, s = pair
    value = float(compare(loss, f, s))
    assert value > 0
    # The table of a sorted style is not exact.
    assert 0 <= float(compare(loss, s, s)) < (1e-3 if name in SORTED else 1e-8) * value
    # The gradient vanishes at the minimum.
    assert np.linalg.norm(gradient(loss, s, s)) < 1e-2 * np.linalg.norm(gradient(loss, f, s))


def test_does_not_depend_on_the_order_of_positions(loss, pair):
    f, s = pair
    weight = make_weight(3, f)
    order = np.random.default_rng(5).permutation(f.shape[1] * f.shape[2])
    shuffled, moved = (x.reshape(len(order), -1)[order].reshape(x.shape) for x in (f, weight))
    assert float(compare(loss, shuffled, s)) == pytest.approx(float(compare(loss, f, s)), rel=1e-5)
    assert float(compare(loss, shuffled, s, moved)) == pytest.approx(
        float(compare(loss, f, s, weight)), rel=1e-5
    )


def test_weights_of_ones_change_nothing(loss, pair):
    f, s = pair
    ones = [np.ones((1, *x.shape[1:3], 1), np.float32) for x in (f, s)]
    assert float(compare(loss, f, s, *ones)) == pytest.approx(float(compare(loss, f, s)), rel=1e-5)
    assert reference.relative_error(gradient(loss, f, s, ones[0]), gradient(loss, f, s)) < 1e-4


def test_positions_of_weight_zero_do_not_count(loss, pair):
    f, s = pair
    inside = [np.zeros((1, *x.shape[1:3], 1), np.float32) for x in (f, s)]
    for weight in inside:
        weight[:, :3, 1:] = weight.size / weight[:, :3, 1:].size
    expected = float(compare(loss, f[:, :3, 1:], s[:, :3, 1:]))
    assert float(compare(loss, f, s, *inside)) == pytest.approx(expected, rel=1e-4)
    slopes = gradient(loss, f, s[:, :3, 1:], inside[0])
    assert not slopes[:, 3:].any()
    assert not slopes[:, :, 0].any()
    assert reference.relative_error(slopes[:, :3, 1:], gradient(loss, f[:, :3, 1:], s[:, :3, 1:])) < 1e-3


def test_a_double_weight_equals_a_repeated_position(loss):
    f, s = make_features(1, (20, 10, 4)), make_features(2, (20, 20, 4)) + 0.5
    repeated = np.concatenate([f, f[:, :8]], 1)
    weight = np.ones((1, 20, 10, 1), np.float32)
    weight[:, :8] = 2
    weight /= weight.mean()
    for weighted, plain in (([f, s, weight], [repeated, s]), ([s, f, None, weight], [s, repeated])):
        assert float(compare(loss, *weighted)) == pytest.approx(float(compare(loss, *plain)), rel=1e-4)


@pytest.mark.parametrize("guided", [False, True])
def test_gradient_is_the_slope(loss, pair, guided):
    f, s = pair
    # Noise breaks ties, at which the sorted losses have a kink.
    f = f + np.random.default_rng(8).uniform(0, 0.3, f.shape).astype(np.float32)
    weight = make_weight(3, f) if guided else None
    slopes = gradient(loss, f, s, weight)
    generator, step = np.random.default_rng(6), 2e-3
    for _ in range(3):
        direction = generator.normal(size=f.shape)
        # The gradient is added, because the slope in a random direction alone may be too small to compare.
        direction = direction / np.linalg.norm(direction) + slopes / np.linalg.norm(slopes)
        ahead, behind = ((f + sign * step * direction).astype(np.float32) for sign in (1, -1))
        difference = float(compare(loss, ahead, s, weight)) - float(compare(loss, behind, s, weight))
        assert (slopes * direction).sum() == pytest.approx(difference / (2 * step), rel=1e-2)


def hessian_products(function, point, direction):
    """Return the product of the Hessian with a direction, by reverse mode and by forward mode."""
    x, direction = tf.constant(point, tf.float32), tf.constant(direction, tf.float32)
    with tf.GradientTape() as outer, tf.autodiff.ForwardAccumulator(x, direction) as forward:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        slope = tape.gradient(y, x)
    return outer.gradient(slope, x, output_gradients=direction), forward.jvp(slope)


def test_hessian_products_are_the_second_differences_of_numpy(name, loss, pair):
    f, s = pair
    generator, step = np.random.default_rng(6), 1e-5
    f = f + generator.uniform(0, 0.3, f.shape).astype(np.float32)  # without ties, as above
    weight = make_weight(3, f)
    w, positions = weight.reshape(-1).astype(np.float64), weight.size
    style = s.astype(np.float64).reshape(-1, s.shape[-1])
    direction, other = (generator.normal(size=f.shape) for _ in range(2))

    def value(a, b):
        moved = (f + step * (a * direction + b * other)).reshape(positions, -1)
        return SLOW[name](moved, w, style, np.ones(len(style)))

    difference = (value(1, 1) - value(1, -1) - value(-1, 1) + value(-1, -1)) / (4 * step**2)
    target = loss.blend([loss.summary(tf.constant(s), None)], [1.0])
    products = hessian_products(lambda x: loss.distance(loss.summary(x, weight), target), f, direction)
    for product in products:
        assert (product.numpy() * other).sum() == pytest.approx(difference, rel=5e-3)


def test_the_wasserstein_distance_can_be_differentiated_twice_by_both_arguments(pair):
    """The distance is symmetric, and its mixed second derivatives are those of finite differences."""
    loss = LOSSES["wasserstein"]
    c, d = (loss.summary(tf.constant(x), None)[1].numpy()[0].astype(np.float64) for x in pair)
    mean = np.zeros((1, len(c)))

    def distance(joint):
        return loss.distance((mean.astype("f4"), joint[:1]), (mean.astype("f4"), joint[1:]))

    generator, step = np.random.default_rng(7), 1e-4
    directions = generator.normal(size=(2, 2, *c.shape))
    directions += directions.swapaxes(-1, -2)
    joint = np.stack([c, d])

    def value(a, b):
        moved = joint + step * (a * directions[0] + b * directions[1])
        return gaussian_distance(mean[0], moved[0], mean[0], moved[1])

    with tf.GradientTape() as tape:
        x = tf.constant(joint, tf.float32)
        tape.watch(x)
        y = distance(x)
    slope = (tape.gradient(y, x).numpy() * directions[0]).sum()
    assert slope == pytest.approx((value(1, 0) - value(-1, 0)) / (2 * step), rel=1e-3)
    difference = (value(1, 1) - value(1, -1) - value(-1, 1) + value(-1, -1)) / (4 * step**2)
    for product in hessian_products(distance, joint, directions[0]):
        assert (product.numpy() * directions[1]).sum() == pytest.approx(difference, rel=5e-3)


def test_the_fast_form_of_a_step_has_the_same_gradient(loss, pair):
    f, s = pair
    weight = make_weight(3, f)
    for w in (None, weight):
        exact = gradient(loss, f, s, w, contextlib.nullcontext)
        assert reference.relative_error(gradient(loss, f, s, w), exact) < 1e-5


def test_bfloat16_features_are_summed_in_float32(name, loss):
    half = [tf.cast(make_features(seed, (33, 31, 5)), tf.bfloat16) for seed in (1, 2)]
    single = [tf.cast(x, tf.float32).numpy() for x in half]
    weight = make_weight(3, single[0])
    for w in (None, weight):
        value, expected = compare(loss, *half, w), float(compare(loss, *single, w))
        assert value.dtype == tf.float32
        assert float(value) == pytest.approx(expected, rel=1e-5)
        slopes = gradient(loss, *half, w)
        assert slopes.dtype == tf.bfloat16.as_numpy_dtype
        assert reference.relative_error(slopes.astype(np.float32), gradient(loss, *single, w)) < 2e-2


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiles(loss, xla):
    f, s = make_features(1, (5, 6, 4)), make_features(2, (7, 3, 4)) + 0.3
    weight = make_weight(3, f)
    target = loss.blend([loss.summary(tf.constant(s), None)], [1.0])
    sizes = [tf.TensorSpec([1, None, None, channels]) for channels in (4, 1)]

    @tf.function(input_signature=None if xla else sizes, jit_compile=xla)
    def run(features, weight):
        with tf.GradientTape() as tape:
            tape.watch(features)
            value = loss.distance(loss.summary(features, weight), target)
        return value, tape.gradient(value, features), loss.distance(loss.summary(features, None), target)

    value, slopes, plain = run(tf.constant(f), tf.constant(weight))
    assert float(value) == pytest.approx(float(compare(loss, f, s, weight)), rel=1e-4)
    assert float(plain) == pytest.approx(float(compare(loss, f, s)), rel=1e-4)
    assert reference.relative_error(slopes, gradient(loss, f, s, weight)) < 1e-3


def test_one_graph_computes_targets_of_any_size(loss, pair):
    f, s = pair

    @tf.function(input_signature=[tf.TensorSpec([1, None, None, f.shape[-1]])] * 2)
    def run(features, style):
        target = loss.blend(
            [loss.summary(style, tf.ones_like(style[..., :1])), loss.summary(style, None)], [1, 2]
        )
        return loss.distance(loss.summary(features, None), target)

    assert float(run(f, s)) == pytest.approx(float(compare(loss, f, s)), rel=1e-4)


def test_a_blend_depends_on_the_ratios_of_its_weights(loss, pair):
    f, s = pair
    summary, other = (loss.summary(tf.constant(x), None) for x in (f, s))
    blended = [
        float(loss.distance(summary, loss.blend([summary, other], weights)))
        for weights in ([3, 1], [0.75, 0.25])
    ]
    assert blended[0] == pytest.approx(blended[1], rel=1e-5)
    alone = float(loss.distance(summary, loss.blend([other, summary], [2, 0])))
    assert alone == pytest.approx(float(compare(loss, f, s)), rel=1e-5)
    assert 0 < blended[0] < alone


@pytest.mark.parametrize("name", ["gram", "shifted", "mean_deviation", "wasserstein"])
def test_the_blend_of_parts_weighted_by_area_is_the_summary_of_the_whole(name):
    loss, whole = LOSSES[name], make_features(1, (9, 4, 5))
    parts = [loss.summary(tf.constant(x), None) for x in (whole[:, :3], whole[:, 3:])]
    blended, expected = loss.blend(parts, [3, 6]), loss.summary(tf.constant(whole), None)
    for a, b in zip(tf.nest.flatten(blended), tf.nest.flatten(expected), strict=True):
        assert reference.relative_error(a, b) < 1e-5


def test_only_gram_matrices_are_second_order(name, loss, pair):
    """With features three times as large, distances are 81, 9 or 1 times as large."""
    f, s = pair
    if name == "shifted":
        loss = shifted_gram(0.0)
    ratio = float(compare(loss, 3 * f, 3 * s)) / float(compare(loss, f, s))
    assert loss.second_order == (name in ("gram", "normalized_gram", "shifted"))
    growth = {"gram": 81, "shifted": 81, "normalized_gram": 1}
    assert ratio == pytest.approx(growth.get(name, 9), rel=1e-2)


def test_a_shift_counts_positions_where_both_channels_are_inactive():
    """Two channels are active at one position each, so that both are inactive at half of the positions."""
    f = np.zeros((1, 2, 2, 2), np.float32)
    f[0, 0, 0, 0] = f[0, 1, 1, 1] = 1
    plain, shifted = (x.summary(tf.constant(f), None).numpy()[0, 0, 1] for x in (GRAM, shifted_gram()))
    assert plain == 0
    assert shifted == pytest.approx(0.5)


@pytest.mark.parametrize("name", SORTED)
@pytest.mark.parametrize("positions", [(3, 7), (40, 50), (120, 100)])
def test_tables_are_fine_enough(name, positions):
    """The exact distance needs no table. The style has fewer values than the table, or more."""
    f, s = make_features(1, (8, 9, 3)), make_features(2, (*positions, 3))
    if name == "histogram":
        columns = [x.reshape(-1, 3).T.astype(np.float64) for x in (f, s)]
        exact = [
            line_distance(x, np.ones(72), y, np.ones(s.size // 3)) for x, y in zip(*columns, strict=True)
        ]
        assert float(compare(HISTOGRAM, f, s)) == pytest.approx(np.mean(exact), rel=2e-3)
    assert float(compare(LOSSES[name], s, s)) < 2e-4 * s.var()


def test_histograms_of_equally_many_values_are_compared_in_sorted_pairs():
    f, s = make_features(1, (8, 16, 3)), make_features(2, (16, 8, 3))
    pairs = ((np.sort(f.reshape(-1, 3), 0) - np.sort(s.reshape(-1, 3), 0)) ** 2).mean()
    assert float(compare(HISTOGRAM, f, s)) == pytest.approx(pairs, rel=1e-5)


@pytest.mark.parametrize("name", ["mean_deviation", "wasserstein", *SORTED])
def test_the_distance_from_zero_features_is_the_mean_square(name):
    """This is the distance by which `balanced_normalization` divides."""
    s = make_features(2, (16, 16, 5)) * 10
    energy = (s**2).mean()
    if name == "sliced":
        vectors = np.random.default_rng([0, 5]).normal(size=(5, 5))
        energy = ((s @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T) ** 2).mean()
    assert float(compare(LOSSES[name], np.zeros((1, 1, 1, 5), "f4"), s)) == pytest.approx(energy, rel=1e-2)


def test_the_blend_of_histograms_is_their_barycentre():
    """The blend of a distribution and the same shifted by 2 is the same shifted by 1, not a mixture."""
    f = make_features(1, (6, 7, 3))
    parts = [HISTOGRAM.summary(tf.constant(x), None) for x in (f, f + 2)]
    assert float(HISTOGRAM.distance(parts[0], HISTOGRAM.blend(parts, [1, 1]))) == pytest.approx(1, rel=2e-3)


def test_sliced_directions_are_fixed_by_the_seed(pair):
    f, s = pair
    values = [float(compare(sliced_wasserstein(seed), f, s)) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_sliced_depends_on_correlations_of_channels_and_histograms_do_not():
    """The two features have channels with the same values, once equal and once in opposite order."""
    f = np.random.default_rng(0).normal(size=(1, 10, 10, 1)).astype(np.float32)
    together = np.concatenate([f, f], 3)
    apart = np.concatenate([f, f[:, ::-1]], 3)
    assert float(compare(HISTOGRAM, apart, together)) < 1e-4
    assert float(compare(sliced_wasserstein(), apart, together)) > 1e-2


def ill_conditioned(seed, height, width, channels, spread=True):
    """Return features with a singular covariance if positions are few, and variances from 0 to 1e6."""
    generator = np.random.default_rng(seed)
    decay = np.arange(1, channels + 1)[:, None] ** -1.0
    mixed = generator.normal(size=(height * width, channels)) @ (
        decay * generator.normal(size=(channels, channels))
    )
    scale = 10 ** generator.uniform(-3, 3, channels) if spread else np.full(channels, 1e3)
    scale[::5] = 0
    return (np.maximum(mixed, 0) * scale).reshape(1, height, width, channels).astype(np.float32)


ILL = {
    "low rank": lambda: (ill_conditioned(1, 4, 4, 96), ill_conditioned(2, 5, 5, 96)),
    "one position": lambda: (ill_conditioned(1, 1, 1, 96), ill_conditioned(2, 5, 5, 96)),
    "full rank": lambda: (ill_conditioned(1, 12, 12, 96), ill_conditioned(2, 12, 12, 96)),
    "from zeros": lambda: (np.zeros((1, 4, 4, 96), "f4"), ill_conditioned(2, 12, 12, 96)),
    "to zeros": lambda: (ill_conditioned(1, 12, 12, 96), np.zeros((1, 4, 4, 96), "f4")),
    "one channel, repeated": lambda: (
        np.repeat(ill_conditioned(1, 9, 9, 96)[..., 1:2], 96, 3),
        np.repeat(ill_conditioned(2, 9, 9, 96)[..., 1:2], 96, 3),
    ),
    "far from the origin": lambda: (ill_conditioned(1, 9, 9, 96) + 1e4, ill_conditioned(2, 9, 9, 96) + 1e4),
}


@pytest.mark.parametrize("case", ILL)
def test_wasserstein_of_ill_conditioned_covariances(case):
    f, s = ILL[case]()
    loss = LOSSES["wasserstein"]
    moments, target = (loss.summary(tf.constant(x), None) for x in (f, s))
    exact = gaussian_distance(*(x.numpy()[0].astype(np.float64) for x in (*moments, *target)))
    assert float(compare(loss, f, s)) == pytest.approx(exact, rel=1e-4)
    slopes = gradient(loss, f, s)
    assert np.isfinite(slopes).all()
    # Far from the origin, the mean has a rounding error, and the forms differ in its derivative.
    assert reference.relative_error(gradient(loss, f, s, None, contextlib.nullcontext), slopes) < 1e-2
    for x in (f, s):
        variance = x.reshape(-1, x.shape[-1]).astype(np.float64).var(0).mean()
        assert 0 <= float(compare(loss, x, x)) <= 1e-6 * (variance + 1e-4)
        assert np.isfinite(gradient(loss, x, x)).all()


def test_wasserstein_slope_with_low_rank():
    """Central differences, for covariances that would be singular without the ridge."""
    loss = LOSSES["wasserstein"]
    f, s = ill_conditioned(1, 5, 5, 48, spread=False), ill_conditioned(2, 6, 6, 48, spread=False)
    slopes = gradient(loss, f, s)
    direction = slopes / np.linalg.norm(slopes)
    difference = float(compare(loss, f + 5 * direction, s)) - float(compare(loss, f - 5 * direction, s))
    assert np.linalg.norm(slopes) == pytest.approx(difference / 10, rel=1e-3)


def test_wasserstein_of_features_that_are_not_finite_is_not_finite():
    """A run can recover from a loss that is NaN, but not from an error."""
    f = np.full((1, 3, 3, 4), np.nan, np.float32)
    assert not np.isfinite(float(compare(LOSSES["wasserstein"], f, make_features(1, (3, 3, 4)))))


@pytest.mark.parametrize("ridge", [0, 1e-5, -1, float("nan"), float("inf")])
def test_wasserstein_needs_its_ridge(ridge):
    with pytest.raises(ConfigError, match=rf"ridge.* {ridge};.*0\.0001"):
        wasserstein(ridge)


def test_a_constant_channel_has_a_finite_slope(loss):
    f, s = np.full((1, 5, 5, 3), 700, np.float32), make_features(1, (5, 5, 3))
    for features, style in ((f, s), (s, f), (f, f)):
        assert np.isfinite(float(compare(loss, features, style)))
        assert np.isfinite(gradient(loss, features, style)).all()


def test_normalized_gram_does_not_depend_on_the_scale_of_features_or_on_the_strength_of_channels(pair):
    f, s = pair
    value = float(compare(NORMALIZED_GRAM, f, s))
    assert float(compare(NORMALIZED_GRAM, 7 * f, 7 * s)) == pytest.approx(value, rel=1e-4)
    strength = np.linspace(1, 2, f.shape[-1], dtype=np.float32)
    scaled = float(compare(NORMALIZED_GRAM, strength * f, strength * s))
    gram, scaled_gram = float(compare(GRAM, f, s)), float(compare(GRAM, strength * f, strength * s))
    assert scaled == pytest.approx(value, rel=0.03)  # not equal, because of the floor
    assert scaled_gram > 1.5 * gram


def test_normalized_gram_is_finite_for_channels_that_the_style_does_not_have(pair):
    f, s = pair
    s[..., 0] = 0
    assert np.isfinite(gradient(NORMALIZED_GRAM, f, s)).all()
    assert np.isfinite(gradient(NORMALIZED_GRAM, f, 0 * s)).all()
