"""Tests of the parts of a run that its options select: layers, encoder, objective, optimiser and steps."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import tfstyle
from tfstyle import Encoder, adam, preset
from tfstyle.config import CONTENT_WEIGHT, QUALITIES, SHALLOW_HIGH_CONTENT_WEIGHT, StyleConfig
from tfstyle.errors import ConfigError
from tfstyle.layers import Layer
from tfstyle.network import weights
from tfstyle.run import choose_layers, make_setup, plan_scales
from tfstyle.run.setup import LOSS_NORMALIZATIONS, STYLE_LOSSES, VARIATIONS

LAYERS = {"content_layers": ("conv2_1",), "style_layers": ("conv1_1", "conv2_1")}


def test_the_embedded_weights_have_their_own_default_layers(caplog):
    loaded = weights.load_weights("embedded")
    caplog.clear()
    content, style = choose_layers(StyleConfig(), loaded)
    assert content == ("conv2_2",)
    assert style == ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_4")
    assert not caplog.records  # loading the weights has logged a notice
    chosen = choose_layers(StyleConfig(style_layers=("conv2_1",), content_layers=("conv3_1",)), loaded)
    assert chosen == (("conv3_1",), ("conv2_1",))


BLOCKS = [2, 2, 4, 4, 4]  # convolutions in each block of VGG-19


@pytest.mark.parametrize(
    ("last", "default", "paper"),
    [
        ("conv5_1", "conv3_2", "conv4_2"),
        ("conv4_4", "conv3_2", "conv4_2"),
        ("conv4_1", "conv3_2", "conv3_4"),
        ("conv3_1", "conv2_2", "conv2_2"),
        ("conv2_2", "conv2_1", "conv2_1"),
        ("conv1_1", "conv1_1", "conv1_1"),
    ],
)
def test_the_content_layer_of_weights_that_end_early(last, default, paper):
    """Gatys et al. use conv4_2. ``gatys`` chooses it, or the second deepest layer of the weights."""
    names = [f"conv{block}_{i}" for block, count in enumerate(BLOCKS, 1) for i in range(1, count + 1)]
    names = names[: names.index(last) + 1]
    arrays = {Layer.parse(name).keras_name + "/kernel": np.zeros((3, 3, 1, 1), np.float32) for name in names}
    loaded = weights.Weights(arrays, "a file")
    assert choose_layers(StyleConfig(), loaded)[0] == (default,)
    assert choose_layers(StyleConfig(content_layers=("gatys",)), loaded)[0] == (paper,)
    for preset_name in ("gatys2016", "neural-style-pt", "spst"):
        assert choose_layers(preset(preset_name).replace(style_layers=None), loaded)[0] == (paper,)


@pytest.mark.parametrize(
    ("layers", "default"),
    [
        (("conv2_2", "conv3_2", "conv4_2"), "conv3_2"),
        (("conv2_2", "conv4_2"), "conv4_2"),
        (("conv2_2",), "conv2_2"),
    ],
)
def test_the_content_layer_of_an_encoder_of_the_caller(random_vgg, layers, default):
    encoder = Encoder(("conv1_1", *layers), random_vgg)
    assert make_setup(StyleConfig(), "/CPU:0", encoder=encoder).content_layers == (default,)
    config = StyleConfig(content_layers="gatys")
    if "conv4_2" in layers:
        assert make_setup(config, "/CPU:0", encoder=encoder).content_layers == ("conv4_2",)
    else:
        with pytest.raises(ConfigError, match=r"conv1_1, conv2_2\b.*no conv4_2.*content_layers"):
            make_setup(config, "/CPU:0", encoder=encoder)


@pytest.mark.parametrize(
    ("layers", "options", "weight"),
    [
        (("conv1_1", "conv4_1"), {"quality": "high"}, CONTENT_WEIGHT),
        (("conv1_1", "conv2_2"), {"content_layers": ("conv4_2",), "quality": "high"}, CONTENT_WEIGHT),
        (("conv1_1", "conv3_4"), {}, CONTENT_WEIGHT),
        (("conv1_1", "conv3_4"), {"quality": "high"}, SHALLOW_HIGH_CONTENT_WEIGHT),
        (("conv1_1", "conv3_4"), {"quality": "high", "content_weight": 0.5}, 0.5),
        (("conv1_1", "conv4_1"), {"content_weight": 0.0, "content_layers": ("conv4_2",)}, 0.0),
    ],
)
def test_the_default_content_weight_depends_on_layers_and_quality(random_vgg, layers, options, weight):
    """It is lower with quality high if no layer is in block 4 or 5, as with the embedded weights."""
    encoder = Encoder((*layers, "conv2_2", "conv4_2"), random_vgg)
    chosen = {"style_layers": layers, "content_layers": ("conv2_2",)} | options
    setup = make_setup(StyleConfig().replace(chosen), "/CPU:0", encoder=encoder)
    assert setup.objective.content_weight == weight
    assert SHALLOW_HIGH_CONTENT_WEIGHT < CONTENT_WEIGHT


def test_the_result_tells_the_default_content_weight(small_file, content, style):
    for quality, weight in (("standard", CONTENT_WEIGHT), ("high", SHALLOW_HIGH_CONTENT_WEIGHT)):
        result = tfstyle.stylize(content, style, size=32, iterations=1, weights=small_file, quality=quality)
        assert result.config.content_weight is None
        assert result.facts["content_weight"] == weight


def test_the_default_encoder_has_the_content_layers_of_the_defaults_and_of_the_presets(random_vgg):
    encoder = Encoder(weights=random_vgg)
    for config, layer in ((StyleConfig(), "conv3_2"), (preset("neural-style-pt"), "conv4_2")):
        assert make_setup(config, "/CPU:0", encoder=encoder).content_layers == (layer,)


@pytest.fixture(scope="module")
def random_vgg():
    return weights.load_weights("random")


@pytest.fixture
def setup(small_weights):
    encoder = Encoder(("conv1_1", "conv2_1"), small_weights)
    config = StyleConfig(content_layers=("conv2_1",), style_layers=("conv1_1",), lbfgs_history=7)
    return make_setup(config, "/CPU:0", encoder=encoder)


@pytest.mark.parametrize(
    ("iterations", "limit", "pause_every", "expected"),
    [([100], None, 0, 1), ([100, 40], 10, 0, 10), ([100, 36], 10, 0, 4), ([100], 10, 15, 5), ([7], 10, 0, 7)],
)
def test_the_iterations_of_a_call_divide_those_of_every_scale(
    setup, iterations, limit, pause_every, expected
):
    per_call, step = setup.step(iterations, limit, pause_every=pause_every)
    assert per_call == expected
    assert setup.step(iterations, limit, pause_every=pause_every)[1] is step  # from the cache


def test_l_bfgs_with_other_curvature_pairs(setup):
    state = setup.optimizer_with(3).init(tf.zeros([1, 4, 4, 3]))
    assert len(state.s) == len(state.y) == 3
    assert setup.optimizer_with(None) is setup.optimizer_with(7) is setup.optimizer
    assert setup.optimizer_with(3) is setup.optimizer_with(3)


def test_other_styles_share_the_steps_but_no_summaries(setup):
    setup.style_summaries["a style"] = {}
    _, step = setup.step([10], 1)
    other = setup.for_other_styles()
    assert not other.style_summaries
    assert other.step([10], 1)[1] is step
    assert other.encoder is setup.encoder


@pytest.mark.parametrize(
    ("option", "functions"),
    [("style_losses", STYLE_LOSSES), ("loss_normalization", LOSS_NORMALIZATIONS), ("tv_form", VARIATIONS)],
)
def test_every_choice_of_an_option_has_a_function_of_its_own(option, functions):
    (field,) = (field for field in dataclasses.fields(StyleConfig) if field.name == option)
    assert set(functions) == set(field.metadata["choices"])
    assert len({id(function) for function in functions.values()}) == len(functions)


@pytest.fixture
def make(small_file):
    """A function that makes a setup with the small weights and other options."""

    def make_with(**options):
        config = StyleConfig(weights=str(small_file), precision="float32", compile="eager", **LAYERS)
        return make_setup(config.replace(options), "/CPU:0")

    return make_with


def test_the_encoder_has_the_options_of_the_config(make):
    options = {"pooling": "max", "padding": "zeros", "pixel_range": 256.0, "feature_scale": 0.5}
    setup = make(**options)
    assert {name: getattr(setup.encoder, name) for name in options} == options
    assert setup.encoder.dtype == "float32"
    assert (setup.content_layers, setup.style_layers) == (("conv2_1",), ("conv1_1", "conv2_1"))
    assert setup.compiler == "eager"
    default, scaled = make(), make(feature_scale=0.5)
    image = tf.ones([1, 8, 8, 3])
    for layer, features in default.encoder.features(image).items():
        np.testing.assert_allclose(scaled.encoder.features(image)[layer], 0.5 * features, rtol=1e-5)


def test_the_objective_has_the_weights_of_the_config(make):
    """Layer weights are divided by their sum: 1 / 4 and 3 / 4. A loss is linear in the weights."""
    changes = {
        "content_weight": 2.0, "style_weight": 5.0, "tv_weight": 7.0,
        "style_layer_weights": (1, 3), "content_layer_weights": (4,),
    }  # fmt: skip
    image, content, style = tf.constant(np.random.default_rng(0).uniform(size=(3, 1, 16, 16, 3)), tf.float32)

    def terms(setup):
        targets = setup.objective.targets(content, [setup.objective.style_summary(style)])
        return {name: float(term) for name, term in setup.objective(image, targets).items()}

    # Layer weights 1 / 2.
    single = terms(make(content_weight=1.0, style_weight=1.0, tv_weight=1.0, style_layer_decay=1.0))
    weighted = terms(make(**changes))
    for name, factor in {
        "content": 2.0, "tv": 7.0, "style/conv1_1": 5 * 0.25 / 0.5, "style/conv2_1": 5 * 0.75 / 0.5,
    }.items():  # fmt: skip
        assert weighted[name] == pytest.approx(factor * single[name], rel=1e-5), name
        assert single[name] > 0
    assert weighted["total"] == pytest.approx(
        weighted["content"] + weighted["style"] + weighted["tv"], rel=1e-5
    )


@pytest.mark.parametrize(
    "style_layers", [("conv1_1", "conv1_2", "conv2_1"), ("conv2_1", "conv1_1", "conv1_2")]
)
def test_style_layer_decay_is_the_ratio_of_successive_blocks(make, style_layers):
    """Weights 1, 1 and 3 by block, divided by their sum. Weights that are given take precedence."""
    options = {"style_layers": style_layers, "style_layer_decay": 3}
    expected = {"conv1_1": 1 / 5, "conv1_2": 1 / 5, "conv2_1": 3 / 5}
    assert make(**options).objective.style_layers == pytest.approx(expected)
    given = make(**options, style_layer_weights=(1, 1, 2)).objective.style_layers
    assert given == pytest.approx(dict(zip(style_layers, (0.25, 0.25, 0.5), strict=True)))


@pytest.mark.parametrize(("clamp", "expected"), [(True, [0.4, 0.0, 1.0]), (False, [0.4, -0.05, 1.05])])
def test_adams_first_update_is_the_learning_rate(make, clamp, expected):
    """The ratio of the moments is the sign of the gradient, so each pixel moves by 0.1."""
    optimizer = make(optimizer="adam", learning_rate=0.1, clamp=clamp).optimizer
    x, gradient = tf.constant([0.5, 0.05, 0.95]), tf.constant([3.0, 0.2, -8.0])
    moved, _, _ = optimizer.step(lambda x: ({"total": tf.constant(1.0)}, gradient), x, optimizer.init(x))
    np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_ema_decay_averages_the_iterates_of_any_optimizer(make):
    """After one update the average has the weights 0.75 and 1 of the two iterates, divided by 1.75."""
    options = {"ema_decay": 0.75, "learning_rate": 0.1, "optimizer": "adam"}
    x, gradient = tf.constant([0.5]), tf.constant([1.0])
    optimizer = make(**options).optimizer
    moved, state, _ = optimizer.step(lambda x: ({"total": tf.constant(1.0)}, gradient), x, optimizer.init(x))
    assert float(moved[0]) == pytest.approx(0.4, abs=1e-5)
    assert float(optimizer.solution(moved, state)[0]) == pytest.approx((0.75 * 0.5 + 0.4) / 1.75, abs=1e-5)


def test_an_optimizer_of_the_caller_replaces_the_configs(small_encoder):
    optimizer = adam(0.3)
    setup = make_setup(StyleConfig(**LAYERS), "/CPU:0", encoder=small_encoder, optimizer=optimizer)
    assert setup.optimizer is optimizer
    assert setup.lbfgs_pairs is None
    assert setup.optimizer_with(None) is optimizer


def test_random_weights_have_the_seed_of_the_config():
    def kernel(seed):
        config = StyleConfig(
            weights="random", seed=seed, content_layers=("conv1_1",), style_layers=("conv1_1",)
        )
        return make_setup(config, "/CPU:0").encoder.weights.arrays["block1_conv1/kernel"]

    assert np.array_equal(kernel(4), kernel(4))
    assert not np.array_equal(kernel(4), kernel(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"conv1_1, conv2_1,.*no default content.*content_layers"),
        (
            {"content_layers": ("conv2_1",), "style_layers": ("conv3_1",)},
            r"conv2_1\b.*no conv3_1\b.*style_layers",
        ),
    ],
    ids=["defaults", "named"],
)
def test_layers_that_the_callers_encoder_lacks_are_refused(small_weights, options, message):
    encoder = Encoder(("conv1_1", "conv2_1"), small_weights)
    with pytest.raises(ConfigError, match=message):
        make_setup(StyleConfig(**options), "/CPU:0", encoder=encoder)


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("size", [90, 256, 384, 512, 1024, 3000])
def test_one_call_performs_several_iterations_of_a_quality_on_a_gpu(make, quality, size):
    """The limit on a GPU is 10 iterations per call."""
    scales = plan_scales((size, 2 * size // 3), StyleConfig(quality=quality), minimum=16)
    assert make().step([scale.iterations for scale in scales], 10)[0] >= 7
