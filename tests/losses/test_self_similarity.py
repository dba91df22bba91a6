"""The self-similarity loss against a slow definition, its laws, and runs that use it."""

import json
import logging

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tfstyle import History, Masks, Objective, StyleConfig, cli, stylize
from tfstyle.errors import ConfigError
from tfstyle.losses import (
    SelfSimilarityTarget,
    Targets,
    sample_positions,
    self_distances,
    self_similarity_loss,
    self_similarity_target,
)
from tfstyle.optim import value_and_gradient
from tfstyle.run import content_weight, make_setup
from tfstyle.run.setup import of_any_size
from tfstyle.tiling import TiledObjective


def features(height, width, channels=5, seed=0):
    """Return seeded features [1, h, w, N] that are at least 0, as after a ReLU."""
    values = np.random.default_rng(seed).normal(0.5, 1, (1, height, width, channels))
    return np.maximum(values, 0).astype(np.float32)


def at(values, positions):
    """Return the float64 vectors of features at positions."""
    _, _, width, _ = values.shape
    return [values[0, p // width, p % width].astype(np.float64) for p in np.asarray(positions)]


def loss(values, content, **options):
    target = self_similarity_target(tf.constant(content), **options)
    return float(self_similarity_loss(tf.constant(values), target))


# Positions


@pytest.mark.parametrize(
    ("shape", "count"), [((30, 50), 1024), ((30, 50), 1500), ((7, 9), 1024), ((1, 1), 5)]
)
def test_positions_are_distinct_and_inside(shape, count):
    positions = sample_positions(*shape, count=count).numpy()
    area = shape[0] * shape[1]
    assert positions.dtype == np.int32
    assert len(positions) == len(set(positions)) == min(count, area)
    assert 0 <= positions.min() <= positions.max() < area


def test_the_default_number_of_positions_is_that_of_the_paper():
    assert len(sample_positions(64, 48)) == 1024


def test_equal_seeds_give_equal_positions_and_others_do_not():
    first, again, other, last = (
        set(sample_positions(60, 70, count=500, seed=seed).numpy().tolist()) for seed in (3, 3, 4, 2**32 - 1)
    )
    assert first == again
    # Of two independent draws of 500 out of 4200, about 60 are common.
    assert len(first & other) < 120
    assert len(first & last) < 120


def test_positions_cover_the_feature_map_evenly():
    positions = sample_positions(40, 40, count=800, seed=1).numpy()
    quarters = np.histogram2d(positions // 40, positions % 40, bins=2)[0]
    assert quarters.min() > 150  # 200 are expected


# Distances and the loss


def test_distances_equal_the_slow_definition():
    samples = features(1, 23, 6)[0, 0]
    samples[4] = 0
    expected = reference.self_distances(samples.astype(np.float64))
    distances = self_distances(tf.constant(samples)).numpy()
    np.testing.assert_allclose(distances, expected, atol=1e-6)
    np.testing.assert_allclose(distances.sum(0), 1, rtol=1e-5)


@pytest.mark.parametrize(("shape", "count"), [((5, 7), 1024), ((9, 6), 20), ((1, 2), 8)])
def test_the_loss_equals_the_slow_definition(shape, count):
    values, content = features(*shape, seed=1), features(*shape, seed=2)
    target = self_similarity_target(tf.constant(content), count=count, seed=5)
    expected = reference.self_similarity_loss(at(values, target.positions), at(content, target.positions))
    np.testing.assert_allclose(
        target.distances, reference.self_distances(at(content, target.positions)), atol=1e-6
    )
    value = float(self_similarity_loss(tf.constant(values), target))
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert 0 <= expected <= 2  # two vectors that differ have equal distances


def test_the_gradient_equals_numerical_differences_of_the_slow_definition():
    values, content = features(3, 4, seed=1) + 0.1, features(3, 4, seed=2) + 0.1
    target = self_similarity_target(tf.constant(content), count=9)
    x = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = self_similarity_loss(x, target)
    gradient = tape.gradient(y, x).numpy()
    expected, step = np.zeros(values.shape), 1e-6
    vectors = at(content, target.positions)
    for index in np.ndindex(*values.shape):
        change = np.zeros(values.shape)
        change[index] = step
        ahead, behind = (
            reference.self_similarity_loss(at(values + sign * change, target.positions), vectors)
            for sign in (1, -1)
        )
        expected[index] = (ahead - behind) / (2 * step)
    assert np.linalg.norm(gradient - expected) < 1e-3 * np.linalg.norm(expected)
    unused = set(range(12)) - set(target.positions.numpy().tolist())
    assert not gradient.reshape(12, -1)[sorted(unused)].any()


def test_an_image_has_no_distance_from_itself():
    content = features(12, 15)
    assert loss(content, content) < 1e-5


def test_positive_factors_change_nothing():
    """Neither one factor for all features, nor one for each position."""
    values, content = features(10, 11, seed=1), features(10, 11, seed=2)
    factors = np.random.default_rng(3).uniform(0.1, 10, (1, 10, 11, 1)).astype(np.float32)
    expected = loss(values, content)
    for factor in (1e-3, 300.0, factors):
        assert loss(values * factor, content) == pytest.approx(expected, rel=1e-4)
        assert loss(values, content * factor) == pytest.approx(expected, rel=1e-4)
    assert loss(content * factors, content) < 1e-4


def test_the_order_of_the_positions_and_of_the_channels_changes_nothing():
    values, content = features(9, 9, seed=1), features(9, 9, seed=2)
    target = self_similarity_target(tf.constant(content))
    expected = float(self_similarity_loss(tf.constant(values), target))
    order = np.random.default_rng(0).permutation(81)
    permuted = SelfSimilarityTarget(
        tf.gather(target.positions, order), tf.gather(tf.gather(target.distances, order), order, axis=1)
    )
    assert float(self_similarity_loss(tf.constant(values), permuted)) == pytest.approx(expected, rel=1e-5)
    channels = [3, 0, 4, 1, 2]
    assert float(self_similarity_loss(tf.constant(values[..., channels]), target)) == pytest.approx(
        expected, rel=1e-5
    )
    moved = values.reshape(1, 81, -1)[:, order].reshape(values.shape)
    assert float(self_similarity_loss(tf.constant(moved), target)) != pytest.approx(expected, rel=1e-2)


def test_other_textures_in_the_same_layout_have_no_distance():
    """Two parts with features of their own: the loss sees which positions are alike, not their features."""
    parts = np.zeros((1, 8, 8, 4), np.float32)
    parts[:, :, :3, 0], parts[:, :, 3:, 1] = 1, 1
    other = np.zeros_like(parts)
    other[:, :, :3, 2], other[:, :, 3:, 3] = 5, 2
    assert loss(other, parts) < 1e-6
    turned = other.transpose(0, 2, 1, 3)  # the parts are above one another instead of side by side
    assert loss(turned, parts) > 0.5


@pytest.mark.parametrize("name", ["equal", "zero", "one zero vector", "uniform", "one position"])
def test_the_loss_and_its_gradient_are_finite_everywhere(name):
    content = features(4, 5, seed=1)
    values = content.copy()
    if name == "zero":
        values[:] = 0
    elif name == "one zero vector":
        values[0, 1, 2] = 0
    elif name == "uniform":
        values[:] = content[:, :1, :1] + 1
    elif name == "one position":
        values, content = values[:, :1, :1], content[:, :1, :1]
    for image, other in ((values, content), (content, values)):
        target = self_similarity_target(tf.constant(other))
        x = tf.constant(image)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = self_similarity_loss(x, target)
        gradient = tape.gradient(y, x).numpy()
        assert 0 <= float(y) <= 2.001
        assert np.isfinite(gradient).all()
        is_zero = ~image.any(-1)
        assert not gradient[is_zero].any()


def test_rounding_errors_of_equal_features_do_not_count():
    uniform = np.repeat(features(1, 1, 64) + 1, 300, 1)
    noise = 1 + 1e-6 * np.random.default_rng(0).normal(size=uniform.shape)
    assert loss((uniform * noise).astype(np.float32), uniform) < 1e-2


def test_bfloat16_features_give_the_loss_of_their_values():
    values, content = (tf.cast(features(9, 8, 16, seed=seed), tf.bfloat16) for seed in (1, 2))
    rounded = [tf.cast(x, tf.float32).numpy() for x in (values, content)]
    target = self_similarity_target(content)
    assert target.distances.dtype == tf.float32
    assert float(self_similarity_loss(values, target)) == pytest.approx(loss(*rounded), rel=1e-5)


def test_a_graph_of_any_size_gives_the_same():
    def both(values, content):
        target = self_similarity_target(content, count=100, seed=7)
        return target, self_similarity_loss(values, target)

    graph = tf.function(both, input_signature=[tf.TensorSpec([1, None, None, 5])] * 2, autograph=False)
    for shape in ((6, 9), (20, 21)):
        values, content = (tf.constant(features(*shape, seed=seed)) for seed in (1, 2))
        (target, value), (expected_target, expected) = graph(values, content), both(values, content)
        assert target.positions.numpy().tolist() == expected_target.positions.numpy().tolist()
        assert float(value) == pytest.approx(float(expected), rel=1e-5)


# The objective


def make_objective(encoder, **options):
    return Objective(
        encoder.features,
        {"conv2_1": 0.25, "conv2_2": 0.75},
        style_layers={"conv1_1": 1.0},
        **{"content_weight": 0.0, "style_weight": 0.0, "self_similarity_weight": 0.5, **options},
    )


def test_the_term_is_the_weighted_sum_over_the_content_layers(small_encoder, content):
    image, target_image = (tf.constant(x[None, :24, :32]) for x in (content[::-1].copy(), content))
    objective = make_objective(small_encoder, self_similarity_seed=9)
    targets = objective.targets(target_image, [objective.style_summary(target_image)])
    terms = objective(image, targets)
    expected = 0.0
    for layer, weight in {"conv2_1": 0.25, "conv2_2": 0.75}.items():
        maps = [small_encoder.features(x)[layer].numpy() for x in (image, target_image)]
        positions = sample_positions(12, 16, seed=9)
        expected += 0.5 * weight * reference.self_similarity_loss(*(at(x, positions) for x in maps))
    assert float(terms["self_similarity"]) == pytest.approx(expected, rel=1e-3)
    assert float(terms["total"]) == pytest.approx(expected, rel=1e-3)
    off = make_objective(small_encoder, self_similarity_weight=0.0)
    targets = off.targets(target_image, [off.style_summary(target_image)])
    assert targets.self_similarity == {}
    assert "self_similarity" not in off(image, targets)


@pytest.mark.parametrize("unit_gradients", [False, True])
def test_the_gradient_of_the_image_is_zero_in_the_kept_region(small_encoder, content, unit_gradients):
    objective = make_objective(small_encoder, unit_gradients=unit_gradients)
    image, target_image = (tf.constant(x[None, :24, :32]) for x in (content[::-1].copy(), content))
    keep = np.zeros((1, 24, 32, 1), np.float32)
    keep[:, :10] = 1
    targets = objective.targets(target_image, [objective.style_summary(target_image)], keep=tf.constant(keep))
    _, gradient = value_and_gradient(objective, image, targets=targets)
    assert np.isfinite(gradient).all()
    assert not gradient[:, :10].numpy().any()
    assert gradient[:, 12:].numpy().any()


def test_tiled_objectives_refuse_it(small_encoder):
    with pytest.raises(ConfigError, match=r"self_similarity needs the whole image.*features.*tile=.off"):
        TiledObjective(make_objective(small_encoder), small_encoder, side=16)


# Options and runs


OPTIONS = {
    "content_layers": ("conv2_2",), "style_layers": ("conv1_1", "conv2_1"), "size": 56, "scales": 2,
    "iterations": 2, "precision": "float32",
}  # fmt: skip
ALONE, BOTH = ("self_similarity",), ("features", "self_similarity")


@pytest.fixture
def paint(small_file, content, style):
    """A function that runs `stylize` on the small images with the small weights."""
    return lambda **options: stylize(content, style, weights=str(small_file), **{**OPTIONS, **options})


@pytest.mark.parametrize("names", [ALONE, BOTH], ids=str)
def test_the_history_has_the_losses_that_content_loss_selects(paint, names):
    """The scales have 140 and 560 positions, and the same graph."""
    history = paint(content_loss=names, self_similarity_weight=0.3, compile="graph").history
    assert len(history.self_similarity) == 4
    assert history.self_similarity[1] > 0
    assert history.self_similarity[3] > 0
    assert any(history.content) == ("features" in names)
    for i in range(4):
        terms = (history.content, history.style, history.tv, history.spectrum, history.self_similarity)
        assert history.total[i] == pytest.approx(sum(term[i] for term in terms), rel=1e-5)
    eager = paint(content_loss=names, self_similarity_weight=0.3, compile="eager").history
    assert history.self_similarity == pytest.approx(eager.self_similarity, rel=1e-2, abs=1e-6)
    assert history.total == pytest.approx(eager.total, rel=1e-2)


def test_runs_without_the_loss_have_no_term(paint):
    assert paint(scales=1).history.self_similarity == [0.0] * 2


@pytest.mark.slow
def test_xla_gives_the_losses_of_the_graph(paint):
    histories = [paint(content_loss=ALONE, compile=how, scales=1).history for how in ("graph", "xla")]
    assert histories[0].self_similarity == pytest.approx(histories[1].self_similarity, rel=1e-2, abs=1e-6)


def test_a_graph_of_the_step_has_targets_with_any_number_of_positions():
    target = self_similarity_target(tf.constant(features(4, 5)))
    targets = Targets({"conv1_1": tf.zeros([1, 4, 5, 8])}, (), {}, (), self_similarity={"conv1_1": target})
    (specs,) = of_any_size((targets,))
    assert isinstance(specs, Targets)
    assert specs.content["conv1_1"].shape.as_list() == [1, None, None, 8]
    assert [spec.shape.as_list() for spec in specs.self_similarity["conv1_1"]] == [[None], [None, None]]


def test_a_higher_weight_keeps_the_layout_better(paint):
    low, high = (
        paint(
            content_loss=ALONE, self_similarity_weight=weight, iterations=12, scales=1, compile="eager"
        ).history
        for weight in (0.001, 10.0)
    )
    assert 0 < high.self_similarity[-1] / 10 < 0.5 * low.self_similarity[-1] / 0.001


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "style_losses": ("mean_deviation", "chain")},
        {"style_losses": ("sliced",), "precision": "bfloat16"},
        {"normalize_gradients": True, "optimizer": "adam"},
        {"padding": "circular", "style_losses": ("histogram",)},
        {"masks": Masks(keep=np.tri(40, 56, dtype=np.float32))},
    ],
    ids=str,
)
def test_it_works_with_other_losses_and_optimisers(paint, options):
    result = paint(content_loss=BOTH, compile="eager", scales=1, **options)
    assert np.isfinite(result.image).all()
    assert np.isfinite(result.history.total).all()
    assert any(result.history.self_similarity)


def test_the_seed_selects_the_positions(small_file):
    config = StyleConfig(weights=str(small_file), content_loss=ALONE, seed=11, **OPTIONS)
    objective = make_setup(config, "/CPU:0").objective
    assert objective.self_similarity_seed == 11
    assert objective.content_weight == 0
    assert objective.self_similarity_weight == config.self_similarity_weight
    features_only = config.replace(content_loss=("features",))
    assert make_setup(features_only, "/CPU:0").objective.self_similarity_weight == 0


def test_the_content_weight_is_that_of_the_features():
    config = StyleConfig(content_weight=2.0, content_loss=ALONE)
    assert content_weight(config, ["conv2_2"]) == 0
    assert content_weight(config.replace(content_weight=None), ["conv2_2"]) == 0
    assert content_weight(config.replace(content_loss=BOTH), ["conv2_2"]) == 2


def test_tiles_are_refused(paint, caplog):
    with pytest.raises(ConfigError, match=r'self_similarity needs the whole image.*tile="off"'):
        paint(tile=32, content_loss=ALONE)
    with caplog.at_level(logging.WARNING, "tfstyle"):
        result = paint(memory=0.001, iterations=1, content_loss=ALONE)
    assert result.facts["tiles"] is None
    assert "cannot be evaluated in tiles: content_loss self_similarity" in caplog.text


def test_a_resumed_run_has_the_same_losses(paint, tmp_path):
    options = {
        "checkpoint": tmp_path / "run",
        "checkpoint_every": 0,
        "content_loss": BOTH,
        "compile": "eager",
    }
    whole = paint(content_loss=BOTH, compile="eager")
    paint(**options, callback=lambda step: step.global_iteration == 3)
    with pytest.raises(ConfigError, match=r"content_loss was .*, is \['features'\]"):
        paint(**{**options, "content_loss": ("features",)}, resume=True)
    resumed = paint(**options, resume=True)
    assert resumed.history.self_similarity == whole.history.self_similarity
    assert np.array_equal(resumed.image, whole.image)


def test_the_command_line(files, small_file):
    command = [
        "stylize", str(files / "content.png"), str(files / "style.png"), "-o", str(files / "out.png"),
        "--weights", str(small_file), "--content-layers", "conv2_2", "--style-layers", "conv1_1",
        "--size", "32", "--iterations", "2", "--history", str(files / "history.json"),
        "--content-loss", "features,self_similarity", "--self-similarity-weight", "0.5",
    ]  # fmt: skip
    assert cli.main(command) == 0
    history = json.loads((files / "history.json").read_text())
    assert history["self_similarity"][-1] > 0
    assert history["content"][-1] > 0


def test_wrong_values_are_refused():
    for options, message in (
        ({"content_loss": ("feature",)}, r"content_loss is 'feature'.*features, self_similarity"),
        ({"content_loss": ("features", "features")}, r"content_loss is .*each name once"),
        ({"self_similarity_weight": -1.0}, r"self_similarity_weight is -1.*at least 0"),
        (
            {"content_loss": ALONE, "self_similarity_weight": 0.0, "style_weight": 0.0, "tv_weight": 0.0},
            r"self_similarity_weight, style_weight and tv_weight are all 0",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            StyleConfig(**options)
    StyleConfig(content_loss=ALONE, content_weight=0.0, style_weight=0.0, tv_weight=0.0)


def test_a_history_can_be_recorded_without_the_term():
    history = History()
    history.record(1, {"total": 1.0, "content": 1.0, "style": 0.0, "tv": 0.0}, seconds=0.1)
    assert (history.self_similarity, history.spectrum, history.temporal) == ([0.0], [0.0], [0.0])
