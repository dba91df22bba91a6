"""Losses that the caller adds to a run: their values, their effect, and where they are refused."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tfstyle import Objective, gram_matrix, iterate, stylize
from tfstyle.errors import ConfigError, NotFiniteError
from tfstyle.optim import value_and_gradient

OPTIONS = {
    "content_layers": ("conv2_2",), "style_layers": ("conv1_1", "conv2_1"), "size": 56, "scales": 1,
    "iterations": 6, "precision": "float32",
}  # fmt: skip


def brightness(image, features):
    return tf.reduce_mean(image)


def contrast(image, features):
    return tf.reduce_mean(tf.square(image - 0.5))


@pytest.fixture
def paint(small_file, content, style):
    """A function that runs `stylize` on the small images with the small weights."""
    return lambda **options: stylize(content, style, weights=str(small_file), **{**OPTIONS, **options})


def test_the_history_has_the_weighted_losses_and_their_sum(paint, content):
    result = paint(extra_losses={"bright": (brightness, 0.5), "flat": (contrast, 2.0)})
    history = result.history
    assert list(history.extra_losses) == ["bright", "flat"]
    # The first image is the content image.
    assert history.extra_losses["bright"][0] == pytest.approx(0.5 * content.mean(), rel=1e-5)
    assert history.extra_losses["flat"][0] == pytest.approx(2 * ((content - 0.5) ** 2).mean(), rel=1e-5)
    for i in range(6):
        terms = (history.content, history.style, history.tv, history.spectrum, *history.extra_losses.values())
        assert history.total[i] == pytest.approx(sum(term[i] for term in terms), rel=1e-5)
    assert history.as_dict()["extra_losses"] == history.extra_losses
    assert paint().history.extra_losses == {}


def test_a_loss_draws_the_image(paint):
    plain = paint(iterations=30).image.mean()
    darker = paint(iterations=30, extra_losses={"bright": (brightness, 30.0)}).image.mean()
    brighter = paint(iterations=30, extra_losses={"bright": (brightness, -30.0)}).image.mean()
    assert darker < plain - 0.1 < plain + 0.1 < brighter


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_function_gets_float32_features_by_layer(paint, precision, content):
    seen = {}

    def remember(image, features):
        seen.update({"image": image, **features})
        return tf.reduce_mean(features["conv2_2"])

    paint(precision=precision, iterations=1, compile="eager", extra_losses={"mean": (remember, 1.0)})
    assert {name: tuple(maps.shape) for name, maps in seen.items()} == {
        "image": (1, 40, 56, 3),
        "conv1_1": (1, 40, 56, 64),
        "conv2_1": (1, 20, 28, 128),
        "conv2_2": (1, 20, 28, 128),
    }
    assert {maps.dtype for maps in seen.values()} == {tf.float32}
    np.testing.assert_allclose(seen["image"][0], content, atol=1e-6)


def test_a_loss_of_features_equals_the_content_loss(paint, small_encoder, content):
    """A second content loss, by the caller, has the value of the run's own."""
    target = small_encoder(content[None])["conv2_2"]
    energy = float(tf.nn.l2_loss(target))

    def second(image, features):
        return tf.nn.l2_loss(features["conv2_2"] - target) / energy

    history = paint(border_weight=1.0, content_weight=1.0, extra_losses={"second": (second, 1.0)}).history
    np.testing.assert_allclose(history.extra_losses["second"], history.content, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{"compile": "xla"}, {"compile": "eager"}, {"steps_per_call": 3}], ids=str
)
def test_every_way_to_run_gives_the_same_losses(paint, options):
    extra = {"flat": (contrast, 2.0)}
    expected, other = (paint(extra_losses=extra, **o).history for o in ({"compile": "graph"}, options))
    assert len(other.extra_losses["flat"]) == 6
    np.testing.assert_allclose(other.extra_losses["flat"], expected.extra_losses["flat"], rtol=2e-3)
    np.testing.assert_allclose(other.total, expected.total, rtol=2e-3)


def test_scales_previews_and_a_given_time_take_it(small_file, content, style):
    sizes = []

    def count(image, features):
        sizes.append(tuple(image.shape[1:3]))  # once for each size, when the step is traced
        return tf.reduce_mean(image)

    options = {**OPTIONS, "scales": 2, "weights": str(small_file), "extra_losses": {"count": (count, 0.1)}}
    steps = list(iterate(content, style, **options))
    assert set(sizes) == {(20, 28), (40, 56)}
    assert all(step.losses["extra/count"] > 0 for step in steps)
    timed = stylize(content, style, seconds=0.5, **options)
    assert len(timed.history.extra_losses["count"]) == len(timed.history.total)


def test_second_derivatives_inside_a_loss_are_right(small_encoder, content, style):
    """A loss may differentiate Gram matrices, although the step uses a form with first derivatives only."""

    def sharpness(image, features):
        with tf.GradientTape() as tape:
            tape.watch(features["conv1_1"])
            energy = tf.nn.l2_loss(gram_matrix(features["conv1_1"]))
        return 1e-9 * tf.nn.l2_loss(tape.gradient(energy, features["conv1_1"]))

    def fast(image, features):
        return sharpness(image, features)

    fast.first_derivatives_only = True
    target = tf.constant(style[None])
    x = content[None, :8, :8].astype(np.float32)
    errors = []
    for function in (sharpness, fast):
        objective = Objective(
            small_encoder.features, {}, style_layers={}, content_weight=0.0, style_weight=0.0,
            extra_losses={"sharpness": (function, 1.0)},
        )  # fmt: skip
        targets = objective.targets(tf.constant(x), [objective.style_summary(target)])
        _, gradient = value_and_gradient(objective, tf.constant(x), targets=targets)
        direction = np.sign(gradient.numpy())
        ahead, behind = (
            float(objective(tf.constant(x + s * 1e-3 * direction), targets)["total"]) for s in (1, -1)
        )
        errors.append(abs(np.sum(gradient * direction) / ((ahead - behind) / 2e-3) - 1))
    assert errors[0] < 0.02
    assert errors[1] > 0.1  # the attribute asks for the faster form


def test_tiles_are_refused(paint, caplog):
    extra = {"flat": (contrast, 2.0)}
    with pytest.raises(ConfigError, match=r'extra_losses \(flat\) need the whole image.*tile="off"'):
        paint(tile=32, extra_losses=extra)
    with caplog.at_level(logging.WARNING, "tfstyle"):
        result = paint(memory=0.001, iterations=1, extra_losses=extra)
    assert result.facts["tiles"] is None
    assert "cannot be evaluated in tiles: extra_losses (flat)" in caplog.text


def test_a_resumed_run_has_the_same_losses_and_refuses_other_weights(paint, tmp_path):
    options = {"checkpoint": tmp_path / "run", "checkpoint_every": 0, "iterations": 8}
    extra = {"flat": (contrast, 2.0), "bright": (brightness, 0.1)}
    whole = paint(iterations=8, extra_losses=extra)
    paint(**options, extra_losses=extra, callback=lambda step: step.iteration == 3)
    with pytest.raises(
        ConfigError, match=r"weights of extra_losses were \{'flat': 2\.0.* are now \{'flat': 1\.0\}"
    ):
        paint(**options, resume=True, extra_losses={"flat": (contrast, 1.0)})
    with pytest.raises(ConfigError, match=r"weights of extra_losses were .* are now \{\}"):
        paint(**options, resume=True)
    resumed = paint(**options, resume=True, extra_losses=extra)
    assert np.array_equal(resumed.image, whole.image)
    assert resumed.history.extra_losses == whole.history.extra_losses


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([brightness], r"extra_losses is a list; give a mapping"),
        ({"": (brightness, 1.0)}, r"has the name ''; give a mapping"),
        ({3: (brightness, 1.0)}, r"has the name 3; give a mapping"),
        ({"a": brightness}, r"the extra loss 'a' is <function"),
        ({"a": (brightness,)}, r"the extra loss 'a' is \(<function"),
        ({"a": (1.0, brightness)}, r"the extra loss 'a' is \(1\.0"),
        ({"a": (brightness, "1")}, r"weight of the extra loss 'a' is '1'; give a finite number"),
        ({"a": (brightness, float("nan"))}, r"weight of the extra loss 'a' is nan"),
        ({"a": (brightness, True)}, r"weight of the extra loss 'a' is True"),
        (
            {"a": (lambda image, features: image, 1.0)},
            r"'a' returned shape \(1, 40, 56, 3\); return",
        ),
        ({"a": (lambda image, features: None, 1.0)}, r"'a' returned a NoneType; return a scalar"),
        ({"a": (lambda image, features: 0.5, 1.0)}, r"'a' returned a float; return a scalar tensor"),
        ({"a": (lambda image, features: tf.constant("x"), 1.0)}, r"'a' returned a string tensor; return"),
    ],
)
def test_wrong_losses_are_refused(paint, wrong, message):
    with pytest.raises(ConfigError, match=message):
        paint(extra_losses=wrong, iterations=1)


def test_a_loss_that_is_not_finite_is_named(paint):
    def broken(image, features):
        return tf.reduce_mean(image) / 0.0

    with pytest.raises(NotFiniteError, match=r"at iteration 1 of scale 1 \(total, extra/broken\)"):
        paint(extra_losses={"broken": (broken, 1.0)}, optimizer="adam")


def test_a_loss_of_unknown_rank_is_a_scalar(paint):
    def measured(image, features):
        return tf.py_function(lambda x: tf.reduce_mean(x), [image], tf.float32)

    assert len(paint(extra_losses={"measured": (measured, 1.0)}).history.total) == 6


def test_a_loss_of_an_edge_filter_agrees_with_numpy(paint, content):
    def edges(image, features):
        return tf.reduce_sum(tf.square(image[:, 1:] - image[:, :-1]))

    value = paint(iterations=1, extra_losses={"edges": (edges, 1.0)}).history.extra_losses["edges"][0]
    assert reference.relative_error(value, (np.diff(content.astype(np.float64), axis=0) ** 2).sum()) < 1e-5
